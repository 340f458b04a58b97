// The register tile of microkernel.h with AVX-512, term by term, so that other work can stand between the terms.
// Private to kernels/cpu.
#pragma once
#include "kernels/cpu/fast/microkernel.h"
#include "kernels/cpu/fast/root16.h"

namespace ccdrec::cpu {

// A[r,t] of a tile: rows in place, a panel, or columns of the transpose's rows. One pointer instead of mr leaves
// registers: with twelve pointers and a stride the compiler kept some of them in vector registers, and each move back
// took a cycle from the fma.
template <int mr>
float term(const float* const* rows, int r, int64_t t) {
  return rows[r][t];
}
template <int mr>
float term(const float* panel, int r, int64_t t) {
  return panel[t * mr + r];
}
struct Columns {
  const float* const* row;
  int64_t first;
};
template <int mr>
float term(const Columns& a, int r, int64_t t) {
  const float* row = a.row[t] + a.first;
#if defined(__x86_64__)
  asm("" : "+r"(row));  // else the compiler keeps first, first + 1, .. in registers, and not all of them find one
#endif
  return row[r];
}

#if defined(__x86_64__)
// 24 accumulators, 2 registers of B, 1 of A: 27 of 32.
struct Tile512 {
  static constexpr int mr = 12, nr = 32;
  __m512 sum[mr][2];
  AVX512 __attribute__((always_inline)) Tile512() {
#pragma GCC unroll 12
    for (int r = 0; r < mr; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  }
  template <class A>  // row pointers, a panel or Columns
  AVX512 __attribute__((always_inline)) void add_term(A a, const float* b, int64_t t) {
    const __m512 b0 = _mm512_loadu_ps(b + t * nr), b1 = _mm512_loadu_ps(b + t * nr + 16);
#pragma GCC unroll 12
    for (int r = 0; r < mr; ++r) {
      const __m512 a_r = _mm512_set1_ps(term<mr>(a, r, t));
      sum[r][0] = _mm512_fmadd_ps(a_r, b0, sum[r][0]);
      sum[r][1] = _mm512_fmadd_ps(a_r, b1, sum[r][1]);
    }
  }
  AVX512 __attribute__((always_inline)) void store(float* c, int64_t ldc, bool add) {
#pragma GCC unroll 12
    for (int r = 0; r < mr; ++r) {
      float* c_r = c + r * ldc;
      if (add) {
        sum[r][0] = _mm512_add_ps(_mm512_loadu_ps(c_r), sum[r][0]);
        sum[r][1] = _mm512_add_ps(_mm512_loadu_ps(c_r + 16), sum[r][1]);
      }
      _mm512_storeu_ps(c_r, sum[r][0]);
      _mm512_storeu_ps(c_r + 16, sum[r][1]);
    }
  }
};
#endif

}  // namespace ccdrec::cpu
