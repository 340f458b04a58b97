#include "kernels/views.h"

#include "kernels/cpu/pair_loss.h"

namespace ccdrec::cpu {
namespace {

// Columns j .. j+n-1 of a row of X, those that are not kept as zeros; j is a multiple of eight.
void kept8(float* to, const float* x, const uint16_t* mask, int64_t j, int64_t n) {
  const uint32_t bits = mask ? uint32_t(mask[j / kMaskBits]) >> (j % kMaskBits) : 0xffu;
  for (int64_t l = 0; l < n; ++l) to[l] = (bits >> l) & 1 ? x[j + l] : 0.0f;
}

}  // namespace

// Given c = o.x / (n_o n_x): dc/do = (x / n_x - c o / n_o) / n_o, and the loss falls as c grows.
void cosine_loss(Ctx& ctx, double* loss, Mat d_o, CMat o, CMat x, const uint16_t* mask, float weight, bool accumulate) {
  const int64_t B = o.rows, d = o.cols, words = mask_words(d);
  CHECK_SHAPE(x, B, d);
  CHECK_SHAPE(d_o, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  double sum;
  sum_rows(ctx, &sum, 1, B, [&](int64_t, int64_t b) {
    const float *const o_b = o.row(b), *const x_b = x.row(b);
    const uint16_t* const bits = mask ? mask + b * words : nullptr;
    double oo[kLanes] = {}, xx[kLanes] = {}, ox[kLanes] = {};
    each8(d, [&](int64_t j, int64_t n) {
      float kept[kLanes];
      kept8(kept, x_b, bits, j, n);
      for (int64_t l = 0; l < n; ++l) {
        oo[l] += double(o_b[j + l]) * double(o_b[j + l]);
        xx[l] += double(kept[l]) * double(kept[l]);
        ox[l] += double(o_b[j + l]) * double(kept[l]);
      }
    });
    const CosineAt at = cosine_at(sum_lanes(oo), sum_lanes(xx), sum_lanes(ox), share);
    float* const to = d_o.row(b);
    each8(d, [&](int64_t j, int64_t n) {
      float kept[kLanes];
      kept8(kept, x_b, bits, j, n);
      for (int64_t l = 0; l < n; ++l) {
        const float g = cosine_gradient(at, kept[l], o_b[j + l]);
        to[j + l] = accumulate ? to[j + l] + g : g;
      }
    });
    return 1 - at.c;
  });
  *loss += share * sum;
}

// G = weight X / ||X||: a factor of X, known once all of it has been read.
void frobenius_reg(Ctx& ctx, double* loss, Mat g, CMat x, float weight, bool accumulate) {
  const int64_t R = x.rows, d = x.cols;
  CHECK_SHAPE(g, R, d);
  if (R == 0) return;
  double squares;
  sum_rows(ctx, &squares, 1, R, [&](int64_t, int64_t r) { return dot_in_double(x.row(r), x.row(r), d); });
  const double norm = std::sqrt(squares);
  *loss += double(weight) * norm;
  const float scale = norm == 0 ? 0.0f : float(double(weight) / norm);
#pragma omp parallel for num_threads(ctx.threads_for(2 * kFloatNs * double(R * d)))
  for (int64_t r = 0; r < R; ++r) {
    const float* const x_r = x.row(r);
    float* const to = g.row(r);
    for (int64_t j = 0; j < d; ++j) to[j] = accumulate ? std::fma(scale, x_r[j], to[j]) : scale * x_r[j];
  }
}

void frobenius_reg_scratch(ScratchPlan& p, int64_t rows, int64_t) {
  p.need(0, (rows + kChunkRows - 1) / kChunkRows * int64_t(sizeof(double)));
}

}  // namespace ccdrec::cpu
