#include "docs/adding/row_norms.h"
#include "kernels/cuda/reduce.h"

namespace ccdrec::cuda {
namespace {

// Geometry  a team of lanes a row, 256 threads a block; lane l owns columns l, l + lanes, ..
// Traffic   4 d bytes a row, coalesced
__global__ void norm_team_per_row(float* out, CMat x, RowList rows, int shift) {
  const int64_t j = team_row(shift);
  const bool here = j < rows.n();
  double squares = 0;
  if (here)
    for (int64_t c = team_lane(shift); c < x.cols; c += int64_t(1) << shift) {
      const double v = double(x.row(rows.at(j))[c]);
      squares += v * v;
    }
  squares = team_sum(squares, shift);  // every lane of the warp comes here
  if (here && team_lane(shift) == 0) out[j] = float(std::sqrt(squares));
}

}  // namespace

void row_norms(Ctx& ctx, float* out, CMat x, RowList rows) {
  const int shift = team_shift(x.cols);
  launch(norm_team_per_row, team_blocks(rows.capacity, shift), kTeamThreads, 0, ctx, out, x, rows, shift);
}

}  // namespace ccdrec::cuda
