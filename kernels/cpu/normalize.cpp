#include "kernels/normalize.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/double_sums.h"

namespace ccdrec::cpu {

void normalize_rows(Ctx& ctx, Mat y, float* inv_norm, CMat x, RowList rows) {
  CHECK_SHAPE(y, x.rows, x.cols);
  const int64_t n = rows.n(), d = x.cols;
#pragma omp parallel for num_threads(ctx.threads_for(2 * kFloatNs * double(n * d)))
  for (int64_t j = 0; j < n; ++j) {
    const int64_t r = rows.at(j);
    const float* const x_r = x.row(r);
    float* const y_r = y.row(r);
    const float inv = float(1 / std::max(std::sqrt(dot_in_double(x_r, x_r, d)), kNormFloor));  // a NaN passes
    for (int64_t c = 0; c < d; ++c) y_r[c] = x_r[c] * inv;
    inv_norm[r] = inv;
  }
}

// y = x / |x|: G_x = (I - y y^T) G / |x|.
void normalize_rows_backward(Ctx& ctx, Mat g_x, CMat g, CMat y, const float* inv_norm, RowList rows, bool accumulate) {
  CHECK_SHAPE(g_x, y.rows, y.cols);
  CHECK_SHAPE(g, y.rows, y.cols);
  const int64_t n = rows.n(), d = y.cols;
#pragma omp parallel for num_threads(ctx.threads_for(3 * kFloatNs * double(n * d)))
  for (int64_t j = 0; j < n; ++j) {
    const int64_t r = rows.at(j);
    const float *const g_r = g.row(r), *const y_r = y.row(r);
    float* const to = g_x.row(r);
    const float inv = inv_norm[r] >= kInverseAtFloor ? 0.0f : inv_norm[r];
    const float along = float(dot_in_double(y_r, g_r, d));
    for (int64_t c = 0; c < d; ++c) {
      const float at = std::fma(-along, y_r[c], g_r[c]) * inv;
      to[c] = accumulate ? to[c] + at : at;
    }
  }
}

}  // namespace ccdrec::cpu
