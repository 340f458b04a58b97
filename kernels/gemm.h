// gemm: C = op(A) op(B), or C += when `accumulate`. The dense product behind the estimator and the modality
// projections.
//
//   op(A) (m,k), op(B) (k,n), C (m,n): float32 row-major; op is the transpose when the flag is set. C overlaps neither
//   A nor B. k = 0 gives 0.
// Order    each element sums k in ascending order in blocks of 256 with one fma per term (block sums added in order,
//          whichever threads computed them). Same bits for any thread count and any vector width (AVX2, AVX-512, scalar
//          fma).
// Cost     2 m n k flop.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void gemm(Ctx&, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate);
const char* gemm_isa();  // the micro-kernel this machine runs: "avx512", "avx2" or "portable" (chosen at run time)
}  // namespace ccdrec::cpu
