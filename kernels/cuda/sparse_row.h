// Sums over the edges of sparse rows: the inner loop of spmm and propagation. Private to kernels/cuda.
#pragma once
#include "kernels/cuda/device.h"

namespace ccdrec::cuda {

constexpr int kRowsPerBlock = 8;  // one warp each
// more take turns: most lists are far shorter than their capacity, and empty blocks are not free
constexpr int64_t kMostBlocks = 4096;
constexpr int kAhead = 8;    // reads of X's rows that a warp has under way
constexpr int kChunk = 256;  // edges of a long row that one warp adds up before partial sums are joined

// The next kReads of the `left` wanted edges, which are taken off `wanted`: all their rows are asked for before the
// first is used, with no branch between the reads. Past the last edge it is that one's row again, which is not added.
// `mine`: this lane's edge, weight above column.
template <int kReads, int V>
__device__ inline void add_next(float (&acc)[V], uint64_t mine, unsigned& wanted, int left, const float* x_j,
                                int width) {
  float w[kReads], x_c[kReads][V];
#pragma unroll
  for (int k = 0; k < kReads; ++k) {
    const uint64_t edge = __shfl_sync(kAll, mine, __ffs(int(wanted)) - 1);
    const float* const from = x_j + int64_t(int32_t(edge)) * width;
    w[k] = __uint_as_float(uint32_t(edge >> 32));
    if constexpr (V == 2) {
      const float2 two = *reinterpret_cast<const float2*>(from);
      x_c[k][0] = two.x, x_c[k][1] = two.y;
    } else {
      x_c[k][0] = *from;
    }
    if (left > k + 1) wanted &= wanted - 1;
  }
#pragma unroll
  for (int k = 0; k < kReads; ++k)
    for (int v = 0; v < V; ++v) acc[v] = k < left ? fmaf(w[k], x_c[k][v], acc[v]) : acc[v];
}

// acc[v] += sum over edges first .. last-1, in order, of val[e] * X[col[e], j + v]; columns whose mask byte is 0 are
// not read.
// A warp reads 32 edges at once (coalesced) and passes the wanted ones round; a row of X is one coalesced read, and
// kAhead of them are under way. A lane past the row's end reads its beginning, for nothing.
template <int V>
__device__ inline void add_edges(float (&acc)[V], const int32_t* col, const float* val, int64_t first, int64_t last,
                                 const float* x, int64_t d, int64_t j, bool in_row, const uint8_t* mask) {
  const int lane = int(threadIdx.x) % kWarp, width = int(d);
  const float* const x_j = x + (in_row ? j : 0);
  for (int64_t base = first; base < last; base += kWarp) {
    const bool have = base + lane < last;
    const int32_t c_mine = have ? col[base + lane] : 0;
    const uint64_t mine = uint64_t(have ? __float_as_uint(val[base + lane]) : 0) << 32 | uint32_t(c_mine);
    unsigned wanted = __ballot_sync(kAll, have && (!mask || mask[c_mine]));
    int left = __popc(wanted);
    for (; left > kAhead / 2; left -= kAhead) add_next<kAhead>(acc, mine, wanted, left, x_j, width);
    if (left > 0) add_next<kAhead / 2>(acc, mine, wanted, left, x_j, width);
  }
}

// The rows of one block: warp w sums row list[8 blockIdx.x + w]; then start(r, j, v) gives what the sum of column j
// starts from and store(r, j, sum) takes it. A row of more than kChunk edges is summed by all eight warps in chunks;
// the partial sums are added in order of the chunks. V columns a lane. Every thread of the block must call it.
template <int V, class Start, class Store>
__device__ inline void rows_of_block(const Csr& a, const float* x, int64_t d, RowList rows, const uint8_t* mask,
                                     Start&& start, Store&& store) {
  SHARED(float, part, [kRowsPerBlock][kWarp * 2]);
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  const int64_t n = rows.n(), first = int64_t(blockIdx.x) * kRowsPerBlock;
  if (first >= n) return;  // the whole block
  // Lane l knows row l of the block: one load each, and which rows are long, in place of a walk over all of them by
  // every warp.
  int64_t r_of = 0, from = 0, to = 0;
  if (lane < kRowsPerBlock && first + lane < n)
    r_of = rows.at(first + lane), from = a.row_ptr[r_of], to = a.row_ptr[r_of + 1];
  const unsigned longs = __ballot_sync(kAll, to - from > kChunk);
  for (int64_t j0 = 0; j0 < d; j0 += kWarp * V) {
    const int64_t j = j0 + lane * V;
    const bool in_row = j < d;
    if (first + warp < n) {
      const int64_t r = __shfl_sync(kAll, r_of, warp), e0 = __shfl_sync(kAll, from, warp),
                    e1 = __shfl_sync(kAll, to, warp);
      if (e1 - e0 <= kChunk) {
        float acc[V] = {};
        for (int v = 0; v < V && in_row; ++v) acc[v] = start(r, j + v);
        add_edges<V>(acc, a.col, a.val, e0, e1, x, d, j, in_row, mask);
        for (int v = 0; v < V && in_row; ++v) store(r, j + v, acc[v]);
      }
    }
    for (unsigned left = longs; left; left &= left - 1) {  // the same for every thread
      const int w = __ffs(int(left)) - 1;
      const int64_t r = __shfl_sync(kAll, r_of, w), e0 = __shfl_sync(kAll, from, w), e1 = __shfl_sync(kAll, to, w);
      float sum[V] = {};
      for (int v = 0; v < V && in_row && warp == 0; ++v) sum[v] = start(r, j + v);
      for (int64_t e = e0; e < e1; e += kRowsPerBlock * kChunk) {
        const int64_t c0 = e + warp * kChunk, c1 = c0 + kChunk < e1 ? c0 + kChunk : e1;
        float acc[V] = {};
        if (c0 < e1) add_edges<V>(acc, a.col, a.val, c0, c1, x, d, j, in_row, mask);
        for (int v = 0; v < V; ++v) part[warp][lane * V + v] = acc[v];
        __syncthreads();
        if (warp == 0)
          for (int p = 0; p < kRowsPerBlock && e + p * kChunk < e1; ++p)
            for (int v = 0; v < V; ++v) sum[v] += part[p][lane * V + v];
        __syncthreads();
      }
      for (int v = 0; v < V && in_row && warp == 0; ++v) store(r, j + v, sum[v]);
    }
  }
}

// rows_of_block for every row of the list, by a grid that need not cover its capacity: list_blocks(rows) blocks.
template <int V, class Start, class Store>
__device__ inline void rows_in_turn(const Csr& a, const float* x, int64_t d, RowList rows, const uint8_t* mask,
                                    Start&& start, Store&& store) {
  const int64_t n = rows.n();
  // once, where the list is the identity
  for (int64_t skip = 0; skip < n; skip += int64_t(gridDim.x) * kRowsPerBlock) {
    int64_t left = n - skip;
    rows_of_block<V>(a, x, d, RowList{rows.idx ? rows.idx + skip : nullptr, &left, left}, mask, start, store);
  }
}
inline int64_t list_blocks(RowList rows) {
  const int64_t all = blocks_for(rows.capacity, kRowsPerBlock);
  return rows.idx ? std::min(all, kMostBlocks) : all;
}

// Whether the product with all rows of `a` is cuSPARSE's: chosen, and possible. spmm.cu
bool by_cusparse(const Ctx&, const Csr& a, int64_t d);

// Two columns a lane where rows of X can be read two at a time.
inline bool two_columns(CMat x) { return x.cols % 2 == 0 && reinterpret_cast<uintptr_t>(x.p) % 8 == 0; }

}  // namespace ccdrec::cuda
