// The training loop: epochs of prune, shuffle, steps, reverse process, evaluation, early stopping (spec ccdrec 6,
// baselines 2.5, 2.6), with a state that can be saved at any step and resumed bit for bit.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/base/settings.h"
#include "host/training/metrics.h"

namespace ccdrec {

struct PlanLine {
  std::string what;
  size_t bytes;
};
struct MemoryPlan {             // of the device, known before training starts: plan.cpp
  std::vector<PlanLine> lines;  // parameters, gradients, optimiser, graphs, features, step, evaluation, scratch
  size_t total() const;
};

struct EpochReport {
  int epoch = 0;
  int64_t steps = 0;
  double loss = 0;                       // mean over steps of the whole loss
  std::map<std::string, double> losses;  // parts, by the names that the model gives them (means over steps)
  std::map<std::string, double>
      seconds;  // prune, sample, forward, backward, optimiser, hardness, reverse, evaluation; train
  bool evaluated = false;
  Metrics valid, test;
  bool improved = false;
  bool latest = false;                     // no validation metric can select: improved by being the latest
  std::map<std::string, double> hardness;  // of its negatives (training/hardness.h); empty: not measured
  std::map<std::string, double> figures;   // of Model::figures
  // which pool the curricular negatives came from: random, 3T/4, T/2, T/4, 0, model
  std::string negatives;
};

enum class StopReason { running, early, max_epochs, interrupted, diverged };

struct TrainSummary {
  int best_epoch = -1, epochs_run = 0;
  double best_score = -1;  // rounded to 4 decimals, what was compared
  Metrics best_valid, best_test;
  StopReason reason = StopReason::running;
  bool latest = false;  // no validation metric can select: the last epoch evaluated stands as the best
  double train_seconds = 0, eval_seconds = 0;
  std::string message;  // one sentence, e.g. where a NaN appeared
};

struct StepTimes {                      // seconds, measured on a few steps: what an epoch will take
  double begin = 0, step = 0, end = 0;  // graphs and order, a batch, reverse process and what else ends an epoch
  double evaluation = 0;
  int64_t steps = 0;  // of an epoch
  double epoch() const { return begin + step * double(steps) + end; }
};

struct TrainHooks {
  std::function<void(int epoch, int64_t step, int64_t steps)> on_step;  // after each step
  std::function<void(const EpochReport&)> on_epoch;                     // after each epoch
  // when validation improved: save the best checkpoint here
  std::function<void()> on_best;
  // polled after each step; true = stop after this step
  std::function<bool()> interrupted;
};

class Trainer {
 public:
  // Builds graphs (kNN through settings.graph_cache), takes all memory, initialises parameters. UserError for settings
  // out of their ranges, or that the data cannot serve.
  Trainer(const Settings&, const Dataset&);
  ~Trainer();
  // UserError for all that the data cannot serve; takes nothing
  static void check_settings(const Settings&, const Dataset&);
  static MemoryPlan plan(const Settings&, const Dataset&);  // likewise
  // Values of its dense parameters, for a model that plans for itself; 0 for others.
  static int64_t own_parameters(const Settings&, const Dataset&);
  // its part that operations ask for: a GPU takes it before anything else
  static ScratchPlan scratch(const Settings&, const Dataset&);
  // sentences for the log: tied kNN rows, kept edges, device, instruction set, ...
  const std::vector<std::string>& notes() const;

  TrainSummary run(const TrainHooks&);
  // Trains `steps` steps of an epoch that has all its parts, and evaluates. The trainer is of no use for a run after
  // it.
  StepTimes time_steps(int steps);
  // All state of the run at this step. Parameters under PyTorch-style names (user_embedding.weight,
  // item_id_embedding.weight, image_embedding.weight, image_trs.weight (out,in), image_trs.bias, ...), the final
  // representations (final.user (U,d), final.item (I,d)) in the best checkpoint, optimiser moments (adam.m.*,
  // adam.v.*), pools, counters in the metadata.
  void save_best(const std::string& path);   // parameters + final representations
  void save_state(const std::string& path);  // everything needed to resume
  // UserError: other settings or data (fingerprints differ), wrong shapes, old version
  void load_state(const std::string& path);
  int epoch() const;          // epoch to run next, or being run
  int64_t next_step() const;  // > 0: in the middle of that epoch

  const Dataset& data() const;
  size_t device_bytes() const;  // most memory taken on the device at a time: arrays, scratch, workspaces
  class Recommender& model();   // for tests and benches
  class Device& device();       // likewise

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ccdrec
