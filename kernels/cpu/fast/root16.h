// A square root made of fma, sixteen floats at a time, correctly rounded: the bits of the instruction, without the unit
// that it shares with division. Private to kernels/cpu and to the bench that measures its limit.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f")))

namespace ccdrec::cpu {

// root = g + (v - g^2) h is the correctly rounded square root when g is within an ulp of sqrt(v), h of 1 / (2 sqrt(v)),
// and the remainder v - g^2 is exact. The estimate (14 bits) and one coupled Newton step give such a pair;
// Adam.SquareRootOfEveryMantissa tries all 2^24 cases of two binades, and all others are these times a power of 4.
// Exact means: v far enough from both ends of the exponent, 2^-96 <= v <= 2^120. Zero is outside.
AVX512 inline __m512 root16(__m512 v) {
  // the plain form reads what GCC 12 calls uninitialised
  const __m512 half = _mm512_set1_ps(0.5f), r = _mm512_maskz_rsqrt14_ps(0xffff, v);
  __m512 g = _mm512_mul_ps(v, r), h = _mm512_mul_ps(half, r);
  const __m512 e = _mm512_fnmadd_ps(g, h, half);
  g = _mm512_fmadd_ps(g, e, g), h = _mm512_fmadd_ps(h, e, h);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(g, g, v), h, g);
}
AVX512 inline __m512 sqrt16(__m512 v) { return _mm512_maskz_sqrt_ps(0xffff, v); }  // the instruction

}  // namespace ccdrec::cpu
#endif
