#include "kernels/cuda/library.h"
#include "kernels/cuda/sparse_row.h"
#include "kernels/spmm.h"

namespace ccdrec::cuda {
namespace {

// Y[r] = or += (A X)[r] for the listed rows.
// Geometry  one warp a row, 8 rows a block, the grid no larger than a list needs; lane l owns columns 2l, 2l+1 of each
//           64 (d even), else l of each 32.
// Traffic   per edge 8 coalesced bytes of (col, val) and one coalesced 4d-byte row of X.
// Limits    a row of more than 256 edges is shared by the 8 warps of its block: a row with a million edges is still one
//           block's loop.
template <int V>
__global__ void spmm_warp_per_row(Mat y, Csr a, const float* x, RowList rows, const uint8_t* mask, bool accumulate) {
  rows_in_turn<V>(
      a, x, y.cols, rows, mask, [&](int64_t r, int64_t j) { return accumulate ? y.row(r)[j] : 0.0f; },
      [&](int64_t r, int64_t j, float sum) { y.row(r)[j] = sum; });
}

// Row pointers in 32 bits, for cuSPARSE.
// Geometry  one thread a pointer.
// Traffic   12 bytes each.
__global__ void spmm_narrow_row_ptr(int32_t* out, const int64_t* row_ptr, int64_t n) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < n) out[k] = int32_t(row_ptr[k]);
}

void spmm_cusparse(Ctx& ctx, Mat y, const Csr& a, CMat x, bool accumulate) {
  if (y.size() == 0) return;
  if (a.nnz == 0) {
    if (!accumulate) library::fill(ctx, y.p, 0, size_t(y.size()) * sizeof(float));
    return;
  }
  int32_t* const row_ptr = static_cast<int32_t*>(ctx.scratch(0, size_t(a.rows + 1) * sizeof(int32_t)));
  constexpr int kThreads = 256;
  launch(spmm_narrow_row_ptr, blocks_for(a.rows + 1, kThreads), kThreads, 0, ctx, row_ptr, a.row_ptr, a.rows + 1);
  library::spmm(ctx, y, a, row_ptr, x, accumulate);
}

}  // namespace

bool by_cusparse(const Ctx& ctx, const Csr& a, int64_t d) {
  const SpmmBy by = ctx.spmm == SpmmBy::automatic ? spmm_rule(a.nnz, a.rows, d) : ctx.spmm;
  return by == SpmmBy::cusparse && library::has_spmm() && a.nnz >= 0 && a.nnz < (int64_t(1) << 31);
}

void spmm_rows(Ctx& ctx, Mat y, const Csr& a, CMat x, RowList rows, const uint8_t* mask, bool accumulate) {
  CHECK_SHAPE(x, a.cols, x.cols);
  CHECK_SHAPE(y, a.rows, x.cols);
  const int64_t blocks = list_blocks(rows);
  if (two_columns(x))
    launch(spmm_warp_per_row<2>, blocks, kRowsPerBlock * kWarp, 0, ctx, y, a, x.p, rows, mask, accumulate);
  else
    launch(spmm_warp_per_row<1>, blocks, kRowsPerBlock * kWarp, 0, ctx, y, a, x.p, rows, mask, accumulate);
}

void spmm(Ctx& ctx, Mat y, const Csr& a, CMat x, bool accumulate) {
  CHECK_SHAPE(x, a.cols, x.cols);
  CHECK_SHAPE(y, a.rows, x.cols);
  if (by_cusparse(ctx, a, x.cols))
    spmm_cusparse(ctx, y, a, x, accumulate);
  else
    spmm_rows(ctx, y, a, x, RowList{nullptr, nullptr, a.rows}, nullptr, accumulate);
}

void spmm_scratch(ScratchPlan& p, int64_t rows, int64_t nnz, bool cusparse) {
  // the latter as the emulator's; cuSPARSE says its own only when it is asked
  if (cusparse) p.need(0, (rows + 1) * 4), p.need(8, rows + nnz);
}

}  // namespace ccdrec::cuda
