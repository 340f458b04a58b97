// Late values: arguments that are known only when a recorded step is replayed. A CUDA step is captured once as a graph
// and replayed for every batch; what changes from batch to batch - epoch, step, the batch's first row, Adam's t - then
// lives in device memory. While a step is recorded the model runs with the stand-ins below in place of the numbers and
// passes them on untouched; a kernel turns them into the numbers. An argument that is no stand-in is taken as it is, so
// the same kernels serve recorded and direct calls.
#pragma once
#include <cstdint>

#include "kernels/types.h"

namespace ccdrec {

struct Late {  // in device memory, advanced by one kernel at the end of a replay
  uint32_t epoch = 0, step = 0;
  int64_t first = 0;  // step * batch
  int64_t t = 0;      // Adam's steps done
};

constexpr uint32_t kLateEpoch = 0xfffffff0u, kLateStep = 0xfffffff1u;
constexpr int64_t kLateFirst = int64_t(1) << 60;  // kLateFirst + k stands for first + k, |k| < 2^40
constexpr int64_t kLateT = int64_t(1) << 62;      // kLateT + k stands for t + k

CCDREC_HD inline bool is_late(int64_t v) { return v > (int64_t(1) << 59); }
CCDREC_HD inline uint32_t late_epoch(uint32_t v, const Late* l) { return v == kLateEpoch ? l->epoch : v; }
CCDREC_HD inline uint32_t late_step(uint32_t v, const Late* l) { return v == kLateStep ? l->step : v; }
CCDREC_HD inline int64_t late_first(int64_t v, const Late* l) { return is_late(v) ? l->first + (v - kLateFirst) : v; }
CCDREC_HD inline int64_t late_t(int64_t v, const Late* l) { return is_late(v) ? l->t + (v - kLateT) : v; }

}  // namespace ccdrec
