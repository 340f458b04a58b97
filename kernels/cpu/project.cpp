#include "kernels/project.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

#include "kernels/cpu/fast/beside.h"
#include "kernels/cpu/fast/product.h"

namespace ccdrec::cpu {
namespace {

// db += 1^T dY: sums of kBlock rows, added in order. They lie where `product`, which is done, had its own.
void add_column_sums(Ctx& ctx, Mat db, CMat dy, int64_t n) {
  const int64_t blocks = ceil_div(n, kBlock), d = dy.cols;
  float* const sums = static_cast<float*>(ctx.scratch(1, size_t(blocks * d) * sizeof(float)));
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* double(n * d)))
  for (int64_t block = 0; block < blocks; ++block) {
    float* const sum = sums + block * d;
    std::fill_n(sum, d, 0.0f);
    for (int64_t j = block * kBlock; j < std::min(n, (block + 1) * kBlock); ++j)
      for (int64_t c = 0; c < d; ++c) sum[c] += dy.row(j)[c];
  }
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t c = 0; c < d; ++c) db.p[c] += sums[block * d + c];
}

}  // namespace

void project(Ctx& ctx, Mat y, CMat x, RowList rows, CMat w, CMat b) {
  const int64_t n = rows.n(), F = x.cols, d = w.cols;
  CHECK_THAT(y.rows >= n && y.cols == d);
  CHECK_SHAPE(w, F, d);
  CHECK_SHAPE(b, 1, d);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* double(n * d)))
  for (int64_t j = 0; j < n; ++j) std::copy_n(b.p, d, y.row(j));  // the sums start from the bias
  product(ctx, y.slice(0, n), F, {x.p, F, rows.idx, false}, {w.p, d, false}, true);
}

// A thread takes as many rows as a register tile is high. While they are multiplied out of L2 the rows that it takes
// next are brought up to date.
void catch_up_project(Ctx& ctx, Mat y, const Table& x, RowList rows, CMat w, CMat b, const AdamSchedule& s, int64_t t) {
  const int64_t n = rows.n(), F = x.value.cols, d = w.cols;
  CHECK_THAT(y.rows >= n && y.cols == d);
  CHECK_SHAPE(w, F, d);
  CHECK_SHAPE(b, 1, d);
  CHECK_SHAPE(x.m, x.value.rows, F);
  CHECK_SHAPE(x.v, x.value.rows, F);
  CHECK_THAT(t >= 0 && t <= s.steps && s.hyper.weight_decay == 0);
  if (n == 0) return;
  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr, panels = ceil_div(d, nr);
  // W; rows k0.. from k0 * panels * nr on
  float* const packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * F) * sizeof(float)));
  std::atomic<int64_t> taken{0};
#pragma omp parallel num_threads(ctx.threads)
  {
#pragma omp for
    for (int64_t k0 = 0; k0 < F; k0 += kBlock)
      pack_across(packed + k0 * panels * nr, nr, w.row(k0), d, std::min(kBlock, F - k0), 0, d);
    Replays next_rows(x, s, t);
    int64_t j = mr * taken++;
    next_rows.take(rows, j, std::min(j + mr, n), F * panels);
    for (int64_t next; j < n; j = next) {
      next_rows.finish();
      next = mr * taken++;
      next_rows.take(rows, next, std::min(next + mr, n), F * panels);
      const int64_t here = std::min(mr, n - j);
      const float* a[kMaxMr];
      for (int64_t i = 0; i < here; ++i) {
        a[i] = x.value.row(rows.at(j + i));
        std::copy_n(b.p, d, y.row(j + i));  // the sums start from the bias
      }
      std::fill(a + here, a + mr, a[0]);            // beyond the edge: any row
      for (int64_t k0 = 0; k0 < F; k0 += kBlock) {  // as product: blocks of terms added in order
        const int64_t kc = std::min(kBlock, F - k0);
        for (int64_t q = 0; q < panels; ++q)
          next_rows.tile(y.row(j) + q * nr, d, here, std::min(nr, d - q * nr), a,
                         packed + k0 * panels * nr + q * kc * nr, kc, true);
        for (int64_t i = 0; i < mr; ++i) a[i] += kc;
      }
    }
  }
}

// Y = X W + b. Given dY: dW += X^T dY, db += 1^T dY, dX = dY W^T.
void project_backward(Ctx& ctx, Mat dw, Mat db, Mat dx, CMat dy, CMat x, RowList rows, CMat w) {
  const int64_t n = rows.n(), F = x.cols, d = dy.cols;
  CHECK_THAT(dy.rows >= n);
  CHECK_SHAPE(dw, F, d);
  CHECK_SHAPE(db, 1, d);
  CHECK_SHAPE(w, F, d);
  if (dx) CHECK_THAT(dx.rows >= n && dx.cols == F);
  product(ctx, dw, n, {x.p, F, rows.idx, true}, {dy.p, d, false}, true);
  if (dx) product(ctx, dx.slice(0, n), d, {dy.p, d, nullptr, false}, {w.p, d, true}, false);
  add_column_sums(ctx, db, dy, n);
}

// dW is a product of its own. Then a thread takes as many rows as a register tile is high: their gradient (mr,F) is
// computed into its L2 from the packed W^T, and enters the moments from there beside the product of the rows it takes
// next, row by row, so that m and v pass as long streams. Where steps do not fit beside tiles it enters at once, while
// it lies in L2; the products leave memory idle, and ask for the moments of the first rows.
void project_backward_step(Ctx& ctx, Mat dw, Mat db, CMat dy, const Table& x, RowList rows, CMat w,
                           const AdamSchedule& s, int64_t t) {
  const int64_t n = rows.n(), F = x.value.cols, d = dy.cols;
  CHECK_THAT(dy.rows >= n);
  CHECK_SHAPE(dw, F, d);
  CHECK_SHAPE(db, 1, d);
  CHECK_SHAPE(w, F, d);
  CHECK_SHAPE(x.m, x.value.rows, F);
  CHECK_SHAPE(x.v, x.value.rows, F);
  CHECK_THAT(t >= 1 && t <= s.steps && s.hyper.weight_decay == 0);
  bool not_yet = true;
  for (int64_t j = 0; j < n; ++j) not_yet &= std::max(x.value_at[rows.at(j)], x.moments_at[rows.at(j)]) < t;
  CHECK_THAT(not_yet);  // a gradient for a step that its row has behind it
  if (n == 0) return;

  product(ctx, dw, n, {x.value.p, F, rows.idx, true}, {dy.p, d, false}, true);

  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr, panels = ceil_div(F, nr);
  // panel q: columns q*nr.. of W^T, k-major
  float* const w_t = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * d) * sizeof(float)));
  float* const room = static_cast<float*>(ctx.scratch(1, size_t(2 * mr * F * ctx.threads) * sizeof(float)));
#pragma omp parallel num_threads(ctx.threads)
  {
#pragma omp for
    for (int64_t q = 0; q < panels; ++q)
      pack_along(w_t + q * nr * d, nr, w.row(q * nr), d, d, std::min(nr, F - q * nr));
    float *g = room + omp_get_thread_num() * 2 * mr * F, *g_before = g + mr * F;
    Gradients rows_before(x, s, t, moves_at_once(n, x.value.rows));
    const bool beside = steps_fit_beside_tiles();
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t j = 0; j < n; j += mr) {
      // more of them keep W waiting
      const int64_t here = std::min(mr, n - j), asked_ahead = beside ? 0 : std::min(here, mr / 4);
      // as product: blocks of terms added in order
      for (int64_t e0 = 0; e0 < d; e0 += kBlock) {
        const float* a[kMaxMr];
        for (int64_t i = 0; i < mr; ++i) a[i] = dy.row(j + std::min(i, here - 1)) + e0;
        for (int64_t q = 0; q < panels; ++q) {
          for (int64_t i = 0; i < asked_ahead; ++i)
            for (int64_t c = q * nr; c < std::min(F, (q + 1) * nr); c += kLine) {
              const int64_t at = rows.at(j + i) * F + c;
              __builtin_prefetch(x.m.p + at, 0, 2), __builtin_prefetch(x.v.p + at, 0, 2);
            }
          rows_before.tile(g + q * nr, F, here, std::min(nr, F - q * nr), a, w_t + q * nr * d + e0 * nr,
                           std::min(kBlock, d - e0), e0 > 0);
        }
      }
      rows_before.finish();
      rows_before.take(rows, j, j + here, g, d * panels);
      if (beside)
        std::swap(g, g_before);
      else
        rows_before.finish();
    }
    rows_before.finish();
  }
  add_column_sums(ctx, db, dy, n);
}

void project_scratch(ScratchPlan& p, int64_t, int64_t F, int64_t d, bool) { product_scratch(p, 0, d, F, false); }
void project_backward_scratch(ScratchPlan& p, int64_t rows, int64_t F, int64_t d, bool step) {
  const MicroKernel& mk = micro_kernel();
  project_backward_all_scratch(p, rows, F, d);
  p.need(0, ceil_div(F, mk.nr) * mk.nr * d * 4);  // W^T, for dX
  if (step) p.need(1, 2 * mk.mr * F * p.threads * 4);
}

void project_backward_all_scratch(ScratchPlan& p, int64_t rows, int64_t F, int64_t d) {
  product_scratch(p, F, d, rows, true);
  p.need(1, ceil_div(rows, kBlock) * d * 4);
}

}  // namespace ccdrec::cpu
