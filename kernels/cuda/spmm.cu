#include "kernels/cuda/library.h"
#include "kernels/cuda/ordered.h"
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

// ---- transpose

constexpr int kTransposeBlock = 256;

// Geometry  one thread an entry.
// Traffic   4 bytes read, 8 written.
__global__ void transpose_keys(uint32_t* key, int32_t* entry, const int32_t* col, int64_t nnz) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e < nnz) key[e] = uint32_t(col[e]), entry[e] = int32_t(e);
}

// Row c of the transpose starts behind the entries of all lower columns.
// Geometry  one thread a row, and one for the end.
// Traffic   a search's log2(nnz) reads, mostly from cache, and 8 bytes written.
__global__ void transpose_row_starts(int64_t* row_ptr, const uint32_t* col_sorted, int64_t nnz, int64_t rows) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c <= rows) row_ptr[c] = first_not_below(col_sorted, nnz, uint32_t(c));
}

// The row that an entry of A lies in is the last one that starts at or before it.
// Geometry  one thread an entry of the transpose.
// Traffic   4 bytes read in order, a search's log2(R) reads, 4 bytes from a random place, 8 written.
__global__ void transpose_entries(MutableCsr out, const int32_t* entry, Csr a) {
  const int64_t p = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p >= a.nnz) return;
  const int64_t e = entry[p];
  out.col[p] = int32_t(first_not_below(a.row_ptr, a.rows + 1, e + 1) - 1);
  if (a.val) out.val[p] = a.val[e];
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

// The sort is stable: entries of one column stay in A's order.
void transpose(Ctx& ctx, const MutableCsr& out, const Csr& a) {
  const int64_t nnz = a.nnz;
  CHECK_THAT(out.rows == a.cols && out.cols == a.rows);
  CHECK_THAT(nnz >= 0 && nnz <= out.capacity);
  CHECK_THAT(nnz < int64_t(1) << 31);
  auto* key = static_cast<uint32_t*>(ctx.scratch(0, size_t(nnz) * sizeof(uint32_t)));
  auto* col_sorted = static_cast<uint32_t*>(ctx.scratch(1, size_t(nnz) * sizeof(uint32_t)));
  auto* entry = static_cast<int32_t*>(ctx.scratch(2, size_t(nnz) * sizeof(int32_t)));
  auto* by_col = static_cast<int32_t*>(ctx.scratch(3, size_t(nnz) * sizeof(int32_t)));
  const int64_t blocks = blocks_for(nnz, kTransposeBlock);
  launch(transpose_keys, blocks, kTransposeBlock, 0, ctx, key, entry, a.col, nnz);
  library::sort_pairs(ctx, col_sorted, by_col, key, entry, nnz, bits_below(a.cols));
  launch(transpose_row_starts, blocks_for(out.rows + 1, kTransposeBlock), kTransposeBlock, 0, ctx, out.row_ptr,
         col_sorted, nnz, out.rows);
  launch(transpose_entries, blocks, kTransposeBlock, 0, ctx, out, by_col, a);
}

void spmm_scratch(ScratchPlan& p, int64_t rows, int64_t nnz, bool cusparse) {
  // the latter as the emulator's; cuSPARSE says its own only when it is asked
  if (cusparse) p.need(0, (rows + 1) * 4), p.need(8, rows + nnz);
}

void transpose_scratch(ScratchPlan& p, int64_t nnz) {
  for (int slot = 0; slot < 4; ++slot) p.need(slot, nnz * 4);
  library::sort_scratch(p, nnz, 4);
}

}  // namespace ccdrec::cuda
