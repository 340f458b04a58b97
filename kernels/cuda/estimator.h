// Rows of the estimator in registers: what its kernels and the reverse process share. Private to kernels/cuda.
//
// A row of width d is held as W = 64 N floats, zeros at the end, by the 16 lanes of a group: lane 2q + g of a warp is
// lane q of group g and holds columns 64n + 4q .. +3, n < N. The two groups of a warp work on different rows and the
// same weights; being neighbouring lanes, one access of shared memory serves both. A product keeps I rows of 4N columns
// in a lane's registers: per k it reads I + 4N floats for 4 I N multiply-adds, and every sum runs over k ascending.
// Both weight matrices lie in shared memory for d <= 64 (32 KB), and for d <= 128 where a block may have 200 KB (128
// KB); wider ones are read through L1 and L2, which is the slower path.
#pragma once
#include "kernels/cuda/chip.h"
#include "kernels/cuda/device.h"
#include "kernels/estimator.h"

namespace ccdrec::cuda {

constexpr int kMaxTokens = kMaxModalities + 2;

template <int I_, int N_, int kMostWarps_, bool kWeightsShared_>
struct Shape {  // rows a lane, float4 a row and lane, warps a block by registers
  static constexpr int I = I_, N = N_, W = 64 * N, kStride = W + 4, kMostWarps = kMostWarps_;
  static constexpr bool kWeightsShared = kWeightsShared_;
  static constexpr int64_t kWeightFloats = kWeightsShared ? 2 * W * W : 0;  // of the block's shared memory
};

// f(Shape) for a row width.
template <class F>
void with_shape(int64_t d, F&& f) {
  if (d <= 64) return f(Shape<4, 1, 12, true>{});
  if (d <= 128) return chip().shared >= 200 * 1024 ? f(Shape<4, 2, 8, true>{}) : f(Shape<4, 2, 8, false>{});
  if (d <= 256) return f(Shape<2, 4, 8, false>{});
  return f(Shape<1, 8, 8, false>{});
}
inline int64_t padded_width(int64_t d) {
  CHECK_THAT(d >= 1 && d <= 512);
  return d <= 64 ? 64 : d <= 128 ? 128 : d <= 256 ? 256 : 512;
}

// What is computed once per call, rows padded to W: G = W_q W_k^T and W_v, or their transposes for the backward; x and
// y = x G of the time tokens.
struct EstimatorConstants {
  const float *g = nullptr, *v = nullptr;          // (W,W)
  const float *x_tau = nullptr, *y_tau = nullptr;  // (T,W), where there is a tau
};
// One launch, into scratch slot 7.
EstimatorConstants estimator_constants(Ctx&, const EstimatorParams&, CMat tau, bool transposed);

inline bool aligned16(const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

__device__ inline float4 fma4(float a, float4 b, float4 c) {
  return make_float4(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y), fmaf(a, b.z, c.z), fmaf(a, b.w, c.w));
}
__device__ inline float dot4(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
__device__ inline float4 first4(float4 a, int n) {  // the first n floats, then zeros
  return make_float4(n > 0 ? a.x : 0.0f, n > 1 ? a.y : 0.0f, n > 2 ? a.z : 0.0f, n > 3 ? a.w : 0.0f);
}
// The first n floats at p (n may be <= 0 or > 4), then zeros. `vec`: p is a multiple of 16 bytes and n of 4.
__device__ inline float4 load4(const float* p, int n, bool vec) {
  if (vec) return n > 0 ? *reinterpret_cast<const float4*>(p) : make_float4(0, 0, 0, 0);
  return make_float4(n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, n > 3 ? p[3] : 0.0f);
}
__device__ inline void store4(float* p, float4 a, int n, bool vec) {
  if (vec) {
    if (n > 0) *reinterpret_cast<float4*>(p) = a;
    return;
  }
  if (n > 0) p[0] = a.x;
  if (n > 1) p[1] = a.y;
  if (n > 2) p[2] = a.z;
  if (n > 3) p[3] = a.w;
}

template <int N>
struct Row {  // this lane's columns
  float4 at[N];
};

template <int N>
__device__ inline Row<N> load_row(const float* row, int d, int q, bool vec) {
  Row<N> x;
#pragma unroll
  for (int n = 0; n < N; ++n) x.at[n] = load4(row + 64 * n + 4 * q, d - (64 * n + 4 * q), vec);
  return x;
}
template <int N>
__device__ inline void store_row(float* row, const Row<N>& x, int d, int q, bool vec) {
#pragma unroll
  for (int n = 0; n < N; ++n) store4(row + 64 * n + 4 * q, x.at[n], d - (64 * n + 4 * q), vec);
}
// A row of W floats.
template <int N>
__device__ inline Row<N> padded_row(const float* row, int q) {
  return load_row<N>(row, 64 * N, q, true);
}
template <int N>
__device__ inline void put_row(float* row, const Row<N>& x, int q) {
  store_row<N>(row, x, 64 * N, q, true);
}
template <int N>
__device__ inline float dot(const Row<N>& a, const Row<N>& b) {  // this lane's part
  float sum = 0;
#pragma unroll
  for (int n = 0; n < N; ++n) sum = dot4(a.at[n], b.at[n], sum);
  return sum;
}
template <int N>
__device__ inline void add(Row<N>& y, float w, const Row<N>& x) {  // y += w x
#pragma unroll
  for (int n = 0; n < N; ++n) y.at[n] = fma4(w, x.at[n], y.at[n]);
}

// Every v[k] becomes its sum over the 16 lanes of the group: by halves, the same bits in every lane.
template <int V>
__device__ inline void group_sums(float (&v)[V]) {
#pragma unroll
  for (int bit = 2; bit < kWarp; bit *= 2) {
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] += __shfl_xor_sync(kAll, v[k], bit);
  }
}
// The sum over the group of v[q V / 16], in lane q: V - 1 shuffles and log2(16 / V) more, where V sums one by one would
// take 4 V.
template <int V>
__device__ inline float gather_sums(const float (&v)[V], int q, int bit = 8) {
  if constexpr (V == 1) {
    float sum = v[0];
    for (; bit; bit /= 2) sum += __shfl_xor_sync(kAll, sum, 2 * bit);
    return sum;
  } else {
    const bool upper = q & bit;
    float half[V / 2];
#pragma unroll
    for (int k = 0; k < V / 2; ++k) {
      const float mine = upper ? v[k + V / 2] : v[k], theirs = upper ? v[k] : v[k + V / 2];
      half[k] = mine + __shfl_xor_sync(kAll, theirs, 2 * bit);
    }
    return gather_sums<V / 2>(half, q, bit / 2);
  }
}
// Where lane q's sum belongs after gather_sums of v[kind * I + i], kind < 4, i < I: only leading lanes store, the
// others hold copies.
template <int I>
struct Gathered {
  int kind, i;
  bool leads;
  __device__ explicit Gathered(int q) : kind(q / 4), i(q % 4 * I / 4), leads(q % 4 * I % 4 == 0) {}
};

// x = (token - mean) rstd over d of I rows, as layer_norm_row of the CPU: two passes. Zeros beyond d stay zeros.
template <int I, int N>
__device__ inline void layer_norm(Row<N> (&x)[I], float (&rstd)[I], int d, int q) {
  const float inv_d = 1.0f / float(d);
  float mean[I];
#pragma unroll
  for (int i = 0; i < I; ++i) {
    mean[i] = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) mean[i] += (x[i].at[n].x + x[i].at[n].y) + (x[i].at[n].z + x[i].at[n].w);
  }
  group_sums(mean);
#pragma unroll
  for (int i = 0; i < I; ++i) {
    const float m = mean[i] * inv_d;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float4 a = x[i].at[n];
      x[i].at[n] = first4(make_float4(a.x - m, a.y - m, a.z - m, a.w - m), d - (64 * n + 4 * q));
    }
    rstd[i] = dot(x[i], x[i]);
  }
  group_sums(rstd);
#pragma unroll
  for (int i = 0; i < I; ++i) {
    rstd[i] = 1.0f / sqrtf(rstd[i] * inv_d + 1e-5f);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      float4& a = x[i].at[n];
      a = make_float4(a.x * rstd[i], a.y * rstd[i], a.z * rstd[i], a.w * rstd[i]);
    }
  }
}

// y[i] += x_i W for I rows x_i of shared memory, `stride` floats apart; k < depth (a multiple of four), W (depth, 64 N)
// row-major. All lanes of a group read the same x and different columns of W.
template <int I, int N>
__device__ inline void add_product(Row<N> (&y)[I], const float* x, int stride, const float* w, int depth, int q) {
  const float4* w_k = reinterpret_cast<const float4*>(w) + q;
#pragma unroll 2
  for (int k = 0; k < depth; k += 4, w_k += 4 * 16 * N) {
    float4 x_i[I];
#pragma unroll
    for (int i = 0; i < I; ++i) x_i[i] = *reinterpret_cast<const float4*>(x + i * stride + k);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float4 w0 = w_k[16 * n], w1 = w_k[16 * (N + n)], w2 = w_k[16 * (2 * N + n)], w3 = w_k[16 * (3 * N + n)];
#pragma unroll
      for (int i = 0; i < I; ++i) y[i].at[n] = fma4(x_i[i].x, w0, y[i].at[n]);
#pragma unroll
      for (int i = 0; i < I; ++i) y[i].at[n] = fma4(x_i[i].y, w1, y[i].at[n]);
#pragma unroll
      for (int i = 0; i < I; ++i) y[i].at[n] = fma4(x_i[i].z, w2, y[i].at[n]);
#pragma unroll
      for (int i = 0; i < I; ++i) y[i].at[n] = fma4(x_i[i].w, w3, y[i].at[n]);
    }
  }
}
CCDREC_HD inline int depth_of(int64_t d) { return int((d + 3) / 4 * 4); }

// The block's two weight matrices, copied into the front of its shared memory where they fit. Every thread of the block
// must call it.
template <class S>
__device__ inline EstimatorConstants block_weights(float* shared, EstimatorConstants c, int depth) {
  if constexpr (S::kWeightsShared) {
    float4* to = reinterpret_cast<float4*>(shared);
    const float4 *g = reinterpret_cast<const float4*>(c.g), *v = reinterpret_cast<const float4*>(c.v);
    const int each = depth * S::W / 4, v_at = S::W * S::W / 4;
    for (int k = int(threadIdx.x); k < each; k += int(blockDim.x)) to[k] = g[k], to[v_at + k] = v[k];
    __syncthreads();
    c.g = shared, c.v = shared + S::W * S::W;
  }
  return c;
}

// Attention of the R items of a warp in its shared memory: (K,K) scores, their softmax a, the means w of its columns;
// items innermost. Rows of scores start R banks apart, so that the lanes - (row, item) - meet no bank twice.
template <int R>
struct Attention {
  float *w, *score, *a;  // (K,R), (K,row), (K,row)
  int K, row;
  __device__ Attention(float* at, int K_)
      : w(at), score(at + K_ * R), a(at + K_ * R + K_ * row_floats(K_)), K(K_), row(row_floats(K_)) {}
  CCDREC_HD static int row_floats(int K) { return K * R + ((R - K * R) & 31); }
  CCDREC_HD static int64_t floats(int K) { return (K * R + 2 * K * row_floats(K) + 3) / 4 * 4; }

  __device__ int at(int r, int c, int item) const { return r * row + c * R + item; }

  // kK: K where it is known, else 0. Every lane of the warp must call it.
  template <int kK>
  __device__ void softmax_of(float scale) const {
    constexpr int kMost = kK ? kK : kMaxTokens;
    const int lane = int(threadIdx.x) % kWarp, item = lane % R, tokens = kK ? kK : K;
    for (int r = lane / R; r < tokens; r += kWarp / R) {
      float e[kMost], sum = 0;
      float top = score[at(r, 0, item)];
#pragma unroll
      for (int c = 0; c < kMost; ++c) {
        e[c] = c < tokens ? score[at(r, c, item)] : top;
        top = e[c] > top ? e[c] : top;
      }
#pragma unroll
      for (int c = 0; c < kMost; ++c) {
        if (c >= tokens) continue;
        e[c] = expf((e[c] - top) * scale);
        sum += e[c];
      }
      const float inv = 1.0f / sum;
#pragma unroll
      for (int c = 0; c < kMost; ++c) {
        if (c < tokens) a[at(r, c, item)] = e[c] * inv;
      }
    }
    __syncwarp();
    for (int c = lane / R; c < tokens; c += kWarp / R) {
      float sum = 0;
#pragma unroll
      for (int r = 0; r < kMost; ++r) {
        if (r < tokens) sum += a[at(r, c, item)];
      }
      w[c * R + item] = sum * (1.0f / float(tokens));
    }
    __syncwarp();
  }
  __device__ void softmax(float scale) const {
    K == 4 ? softmax_of<4>(scale) : K == 3 ? softmax_of<3>(scale) : softmax_of<0>(scale);
  }
};

}  // namespace ccdrec::cuda
