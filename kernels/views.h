// BM3's losses (spec baselines 7.3, 7.4): cosines with masked constants, and norms of whole tables.
//
// cosine_loss      loss += weight (1 - mean_b c_b), c_b = o_b . x_b / (n_o n_x), n = max(norm, 1e-8),
//                  x_b = mask_b * X[b]
//                  d_o[b] (=, += where `accumulate`) -(weight/B) (x_b / n_x - c_b o_b / n_o) / n_o
//                  o, X, d_o (B,d); mask (B, mask_words(d)) bits (mask.h), null: every value is kept. The factor of the
//                  kept values cancels and is left out. A norm at its floor is a constant: where it is o_b's, the term
//                  in o_b falls away.
// frobenius_reg    loss += weight ||X||_F;  G (=, += where `accumulate`) weight X / ||X||_F;  X, G (R,d). Where the
//                  norm is 0 the gradient is.
// Order    dot products in double, column j in lane j % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)), and d_o in
//          double, rounded once: the same bits on both devices. The losses and the norm, with which frobenius_reg's G
//          is scaled, in double, in an order of the device's own that the shapes fix.
// Cost     cosine_loss 12 d bytes a row (16 d added) and 2 mask_words(d); frobenius_reg X twice and G.
#pragma once
#include <cmath>

#include "kernels/ctx.h"
#include "kernels/mask.h"

namespace ccdrec {

constexpr double kCosineFloor = 1e-8;

// One source for both devices: the same bits.
struct CosineAt {
  double c, of_x, of_o;  // the cosine; d_o = of_x x + of_o o
};
CCDREC_HD inline CosineAt cosine_at(double oo, double xx, double ox, double share) {
  const double norm_o = std::sqrt(oo), norm_x = std::sqrt(xx);
  const bool floor = norm_o < kCosineFloor;
  const double n_o = floor ? kCosineFloor : norm_o,
               n_x = norm_x < kCosineFloor ? kCosineFloor : norm_x;  // a NaN passes
  const double c = ox / (n_o * n_x);
  return {c, -share / (n_o * n_x), floor ? 0.0 : share * c / (n_o * n_o)};
}
CCDREC_HD inline float cosine_gradient(CosineAt at, float x, float o) {
  return float(std::fma(at.of_x, double(x), at.of_o * double(o)));
}

}  // namespace ccdrec

namespace ccdrec::cpu {
void cosine_loss(Ctx&, double* loss, Mat d_o, CMat o, CMat x, const uint16_t* mask, float weight, bool accumulate);
void frobenius_reg(Ctx&, double* loss, Mat g, CMat x, float weight, bool accumulate);
void frobenius_reg_scratch(ScratchPlan&, int64_t rows, int64_t cols);
}  // namespace ccdrec::cpu
