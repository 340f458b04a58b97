#include "kernels/encoder.h"

#include <algorithm>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/normals.h"
#include "kernels/cpu/fast/product.h"
#include "kernels/gemm.h"
#include "kernels/numbers.h"

namespace ccdrec {

int64_t encoder_saved_floats(int64_t cap, int modalities, int64_t d, int64_t inner, int heads, int layers) {
  const int64_t K = modalities + 2;
  return layers * cap * K * (6 * d + 2 + K * heads + inner);
}

EncoderSaved encoder_saved(float* room, int64_t cap, int modalities, int64_t d, int64_t inner, int heads, int layers) {
  const int64_t K = modalities + 2, rows = cap * K;
  EncoderSaved saved;
  auto take = [&](int64_t cols) {
    const Mat m{room, rows, cols};
    room += rows * cols;
    return m;
  };
  for (int l = 0; l < layers; ++l) {
    EncoderSaved::Layer& s = saved.layer[l];
    s.x1 = take(d), s.rstd1 = take(1), s.q = take(d), s.k = take(d), s.v = take(d), s.a = take(K * heads),
    s.o = take(d);
    s.x2 = take(d), s.rstd2 = take(1), s.u = take(inner);
  }
  return saved;
}

}  // namespace ccdrec

namespace ccdrec::cpu {

static constexpr int64_t kMaxTokens = kMaxModalities + 2;

// --- pieces ----------------------------------------------------------------------------------------------------------

static void gelu(Ctx& ctx, Mat y, CMat u) {
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < u.rows; ++r) {
    const float* u_r = u.row(r);
    float* y_r = y.row(r);
    for (int64_t j = 0; j < u.cols; ++j) {
      float cdf, pdf;
      normal_cdf(u_r[j], cdf, pdf);
      y_r[j] = u_r[j] * cdf;
    }
  }
}

static void gelu_backward(Ctx& ctx, Mat d_u, CMat u) {  // d_u = d_y gelu'(u), in place of d_y; gelu' = Phi + u phi
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < u.rows; ++r) {
    const float* u_r = u.row(r);
    float* d_r = d_u.row(r);
    for (int64_t j = 0; j < u.cols; ++j) {
      float cdf, pdf;
      normal_cdf(u_r[j], cdf, pdf);
      d_r[j] *= std::fma(u_r[j], pdf, cdf);
    }
  }
}

// Y = X W + b, or Y += X W + b.
static void linear(Ctx& ctx, Mat y, CMat x, CMat w, CMat b, bool accumulate) {
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < y.rows; ++r) {
    float* y_r = y.row(r);
    for (int64_t j = 0; j < y.cols; ++j) y_r[j] = accumulate ? y_r[j] + b.p[j] : b.p[j];
  }
  gemm(ctx, y, x, false, w, false, true);
}

// dW += X^T dY, db += column sums of dY; dX = or += dY W^T.
static void linear_backward(Ctx& ctx, Mat d_x, bool accumulate, Mat d_w, Mat d_b, CMat d_y, CMat x, CMat w) {
  gemm(ctx, d_w, x, true, d_y, false, true);
  gemm(ctx, d_x, d_y, false, w, true, accumulate);
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < d_y.cols; j += 8) {
    const int64_t lanes = std::min<int64_t>(8, d_y.cols - j);
    V8 sum{};
    for (int64_t r = 0; r < d_y.rows; ++r) sum += take8(d_y.row(r) + j, lanes);
    put8(d_b.p + j, take8(d_b.p + j, lanes) + sum, lanes);
  }
}

static void affine(Ctx& ctx, Mat y, CMat x, CMat scale, CMat shift) {
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t j = 0; j < x.cols; ++j) y.row(r)[j] = std::fma(x.row(r)[j], scale.p[j], shift.p[j]);
  }
}

static void norm(Ctx& ctx, Mat n, Mat x, Mat rstd, CMat z, CMat scale, CMat shift) {
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < z.rows; ++r) rstd.p[r] = layer_norm_row(x.row(r), z.row(r), z.cols);
  affine(ctx, n, x, scale, shift);
}

// Given d_n: d_scale += sum d_n x, d_shift += sum d_n, and with dx = d_n scale: d_z += rstd (dx - mean(dx) - x mean(dx
// x)).
static void norm_backward(Ctx& ctx, Mat d_z, Mat d_scale, Mat d_shift, CMat d_n, CMat x, CMat rstd, CMat scale) {
  const int64_t d = x.cols;
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < d; j += 8) {
    const int64_t lanes = std::min<int64_t>(8, d - j);
    V8 along{}, sum{};
    for (int64_t r = 0; r < x.rows; ++r) {
      const V8 d_n8 = take8(d_n.row(r) + j, lanes);
      along = fma8(d_n8, take8(x.row(r) + j, lanes), along);
      sum += d_n8;
    }
    put8(d_scale.p + j, take8(d_scale.p + j, lanes) + along, lanes);
    put8(d_shift.p + j, take8(d_shift.p + j, lanes) + sum, lanes);
  }
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < x.rows; ++r) {
    const float *d_n_r = d_n.row(r), *x_r = x.row(r);
    float* d_z_r = d_z.row(r);
    V8 sum{}, along{};
    each8(d, [&](int64_t j, int64_t lanes) {
      const V8 dx = take8(d_n_r + j, lanes) * take8(scale.p + j, lanes);
      sum += dx;
      along = fma8(dx, take8(x_r + j, lanes), along);
    });
    const V8 mean = splat8(sum8(sum) / float(d)), slope = splat8(-sum8(along) / float(d)), rstd8 = splat8(rstd.p[r]);
    each8(d, [&](int64_t j, int64_t lanes) {
      const V8 dx = take8(d_n_r + j, lanes) * take8(scale.p + j, lanes);
      put8(d_z_r + j, fma8(rstd8, fma8(slope, take8(x_r + j, lanes), dx - mean), take8(d_z_r + j, lanes)), lanes);
    });
  }
}

// Per item and head: a = softmax(scale q k^T), o = a v. The heads are the innermost index of a, so they fill the lanes
// of the softmax.
static void attention(Ctx& ctx, const EncoderSaved::Layer& s, int64_t n, int64_t K, int64_t d, int64_t H) {
  const int64_t width = d / H;
  const float scale = 1.0f / std::sqrt(float(width));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    float* a = s.a.row(j * K);
    float means[kMaxTokens * kMaxEncoderHeads];  // unused: here every row of o counts
    for (int64_t r = 0; r < K; ++r) {
      for (int64_t c = 0; c < K; ++c) {
        for (int64_t h = 0; h < H; ++h)
          a[(r * K + c) * H + h] = dot(s.q.row(j * K + r) + h * width, s.k.row(j * K + c) + h * width, width);
      }
    }
    softmax_items(a, means, K, H, scale);
    std::fill_n(s.o.row(j * K), K * d, 0.0f);
    for (int64_t r = 0; r < K; ++r) {
      for (int64_t c = 0; c < K; ++c) {
        for (int64_t h = 0; h < H; ++h)
          axpy(s.o.row(j * K + r) + h * width, a[(r * K + c) * H + h], s.v.row(j * K + c) + h * width, width);
      }
    }
  }
}

// Given d_o: da_rc = do_r . v_c, g_rc = scale a_rc (da_rc - sum_c' a_rc' da_rc'); dv_c = sum_r a_rc do_r, dq_r = sum_c
// g_rc k_c, dk_c = sum_r g_rc q_r.
static void attention_backward(Ctx& ctx, Mat d_q, Mat d_k, Mat d_v, CMat d_o, const EncoderSaved::Layer& s, int64_t n,
                               int64_t K, int64_t d, int64_t H) {
  const int64_t width = d / H;
  const float scale = 1.0f / std::sqrt(float(width));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    for (const Mat& z : {d_q, d_k, d_v}) std::fill_n(z.row(j * K), K * d, 0.0f);
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t r = 0; r < K; ++r) {
        const int64_t at_r = (j * K + r) * d + h * width;
        const float* a_r = s.a.row(j * K + r) + h;  // a_rc = a_r[c*H]
        float da[kMaxTokens], mean = 0;
        for (int64_t c = 0; c < K; ++c) {
          const int64_t at_c = (j * K + c) * d + h * width;
          da[c] = dot(d_o.p + at_r, s.v.p + at_c, width);
          mean = std::fma(a_r[c * H], da[c], mean);
          axpy(d_v.p + at_c, a_r[c * H], d_o.p + at_r, width);
        }
        for (int64_t c = 0; c < K; ++c) {
          const int64_t at_c = (j * K + c) * d + h * width;
          const float g_rc = scale * a_r[c * H] * (da[c] - mean);
          axpy(d_q.p + at_r, g_rc, s.k.p + at_c, width);
          axpy(d_k.p + at_c, g_rc, s.q.p + at_r, width);
        }
      }
    }
  }
}

// --- the encoder -----------------------------------------------------------------------------------------------------

static EncoderSaved::Layer first_rows(const EncoderSaved::Layer& s, int64_t rows) {
  auto cut = [&](const Mat& m) {
    CHECK_THAT(m.rows >= rows);
    return m.slice(0, rows);
  };
  return {cut(s.x1), cut(s.rstd1), cut(s.q), cut(s.k), cut(s.v), cut(s.a), cut(s.o), cut(s.x2), cut(s.rstd2), cut(s.u)};
}

static Mat scratch(Ctx& ctx, int slot, int64_t rows, int64_t cols) {
  return {static_cast<float*>(ctx.scratch(slot, size_t(rows * cols) * sizeof(float))), rows, cols};
}

static void check_call(const EstimatorTokens& in, const EncoderParams& params, int64_t n, int64_t d) {
  CHECK_THAT(in.modalities >= 1 && in.modalities <= kMaxModalities);
  CHECK_THAT(params.layers >= 1 && params.layers <= kMaxEncoderLayers && params.heads >= 1 &&
             params.heads <= kMaxEncoderHeads && d % params.heads == 0);
  CHECK_THAT(in.e_t.cols == d && in.e_t.rows >= n && in.tau.cols == d);
  for (int m = 0; m < in.modalities; ++m) CHECK_THAT(in.h[m].cols == d && in.h[m].rows >= n);
}

void encoder_forward(Ctx& ctx, Mat e0_hat, const EncoderSaved& saved, const EstimatorTokens& in,
                     const EncoderParams& params, RowList rows) {
  const int64_t n = rows.n(), d = e0_hat.cols, M = in.modalities, K = M + 2;
  CHECK_THAT(e0_hat.rows >= n);
  check_call(in, params, n, d);
  if (n == 0) return;

  // Slots 5 to 7: the products use lower ones.
  const Mat z = scratch(ctx, 5, n * K, d), normed = scratch(ctx, 6, n * K, d),
            act = scratch(ctx, 7, n * K, params.layer[0].w1.cols);
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c < K; ++c) {
      const float* token = c == 0 ? in.e_t.row(j) : c <= M ? in.h[c - 1].row(j) : in.tau.row(in.t[j]);
      std::copy_n(token, d, z.row(j * K + c));
    }
  }
  for (int l = 0; l < params.layers; ++l) {
    const EncoderLayer<CMat>& p = params.layer[l];
    const EncoderSaved::Layer s = first_rows(saved.layer[l], n * K);
    norm(ctx, normed, s.x1, s.rstd1, z, p.s1, p.b1);
    linear(ctx, s.q, normed, p.wq, p.bq, false);
    linear(ctx, s.k, normed, p.wk, p.bk, false);
    linear(ctx, s.v, normed, p.wv, p.bv, false);
    attention(ctx, s, n, K, d, params.heads);
    linear(ctx, z, s.o, p.wo, p.bo, true);
    norm(ctx, normed, s.x2, s.rstd2, z, p.s2, p.b2);
    linear(ctx, s.u, normed, p.w1, p.c1, false);
    gelu(ctx, act, s.u);
    linear(ctx, z, act, p.w2, p.c2, true);
  }
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    float* e0_j = e0_hat.row(j);
    std::fill_n(e0_j, d, 0.0f);
    for (int64_t c = 0; c < K; ++c) axpy(e0_j, 1.0f / float(K), z.row(j * K + c), d);
  }
}

void encoder_backward(Ctx& ctx, Mat d_e_t, const Mat* d_h, const EncoderGrads& grads, CMat d_e0_hat,
                      const EstimatorTokens& in, const EncoderSaved& saved, const EncoderParams& params, RowList rows) {
  const int64_t n = rows.n(), d = d_e0_hat.cols, M = in.modalities, K = M + 2, inner = params.layer[0].w1.cols;
  CHECK_THAT(d_e0_hat.rows >= n && d_e_t.rows >= n && d_e_t.cols == d);
  for (int64_t m = 0; m < M; ++m) CHECK_THAT(d_h[m].rows >= n && d_h[m].cols == d);
  check_call(in, params, n, d);
  if (n == 0) return;

  const Mat d_z = scratch(ctx, 4, n * K, d), four = scratch(ctx, 5, 4 * n * K, d), normed = scratch(ctx, 6, n * K, d),
            act = scratch(ctx, 7, n * K, inner);
  const Mat d_act = scratch(ctx, 3, n * K, inner);
  const Mat d_q = four.slice(0, n * K), d_k = four.slice(n * K, n * K), d_v = four.slice(2 * n * K, n * K),
            d_n = four.slice(3 * n * K, n * K);
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {  // the mean hands every row the K-th part
    for (int64_t c = 0; c < K; ++c) {
      for (int64_t i = 0; i < d; ++i) d_z.row(j * K + c)[i] = d_e0_hat.row(j)[i] / float(K);
    }
  }
  for (int l = params.layers - 1; l >= 0; --l) {
    const EncoderLayer<CMat>& p = params.layer[l];
    const EncoderLayer<Mat>& g = grads.layer[l];
    const EncoderSaved::Layer s = first_rows(saved.layer[l], n * K);
    gelu(ctx, act, s.u);  // gelu(u), n1 and n2 are computed again: cheaper than kept
    linear_backward(ctx, d_act, false, g.w2, g.c2, d_z, act, p.w2);
    gelu_backward(ctx, d_act, s.u);
    affine(ctx, normed, s.x2, p.s2, p.b2);
    linear_backward(ctx, d_n, false, g.w1, g.c1, d_act, normed, p.w1);
    norm_backward(ctx, d_z, g.s2, g.b2, d_n, s.x2, s.rstd2, p.s2);  // d_z now reaches the attention's output
    linear_backward(ctx, d_n, false, g.wo, g.bo, d_z, s.o, p.wo);
    attention_backward(ctx, d_q, d_k, d_v, d_n, s, n, K, d, params.heads);
    affine(ctx, normed, s.x1, p.s1, p.b1);
    linear_backward(ctx, d_n, false, g.wq, g.bq, d_q, normed, p.wq);
    linear_backward(ctx, d_n, true, g.wk, g.bk, d_k, normed, p.wk);
    linear_backward(ctx, d_n, true, g.wv, g.bv, d_v, normed, p.wv);
    norm_backward(ctx, d_z, g.s1, g.b1, d_n, s.x1, s.rstd1, p.s1);
  }
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c <= M; ++c) std::copy_n(d_z.row(j * K + c), d, c == 0 ? d_e_t.row(j) : d_h[c - 1].row(j));
  }
}

static constexpr int64_t kReverseItems = 512;  // at a time: bounds the memory, changes no bit
static int64_t reverse_bytes(int64_t saved_floats, int64_t cap, int64_t d) {
  return (saved_floats + 3 * cap * d) * 4 + cap * 4;
}

void encoder_scratch(ScratchPlan& p, int64_t rows, int modalities, int64_t d, int64_t inner) {
  const int64_t n = rows * (modalities + 2);
  product_scratch(p, 0, d, inner, false), product_scratch(p, 0, inner, d, false);
  product_scratch(p, d, d, n, true), product_scratch(p, d, inner, n, true), product_scratch(p, inner, d, n, true);
  p.need(3, n * inner * 4), p.need(4, n * d * 4), p.need(5, 4 * n * d * 4), p.need(6, n * d * 4),
      p.need(7, n * inner * 4);
}
void encoder_reverse_scratch(ScratchPlan& p, int64_t items, int modalities, int64_t d, int64_t inner, int heads,
                             int layers) {
  const int64_t cap = std::min(kReverseItems, items), n = cap * (modalities + 2);
  product_scratch(p, 0, d, inner, false), product_scratch(p, 0, inner, d, false);
  p.need(2, reverse_bytes(encoder_saved_floats(cap, modalities, d, inner, heads, layers), cap, d));
  p.need(5, n * d * 4), p.need(6, n * d * 4), p.need(7, n * inner * 4);
}

void encoder_reverse(Ctx& ctx, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau,
                     const EncoderParams& params, const Schedule& schedule, uint32_t seed, uint32_t epoch) {
  const int64_t n = q.rows, d = q.cols, T = schedule.steps, cap = std::min(kReverseItems, n),
                inner = params.layer[0].w1.cols;
  CHECK_SHAPE(tau, T, d);
  if (n == 0) return;
  const int64_t saved_floats = encoder_saved_floats(cap, modalities, d, inner, params.heads, params.layers);
  float* room = static_cast<float*>(ctx.scratch(2, size_t(reverse_bytes(saved_floats, cap, d))));
  const EncoderSaved saved = encoder_saved(room, cap, modalities, d, inner, params.heads, params.layers);
  const Mat e{room + saved_floats, cap, d}, x0{e.p + cap * d, cap, d}, z{x0.p + cap * d, cap, d};
  int32_t* t_of = reinterpret_cast<int32_t*>(z.p + cap * d);

  for (int64_t first = 0; first < n; first += cap) {
    const int64_t count = std::min(cap, n - first);
    EstimatorTokens in;
    in.e_t = e;
    for (int m = 0; m < modalities; ++m) in.h[m] = h[m].slice(first, count);
    in.modalities = modalities;
    in.tau = tau;
    in.t = t_of;
    for (int64_t t = T; t >= 0; --t) {  // arriving at e_t: e_T from Q, the others from e_{t+1}
      if (t < T) {
        std::fill_n(t_of, count, int32_t(t));  // step t+1, zero-based
        encoder_forward(ctx, x0, saved, in, params, RowList{nullptr, nullptr, count});
      }
      const float a = t < T ? schedule.a[t] : 0, b = t < T ? schedule.b[t] : schedule.sqrt_abar[T - 1];
      const float sigma = t < T ? schedule.sigma[t] : schedule.sqrt_1m_abar[T - 1];
      const Stream stream = t < T ? Stream{seed, Use::reverse_noise, epoch, uint32_t(t + 1)}
                                  : Stream{seed, Use::reverse_start, epoch, uint32_t(T)};
#pragma omp parallel for num_threads(ctx.threads)
      for (int64_t i = 0; i < count; ++i) {
        float *e_i = e.row(i), *z_i = z.row(i);
        const float* from = t < T ? e_i : q.row(first + i);
        if (t > 0) normal_row(z_i, d, stream, uint32_t(first + i));
        for (int64_t j = 0; j < d; ++j) {
          const float mean = t < T ? std::fma(a, x0.row(i)[j], b * from[j]) : b * from[j];
          e_i[j] = t > 0 ? std::fma(sigma, z_i[j], mean) : mean;  // no noise at the last step
        }
      }
      for (int64_t p = 0; p < 4; ++p) {
        if (pools[p] && T - t == (p + 1) * T / 4) std::copy_n(e.p, count * d, pools[p].row(first));
      }
    }
  }
}

}  // namespace ccdrec::cpu
