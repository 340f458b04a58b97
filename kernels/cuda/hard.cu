#include <cmath>
#include <limits>

#include "kernels/cuda/ordered.h"
#include "kernels/cuda/pair_loss.h"
#include "kernels/cuda/unseen.h"
#include "kernels/hard.h"

namespace ccdrec::cuda {
namespace {

using Square = TileShape<64, 128, 8, 8, 4>;

constexpr int kHardWarps = 4;         // of a block of hardest_negative
constexpr int kHardBlock = 64;        // threads, one an entry: a batch of 2,048 is few warps
constexpr int64_t kRankBlocks = 640;  // of negative_ranks' products

struct HardProblem {
  CMat h_u;
  const int32_t* users;
  int64_t batch, first_row;
  LayerTables v;
  Csr train;
  Choice from;
  int64_t N;
  uint32_t top;  // min(top_m, N)
  Stream candidates, rank;
  const Late* late;
};

// out[l*batch + b] = the chosen one of N candidates of row b in table l.
// Geometry  one warp a row and table (blockIdx.y). 32 candidates at a time: each lane draws one, then eight lanes score
//           one, four at a time. The tables' warps draw the same candidates again: cheaper than to bring them together,
//           and there are more warps.
// Traffic   d words of L2 a candidate in 32-byte sectors, twice that with an item part; h_u from L1.
// kRanked   top_m > 1: all N scores and items in shared memory, 12 bytes each; a candidate's rank is counted against
//           all others.
template <bool kRanked>
__global__ void hardest_warp_per_row(int32_t* out, HardProblem p) {
  constexpr int kAtOnce = kWarp / kEight;
  const int lane = int(threadIdx.x) % kWarp, team = lane / kEight;
  const int64_t b = int64_t(blockIdx.x) * kHardWarps + int64_t(threadIdx.x) / kWarp, d = p.h_u.cols;
  const int l = int(blockIdx.y);
  if (b >= p.batch) return;  // a whole warp, and no barrier of the block follows
  double* const scores = dynamic_shared<double>() + int64_t(threadIdx.x) / kWarp * p.N;
  int32_t* const drawn =
      reinterpret_cast<int32_t*>(dynamic_shared<double>() + kHardWarps * p.N) + int64_t(threadIdx.x) / kWarp * p.N;
  const Stream s = resolved(p.candidates, p.late);
  const int64_t row = late_first(p.first_row, p.late) + b;
  const int32_t user = p.users[b];
  const float* const u = p.h_u.row(user);
  double best = 0;
  int32_t best_item = 0;
  int64_t best_m = -1;  // none
  for (int64_t m0 = 0; m0 < p.N; m0 += kWarp) {
    const int32_t mine = draw_unseen(s, m0 + lane < p.N, uint32_t(row * p.N + m0 + lane), user, p.train, p.from);
    for (int k = 0; k < kWarp && m0 + k < p.N; k += kAtOnce) {
      const int64_t m = m0 + k + team;
      const int32_t item = __shfl_sync(kAll, mine, k + team);  // beyond the last candidate: item 0, scored and dropped
      double score = dot_by_eight(u, p.v.layer[l].row(item), d);
      if (p.v.item_part) score += dot_by_eight(u, p.v.item_part.row(item), d);
      if (score != score) score = -std::numeric_limits<double>::infinity();
      if (m >= p.N) continue;
      if constexpr (kRanked) {
        if (lane % kEight == 0) scores[m] = score, drawn[m] = item;
      } else if (best_m < 0 || score > best) {
        best = score, best_item = item, best_m = m;
      }
    }
  }
  if constexpr (kRanked) {
    __syncwarp();
    const uint32_t rank = below(draw(resolved(p.rank, p.late), uint32_t(row), uint32_t(l)).v[0], p.top);
    for (int64_t m = lane; m < p.N; m += kWarp) {
      uint32_t better = 0;
      for (int64_t o = 0; o < p.N; ++o) better += scores[o] > scores[m] || (scores[o] == scores[m] && o < m);
      if (better == rank) out[l * p.batch + b] = drawn[m];
    }
  } else {
    for (int step = kEight; step < kWarp; step *= 2) {
      const double score = __shfl_xor_sync(kAll, best, step);
      const int32_t item = __shfl_xor_sync(kAll, best_item, step);
      const int64_t m = __shfl_xor_sync(kAll, best_m, step);
      if (m >= 0 && (best_m < 0 || score > best || (score == best && m < best_m)))
        best = score, best_item = item, best_m = m;
    }
    if (lane == 0) out[l * p.batch + b] = best_item;
  }
}

// Geometry  one thread an entry.
// Traffic   4 bytes written.
__global__ void mixing_draw(Mat alpha, int64_t first_row, Stream stream, const Late* late) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, l = e / alpha.cols, b = e % alpha.cols;
  if (l < alpha.rows)
    alpha.p[e] = uniform01(draw(resolved(stream, late), uint32_t(late_first(first_row, late) + b), uint32_t(l)).v[0]);
}

struct MixedProblem {
  Mat d_u, h_n, d_layer[kMaxLayers + 1];
  CMat u;
  LayerTables v;
  const int32_t *positives, *hard;
  CMat alpha;
};

// A row's margin, loss and gradients; part[block] = the losses of the block's rows.
// Geometry  as bpr_team_per_row.
// Traffic   12 d bytes of u and d_u; a table 8 d read and 8 d written (8 d more of the item part, from L1 after the
//           first table); 4 d of h_n. A row no wider than its team stays in registers; of a wider one w is computed
//           again when c is known.
// Order     as bpr_team_per_row.
template <int V>
__global__ void mixed_bpr_team_per_row(double* part, MixedProblem p, double share, bool with_eps, int shift) {
  const int64_t B = p.u.rows, b = team_row(shift), d = p.u.cols, first = int64_t(team_lane(shift)) * V,
                step = int64_t(V) << shift;
  const bool here = b < B, once = d <= step;
  const int n = p.v.n;
  const auto rest = [&](int l) { return (1 - double(p.alpha.row(l)[b])) / double(n); };
  double w[V] = {};
  Columns<V> u{};
  const auto apart = [&](int64_t j) {  // w of columns j .. j+V-1
    for (int v = 0; v < V; ++v) w[v] = 0;
    const int64_t positive = p.positives[b];
    for (int l = 0; l < n; ++l) {
      const int64_t chosen = p.hard[l * B + b];
      const Columns<V> at = load<V>(p.v.layer[l].row(positive) + j), x = load<V>(p.v.layer[l].row(chosen) + j);
      double gap[V];
      for (int v = 0; v < V; ++v) gap[v] = double(at.v[v]) - double(x.v[v]);
      if (p.v.item_part) {
        const Columns<V> part_p = load<V>(p.v.item_part.row(positive) + j),
                         part_x = load<V>(p.v.item_part.row(chosen) + j);
        for (int v = 0; v < V; ++v) gap[v] += double(part_p.v[v]) - double(part_x.v[v]);
      }
      for (int v = 0; v < V; ++v) w[v] += rest(l) * gap[v];
    }
  };
  double margin = 0;
  for (int64_t j = first; here && j < d; j += step) {
    apart(j);
    u = load<V>(p.u.row(b) + j);
    for (int v = 0; v < V; ++v) margin += double(u.v[v]) * w[v];
    if (!p.h_n) continue;
    double h_p[V] = {};
    for (int l = 0; l < n; ++l) {
      const Columns<V> at = load<V>(p.v.layer[l].row(p.positives[b]) + j);
      Columns<V> own{};
      if (p.v.item_part) own = load<V>(p.v.item_part.row(p.positives[b]) + j);
      for (int v = 0; v < V; ++v) h_p[v] += (double(at.v[v]) + double(own.v[v])) / double(n);
    }
    Columns<V> h_n;
    for (int v = 0; v < V; ++v) h_n.v[v] = float(h_p[v] - w[v]);
    store<V>(p.h_n.row(b) + j, h_n);
  }
  const LossAt at = loss_at(team_sum(margin, shift), with_eps);
  const double c = share * at.slope;
  for (int64_t j = first; here && j < d; j += step) {
    if (!once) apart(j), u = load<V>(p.u.row(b) + j);
    Columns<V> du = load<V>(p.d_u.row(b) + j);
    for (int v = 0; v < V; ++v) du.v[v] = fmaf(float(c), float(w[v]), du.v[v]);
    store<V>(p.d_u.row(b) + j, du);
    for (int l = 0; l < n; ++l) {
      const float g = float(c * rest(l));
      Columns<V> dp, dx;
      for (int v = 0; v < V; ++v) dp.v[v] = g * u.v[v], dx.v[v] = -g * u.v[v];
      store<V>(p.d_layer[l].row(b) + j, dp), store<V>(p.d_layer[l].row(B + b) + j, dx);
    }
  }
  const double sum = block_sum(here && first == 0 ? at.f : 0.0);
  if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// Geometry  one thread an entry.
// Traffic   a column of 16 bytes and a search in the user's row a draw.
// Limits    a user who has nearly all that is popular reads all columns twice, by one thread.
__global__ void popular_thread_per_entry(int32_t* out, const int32_t* users, int64_t batch, int64_t first_row,
                                         Csr train, const PopularColumn* columns, int64_t n, Stream stream,
                                         const Late* late) {
  const int64_t b = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= batch) return;
  out[b] = draw_popular(resolved(stream, late), uint32_t(late_first(first_row, late) + b), columns, n,
                        Interacted(train, users[b]));
}

__device__ inline float score_of(const float* a, const float* b, int64_t d) {  // the bits of tile_products
  float sum = 0;
  for (int64_t j = 0; j < d; ++j) sum = fmaf(a[j], b[j], sum);
  return sum;
}

struct RankProblem {
  Mat out;
  CMat h_u, h_n, h_i;
  const int32_t *users, *positives;
  Csr train;
};

// The scores of the negatives themselves, and counts of zero.
// Geometry  one thread a row.
__global__ void ranks_begin(RankProblem p, int32_t* counted) {
  const int64_t b = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= p.out.rows) return;
  p.out.row(b)[2] = score_of(p.h_u.row(p.users[b]), p.h_n.row(b), p.h_i.cols);
  counted[b] = 0;
}

// counted[b] += items that score above the negative, and again those that score no less; the user's own are still among
// them.
// Geometry  128 threads score 64 rows' users against tiles of 128 items, 8 x 8 products a thread; blockIdx.y takes
//           every gridDim.y-th tile.
// Traffic   (64 + 128) d words of L2 a tile for 64 * 128 * d fmaf.
// Order     counts are integers: the order in which they are added is of no matter.
__global__ void __launch_bounds__(Square::kThreads, 2) ranks_count(RankProblem p, int32_t* counted) {
  SHARED(float, limit, [Square::kM]);
  SHARED(int32_t, found, [Square::kM]);
  const int64_t b0 = int64_t(blockIdx.x) * Square::kM, I = p.h_i.rows;
  const int rows = int(p.out.rows - b0 < Square::kM ? p.out.rows - b0 : Square::kM);
  for (int r = int(threadIdx.x); r < rows; r += Square::kThreads) limit[r] = p.out.row(b0 + r)[2], found[r] = 0;
  __syncthreads();
  int32_t mine[Square::kTM] = {};
  tile_products<Square, false>(
      dynamic_shared<float>(), p.h_u, rows, [&](int r) { return p.users[b0 + r]; }, p.h_i, I,
      [&](int64_t i) { return i; }, int(blockIdx.y), int((I + Square::kN - 1) / Square::kN), int(gridDim.y),
      [&](int64_t i0, const auto& acc, const float*) {
#pragma unroll
        for (int a = 0; a < Square::kTM; ++a) {
          if (Square::row(a) >= rows) continue;
          const float x = limit[Square::row(a)];
#pragma unroll
          for (int c = 0; c < Square::kTN; ++c)
            if (i0 + Square::col(c) < I) mine[a] += int32_t(acc[a][c] > x) + int32_t(acc[a][c] >= x);
        }
      });
  for (int a = 0; a < Square::kTM; ++a)
    if (Square::row(a) < rows) atomicAdd(&found[Square::row(a)], mine[a]);
  __syncthreads();
  for (int r = int(threadIdx.x); r < rows; r += Square::kThreads) atomicAdd(&counted[b0 + r], found[r]);
}

// Takes the user's own items out of the counts; percentile and cosine.
// Geometry  one warp a row, a lane an item of the user.
__global__ void ranks_finish(RankProblem p, const int32_t* counted) {
  const int64_t b = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp, d = p.h_i.cols;
  if (b >= p.out.rows) return;  // a whole warp
  const Interacted own(p.train, p.users[b]);
  const float x = p.out.row(b)[2], *const n = p.h_n.row(b), *const pos = p.h_i.row(p.positives[b]);
  int32_t of_own = 0;
  for (int64_t e = threadIdx.x % kWarp; e < own.n; e += kWarp) {
    const float s = score_of(p.h_u.row(p.users[b]), p.h_i.row(own.item[e]), d);
    of_own += int32_t(s > x) + int32_t(s >= x);
  }
  of_own = warp_sum(of_own);
  const double norms = std::sqrt(dot_by_eight(n, n, d)) * std::sqrt(dot_by_eight(pos, pos, d)),
               product = dot_by_eight(n, pos, d);
  if (threadIdx.x % kWarp != 0) return;
  const int64_t admissible = p.h_i.rows - own.n;
  p.out.row(b)[0] = admissible == 0 ? 50.0f : float(50 * double(counted[b] - of_own) / double(admissible));
  p.out.row(b)[1] = norms == 0 ? 0.0f : float(product / norms);
}

void check_tables(const LayerTables& v, int64_t d) {
  CHECK_THAT(v.n >= 1 && v.n <= kMaxLayers + 1);
  for (int l = 0; l < v.n; ++l) CHECK_SHAPE(v.layer[l], v.layer[0].rows, d);
  if (v.item_part) CHECK_SHAPE(v.item_part, v.layer[0].rows, d);
}

}  // namespace

void hardest_negative(Ctx& ctx, int32_t* out, CMat h_u, const int32_t* users, int64_t batch, int64_t first_row,
                      const LayerTables& v, const Csr& train, const int32_t* items, int64_t n_items, int n_candidates,
                      int top_m, Stream candidates, Stream rank) {
  check_tables(v, h_u.cols);
  CHECK_THAT(n_candidates >= 1 && n_candidates <= kMostCandidates && top_m >= 1);
  CHECK_THAT(batch == 0 || (items != nullptr && n_items > 0));
  const HardProblem p{h_u,
                      users,
                      batch,
                      first_row,
                      v,
                      train,
                      Choice{items, n_items},
                      n_candidates,
                      uint32_t(std::min(top_m, n_candidates)),
                      candidates,
                      rank,
                      ctx.late};
  const Grid grid(blocks_for(batch, kHardWarps), v.n);
  const size_t ranked = size_t(kHardWarps * n_candidates) * (sizeof(double) + sizeof(int32_t));
  if (top_m == 1)
    launch(hardest_warp_per_row<false>, grid, kHardWarps * kWarp, 0, ctx, out, p);
  else
    launch(hardest_warp_per_row<true>, grid, kHardWarps * kWarp, ranked, ctx, out, p);
}

void draw_mixing(Ctx& ctx, Mat alpha, int64_t first_row, Stream s) {
  launch(mixing_draw, blocks_for(alpha.size(), kHardBlock), kHardBlock, 0, ctx, alpha, first_row, s, ctx.late);
}

void mixed_bpr(Ctx& ctx, double* loss, Mat d_u, const Mat* d_layer, Mat h_n, CMat u, const LayerTables& v,
               const int32_t* positives, const int32_t* hard, CMat alpha, float weight, bool with_eps) {
  const int64_t B = u.rows, d = u.cols;
  check_tables(v, d);
  CHECK_SHAPE(d_u, B, d);
  CHECK_SHAPE(alpha, v.n, B);
  for (int l = 0; l < v.n; ++l) CHECK_SHAPE(d_layer[l], 2 * B, d);
  if (h_n) CHECK_SHAPE(h_n, B, d);
  if (B == 0) return;
  MixedProblem p{d_u, h_n, {}, u, v, positives, hard, alpha};
  bool four = four_columns(d, {d_u.p, h_n.p, u.p, v.item_part.p});
  for (int l = 0; l < v.n; ++l) p.d_layer[l] = d_layer[l], four = four && four_columns(d, {d_layer[l].p, v.layer[l].p});
  const int shift = team_shift(four ? d / 4 : d);
  const int64_t blocks = team_blocks(B, shift);
  const double share = double(weight) / double(B);
  double* part = static_cast<double*>(ctx.scratch(0, size_t(blocks) * sizeof(double)));
  launch((four ? mixed_bpr_team_per_row<4> : mixed_bpr_team_per_row<1>), blocks, kTeamThreads, 0, ctx, part, p, share,
         with_eps, shift);
  launch(add_loss, 1, 256, 0, ctx, loss, part, blocks, share);
}

void popular_negatives(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int64_t first_row, const Csr& train,
                       const PopularColumn* columns, int64_t n, Stream s) {
  CHECK_THAT(batch == 0 || n > 0);
  launch(popular_thread_per_entry, blocks_for(batch, kHardBlock), kHardBlock, 0, ctx, out, users, batch, first_row,
         train, columns, n, s, ctx.late);
}

void negative_ranks(Ctx& ctx, Mat out, CMat h_u, const int32_t* users, const int32_t* positives, CMat h_n, CMat h_i,
                    const Csr& train) {
  const int64_t B = out.rows, I = h_i.rows, d = h_i.cols;
  CHECK_SHAPE(out, B, 3);
  CHECK_SHAPE(h_u, h_u.rows, d);
  CHECK_SHAPE(h_n, B, d);
  CHECK_SHAPE(train, h_u.rows, I);
  CHECK_THAT(I < int64_t(1) << 30);  // an item may be counted twice
  const RankProblem p{out, h_u, h_n, h_i, users, positives, train};
  int32_t* const counted = static_cast<int32_t*>(ctx.scratch(0, size_t(B) * sizeof(int32_t)));
  const int64_t user_tiles = blocks_for(B, Square::kM), item_tiles = blocks_for(I, Square::kN);
  const int64_t splits =
      std::clamp<int64_t>(kRankBlocks / std::max<int64_t>(user_tiles, 1), 1, std::max<int64_t>(item_tiles, 1));
  launch(ranks_begin, blocks_for(B, kHardBlock), kHardBlock, 0, ctx, p, counted);
  launch(ranks_count, Grid(user_tiles, splits), Square::kThreads, Square::kSharedBytes, ctx, p, counted);
  launch(ranks_finish, blocks_for(B, 4), 4 * kWarp, 0, ctx, p, counted);
}

void negative_ranks_scratch(ScratchPlan&, int64_t, int64_t) {}  // counts of a batch: a few KB

}  // namespace ccdrec::cuda
