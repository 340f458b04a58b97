#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/fast/selection.h"
#include "kernels/sample.h"

namespace ccdrec::cpu {
namespace {

float inverse_norm(const float* x, int64_t d) {
  float sum = 0;
  for (int64_t j = 0; j < d; ++j) sum = std::fma(x[j], x[j], sum);
  return 1.0f / std::max(std::sqrt(sum), 1e-12f);
}

// Candidates' rows in panels as wide as a register tile, transposed: panel[j*width + l] = X[cand[l], j]. Missing
// candidates of the last panel are zeros.
void pack_panel(float* panel, int64_t width, CMat pool, const int32_t* cand, int64_t n) {
  for (int64_t l = 0; l < width; ++l)
    for (int64_t j = 0; j < pool.cols; ++j) panel[j * width + l] = l < n ? pool.row(cand[l])[j] : 0.0f;
}

// A row's keys, eight to a step up to its padded length. Returns whether there was a NaN.
bool to_keys(int32_t* key, const float* sim, const float* inv_norm, int64_t n, int64_t padded) {
  int32_t nan = 0;
  for (int64_t c = 0; c < n; ++c) {
    const float x = inv_norm ? sim[c] * inv_norm[c] : sim[c];
    nan |= x != x;
    key[c] = signed_key(ordered_key(x));
  }
  std::fill(key + n, key + padded, kExcluded);
  return nan != 0;
}

// Marks the candidates that the user has; returns how many. Those that are item i lie at first[i] to first[i+1].
int64_t exclude(int32_t* key, const int32_t* first, const int32_t* item, const int32_t* end) {
  int64_t marked = 0;
  for (; item < end; ++item)
    for (int32_t at = first[*item]; at < first[*item + 1]; ++at, ++marked) key[at] = kExcluded;
  return marked;
}

}  // namespace

// As many positives as a register tile is high go to a thread together; it holds the similarities of these rows only,
// (mr,C) floats, and never sees those of another. Cosine: dividing a row by its own norm changes no order within it, so
// only the candidates' norms (clamped at 1e-12) enter.
void similar_negative(Ctx& ctx, int32_t* out, int32_t* nan_flag, CMat pool, const int32_t* positives,
                      const int32_t* users, int64_t batch, const int32_t* cand, int64_t count, const Csr& train,
                      int64_t k_top, bool cosine, const int32_t* fallback, Stream s) {
  CHECK_THAT(k_top >= 1 && train.cols <= pool.rows);
  const MicroKernel& mk = micro_kernel();
  const int64_t d = pool.cols, mr = mk.mr, nr = mk.nr, panels = (count + nr - 1) / nr, ld = panels * nr;
  float* packed = static_cast<float*>(ctx.scratch(0, size_t(panels * d * nr) * sizeof(float)));
  float* inv_norm = static_cast<float*>(ctx.scratch(1, size_t(ld) * sizeof(float)));
  float* sims = static_cast<float*>(ctx.scratch(2, size_t(ctx.threads) * size_t((mr + 1) * ld) * sizeof(float)));
  const int64_t I = pool.rows;
  int32_t* first = static_cast<int32_t*>(ctx.scratch(3, size_t(I + 1) * sizeof(int32_t)));
  int nan = 0;
#pragma omp parallel num_threads(ctx.threads) reduction(| : nan)
  {
#pragma omp for schedule(static) nowait
    for (int64_t c = 0; c <= count; ++c)  // the items behind candidate c-1, up to the one of c
      for (int64_t i = c == 0 ? 0 : cand[c - 1] + 1; i <= (c == count ? I : cand[c]); ++i) first[i] = int32_t(c);
#pragma omp for
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t n = std::min(nr, count - p * nr);
      pack_panel(packed + p * d * nr, nr, pool, cand + p * nr, n);
      if (cosine)
        for (int64_t l = 0; l < n; ++l) inv_norm[p * nr + l] = inverse_norm(pool.row(cand[p * nr + l]), d);
    }
    float* sim = sims + int64_t(omp_get_thread_num()) * (mr + 1) * ld;
    int32_t* key = reinterpret_cast<int32_t*>(sim + mr * ld);
#pragma omp for schedule(dynamic, 1)
    for (int64_t b0 = 0; b0 < batch; b0 += mr) {
      const int64_t rows = std::min(mr, batch - b0);
      const float* x[kMaxMr];
      for (int64_t r = 0; r < mr; ++r) x[r] = pool.row(positives[b0 + std::min(r, rows - 1)]);
      for (int64_t p = 0; p < panels; ++p) tile(mk, sim + p * nr, ld, x, packed + p * d * nr, d, false);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t b = b0 + r;
        nan |= to_keys(key, sim + r * ld, cosine ? inv_norm : nullptr, count, ld);
        const int64_t admissible =
            count - exclude(key, first, train.col + train.row_ptr[users[b]], train.col + train.row_ptr[users[b] + 1]);
        if (admissible == 0) {
          out[b] = fallback[b];
          continue;
        }
        const uint32_t rank = below(draw(s, uint32_t(b)).v[0], uint32_t(std::min(k_top, admissible)));
        out[b] = cand[position_of_rank(mk, key, ld, rank)];
      }
    }
  }
  if (nan) *nan_flag = 1;
}

void similar_negative_scratch(ScratchPlan& p, int64_t, int64_t count, int64_t, int64_t I, int64_t d) {
  const MicroKernel& mk = micro_kernel();
  const int64_t ld = (count + mk.nr - 1) / mk.nr * mk.nr;
  p.need(0, ld * d * 4), p.need(1, ld * 4), p.need(2, p.threads * (mk.mr + 1) * ld * 4), p.need(3, (I + 1) * 4);
}

}  // namespace ccdrec::cpu
