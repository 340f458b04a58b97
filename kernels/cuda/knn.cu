#include "kernels/cuda/library.h"
#include "kernels/cuda/product_tile.h"
#include "kernels/knn.h"

namespace ccdrec::cuda {
namespace {

// similarities at a time: at most 2048 x 4096 floats, 32 MB. Enough blocks to fill a GPU, and they stay in L2
constexpr int64_t kStripRows = 2048;
constexpr int64_t kStripCols = 4096;
constexpr int kKnnRows = 8;

// Column means: doubles added in row order, as on the CPU.
// Geometry  one thread a column, 32 a block, so that few columns still reach many multiprocessors.
// Traffic   4 I F bytes, once a run.
__global__ void knn_column_means(float* mean, CMat x) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= x.cols) return;
  double sum = 0;
#pragma unroll 16
  for (int64_t i = 0; i < x.rows; ++i) sum += double(x.row(i)[c]);
  mean[c] = float(sum / double(x.rows));
}

// 1 / max(|x_i - mean|, 1e-12): doubles added in column order, as on the CPU.
// Geometry  one thread a row; the 32 rows of a warp pass through shared memory 32 columns at a time, so that global
//           reads are coalesced.
constexpr int kNormWarps = 4;
__global__ void knn_inverse_norms(float* inverse, CMat x, const float* mean) {
  SHARED(float, part, [kNormWarps][kWarp][kWarp + 1]);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int64_t i0 = (int64_t(blockIdx.x) * kNormWarps + warp) * kWarp, I = x.rows, F = x.cols;
  if (i0 >= I) return;
  double sum = 0;
  for (int64_t f0 = 0; f0 < F; f0 += kWarp) {
    const int64_t f = f0 + lane;
    const float mean_f = mean && f < F ? mean[f] : 0.0f;
#pragma unroll 8
    for (int r = 0; r < kWarp; ++r)
      if (i0 + r < I && f < F) part[warp][r][lane] = mean ? x.row(i0 + r)[f] - mean_f : x.row(i0 + r)[f];
    __syncwarp();
    const int n = int(F - f0 < kWarp ? F - f0 : kWarp);
    for (int t = 0; t < n && i0 + lane < I; ++t) {
      const double v = part[warp][lane][t];
      sum += v * v;  // the product of two floats is exact
    }
    __syncwarp();
  }
  const double norm = std::sqrt(sum);
  if (i0 + lane < I) inverse[i0 + lane] = float(1.0 / (norm < 1e-12 ? 1e-12 : norm));
}

// S[r, c] = <x_{i0+r}, x_{j0+c}> / |x_{j0+c}|, r < rows, c < cols: without the row's own norm, which changes no order
// within the row.
// Geometry  one block of 128 threads a 64 x 64 tile; columns of tiles vary fastest.
// Limits    2 F flop an element on the ordinary cores: the library's product may sum the edge of a tile in another
//           order, and then equal rows would not get equal similarities.
template <bool kFour>
__global__ void __launch_bounds__(kTileThreads) knn_similarity_tiles(float* s, int64_t ld, CMat x, const float* mean,
                                                                     const float* inverse, int64_t i0, int64_t j0) {
  const int64_t I = x.rows, F = x.cols, row = int64_t(blockIdx.y) * kTile, col = int64_t(blockIdx.x) * kTile;
  const auto terms = [&](int64_t i, int64_t f) {
    if (i >= I) return make_float4(0, 0, 0, 0);
    float4 v = four_terms<kFour>(x.row(i), f, F);
    if (mean) {
      const float4 m = four_terms<kFour>(mean, f, F);
      v.x -= m.x, v.y -= m.y, v.z -= m.z, v.w -= m.w;
    }
    return v;
  };
  product_tile(
      F, [&](int r, int64_t f) { return terms(i0 + row + r, f); },
      [&](int c, int64_t f) { return terms(j0 + col + c, f); },
      [&](int r, int c, float4 v) {
        const int64_t j = j0 + col + c;
        v.x *= j < I ? inverse[j] : 0.0f, v.y *= j + 1 < I ? inverse[j + 1] : 0.0f;
        v.z *= j + 2 < I ? inverse[j + 2] : 0.0f, v.w *= j + 3 < I ? inverse[j + 3] : 0.0f;
        *reinterpret_cast<float4*>(s + (row + r) * ld + col + c) = v;  // S has room for whole tiles
      });
}

// The best `room` candidates of each row of the strip, best first: rank (similarity, then the complement of the hash)
// descending, then id.
struct Lists {
  uint64_t* rank;  // (rows, room)
  int32_t* id;
  int64_t room;
};

// Puts one candidate in its place in a sorted list and drops the last. The whole warp calls it with the same arguments.
// From the end of the list on, 32 places at a time move up by one until a better one is met.
__device__ inline void insert(uint64_t* rank, int32_t* id, int64_t room, uint64_t x_rank, int32_t x_id) {
  const int lane = int(threadIdx.x) % kWarp;
  int64_t top = room;
  for (int moved = kWarp; moved == kWarp && top > 0; top -= moved) {
    const int64_t p = top - kWarp + lane;
    const uint64_t r = p >= 0 ? rank[p] : 0;
    const int32_t at = p >= 0 ? id[p] : 0;
    const bool moves = p >= 0 && (x_rank != r ? x_rank > r : x_id < at);
    moved = __popc(__ballot_sync(kAll, moves));
    // no lane writes before all have read: the vote needs the ranks, and the ids only where these are equal
    __syncwarp();
    if (moves && p + 1 < room) rank[p + 1] = r, id[p + 1] = at;
  }
  if (lane == 0 && top < room) rank[top] = x_rank, id[top] = x_id;
  __syncwarp();
}

// Why not CUB. It sorts whole segments and has no selection of the best k of each row: of 4,096 similarities all would
// be moved to keep ten. A segmented radix sort reads and writes a key and an id in about four passes, 64 bytes a
// similarity, and takes 100 MB beside a strip of 32; ties by hash would take keys of 64 bits, half as much again. Here
// 4 bytes a similarity are read once, and k (1 + ln(I/k)) candidates a row do anything at all. bench_gpu has CUB's sort
// of the same number of similarities beside the whole of this operation.

// Merges the candidates j0 .. j0+cols-1 into the lists of rows i0 .. i0+rows-1; the lists start with j0 = 0, full of
// what any candidate beats.
// Geometry  one warp a row, 8 rows a block; a lane looks at 4 similarities at a time.
// Traffic   4 bytes a similarity; lists in L1.
// Limits    a candidate better than the list's last costs one hash and up to room/32 steps; k (1 + ln(I/k)) candidates
//           are expected in a random order. k of thousands works and costs k^2.
__global__ void knn_keep_best(Lists lists, const float* s, int64_t ld, int64_t i0, int64_t rows, int64_t j0,
                              int64_t cols, uint32_t seed) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t r = int64_t(blockIdx.x) * kKnnRows + threadIdx.x / kWarp, row = i0 + r, room = lists.room;
  if (r >= rows) return;  // a whole warp leaves together
  uint64_t* rank = lists.rank + r * room;
  int32_t* id = lists.id + r * room;
  for (int64_t p = lane; j0 == 0 && p < room; p += kWarp) rank[p] = 0, id[p] = INT32_MAX;
  __syncwarp();
  uint64_t last = rank[room - 1];
  constexpr int kAtOnce = 4;
  for (int64_t base = 0; base < cols; base += kAtOnce * kWarp) {
    uint32_t key[kAtOnce];
    bool wanted[kAtOnce], some = false;
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) {
      const int64_t c = base + q * kWarp + lane;
      key[q] = c < cols ? ordered_key(s[r * ld + c]) : 0;
      wanted[q] = c < cols && j0 + c != row && key[q] >= uint32_t(last >> 32);
      some |= wanted[q];
    }
    if (!__any_sync(kAll, some)) continue;  // the common case: one vote for 128 similarities
#pragma unroll
    for (int q = 0; q < kAtOnce; ++q) {
      const int64_t j = j0 + base + q * kWarp + lane;
      const uint32_t hash = wanted[q] ? draw(Stream{seed, Use::knn_tie}, uint32_t(row), uint32_t(j)).v[0] : 0;
      const uint64_t mine = uint64_t(key[q]) << 32 | uint32_t(~hash);
      for (unsigned left = __ballot_sync(kAll, wanted[q] && mine >= last); left; left &= left - 1) {
        const int from = __ffs(int(left)) - 1;
        const uint64_t x = __shfl_sync(kAll, mine, from);
        if (x < last) continue;
        insert(rank, id, room, x, int32_t(j - lane + from));
        last = rank[room - 1];
      }
    }
  }
}

// The lists as the caller wants them: the row itself, then k-1 neighbours; counts the rows whose cut fell between
// equals.
// Geometry  one thread an entry, grid-stride.
__global__ void knn_write_lists(int32_t* idx, unsigned long long* tied_rows, Lists lists, int64_t i0, int64_t rows,
                                int64_t k, int64_t I) {
  for (int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; e < rows * k; e += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = e / k, c = e % k;
    idx[(i0 + r) * k + c] = c == 0 ? int32_t(i0 + r) : lists.id[r * lists.room + c - 1];
    if (c > 0 || k < 2 || k == I) continue;
    const uint64_t* rank = lists.rank + r * lists.room;
    if (rank[k - 2] >> 32 == rank[k - 1] >> 32) atomicAdd(tied_rows, 1ull);
  }
}

struct Strips {  // of similarities; `room` neighbours are kept a row
  int64_t room, rows, cols, ld;
};
Strips strips_of(int64_t I, int64_t k) {
  const int64_t cols = std::min(I, kStripCols);
  return {k == 1 ? 0 : std::min(k, I - 1),  // k-1 are kept; one more tells whether the cut fell between equals
          std::min(I, kStripRows), cols, blocks_for(cols, kTile) * kTile};
}

}  // namespace

void knn_cosine_scratch(ScratchPlan& p, int64_t I, int64_t F, int64_t k, bool centre) {
  const Strips s = strips_of(I, k);
  if (centre) p.need(0, F * 4);
  p.need(1, I * 4), p.need(2, blocks_for(s.rows, kTile) * kTile * s.ld * 4), p.need(3, s.rows * s.room * 8),
      p.need(4, s.rows * s.room * 4);
}

void knn_cosine(Ctx& ctx, int32_t* idx, int64_t* tied_rows, CMat x, int64_t k, bool centre, uint32_t seed) {
  const int64_t I = x.rows, F = x.cols;
  CHECK_THAT(k >= 1 && k <= I);
  const auto [room, strip_rows, strip_cols, ld] = strips_of(I, k);
  float* mean = centre ? static_cast<float*>(ctx.scratch(0, size_t(F) * sizeof(float))) : nullptr;
  float* inverse = static_cast<float*>(ctx.scratch(1, size_t(I) * sizeof(float)));
  float* s = static_cast<float*>(ctx.scratch(2, size_t(blocks_for(strip_rows, kTile) * kTile * ld) * sizeof(float)));
  const Lists lists{static_cast<uint64_t*>(ctx.scratch(3, size_t(strip_rows * room) * sizeof(uint64_t))),
                    static_cast<int32_t*>(ctx.scratch(4, size_t(strip_rows * room) * sizeof(int32_t))), room};

  library::fill(ctx, tied_rows, 0, sizeof(int64_t));
  if (centre) launch(knn_column_means, blocks_for(F, kWarp), kWarp, 0, ctx, mean, x);
  launch(knn_inverse_norms, blocks_for(I, kNormWarps * kWarp), kNormWarps * kWarp, 0, ctx, inverse, x, mean);
  for (int64_t i0 = 0; i0 < I; i0 += strip_rows) {
    const int64_t rows = std::min(strip_rows, I - i0);
    for (int64_t j0 = 0; room > 0 && j0 < I; j0 += strip_cols) {
      const int64_t cols = std::min(strip_cols, I - j0);
      const Grid tiles(blocks_for(cols, kTile), blocks_for(rows, kTile));
      if (four_columns(x))
        launch(knn_similarity_tiles<true>, tiles, kTileThreads, 0, ctx, s, ld, x, mean, inverse, i0, j0);
      else
        launch(knn_similarity_tiles<false>, tiles, kTileThreads, 0, ctx, s, ld, x, mean, inverse, i0, j0);
      launch(knn_keep_best, blocks_for(rows, kKnnRows), kKnnRows * kWarp, 0, ctx, lists, s, ld, i0, rows, j0, cols,
             seed);
    }
    launch(knn_write_lists, std::min<int64_t>(16384, blocks_for(rows * k, 256)), 256, 0, ctx, idx,
           reinterpret_cast<unsigned long long*>(tied_rows), lists, i0, rows, k, I);
  }
}

}  // namespace ccdrec::cuda
