#include "kernels/activation.h"

#include "kernels/cuda/device.h"

namespace ccdrec::cuda {
namespace {

constexpr int kThreads = 256;

// Geometry  a thread an element.
// Traffic   8 bytes an element, in whole sectors.
__global__ void leaky_relu_each(float* y, const float* x, int64_t n, float slope) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < n) y[k] = x[k] > 0 ? x[k] : slope * x[k];
}

// Likewise, 12 bytes.
__global__ void leaky_relu_backward_each(float* g, const float* y, int64_t n, float slope) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < n) g[k] *= y[k] > 0 ? 1.0f : slope;
}

}  // namespace

void leaky_relu(Ctx& ctx, Mat y, CMat x, float slope) {
  CHECK_SHAPE(y, x.rows, x.cols);
  launch(leaky_relu_each, blocks_for(x.size(), kThreads), kThreads, 0, ctx, y.p, x.p, x.size(), slope);
}

void leaky_relu_backward(Ctx& ctx, Mat g, CMat y, float slope) {
  CHECK_SHAPE(g, y.rows, y.cols);
  launch(leaky_relu_backward_each, blocks_for(y.size(), kThreads), kThreads, 0, ctx, g.p, y.p, y.size(), slope);
}

}  // namespace ccdrec::cuda
