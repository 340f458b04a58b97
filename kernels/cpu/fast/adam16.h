// A step of Adam on sixteen elements: the bits of Element8 (adam_row.cpp). Private to kernels/cpu.
#pragma once
#include "kernels/adam.h"
#include "kernels/cpu/fast/root16.h"

#if defined(__x86_64__)
namespace ccdrec::cpu {

// Divide and square root share one slow unit; a square root made of fma (root16.h) leaves it to the divisions and
// overlaps with them: 3.9 G steps a second on a core where the two instructions together reach 2.1 (Xeon with AVX-512,
// replayed steps). On AMD's Zen 4 that unit is faster and fma of this width are half as fast: there two of four roots
// go each way (kByUnit): 4.9 G, 4.0 with all of them by fma, 3.3 with none.
constexpr float kLeast = 0x1p-90f, kMost = 0x1p120f;
AVX512 inline bool fit(__m512 v) {  // for root16; a NaN is not
  return (_mm512_cmp_ps_mask(v, _mm512_set1_ps(kLeast), _CMP_GE_OQ) &
          _mm512_cmp_ps_mask(v, _mm512_set1_ps(kMost), _CMP_LE_OQ)) == 0xffff;
}
// 0.999^4000 = 2^-5.8: what was fit before a replay stays above 2^-96 throughout, unless beta2 is smaller than that.
inline bool stays_fit(const AdamHyper& h, int64_t decays) { return h.beta2 >= 0.999f && decays <= 4000; }

struct Element16 {
  __m512 p, m, v;
  AVX512 void moments(const AdamHyper& h, AdamRest rest, __m512 g) {
    m = _mm512_fmadd_ps(_mm512_set1_ps(h.beta1), m, _mm512_mul_ps(_mm512_set1_ps(rest.m), g));
    v = _mm512_fmadd_ps(_mm512_set1_ps(h.beta2), v, _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(rest.v), g), g));
  }
  AVX512 void decay(const AdamHyper& h) {  // moments() of a zero gradient with factor 1: what it adds is +0
    m = _mm512_fmadd_ps(_mm512_set1_ps(h.beta1), m, _mm512_setzero_ps());
    v = _mm512_fmadd_ps(_mm512_set1_ps(h.beta2), v, _mm512_setzero_ps());
  }
  AVX512 void move(const AdamHyper& h, AdamCoef c, __m512 root) {
    const __m512 below = _mm512_fmadd_ps(root, _mm512_set1_ps(c.c2), _mm512_set1_ps(h.eps));
    p = _mm512_sub_ps(p, _mm512_div_ps(_mm512_mul_ps(_mm512_set1_ps(c.c1), m), below));
  }
};

}  // namespace ccdrec::cpu
#endif
