// Finished runs in one file that outlives their folders (bench/results/accuracy.json): each enters when it ends, and
// what stands there is not trained again.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/experiments/planned_run.h"

namespace ccdrec {

class Results {
 public:
  Results() = default;
  // UserError: a file that is there and is not of this form, or a place that cannot be written.
  explicit Results(const std::string& path);
  // Its summary with what the file adds (label, command, plan_bytes, epoch_seconds); null: it is not there.
  const nlohmann::ordered_json* find(const PlannedRun&) const;
  // The run in `folder`, which is over, and the file is written anew; what another program wrote meanwhile stays.
  void add(const PlannedRun&, const std::string& folder);
  // A paired comparison of two lines, replacing that of the same lines, metric and data.
  void add_test(const nlohmann::ordered_json&);
  const nlohmann::ordered_json* find_test(const nlohmann::ordered_json& which) const;
  bool keeps() const { return !path_.empty(); }

 private:
  void read();
  void write() const;
  std::string path_;
  nlohmann::ordered_json runs_ = nlohmann::ordered_json::array(), tests_ = nlohmann::ordered_json::array();
};

// What a run left of an epoch and of the way to its best one, from metrics.jsonl.
struct RunTimes {
  double epoch = 0;    // mean seconds of a training epoch, evaluation apart; of those after the first where there are
  double to_best = 0;  // training and evaluation up to the best epoch
  std::map<std::string, double> phases;  // mean seconds by phase
};
RunTimes run_times(const std::string& folder, int best_epoch);

}  // namespace ccdrec
