#include "kernels/denoise.h"

#include "kernels/cpu/double_sums.h"

namespace ccdrec::cpu {

void edge_cosines(Ctx& ctx, float* a, const EdgeList& edges, CMat p, CMat x, float tau) {
  const int64_t U = edges.users, I = edges.items, d = p.cols;
  CHECK_SHAPE(p, U, d);
  CHECK_SHAPE(x, I, d);
  double* const inv = static_cast<double*>(ctx.scratch(0, size_t(U + I) * sizeof(double)));  // of P's rows, then of X's
  const int threads = ctx.threads_for(kFloatNs * double((U + I + edges.n) * d));
#pragma omp parallel for num_threads(threads)
  for (int64_t v = 0; v < U + I; ++v) {
    const float* const row = v < U ? p.row(v) : x.row(v - U);
    inv[v] = inverse_or_zero(dot_in_double(row, row, d));
  }
#pragma omp parallel for num_threads(threads)
  for (int64_t e = 0; e < edges.n; ++e) {
    const int64_t u = edges.user[e], i = edges.item[e];
    a[e] = edge_weight(dot_in_double(p.row(u), x.row(i), d), inv[u], inv[U + i], tau);
  }
}

void edge_cosines_scratch(ScratchPlan& p, int64_t nodes) { p.need(0, nodes * 8); }

}  // namespace ccdrec::cpu
