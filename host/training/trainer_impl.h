// What a Trainer holds; shared with the checkpoint code and nobody else.
#pragma once
#include "host/training/metrics.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"

namespace ccdrec {

struct Trainer::Impl {
  Impl(const Settings&, const Dataset&);
  EvalResult evaluate();

  Settings s;
  const Dataset& data;
  std::unique_ptr<Device> device;
  std::unique_ptr<Recommender> model;
  std::unique_ptr<Evaluation> evaluation;
  // No validation rows, or a metric of them that is the same for every model: the latest model evaluated stands as the
  // best.
  bool blind = false;
  std::string blind_note;  // of the second kind; also among the notes
  std::string metric;      // what early stopping watches, e.g. recall@20
  std::vector<std::string> notes;

  // where the run is
  int epoch = 0;          // epoch to run next, or being run
  int64_t next_step = 0;  // > 0: in the middle of `epoch`
  Losses partial;         // its losses so far
  int failures = 0;       // evaluations since the last improvement
  TrainSummary summary;
};

}  // namespace ccdrec
