// The reverse process (kernels/estimator.h): all items from noise to e_0, a tile of items at a time, one thread each.
//
// A score is q_r . k_c = (x_r W_q) . (x_c W_k) = (x_r G) . x_c with G = W_q W_k^T, so a token needs one product y = x
// G, not two; and only the e-token changes from step to step. Per tile: x, y of the modality tokens, once. Per call: x,
// y of the T time tokens. Per item and step: one product for y_e, one for the value (s W_v), K(K-1) - M(M-1) + 1 dot
// products of width d, K^2 exponentials, d normals.
// Rows are padded with zeros to a multiple of eight floats; a tile and its tokens are (2M + 6) kTile d floats (123 KB
// at M = 2, d = 64): the L2's.
#include <omp.h>

#include <algorithm>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/normals.h"
#include "kernels/estimator.h"

namespace ccdrec::cpu {

static constexpr int64_t kTile = 48;  // items; a multiple of the product's six rows

// Y[r, first : first+8C] of six rows: 6 x 8C sums stay in registers. Each sum over k ascending, one fma per term.
template <int C>
static void product_block(float* y, const float* x, const float* w, int64_t d) {
  V8 sum[6][C] = {};
  for (int64_t k = 0; k < d; ++k) {
    V8 w_k[C];
    for (int c = 0; c < C; ++c) w_k[c] = load8(w + k * d + 8 * c);
    for (int r = 0; r < 6; ++r) {
      const V8 x_rk = splat8(x[r * d + k]);
      for (int c = 0; c < C; ++c) sum[r][c] = fma8(x_rk, w_k[c], sum[r][c]);
    }
  }
  for (int r = 0; r < 6; ++r) {
    for (int c = 0; c < C; ++c) store8(y + r * d + 8 * c, sum[r][c]);
  }
}

// Y (n,d) = X (n,d) W (d,d); n a multiple of six, d of eight.
static void product(float* y, const float* x, const float* w, int64_t n, int64_t d) {
  for (int64_t r = 0; r < n; r += 6) {
    int64_t c = 0;
    for (; c + 16 <= d; c += 16) product_block<2>(y + r * d + c, x + r * d, w + c, d);
    if (c < d) product_block<1>(y + r * d + c, x + r * d, w + c, d);
  }
}

namespace {
struct Constants {       // of one call, rows padded to `width`
  float *g, *w_v;        // (width,width)
  float *x_tau, *y_tau;  // (T up to a multiple of six, width)
};
struct Work {                         // of one thread
  float *e, *z, *x_e, *y_e, *s, *x0;  // (kTile,width) each
  float *x_h, *y_h;                   // (M,kTile,width) each
  float *a, *w;                       // (K,K,kTile), (K,kTile): scores and attention, column means; items innermost
};
}  // namespace

static int64_t work_floats(int64_t M, int64_t width) {
  return (6 + 2 * M) * kTile * width + ((M + 2) * (M + 2) + M + 2) * kTile;
}

static int64_t padded(int64_t d) { return (d + 7) / 8 * 8; }
static int64_t padded_steps(int64_t T) { return (T + 5) / 6 * 6; }
static int64_t constants_of(int64_t width, int64_t T6) { return 2 * width * width + 2 * T6 * width; }

static Work cut_work(float* p, int64_t M, int64_t width) {
  const int64_t tile = kTile * width;
  return {p,
          p + tile,
          p + 2 * tile,
          p + 3 * tile,
          p + 4 * tile,
          p + 5 * tile,
          p + 6 * tile,
          p + (6 + M) * tile,
          p + (6 + 2 * M) * tile,
          p + (6 + 2 * M) * tile + (M + 2) * (M + 2) * kTile};
}

static void snapshot(const Mat* pools, const float* e, int64_t width, int64_t first, int64_t count, int64_t done,
                     int64_t T) {
  for (int64_t p = 0; p < 4; ++p) {
    if (!pools[p] || done != (p + 1) * T / 4) continue;
    for (int64_t i = 0; i < count; ++i) std::copy_n(e + i * width, pools[p].cols, pools[p].row(first + i));
  }
}

// Scores of all token pairs of an item, in the tile's layout. `constant` pairs (modality, modality) are kept apart by
// the caller.
static void scores(const Work& k, const Constants& c, int64_t M, int64_t width, int64_t count, int64_t t,
                   const float* hh) {
  const int64_t K = M + 2, tile = kTile * width;
  const float *x_tau = c.x_tau + t * width, *y_tau = c.y_tau + t * width;
  const float tt = dot(y_tau, x_tau, width);
  for (int64_t i = 0; i < count; ++i) {
    const float *x_e = k.x_e + i * width, *y_e = k.y_e + i * width;
    auto a = [&](int64_t r, int64_t col) -> float& { return k.a[(r * K + col) * kTile + i]; };
    a(0, 0) = dot(y_e, x_e, width);
    a(0, K - 1) = dot(y_e, x_tau, width);
    a(K - 1, 0) = dot(y_tau, x_e, width);
    a(K - 1, K - 1) = tt;
    for (int64_t m = 0; m < M; ++m) {
      const float *x_m = k.x_h + m * tile + i * width, *y_m = k.y_h + m * tile + i * width;
      a(0, m + 1) = dot(y_e, x_m, width);
      a(m + 1, 0) = dot(y_m, x_e, width);
      a(K - 1, m + 1) = dot(y_tau, x_m, width);
      a(m + 1, K - 1) = dot(y_m, x_tau, width);
      for (int64_t o = 0; o < M; ++o) a(m + 1, o + 1) = hh[(m * M + o) * kTile + i];
    }
  }
}

void reverse_process(Ctx& ctx, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau,
                     const EstimatorParams& params, const Schedule& schedule, uint32_t seed, uint32_t epoch) {
  const int64_t n = q.rows, d = q.cols, M = modalities, K = M + 2, T = schedule.steps, tiles = (n + kTile - 1) / kTile;
  const int64_t width = padded(d), T6 = padded_steps(T);
  CHECK_THAT(M >= 1 && M <= kMaxModalities && T >= 1);
  CHECK_SHAPE(tau, T, d);
  for (int64_t m = 0; m < M; ++m) CHECK_SHAPE(h[m], n, d);
  for (int p = 0; p < 4; ++p) {
    if (pools[p]) CHECK_SHAPE(pools[p], n, d);
  }
  for (const CMat& w : {params.wq, params.wk, params.wv}) CHECK_SHAPE(w, d, d);

  const size_t constant_floats = size_t(constants_of(width, T6)),
               per_thread = size_t(work_floats(M, width) + M * M * kTile);
  float* constants = static_cast<float*>(ctx.scratch(6, constant_floats * sizeof(float)));
  float* work = static_cast<float*>(ctx.scratch(7, per_thread * size_t(ctx.threads) * sizeof(float)));
  std::fill_n(constants, constant_floats, 0.0f);
  std::fill_n(work, per_thread * size_t(ctx.threads), 0.0f);  // the padding stays zero from here on

  const Constants c{constants, constants + width * width, constants + 2 * width * width,
                    constants + 2 * width * width + T6 * width};
  for (int64_t r = 0; r < d; ++r) {
    std::copy_n(params.wv.row(r), d, c.w_v + r * width);
    for (int64_t col = 0; col < d; ++col) c.g[r * width + col] = dot(params.wq.row(r), params.wk.row(col), d);
  }
  for (int64_t t = 0; t < T; ++t) layer_norm_row(c.x_tau + t * width, tau.row(t), d);
  product(c.y_tau, c.x_tau, c.g, T6, width);

  const float scale = 1.0f / std::sqrt(float(d));
#pragma omp parallel for num_threads(ctx.threads) schedule(dynamic)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * kTile, count = std::min(kTile, n - first);
    const Work k = cut_work(work + per_thread * size_t(omp_get_thread_num()), M, width);
    float* hh = k.w + K * kTile;  // (M,M,kTile) scores between modality tokens

    for (int64_t m = 0; m < M; ++m) {
      float* x_m = k.x_h + m * kTile * width;
      for (int64_t i = 0; i < count; ++i) layer_norm_row(x_m + i * width, h[m].row(first + i), d);
      product(k.y_h + m * kTile * width, x_m, c.g, kTile, width);
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t m = 0; m < M; ++m) {
        for (int64_t o = 0; o < M; ++o)
          hh[(m * M + o) * kTile + i] = dot(k.y_h + (m * kTile + i) * width, k.x_h + (o * kTile + i) * width, width);
      }
    }

    const float signal = schedule.sqrt_abar[T - 1], noise = schedule.sqrt_1m_abar[T - 1];
    for (int64_t i = 0; i < count; ++i) {
      normal_row(k.z + i * width, d, Stream{seed, Use::reverse_start, epoch, uint32_t(T)}, uint32_t(first + i));
      for (int64_t j = 0; j < d; ++j)
        k.e[i * width + j] = std::fma(signal, q.row(first + i)[j], noise * k.z[i * width + j]);
    }
    snapshot(pools, k.e, width, first, count, 0, T);

    for (int64_t t = T; t >= 1; --t) {
      for (int64_t i = 0; i < count; ++i) layer_norm_row(k.x_e + i * width, k.e + i * width, d);
      product(k.y_e, k.x_e, c.g, kTile, width);
      scores(k, c, M, width, count, t - 1, hh);
      softmax_items(k.a, k.w, K, kTile, scale);
      for (int64_t i = 0; i < count; ++i) {
        float* s = k.s + i * width;
        for (int64_t j = 0; j < width; j += 8) {
          V8 sum = splat8(k.w[i]) * load8(k.x_e + i * width + j);
          for (int64_t m = 0; m < M; ++m)
            sum = fma8(splat8(k.w[(m + 1) * kTile + i]), load8(k.x_h + (m * kTile + i) * width + j), sum);
          store8(s + j, fma8(splat8(k.w[(K - 1) * kTile + i]), load8(c.x_tau + (t - 1) * width + j), sum));
        }
      }
      product(k.x0, k.s, c.w_v, kTile, width);

      const V8 a8 = splat8(schedule.a[t - 1]), b8 = splat8(schedule.b[t - 1]), sigma8 = splat8(schedule.sigma[t - 1]);
      for (int64_t i = 0; i < count; ++i) {
        if (t > 1)
          normal_row(k.z + i * width, d, Stream{seed, Use::reverse_noise, epoch, uint32_t(t)}, uint32_t(first + i));
        for (int64_t j = i * width; j < (i + 1) * width; j += 8) {
          V8 e = fma8(a8, load8(k.x0 + j), b8 * load8(k.e + j));
          if (t > 1) e = fma8(sigma8, load8(k.z + j), e);
          store8(k.e + j, e);
        }
      }
      snapshot(pools, k.e, width, first, count, T - t + 1, T);
    }
  }
}

void reverse_process_scratch(ScratchPlan& p, int64_t, int modalities, int64_t d, int64_t T) {
  const int64_t M = modalities, width = padded(d);
  p.need(6, constants_of(width, padded_steps(T)) * 4),
      p.need(7, (work_floats(M, width) + M * M * kTile) * p.threads * 4);
}

}  // namespace ccdrec::cpu
