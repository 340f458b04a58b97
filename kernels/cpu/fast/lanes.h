// Eight float lanes, and the few row operations that the estimator and the reverse process share. Private to
// kernels/cpu.
// One fma per lane and term, lanes always eight: the same bits with AVX2, AVX-512 or none (then the compiler spells the
// lanes out).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

#include "kernels/numbers.h"
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wpsabi"  // without AVX a V8 travels in memory; every function here is inline, so no ABI is at stake
#endif

namespace ccdrec::cpu {

typedef float V8 __attribute__((vector_size(32)));

inline V8 load8(const float* p) {
  V8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline V8 load8(const float* p, int64_t n) {  // n < 8 floats, the rest 0
  V8 v{};
  std::memcpy(&v, p, size_t(n) * sizeof(float));
  return v;
}
inline void store8(float* p, const V8& v) { std::memcpy(p, &v, sizeof v); }
inline void store8(float* p, const V8& v, int64_t n) { std::memcpy(p, &v, size_t(n) * sizeof(float)); }
inline V8 splat8(float x) { return V8{x, x, x, x, x, x, x, x}; }
inline V8 fma8(const V8& a, const V8& b, const V8& c) {
#if defined(__AVX2__) && defined(__FMA__)
  return V8(_mm256_fmadd_ps(a, b, c));
#else
  V8 r;
  for (int l = 0; l < 8; ++l) r[l] = std::fma(a[l], b[l], c[l]);
  return r;
#endif
}
inline float sum8(const V8& v) {  // ((v0+v4)+(v2+v6)) + ((v1+v5)+(v3+v7))
#if defined(__AVX2__) && defined(__FMA__)
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)),
               two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}

// portable_exp of each lane, its bits.
typedef uint32_t U8 __attribute__((vector_size(32)));
inline V8 exp8(const V8& v) {
  const V8 least = splat8(-87.0f), shifter = splat8(12582912.0f);
  const V8 x = v < least ? least : v;  // a NaN passes
  const V8 t = fma8(x, splat8(1.44269504f), shifter), n = t - shifter;
  const V8 r = fma8(n, splat8(2.12194440e-4f), fma8(n, splat8(-0.693359375f), x));
  V8 p = splat8(1.9875691500e-4f);
  p = fma8(p, r, splat8(1.3981999507e-3f));
  p = fma8(p, r, splat8(8.3334519073e-3f));
  p = fma8(p, r, splat8(4.1665795894e-2f));
  p = fma8(p, r, splat8(1.6666665459e-1f));
  p = fma8(p, r, splat8(5.0000001201e-1f));
  p = fma8(p, r * r, r) + splat8(1.0f);
  const U8 two_to_n = (std::bit_cast<U8>(t) - 0x4b400000u + 127u) << 23;
  return p * std::bit_cast<V8>(two_to_n);
}

// Calls f(j, n) for the eights of a row: n = 8 lanes, fewer at the end.
template <class F>
inline void each8(int64_t d, F&& f) {
  int64_t j = 0;
  for (; j + 8 <= d; j += 8) f(j, int64_t(8));
  if (j < d) f(j, d - j);
}
inline V8 take8(const float* p, int64_t n) { return n == 8 ? load8(p) : load8(p, n); }
inline void put8(float* p, const V8& v, int64_t n) { n == 8 ? store8(p, v) : store8(p, v, n); }

inline float dot(const float* a, const float* b, int64_t d) {
  V8 sum{};
  each8(d, [&](int64_t j, int64_t n) { sum = fma8(take8(a + j, n), take8(b + j, n), sum); });
  return sum8(sum);
}
inline void axpy(float* y, float w, const float* x, int64_t d) {  // y += w x
  const V8 w8 = splat8(w);
  each8(d, [&](int64_t j, int64_t n) { put8(y + j, fma8(w8, take8(x + j, n), take8(y + j, n)), n); });
}

// x = (token - mean) rstd over d, no affine parameters. Returns rstd. Two passes: the variance of a constant row is 0.
inline float layer_norm_row(float* x, const float* token, int64_t d) {
  V8 sum{}, squares{};
  each8(d, [&](int64_t j, int64_t n) { sum += take8(token + j, n); });
  const float mean = sum8(sum) / float(d);
  each8(d, [&](int64_t j, int64_t n) {
    V8 c = take8(token + j, n) - splat8(mean);
    if (n < 8) {
      for (int64_t l = n; l < 8; ++l) c[l] = 0;
    }
    squares = fma8(c, c, squares);
  });
  const float rstd = 1.0f / std::sqrt(sum8(squares) / float(d) + 1e-5f);
  each8(d, [&](int64_t j, int64_t n) { put8(x + j, (take8(token + j, n) - splat8(mean)) * splat8(rstd), n); });
  return rstd;
}

// Softmax over c of the scores s[(r*K + c)*n + i], for every row r and item i < n: items innermost, so that they fill
// the lanes, whose bits are those of numbers.h one by one. Then w[c*n + i] = mean over r of a_rc.
inline void softmax_items(float* s, float* w, int64_t K, int64_t n, float scale) {
  for (int64_t c = 0; c < K * n; ++c) w[c] = 0;
  for (int64_t r = 0; r < K; ++r) {
    float* s_r = s + r * K * n;
    for (int64_t i = 0; i < n; ++i) {
      float top = s_r[i], sum = 0;
      for (int64_t c = 1; c < K; ++c) top = s_r[c * n + i] > top ? s_r[c * n + i] : top;
      for (int64_t c = 0; c < K; ++c) {
        const float e = portable_exp((s_r[c * n + i] - top) * scale);
        s_r[c * n + i] = e;
        sum += e;
      }
      const float inv = 1.0f / sum;
      for (int64_t c = 0; c < K; ++c) {
        s_r[c * n + i] *= inv;
        w[c * n + i] += s_r[c * n + i];
      }
    }
  }
  const float inv_k = 1.0f / float(K);
  for (int64_t c = 0; c < K * n; ++c) w[c] *= inv_k;
}

}  // namespace ccdrec::cpu
