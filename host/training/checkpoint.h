// What a checkpoint says of the run that wrote it, read from its header alone: before graphs are built and memory is
// taken.
#pragma once
#include <string>

#include "host/base/settings.h"
#include "host/training/trainer.h"

namespace ccdrec {

struct SavedRun {
  int epoch = 0;          // to run next, or being run
  int64_t next_step = 0;  // > 0: in the middle of it
  int failures = 0;       // evaluations since the last improvement
  int best_epoch = -1;    // -1: none that the continued run knows
  double best_score = -1;
  int saved_best = -1;  // the best epoch that the file itself names: its model is kept as long as the file is
};

// last.safetensors as a run with these settings goes on from it. UserError: no state of a run, a number that cannot be,
// or one that has gone further than `epochs`.
SavedRun saved_run(const std::string& path, const Settings&);
bool is_over(const SavedRun&, const Settings&);  // nothing is left to do: all epochs done, or stopped early

// Epochs that are evaluated whatever happens. Another one is evaluated only when a run ends before the first of these;
// it is forgotten when the run goes on after all, or the longer run would take another course than one that never
// stopped.
inline bool evaluated_by_plan(const Settings& s, int epoch) {
  return s.eval_step <= 1 || (epoch + 1) % s.eval_step == 0;
}

int best_epoch_of(const std::string& path);  // of best.safetensors; -1: there is none, or it is no checkpoint of a run

// Of which run a checkpoint is, best or last. A text is empty where the file does not tell: written by an earlier
// program, or by another.
struct RunIdentity {
  std::string settings, columns;   // those that decide numbers; the columns read of the .inter file
  std::string interactions, data;  // Dataset::interactions, Dataset::checksum
  TrainSummary summary;            // the best epoch so far and its metrics
};
// of the header alone. UserError: no safetensors file, numbers in it that cannot be
RunIdentity run_identity(const std::string& path);
// The settings that decide a run's numbers, as one text: two runs with the same text on the same data are one run.
std::string settings_fingerprint(const Settings&);
// How these settings differ from those of the run: "dropout = 0.8 there and 0.5 in this run". Empty: they do not.
std::string other_settings(const RunIdentity&, const Settings&);

// UserError: a checkpoint that was computed from other data, or with other settings (named, with both values).
void check_same_run(const std::string& path, const Settings&, const std::string& data_checksum);

}  // namespace ccdrec
