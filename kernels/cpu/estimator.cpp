#include "kernels/estimator.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/product.h"
#include "kernels/gemm.h"

namespace ccdrec {

std::vector<float> time_embedding(int steps, int64_t d) {
  if (d < 4 || d % 2)
    throw std::invalid_argument("embedding width d = " + std::to_string(d) + ": the time token needs an even d >= 4");
  const int64_t half = d / 2;
  std::vector<float> tau(size_t(steps) * size_t(d), 0.0f);
  for (int64_t t = 0; t < steps; ++t) {
    for (int64_t k = 0; k < half; ++k) {
      const double angle = double(t) * std::exp(-double(k) * std::log(10000.0) / double(half - 1));
      tau[size_t(t * d + k)] = float(std::sin(angle));
      tau[size_t(t * d + half + k)] = float(std::cos(angle));
    }
  }
  return tau;
}

}  // namespace ccdrec

namespace ccdrec::cpu {

// kTile: items whose scores one thread holds at a time
static constexpr int64_t kTile = 32, kMaxTokens = kMaxModalities + 2;

static void check_call(const EstimatorTokens& in, const EstimatorSaved& saved, const EstimatorParams& params, int64_t n,
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

// G = W_q W_k^T: a score is q_r . k_c = (x_r W_q) . (x_c W_k) = (x_r G) . x_c, so a token needs one product instead of
// two, forward and backward.
static Mat score_form(Ctx& ctx, float* at, const EstimatorParams& params, int64_t d) {
  const Mat g{at, d, d};
  gemm(ctx, g, params.wq, false, params.wk, true, false);
  return g;
}

void estimator_forward(Ctx& ctx, Mat e0_hat, const EstimatorSaved& saved, const EstimatorTokens& in,
                       const EstimatorParams& params, RowList rows) {
  const int64_t n = rows.n(), d = e0_hat.cols, M = in.modalities, K = M + 2, tiles = (n + kTile - 1) / kTile;
  CHECK_THAT(e0_hat.rows >= n);
  check_call(in, saved, params, n, d);
  if (n == 0) return;

#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c < K; ++c) {
      const float* token = c == 0 ? in.e_t.row(j) : c <= M ? in.h[c - 1].row(j) : in.tau.row(in.t[j]);
      saved.rstd.p[j * K + c] = layer_norm_row(saved.x.row(j * K + c), token, d);
    }
  }
  const Mat g = score_form(ctx, static_cast<float*>(ctx.scratch(7, size_t(2 * d * d) * sizeof(float))), params, d);
  gemm(ctx, saved.y.slice(0, n * K), saved.x.slice(0, n * K), false, g, false, false);

  const float scale = 1.0f / std::sqrt(float(d));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * kTile, count = std::min(kTile, n - first);
    float a[kMaxTokens * kMaxTokens * kTile], w[kMaxTokens * kTile];  // items innermost
    for (int64_t i = 0; i < count; ++i) {
      const float *x_j = saved.x.row((first + i) * K), *y_j = saved.y.row((first + i) * K);
      for (int64_t r = 0; r < K; ++r) {
        for (int64_t c = 0; c < K; ++c) a[(r * K + c) * count + i] = dot(y_j + r * d, x_j + c * d, d);
      }
    }
    softmax_items(a, w, K, count, scale);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t j = first + i;
      for (int64_t rc = 0; rc < K * K; ++rc) saved.a.p[j * K * K + rc] = a[rc * count + i];
      float* s_j = saved.s.row(j);
      std::fill_n(s_j, d, 0.0f);
      for (int64_t c = 0; c < K; ++c) axpy(s_j, w[c * count + i], saved.x.row(j * K + c), d);
    }
  }
  gemm(ctx, e0_hat.slice(0, n), saved.s.slice(0, n), false, params.wv, false, false);
}

// Given d_e0_hat (n,d). With w_c = mean_r a_rc, s = sum_c w_c x_c, e0_hat = s W_v, a = softmax(scale y x^T), y = x G, G
// = W_q W_k^T:
//   ds = d_e0_hat W_v^T                          dW_v += s^T d_e0_hat
//   dw_c = ds . x_c,  da_rc = dw_c / K           the score's gradient: g_rc = scale a_rc (da_rc - sum_c' a_rc' da_rc')
//   u_r = sum_c g_rc x_c                         dG = x^T u,  dW_q += dG W_k,  dW_k += dG^T W_q
//   dx_c = w_c ds + u_c G^T + sum_r g_rc y_r
//   d_token = rstd (dx - mean(dx) - x mean(dx x))          for e_t and the modalities; the time token is a constant
void estimator_backward(Ctx& ctx, Mat d_e_t, const Mat* d_h, const EstimatorGrads& grads, CMat d_e0_hat,
                        const EstimatorTokens& in, const EstimatorSaved& saved, const EstimatorParams& params,
                        RowList rows) {
  const int64_t n = rows.n(), d = d_e0_hat.cols, M = in.modalities, K = M + 2;
  CHECK_THAT(d_e0_hat.rows >= n && d_e_t.rows >= n && d_e_t.cols == d);
  for (int64_t m = 0; m < M; ++m) CHECK_THAT(d_h[m].rows >= n && d_h[m].cols == d);
  for (const Mat& w : {grads.wq, grads.wk, grads.wv}) CHECK_SHAPE(w, d, d);
  check_call(in, saved, params, n, d);
  if (n == 0) return;

  // Slots 5 to 7: the products below use lower ones.
  const Mat ds{static_cast<float*>(ctx.scratch(5, size_t(n * d) * sizeof(float))), n, d};
  const Mat dx{static_cast<float*>(ctx.scratch(6, size_t(n * K * d) * sizeof(float))), n * K, d};
  const Mat g = score_form(ctx, static_cast<float*>(ctx.scratch(7, size_t(2 * d * d) * sizeof(float))), params, d),
            d_g{g.p + d * d, d, d};
  const Mat u = saved.u.slice(0, n * K);
  const CMat x = saved.x.slice(0, n * K), d_out = d_e0_hat.slice(0, n);

  gemm(ctx, ds, d_out, false, params.wv, true, false);
  gemm(ctx, grads.wv, saved.s.slice(0, n), true, d_out, false, true);

  const float scale = 1.0f / std::sqrt(float(d)), inv_k = 1.0f / float(K);
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    float da[kMaxTokens], w[kMaxTokens] = {}, g_rc[kMaxTokens][kMaxTokens];
    for (int64_t c = 0; c < K; ++c) da[c] = inv_k * dot(ds.row(j), x.row(j * K + c), d);
    for (int64_t r = 0; r < K; ++r) {
      const float* a_r = saved.a.row(j * K + r);
      float mean = 0;
      for (int64_t c = 0; c < K; ++c) mean = std::fma(a_r[c], da[c], mean);
      for (int64_t c = 0; c < K; ++c) {
        g_rc[r][c] = scale * a_r[c] * (da[c] - mean);
        w[c] = std::fma(inv_k, a_r[c], w[c]);
      }
    }
    for (int64_t c = 0; c < K; ++c) {
      each8(d, [&](int64_t l, int64_t lanes) {
        V8 u_c{}, dx_c = splat8(w[c]) * take8(ds.row(j) + l, lanes);
        for (int64_t r = 0; r < K; ++r) {
          u_c = fma8(splat8(g_rc[c][r]), take8(x.row(j * K + r) + l, lanes), u_c);
          dx_c = fma8(splat8(g_rc[r][c]), take8(saved.y.row(j * K + r) + l, lanes), dx_c);
        }
        put8(u.row(j * K + c) + l, u_c, lanes);
        put8(dx.row(j * K + c) + l, dx_c, lanes);
      });
    }
  }
  gemm(ctx, dx, u, false, g, true, true);
  gemm(ctx, d_g, x, true, u, false, false);
  gemm(ctx, grads.wq, d_g, false, params.wk, false, true);
  gemm(ctx, grads.wk, d_g, true, params.wq, false, true);

#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c <= M; ++c) {
      const float *dx_c = dx.row(j * K + c), *x_c = x.row(j * K + c);
      V8 sum{};
      each8(d, [&](int64_t l, int64_t lanes) { sum += take8(dx_c + l, lanes); });
      const V8 mean = splat8(sum8(sum) / float(d)), along = splat8(-dot(dx_c, x_c, d) / float(d)),
               rstd = splat8(saved.rstd.p[j * K + c]);
      float* d_token = c == 0 ? d_e_t.row(j) : d_h[c - 1].row(j);
      each8(d, [&](int64_t l, int64_t lanes) {
        put8(d_token + l, rstd * fma8(along, take8(x_c + l, lanes), take8(dx_c + l, lanes) - mean), lanes);
      });
    }
  }
}

void estimator_scratch(ScratchPlan& p, int64_t rows, int modalities, int64_t d) {
  const int64_t K = modalities + 2;
  product_scratch(p, 0, d, d, false), product_scratch(p, d, d, rows * K, true);
  p.need(5, rows * d * 4), p.need(6, rows * K * d * 4), p.need(7, 2 * d * d * 4);
}

}  // namespace ccdrec::cpu
