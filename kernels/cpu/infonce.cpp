#include "kernels/infonce.h"

#include <cmath>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/product.h"

namespace ccdrec::cpu {
namespace {

// Of a strip: 1 MB, which the cores' second-level caches hold between its products.
constexpr int64_t kStripFloats = int64_t(1) << 18;
constexpr double kExpNs = 0.8;  // of a core, about, for the softmax of an element

float largest(const float* s, int64_t n) {
  V8 top = splat8(s[0]);
  each8(n, [&](int64_t j, int64_t lanes) {
    V8 v = take8(s + j, lanes);
    for (int64_t l = lanes; l < 8; ++l) v[l] = s[0];
    top = v > top ? v : top;
  });
  float most = top[0];
  for (int l = 1; l < 8; ++l) most = top[l] > most ? top[l] : most;
  return most;
}

// s <- exp((s - top) / tau); their sum.
float to_exponentials(float* s, int64_t n, float top, float inv_tau) {
  V8 sum{};
  each8(n, [&](int64_t j, int64_t lanes) {
    V8 e = exp8((take8(s + j, lanes) - splat8(top)) * splat8(inv_tau));
    for (int64_t l = lanes; l < 8; ++l) e[l] = 0;
    put8(s + j, e, lanes);
    sum += e;
  });
  return sum8(sum);
}

// s: the products of x_b with all n rows of Y -> scale (softmax - Id). Returns the row's loss.
double contrast_row(float* s, int64_t n, int64_t b, float inv_tau, float scale) {
  const float top = largest(s, n), below = top - s[b];
  const float own = portable_exp(-below * inv_tau);
  const float others = to_exponentials(s, b, top, inv_tau) + to_exponentials(s + b + 1, n - b - 1, top, inv_tau);
  const float share = scale / (own + others);
  each8(n, [&](int64_t j, int64_t lanes) { put8(s + j, take8(s + j, lanes) * splat8(share), lanes); });
  s[b] = -share * others;
  return std::log1p(double(others) + (double(own) - 1)) + double(below) * double(inv_tau);
}

}  // namespace

void infonce(Ctx& ctx, double* loss, Mat d_x, Mat d_y, CMat x, CMat y, float tau, float weight) {
  const int64_t B = x.rows, k = x.cols;
  CHECK_SHAPE(y, B, k);
  CHECK_SHAPE(d_x, B, k);
  CHECK_SHAPE(d_y, B, k);
  CHECK_THAT(tau > 0);
  if (B == 0) return;
  const int64_t strip = contrast_strip(B, kStripFloats);
  const float inv_tau = 1 / tau, scale = float(double(weight) / (double(tau) * double(B)));
  float* const s = static_cast<float*>(ctx.scratch(2, size_t(strip * B) * sizeof(float)));
  double* const of_row = static_cast<double*>(ctx.scratch(3, size_t(strip) * sizeof(double)));
  double sum = 0;
  for (int64_t b0 = 0; b0 < B; b0 += strip) {
    const int64_t rows = std::min(strip, B - b0);
    product(ctx, {s, rows, B}, k, {x.row(b0), k, nullptr, false}, {y.p, k, true}, false);
#pragma omp parallel for num_threads(ctx.threads_for(kExpNs* double(rows) * double(B)))
    for (int64_t b = 0; b < rows; ++b) of_row[b] = contrast_row(s + b * B, B, b0 + b, inv_tau, scale);
    for (int64_t b = 0; b < rows; ++b) sum += of_row[b];
    product(ctx, d_x.slice(b0, rows), B, {s, B, nullptr, false}, {y.p, k, false}, false);
    product(ctx, d_y, rows, {s, B, nullptr, true}, {x.row(b0), k, false}, b0 > 0);
  }
  *loss += double(weight) / double(B) * sum;
}

void infonce_scratch(ScratchPlan& p, int64_t B, int64_t k) {
  const int64_t strip = contrast_strip(B, kStripFloats);
  product_scratch(p, 0, B, k, false);
  product_scratch(p, 0, k, B, false);
  for (const int64_t rows : {strip, strip > 0 ? B % strip : 0}) product_scratch(p, B, k, rows, true);
  p.need(2, strip * B * 4), p.need(3, strip * 8);
}

}  // namespace ccdrec::cpu
