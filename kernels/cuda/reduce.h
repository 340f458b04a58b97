// Rows dealt to teams of lanes, and sums whose order is fixed by the shapes alone. Private to kernels/cuda.
//
// A team is 2^shift neighbouring lanes of one warp and owns one row. Its lanes own V columns each, then the next V
// 2^shift columns, and so on. A block of kTeamThreads is 256 >> shift teams. At d = 64 and V = 4 a team is 16 lanes: a
// row is one access of 256 bytes.
#pragma once
#include <initializer_list>

#include "kernels/cuda/device.h"

namespace ccdrec::cuda {

constexpr int kTeamThreads = 256;

inline int team_shift(int64_t pieces) {  // a lane for every piece of a row, at most a warp
  int shift = 0;
  while (shift < 5 && (int64_t(1) << shift) < pieces) ++shift;
  return shift;
}
inline int64_t team_blocks(int64_t rows, int shift) { return blocks_for(rows, kTeamThreads >> shift); }
__device__ inline int64_t team_row(int shift) {
  return int64_t(blockIdx.x) * (kTeamThreads >> shift) + (threadIdx.x >> shift);
}
__device__ inline int team_lane(int shift) { return int(threadIdx.x) & ((1 << shift) - 1); }

// V = 4 needs rows that start at multiples of 16 bytes.
inline bool four_columns(int64_t cols, std::initializer_list<const float*> starts) {
  uintptr_t bits = 0;
  for (const float* p : starts) bits |= reinterpret_cast<uintptr_t>(p);
  return cols % 4 == 0 && bits % 16 == 0;
}
template <int V>
struct Columns {
  float v[V];
};
template <int V>
__device__ inline Columns<V> load(const float* p) {
  if constexpr (V == 4) {
    const float4 x = *reinterpret_cast<const float4*>(p);
    return {{x.x, x.y, x.z, x.w}};
  } else {
    return {{*p}};
  }
}
template <int V>
__device__ inline void store(float* p, const Columns<V>& x) {
  if constexpr (V == 4)
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  else
    *p = x.v[0];
}

// The rows in use, or the first `room` of them with the fault noted: what the CPU throws for.
__device__ inline int64_t rows_within(RowList rows, int64_t room, int32_t* fault) {
  const int64_t n = rows.n();
  if (n <= room) return n;
  if (blockIdx.x == 0 && threadIdx.x == 0) atomicMax(fault, int(kListTooSmall));
  return room;
}

// The sum over 2^shift neighbouring lanes, the same bits on each of them. Every lane of the warp must call it.
template <class T>
__device__ inline T team_sum(T v, int shift) {
  for (int bit = (1 << shift) >> 1; bit > 0; bit >>= 1) v += __shfl_xor_sync(kAll, v, bit);
  return v;
}

// a . b in double by eight neighbouring lanes, the same bits on each: column j goes to lane j % 8, as on the CPU
// (cpu/double_sums.h). Every lane of the warp calls it.
constexpr int kEight = 8, kEightShift = 3;
__device__ inline double dot_by_eight(const float* a, const float* b, int64_t d) {
  double sum = 0;
  for (int64_t j = threadIdx.x % kEight; j < d; j += kEight) sum += double(a[j]) * double(b[j]);
  return team_sum(sum, kEightShift);
}

// The sum over the threads of a block, the same on each: warps by team_sum, then in order. Once a kernel: its shared
// memory is not guarded for a second.
__device__ inline double block_sum(double v) {
  SHARED(double, of_warp, [32]);
  v = team_sum(v, 5);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = v;
  __syncthreads();
  double sum = 0;
  for (unsigned w = 0; w < blockDim.x / kWarp; ++w) sum += of_warp[w];
  return sum;
}
// part[0] + .. + part[n-1] by one block: thread t adds part[t], part[t + threads], .. in order, then block_sum.
__device__ inline double sum_of_partials(const double* part, int64_t n) {
  double sum = 0;
  for (int64_t k = threadIdx.x; k < n; k += blockDim.x) sum += part[k];
  return block_sum(sum);
}

}  // namespace ccdrec::cuda
