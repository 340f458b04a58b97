// The blocked product behind gemm and project. Private to kernels/cpu.
#pragma once
#include "kernels/cpu/fast/microkernel.h"
#include "kernels/ctx.h"

namespace ccdrec::cpu {

// of a core, about, to multiply and add, beside the packing of small operands: for Ctx::threads_for
constexpr double kTermNs = 0.05;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
// C (m,n) = or += left right, in the order that gemm.h promises. Takes scratch slots 0 (right, packed whole) and 1
// (sums of blocks, only where left is transposed and C small).
void product(Ctx&, Mat c, int64_t k, const Left&, const Right&, bool accumulate);
// m counts only where left is transposed
void product_scratch(ScratchPlan&, int64_t m, int64_t n, int64_t k, bool left_trans);

// What product comes to when left is transposed (product_transposed.cpp), neither m, n nor k being 0.
void transposed_product(Ctx&, Mat c, int64_t k, const Left&, const Right&, bool accumulate);
bool sums_by_blocks(int64_t m, int64_t n, int64_t k, int threads);
// floats that it may ask for with k terms or fewer
int64_t most_sums(int64_t m, int64_t n, int64_t k, int threads);

// Panels p0 to p1 of the block of right that begins at term k0, kc terms of it; n columns in all.
void pack_right(float* panels, const Right&, int64_t n, int64_t k0, int64_t kc, int64_t p0, int64_t p1);
}  // namespace ccdrec::cpu
