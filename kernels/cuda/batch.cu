#include "kernels/batch.h"
#include "kernels/cuda/row_moves.h"

namespace ccdrec::cuda {
namespace {

// Geometry  one thread a pair.
// Traffic   8 coalesced bytes and 4 scattered.
__global__ void take_by_order(int32_t* out, const int32_t* table, const int32_t* order, int64_t first, int64_t n,
                              const Late* late) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j < n) out[j] = table[order[late_first(first, late) + j]];
}

// Geometry  one thread an id; in and out may be the same.
// Traffic   8 bytes.
__global__ void offset_elementwise(int32_t* out, const int32_t* in, int64_t n, int32_t offset) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j < n) out[j] = in[j] + offset;
}

constexpr int kBatchGroups = 8;

// Y[s] = X[j] for the slots s of group j.
// Geometry  8 groups and 8 warps a block; the slots of those groups are one range, which the warps take in turn, so a
//           popular row is written by all.
// Traffic   one coalesced row out a slot; its row of X comes from cache after the first.
template <int V>
__global__ void expand_by_slot(Mat y, CMat x, Groups g) {
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  const int64_t n = g.rows.n(), first = int64_t(blockIdx.x) * kBatchGroups;
  if (first >= n) return;
  const int64_t end = first + kBatchGroups < n ? first + kBatchGroups : n;
  const int32_t group_end = first + lane < end ? g.ptr[first + lane + 1] : INT32_MAX, last = g.ptr[end];
  for (int32_t e = g.ptr[first] + warp; e < last; e += kBatchGroups) {
    const int ended = __popc(__ballot_sync(kAll, group_end <= e));  // the groups before the one of e
    const float* from = x.row(first + ended);
    float* to = y.row(g.slot[e]);
    for (int64_t c = lane * V; c < x.cols; c += kWarp * V) {
      if constexpr (V == 2)
        *reinterpret_cast<float2*>(to + c) = *reinterpret_cast<const float2*>(from + c);
      else
        to[c] = from[c];
    }
  }
}

// Geometry  row_moves.h.
// Traffic   12 bytes an element.
template <class T>
__global__ void add_by_tile(float* y, const float* x, RowList rows, int64_t y_first, int64_t width) {
  each_element(rows.n(), width, [&](int64_t j, int64_t c) {
    const int64_t r = rows.at(j);
    T& y_rc = reinterpret_cast<T*>(y)[(y_first + r) * width + c];
    y_rc = sum_of(y_rc, reinterpret_cast<const T*>(x)[r * width + c]);
  });
}

}  // namespace

void take(Ctx& ctx, int32_t* out, const int32_t* table, const int32_t* order, int64_t first, int64_t n) {
  launch(take_by_order, blocks_for(n, 256), 256, 0, ctx, out, table, order, first, n, ctx.late);
}

void offset_ids(Ctx& ctx, int32_t* out, const int32_t* in, int64_t n, int32_t offset) {
  launch(offset_elementwise, blocks_for(n, 256), 256, 0, ctx, out, in, n, offset);
}

void expand_rows(Ctx& ctx, Mat y, CMat x, const Groups& g) {
  CHECK_THAT(x.cols == y.cols);
  const int64_t blocks = blocks_for(g.rows.capacity, kBatchGroups);
  if (moves_by(2, x.cols, y.p, x.p))
    launch(expand_by_slot<2>, blocks, kBatchGroups * kWarp, 0, ctx, y, x, g);
  else
    launch(expand_by_slot<1>, blocks, kBatchGroups * kWarp, 0, ctx, y, x, g);
}

void add_rows(Ctx& ctx, Mat y, CMat x, RowList rows, int64_t y_first) {
  CHECK_THAT(x.cols == y.cols);
  if (moves_by(4, x.cols, y.p, x.p))
    launch(add_by_tile<float4>, tiles(rows.capacity), kMoveThreads, 0, ctx, y.p, x.p, rows, y_first, x.cols / 4);
  else
    launch(add_by_tile<float>, tiles(rows.capacity), kMoveThreads, 0, ctx, y.p, x.p, rows, y_first, x.cols);
}

}  // namespace ccdrec::cuda
