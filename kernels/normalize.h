// normalize_rows: rows of length 1, and the way back (spec baselines 8.2, 8.3). Only listed rows are read and written.
//
// normalize_rows           Y[r] = X[r] / max(||X[r]||, 1e-12);  inv_norm[r] = 1 / max(..)     X, Y (R,d), inv_norm (R);
//                          Y may be X, and below G_x may be G.
// normalize_rows_backward  G_x[r] (=, += where `accumulate`) (G[r] - y (y . G[r])) inv_norm[r], y = Y[r]     all (R,d)
//                          A row whose norm is at the floor (inv_norm 1e12) counts as constant: it gets 0, or nothing
//                          is added. Its derivative, G[r] / 1e-12, is nothing a step could take. So a zero row gives 0.
// Order    norms and dot products in double, column j in lane j % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)); the
//          rest is one float operation a column, (G - y t) by one fma: the same bits on both devices.
// Cost     forward 8 d + 4 bytes a row, backward 12 d (16 d added) + 4.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

constexpr double kNormFloor = 1e-12;
constexpr float kInverseAtFloor = float(1 / kNormFloor);

}  // namespace ccdrec

namespace ccdrec::cpu {
void normalize_rows(Ctx&, Mat y, float* inv_norm, CMat x, RowList rows);
void normalize_rows_backward(Ctx&, Mat g_x, CMat g, CMat y, const float* inv_norm, RowList rows, bool accumulate);
}  // namespace ccdrec::cpu
