#include "kernels/adam.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/lanes.h"

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

void step_row(float* p, float* m, float* v, const float* g, int64_t cols, const AdamSchedule& s, int64_t first, int64_t t) {
  int64_t j = 0;
  for (; j + 8 <= cols; j += 8) step8(p + j, m + j, v + j, g ? g + j : nullptr, 8, s, first, t);
  if (j < cols) step8(p + j, m + j, v + j, g ? g + j : nullptr, cols - j, s, first, t);
}

}  // namespace

void adam(Ctx& ctx, Mat p, Mat m, Mat v, CMat g, const AdamSchedule& s, int64_t t) {
  CHECK_SHAPE(m, p.rows, p.cols);
  CHECK_SHAPE(v, p.rows, p.cols);
  if (g) CHECK_SHAPE(g, p.rows, p.cols);
  CHECK_THAT(t >= 1 && t <= s.steps);
  constexpr int64_t kChunk = 4096;
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
