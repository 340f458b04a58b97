#include "kernels/bpr.h"

#include <algorithm>
#include <cmath>

namespace ccdrec::cpu {
namespace {

constexpr int64_t kChunk = 256;  // rows whose losses are added up together
constexpr int kLanes = 8;        // column j goes to lane j % 8 of a dot product

double sum_lanes(const double (&lane)[kLanes]) { return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])); }

// h_u . (h_p - h_x) in double
double margin(const float* u, const float* p, const float* x, int64_t d) {
  double lane[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += double(u[j + l]) * (double(p[j + l]) - double(x[j + l]));
  for (; j < d; ++j) lane[j % kLanes] += double(u[j]) * (double(p[j]) - double(x[j]));
  return sum_lanes(lane);
}

double squares(const float* x, int64_t d) {
  double lane[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += double(x[j + l]) * double(x[j + l]);
  for (; j < d; ++j) lane[j % kLanes] += double(x[j]) * double(x[j]);
  return sum_lanes(lane);
}

struct LossAt {
  double f, slope;
};
LossAt stable(double x) {  // softplus(-x) without overflow; slope -sig(-x)
  const double t = std::exp(-std::fabs(x));
  return {std::max(-x, 0.0) + std::log1p(t), x >= 0 ? -t / (1 + t) : -1 / (1 + t)};
}
LossAt protected_log(double x) {  // -log(1e-10 + sig(x)); sig(x)(1 - sig(x)) = t/(1+t)^2 with t = exp(-|x|)
  const double t = std::exp(-std::fabs(x)), s = x >= 0 ? 1 / (1 + t) : t / (1 + t);
  return {-std::log(1e-10 + s), -t / ((1 + t) * (1 + t)) / (1e-10 + s)};
}

// Sums a row's value over chunks of 256 rows, chunks in order: the same bits for any thread count.
template <class Row>
double sum_rows(Ctx& ctx, int64_t n, Row&& row) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  double* part = static_cast<double*>(ctx.scratch(0, size_t(chunks) * sizeof(double)));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t c = 0; c < chunks; ++c) {
    double sum = 0;
    for (int64_t b = c * kChunk; b < std::min(n, (c + 1) * kChunk); ++b) sum += row(b);
    part[c] = sum;
  }
  double total = 0;
  for (int64_t c = 0; c < chunks; ++c) total += part[c];
  return total;
}

}  // namespace

// Given x_b = u.(p - x): dx_b = weight/B f'(x_b), and x_b is linear in each of its three rows.
void bpr(Ctx& ctx, double* loss, Mat d_u, Mat d_p, Mat d_x, CMat h_u, CMat h_p, CMat h_x, float weight, bool with_eps) {
  const int64_t B = h_u.rows, d = h_u.cols;
  CHECK_SHAPE(h_p, B, d);
  CHECK_SHAPE(h_x, B, d);
  CHECK_SHAPE(d_u, B, d);
  CHECK_SHAPE(d_p, B, d);
  if (d_x) CHECK_SHAPE(d_x, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  const double sum = sum_rows(ctx, B, [&](int64_t b) {
    const float *u = h_u.row(b), *p = h_p.row(b), *x = h_x.row(b);
    const double m = margin(u, p, x, d);
    const LossAt at = with_eps ? protected_log(m) : stable(m);
    const float dx = float(share * at.slope);
    float *du = d_u.row(b), *dp = d_p.row(b), *dn = d_x ? d_x.row(b) : nullptr;
    for (int64_t j = 0; j < d; ++j) {
      du[j] = std::fma(dx, p[j] - x[j], du[j]);
      dp[j] = std::fma(dx, u[j], dp[j]);
    }
    if (dn)
      for (int64_t j = 0; j < d; ++j) dn[j] = std::fma(-dx, u[j], dn[j]);
    return at.f;
  });
  *loss += share * sum;
}

void fro(Ctx& ctx, double* loss, Mat d, CMat x, float reg, int64_t denom) {
  CHECK_SHAPE(d, x.rows, x.cols);
  const double norm = std::sqrt(sum_rows(ctx, x.rows, [&](int64_t r) { return squares(x.row(r), x.cols); }));
  if (norm == 0) return;
  *loss += double(reg) * norm / double(denom);
  const float scale = float(double(reg) / (double(denom) * norm));
  const int64_t n = x.size();
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t i = 0; i < n; ++i) d.p[i] = std::fma(scale, x.p[i], d.p[i]);
}

}  // namespace ccdrec::cpu
