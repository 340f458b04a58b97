#include "kernels/bpr.h"
#include "kernels/cuda/pair_loss.h"

namespace ccdrec::cuda {
namespace {

// A row's margin, loss and gradients; part[block] = the losses of the block's rows.
// Geometry  one team a row (reduce.h): at d = 64 16 lanes a row, 16 rows a block.
// Traffic   32 d bytes a row (28 d without d_x; 4 d less for u or p that are written), each once: a row up to 32 V wide
//           waits for its margin in registers.
// Order     the margin: a lane's columns ascending, then lanes by a butterfly. Losses: as block_sum, blocks as
//           sum_of_partials.
template <int V>
__global__ void bpr_team_per_row(double* part, BprGradients to, CMat h_u, CMat h_p, CMat h_x, double share,
                                 bool with_eps, int shift) {
  const int64_t b = team_row(shift), d = h_u.cols, first = int64_t(team_lane(shift)) * V, step = int64_t(V) << shift;
  const bool here = b < h_u.rows, once = d <= step;
  Columns<V> u{}, p{}, x{};
  double margin = 0;
  for (int64_t j = first; here && j < d; j += step) {
    u = load<V>(h_u.row(b) + j), p = load<V>(h_p.row(b) + j), x = load<V>(h_x.row(b) + j);
    for (int v = 0; v < V; ++v) margin += double(u.v[v]) * (double(p.v[v]) - double(x.v[v]));
  }
  const LossAt at = loss_at(team_sum(margin, shift), with_eps);
  const float dx = float(share * at.slope);
  for (int64_t j = first; here && j < d; j += step) {
    if (!once) u = load<V>(h_u.row(b) + j), p = load<V>(h_p.row(b) + j), x = load<V>(h_x.row(b) + j);
    Columns<V> du{}, dp{};
    if (to.add_u) du = load<V>(to.u.row(b) + j);
    if (to.add_p) dp = load<V>(to.p.row(b) + j);
    for (int v = 0; v < V; ++v) {
      du.v[v] = fmaf(dx, p.v[v] - x.v[v], du.v[v]);
      dp.v[v] = fmaf(dx, u.v[v], dp.v[v]);
    }
    store<V>(to.u.row(b) + j, du), store<V>(to.p.row(b) + j, dp);
    if (to.x) {
      Columns<V> dn;
      for (int v = 0; v < V; ++v) dn.v[v] = -dx * u.v[v];
      store<V>(to.x.row(b) + j, dn);
    }
  }
  const double sum = block_sum(here && first == 0 ? at.f : 0.0);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// part[k blocks_each + c] = sum of squares of share c of block k's rows of X, in double.
// Geometry  one team a slot (reduce.h), blockIdx.x / blocks_each = k; a block strides over its k's slots.
// Traffic   4 d bytes a slot.
template <int V>
__global__ void norm_squares(double* part, CMat x, const int32_t* ids, int64_t B, int64_t blocks_each, int shift) {
  const int64_t k = blockIdx.x / blocks_each, c = blockIdx.x % blocks_each, teams = kTeamThreads >> shift;
  const int64_t first = int64_t(team_lane(shift)) * V, step = int64_t(V) << shift;
  double sum = 0;
  for (int64_t b = c * teams + (threadIdx.x >> shift); b < B; b += blocks_each * teams)
    for (int64_t j = first; j < x.cols; j += step) {
      const Columns<V> at = load<V>(x.row(ids[k * B + b]) + j);
      for (int v = 0; v < V; ++v) sum += double(at.v[v]) * double(at.v[v]);
    }
  sum = block_sum(sum);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// The blocks' norms: their loss, and what a row of each is multiplied by.
// Geometry  one warp, lane l owns blocks l, l+32, .. of the 2 + n_neg; partial sums and terms are added in order.
__global__ void norm_scales(double* loss, float* scale, const double* part, int64_t blocks_each, int64_t B, int n_neg,
                            float reg) {
  const int lane = int(threadIdx.x), blocks = 2 + n_neg;
  double total = 0;
  if (lane == 0) scale[blocks] = 0;  // of a further block
  for (int first = 0; first < blocks; first += kWarp) {
    const int k = first + lane;
    double term = 0;
    if (k < blocks) {
      double squares = 0;
      for (int64_t c = 0; c < blocks_each; ++c) squares += part[k * blocks_each + c];
      const double w = k < 2 ? reg : reg / float(n_neg), size = std::sqrt(squares);
      term = w * size / double(B);
      scale[k] = size == 0 ? 0.0f : float(w / (double(B) * size));
    }
    for (int l = 0; l < kWarp; ++l) total += __shfl_sync(kAll, term, l);
  }
  if (lane == 0) *loss += total;
}

// g[r] += sum of the scales of r's slots times X[r], slots in order.
// Geometry  one team a listed row.
// Traffic   12 d bytes a row, 8 a slot.
template <int V>
__global__ void norm_gradient(Mat g, CMat x, Groups slots, const float* scale, int64_t B, int64_t blocks, int shift) {
  const int64_t j = team_row(shift), d = x.cols, first = int64_t(team_lane(shift)) * V, step = int64_t(V) << shift;
  if (j >= slots.rows.n()) return;
  const int64_t r = slots.rows.at(j);
  for (int64_t c = first; c < d; c += step) {
    const Columns<V> at = load<V>(x.row(r) + c);
    Columns<V> to = load<V>(g.row(r) + c), sum{};
    for (int32_t e = slots.ptr[j]; e < slots.ptr[j + 1]; ++e) {
      const float w = scale[std::min<int64_t>(slots.slot[e] / B, blocks)];
      for (int v = 0; v < V; ++v) sum.v[v] += w * at.v[v];
    }
    for (int v = 0; v < V; ++v) to.v[v] += sum.v[v];
    store<V>(g.row(r) + c, to);
  }
}

// d += weight X; part[block] = sum of squares of the block's rows.
// Geometry  one team a row (reduce.h).
// Traffic   12 d bytes a row, 4 d where d is empty.
template <int V>
__global__ void square_reg_team_per_row(double* part, Mat to, CMat x, float weight, int shift) {
  const int64_t r = team_row(shift), first = int64_t(team_lane(shift)) * V, step = int64_t(V) << shift;
  double sum = 0;
  for (int64_t j = first; r < x.rows && j < x.cols; j += step) {
    const Columns<V> at = load<V>(x.row(r) + j);
    for (int v = 0; v < V; ++v) sum += double(at.v[v]) * double(at.v[v]);
    if (!to) continue;
    Columns<V> grad = load<V>(to.row(r) + j);
    for (int v = 0; v < V; ++v) grad.v[v] = fmaf(weight, at.v[v], grad.v[v]);
    store<V>(to.row(r) + j, grad);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

constexpr int64_t kMostNormBlocks = 16;  // a block of slots: one lane adds up what they find

}  // namespace

void bpr(Ctx& ctx, double* loss, const BprGradients& to, CMat h_u, CMat h_p, CMat h_x, float weight, bool with_eps) {
  const int64_t B = h_u.rows, d = h_u.cols;
  CHECK_SHAPE(h_p, B, d);
  CHECK_SHAPE(h_x, B, d);
  CHECK_SHAPE(to.u, B, d);
  CHECK_SHAPE(to.p, B, d);
  if (to.x) CHECK_SHAPE(to.x, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  const bool four = four_columns(d, {h_u.p, h_p.p, h_x.p, to.u.p, to.p.p, to.x.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(B, shift);
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  launch((four ? bpr_team_per_row<4> : bpr_team_per_row<1>), blocks, kTeamThreads, 0, ctx, part, to, h_u, h_p, h_x,
         share, with_eps, shift);
  launch(add_loss, 1, 256, 0, ctx, loss, part, blocks, share);
}

void norm_reg(Ctx& ctx, double* loss, Mat g, CMat x, const Groups& slots, const int32_t* ids, int64_t B, int n_neg,
              float reg) {
  const int64_t d = x.cols, blocks = 2 + n_neg;
  CHECK_SHAPE(g, x.rows, d);
  CHECK_THAT(n_neg >= 0);
  if (B == 0) return;
  const bool four = four_columns(d, {g.p, x.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t each = std::min(kMostNormBlocks, team_blocks(B, shift));
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks * each) * sizeof(double)));
  float* scale = static_cast<float*>(ctx.scratch(1, size_t(blocks + 1) * sizeof(float)));
  launch((four ? norm_squares<4> : norm_squares<1>), blocks * each, kTeamThreads, 0, ctx, part, x, ids, B, each, shift);
  launch(norm_scales, 1, kWarp, 0, ctx, loss, scale, part, each, B, n_neg, reg);
  launch((four ? norm_gradient<4> : norm_gradient<1>),
         team_blocks(std::min(slots.rows.capacity, (blocks + 1) * B), shift), kTeamThreads, 0, ctx, g, x, slots, scale,
         B, blocks, shift);
}

void square_reg(Ctx& ctx, double* loss, Mat to, CMat x, float weight) {
  const int64_t R = x.rows, d = x.cols;
  if (to) CHECK_SHAPE(to, R, d);
  if (R == 0) return;
  const bool four = four_columns(d, {x.p, to.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(R, shift);
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  launch((four ? square_reg_team_per_row<4> : square_reg_team_per_row<1>), blocks, kTeamThreads, 0, ctx, part, to, x,
         weight, shift);
  launch(add_loss, 1, 256, 0, ctx, loss, part, blocks, 0.5 * double(weight));
}

}  // namespace ccdrec::cuda
