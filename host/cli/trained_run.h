// A run folder as evaluate, recommend and export need it: settings, data, the final representations of the best epoch.
#pragma once
#include <string>
#include <vector>

#include "host/base/safetensors.h"
#include "host/cli/cli.h"
#include "host/files/run_folder.h"
#include "kernels/types.h"

namespace ccdrec::cli {

// What every line of output says of results from other interactions than the run's.
constexpr const char* kNotComparable = "not comparable";

struct TrainedRun {
  RunFolder folder;
  Config config;
  Dataset data;        // interactions and ids; features are not opened
  TensorFile tensors;  // final.user (U,d), final.item (I,d), or all when asked for
  CMat hu, hi;         // views of the two
  bool comparable;     // false: other interactions, and the user wants to go on with them
};

// UserError: no run, no best.safetensors, files that contradict each other, data whose ids are not those the run was
// trained with, or (without `other_data`) whose interactions are not, representations that hold NaN.
TrainedRun load_run(const std::string& run_dir, const std::string& data_folder, bool other_data, Io&);

// The checkpoints say which run a folder holds, and config.yaml and summary.json must not contradict them. UserError:
// one does, each named.
void check_run(const RunFolder&, const Settings&, Io&);

// Without -d: the folder the run was trained with, which must still be there. UserError: it is not.
std::string run_data_folder(const Settings&, const std::string& given);

// Are these the interactions the run was trained with: rows, split and mapping? Else UserError, or false and a note
// where `other_data` allows them.
bool check_interactions(const RunFolder&, const Settings&, const Dataset&, bool other_data, Io&);

std::vector<int> parse_topk(const std::string& text, const std::vector<int>& standard);  // "5,10,20"

}  // namespace ccdrec::cli
