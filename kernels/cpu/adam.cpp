#include "kernels/adam.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/adam_row.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/microkernel.h"
#include "kernels/cpu/root16.h"

namespace ccdrec {

// The betas are taken as the floats they are, here and in the element function: then m c1 and v c2^2 are exact weighted means of the gradients.
AdamCoef adam_coef(double lr, AdamHyper h, int64_t t) {
  const double b1 = std::pow(double(h.beta1), double(t)), b2 = std::pow(double(h.beta2), double(t));
  return {float(lr / (1 - b1)), float(1 / std::sqrt(1 - b2))};
}

namespace cpu {
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

// Eight elements and the one definition of a step. A replay keeps them in registers: only p, m, v themselves chain from step to step, one add or
// fma each, so divide and square root of successive steps overlap and their throughput is the limit.
struct Element8 {
  V8 p, m, v;
  void step(const AdamHyper& h, AdamCoef c, const V8& g) {
    const float rest1 = float(1.0 - double(h.beta1)), rest2 = float(1.0 - double(h.beta2));
    m = fma8(splat8(h.beta1), m, splat8(rest1) * g);
    v = fma8(splat8(h.beta2), v, splat8(rest2) * g * g);
    p = p - splat8(c.c1) * m / fma8(sqrt8(v), splat8(c.c2), splat8(h.eps));
  }
};

// Bit for bit: a step would turn -0 into +0.
inline bool at_rest(const Element8& e) {
  uint64_t m[4], v[4];
  std::memcpy(m, &e.m, sizeof m), std::memcpy(v, &e.v, sizeof v);
  return (m[0] | m[1] | m[2] | m[3] | v[0] | v[1] | v[2] | v[3]) == 0;
}

// Steps first .. t of n = 8 elements or fewer; g (null: zero) belongs to step t. Zero-gradient steps change nothing where m and v are zero.
inline void step8(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule& s, int64_t first, int64_t t) {
  Element8 e{take8(p, n), take8(m, n), take8(v, n)};
  if ((first < t || !g) && at_rest(e)) {
    if (!g) return;
    first = t;
  }
  for (int64_t u = first; u < t; ++u) e.step(s.hyper, s.coef[u - 1], V8{});
  e.step(s.hyper, s.coef[t - 1], g ? take8(g, n) : V8{});
  put8(p, e.p, n), put8(m, e.m, n), put8(v, e.v, n);
}

void step_row_by_eight(float* p, float* m, float* v, const float* g, int64_t cols, const AdamSchedule& s, int64_t first, int64_t t) {
  int64_t j = 0;
  for (; j + 8 <= cols; j += 8) step8(p + j, m + j, v + j, g ? g + j : nullptr, 8, s, first, t);
  if (j < cols) step8(p + j, m + j, v + j, g ? g + j : nullptr, cols - j, s, first, t);
}

#if defined(__x86_64__)
// The same step on sixteen elements, bit for bit. Divide and square root share one slow unit; a square root made of fma (root16.h) leaves it to the
// divisions and overlaps with them: 3.9 G steps a second on a core where the two instructions together reach 2.1 (Xeon with AVX-512, replayed steps).
// 0.999^4000 = 2^-5.8: what was fit before a replay stays above 2^-96 throughout, unless beta2 is smaller than that.
constexpr float kLeast = 0x1p-90f, kMost = 0x1p120f, kLeastBeta2 = 0.999f;
constexpr int64_t kMostReplayed = 4000;
AVX512 inline bool fit(__m512 v) {  // a NaN is not
  return (_mm512_cmp_ps_mask(v, _mm512_set1_ps(kLeast), _CMP_GE_OQ) & _mm512_cmp_ps_mask(v, _mm512_set1_ps(kMost), _CMP_LE_OQ)) == 0xffff;
}

struct Element16 {
  __m512 p, m, v;
  AVX512 void moments(const AdamHyper& h, __m512 g) {
    const float rest1 = float(1.0 - double(h.beta1)), rest2 = float(1.0 - double(h.beta2));
    m = _mm512_fmadd_ps(_mm512_set1_ps(h.beta1), m, _mm512_mul_ps(_mm512_set1_ps(rest1), g));
    v = _mm512_fmadd_ps(_mm512_set1_ps(h.beta2), v, _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(rest2), g), g));
  }
  AVX512 void move(const AdamHyper& h, AdamCoef c, __m512 root) {
    const __m512 below = _mm512_fmadd_ps(root, _mm512_set1_ps(c.c2), _mm512_set1_ps(h.eps));
    p = _mm512_sub_ps(p, _mm512_div_ps(_mm512_mul_ps(_mm512_set1_ps(c.c1), m), below));
  }
};

// G sixteens side by side: what one waits for, the others fill. `in`: the lanes of the last that are elements. Four together take 10 to 15 % less time
// than one after another (rows of 4,096 out of memory that missed none to seven steps).
template <int G>
AVX512 inline void step_sixteens(float* p, float* m, float* v, const float* g, __mmask16 in, const AdamSchedule& s, int64_t first, int64_t t) {
  const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
  const __mmask16 whole = 0xffff;
  Element16 e[G];
  bool all_fit = s.hyper.beta2 >= kLeastBeta2 && t - first <= kMostReplayed;
  __m512i any = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int q = 0; q < G; ++q) {
    const __mmask16 lanes = q + 1 < G ? whole : in;
    e[q] = {_mm512_maskz_loadu_ps(lanes, p + 16 * q), _mm512_maskz_loadu_ps(lanes, m + 16 * q), _mm512_mask_loadu_ps(one, lanes, v + 16 * q)};
    const __m512i bits = _mm512_or_si512(_mm512_castps_si512(e[q].m), _mm512_castps_si512(e[q].v));
    any = _mm512_or_si512(any, _mm512_maskz_mov_epi32(lanes, bits));
    all_fit &= fit(e[q].v);
  }
  if ((first < t || !g) && _mm512_test_epi32_mask(any, any) == 0) {  // at rest
    if (!g) return;
    first = t;
  }
  const int64_t replayed = g ? t : t + 1;  // zero-gradient steps: first .. replayed-1
  const auto step_all = [&](auto root, AdamCoef c) __attribute__((target("avx512f"), always_inline)) {
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].moments(s.hyper, zero);
#pragma GCC unroll 4
    for (int q = 0; q < G; ++q) e[q].move(s.hyper, c, root(e[q].v));
  };
  const auto by_fma = [](__m512 x) __attribute__((target("avx512f"), always_inline)) { return root16(x); };
  const auto by_instruction = [](__m512 x) __attribute__((target("avx512f"), always_inline)) { return sqrt16(x); };
  if (all_fit)
    for (int64_t u = first; u < replayed; ++u) step_all(by_fma, s.coef[u - 1]);
  else
    for (int64_t u = first; u < replayed; ++u) step_all(by_instruction, s.coef[u - 1]);
#pragma GCC unroll 4
  for (int q = 0; q < G; ++q) {
    const __mmask16 lanes = q + 1 < G ? whole : in;
    if (g) {
      e[q].moments(s.hyper, _mm512_maskz_loadu_ps(lanes, g + 16 * q));
      e[q].move(s.hyper, s.coef[t - 1], fit(e[q].v) ? root16(e[q].v) : sqrt16(e[q].v));
    }
    _mm512_mask_storeu_ps(p + 16 * q, lanes, e[q].p), _mm512_mask_storeu_ps(m + 16 * q, lanes, e[q].m),
        _mm512_mask_storeu_ps(v + 16 * q, lanes, e[q].v);
  }
}

AVX512 void step_row_by_sixteen(float* p, float* m, float* v, const float* g, int64_t cols, const AdamSchedule& s, int64_t first, int64_t t) {
  constexpr int kSide = 4;
  int64_t j = 0;
  for (; j + 16 * kSide <= cols; j += 16 * kSide) step_sixteens<kSide>(p + j, m + j, v + j, g ? g + j : nullptr, 0xffff, s, first, t);
  for (; j < cols; j += 16) {
    const __mmask16 in = cols - j >= 16 ? __mmask16(0xffff) : __mmask16((1u << (cols - j)) - 1);
    step_sixteens<1>(p + j, m + j, v + j, g ? g + j : nullptr, in, s, first, t);
  }
}
#endif

}  // namespace

StepRow step_row_here() {
#if defined(__x86_64__)
  if (&micro_kernel() == find_kernel("avx512")) return step_row_by_sixteen;
#endif
  return step_row_by_eight;
}

void adam(Ctx& ctx, Mat p, Mat m, Mat v, CMat g, const AdamSchedule& s, int64_t t) {
  CHECK_SHAPE(m, p.rows, p.cols);
  CHECK_SHAPE(v, p.rows, p.cols);
  if (g) CHECK_SHAPE(g, p.rows, p.cols);
  CHECK_THAT(t >= 1 && t <= s.steps);
  constexpr int64_t kChunk = 4096;
  const StepRow step_row = step_row_here();
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < p.size(); j += kChunk) step_row(p.p + j, m.p + j, v.p + j, g ? g.p + j : nullptr, std::min(kChunk, p.size() - j), s, t, t);
}

void adam_rows(Ctx& ctx, const Table& table, RowList rows, CMat g, bool by_row, const AdamSchedule& s, int64_t t) {
  const int64_t n = rows.n(), R = table.value.rows, cols = table.value.cols;
  CHECK_SHAPE(table.m, R, cols);
  CHECK_SHAPE(table.v, R, cols);
  if (g) CHECK_THAT(g.cols == cols && g.rows >= (by_row ? R : n));
  CHECK_THAT(t >= 0 && t <= s.steps);
  const int64_t chunk = std::max<int64_t>(1, 4096 / std::max<int64_t>(cols, 1));  // rows have waited for different times: chunks are dealt out
  const StepRow step_row = step_row_here();
  int64_t stepped_already = 0;
#pragma omp parallel for num_threads(ctx.threads) schedule(dynamic, chunk) reduction(+ : stepped_already)
  for (int64_t j = 0; j < n; ++j) {
    const int64_t r = rows.at(j), last = table.last[r];
    const float* g_r = g ? g.row(by_row ? r : j) : nullptr;
    if (last >= t) {
      stepped_already += g_r != nullptr;
      continue;
    }
    step_row(table.value.row(r), table.m.row(r), table.v.row(r), g_r, cols, s, last + 1, t);
    table.last[r] = int32_t(t);
  }
  CHECK_THAT(stepped_already == 0);  // a gradient for a step that its row has behind it
}

}  // namespace cpu
}  // namespace ccdrec
