#include "kernels/activation.h"

namespace ccdrec::cpu {

void leaky_relu(Ctx& ctx, Mat y, CMat x, CMat plus, Slopes s) {
  CHECK_SHAPE(y, x.rows, x.cols);
  const int64_t n = x.size();
  const int threads = ctx.threads_for(kFloatNs * double(n));
  const auto active = [s](float v) { return (v > 0 ? s.up : s.down) * v; };
  if (plus) {
    CHECK_SHAPE(plus, x.rows, x.cols);
#pragma omp parallel for simd num_threads(threads)
    for (int64_t k = 0; k < n; ++k) {
      const float a = active(x.p[k]);
      y.p[k] = a + plus.p[k];
    }
    return;
  }
#pragma omp parallel for simd num_threads(threads)
  for (int64_t k = 0; k < n; ++k) y.p[k] = active(x.p[k]);
}

void leaky_relu_backward(Ctx& ctx, Mat g_x, CMat g, CMat y, CMat plus, Slopes s) {
  CHECK_SHAPE(g_x, y.rows, y.cols);
  CHECK_SHAPE(g, y.rows, y.cols);
  const int64_t n = y.size();
  const int threads = ctx.threads_for(kFloatNs * double(n));
  if (plus) {
    CHECK_SHAPE(plus, y.rows, y.cols);
#pragma omp parallel for simd num_threads(threads)
    for (int64_t k = 0; k < n; ++k) g_x.p[k] = (y.p[k] > plus.p[k] ? s.up : s.down) * g.p[k];
    return;
  }
#pragma omp parallel for simd num_threads(threads)
  for (int64_t k = 0; k < n; ++k) g_x.p[k] = (y.p[k] > 0 ? s.up : s.down) * g.p[k];
}

}  // namespace ccdrec::cpu
