// spmm: one graph-convolution layer, Y = A X with A sparse.
//
//   A (R,N) CSR, X (N,d), Y (R,d). Y may not overlap X.
// spmm       Y = A X, or Y += A X when `accumulate`. Empty rows give 0.
// spmm_rows  only the listed rows of Y are written (Y[r] = ... at row r), the rest untouched; `mask` (N bytes, or null
//            = all): columns whose byte is 0 count as zero rows of X and are not read.
// transpose  out = A^T, A.nnz known on the host. The columns of a row of A may lie in any order and repeat; an output
//            row's entries ascend by A's row, and those of one row of A stay in their order. Where A has no values only
//            the pattern is written. Entries behind the last are left as they are.
// Backward dX += A^T dY: call it with the transposed CSR. Saves nothing (it is linear).
// Order    each Y[r,j] sums its edges in CSR order with one fma per edge: same bits for any thread count and row list.
//          On a GPU rows of more than 256 edges are summed in chunks of 256, the partial sums added in order.
// cuSPARSE on a GPU, where Ctx::spmm says so (setting `spmm`), computes spmm, and propagate of all rows, by its
//          deterministic algorithm: the same bits on every run, within rounding of ours, in an order of its own. It has
//          to know A.nnz on the host, below 2^31: without, and for spmm_rows, lists and masks, the product stays ours.
// Cost     2 nnz d flop; nnz (8 + 4d) + R (8 + 4d) bytes when no row of X is reused from cache. transpose: 12 nnz bytes
//          read and 8 nnz scattered, by one thread of a CPU; a radix sort of nnz pairs on a GPU.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

// spmm=auto: whose product of nnz edges, R rows and width d it is. Committed, never timed at run time: a run takes the
// same course on every machine of a kind. NOT MEASURED: nothing of this program has run on a GPU yet, so it is ours
// everywhere, which needs no library. What decides: the lines "spmm" and "spmm by cuSPARSE" of `bench_gpu --only spmm`
// (phase `kernels` of bench/gpu.sh): where the share of the second, our time over cuSPARSE's, is above 100 % beyond the
// spread, return cusparse for such shapes and write the line here.
constexpr SpmmBy spmm_rule(int64_t /*nnz*/, int64_t /*R*/, int64_t /*d*/) { return SpmmBy::own; }
constexpr const char* kSpmmRule = "own kernels everywhere, until a GPU was measured";  // for the log

}  // namespace ccdrec

namespace ccdrec::cpu {
void spmm(Ctx&, Mat y, const Csr& a, CMat x, bool accumulate);
void spmm_rows(Ctx&, Mat y, const Csr& a, CMat x, RowList rows, const uint8_t* mask, bool accumulate);
void transpose(Ctx&, const MutableCsr& out, const Csr& a);
void spmm_scratch(ScratchPlan&, int64_t rows, int64_t nnz, bool cusparse);  // of a whole graph
void transpose_scratch(ScratchPlan&, int64_t nnz);
}  // namespace ccdrec::cpu
