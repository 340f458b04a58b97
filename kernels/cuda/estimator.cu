#include <cmath>

#include "kernels/cuda/estimator.h"
#include "kernels/cuda/estimator_weights.h"

namespace ccdrec::cuda {
namespace {

// out[c] = v . w.row(c) for c < d, then zeros up to `width`; v (d) in shared memory. One warp a sum, lane l takes terms
// l, l+32, ..
__device__ inline void row_times_transposed(float* out, const float* v, CMat w, int64_t width) {
  const int lane = int(threadIdx.x) % kWarp, warps = int(blockDim.x) / kWarp;
  for (int64_t c = threadIdx.x / kWarp; c < w.rows; c += warps) {
    float sum = 0;
    for (int64_t k = lane; k < w.cols; k += kWarp) sum = fmaf(v[k], w.row(c)[k], sum);
    for (int bit = 1; bit < kWarp; bit *= 2) sum += __shfl_xor_sync(kAll, sum, bit);
    if (lane == 0) out[c] = sum;
  }
  for (int64_t c = w.rows + threadIdx.x; c < width; c += blockDim.x) out[c] = 0;
}

// Row r < W of G and W_v (or of their transposes); then, a block a step, x and y = (x W_q) W_k^T of the time tokens.
// Geometry  W + T blocks of 8 warps.
// Traffic   16 KB a block from L2 at d = 64, 2 W floats written.
__global__ void estimator_constants_row(float* g, float* v, float* x_tau, float* y_tau, EstimatorParams params,
                                        CMat tau, bool transposed, int64_t width) {
  float *row = dynamic_shared<float>(), *product = row + width;  // (W) each
  const int64_t d = params.wq.rows, r = blockIdx.x;
  const int lane = int(threadIdx.x) % kWarp;
  if (r < width) {
    const CMat left = transposed ? params.wk : params.wq, right = transposed ? params.wq : params.wk;
    for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      const bool inside = r < d && j < d;
      row[j] = inside ? left.row(r)[j] : 0.0f;
      v[r * width + j] = inside ? (transposed ? params.wv.row(j)[r] : params.wv.row(r)[j]) : 0.0f;
      if (r >= d) g[r * width + j] = 0;
    }
    if (r >= d) return;
    __syncthreads();
    row_times_transposed(g + r * width, row, right, width);
    return;
  }
  const int64_t t = r - width;
  const float* token = tau.row(t);
  float mean = 0, squares = 0;  // by every warp for itself
  for (int64_t j = lane; j < d; j += kWarp) mean += token[j];
  for (int bit = 1; bit < kWarp; bit *= 2) mean += __shfl_xor_sync(kAll, mean, bit);
  mean = mean / float(d);
  for (int64_t j = lane; j < d; j += kWarp) squares = fmaf(token[j] - mean, token[j] - mean, squares);
  for (int bit = 1; bit < kWarp; bit *= 2) squares += __shfl_xor_sync(kAll, squares, bit);
  const float rstd = 1.0f / sqrtf(squares / float(d) + 1e-5f);
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    row[j] = j < d ? (token[j] - mean) * rstd : 0.0f;
    x_tau[t * width + j] = row[j];
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < d; c += blockDim.x) {
    float sum = 0;
#pragma unroll 8
    for (int64_t k = 0; k < d; ++k) sum = fmaf(row[k], params.wq.row(k)[c], sum);
    product[c] = sum;
  }
  __syncthreads();
  row_times_transposed(y_tau + t * width, product, params.wk, width);
}

constexpr int kItemWarps = 8;    // most warps of a block of the kernels by item: 16 items at a time
constexpr int kBlocksPerSm = 2;  // blocks stay and take further items, so that weights are read once a block

// Item and lane of a thread in the kernels by item: a warp takes two items, one a group.
struct Place {
  int group, q, warp, warps;
  __device__ Place()
      : group(int(threadIdx.x) % 2),
        q(int(threadIdx.x) % kWarp / 2),
        warp(int(threadIdx.x) / kWarp),
        warps(int(blockDim.x) / kWarp) {}
  __device__ int64_t first_pair() const { return int64_t(blockIdx.x) * warps + warp; }
  __device__ int64_t step() const { return int64_t(gridDim.x) * warps; }
};

// Floats of shared memory a warp has in the kernels by item: rows of both groups, attention, da.
template <class S>
CCDREC_HD int64_t item_warp_floats(int K, int rows) {
  return 2 * rows * S::kStride + Attention<2>::floats(K) + (2 * K + 3) / 4 * 4;
}
CCDREC_HD inline int up_to(int K, int multiple) { return (K + multiple - 1) / multiple * multiple; }

// f_theta of the listed items: tokens -> x, rstd -> y = x G -> a -> s -> e0_hat.
// Geometry  16 lanes an item, two items a warp, up to 8 warps a block, blocks stay. A lane keeps I = 4 rows of y (d <=
//           128) at a time; a token's x waits in shared memory, where the product reads it by row and everything else
//           by column.
// Traffic   per item 4 K d bytes of tokens read, 8 K d + 8 d of x, y, s, e0_hat written; 32 KB of weights a block from
//           L2.
// Limits    2 (K+1) d^2 flop an item. The value product has one row a lane and is held by the shared memory (5 floats
//           for 4 multiply-adds).
template <class S>
__global__ void __launch_bounds__(kItemWarps* kWarp)
    estimator_forward_items(Mat e0_hat, EstimatorSaved saved, EstimatorTokens in, EstimatorConstants constants,
                            RowList rows, bool vec) {
  constexpr int I = S::I, N = S::N;
  const Place at;
  const int64_t n = rows.n();
  if (int64_t(blockIdx.x) * at.warps * 2 >= n) return;  // the whole block
  const int d = int(e0_hat.cols), depth = depth_of(d), M = in.modalities, K = M + 2, padded = up_to(K, I), q = at.q;
  const float scale = 1.0f / sqrtf(float(d));
  float* shared = dynamic_shared<float>();
  const EstimatorConstants weights = block_weights<S>(shared, constants, depth);
  float* mine = shared + S::kWeightFloats + at.warp * item_warp_floats<S>(K, padded);
  float* tokens = mine + at.group * padded * S::kStride;  // (padded,W) of this group's item
  const Attention<2> attention(mine + 2 * padded * S::kStride, K);
  const Gathered<I> part(q);

  for (int64_t pair = at.first_pair(); pair * 2 < n; pair += at.step()) {
    // of an odd number the last group repeats its neighbour's item and stores nothing
    const bool live = pair * 2 + at.group < n;
    const int64_t j = live ? pair * 2 + at.group : n - 1;
#pragma unroll 1
    for (int r = 0; r < padded; r += I) {
      Row<N> x[I];
      float rstd[I];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const int c = r + i;
        const float* token = c == 0 ? in.e_t.row(j) : c <= M ? in.h[c - 1].row(j) : in.tau.row(in.t[j]);
        x[i] = load_row<N>(token, c < K ? d : 0, q, vec);
      }
      layer_norm(x, rstd, d, q);
#pragma unroll
      for (int i = 0; i < I; ++i) {
        put_row(tokens + (r + i) * S::kStride, x[i], q);
        if (!live || r + i >= K) continue;
        store_row(saved.x.row(j * K + r + i), x[i], d, q, vec);
        if (q == 0) saved.rstd.p[j * K + r + i] = rstd[i];
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < padded; r += I) {
      Row<N> y[I] = {};
      add_product<I, N>(y, tokens + r * S::kStride, S::kStride, weights.g, depth, q);
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (live && r + i < K) store_row(saved.y.row(j * K + r + i), y[i], d, q, vec);
      }
#pragma unroll 1
      for (int c = 0; c < K; c += 4) {
        float v[4 * I];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const Row<N> x_c = padded_row<N>(tokens + min(c + k, K - 1) * S::kStride, q);
#pragma unroll
          for (int i = 0; i < I; ++i) v[k * I + i] = dot(y[i], x_c);
        }
        const float sum = gather_sums(v, q);
        if (part.leads && r + part.i < K && c + part.kind < K)
          attention.score[attention.at(r + part.i, c + part.kind, at.group)] = sum;
      }
    }
    __syncwarp();
    attention.softmax(scale);
    for (int rc = q; live && rc < K * K; rc += 16)
      saved.a.p[j * K * K + rc] = attention.a[attention.at(rc / K, rc % K, at.group)];

    Row<N> s = {};
    for (int c = 0; c < K; ++c) add(s, attention.w[c * 2 + at.group], padded_row<N>(tokens + c * S::kStride, q));
    if (live) store_row(saved.s.row(j), s, d, q, vec);
    put_row(tokens, s, q);  // the product has read the tokens, the rest reads its own columns
    __syncwarp();
    Row<N> out[1] = {};
    add_product<1, N>(out, tokens, S::kStride, weights.v, depth, q);
    if (live) store_row(e0_hat.row(j), out[0], d, q, vec);
    __syncwarp();
  }
}

struct TokenGrads {
  Mat e_t, h[kMaxModalities];
};

// The backward of one item at a time (formulas: kernels/cpu/estimator.cpp): d_out -> ds -> da -> g -> u, dx -> d_token.
// Here g and v are transposed.
// Geometry  as the forward.
// Traffic   per item x three times and y once (the first from memory, the rest L1), 4 K d bytes each; u and the tokens'
//           gradients written.
template <class S>
__global__ void __launch_bounds__(kItemWarps* kWarp)
    estimator_backward_items(TokenGrads grads, CMat d_out, EstimatorSaved saved, int M, EstimatorConstants constants,
                             RowList rows, bool vec) {
  constexpr int I = S::I, N = S::N;
  [[maybe_unused]] constexpr int kAhead = N == 1 ? 4 : 1;  // tokens whose rows are read before they are used
  const Place at;
  const int64_t n = rows.n();
  if (int64_t(blockIdx.x) * at.warps * 2 >= n) return;  // the whole block
  const int d = int(d_out.cols), depth = depth_of(d), K = M + 2, q = at.q;
  const float scale = 1.0f / sqrtf(float(d)), inv_k = 1.0f / float(K), inv_d = 1.0f / float(d);
  float* shared = dynamic_shared<float>();
  const EstimatorConstants weights = block_weights<S>(shared, constants, depth);
  float* mine = shared + S::kWeightFloats + at.warp * item_warp_floats<S>(K, I);
  float* stage = mine + at.group * I * S::kStride;  // (I,W) of this group
  const Attention<2> attention(mine + 2 * I * S::kStride, K);
  float *da = mine + 2 * I * S::kStride + Attention<2>::floats(K), *g = attention.score;

  for (int64_t pair = at.first_pair(); pair * 2 < n; pair += at.step()) {
    const bool live = pair * 2 + at.group < n;
    const int64_t j = live ? pair * 2 + at.group : n - 1;
    const auto saved_row = [&](const Mat& m, int c) {
      return load_row<N>(m.row(j * K + min(c, K - 1)), c < K ? d : 0, q, vec);
    };

    put_row(stage, load_row<N>(d_out.row(j), d, q, vec), q);
    __syncwarp();
    Row<N> ds[1] = {};
    add_product<1, N>(ds, stage, S::kStride, weights.v, depth, q);
#pragma unroll 1
    for (int c = 0; c < K; c += 4) {
      float v[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) v[k] = dot(ds[0], saved_row(saved.x, c + k));
      const float sum = gather_sums(v, q);
      if (q % 4 == 0 && c + q / 4 < K) da[(c + q / 4) * 2 + at.group] = inv_k * sum;
    }
    __syncwarp();
    if (q < K) {  // row q of the scores' gradient
      const float* a_r = saved.a.row(j * K + q);
      float mean = 0;
      for (int c = 0; c < K; ++c) mean = fmaf(a_r[c], da[c * 2 + at.group], mean);
      for (int c = 0; c < K; ++c) {
        g[attention.at(q, c, at.group)] = scale * a_r[c] * (da[c * 2 + at.group] - mean);
        attention.a[attention.at(q, c, at.group)] = a_r[c];
      }
    }
    __syncwarp();
    if (q < K) {
      float w = 0;
      for (int r = 0; r < K; ++r) w = fmaf(inv_k, attention.a[attention.at(r, q, at.group)], w);
      attention.w[q * 2 + at.group] = w;
    }
    __syncwarp();
#pragma unroll 1
    for (int c = 0; c < K; c += I) {
      Row<N> u[I] = {}, dx[I] = {};
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (c + i < K) add(dx[i], attention.w[(c + i) * 2 + at.group], ds[0]);
      }
#pragma unroll kAhead
      for (int r = 0; r < K; ++r) {
        const Row<N> x_r = saved_row(saved.x, r), y_r = saved_row(saved.y, r);
#pragma unroll
        for (int i = 0; i < I; ++i) {
          if (c + i >= K) continue;
          add(u[i], g[attention.at(c + i, r, at.group)], x_r);
          add(dx[i], g[attention.at(r, c + i, at.group)], y_r);
        }
      }
#pragma unroll
      for (int i = 0; i < I; ++i) {
        put_row(stage + i * S::kStride, u[i], q);
        if (live && c + i < K) store_row(saved.u.row(j * K + c + i), u[i], d, q, vec);
      }
      __syncwarp();
      add_product<I, N>(dx, stage, S::kStride, weights.g, depth, q);
      __syncwarp();  // the stage is free again

      float mean[I], along[I];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        mean[i] = 0;
#pragma unroll
        for (int k = 0; k < N; ++k) mean[i] += (dx[i].at[k].x + dx[i].at[k].y) + (dx[i].at[k].z + dx[i].at[k].w);
        along[i] = dot(dx[i], saved_row(saved.x, c + i));
      }
      group_sums(mean);
      group_sums(along);
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (!live || c + i > M) continue;  // the time token is a constant
        const float m = mean[i] * inv_d, l = -along[i] * inv_d, rstd = saved.rstd.p[j * K + c + i];
        Row<N> x = saved_row(saved.x, c + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
          const float4 t = dx[i].at[k], minus = make_float4(t.x - m, t.y - m, t.z - m, t.w - m);
          const float4 z = fma4(l, x.at[k], minus);
          x.at[k] = make_float4(rstd * z.x, rstd * z.y, rstd * z.z, rstd * z.w);
        }
        store_row(c + i == 0 ? grads.e_t.row(j) : grads.h[c + i - 1].row(j), x, d, q, vec);
      }
    }
  }
}

// Why these products are not cuBLAS's. How many rows count is known on the device alone (RowList): the library would
// add up the whole capacity, for which x, u, s and d_e0_hat would have to be padded with zeros, a pass that reads and
// writes 4 d (2K + 2) bytes a row once more. Then four calls, two of them d x d x d, with dG in memory between, against
// the two launches here, which read those rows once; the price is 32 KB of partial sums per 64 tokens and 16 per 64
// items (d = 64), written and read again. bench_gpu measures both ways; "by cuBLAS" leaves the padding out, so the
// library has the better of it there.

// Sums over items of outer products, in chunks: dG = x^T u over the n K tokens and dW_v = s^T d_e0_hat over the n
// items. `Partials` holds one (D,D) matrix a chunk, D = d up to a multiple of 64; dG also transposed, since dW_k needs
// its columns.
struct Partials {
  float *g, *g_t, *v;
  int64_t D, chunk, g_chunks;  // rows a chunk; chunks of dG for the capacity
};

// Geometry  a block of 256 threads a chunk and a 64 x 64 tile of its matrix, 4 x 4 sums a thread, rows ascending. Two
//           neighbouring lanes share their columns of b, as in add_product.
// Traffic   d <= 64: x, u, s, d_out once; per chunk of 64 rows 16 KB (dG: 32 KB) of sums written.
__global__ void __launch_bounds__(256)
    estimator_weight_partials(Partials to, CMat x, CMat u, CMat s, CMat d_out, RowList rows, int K, bool vec) {
  constexpr int kSlab = 32;
  SHARED(float4, a_s, [kSlab][16]);
  SHARED(float4, b_s, [kSlab][16]);
  const int64_t n = rows.n();
  const bool is_g = int64_t(blockIdx.x) < to.g_chunks;
  const int64_t part = int64_t(blockIdx.x) - (is_g ? 0 : to.g_chunks), total = is_g ? n * K : n;
  const int64_t first = part * to.chunk, last = min(first + to.chunk, total);
  if (first >= total) return;  // the whole block
  const CMat a = is_g ? x : s, b = is_g ? u : d_out;
  const int tid = int(threadIdx.x), d = int(x.cols), tiles = int(to.D / 64), i0 = int(blockIdx.y) / tiles * 64,
            j0 = int(blockIdx.y) % tiles * 64;
  // this thread's sums: rows i0 + 4p .. +3, columns j0 + 4q .. +3
  const int q = tid % kWarp / 2, p = tid / kWarp * 2 + tid % 2;
  float4 sum[4] = {};
  for (int64_t r = first; r < last; r += kSlab) {
    for (int k = tid; k < kSlab * 16; k += 256) {
      const int row = k / 16, col = k % 16 * 4;
      const bool inside = r + row < last;
      a_s[row][k % 16] = load4(a.row(inside ? r + row : first) + i0 + col, inside ? d - i0 - col : 0, vec);
      b_s[row][k % 16] = load4(b.row(inside ? r + row : first) + j0 + col, inside ? d - j0 - col : 0, vec);
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kSlab; ++k) {
      const float4 a_k = a_s[k][p], b_k = b_s[k][q];
      sum[0] = fma4(a_k.x, b_k, sum[0]);
      sum[1] = fma4(a_k.y, b_k, sum[1]);
      sum[2] = fma4(a_k.z, b_k, sum[2]);
      sum[3] = fma4(a_k.w, b_k, sum[3]);
    }
    __syncthreads();
  }
  float* out = (is_g ? to.g : to.v) + part * to.D * to.D;
#pragma unroll
  for (int i = 0; i < 4; ++i) *reinterpret_cast<float4*>(out + (i0 + 4 * p + i) * to.D + j0 + 4 * q) = sum[i];
  if (!is_g) return;
  float* out_t = to.g_t + part * to.D * to.D + (j0 + 4 * q) * to.D + i0 + 4 * p;
  *reinterpret_cast<float4*>(out_t) = make_float4(sum[0].x, sum[1].x, sum[2].x, sum[3].x);
  *reinterpret_cast<float4*>(out_t + to.D) = make_float4(sum[0].y, sum[1].y, sum[2].y, sum[3].y);
  *reinterpret_cast<float4*>(out_t + 2 * to.D) = make_float4(sum[0].z, sum[1].z, sum[2].z, sum[3].z);
  *reinterpret_cast<float4*>(out_t + 3 * to.D) = make_float4(sum[0].w, sum[1].w, sum[2].w, sum[3].w);
}

// Row r of dW_q += dG W_k, dW_k += dG^T W_q (y = 0, 1), dW_v += (y = 2): first row r of the sum over chunks, then its
// product.
// Geometry  d x 3 blocks of 256 threads: 64 columns, by four threads each: the s-th takes chunks (and terms of the
//           product) s, s+4, ..; the four sums are added in order.
// Traffic   every partial matrix once, coalesced; d^2 floats of W_k or W_q a block from L2.
__global__ void __launch_bounds__(256)
    estimator_weight_sums(EstimatorGrads grads, Partials from, EstimatorParams params, RowList rows, int K) {
  SHARED(float, part, [4][64]);
  float* row = dynamic_shared<float>();  // (D)
  const int64_t n = rows.n(), d = params.wq.rows, r = blockIdx.x, total = blockIdx.y == 2 ? n : n * K;
  if (n == 0) return;
  const float* p = blockIdx.y == 0 ? from.g : blockIdx.y == 1 ? from.g_t : from.v;
  const int s = int(threadIdx.x) / 64, col = int(threadIdx.x) % 64;
  const int64_t chunks = (total + from.chunk - 1) / from.chunk;
  const auto added = [&](float sum) {  // of the column's four threads, in those with s = 0
    part[s][col] = sum;
    __syncthreads();
    const float all = ((part[0][col] + part[1][col]) + part[2][col]) + part[3][col];
    __syncthreads();
    return all;
  };
  for (int64_t j = col; j < from.D; j += 64) {  // the same number of turns for every thread
    float sum = 0;
#pragma unroll 4
    for (int64_t c = s; c < chunks; c += 4) sum += p[(c * from.D + r) * from.D + j];
    const float all = added(sum);
    if (s == 0) row[j] = all;
  }
  __syncthreads();
  const Mat out = blockIdx.y == 0 ? grads.wq : blockIdx.y == 1 ? grads.wk : grads.wv;
  const CMat w = blockIdx.y == 0 ? params.wk : params.wq;
  for (int64_t j = col; j < from.D; j += 64) {
    float all = row[j];
    if (blockIdx.y != 2) {
      float sum = 0;
#pragma unroll 4
      for (int64_t k = s; k < d; k += 4) sum = fmaf(row[k], j < d ? w.row(k)[j] : 0.0f, sum);
      all = added(sum);
    }
    if (s == 0 && j < d) out.row(r)[j] += all;
  }
}

void check_estimator(const EstimatorTokens& in, const EstimatorSaved& saved, const EstimatorParams& params, int64_t n,
                     int64_t d) {
  const int64_t K = in.modalities + 2;
  CHECK_THAT(in.modalities >= 1 && in.modalities <= kMaxModalities);
  CHECK_THAT(in.e_t.cols == d && in.e_t.rows >= n && in.tau.cols == d);
  for (int m = 0; m < in.modalities; ++m) CHECK_THAT(in.h[m].cols == d && in.h[m].rows >= n);
  for (const Mat& z : {saved.x, saved.y, saved.u}) CHECK_THAT(z.cols == d && z.rows >= n * K);
  CHECK_THAT(saved.a.cols == K && saved.a.rows >= n * K && saved.rstd.size() >= n * K && saved.s.cols == d &&
             saved.s.rows >= n);
  for (const CMat& w : {params.wq, params.wk, params.wv}) CHECK_SHAPE(w, d, d);
}

// A launch of a kernel by item: warps that the shared memory has room for, blocks that stay.
struct ItemLaunch {
  int64_t blocks;
  int block;
  size_t shared;
};
template <class S>
ItemLaunch item_launch(int64_t capacity, int K, int rows) {
  const int64_t per_warp = item_warp_floats<S>(K, rows) * int64_t(sizeof(float)),
                weights = S::kWeightFloats * int64_t(sizeof(float));
  const int64_t warps = std::min<int64_t>(kItemWarps, (chip().shared - weights) / per_warp);
  CHECK_THAT(warps >= 1);
  return {std::min<int64_t>(blocks_for(capacity, 2 * warps), kBlocksPerSm * chip().sms), int(warps) * kWarp,
          size_t(weights + warps * per_warp)};
}

}  // namespace

EstimatorConstants estimator_constants(Ctx& ctx, const EstimatorParams& params, CMat tau, bool transposed) {
  const int64_t W = padded_width(params.wq.rows), T = tau ? tau.rows : 0;
  float* p = static_cast<float*>(ctx.scratch(7, size_t(2 * W * (W + T)) * sizeof(float)));
  float *g = p, *v = p + W * W, *x_tau = p + 2 * W * W, *y_tau = x_tau + T * W;
  launch(estimator_constants_row, W + T, 256, size_t(2 * W) * sizeof(float), ctx, g, v, x_tau, y_tau, params, tau,
         transposed, W);
  return {g, v, x_tau, y_tau};
}

void estimator_forward(Ctx& ctx, Mat e0_hat, const EstimatorSaved& saved, const EstimatorTokens& in,
                       const EstimatorParams& params, RowList rows) {
  const int64_t n = rows.capacity, d = e0_hat.cols;
  const int K = in.modalities + 2;
  CHECK_THAT(e0_hat.rows >= n);
  check_estimator(in, saved, params, n, d);
  if (n == 0) return;
  bool vec = d % 4 == 0 && aligned16(e0_hat.p) && aligned16(saved.x.p) && aligned16(saved.y.p) &&
             aligned16(saved.s.p) && aligned16(in.e_t.p) && aligned16(in.tau.p);
  for (int m = 0; m < in.modalities; ++m) vec = vec && aligned16(in.h[m].p);
  const EstimatorConstants constants = estimator_constants(ctx, params, {}, false);
  with_shape(d, [&](auto shape) {
    using S = decltype(shape);
    const ItemLaunch l = item_launch<S>(n, K, up_to(K, S::I));
    launch((estimator_forward_items<S>), l.blocks, l.block, l.shared, ctx, e0_hat, saved, in, constants, rows, vec);
  });
}

namespace {
struct WeightSums {  // chunks of rows whose (D,D) products are added up
  int64_t tiles, D, chunk, g_chunks, v_chunks;
};
WeightSums weight_sums(int64_t n, int64_t K, int64_t d) {
  const int64_t tiles = blocks_for(d, 64), chunk = 64 * tiles * tiles;  // partial sums take the same room for any d
  return {tiles, 64 * tiles, chunk, blocks_for(n * K, chunk), blocks_for(n, chunk)};
}
}  // namespace

void estimator_scratch(ScratchPlan& p, int64_t rows, int modalities, int64_t d) {
  const WeightSums s = weight_sums(rows, modalities + 2, d);
  const int64_t W = padded_width(d);
  p.need(6, (2 * s.g_chunks + s.v_chunks) * s.D * s.D * 4), p.need(7, 2 * W * W * 4);
}

void estimator_backward(Ctx& ctx, Mat d_e_t, const Mat* d_h, const EstimatorGrads& grads, CMat d_e0_hat,
                        const EstimatorTokens& in, const EstimatorSaved& saved, const EstimatorParams& params,
                        RowList rows) {
  const int64_t n = rows.capacity, d = d_e0_hat.cols;
  const int M = in.modalities, K = M + 2;
  CHECK_THAT(d_e0_hat.rows >= n && d_e_t.rows >= n && d_e_t.cols == d);
  for (int m = 0; m < M; ++m) CHECK_THAT(d_h[m].rows >= n && d_h[m].cols == d);
  for (const Mat& w : {grads.wq, grads.wk, grads.wv}) CHECK_SHAPE(w, d, d);
  check_estimator(in, saved, params, n, d);
  if (n == 0) return;
  TokenGrads to;
  to.e_t = d_e_t;
  for (int m = 0; m < M; ++m) to.h[m] = d_h[m];
  bool vec = d % 4 == 0 && aligned16(d_e0_hat.p) && aligned16(saved.x.p) && aligned16(saved.y.p) &&
             aligned16(saved.u.p) && aligned16(saved.s.p) && aligned16(d_e_t.p);
  for (int m = 0; m < M; ++m) vec = vec && aligned16(d_h[m].p);

  const EstimatorConstants constants = estimator_constants(ctx, params, {}, true);
  with_shape(d, [&](auto shape) {
    using S = decltype(shape);
    const ItemLaunch l = item_launch<S>(n, K, S::I);
    launch((estimator_backward_items<S>), l.blocks, l.block, l.shared, ctx, to, d_e0_hat, saved, M, constants, rows,
           vec);
  });

  estimator_weight_gradients(ctx, grads, d_e0_hat, saved, params, rows, K);
}

void estimator_weight_gradients(Ctx& ctx, const EstimatorGrads& grads, CMat d_e0_hat, const EstimatorSaved& saved,
                                const EstimatorParams& params, RowList rows, int K) {
  const int64_t n = rows.capacity, d = d_e0_hat.cols;
  if (n == 0) return;
  const bool vec =
      d % 4 == 0 && aligned16(d_e0_hat.p) && aligned16(saved.x.p) && aligned16(saved.u.p) && aligned16(saved.s.p);
  const auto [tiles, D, chunk, g_chunks, v_chunks] = weight_sums(n, K, d);
  float* p = static_cast<float*>(ctx.scratch(6, size_t((2 * g_chunks + v_chunks) * D * D) * sizeof(float)));
  const Partials partials{p, p + g_chunks * D * D, p + 2 * g_chunks * D * D, D, chunk, g_chunks};
  launch(estimator_weight_partials, (Grid{g_chunks + v_chunks, tiles * tiles}), 256, 0, ctx, partials, saved.x, saved.u,
         saved.s, d_e0_hat, rows, K, vec);
  launch(estimator_weight_sums, (Grid{d, 3}), 256, size_t(D) * sizeof(float), ctx, grads, partials, params, rows, K);
}

}  // namespace ccdrec::cuda
