// How a step goes over its batch: in one pass of forward, backward and update, or in several. Each pass is a step of
// Adam and draws numbers of its own; the batch and its random negatives are the step's.
#pragma once
#include <cmath>
#include <cstdint>
#include <span>

#include "host/base/settings.h"

namespace ccdrec {

// Adam's rate in an epoch (spec baselines 2.4).
inline double rate_of(const Settings& s, int epoch) {
  const double gamma = s.learning_rate_scheduler[0], epochs = s.learning_rate_scheduler[1];
  return gamma == 1 ? s.learning_rate : s.learning_rate * std::pow(gamma, double(epoch) / epochs);
}

struct Pass {
  uint32_t number;  // part of the address of what is drawn, and of the losses that are reported: those of pass 0
  float gradient;   // what its gradient is multiplied by on its way into Adam
};

// Plain training has one pass. Mirror Gradient (spec baselines 10) has two in batches 0, beta, 2 beta, .. of an epoch:
// a step on alpha1 g, then, with g of the same batch at the parameters that it left, one on -alpha2 g. A minimum that
// is flat loses little by the way back.
class Stepping {
 public:
  explicit Stepping(const Settings& s)
      : mirror_{{0, float(s.alpha1)}, {1, float(-s.alpha2)}}, every_(s.use_mg ? s.beta : 0) {}
  std::span<const Pass> passes(int64_t step) const {
    if (every_ > 0 && step % every_ == 0) return mirror_;
    return once_;
  }
  // Adam's steps in so many of an epoch
  int64_t updates(int64_t steps) const { return steps + (every_ > 0 ? (steps + every_ - 1) / every_ : 0); }
  uint32_t most_passes() const { return every_ > 0 ? 2 : 1; }

 private:
  Pass once_[1] = {{0, 1.0f}};
  Pass mirror_[2];
  int64_t every_;  // 0: none has two
};

}  // namespace ccdrec
