#include "kernels/lists.h"

#include "kernels/cpu/double_sums.h"

namespace ccdrec::cpu {

void list_dots(Ctx& ctx, Mat v, CMat a, CMat b, const int32_t* idx, int64_t k) {
  const int64_t I = v.rows, d = a.cols;
  CHECK_SHAPE(v, I, k);
  CHECK_SHAPE(a, I, d);
  CHECK_SHAPE(b, b.rows, d);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* double(I * k * d)))
  for (int64_t i = 0; i < I; ++i)
    for (int64_t c = 0; c < k; ++c) {
      const int32_t j = idx[i * k + c];
      v.row(i)[c] = j < 0 ? 0.0f : float(dot_in_double(a.row(i), b.row(j), d));
    }
}

void list_spread(Ctx& ctx, Mat dy, CMat g, CMat y, const int32_t* idx, const Groups& by_target) {
  const int64_t I = y.rows, d = y.cols, k = g.cols, n = by_target.rows.n();
  CHECK_SHAPE(dy, I, d);
  CHECK_SHAPE(g, I, k);
  const int threads = ctx.threads_for(kFloatNs * double(I * k * d));
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < I; ++i)
    for (int64_t c = 0; c < k; ++c)
      if (const int32_t j = idx[i * k + c]; j >= 0) axpy(dy.row(i), g.row(i)[c], y.row(j), d);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 64)
  for (int64_t j = 0; j < n; ++j)
    for (int32_t e = by_target.ptr[j]; e < by_target.ptr[j + 1]; ++e) {
      const int64_t s = by_target.slot[e];
      axpy(dy.row(by_target.rows.at(j)), g.p[s], y.row(s / k), d);
    }
}

}  // namespace ccdrec::cpu
