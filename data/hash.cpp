#include "data/hash.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace ccdrec {

namespace {

// A bijection of 64 bits in which every input bit moves every output bit (multiply, xor-shift, twice).
uint64_t mix(uint64_t x) {
  x ^= x >> 32;
  x *= 0xe9846af9b1a615dULL;
  x ^= x >> 32;
  x *= 0xe9846af9b1a615dULL;
  return x ^ (x >> 28);
}

uint64_t word(const unsigned char* p) {
  uint64_t w;
  std::memcpy(&w, p, 8);
  return w;
}

// Four lanes hide the latency of the multiplication: about 10 GB/s.
uint64_t hash_block(const unsigned char* p, size_t n, uint64_t seed) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15ULL;  // 2^64 / golden ratio
  uint64_t lane[4] = {seed ^ 1, seed ^ 2, seed ^ 3, seed ^ 4};
  size_t at = 0;
  for (; at + 32 <= n; at += 32)
    for (int l = 0; l < 4; ++l) lane[l] = std::rotl(lane[l] ^ word(p + at + 8 * l), 29) * kOdd;
  uint64_t h = n;
  for (uint64_t l : lane) h = mix(h ^ l) * kOdd;
  for (; at < n; at += 8) {
    uint64_t w = 0;
    std::memcpy(&w, p + at, std::min<size_t>(8, n - at));
    h = mix(h ^ w) * kOdd;
  }
  return mix(h);
}

}  // namespace

uint64_t hash_bytes(const void* bytes, size_t n, uint64_t seed) {
  // Blocks of a fixed size are hashed side by side and joined in order: the value does not depend on the thread count.
  constexpr size_t kBlock = size_t(1) << 20;
  const unsigned char* p = static_cast<const unsigned char*>(bytes);
  const int64_t blocks = int64_t((n + kBlock - 1) / kBlock);
  if (blocks <= 1) return hash_block(p, n, mix(seed));
  std::vector<uint64_t> part(size_t(blocks), 0);
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; ++b)
    part[size_t(b)] = hash_block(p + size_t(b) * kBlock, std::min(kBlock, n - size_t(b) * kBlock), mix(seed));
  return hash_block(reinterpret_cast<const unsigned char*>(part.data()), part.size() * 8, mix(seed ^ n));
}

std::string hex16(uint64_t v) {
  std::string s(16, '0');
  for (size_t i = 16; i-- > 0; v >>= 4) s[i] = "0123456789abcdef"[v & 15];
  return s;
}

}  // namespace ccdrec
