// Sums in double by eight fixed lanes, as kernels/cuda/reduce.h has them by eight threads: the same bits on both
// devices wherever the terms are the same. Private to kernels/cpu.
#pragma once
#include "kernels/cpu/fast/lanes.h"

namespace ccdrec::cpu {

constexpr int kLanes = 8;  // term j goes to lane j % 8

inline double sum_lanes(const double (&lane)[kLanes]) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// Products of floats are exact in double.
inline double dot_in_double(const float* a, const float* b, int64_t d) {
  double lane[kLanes] = {};
  each8(d, [&](int64_t j, int64_t n) {
    for (int64_t l = 0; l < n; ++l) lane[l] += double(a[j + l]) * double(b[j + l]);
  });
  return sum_lanes(lane);
}

}  // namespace ccdrec::cpu
