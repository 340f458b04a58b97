// Sixteen float lanes for the U-Net, whose lanes are items: one register with AVX-512, else two of lanes.h. One fma per
// lane and term, the same order everywhere: the same bits with AVX-512, AVX2 or none. Private to kernels/cpu.
#pragma once
#include "kernels/cpu/fast/lanes.h"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ccdrec::cpu {

constexpr int64_t kLanes = 16;

// 1 / (1 + exp(-z)) of N of GCC's vectors at a time, F floats, I integers: one alone is a chain of 100 cycles, and few of
// them fit into the processor's window.
#define EACH_OF_N _Pragma("GCC unroll 8") for (int k = 0; k < N; ++k)
template <class F, class I, int N>
struct LanesOf {
  static F splat(float x) { return x - F{}; }
  static F at_least(F x, float least) {  // a NaN passes
#if defined(__AVX512F__)
    return F(_mm512_maskz_max_ps(0xffff, splat(least), x));  // the second where one is NaN
#else
    return x < splat(least) ? splat(least) : x;
#endif
  }
  // portable_exp of numbers.h, lane by lane
  template <class Fma>
  static void exp(F (&x)[N], Fma&& fma) {
    F t[N], n[N], p[N];
    EACH_OF_N x[k] = at_least(x[k], -87.0f);
    EACH_OF_N t[k] = fma(x[k], splat(1.44269504f), splat(12582912.0f));
    EACH_OF_N n[k] = t[k] - splat(12582912.0f);
    EACH_OF_N x[k] = fma(n[k], splat(-0.693359375f), x[k]);
    EACH_OF_N x[k] = fma(n[k], splat(2.12194440e-4f), x[k]);
    EACH_OF_N p[k] = splat(1.9875691500e-4f);
    for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
      EACH_OF_N p[k] = fma(p[k], x[k], splat(c));
    }
    EACH_OF_N p[k] = fma(p[k], x[k] * x[k], x[k]) + splat(1.0f);
    EACH_OF_N x[k] = p[k] * F((I(t[k]) - 0x4b400000 + 127) << 23);
  }
  // The reciprocal of d in [1, 1e38] from the bits' own estimate, 12 % off, and two steps of third order: a division
  // takes 16 cycles, as much as all the rest.
  template <class Fma>
  static void sigmoid(F (&s)[N], const F (&z)[N], Fma&& fma) {
    F d[N], e[N];
    EACH_OF_N d[k] = -at_least(z[k], -87.0f);
    exp(d, fma);
    EACH_OF_N d[k] = d[k] + splat(1.0f);
    EACH_OF_N s[k] = F(0x7ef311c3 - I(d[k]));
    for (int step = 0; step < 2; ++step) {
      EACH_OF_N e[k] = fma(-d[k], s[k], splat(1.0f));
      EACH_OF_N e[k] = fma(e[k], e[k], e[k]);
      EACH_OF_N s[k] = fma(s[k], e[k], s[k]);
    }
  }
};
#undef EACH_OF_N

#if defined(__AVX512F__)
constexpr bool kWideLanes = true;
typedef float V16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));

inline V16 load16(const float* p) { return V16(_mm512_loadu_ps(p)); }
inline void store16(float* p, V16 v) { _mm512_storeu_ps(p, v); }
inline V16 splat16(float x) { return V16(_mm512_set1_ps(x)); }
inline V16 fma16(V16 a, V16 b, V16 c) { return V16(_mm512_fmadd_ps(a, b, c)); }
inline V16 sqrt16_of(V16 v) { return V16(_mm512_maskz_sqrt_ps(0xffff, v)); }
template <int N>
inline void sigmoid16(V16 (&s)[N], const V16 (&z)[N]) {
  LanesOf<V16, I16, N>::sigmoid(s, z, fma16);
}
inline V16 kept16(V16 v, uint32_t lanes) { return V16(_mm512_maskz_mov_ps(__mmask16(lanes), v)); }  // else 0

// Lane l of the result sums the lanes of v[l]: ((0+8)+(4+12)) + ((2+10)+(6+14)) and so on. Each step adds what two
// vectors have in their lower and upper halves, quarters, ...: a blend and a permutation.
inline V16 sums16(const float* v) {
  const auto step = [](V16 a, V16 b, __mmask16 of_b, __m512i crossed) {
    return V16(_mm512_mask_blend_ps(of_b, a, b)) + V16(_mm512_permutex2var_ps(a, crossed, b));
  };
  const __m512i by8 = _mm512_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23);
  const __m512i by4 = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
  const __m512i by2 = _mm512_setr_epi32(2, 3, 16, 17, 6, 7, 20, 21, 10, 11, 24, 25, 14, 15, 28, 29);
  const __m512i by1 = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
  V16 half[8], quarter[4];
  for (int k = 0; k < 8; ++k) half[k] = step(load16(v + k * kLanes), load16(v + (k + 8) * kLanes), 0xff00, by8);
  for (int k = 0; k < 4; ++k) quarter[k] = step(half[k], half[k + 4], 0xf0f0, by4);
  const V16 even = step(quarter[0], quarter[2], 0xcccc, by2), odd = step(quarter[1], quarter[3], 0xcccc, by2);
  return step(even, odd, 0xaaaa, by1);
}
#else
constexpr bool kWideLanes = false;
typedef int32_t I8 __attribute__((vector_size(32)));
struct V16 {
  V8 lo, hi;
};

inline V16 load16(const float* p) { return {load8(p), load8(p + 8)}; }
inline void store16(float* p, const V16& v) { store8(p, v.lo), store8(p + 8, v.hi); }
inline V16 splat16(float x) { return {splat8(x), splat8(x)}; }
inline V16 fma16(const V16& a, const V16& b, const V16& c) { return {fma8(a.lo, b.lo, c.lo), fma8(a.hi, b.hi, c.hi)}; }
inline V16 operator+(const V16& a, const V16& b) { return {a.lo + b.lo, a.hi + b.hi}; }
inline V16 operator-(const V16& a, const V16& b) { return {a.lo - b.lo, a.hi - b.hi}; }
inline V16 operator*(const V16& a, const V16& b) { return {a.lo * b.lo, a.hi * b.hi}; }
inline V16 operator/(const V16& a, const V16& b) { return {a.lo / b.lo, a.hi / b.hi}; }
inline V16 operator-(const V16& a) { return {-a.lo, -a.hi}; }
inline V16& operator+=(V16& a, const V16& b) { return a = a + b; }
inline V16 sqrt16_of(V16 v) {
  for (int l = 0; l < 8; ++l) v.lo[l] = std::sqrt(v.lo[l]), v.hi[l] = std::sqrt(v.hi[l]);
  return v;
}
template <int N>
inline void sigmoid16(V16 (&s)[N], const V16 (&z)[N]) {
  for (int k = 0; k < N; ++k) {  // 16 registers have no room for more
    const V8 half[2] = {z[k].lo, z[k].hi};
    V8 y[2];
    LanesOf<V8, I8, 2>::sigmoid(y, half, fma8);
    s[k] = {y[0], y[1]};
  }
}
inline V16 kept16(V16 v, uint32_t lanes) {  // else 0
  const I8 bit = {1, 2, 4, 8, 16, 32, 64, 128};
  const I8 all{};
  v.lo = V8(I8(v.lo) & (((all + int32_t(lanes & 255)) & bit) != 0));
  v.hi = V8(I8(v.hi) & (((all + int32_t(lanes >> 8)) & bit) != 0));
  return v;
}
// Lane l of the result sums the lanes of v[l]: ((0+8)+(4+12)) + ((2+10)+(6+14)) and so on.
inline V16 sums16(const float* v) {
  float sum[16];
  for (int k = 0; k < 16; ++k) {
    const V16 of = load16(v + k * kLanes);
    float s[8];
    store8(s, of.lo + of.hi);
    sum[k] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
  return load16(sum);
}
#endif

}  // namespace ccdrec::cpu
