// spmm: one graph-convolution layer, Y = A X with A sparse.
//
//   A (R,N) CSR, X (N,d), Y (R,d). Y may not overlap X.
// spmm       Y = A X, or Y += A X when `accumulate`. Empty rows give 0.
// spmm_rows  only the listed rows of Y are written (Y[r] = ... at row r), the rest untouched; `mask` (N bytes, or null = all): columns whose byte is
//            0 count as zero rows of X and are not read.
// Backward dX += A^T dY: call it with the transposed CSR. Saves nothing (it is linear).
// Order    each Y[r,j] sums its edges in CSR order with one fma per edge: same bits for any thread count and row list. On a GPU rows of more than
//          256 edges are summed in chunks of 256, the partial sums added in order.
// Cost     2 nnz d flop; nnz (8 + 4d) + R (8 + 4d) bytes when no row of X is reused from cache.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void spmm(Ctx&, Mat y, const Csr& a, CMat x, bool accumulate);
void spmm_rows(Ctx&, Mat y, const Csr& a, CMat x, RowList rows, const uint8_t* mask, bool accumulate);
}  // namespace ccdrec::cpu
