#include "kernels/bpr.h"

#include <cmath>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/pair_loss.h"

namespace ccdrec::cpu {
namespace {

// h_u . (h_p - h_x) in double
double margin(const float* u, const float* p, const float* x, int64_t d) {
  double lane[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += double(u[j + l]) * (double(p[j + l]) - double(x[j + l]));
  for (; j < d; ++j) lane[j % kLanes] += double(u[j]) * (double(p[j]) - double(x[j]));
  return sum_lanes(lane);
}

}  // namespace

// Given x_b = u.(p - x): dx_b = weight/B f'(x_b), and x_b is linear in each of its three rows.
void bpr(Ctx& ctx, double* loss, const BprGradients& to, CMat h_u, CMat h_p, CMat h_x, float weight, bool with_eps) {
  const int64_t B = h_u.rows, d = h_u.cols;
  CHECK_SHAPE(h_p, B, d);
  CHECK_SHAPE(h_x, B, d);
  CHECK_SHAPE(to.u, B, d);
  CHECK_SHAPE(to.p, B, d);
  if (to.x) CHECK_SHAPE(to.x, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  double sum;
  sum_rows(ctx, &sum, 1, B, [&](int64_t, int64_t b) {
    const float *u = h_u.row(b), *p = h_p.row(b), *x = h_x.row(b);
    const double m = margin(u, p, x, d);
    const LossAt at = loss_at(m, with_eps);
    const float dx = float(share * at.slope);
    float *du = to.u.row(b), *dp = to.p.row(b), *dn = to.x ? to.x.row(b) : nullptr;
    for (int64_t j = 0; j < d; ++j) {
      du[j] = std::fma(dx, p[j] - x[j], to.add_u ? du[j] : 0.0f);
      dp[j] = std::fma(dx, u[j], to.add_p ? dp[j] : 0.0f);
    }
    if (dn)
      for (int64_t j = 0; j < d; ++j) dn[j] = -dx * u[j];
    return at.f;
  });
  *loss += share * sum;
}

// A row of X is read once for its norm's share of each slot, and once for its gradient: its slots differ by a factor
// only.
void norm_reg(Ctx& ctx, double* loss, Mat g, CMat x, const Groups& slots, const int32_t* ids, int64_t B, int n_neg,
              float reg) {
  const int64_t d = x.cols, blocks = 2 + n_neg, n = slots.rows.n();
  CHECK_SHAPE(g, x.rows, d);
  CHECK_THAT(n_neg >= 0 && (slots.ptr[n] == blocks * B || slots.ptr[n] == (blocks + 1) * B));
  if (B == 0) return;
  double* const norm = static_cast<double*>(ctx.scratch(1, size_t(blocks) * sizeof(double)));
  float* const scale = static_cast<float*>(ctx.scratch(2, size_t(blocks + 1) * sizeof(float)));
  sum_rows(ctx, norm, blocks, B, [&](int64_t k, int64_t b) {
    const float* const row = x.row(ids[k * B + b]);
    return dot_in_double(row, row, d);
  });
  for (int64_t k = 0; k < blocks; ++k) {
    const double w = k < 2 ? reg : reg / float(n_neg), size = std::sqrt(norm[k]);
    *loss += w * size / double(B);
    scale[k] = size == 0 ? 0.0f : float(w / (double(B) * size));
  }
  scale[blocks] = 0;  // of a further block
#pragma omp parallel for num_threads(ctx.threads) schedule(dynamic, 64)
  for (int64_t j = 0; j < n; ++j) {
    const int64_t r = slots.rows.at(j);
    each8(d, [&](int64_t c, int64_t lanes) {
      const V8 row = take8(x.row(r) + c, lanes);
      V8 sum = splat8(scale[slots.slot[slots.ptr[j]] / B]) * row;
      for (int32_t e = slots.ptr[j] + 1; e < slots.ptr[j + 1]; ++e) sum += splat8(scale[slots.slot[e] / B]) * row;
      put8(g.row(r) + c, sum + take8(g.row(r) + c, lanes), lanes);
    });
  }
}

void square_reg(Ctx& ctx, double* loss, Mat to, CMat x, float weight) {
  const int64_t R = x.rows, d = x.cols;
  if (to) CHECK_SHAPE(to, R, d);
  if (R == 0) return;
  double sum;
  sum_rows(ctx, &sum, 1, R, [&](int64_t, int64_t r) {
    const float* const x_r = x.row(r);
    if (to) axpy(to.row(r), weight, x_r, d);
    return dot_in_double(x_r, x_r, d);
  });
  *loss += 0.5 * double(weight) * sum;
}

}  // namespace ccdrec::cpu
