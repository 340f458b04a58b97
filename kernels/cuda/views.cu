#include "kernels/cuda/pair_loss.h"
#include "kernels/views.h"

namespace ccdrec::cuda {
namespace {

// A row's cosine and gradient; part[block] = the losses of the block's rows.
// Geometry  eight lanes a row, 32 rows a block; lane l owns columns l, l+8, ..: a row is read in whole sectors.
// Traffic   12 d bytes a row (16 d added) and the mask's 2 words; the second reading of o and X comes from L1.
// Order     the losses: as block_sum, blocks as sum_of_partials.
__global__ void cosine_loss_by_eight(double* part, Mat d_o, CMat o, CMat x, const uint16_t* mask, int64_t words,
                                     double share, bool accumulate) {
  const int64_t b = team_row(kEightShift);
  const int lane = team_lane(kEightShift);
  const bool here = b < o.rows;
  const int64_t d = here ? o.cols : 0;
  const float *const o_b = o.row(b), *const x_b = x.row(b);
  const uint16_t* const bits = mask ? mask + b * words : nullptr;
  double oo = 0, xx = 0, ox = 0;
  for (int64_t j = lane; j < d; j += kEight) {
    const double of_o = double(o_b[j]), of_x = !bits || kept_by(bits, j) ? double(x_b[j]) : 0.0;
    oo += of_o * of_o, xx += of_x * of_x, ox += of_o * of_x;
  }
  oo = team_sum(oo, kEightShift), xx = team_sum(xx, kEightShift), ox = team_sum(ox, kEightShift);
  const CosineAt at = cosine_at(oo, xx, ox, share);
  for (int64_t j = lane; j < d; j += kEight) {
    const float g = cosine_gradient(at, !bits || kept_by(bits, j) ? x_b[j] : 0.0f, o_b[j]);
    float* const to = d_o.row(b) + j;
    *to = accumulate ? *to + g : g;
  }
  const double sum = block_sum(here && lane == 0 ? 1 - at.c : 0.0);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// part[block] = sum of squares of the block's rows.
// Geometry  eight lanes a row, 32 rows a block.
// Traffic   4 d bytes a row.
__global__ void squares_by_eight(double* part, CMat x) {
  const int64_t r = team_row(kEightShift);
  const double squares = dot_by_eight(x.row(r), x.row(r), r < x.rows ? x.cols : 0);
  const double sum = block_sum(team_lane(kEightShift) == 0 ? squares : 0.0);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// The norm's share of the loss, and what X is multiplied by.
// Geometry  one block.
__global__ void norm_and_scale(double* loss, float* scale, const double* part, int64_t n, double weight) {
  const double norm = std::sqrt(sum_of_partials(part, n));
  if (threadIdx.x != 0) return;
  *loss += weight * norm;
  *scale = norm == 0 ? 0.0f : float(weight / norm);
}

// Geometry  one team a row (reduce.h).
// Traffic   8 d bytes a row, 12 d added.
template <int V>
__global__ void scaled_rows(Mat g, CMat x, const float* scale, bool accumulate, int shift) {
  const int64_t r = team_row(shift), d = x.cols, first = int64_t(team_lane(shift)) * V, step = int64_t(V) << shift;
  if (r >= x.rows) return;
  const float s = *scale;
  for (int64_t j = first; j < d; j += step) {
    const Columns<V> at = load<V>(x.row(r) + j);
    Columns<V> to{};
    if (accumulate) to = load<V>(g.row(r) + j);
    for (int v = 0; v < V; ++v) to.v[v] = accumulate ? fmaf(s, at.v[v], to.v[v]) : s * at.v[v];
    store<V>(g.row(r) + j, to);
  }
}

}  // namespace

void cosine_loss(Ctx& ctx, double* loss, Mat d_o, CMat o, CMat x, const uint16_t* mask, float weight, bool accumulate) {
  const int64_t B = o.rows, d = o.cols;
  CHECK_SHAPE(x, B, d);
  CHECK_SHAPE(d_o, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  const int64_t blocks = team_blocks(B, kEightShift);
  double* const part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  launch(cosine_loss_by_eight, blocks, kTeamThreads, 0, ctx, part, d_o, o, x, mask, mask_words(d), share, accumulate);
  launch(add_loss, 1, 256, 0, ctx, loss, part, blocks, share);
}

void frobenius_reg(Ctx& ctx, double* loss, Mat g, CMat x, float weight, bool accumulate) {
  const int64_t R = x.rows, d = x.cols;
  CHECK_SHAPE(g, R, d);
  if (R == 0) return;
  const int64_t blocks = team_blocks(R, kEightShift);
  double* const part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  float* const scale = static_cast<float*>(ctx.scratch(1, sizeof(float)));
  launch(squares_by_eight, blocks, kTeamThreads, 0, ctx, part, x);
  launch(norm_and_scale, 1, 256, 0, ctx, loss, scale, part, blocks, double(weight));
  const bool four = four_columns(d, {g.p, x.p});
  const int shift = team_shift(four ? d / 4 : d);
  launch((four ? scaled_rows<4> : scaled_rows<1>), team_blocks(R, shift), kTeamThreads, 0, ctx, g, x, scale, accumulate,
         shift);
}

void frobenius_reg_scratch(ScratchPlan& p, int64_t rows, int64_t) {
  p.need(0, team_blocks(rows, kEightShift) * int64_t(sizeof(double))), p.need(1, int64_t(sizeof(float)));
}

}  // namespace ccdrec::cuda
