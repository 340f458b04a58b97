#include "kernels/cpu/fast/adam_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/fast/adam16.h"
#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/microkernel.h"

namespace ccdrec::cpu {
namespace {

inline V8 sqrt8(const V8& v) {
#if defined(__AVX2__) && defined(__FMA__)
  return V8(_mm256_sqrt_ps(v));
#else
  V8 r;
  for (int l = 0; l < 8; ++l) r[l] = std::sqrt(v[l]);
  return r;
#endif
}

// The hardware's prefetchers stop at the end of a page: at the beginning of each the first lines of the next are asked
// for.
inline void ask_next_page(const float* p, const float* m, const float* v, int64_t j, int64_t n) {
  constexpr int64_t kPage = 1024;
  if (j % kPage == 0 && j + kPage < n)
    for (const float* next : {p + j + kPage, m + j + kPage, v + j + kPage})
      __builtin_prefetch(next), __builtin_prefetch(next + kLine);
}

// Eight elements and the one definition of a step. A replay keeps them in registers: only p, m, v themselves chain from
// step to step, one add or fma each, so divide and square root of successive steps overlap and their throughput is the
// limit.
struct Element8 {
  V8 p, m, v;
  void moments(const AdamHyper& h, AdamRest rest, const V8& g) {
    m = fma8(splat8(h.beta1), m, splat8(rest.m) * g);
    v = fma8(splat8(h.beta2), v, splat8(rest.v) * g * g);
  }
  void decay(const AdamHyper& h) {  // moments() of a zero gradient with factor 1: what it adds is +0
    m = fma8(splat8(h.beta1), m, V8{});
    v = fma8(splat8(h.beta2), v, V8{});
  }
  void move(const AdamHyper& h, AdamCoef c) { p = p - splat8(c.c1) * m / fma8(sqrt8(v), splat8(c.c2), splat8(h.eps)); }
};

// G eights side by side: what one waits for, the others fill. `last`: the lanes of the last that are elements. Four, or
// a root of two by fma as below, replay faster in registers and for rows that missed sixty steps, and not in an epoch
// (Zen 3; docs/tried.md).
template <int G>
struct Eights {
  Element8 e[G];
  int64_t last;
  int64_t lanes(int q) const { return q + 1 < G ? 8 : last; }
  Eights(const float* p, const float* m, const float* v, int64_t lanes_of_last) : last(lanes_of_last) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q)
      e[q] = {p ? take8(p + 8 * q, lanes(q)) : V8{}, take8(m + 8 * q, lanes(q)), take8(v + 8 * q, lanes(q))};
  }
  void store(float* p, float* m, float* v) const {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) {
      if (p) put8(p + 8 * q, e[q].p, lanes(q));
      if (m) put8(m + 8 * q, e[q].m, lanes(q)), put8(v + 8 * q, e[q].v, lanes(q));
    }
  }
  // Bit for bit: a step would turn -0 into +0. Zero-gradient steps change nothing where m and v are zero.
  bool at_rest() const {
    uint64_t any = 0;
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) {
      uint64_t m[4], v[4];
      std::memcpy(m, &e[q].m, sizeof m), std::memcpy(v, &e[q].v, sizeof v);
      any |= m[0] | m[1] | m[2] | m[3] | v[0] | v[1] | v[2] | v[3];
    }
    return any == 0;
  }
  void decay(const AdamHyper& h) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].decay(h);
  }
  void moments(const AdamHyper& h, AdamRest rest, const float* g) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].moments(h, rest, take8(g + 8 * q, lanes(q)));
  }
  // f g + weight_decay p in the place of the gradient
  void decayed_moments(const AdamHyper& h, AdamRest rest, float f, const float* g) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) {
      const V8 given = g ? splat8(f) * take8(g + 8 * q, lanes(q)) : V8{};
      e[q].moments(h, rest, fma8(splat8(h.weight_decay), e[q].p, given));
    }
  }
  void move(const AdamHyper& h, AdamCoef c) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].move(h, c);
  }
};

// Calls f(how many eights, first element, lanes of the last) for n elements.
template <class F>
inline void by_eights(int64_t n, F&& f) {
#if defined(__AVX2__) && defined(__FMA__)
  constexpr int kSide = 2;
#else
  constexpr int kSide = 1;  // spelled out, eight lanes fill the registers alone
#endif
  int64_t j = 0;
  for (; j + 8 * kSide <= n; j += 8 * kSide) f(std::integral_constant<int, kSide>(), j, int64_t(8));
  for (; j < n; j += 8) f(std::integral_constant<int, 1>(), j, std::min<int64_t>(8, n - j));
}

template <bool kDecays>
void step_by_eight(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule& s, int64_t t) {
  if (!kDecays && s.hyper.weight_decay != 0) return step_by_eight<true>(p, m, v, g, n, s, t);
  const AdamRest rest = adam_rest(s);
  by_eights(n, [&](auto side, int64_t j, int64_t lanes) {
    Eights<side()> e(p + j, m + j, v + j, lanes);
    if (!kDecays && !g && e.at_rest()) return;
    if (kDecays)
      e.decayed_moments(s.hyper, rest, s.gradient, g ? g + j : nullptr);
    else if (g)
      e.moments(s.hyper, rest, g + j);
    else
      e.decay(s.hyper);
    e.move(s.hyper, s.coef[t - 1]);
    e.store(p + j, m + j, v + j);
  });
}

void gradient_by_eight(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule& s, int64_t moments,
                       int64_t t) {
  const AdamRest rest = adam_rest(s);
  by_eights(n, [&](auto side, int64_t j, int64_t lanes) {
    Eights<side()> e(p ? p + j : nullptr, m + j, v + j, lanes);
    for (int64_t u = moments + 1; u < t; ++u) e.decay(s.hyper);
    e.moments(s.hyper, rest, g + j);
    if (p) e.move(s.hyper, s.coef[t - 1]);
    e.store(p ? p + j : nullptr, m + j, v + j);
  });
}

void catch_up_by_eight(float* p, float* m, float* v, int64_t n, const AdamSchedule& s, Reached at, int64_t t,
                       bool keep) {
  by_eights(n, [&](auto side, int64_t j, int64_t lanes) {
    ask_next_page(p, m, v, j, n);
    Eights<side()> e(p + j, m + j, v + j, lanes);
    if (e.at_rest()) return;
    if (at.value < at.moments) e.move(s.hyper, s.coef[at.moments - 1]);
    int64_t u = at.moments + 1;
    for (; u <= at.value; ++u) e.decay(s.hyper);
    for (; u <= t; ++u) e.decay(s.hyper), e.move(s.hyper, s.coef[u - 1]);
    e.store(p + j, keep ? m + j : nullptr, v + j);
  });
}

constexpr AdamRow kByEight = {step_by_eight<false>, gradient_by_eight, catch_up_by_eight};

#if defined(__x86_64__)
// G sixteens side by side: what one waits for, the others fill. `in`: the lanes of the last that are elements. Four
// together take 10 to 15 % less time than one after another (rows of 4,096 out of memory that missed none to seven
// steps).
template <int G>
struct Sixteens {
  Element16 e[G];
  __mmask16 in;
  AVX512 __mmask16 lanes(int q) const { return q + 1 < G ? __mmask16(0xffff) : in; }
  AVX512 Sixteens(const float* p, const float* m, const float* v, __mmask16 in_last) : in(in_last) {
    const __m512 one = _mm512_set1_ps(1.0f);
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q)
      e[q] = {p ? _mm512_maskz_loadu_ps(lanes(q), p + 16 * q) : one, _mm512_maskz_loadu_ps(lanes(q), m + 16 * q),
              _mm512_mask_loadu_ps(one, lanes(q), v + 16 * q)};
  }
  AVX512 void store(float* p, float* m, float* v) const {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) {
      if (p) _mm512_mask_storeu_ps(p + 16 * q, lanes(q), e[q].p);
      if (m) _mm512_mask_storeu_ps(m + 16 * q, lanes(q), e[q].m), _mm512_mask_storeu_ps(v + 16 * q, lanes(q), e[q].v);
    }
  }
  AVX512 bool at_rest() const {
    __m512i any = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q)
      any = _mm512_or_si512(any, _mm512_maskz_mov_epi32(lanes(q), _mm512_or_si512(_mm512_castps_si512(e[q].m),
                                                                                  _mm512_castps_si512(e[q].v))));
    return _mm512_test_epi32_mask(any, any) == 0;
  }
  AVX512 bool all_fit() const {
    bool fits = true;
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) fits &= fit(e[q].v);
    return fits;
  }
  AVX512 void decay(const AdamHyper& h) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].decay(h);
  }
  AVX512 void moments(const AdamHyper& h, AdamRest rest, const float* g) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].moments(h, rest, _mm512_maskz_loadu_ps(lanes(q), g + 16 * q));
  }
  AVX512 void decayed_moments(const AdamHyper& h, AdamRest rest, float f, const float* g) {
    const __m512 factor = _mm512_set1_ps(f), decay = _mm512_set1_ps(h.weight_decay);
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) {
      const __m512 given = g ? _mm512_mul_ps(factor, _mm512_maskz_loadu_ps(lanes(q), g + 16 * q)) : _mm512_setzero_ps();
      e[q].moments(h, rest, _mm512_fmadd_ps(decay, e[q].p, given));
    }
  }
  template <int kByUnit>  // roots of the first so many by the instruction, the others by fma
  AVX512 void move(const AdamHyper& h, AdamCoef c) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].move(h, c, q < kByUnit ? sqrt16(e[q].v) : root16(e[q].v));
  }
  template <int kByUnit>
  AVX512 void move_if_fit(const AdamHyper& h, AdamCoef c) {
    if (all_fit())
      move<kByUnit>(h, c);
    else
      move<G>(h, c);
  }
  template <int kByUnit>
  AVX512 void catch_up(const AdamSchedule& s, Reached at, int64_t t) {
    if (at.value < at.moments) move<kByUnit>(s.hyper, s.coef[at.moments - 1]);
    int64_t u = at.moments + 1;
    for (; u <= at.value; ++u) decay(s.hyper);
    for (; u <= t; ++u) decay(s.hyper), move<kByUnit>(s.hyper, s.coef[u - 1]);
  }
};

template <bool kDecays, int kByUnit, int G>
AVX512 inline void step_sixteens(float* p, float* m, float* v, const float* g, __mmask16 in, const AdamSchedule& s,
                                 AdamRest rest, int64_t t) {
  Sixteens<G> e(p, m, v, in);
  if (!kDecays && !g && e.at_rest()) return;
  if (kDecays)
    e.decayed_moments(s.hyper, rest, s.gradient, g);
  else if (g)
    e.moments(s.hyper, rest, g);
  else
    e.decay(s.hyper);
  e.template move_if_fit<kByUnit>(s.hyper, s.coef[t - 1]);
  e.store(p, m, v);
}

template <int kByUnit, int G>
AVX512 inline void gradient_sixteens(float* p, float* m, float* v, const float* g, __mmask16 in, const AdamSchedule& s,
                                     AdamRest rest, int64_t moments, int64_t t) {
  Sixteens<G> e(p, m, v, in);
  for (int64_t u = moments + 1; u < t; ++u) e.decay(s.hyper);
  e.moments(s.hyper, rest, g);
  if (p) e.template move_if_fit<kByUnit>(s.hyper, s.coef[t - 1]);
  e.store(p, m, v);
}

template <int kByUnit, int G>
AVX512 inline void catch_up_sixteens(float* p, float* m, float* v, __mmask16 in, const AdamSchedule& s, Reached at,
                                     int64_t t, bool keep) {
  Sixteens<G> e(p, m, v, in);
  if (e.at_rest()) return;
  if (e.all_fit() && stays_fit(s.hyper, t - at.moments))
    e.template catch_up<kByUnit>(s, at, t);
  else
    e.template catch_up<G>(s, at, t);
  e.store(p, keep ? m : nullptr, v);
}

// Calls f(how many sixteens, first element, lanes of the last) for n elements.
template <class F>
AVX512 inline void by_sixteens(int64_t n, F&& f) {
  constexpr int kSide = 4;
  int64_t j = 0;
  for (; j + 16 * kSide <= n; j += 16 * kSide) f(std::integral_constant<int, kSide>(), j, __mmask16(0xffff));
  for (; j < n; j += 16)
    f(std::integral_constant<int, 1>(), j, n - j >= 16 ? __mmask16(0xffff) : __mmask16((1u << (n - j)) - 1));
}

template <int kByUnit, bool kDecays = false>
AVX512 void step_by_sixteens(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule& s,
                             int64_t t) {
  if (!kDecays && s.hyper.weight_decay != 0) return step_by_sixteens<kByUnit, true>(p, m, v, g, n, s, t);
  const AdamRest rest = adam_rest(s);
  by_sixteens(
      n, [&](auto side, int64_t j, __mmask16 in) __attribute__((target("avx512f"), always_inline)) {
        step_sixteens<kDecays, kByUnit, side()>(p + j, m + j, v + j, g ? g + j : nullptr, in, s, rest, t);
      });
}
template <int kByUnit>
AVX512 void gradient_by_sixteens(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule& s,
                                 int64_t moments, int64_t t) {
  const AdamRest rest = adam_rest(s);
  by_sixteens(
      n, [&](auto side, int64_t j, __mmask16 in) __attribute__((target("avx512f"), always_inline)) {
        gradient_sixteens<kByUnit, side()>(p ? p + j : nullptr, m + j, v + j, g + j, in, s, rest, moments, t);
      });
}
template <int kByUnit>
AVX512 void catch_up_by_sixteens(float* p, float* m, float* v, int64_t n, const AdamSchedule& s, Reached at, int64_t t,
                                 bool keep) {
  by_sixteens(
      n, [&](auto side, int64_t j, __mmask16 in) __attribute__((target("avx512f"), always_inline)) {
        ask_next_page(p, m, v, j, n);
        catch_up_sixteens<kByUnit, side()>(p + j, m + j, v + j, in, s, at, t, keep);
      });
}

template <int kByUnit>
constexpr AdamRow kBySixteens = {step_by_sixteens<kByUnit>, gradient_by_sixteens<kByUnit>,
                                 catch_up_by_sixteens<kByUnit>};
#endif

}  // namespace

const AdamRow& adam_row_here() {
#if defined(__x86_64__)
  if (&micro_kernel() == find_kernel("avx512")) return __builtin_cpu_is("amd") ? kBySixteens<2> : kBySixteens<0>;
#endif
  return kByEight;
}

}  // namespace ccdrec::cpu
