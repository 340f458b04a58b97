#include "kernels/cuda/library.h"
#include "kernels/cuda/pair_loss.h"
#include "kernels/infonce.h"
#include "kernels/numbers.h"

namespace ccdrec::cuda {
namespace {

constexpr int64_t kStripFloats = int64_t(1) << 20;  // of a strip: 4 MB, which stay in L2 between its products
constexpr int kRows = kTeamThreads / kWarp;

__device__ inline float warp_max(float v) {
  for (int o = kWarp / 2; o > 0; o /= 2) {
    const float other = __shfl_xor_sync(kAll, v, o);
    v = other > v ? other : v;
  }
  return v;
}

// Rows first .. first + s.rows - 1 of the products of X and Y -> scale (softmax - Id), and the losses of the rows.
// Geometry  one warp a row, 8 rows a block; lane l owns columns l, l+32, ..
// Traffic   20 bytes an element out of L2: read for the maximum, then as exponential and as share read and written.
// Order     the sum: a lane's columns ascending, then lanes by a butterfly.
__global__ void contrast_rows(double* of_row, Mat s, int64_t first, float inv_tau, float scale) {
  const int64_t r = int64_t(blockIdx.x) * kRows + threadIdx.x / kWarp, n = s.cols, b = first + r;
  if (r >= s.rows) return;
  const int lane = int(threadIdx.x) % kWarp;
  float* const row = s.row(r);
  const float at_b = row[b];
  float top = at_b;
  for (int64_t j = lane; j < n; j += kWarp) top = row[j] > top ? row[j] : top;
  top = warp_max(top);
  const float below = top - at_b, own = portable_exp(-below * inv_tau);
  float others = 0;
  for (int64_t j = lane; j < n; j += kWarp) {
    const float e = j == b ? 0.0f : portable_exp((row[j] - top) * inv_tau);
    row[j] = e, others += e;
  }
  others = team_sum(others, 5);
  const float share = scale / (own + others);
  for (int64_t j = lane; j < n; j += kWarp) row[j] = j == b ? -share * others : row[j] * share;
  if (lane == 0) of_row[b] = std::log1p(double(others) + (double(own) - 1)) + double(below) * double(inv_tau);
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
  float* const s = static_cast<float*>(ctx.scratch(0, size_t(strip * B) * sizeof(float)));
  double* const of_row = static_cast<double*>(ctx.scratch(1, size_t(B) * sizeof(double)));
  for (int64_t b0 = 0; b0 < B; b0 += strip) {
    const int64_t rows = std::min(strip, B - b0);
    const Mat strip_s{s, rows, B};
    gemm(ctx, strip_s, x.slice(b0, rows), false, y, true, false);
    launch(contrast_rows, blocks_for(rows, kRows), kTeamThreads, 0, ctx, of_row, strip_s, b0, inv_tau, scale);
    gemm(ctx, d_x.slice(b0, rows), strip_s, false, y, false, false);
    gemm(ctx, d_y, strip_s, true, x.slice(b0, rows), false, b0 > 0);
  }
  launch(add_loss, 1, kTeamThreads, 0, ctx, loss, of_row, B, double(weight) / double(B));
}

void infonce_scratch(ScratchPlan& p, int64_t B, int64_t) {
  p.need(0, contrast_strip(B, kStripFloats) * B * 4), p.need(1, B * 8);
}

}  // namespace ccdrec::cuda
