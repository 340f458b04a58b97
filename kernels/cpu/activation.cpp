#include "kernels/activation.h"

namespace ccdrec::cpu {

void leaky_relu(Ctx& ctx, Mat y, CMat x, float slope) {
  CHECK_SHAPE(y, x.rows, x.cols);
  const int64_t n = x.size();
  const int threads = ctx.threads_for(kFloatNs * double(n));
#pragma omp parallel for simd num_threads(threads)
  for (int64_t k = 0; k < n; ++k) y.p[k] = x.p[k] > 0 ? x.p[k] : slope * x.p[k];
}

void leaky_relu_backward(Ctx& ctx, Mat g, CMat y, float slope) {
  CHECK_SHAPE(g, y.rows, y.cols);
  const int64_t n = y.size();
  const int threads = ctx.threads_for(kFloatNs * double(n));
#pragma omp parallel for simd num_threads(threads)
  for (int64_t k = 0; k < n; ++k) g.p[k] *= y.p[k] > 0 ? 1.0f : slope;
}

}  // namespace ccdrec::cpu
