// What the losses over rows share: bpr, mixed_bpr and those of views.h. Private to kernels/cuda.
#pragma once
#include "kernels/cuda/reduce.h"

namespace ccdrec::cuda {

struct LossAt {
  double f, slope;
};
// As on the CPU: softplus(-x) without overflow, or -log(1e-10 + sig(x)), with t = exp(-|x|).
__device__ inline LossAt loss_at(double x, bool with_eps) {
  const double t = std::exp(-std::fabs(x));
  if (with_eps) {
    const double s = x >= 0 ? 1 / (1 + t) : t / (1 + t);
    return {-std::log(1e-10 + s), -t / ((1 + t) * (1 + t)) / (1e-10 + s)};
  }
  return {(x < 0 ? -x : 0.0) + std::log1p(t), x >= 0 ? -t / (1 + t) : -1 / (1 + t)};
}

// *loss += share * sum of part.
// Geometry  one block.
static __global__ void add_loss(double* loss, const double* part, int64_t n, double share) {
  const double sum = sum_of_partials(part, n);
  if (threadIdx.x == 0) *loss += share * sum;
}

}  // namespace ccdrec::cuda
