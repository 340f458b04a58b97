// A 64 x 64 tile of C = A B^T in the order that gemm.h promises for the CPU: chains of 256 terms, one fma a term, block
// sums added in order. An element's bits do not depend on the tile or the place it is computed in. Private to
// kernels/cuda.
#pragma once
#include "kernels/cuda/device.h"

namespace ccdrec::cuda {

constexpr int kTile = 64;
constexpr int kTileThreads = 128;

// Four terms k .. k+3 of a row of `cols`, zeros beyond its end; k is a multiple of 4. kFour: the row can be read four
// at a time.
template <bool kFour>
__device__ inline float4 four_terms(const float* row, int64_t k, int64_t cols) {
  if constexpr (kFour) return k < cols ? *reinterpret_cast<const float4*>(row + k) : make_float4(0, 0, 0, 0);
  return make_float4(k < cols ? row[k] : 0.0f, k + 1 < cols ? row[k + 1] : 0.0f, k + 2 < cols ? row[k + 2] : 0.0f,
                     k + 3 < cols ? row[k + 3] : 0.0f);
}
inline bool four_columns(CMat x) { return x.cols % 4 == 0 && reinterpret_cast<uintptr_t>(x.p) % 16 == 0; }

// a(r, k) and b(c, k), r, c < 64: terms k .. k+3 of row r of A's part and row c of B's, zeros outside, k a multiple of
// 4 and below K rounded up to 16. store(r, c, v) takes columns c .. c+3 of row r. Every one of the block's 128 threads
// must call it.
// Geometry  2 x 2 warps of 32 x 32; a thread owns 8 rows x 4 columns: per term 3 float4 from shared memory (1 wavefront
//           each) for 32 fma.
// Traffic   512 bytes a term and tile. 16 terms lie in shared memory, the next 16 are on their way in registers: one
//           barrier per 16 terms.
template <class A, class B, class Store>
__device__ inline void product_tile(int64_t K, A&& a, B&& b, Store&& store) {
  constexpr int kStep = 16, kChain = 256, kLd = kTile + 4;
  SHARED(float4, a_step, [2][kStep][kLd / 4]);  // term t: 64 rows of A
  SHARED(float4, b_step, [2][kStep][kLd / 4]);
  const int thread = int(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int row = warp / 2 * 32 + lane / 8 * 8, col = warp % 2 * 32 + lane % 8 * 4;
  const int load_row = thread / 4, load_k = thread % 4 * 4;  // and row + 32
  float4 next_a[2], next_b[2];
  const auto fetch = [&](int64_t k) {
#pragma unroll
    for (int h = 0; h < 2; ++h)
      next_a[h] = a(load_row + 32 * h, k + load_k), next_b[h] = b(load_row + 32 * h, k + load_k);
  };
  const auto put = [&](float4(&step)[kStep][kLd / 4], int r, const float4& v) {
    reinterpret_cast<float*>(step[load_k])[r] = v.x, reinterpret_cast<float*>(step[load_k + 1])[r] = v.y;
    reinterpret_cast<float*>(step[load_k + 2])[r] = v.z, reinterpret_cast<float*>(step[load_k + 3])[r] = v.w;
  };
  const auto keep = [&](int s) {
#pragma unroll
    for (int h = 0; h < 2; ++h)
      put(a_step[s], load_row + 32 * h, next_a[h]), put(b_step[s], load_row + 32 * h, next_b[h]);
  };
  float sum[8][4] = {}, total[8][4] = {};
  const auto term = [&](int s, int t) {
    const float4 a0 = a_step[s][t][row / 4], a1 = a_step[s][t][row / 4 + 1], b0 = b_step[s][t][col / 4];
    const float left[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w}, right[4] = {b0.x, b0.y, b0.z, b0.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(left[i], right[j], sum[i][j]);
  };

  if (K > 0) fetch(0), keep(0);
  __syncthreads();
  int s = 0;
  for (int64_t k = 0; k < K; k += kStep, s ^= 1) {
    const bool more = k + kStep < K;
    if (more) fetch(k + kStep);
    if (k + kStep <= K) {
#pragma unroll
      for (int t = 0; t < kStep; ++t) term(s, t);
    } else {
      for (int t = 0; t < int(K - k); ++t) term(s, t);
    }
    if (!more || (k + kStep) % kChain == 0) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) total[i][j] = k < kChain ? sum[i][j] : total[i][j] + sum[i][j], sum[i][j] = 0;
    }
    if (more) keep(s ^ 1);  // last read before the barrier that ended the step before
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) store(row + i, col, make_float4(total[i][0], total[i][1], total[i][2], total[i][3]));
}

}  // namespace ccdrec::cuda
