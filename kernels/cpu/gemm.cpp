#include "kernels/gemm.h"

#include "kernels/cpu/fast/product.h"

namespace ccdrec::cpu {

void gemm(Ctx& ctx, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate) {
  const int64_t m = trans_a ? a.cols : a.rows, k = trans_a ? a.rows : a.cols, n = trans_b ? b.rows : b.cols;
  CHECK_THAT((trans_b ? b.cols : b.rows) == k);
  CHECK_SHAPE(c, m, n);
  product(ctx, c, k, {a.p, a.cols, nullptr, trans_a}, {b.p, b.cols, trans_b}, accumulate);
}

const char* gemm_isa() { return micro_kernel().name; }

}  // namespace ccdrec::cpu
