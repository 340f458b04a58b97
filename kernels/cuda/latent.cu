#include "kernels/cuda/library.h"
#include "kernels/cuda/reduce.h"

namespace ccdrec::cuda {
namespace {

// Geometry  one thread: at most eight numbers.
__global__ void weights_by_one(float* w, const float* theta, int M) {
  if (threadIdx.x == 0) softmax_of(w, theta, M);
}
__global__ void weights_backward_by_one(float* g_theta, const float* w, const float* g_w, int M) {
  if (threadIdx.x == 0) add_softmax_gradient(g_theta, w, g_w, M);
}

// s[i], and how many rows have none.
// Geometry  eight lanes a row, 32 rows a block; lane l owns entries l, l+8, .. of the M lists.
// Traffic   4 M k bytes a row.
__global__ void latent_scale_by_eight(float* s, unsigned long long* empty, LatentLists in, const float* w) {
  const int64_t i = team_row(kEightShift), I = in.learned[0].rows, k = in.learned[0].cols;
  double c = 0;
  for (int64_t e = team_lane(kEightShift); i < I && e < in.M * k; e += kEight)
    c += double(w[e / k]) * double(in.learned[e / k].row(i)[e % k]);
  c = team_sum(c, kEightShift);
  if (i >= I || team_lane(kEightShift) != 0) return;
  s[i] = float(scale_of(c));
  if (c <= 0) atomicAdd(empty, 1ull);
}

// Geometry  one thread an entry of S: coalesced, but for s of the neighbour.
// Traffic   8 bytes read, 8 written; 4 scattered.
__global__ void latent_values(Mat s_val, int32_t* s_col, const float* s, LatentLists in, const float* w, float lambda) {
  const int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, k = in.learned[0].cols;
  if (t >= s_val.size()) return;
  const int64_t i = t / s_val.cols, list = t % s_val.cols / k, slot = i * k + t % k;
  const int64_t m = list < in.M ? list : list - in.M;
  const bool learned = list < in.M;
  const int32_t j = learned ? in.idx[m][slot] : in.frozen_idx[m][slot];
  s_col[t] = j;
  s_val.p[t] = learned ? learned_value(w[m], in.learned[m].p[slot], s[i], s[j], lambda)
                       : frozen_value(w[m], in.frozen[m].p[slot], lambda);
}

// g[rows of the groups] += what the entries that name them add to g_s.
// Geometry  eight lanes a group; one launch a modality, so that no two groups of a launch write one row.
// Traffic   16 bytes an entry, 12 of them scattered.
__global__ void latent_columns_by_eight(double* g, Groups groups, CMat gamma, CMat learned, const float* w,
                                        const float* s, float lambda) {
  const int64_t j = team_row(kEightShift), k = learned.cols;
  const bool here = j < groups.rows.n();
  const int32_t first = here ? groups.ptr[j] : 0, end = here ? groups.ptr[j + 1] : 0;
  double sum = 0;
  for (int32_t e = first + team_lane(kEightShift); e < end; e += kEight) {
    const int64_t slot = groups.slot[e];
    sum += end_gradient(gamma.p[slot], *w, learned.p[slot], s[slot / k], lambda);
  }
  sum = team_sum(sum, kEightShift);
  if (here && team_lane(kEightShift) == 0) g[groups.rows.at(j)] += sum;
}

// g[i]: the columns' part of g_s to g_c.
// Geometry  as latent_scale_by_eight.
// Traffic   16 bytes an entry, 4 of them scattered.
__global__ void latent_rows_by_eight(double* g, LatentGradients to, LatentLists in, const float* w, const float* s,
                                     float lambda) {
  const int64_t i = team_row(kEightShift), I = in.learned[0].rows, k = in.learned[0].cols;
  double sum = 0;
  for (int64_t e = team_lane(kEightShift); i < I && e < in.M * k; e += kEight) {
    const int64_t m = e / k, slot = i * k + e % k;
    sum += end_gradient(to.gamma[m].p[slot], w[m], in.learned[m].p[slot], s[in.idx[m][slot]], lambda);
  }
  sum = team_sum(sum, kEightShift);
  if (i < I && team_lane(kEightShift) == 0) g[i] = sum_gradient(s[i], g[i] + sum);
}

// g_k of an entry, and part[m gridDim.x + block] = the block's share of g_w[m].
// Geometry  one thread an entry, blockIdx.y = m.
// Traffic   24 bytes an entry, 4 of them scattered.
// Order     a block's entries as block_sum, blocks as sum_of_partials.
__global__ void latent_entries(double* part, LatentGradients to, LatentLists in, const double* g_c, const float* w,
                               const float* s, float lambda) {
  const int64_t slot = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const unsigned m = blockIdx.y;
  double share = 0;
  if (slot < in.learned[m].size()) {
    const int64_t i = slot / in.learned[m].cols;
    const double g = entry_gradient(to.gamma[m].p[slot], s[i], s[in.idx[m][slot]], g_c[i], lambda);
    to.g_k[m].p[slot] = float(double(w[m]) * g);
    share = g * double(in.learned[m].p[slot]) +
            double(lambda) * double(in.frozen[m].p[slot]) * double(to.frozen_gamma[m].p[slot]);
  }
  share = block_sum(share);
  if (threadIdx.x == 0) part[int64_t(m) * gridDim.x + blockIdx.x] = share;
}

// Geometry  one block a modality.
__global__ void latent_weight_gradient(float* g_w, const double* part, int64_t blocks) {
  const double sum = sum_of_partials(part + blockIdx.x * blocks, blocks);
  if (threadIdx.x == 0) g_w[blockIdx.x] = float(sum);
}

void check_lists(const LatentLists& in, int64_t I, int64_t k) {
  CHECK_THAT(in.M >= 1 && in.M <= kMaxModalities);
  for (int m = 0; m < in.M; ++m) {
    CHECK_SHAPE(in.learned[m], I, k);
    CHECK_SHAPE(in.frozen[m], I, k);
  }
}

}  // namespace

void softmax_weights(Ctx& ctx, float* w, const float* theta, int M) {
  CHECK_THAT(M >= 1 && M <= kMaxModalities);
  launch(weights_by_one, 1, kWarp, 0, ctx, w, theta, M);
}

void softmax_weights_backward(Ctx& ctx, float* g_theta, const float* w, const float* g_w, int M) {
  CHECK_THAT(M >= 1 && M <= kMaxModalities);
  launch(weights_backward_by_one, 1, kWarp, 0, ctx, g_theta, w, g_w, M);
}

void latent_graph(Ctx& ctx, Mat s_val, int32_t* s_col, float* s, int64_t* empty, const LatentLists& in, const float* w,
                  float lambda) {
  const int64_t I = in.learned[0].rows, k = in.learned[0].cols;
  check_lists(in, I, k);
  CHECK_SHAPE(s_val, I, 2 * in.M * k);
  library::fill(ctx, empty, 0, sizeof(int64_t));
  launch(latent_scale_by_eight, team_blocks(I, kEightShift), kTeamThreads, 0, ctx, s,
         reinterpret_cast<unsigned long long*>(empty), in, w);
  launch(latent_values, blocks_for(s_val.size(), 256), 256, 0, ctx, s_val, s_col, s, in, w, lambda);
}

void latent_graph_backward(Ctx& ctx, float* g_w, const LatentGradients& to, const LatentLists& in, const float* w,
                           const float* s, float lambda) {
  const int64_t I = in.learned[0].rows, k = in.learned[0].cols;
  check_lists(in, I, k);
  for (int m = 0; m < in.M; ++m) {
    CHECK_SHAPE(to.gamma[m], I, k);
    CHECK_SHAPE(to.frozen_gamma[m], I, k);
    CHECK_SHAPE(to.g_k[m], I, k);
  }
  const int64_t blocks = blocks_for(I * k, 256);
  double* const part = static_cast<double*>(ctx.scratch(0, size_t(in.M * blocks) * sizeof(double)));
  double* const g = static_cast<double*>(ctx.scratch(1, size_t(I) * sizeof(double)));  // g_s, then g_c
  library::fill(ctx, g, 0, size_t(I) * sizeof(double));
  for (int m = 0; m < in.M; ++m)
    launch(latent_columns_by_eight, team_blocks(std::min(I, to.by_target[m].rows.capacity), kEightShift), kTeamThreads,
           0, ctx, g, to.by_target[m], to.gamma[m], in.learned[m], w + m, s, lambda);
  launch(latent_rows_by_eight, team_blocks(I, kEightShift), kTeamThreads, 0, ctx, g, to, in, w, s, lambda);
  launch(latent_entries, Grid(blocks, in.M), 256, 0, ctx, part, to, in, g, w, s, lambda);
  launch(latent_weight_gradient, in.M, 256, 0, ctx, g_w, part, blocks);
}

void latent_graph_backward_scratch(ScratchPlan& p, int64_t I, int64_t k, int M) {
  p.need(0, M * blocks_for(I * k, 256) * 8), p.need(1, I * 8);
}

}  // namespace ccdrec::cuda
