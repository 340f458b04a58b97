// The entry of a drawn rank in a row of keys: similar_negative, filtered_negative. Private to kernels/cpu.
#pragma once
#include <algorithm>
#include <climits>

#include "kernels/cpu/fast/microkernel.h"
#include "kernels/numbers.h"

namespace ccdrec::cpu {

constexpr int32_t kExcluded = signed_key(kExcludedKey);

inline int64_t count_above(const int32_t* key, int64_t n, int32_t limit) {  // n is a multiple of eight
  const int64_t part = n / 4;
  int32_t above[4] = {};  // four vectors a turn
  for (int64_t c = 0; c < part; ++c)
    for (int64_t q = 0; q < 4; ++q) above[q] += key[q * part + c] > limit;
  return (above[0] + above[1]) + (above[2] + above[3]);
}

// Position of rank r (0 = best) by key descending, then position; n is a multiple of eight. Bisection on the key, each
// step one vector pass over a row that lies in L1, until few keys are left between the bounds. Invariant: above(hi) <=
// r < above(lo), with above(x) = #{key > x}.
inline int64_t position_of_rank(const MicroKernel& mk, const int32_t* key, int64_t n, int64_t r) {
  constexpr int64_t kFew = 8;
  int32_t lo = kExcluded, hi = INT_MAX;
  int64_t above_lo = count_above(key, n, lo), above_hi = 0;
  while (int64_t(hi) - lo > 1 && above_lo - above_hi > kFew) {
    const int32_t mid = int32_t((int64_t(lo) + hi) >> 1);
    const int64_t above = count_above(key, n, mid);
    if (above > r)
      lo = mid, above_lo = above;
    else
      hi = mid, above_hi = above;
  }
  int64_t left = r - above_hi;
  if (int64_t(hi) - lo == 1) {  // one key, all ties: by position
    for (int64_t c = 0;; ++c)
      if (key[c] == hi && left-- == 0) return c;
  }
  int32_t at[kFew];
  const int64_t m = mk.between(at, key, n, lo, hi);
  uint64_t few[kFew];  // (key descending, position ascending) as one ascending integer
  for (int64_t j = 0; j < m; ++j) few[j] = uint64_t(int64_t(hi) - key[at[j]]) << 32 | uint64_t(at[j]);
  std::nth_element(few, few + left, few + m);
  return int64_t(few[left] & 0xffffffffu);
}

}  // namespace ccdrec::cpu
