// The reverse process (kernels/estimator.h) in one launch after the constants: every item from noise to e_0 in the
// registers of 16 lanes.
#include "kernels/cuda/estimator.h"

namespace ccdrec::cuda {
namespace {

struct Chain {
  Mat pools[4];
  CMat q, h[kMaxModalities];
  int modalities;
  EstimatorConstants constants;
  Schedule schedule;
  uint32_t seed, epoch;
  const Late* late;
  bool vec;
};

// Four columns of normals: what one draw addresses.
__device__ inline float4 normals4(Stream stream, uint32_t row, uint32_t sub) {
  const Draw4 x = draw(stream, row, sub);
  float4 z;
  normal_pair(x.v[0], x.v[1], z.x, z.y);
  normal_pair(x.v[2], x.v[3], z.z, z.w);
  return z;
}
template <int N>
__device__ inline Row<N> normal_row(Stream stream, int64_t item, int d, int q) {
  Row<N> z = {};
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int j = 64 * n + 4 * q;
    if (j < d) z.at[n] = first4(normals4(stream, uint32_t(item), uint32_t(j / 4)), d - j);
  }
  return z;
}

// Shared memory of a warp, in floats: a stage for the rows of a product, x and y of its items' modality tokens,
// attention.
template <class S>
CCDREC_HD int64_t chain_warp_floats(int M) {
  return 2 * S::I * S::kStride + int64_t(2) * M * S::I * S::N * 4 * kWarp + Attention<2 * S::I>::floats(M + 2);
}

// All steps of an item. Per step: x_e = LayerNorm(e), y_e = x_e G, the 4 (M+1) scores that x_e and the time token take
// part in, softmax, s, x0 = s
// W_v, e = A x0 + B e + sigma z.
// Geometry  a warp takes 2 I items (I = 4 for d <= 128), I a group of 16 lanes, and keeps e, x_e, y_e in registers;
//           nothing but the copy of the weights is shared between warps, so there is no barrier in the loop, and one
//           warp's normals run beside another's products. The modality tokens' x and y lie in shared memory as each
//           lane wrote them. The host picks the number of warps a block.
// Traffic   q, h and the pools, once; 512 bytes of time tokens a step from L1.
// Limits    4 d^2 flop and d normals (about 60 operations each) an item and step. A product reads 8 floats for 16
//           multiply-adds of a lane: the shared memory is about as busy as the multipliers during products, and free
//           during normals.
template <class S>
__global__ void __launch_bounds__(S::kMostWarps* kWarp) reverse_chain(Chain in) {
  constexpr int I = S::I, N = S::N, R = 2 * I;
  const int lane = int(threadIdx.x) % kWarp, group = lane % 2, q = lane / 2, warp = int(threadIdx.x) / kWarp,
            warps = int(blockDim.x) / kWarp;
  const int d = int(in.q.cols), depth = depth_of(d), M = in.modalities, K = M + 2, T = in.schedule.steps;
  const int64_t n = in.q.rows;
  float* shared = dynamic_shared<float>();
  const EstimatorConstants weights = block_weights<S>(shared, in.constants, depth);
  const int64_t first = (int64_t(blockIdx.x) * warps + warp) * R;
  if (first >= n) return;  // the whole warp, past the only barrier

  float* mine = shared + S::kWeightFloats + warp * chain_warp_floats<S>(M);
  float* stage = mine + group * I * S::kStride;  // (I,W) of this group
  float4* kept = reinterpret_cast<float4*>(mine + R * S::kStride) + lane;
  const Attention<R> attention(mine + R * S::kStride + 2 * M * I * N * 4 * kWarp, K);
  const auto kept_row = [&](int which, int m, int i) {  // 0: x, 1: y
    Row<N> x;
#pragma unroll
    for (int k = 0; k < N; ++k) x.at[k] = kept[(((m * 2 + which) * I + i) * N + k) * kWarp];
    return x;
  };
  const Gathered<I> part(q);
  const auto put_score = [&](int r, int c, float sum) {
    attention.score[attention.at(r, c, group * I + part.i)] = sum;
  };
  const float scale = 1.0f / sqrtf(float(d));
  const uint32_t epoch = late_epoch(in.epoch, in.late);

  bool live[I];
  int64_t item[I];  // past the end: the last one again, which stores nothing
#pragma unroll
  for (int i = 0; i < I; ++i) {
    live[i] = first + group * I + i < n;
    item[i] = live[i] ? first + group * I + i : n - 1;
  }

#pragma unroll 1
  for (int m = 0; m < M; ++m) {
    Row<N> x[I], y[I] = {};
    float rstd[I];
#pragma unroll
    for (int i = 0; i < I; ++i) x[i] = load_row<N>(in.h[m].row(item[i]), d, q, in.vec);
    layer_norm(x, rstd, d, q);
    __syncwarp();  // the product of the token before has read the stage
#pragma unroll
    for (int i = 0; i < I; ++i) put_row(stage + i * S::kStride, x[i], q);
    __syncwarp();
    add_product<I, N>(y, stage, S::kStride, weights.g, depth, q);
#pragma unroll
    for (int i = 0; i < I; ++i) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        kept[(((m * 2) * I + i) * N + k) * kWarp] = x[i].at[k];
        kept[(((m * 2 + 1) * I + i) * N + k) * kWarp] = y[i].at[k];
      }
    }
  }
#pragma unroll 1
  for (int m = 0; m < M; ++m) {  // scores between modality tokens stay as they are
#pragma unroll 1
    for (int o = 0; o < M; o += 4) {
      float v[4 * I];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < I; ++i) v[k * I + i] = dot(kept_row(1, m, i), kept_row(0, min(o + k, M - 1), i));
      }
      const float sum = gather_sums(v, q);
      if (part.leads && o + part.kind < M) put_score(m + 1, o + part.kind + 1, sum);
    }
  }

  const auto snapshot = [&](const Row<N>(&e)[I], int done) {
    for (int p = 0; p < 4; ++p) {
      if (!in.pools[p] || done != (p + 1) * T / 4) continue;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (live[i]) store_row(in.pools[p].row(item[i]), e[i], d, q, in.vec);
      }
    }
  };
  Row<N> e[I];
  {
    const float signal = in.schedule.sqrt_abar[T - 1], noise = in.schedule.sqrt_1m_abar[T - 1];
#pragma unroll
    for (int i = 0; i < I; ++i) {
      const Row<N> z = normal_row<N>(Stream{in.seed, Use::reverse_start, epoch, uint32_t(T)}, item[i], d, q);
      e[i] = load_row<N>(in.q.row(item[i]), d, q, in.vec);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float4 a = z.at[k];
        e[i].at[k] = fma4(signal, e[i].at[k], make_float4(noise * a.x, noise * a.y, noise * a.z, noise * a.w));
      }
    }
  }
  snapshot(e, 0);

#pragma unroll 1
  for (int t = T; t >= 1; --t) {
    const Row<N> x_tau = padded_row<N>(weights.x_tau + int64_t(t - 1) * S::W, q),
                 y_tau = padded_row<N>(weights.y_tau + int64_t(t - 1) * S::W, q);
    // used last, read in good time
    const float a = in.schedule.a[t - 1], b = in.schedule.b[t - 1], sigma = in.schedule.sigma[t - 1];
    Row<N> x[I], y[I] = {};
    float rstd[I];
#pragma unroll
    for (int i = 0; i < I; ++i) x[i] = e[i];
    layer_norm(x, rstd, d, q);
    __syncwarp();  // the product before has read the stage
#pragma unroll
    for (int i = 0; i < I; ++i) put_row(stage + i * S::kStride, x[i], q);
    __syncwarp();
    add_product<I, N>(y, stage, S::kStride, weights.g, depth, q);

    {
      float v[4 * I];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        v[i] = dot(y[i], x[i]);
        v[I + i] = dot(y[i], x_tau);
        v[2 * I + i] = dot(y_tau, x[i]);
        v[3 * I + i] = dot(y_tau, x_tau);
      }
      const float sum = gather_sums(v, q);
      if (part.leads) put_score(part.kind < 2 ? 0 : K - 1, part.kind % 2 ? K - 1 : 0, sum);
    }
#pragma unroll 1
    for (int m = 0; m < M; ++m) {
      float v[4 * I];
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const Row<N> x_m = kept_row(0, m, i), y_m = kept_row(1, m, i);
        v[i] = dot(y[i], x_m);
        v[I + i] = dot(y_m, x[i]);
        v[2 * I + i] = dot(y_tau, x_m);
        v[3 * I + i] = dot(y_m, x_tau);
      }
      const float sum = gather_sums(v, q);
      const int other = part.kind < 2 ? 0 : K - 1;
      if (part.leads) put_score(part.kind % 2 ? m + 1 : other, part.kind % 2 ? other : m + 1, sum);
    }
    __syncwarp();
    attention.softmax(scale);

    Row<N> s[I] = {};
    const float* w = attention.w + group * I;
#pragma unroll
    for (int i = 0; i < I; ++i) add(s[i], w[i], x[i]);
#pragma unroll 1
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int i = 0; i < I; ++i) add(s[i], w[(m + 1) * R + i], kept_row(0, m, i));
    }
#pragma unroll
    for (int i = 0; i < I; ++i) {
      add(s[i], w[(K - 1) * R + i], x_tau);
      put_row(stage + i * S::kStride, s[i], q);
    }
    __syncwarp();
    Row<N> x0[I] = {};
    add_product<I, N>(x0, stage, S::kStride, weights.v, depth, q);

#pragma unroll
    for (int i = 0; i < I; ++i) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float4 old = e[i].at[k];
        e[i].at[k] = fma4(a, x0[i].at[k], make_float4(b * old.x, b * old.y, b * old.z, b * old.w));
      }
      if (t > 1)
        add(e[i], sigma, normal_row<N>(Stream{in.seed, Use::reverse_noise, epoch, uint32_t(t)}, item[i], d, q));
    }
    snapshot(e, T - t + 1);
  }
}

// Warps a block: the fewest warps on the busiest multiprocessor; of equals the largest block, which copies the weights
// least often.
template <class S>
int chain_warps(int64_t items, int M) {
  const int64_t room =
      (chip().shared - S::kWeightFloats * int64_t(sizeof(float))) / (chain_warp_floats<S>(M) * int64_t(sizeof(float)));
  const int most = int(std::min<int64_t>(S::kMostWarps, room));
  CHECK_THAT(most >= 1);
  int best = 0;
  int64_t least = 0;
  for (int w = std::min(4, most); w <= most; ++w) {
    const int64_t load = blocks_for(blocks_for(items, 2 * S::I * w), chip().sms) * w;
    if (best == 0 || load <= least) best = w, least = load;
  }
  return best;
}

}  // namespace

void reverse_process(Ctx& ctx, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau,
                     const EstimatorParams& params, const Schedule& schedule, uint32_t seed, uint32_t epoch) {
  const int64_t n = q.rows, d = q.cols;
  const int M = modalities, T = schedule.steps;
  CHECK_THAT(M >= 1 && M <= kMaxModalities && T >= 1);
  CHECK_SHAPE(tau, T, d);
  for (int m = 0; m < M; ++m) CHECK_SHAPE(h[m], n, d);
  for (int p = 0; p < 4; ++p) {
    if (pools[p]) CHECK_SHAPE(pools[p], n, d);
  }
  for (const CMat& w : {params.wq, params.wk, params.wv}) CHECK_SHAPE(w, d, d);
  if (n == 0) return;

  Chain in{};
  in.q = q, in.modalities = M, in.schedule = schedule, in.seed = seed, in.epoch = epoch, in.late = ctx.late;
  in.vec = d % 4 == 0 && aligned16(q.p);
  for (int p = 0; p < 4; ++p) in.pools[p] = pools[p], in.vec = in.vec && aligned16(pools[p].p);
  for (int m = 0; m < M; ++m) in.h[m] = h[m], in.vec = in.vec && aligned16(h[m].p);
  in.constants = estimator_constants(ctx, params, tau, false);
  with_shape(d, [&](auto shape) {
    using S = decltype(shape);
    const int warps = chain_warps<S>(n, M);
    const size_t shared = size_t(S::kWeightFloats + warps * chain_warp_floats<S>(M)) * sizeof(float);
    launch((reverse_chain<S>), blocks_for(n, 2 * S::I * warps), warps * kWarp, shared, ctx, in);
  });
}

void reverse_process_scratch(ScratchPlan& p, int64_t, int, int64_t d, int64_t T) {
  const int64_t W = padded_width(d);
  p.need(7, 2 * W * (W + T) * 4);
}

}  // namespace ccdrec::cuda
