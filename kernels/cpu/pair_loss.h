// What the losses over rows share: bpr, mixed_bpr and those of views.h. Private to kernels/cpu.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/cpu/double_sums.h"
#include "kernels/ctx.h"

namespace ccdrec::cpu {

constexpr int64_t kChunkRows = 256;  // rows whose losses are summed together

struct LossAt {
  double f, slope;
};
inline LossAt stable(double x) {  // softplus(-x) without overflow; slope -sig(-x)
  const double t = std::exp(-std::fabs(x));
  return {std::max(-x, 0.0) + std::log1p(t), x >= 0 ? -t / (1 + t) : -1 / (1 + t)};
}
inline LossAt protected_log(double x) {  // -log(1e-10 + sig(x)); sig(x)(1 - sig(x)) = t/(1+t)^2 with t = exp(-|x|)
  const double t = std::exp(-std::fabs(x)), s = x >= 0 ? 1 / (1 + t) : t / (1 + t);
  return {-std::log(1e-10 + s), -t / ((1 + t) * (1 + t)) / (1e-10 + s)};
}

inline LossAt loss_at(double x, bool with_eps) { return with_eps ? protected_log(x) : stable(x); }

// Sums a row's value over chunks of 256 rows, chunks in order: the same bits for any thread count. `blocks` sums of n
// rows each, to total[k]. Takes scratch 0.
template <class Row>
void sum_rows(Ctx& ctx, double* total, int64_t blocks, int64_t n, Row&& row) {
  const int64_t chunks = (n + kChunkRows - 1) / kChunkRows;
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks * chunks) * sizeof(double)));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t c = 0; c < blocks * chunks; ++c) {
    const int64_t k = c / chunks, first = c % chunks * kChunkRows;
    double sum = 0;
    for (int64_t b = first; b < std::min(n, first + kChunkRows); ++b) sum += row(k, b);
    part[c] = sum;
  }
  for (int64_t k = 0; k < blocks; ++k) {
    total[k] = 0;
    for (int64_t c = 0; c < chunks; ++c) total[k] += part[k * chunks + c];
  }
}

}  // namespace ccdrec::cpu
