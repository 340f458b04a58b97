#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/gemm.h"

namespace ccdrec::cuda {

// The library's product in the context's precision. Its order of summation is its own: equal to the CPU to rounding.
void gemm(Ctx& ctx, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate) {
  const int64_t m = trans_a ? a.cols : a.rows, k = trans_a ? a.rows : a.cols, n = trans_b ? b.rows : b.cols;
  CHECK_THAT((trans_b ? b.cols : b.rows) == k);
  CHECK_SHAPE(c, m, n);
  if (m == 0 || n == 0) return;
  if (k > 0)
    library::gemm(ctx, c, a, trans_a, b, trans_b, accumulate);
  else if (!accumulate)
    library::fill(ctx, c.p, 0, size_t(c.size()) * sizeof(float));
}

}  // namespace ccdrec::cuda
