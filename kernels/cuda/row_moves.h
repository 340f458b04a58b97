// Element by element over the rows of a list. Private to kernels/cuda.
#pragma once
#include "kernels/cuda/device.h"

namespace ccdrec::cuda {

constexpr int kMoveThreads = 256, kRowsPerTile = 32;
// more take turns: most lists are far shorter than their capacity, and empty blocks are not free
constexpr int64_t kMostTiles = 4096;

// f(j, c) for every entry j < n of a list and column c < width. Consecutive threads take consecutive columns, then
// entries: rows that follow each other in memory are read and written in one piece.
// Geometry  256 threads a block, tiles of 32 entries, tiles(capacity) blocks.
template <class F>
__device__ inline void each_element(int64_t n, int64_t width, F&& f) {
  const unsigned w = unsigned(width);
  for (int64_t first = int64_t(blockIdx.x) * kRowsPerTile; first < n; first += int64_t(gridDim.x) * kRowsPerTile) {
    const unsigned end = unsigned(n - first < kRowsPerTile ? n - first : kRowsPerTile) * w;
#pragma unroll 2
    for (unsigned t = threadIdx.x; t < end; t += kMoveThreads) f(first + t / w, int64_t(t % w));
  }
}
inline int64_t tiles(int64_t capacity) { return std::min(kMostTiles, blocks_for(capacity, kRowsPerTile)); }

// Whether rows of this width at these addresses can be moved `floats` at a time (2: 8 bytes, 4: 16 bytes).
inline bool moves_by(int floats, int64_t cols, const float* p, const float* q = nullptr) {
  return cols % floats == 0 &&
         (reinterpret_cast<uintptr_t>(p) | reinterpret_cast<uintptr_t>(q)) % (sizeof(float) * size_t(floats)) == 0;
}

__device__ inline float sum_of(float a, float b) { return a + b; }
__device__ inline float4 sum_of(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

}  // namespace ccdrec::cuda
