// BM3's losses (spec baselines 7.3, 7.4): cosines with masked constants, and norms of whole tables.
//
// cosine_loss      loss += weight (1 - mean_b c_b), c_b = o_b . x_b / (n_o n_x), n = max(norm, 1e-8), x_b = mask_b * X[b]
//                  d_o[b] (=, += where `accumulate`) -(weight/B) (x_b / n_x - c_b o_b / n_o) / n_o
//                  o, X, d_o (B,d); mask (B, mask_words(d)) bits (mask.h), null: every value is kept. The factor of the
//                  kept values cancels and is left out.
// frobenius_reg    loss += weight ||X||_F;  G (=, += where `accumulate`) weight X / ||X||_F, nothing where the norm is 0
// Order    dot products in double, column j in lane j % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)); the loss and the
//          norm in double, rows in fixed chunks, chunks ascending.
// Cost     cosine_loss 12 d bytes a row; frobenius_reg X twice and G.
#pragma once
#include "kernels/ctx.h"
#include "kernels/mask.h"

namespace ccdrec::cpu {
void cosine_loss(Ctx&, double* loss, Mat d_o, CMat o, CMat x, const uint16_t* mask, float weight, bool accumulate);
void frobenius_reg(Ctx&, double* loss, Mat g, CMat x, float weight, bool accumulate);
void frobenius_reg_scratch(ScratchPlan&, int64_t rows, int64_t cols);
}  // namespace ccdrec::cpu
