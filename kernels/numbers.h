// Functions of numbers that both devices compute with the same bits: exp, log, sine and cosine, Phi, and the integer
// keys that order floats. One source: polynomials with explicit fma, for the libraries differ in the last bit. Loops
// over them fill the lanes of a vector, whose bits are those of one number.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/types.h"

namespace ccdrec {

// exp on [-87, 88]: relative error < 2e-7. Below -87 it stays at exp(-87) = 1.6e-38, nothing beside the 1 that a
// softmax row always holds.
CCDREC_HD inline float portable_exp(float x) {
  x = x < -87.0f ? -87.0f : x;        // a NaN passes
  const float shifter = 12582912.0f;  // 1.5 2^23: adding it rounds to an integer held in the low bits
  const float t = std::fma(x, 1.44269504f, shifter);
  const float n = t - shifter;
  // x - n ln 2, in two pieces; |r| <= ln 2 / 2
  const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;  // (exp(r) - 1 - r) / r^2, Cephes' expf
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  p = std::fma(p, r * r, r) + 1.0f;
  return p * std::bit_cast<float>((std::bit_cast<uint32_t>(t) - 0x4b400000u + 127u) << 23);  // times 2^n
}

// log of a float in (0, 2^32): |relative error| < 2e-7 of max(|log|, 1). Same bits wherever fma is exact.
CCDREC_HD inline float portable_log(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  int32_t e = int32_t(bits >> 23) - 127;
  float m = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f800000u);  // mantissa in [1,2)
  const bool big = m > 1.41421356f;
  m = big ? m * 0.5f : m;
  e = big ? e + 1 : e;  // m in (0.707, 1.414]
  const float z = m - 1.0f, z2 = z * z;
  float p = 7.0376836292e-2f;  // minimax polynomial of (log(1+z) - z + z^2/2) / z^3 (Cephes' logf)
  p = std::fma(p, z, -1.1514610310e-1f);
  p = std::fma(p, z, 1.1676998740e-1f);
  p = std::fma(p, z, -1.2420140846e-1f);
  p = std::fma(p, z, 1.4249322787e-1f);
  p = std::fma(p, z, -1.6668057665e-1f);
  p = std::fma(p, z, 2.0000714765e-1f);
  p = std::fma(p, z, -2.4999993993e-1f);
  p = std::fma(p, z, 3.3333331174e-1f);
  float r = p * z * z2;
  const float fe = float(e);
  r = std::fma(fe, -2.12194440e-4f, r);
  r = std::fma(-0.5f, z2, r);
  return std::fma(fe, 0.693359375f, z + r);
}

// sin and cos of 2 pi x for x in [0,1): |error| < 2e-7.
CCDREC_HD inline void portable_sincos_2pi(float x, float& s, float& c) {
  const float q = std::floor(std::fma(x, 4.0f, 0.5f));      // quarter turns 0..4
  const float y = std::fma(q, -0.25f, x) * 6.28318530718f;  // in [-pi/4, pi/4]; the fma is exact
  const float y2 = y * y;
  float ps = -1.9515295891e-4f, pc = 2.443315711809948e-5f;
  ps = std::fma(ps, y2, 8.3321608736e-3f);
  ps = std::fma(ps, y2, -1.6666654611e-1f);
  ps = std::fma(ps * y2, y, y);
  pc = std::fma(pc, y2, -1.388731625493765e-3f);
  pc = std::fma(pc, y2, 4.166664568298827e-2f);
  pc = std::fma(pc * y2, y2, std::fma(-0.5f, y2, 1.0f));
  const int k = int(q) & 3;
  const float a = (k & 1) ? pc : ps, b = (k & 1) ? ps : pc;
  s = (k & 2) ? -a : a;
  c = (k == 1 || k == 2) ? -b : b;
}

// Phi(u) and phi(u) of the standard normal. Phi by Abramowitz and Stegun 7.1.26 (7.5e-8) and its rounding in float:
// |error| < 4e-7.
CCDREC_HD inline void normal_cdf(float u, float& cdf, float& pdf) {
  const float x = std::fabs(u) * 0.70710678f, t = 1.0f / std::fma(0.3275911f, x, 1.0f), e = portable_exp(-x * x);
  float p = 1.061405429f;
  p = std::fma(p, t, -1.453152027f);
  p = std::fma(p, t, 1.421413741f);
  p = std::fma(p, t, -0.284496736f);
  p = std::fma(p, t, 0.254829592f);
  const float tail = 0.5f * p * t * e;  // P(N > |u|)
  cdf = u < 0 ? tail : 1.0f - tail;
  pdf = 0.39894228f * e;
}

// A float as an unsigned integer of the same order; -0 as 0. Below every number (-inf is 0x007fffff) come NaN and what
// is excluded.
constexpr uint32_t kExcludedKey = 0, kNanKey = 1;
CCDREC_HD inline uint32_t ordered_key(float x) {
  const uint32_t b = std::bit_cast<uint32_t>(x + 0.0f);
  return x != x ? kNanKey : b ^ (uint32_t(int32_t(b) >> 31) | 0x80000000u);
}
CCDREC_HD inline float key_value(uint32_t key) {  // NaN for both marks
  const uint32_t b = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  return std::bit_cast<float>(key <= kNanKey ? 0x7fc00000u : b);
}
// The same keys as signed integers, which vectors compare.
CCDREC_HD constexpr int32_t signed_key(uint32_t key) { return int32_t(key ^ 0x80000000u); }
CCDREC_HD constexpr uint32_t unsigned_key(int32_t key) { return uint32_t(key) ^ 0x80000000u; }

}  // namespace ccdrec
