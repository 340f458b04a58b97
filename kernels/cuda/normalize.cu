#include "kernels/cuda/reduce.h"

namespace ccdrec::cuda {
namespace {

// Geometry  eight lanes a listed row, 32 rows a block; lane l owns columns l, l+8, ..: a row is read in whole sectors.
// Traffic   8 d bytes a row; the second reading of X comes from L1.
__global__ void normalize_by_eight(Mat y, float* inv_norm, CMat x, RowList rows) {
  const int64_t j = team_row(kEightShift), d = x.cols;
  const bool here = j < rows.n();
  const int64_t r = here ? rows.at(j) : 0;
  const float* const x_r = x.row(r);
  const double norm = std::sqrt(dot_by_eight(x_r, x_r, here ? d : 0));
  if (!here) return;
  const float inv = float(1 / (norm < kNormFloor ? kNormFloor : norm));  // a NaN passes
  for (int64_t c = team_lane(kEightShift); c < d; c += kEight) y.row(r)[c] = x_r[c] * inv;
  if (team_lane(kEightShift) == 0) inv_norm[r] = inv;
}

// Geometry  as normalize_by_eight.
// Traffic   12 d bytes a row, 16 d added.
__global__ void normalize_backward_by_eight(Mat g_x, CMat g, CMat y, const float* inv_norm, RowList rows,
                                            bool accumulate) {
  const int64_t j = team_row(kEightShift), d = y.cols;
  const bool here = j < rows.n();
  const int64_t r = here ? rows.at(j) : 0;
  const float *const g_r = g.row(r), *const y_r = y.row(r);
  const float along = float(dot_by_eight(y_r, g_r, here ? d : 0));
  if (!here) return;
  const float inv = inv_norm[r] >= kInverseAtFloor ? 0.0f : inv_norm[r];
  float* const to = g_x.row(r);
  for (int64_t c = team_lane(kEightShift); c < d; c += kEight) {
    const float at = fmaf(-along, y_r[c], g_r[c]) * inv;
    to[c] = accumulate ? to[c] + at : at;
  }
}

}  // namespace

void normalize_rows(Ctx& ctx, Mat y, float* inv_norm, CMat x, RowList rows) {
  CHECK_SHAPE(y, x.rows, x.cols);
  launch(normalize_by_eight, team_blocks(rows.capacity, kEightShift), kTeamThreads, 0, ctx, y, inv_norm, x, rows);
}

void normalize_rows_backward(Ctx& ctx, Mat g_x, CMat g, CMat y, const float* inv_norm, RowList rows, bool accumulate) {
  CHECK_SHAPE(g_x, y.rows, y.cols);
  CHECK_SHAPE(g, y.rows, y.cols);
  launch(normalize_backward_by_eight, team_blocks(rows.capacity, kEightShift), kTeamThreads, 0, ctx, g_x, g, y,
         inv_norm, rows, accumulate);
}

}  // namespace ccdrec::cuda
