// The flagged of n elements as a list, in order and in one launch. Private to kernels/cuda.
#pragma once
#include "kernels/cuda/device.h"

namespace ccdrec::cuda {

constexpr int kCompactThreads = 1024;

// emit(rank, position) for every flagged position < n, rank being the number of those before it; then finish(how many
// there are), by one thread. bits(c) has bit b set iff position Per*c + b is flagged, and none for positions from n on.
// Every thread of the block must call it.
// Geometry  1024 threads a block, Per positions a thread: compact_blocks(most positions there may be, Per).
// Traffic   every block counts for itself what lies before it: n^2 / (2048 Per) flags, read from L2 once the first
//           blocks have seen them. For the mask of 200,000 nodes (Per = 16) that is 1.3 MB and twelve loads a thread at
//           most: less than a second launch costs.
// Limits    quadratic: at some millions of positions counting and writing should be two launches.
template <int Per, class Bits, class Emit, class Finish>
__device__ inline void compact(int64_t n, Bits&& bits, Emit&& emit, Finish&& finish) {
  SHARED(uint64_t, warp_sum, [kCompactThreads / kWarp]);
  const int64_t chunks = (n + Per - 1) / Per, first = int64_t(blockIdx.x) * kCompactThreads, mine = first + threadIdx.x;
  if (first > 0 && first >= chunks) return;  // the whole block; the first one finishes an empty list
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  unsigned before = 0;
#pragma unroll 4
  for (int64_t c = threadIdx.x; c < first; c += kCompactThreads) before += unsigned(__popc(bits(c)));
  const unsigned own = mine < chunks ? bits(mine) : 0;
  // both sums in one scan; the low half stays below 2^16
  uint64_t sum = uint64_t(before) << 32 | uint64_t(__popc(own));
  for (int up = 1; up < kWarp; up *= 2) {
    const uint64_t left = __shfl_up_sync(kAll, sum, unsigned(up));
    if (lane >= up) sum += left;
  }
  if (lane == kWarp - 1) warp_sum[warp] = sum;
  __syncthreads();
  uint64_t earlier = 0, all = 0;
  for (int w = 0; w < kCompactThreads / kWarp; ++w) {
    if (w < warp) earlier += warp_sum[w];
    all += warp_sum[w];
  }
  const int64_t base = int64_t(all >> 32);
  int64_t rank = base + int64_t(uint32_t(earlier + sum)) - __popc(own);
  for (unsigned left = own; left; left &= left - 1) emit(rank++, mine * Per + __ffs(int(left)) - 1);
  if (first + kCompactThreads >= chunks && threadIdx.x == 0) finish(base + int64_t(uint32_t(all)));
}
inline int64_t compact_blocks(int64_t capacity, int per) {
  return std::max(int64_t(1), blocks_for(capacity, int64_t(kCompactThreads) * per));
}

}  // namespace ccdrec::cuda
