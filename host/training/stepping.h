// How a step goes over its batch: in one pass of forward, backward and update, or in several. Each pass is a step of
// Adam and draws numbers of its own; the batch and its random negatives are the step's.
#pragma once
#include <cstdint>
#include <span>

namespace ccdrec {

struct Pass {
  uint32_t number;  // part of the address of what is drawn, and of the losses that are reported: those of pass 0
  float gradient;   // what its gradient is multiplied by on its way into Adam
};

class Stepping {  // plain training: one pass
 public:
  std::span<const Pass> passes(int64_t) const { return once_; }
  int64_t updates(int64_t steps) const { return steps; }  // Adam's steps in so many of an epoch
  uint32_t most_passes() const { return 1; }

 private:
  Pass once_[1] = {{0, 1.0f}};
};

}  // namespace ccdrec
