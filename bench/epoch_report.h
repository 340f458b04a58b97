// What bench_epoch found, as data, as JSON and as the table that is committed.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/ceilings.h"

namespace ccdrec::bench {

struct Timing {
  double median = 0, min = 0, max = 0;    // seconds an epoch
  double flop = 0, bytes = 0, roots = 0;  // of the work (work.h)
};
struct CaseResult {
  std::string name, setting;                           // "CCDRec", "B 512, T 20"
  int64_t steps = 0;                                   // an epoch has
  int epochs = 0;                                      // measured, after one that is dropped
  int epochs_direct = 0;                               // GPU: epochs of direct steps, which the phases are from
  int64_t timed_steps = 0;                             // > 0: the epoch was extrapolated from this many steps
  std::vector<std::pair<std::string, Timing>> phases;  // in the order they run; "epoch" = all but the evaluation
  double step_median_ms = 0;                           // of the timed steps
  // highest resident set of the process in 10^6 bytes; graphs, kNN, initialisation
  double peak_mb = 0, setup_seconds = 0;
  bool knn_cached = false;  // the kNN lists were read, not computed
  std::string negatives;
};
struct Target {
  std::string what, unit;
  double target = 0, stretch = 0, got = 0;
};  // got = 0: not measured in this run

nlohmann::json to_json(const CaseResult&);
CaseResult case_from_json(const nlohmann::json&);

struct Report {
  std::string command, data;
  std::string gpu, precision;  // empty: the CPU
  int threads = 0;
  Ceilings ceilings;
  double load = 0;
  bool with_targets = false;  // targets_apply
  std::vector<CaseResult> cases;
};
// Targets are of the Baby sizes, in whole epochs: of this class of CPU, and of an H200 in FP32.
bool targets_apply(const std::string& preset, int64_t steps, const std::string& device, const std::string& precision);
std::vector<Target> targets(const Report&);  // empty where they do not apply
nlohmann::json report_json(const Report&);
std::string report_markdown(const Report&);

}  // namespace ccdrec::bench
