// Stable sort of packed (key << 32 | payload) entries by key, least significant digit first. Private to kernels/cpu.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

namespace ccdrec::cpu {

// Sorts `from` (n) by its upper half, values in [0, limit); `to` (n) is room. Returns whichever of the two holds the
// result. Two passes of a byte each for 50,000 rows: the counters stay in L1.
inline uint64_t* sort_by_high_half(uint64_t* from, uint64_t* to, int64_t n, int64_t limit) {
  const int bits = limit > 1 ? std::bit_width(uint64_t(limit - 1)) : 0;
  const int passes = (bits + 10) / 11, digit = passes ? (bits + passes - 1) / passes : 0;
  uint32_t start[1 << 11];
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = 32 + pass * digit;
    const uint64_t last = (uint64_t(1) << digit) - 1;
    std::memset(start, 0, sizeof(uint32_t) << digit);
    for (int64_t i = 0; i < n; ++i) ++start[(from[i] >> shift) & last];
    uint32_t sum = 0;
    for (uint64_t b = 0; b <= last; ++b) sum += std::exchange(start[b], sum);
    for (int64_t i = 0; i < n; ++i) to[start[(from[i] >> shift) & last]++] = from[i];
    std::swap(from, to);
  }
  return from;
}

}  // namespace ccdrec::cpu
