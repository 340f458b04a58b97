#include <cmath>
#include <limits>

#include "kernels/cuda/library.h"
#include "kernels/cuda/ordered.h"
#include "kernels/cuda/reduce.h"
#include "kernels/filtered.h"
#include "kernels/normalize.h"

namespace ccdrec::cuda {
namespace {

using Square = TileShape<64, 128, 8, 8, 4>;

// Geometry  one thread an entry.
// Traffic   4 bytes written, coalesced; 4 read within a list of k.
__global__ void pick_columns_thread_per_entry(int32_t* out, const int32_t* lists, int64_t n, int64_t k,
                                              const int32_t* columns, int64_t c, const int32_t* names) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= n * c) return;
  const int32_t entry = lists[e / c * k + columns[e % c]];
  out[e] = names && entry >= 0 ? names[entry] : entry;
}

__device__ inline float inverse_of(double norm) { return float(1 / (norm < kNormFloor ? kNormFloor : norm)); }

// --- cohesion --------------------------------------------------------------------------------------------------------

struct Centres {
  Mat now;          // (K,d)
  Mat unit;         // divided by their norms; between a round's two halves the next centres
  double* shift;    // (K) by how much the last change moved them
  double* squares;  // (K) of their norms
  int32_t* done;    // the rounds are over
};

// The first centres, to where a round leaves the next ones.
// Geometry  one thread an element.
__global__ void centres_begin(Centres z, CMat x, const int32_t* order) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, d = x.cols;
  if (e == 0) *z.done = 0;
  if (e < z.unit.size()) z.unit.p[e] = x.row(order[e / d])[e % d], z.now.p[e] = 0;
}

// cluster[i] = the centre nearest to item i.
// Geometry  128 threads own 64 items against tiles of 128 centres, 8 x 8 cosines a thread; then a warp looks through
//           the tile's columns for each of its 16 items, four centres a lane.
// Traffic   (64 + 128) d words of L2 a tile for 64 * 128 * d fmaf; 4 bytes an item written.
__global__ void __launch_bounds__(Square::kThreads) centres_nearest(int32_t* cluster, Centres z, CMat x) {
  if (*z.done) return;  // the whole grid
  constexpr int kMine = Square::kRowsPerWarp;
  float* const scores = dynamic_shared<float>();
  const int64_t i0 = int64_t(blockIdx.x) * Square::kM, K = z.unit.rows;
  const int rows = int(x.rows - i0 < Square::kM ? x.rows - i0 : Square::kM);
  const int lane = int(threadIdx.x) % kWarp, r0 = int(threadIdx.x) / kWarp * kMine;
  float best = -std::numeric_limits<float>::infinity();  // of row r0 + lane
  int32_t nearest = 0;
  tile_products<Square, false>(
      scores + Square::kM * Square::kScoresLd, x, rows, [&](int r) { return i0 + r; }, z.unit, K,
      [&](int64_t k) { return k; }, 0, int((K + Square::kN - 1) / Square::kN), 1,
      [&](int64_t k0, const auto& acc, const float* inv) {
        put_scores<Square>(scores, acc, inv);
        __syncthreads();
        for (int r = 0; r < kMine; ++r) {
          float v[4], high = -std::numeric_limits<float>::infinity();
          int32_t at = std::numeric_limits<int32_t>::max();
          read_group<4>(v, scores + (r0 + r) * Square::kScoresLd + 4 * lane);
          for (int q = 0; q < 4; ++q) {
            const int64_t k = k0 + 4 * lane + q;
            if (k < K && v[q] > high) high = v[q], at = int32_t(k);
          }
          for (int o = kWarp / 2; o > 0; o /= 2) {
            const float other = __shfl_xor_sync(kAll, high, o);
            const int32_t where = __shfl_xor_sync(kAll, at, o);
            if (other > high || (other == high && where < at)) high = other, at = where;
          }
          if (lane == r && high > best) best = high, nearest = at;
        }
      });
  if (lane < kMine && r0 + lane < rows) cluster[i0 + r0 + lane] = nearest;
}

// unit[k] = the mean of the cluster's members, or an item for a cluster without any.
// Geometry  one block a centre and 64 of its columns. 256 items at a time are asked for their cluster, members go to a
//           list in ascending order; member m is added by warp m % 8, whose lanes own two columns each.
// Traffic   4 bytes an item (L2), 256 bytes of a member's row.
// Order     as the CPU's.
// Limits    a cluster of all items is a chain of I / 8 rows.
__global__ void centres_mean(Centres z, CMat x, const int32_t* cluster, Stream stream, uint32_t round) {
  if (*z.done) return;
  constexpr int kThreads = 256, kWarps = 8, kColumns = 2 * kWarp;
  SHARED(int32_t, member, [kThreads]);
  SHARED(int, of_warp, [kWarps]);
  SHARED(double, sums, [kWarps][kColumns]);
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  const int64_t k = blockIdx.x, I = x.rows, d = x.cols, c = int64_t(blockIdx.y) * kColumns + lane;
  double sum[2] = {0, 0};
  int64_t n = 0;  // members before these items
  for (int64_t base = 0; base < I; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const bool mine = i < I && cluster[i] == k;
    const unsigned here = __ballot_sync(kAll, mine);
    if (lane == 0) of_warp[warp] = __popc(here);
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < kWarps; ++w) before += w < warp ? of_warp[w] : 0, all += of_warp[w];
    if (mine) member[before + __popc(here & ((1u << lane) - 1))] = int32_t(i);
    __syncthreads();
    // the first of them whose place among all is this warp's
    for (int m = int((warp - n % kWarps + kWarps) % kWarps); m < all; m += kWarps) {
      const float* const row = x.row(member[m]);
      for (int q = 0; q < 2; ++q)
        if (c + q * kWarp < d) sum[q] += double(row[c + q * kWarp]);
    }
    n += all;
    __syncthreads();  // the list has been read
  }
  for (int q = 0; q < 2; ++q) sums[warp][q * kWarp + lane] = sum[q];
  __syncthreads();
  const int64_t column = int64_t(blockIdx.y) * kColumns + threadIdx.x;
  if (threadIdx.x >= kColumns || column >= d) return;
  const auto of = [&](int w) { return sums[w][threadIdx.x]; };
  const double total = ((of(0) + of(4)) + (of(2) + of(6))) + ((of(1) + of(5)) + (of(3) + of(7)));
  z.unit.row(k)[column] =
      n > 0 ? float(total / double(n)) : x.row(below(draw(stream, uint32_t(k), round + 1).v[0], uint32_t(I)))[column];
}

// The centre in unit[k] takes the place of now[k].
// Geometry  eight lanes a centre, 32 a block.
// Traffic   24 d bytes a centre.
__global__ void centres_enter(Centres z) {
  if (*z.done) return;
  const int64_t k = team_row(kEightShift), d = z.now.cols;
  const bool here = k < z.now.rows;
  float *const c = z.now.row(here ? k : 0), *const u = z.unit.row(here ? k : 0);
  double apart = 0;
  for (int64_t j = team_lane(kEightShift); here && j < d; j += kEight) {
    const double v = double(u[j]) - double(c[j]);
    apart += v * v;
  }
  apart = team_sum(apart, kEightShift);
  const double squares = dot_by_eight(u, u, here ? d : 0);
  if (!here) return;
  const float inv = inverse_of(std::sqrt(squares));
  for (int64_t j = team_lane(kEightShift); j < d; j += kEight) {
    const float v = u[j];
    c[j] = v, u[j] = v * inv;
  }
  if (team_lane(kEightShift) == 0) z.shift[k] = std::sqrt(apart), z.squares[k] = squares;
}

// The end of a round: theta, and whether it was the last.
// Geometry  one warp, of which eight lanes matter.
__global__ void centres_settled(float* theta, Centres z, float scale) {
  if (*z.done) return;
  const int64_t K = z.now.rows;
  double shift = 0, squares = 0;
  for (int64_t k = threadIdx.x; threadIdx.x < kEight && k < K; k += kEight)
    shift += z.shift[k], squares += z.squares[k];
  shift = team_sum(shift, kEightShift), squares = team_sum(squares, kEightShift);
  __syncwarp();  // every lane has read the flag
  if (threadIdx.x != 0) return;
  *theta = float(double(scale) * (squares / double(K)));
  *z.done = shift * shift < kCohesionShift;
}

}  // namespace

void pick_columns(Ctx& ctx, int32_t* out, const int32_t* lists, int64_t n, int64_t k, const int32_t* columns, int64_t c,
                  const int32_t* names) {
  launch(pick_columns_thread_per_entry, blocks_for(n * c, 256), 256, 0, ctx, out, lists, n, k, columns, c, names);
}

void cohesion(Ctx& ctx, float* theta, CMat h, int clusters, float scale, Stream s) {
  CHECK_THAT(clusters >= 1);
  const int64_t I = h.rows, d = h.cols, K = std::min<int64_t>(clusters, I);
  if (I == 0) return library::fill(ctx, theta, 0, sizeof(float));
  int32_t* const cluster = static_cast<int32_t*>(ctx.scratch(4, size_t(2 * I + 1) * sizeof(int32_t)));
  int32_t *const order = cluster + I, *const done = order + I;
  shuffle(ctx, order, I, s);  // before this operation takes its own slots 0 to 2
  float* const inv = static_cast<float*>(ctx.scratch(3, size_t(I) * sizeof(float)));
  const Mat x{static_cast<float*>(ctx.scratch(0, size_t(I * d) * sizeof(float))), I, d};
  normalize_rows(ctx, x, inv, h, {nullptr, nullptr, I});
  float* const rows = static_cast<float*>(ctx.scratch(1, size_t(2 * K * d) * sizeof(float)));
  double* const of_centres = static_cast<double*>(ctx.scratch(2, size_t(2 * K) * sizeof(double)));
  const Centres z{{rows, K, d}, {rows + K * d, K, d}, of_centres, of_centres + K, done};
  launch(centres_begin, blocks_for(K * d, 256), 256, 0, ctx, z, x, order);
  launch(centres_enter, team_blocks(K, kEightShift), kTeamThreads, 0, ctx, z);
  for (uint32_t r = 0; r < uint32_t(kCohesionRounds); ++r) {
    launch(centres_nearest, blocks_for(I, Square::kM), Square::kThreads, Square::kScoresBytes + Square::kSharedBytes,
           ctx, cluster, z, x);
    launch(centres_mean, Grid(K, blocks_for(d, 2 * kWarp)), 256, 0, ctx, z, x, cluster, s, r);
    launch(centres_enter, team_blocks(K, kEightShift), kTeamThreads, 0, ctx, z);
    launch(centres_settled, 1, kWarp, 0, ctx, theta, z, scale);
  }
}

void cohesion_scratch(ScratchPlan& p, int64_t I, int64_t d, int clusters) {
  const int64_t K = std::min<int64_t>(clusters, I);
  shuffle_scratch(p, I);
  p.need(0, I * d * 4), p.need(1, 2 * K * d * 4), p.need(2, 2 * K * 8), p.need(3, I * 4), p.need(4, (2 * I + 1) * 4);
}

// --- filtered_negative -----------------------------------------------------------------------------------------------

namespace {

constexpr int kFilterThreads = 128;
constexpr int64_t kMostInShared = 10240;  // keys of a row, 40 KB
constexpr int64_t kFilterBlocks = 256;    // where the keys lie in global memory: each has a row of them

// Geometry  eight lanes an item, 32 a block.
// Traffic   4 d bytes an item.
__global__ void filter_norms_by_eight(float* inv, CMat h) {
  const int64_t i = team_row(kEightShift);
  const bool here = i < h.rows;
  const float* const row = h.row(here ? i : 0);
  const double squares = dot_by_eight(row, row, here ? h.cols : 0);
  if (here && team_lane(kEightShift) == 0) inv[i] = inverse_of(std::sqrt(squares));
}

// Geometry  one block a row, or every gridDim.x-th where the keys do not fit into shared memory. Eight lanes score a
//           candidate, 16 at a time; one warp then selects by the drawn rank, which is known before.
// Traffic   4 d + 8 bytes of L2 a candidate in 32-byte sectors; h_u and h_p from L1. Keys 4 bytes a candidate.
// Order     integers, and sums of eight lanes.
__global__ void filtered_block_per_row(int32_t* out, unsigned long long* counts, FilterProblem p, const float* inv,
                                       uint32_t* keys_of_blocks, const Late* late) {
  SHARED(int, ok_here, );
  SHARED(uint4, bins, [kSelectBins / 4]);
  const int64_t N = p.n_candidates, d = p.h_i.cols;
  uint32_t* const key = keys_of_blocks ? keys_of_blocks + blockIdx.x * N : dynamic_shared<uint32_t>();
  const int lane = team_lane(kEightShift);
  for (int64_t b = blockIdx.x; b < p.batch; b += gridDim.x) {
    const uint32_t row = uint32_t(late_first(p.first_row, late) + b);
    if (!(uniform01(draw(resolved(p.active, late), row).v[0]) < *p.q)) continue;  // the whole block
    const int64_t user = p.users[b], positive = p.positives[b];
    const float *const u = p.h_u.row(user), *const h_p = p.h_i.row(positive), inv_p = inv[positive], theta = *p.theta;
    if (threadIdx.x == 0) ok_here = 0;
    __syncthreads();
    int n_ok = 0;
    for (int64_t base = 0; base < N; base += kFilterThreads / kEight) {
      const int64_t m = base + threadIdx.x / kEight;
      const int32_t item = m < N ? p.table[user * N + m] : -1;
      const float* const h_m = p.h_i.row(item < 0 ? 0 : item);
      float score = 0, cosine = 0;
      for (int64_t j = lane; item >= 0 && j < d; j += kEight) {
        const float x = h_m[j];
        score = fmaf(u[j], x, score), cosine = fmaf(h_p[j], x, cosine);
      }
      score = team_sum(score, kEightShift), cosine = team_sum(cosine, kEightShift);
      if (lane != 0 || m >= N) continue;  // no barrier of the warp follows in this turn
      const bool ok = item >= 0 && score == score && cosine * inv[item < 0 ? 0 : item] * inv_p <= theta;
      key[m] = ok ? ordered_key(score) : kExcludedKey;
      n_ok += ok;
    }
    __syncwarp();
    n_ok = warp_sum(n_ok);
    if (threadIdx.x % kWarp == 0 && n_ok) atomicAdd(&ok_here, n_ok);
    __syncthreads();
    n_ok = ok_here;
    if (threadIdx.x < kWarp && n_ok > 0) {
      const uint32_t x = draw(resolved(p.rank, late), row).v[0];
      const uint64_t chosen = warp_select(N, int(below(x, uint32_t(p.top < n_ok ? p.top : n_ok))), &bins[0].x,
                                          [&](int64_t m) { return key[m] ? entry_of(key[m], m) : uint64_t(0); });
      if (threadIdx.x == 0) out[b] = p.table[user * N + entry_place(chosen)];
    }
    if (threadIdx.x == 0 && counts) {
      atomicAdd(&counts[0], 1ull);
      if (n_ok == 0) atomicAdd(&counts[1], 1ull);
    }
    __syncthreads();  // the keys and their number have been read
  }
}

}  // namespace

void filtered_negative(Ctx& ctx, int32_t* out, int64_t* counts, const FilterProblem& p) {
  CHECK_SHAPE(p.h_u, p.h_u.rows, p.h_i.cols);
  CHECK_THAT(p.n_candidates >= 0 && p.n_candidates <= kMostFiltered && p.top >= 1);
  const int64_t I = p.h_i.rows, N = p.n_candidates;
  float* const inv = static_cast<float*>(ctx.scratch(0, size_t(I) * sizeof(float)));
  launch(filter_norms_by_eight, team_blocks(I, kEightShift), kTeamThreads, 0, ctx, inv, p.h_i);
  const bool in_shared = N <= kMostInShared;
  const int64_t blocks = in_shared ? p.batch : std::min(p.batch, kFilterBlocks);
  uint32_t* const keys =
      in_shared ? nullptr : static_cast<uint32_t*>(ctx.scratch(1, size_t(blocks * N) * sizeof(uint32_t)));
  launch(filtered_block_per_row, blocks, kFilterThreads, in_shared ? size_t(N) * sizeof(uint32_t) : 0, ctx, out,
         reinterpret_cast<unsigned long long*>(counts), p, inv, keys, ctx.late);
}

void filtered_negative_scratch(ScratchPlan& p, int64_t batch, int64_t items, int64_t n_candidates) {
  p.need(0, items * 4);
  if (n_candidates > kMostInShared) p.need(1, std::min(batch, kFilterBlocks) * n_candidates * 4);
}

}  // namespace ccdrec::cuda
