#include "kernels/bpr.h"
#include "kernels/cuda/reduce.h"

namespace ccdrec::cuda {
namespace {

struct LossAt {
  double f, slope;
};
// As on the CPU: softplus(-x) without overflow, or -log(1e-10 + sig(x)), with t = exp(-|x|).
__device__ inline LossAt loss_at(double x, bool with_eps) {
  const double t = std::exp(-std::fabs(x));
  if (with_eps) {
    const double s = x >= 0 ? 1 / (1 + t) : t / (1 + t);
    return {-std::log(1e-10 + s), -t / ((1 + t) * (1 + t)) / (1e-10 + s)};
  }
  return {(x < 0 ? -x : 0.0) + std::log1p(t), x >= 0 ? -t / (1 + t) : -1 / (1 + t)};
}

// A row's margin, loss and gradients; part[block] = the losses of the block's rows.
// Geometry  one team a row (reduce.h): at d = 64 16 lanes a row, 16 rows a block.
// Traffic   36 d bytes a row (24 d + 4 d without d_x), each once: a row up to 32 V wide waits for its margin in registers.
// Order     the margin: a lane's columns ascending, then lanes by a butterfly. Losses: as block_sum, blocks as sum_of_partials.
template <int V>
__global__ void bpr_team_per_row(double* part, Mat d_u, Mat d_p, Mat d_x, CMat h_u, CMat h_p, CMat h_x, double share, bool with_eps, int shift) {
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
    Columns<V> du = load<V>(d_u.row(b) + j), dp = load<V>(d_p.row(b) + j);
    for (int v = 0; v < V; ++v) {
      du.v[v] = fmaf(dx, p.v[v] - x.v[v], du.v[v]);
      dp.v[v] = fmaf(dx, u.v[v], dp.v[v]);
    }
    store<V>(d_u.row(b) + j, du), store<V>(d_p.row(b) + j, dp);
    if (d_x) {
      Columns<V> dn = load<V>(d_x.row(b) + j);
      for (int v = 0; v < V; ++v) dn.v[v] = fmaf(-dx, u.v[v], dn.v[v]);
      store<V>(d_x.row(b) + j, dn);
    }
  }
  const double sum = block_sum(here && first == 0 ? at.f : 0.0);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// *loss += share * sum of part. Geometry one block.
__global__ void bpr_add_loss(double* loss, const double* part, int64_t n, double share) {
  const double sum = sum_of_partials(part, n);
  if (threadIdx.x == 0) *loss += share * sum;
}

constexpr int64_t kFroStretch = 1024, kMostFroBlocks = 512;

// part[block] = sum of squares of the block's share, in double. Geometry: a block strides over all elements. Traffic: 4 bytes an element.
template <int V>
__global__ void fro_squares(double* part, const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V; i < n; i += int64_t(gridDim.x) * blockDim.x * V) {
    const Columns<V> at = load<V>(x + i);
    for (int v = 0; v < V; ++v) sum += double(at.v[v]) * double(at.v[v]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// d += scale X, and the loss by block 0. Every block adds up the same partial sums in the same order: cheaper than a third launch.
// Geometry as fro_squares. Traffic 12 bytes an element.
template <int V>
__global__ void fro_gradient(double* loss, float* d, const float* x, int64_t n, const double* part, double reg, double denom) {
  const double norm = std::sqrt(sum_of_partials(part, gridDim.x));
  if (norm == 0) return;
  if (blockIdx.x == 0 && threadIdx.x == 0) *loss += reg * norm / denom;
  const float scale = float(reg / (denom * norm));
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V; i < n; i += int64_t(gridDim.x) * blockDim.x * V) {
    const Columns<V> at = load<V>(x + i);
    Columns<V> to = load<V>(d + i);
    for (int v = 0; v < V; ++v) to.v[v] = fmaf(scale, at.v[v], to.v[v]);
    store<V>(d + i, to);
  }
}

}  // namespace

void bpr(Ctx& ctx, double* loss, Mat d_u, Mat d_p, Mat d_x, CMat h_u, CMat h_p, CMat h_x, float weight, bool with_eps) {
  const int64_t B = h_u.rows, d = h_u.cols;
  CHECK_SHAPE(h_p, B, d);
  CHECK_SHAPE(h_x, B, d);
  CHECK_SHAPE(d_u, B, d);
  CHECK_SHAPE(d_p, B, d);
  if (d_x) CHECK_SHAPE(d_x, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  const bool four = four_columns(d, {h_u.p, h_p.p, h_x.p, d_u.p, d_p.p, d_x.p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(B, shift);
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  launch((four ? bpr_team_per_row<4> : bpr_team_per_row<1>), blocks, kTeamThreads, 0, ctx, part, d_u, d_p, d_x, h_u, h_p, h_x, share, with_eps,
         shift);
  launch(bpr_add_loss, 1, 256, 0, ctx, loss, part, blocks, share);
}

void fro(Ctx& ctx, double* loss, Mat d, CMat x, float reg, int64_t denom) {
  CHECK_SHAPE(d, x.rows, x.cols);
  const int64_t blocks = std::min(kMostFroBlocks, blocks_for(x.size(), kFroStretch));
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  const bool four = four_columns(x.size(), {d.p, x.p});
  launch((four ? fro_squares<4> : fro_squares<1>), blocks, 256, 0, ctx, part, x.p, x.size());
  launch((four ? fro_gradient<4> : fro_gradient<1>), blocks, 256, 0, ctx, loss, d.p, x.p, x.size(), part, double(reg), double(denom));
}

}  // namespace ccdrec::cuda
