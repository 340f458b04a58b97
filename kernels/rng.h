// Chance: every random number is a function of what it is for. Philox4x32-10 (Random123) with
//   key = (seed, use), counter = (row, sub, step, epoch)
// so that one thread or sixty-four, CPU or GPU, fresh or resumed, the same run draws the same numbers. No generator object survives a call.
// Integers are bit-identical everywhere; the logarithm, sine and cosine behind normals and exponential keys are polynomials with explicit
// fma (below), because the libraries differ in the last bit.
#pragma once
#include <Random123/philox.h>

#include <cmath>
#include <cstdint>

#include "kernels/late.h"

namespace ccdrec {

enum class Use : uint32_t {  // one number per purpose: two parts never share a stream
  init = 1,
  shuffle,
  neg_uniform,
  prune,
  timestep,
  noise,
  reverse_start,
  reverse_noise,
  candidates,
  cns_rank,
  ndi_item,
  knn_tie,
  synth,
  test,
  hard,
  hard_rank,
  mix,
  popular,
  stats_rows
};

struct Stream {
  uint32_t seed = 0;
  Use use = Use::test;
  uint32_t epoch = 0, step = 0;
};

// The stream with its late values read (late.h).
CCDREC_HD inline Stream resolved(Stream s, const Late* late) {
  s.epoch = late_epoch(s.epoch, late), s.step = late_step(s.step, late);
  return s;
}

struct Draw4 {
  uint32_t v[4];
};

// Four 32-bit integers for (stream, row, sub). `sub` counts redraws or the column block of four.
CCDREC_HD inline Draw4 draw(Stream s, uint32_t row, uint32_t sub = 0) {
  r123::Philox4x32 philox;
  r123::Philox4x32::ctr_type c{{row, sub, s.step, s.epoch}};
  r123::Philox4x32::key_type k{{s.seed, uint32_t(s.use)}};
  c = philox(c, k);
  return {{c[0], c[1], c[2], c[3]}};
}

CCDREC_HD inline float uniform01(uint32_t x) { return float(x >> 8) * 0x1p-24f; }                      // [0,1), 24 bits
CCDREC_HD inline uint32_t below(uint32_t x, uint32_t n) { return uint32_t((uint64_t(x) * n) >> 32); }  // [0,n), bias at most n / 2^32

// log of a float in (0, 2^32): |relative error| < 2e-7 of max(|log|, 1). Same bits wherever fma is exact.
CCDREC_HD inline float portable_log(float x) {
  union {
    float f;
    uint32_t u;
  } b{x};
  int32_t e = int32_t(b.u >> 23) - 127;
  b.u = (b.u & 0x007fffffu) | 0x3f800000u;  // mantissa in [1,2)
  float m = b.f;
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

// Two standard normals from two integers (Box-Muller). 1 - u is in (0,1], so the logarithm is finite.
CCDREC_HD inline void normal_pair(uint32_t a, uint32_t b, float& n0, float& n1) {
  const float r = std::sqrt(-2.0f * portable_log(1.0f - uniform01(a)));
  float s, c;
  portable_sincos_2pi(uniform01(b), s, c);
  n0 = r * c;
  n1 = r * s;
}

}  // namespace ccdrec
