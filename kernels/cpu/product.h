// The blocked product behind gemm and project. Private to kernels/cpu.
#pragma once
#include "kernels/cpu/microkernel.h"
#include "kernels/ctx.h"

namespace ccdrec::cpu {

// The left operand (m,k): stored by rows, or transposed, (k,m). Stored row s is p + idx[s]*ld, or p + s*ld without idx.
struct Left {
  const float* p;
  int64_t ld;
  const int32_t* idx;
  bool trans;
  const float* row(int64_t s) const { return p + (idx ? int64_t(idx[s]) : s) * ld; }
};
struct Right {  // (k,n), or (n,k) when trans
  const float* p;
  int64_t ld;
  bool trans;
};
// C (m,n) = or += left right, in the order that gemm.h promises. Takes scratch slots 0 (right, packed whole) and 1 (left, one tile a thread, only
// when transposed).
void product(Ctx&, Mat c, int64_t k, const Left&, const Right&, bool accumulate);

void product_scratch(ScratchPlan&, int64_t n, int64_t k, bool left_trans);
}  // namespace ccdrec::cpu
