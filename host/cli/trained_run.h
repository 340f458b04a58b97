// A run folder as evaluate, recommend and export need it: settings, data, the final representations of the best epoch.
#pragma once
#include <string>
#include <vector>

#include "host/cli/cli.h"
#include "host/run_folder.h"
#include "host/safetensors.h"
#include "kernels/types.h"

namespace ccdrec::cli {

struct TrainedRun {
  RunFolder folder;
  Config config;
  Dataset data;        // interactions and ids; features are not opened
  TensorFile tensors;  // final.user (U,d), final.item (I,d), or all when asked for
  CMat hu, hi;         // views of the two
};

// UserError: no run, no best.safetensors, data whose ids are not those the run was trained with, representations that hold NaN.
TrainedRun load_run(const std::string& run_dir, const std::string& data_folder, Io&);

std::vector<int> parse_topk(const std::string& text, const std::vector<int>& standard);  // "5,10,20"

}  // namespace ccdrec::cli
