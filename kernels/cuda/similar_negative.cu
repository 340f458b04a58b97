#include <cmath>

#include "kernels/cuda/chip.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/ordered.h"
#include "kernels/sample.h"

// The rank to be found is known before any similarity: it depends on the number of admissible candidates only, which
// are integers. So the (B,C) matrix need not exist. Up to most_in_shared() candidates, the similarities of eight rows
// stay in shared memory and the rank is selected there: one launch. Beyond that, three launches:
//   similar_negative_in_shared  on every stride-th candidate brackets the wanted entry, 4.5 standard deviations of the
//                               sampled rank to either side
//   similar_negative_bracket    the product over all candidates, counting what is above the bracket and keeping what is
//                               in it: a few per cent
//   similar_negative_finish     takes the excluded candidates out again (they are few, so the product knows nothing of
//                               them) and selects.
//                               A row whose bracket missed is found exactly there by products into histograms of ever
//                               narrower intervals.
// Entries are (similarity, position) in one integer, so ties need no care; the drawn negative does not depend on the
// sample.
namespace ccdrec::cuda {
namespace {

using Strip = TileShape<8, 512, 8, 2, 1>;    // eight positives, all candidates: what fits beside their keys
using Square = TileShape<64, 128, 8, 8, 4>;  // the large product

constexpr int kRows = Strip::kM;
// of a row's histogram in the exact search: twice as many would not fit the smallest chip
constexpr int kBinBits = 9, kBins = 1 << kBinBits;
constexpr float kDeviations = 4.5f;

struct NegativeProblem {  // the operation's arguments
  CMat pool;
  const int32_t *positives, *users;
  int64_t batch;
  const int32_t* cand;
  int64_t count;
  Csr train;
  int64_t k_top;
  const int32_t* fallback;
  Stream stream;
  const Late* late;
  int32_t *out, *nan_flag;

  __device__ const int32_t* items(int64_t b) const { return train.col + train.row_ptr[users[b]]; }  // of row b's user
  __device__ int64_t n_items(int64_t b) const { return train.row_ptr[users[b] + 1] - train.row_ptr[users[b]]; }

  // f(item, from, to): the places of the candidates that the user has, one item at a time, by the lanes of a warp.
  template <class F>
  __device__ void for_excluded(int64_t b, F&& f) const {
    const int32_t* const item = items(b);
    const int64_t n = n_items(b);
    for (int64_t e = int64_t(threadIdx.x) % kWarp; e < n; e += kWarp) {
      const int64_t from = first_not_below(cand, count, item[e]);
      if (from == count || cand[from] != item[e]) continue;
      f(item[e], from, from + first_not_below(cand + from, count - from, item[e] + 1));
    }
  }

  // One similarity with the bits that the tiles give it.
  template <bool kCosine>
  __device__ uint32_t key_of(int64_t b, int32_t item) const {
    const float *const x = pool.row(positives[b]), *const y = pool.row(item);
    float sum = 0.0f, squares = 0.0f;
    for (int64_t j = 0; j < pool.cols; ++j) {
      sum = fmaf(x[j], y[j], sum);
      if (kCosine) squares = fmaf(y[j], y[j], squares);
    }
    return ordered_key(kCosine ? sum * inverse_norm(squares) : sum);
  }
};

struct Bracket {  // of one row: the wanted entry should lie in lo..hi
  uint64_t lo, hi;
  int32_t rank, admissible;
  int32_t above, found;  // candidates above hi, and in the bracket; excluded ones are counted too
};

// S[b,c] = pool[positives[b]] . pool[cand[c]] (/ |pool[cand[c]]|) for every stride-th candidate, in keys; the drawn
// rank's entry, or a bracket of it.
// Geometry  256 threads own 8 rows and stream the candidates in tiles of 512, 8 x 2 products a thread; then one warp a
//           row.
// Traffic   every block reads all its candidates' rows, 4 C d bytes, from L2: B C d / 2 bytes in all. Shared memory 32
//           bytes a candidate and 68 KB.
// Limits    most_in_shared() keys a row; 64 blocks at B = 512.
template <bool kCosine>
__global__ void __launch_bounds__(Strip::kThreads, 2)
    similar_negative_in_shared(NegativeProblem p, int64_t stride, int64_t sampled, Bracket* bracket) {
  uint32_t* const keys = dynamic_shared<uint32_t>();  // [kRows][width]
  const int64_t width = (sampled + 3) / 4 * 4;
  float* const tiles = reinterpret_cast<float*>(keys + kRows * width);
  uint32_t* const bins = reinterpret_cast<uint32_t*>(tiles);  // after the product
  const int64_t b0 = int64_t(blockIdx.x) * kRows;
  const int rows = int(p.batch - b0 < kRows ? p.batch - b0 : kRows);

  tile_products<Strip, kCosine>(
      tiles, p.pool, rows, [&](int r) { return p.positives[b0 + r]; }, p.pool, sampled,
      [&](int64_t s) { return p.cand[s * stride + stride / 2]; }, 0, int((sampled + Strip::kN - 1) / Strip::kN), 1,
      [&](int64_t s0, const auto& acc, const float* inv) {
        bool nan = false;
        for (int j = 0; j < Strip::kTN; ++j) {
          const int c = Strip::col(j);
          if (s0 + c >= sampled) continue;
#pragma unroll
          for (int i = 0; i < Strip::kTM; ++i) {
            const uint32_t key = ordered_key(kCosine ? acc[i][j] * inv[c] : acc[i][j]);
            nan |= key == kNanKey;
            keys[Strip::row(i) * width + s0 + c] = key;
          }
        }
        if (nan) atomicMax(p.nan_flag, 1);
      });

  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  if (warp >= rows) return;  // no barrier of the block follows
  const int64_t b = b0 + warp;
  uint32_t* const key = keys + warp * width;
  int64_t excluded = 0, excluded_here = 0;
  p.for_excluded(b, [&](int32_t, int64_t from, int64_t to) {
    excluded += to - from;
    for (int64_t s = from < stride / 2 ? 0 : (from - stride / 2 + stride - 1) / stride;
         s < sampled && s * stride + stride / 2 < to; ++s)
      key[s] = kExcludedKey, ++excluded_here;
  });
  excluded = warp_sum(excluded), excluded_here = warp_sum(excluded_here);
  __syncwarp();  // the marks
  const int64_t admissible = p.count - excluded;
  const auto place = [&](int64_t s) { return s * stride + stride / 2; };
  const auto select = [&](int rank) {
    return warp_select(sampled, rank, bins + warp * kSelectBins,
                       [&](int64_t s) { return key[s] == kExcludedKey ? uint64_t(0) : entry_of(key[s], place(s)); });
  };
  if (admissible == 0 && !bracket) {
    if (lane == 0) p.out[b] = p.fallback[b];
    return;
  }
  const int rank = admissible ? int(below(draw(resolved(p.stream, p.late), uint32_t(b)).v[0],
                                          uint32_t(p.k_top < admissible ? p.k_top : admissible)))
                              : 0;
  if (!bracket) {
    const uint64_t wanted = select(rank);
    if (lane == 0) p.out[b] = p.cand[entry_place(wanted)];
    return;
  }
  Bracket r{entry_of(kNanKey, 0xffffffff), ~uint64_t(0), rank, int32_t(admissible), 0, 0};
  if (admissible == 0) {
    r.lo = r.hi;
  } else {
    const float share = float(rank) / float(admissible), here = float(sampled - excluded_here), middle = share * here;
    const float reach = kDeviations * sqrtf(middle * (1.0f - share)) + 2.0f;
    if (middle - reach >= 0.0f) r.hi = select(int(middle - reach));
    if (middle + reach < here - 1.0f) r.lo = select(int(middle + reach) + 1);
  }
  if (lane == 0) bracket[b] = r;
}

// The value from which on (or below which) a float comparison settles where an entry lies; what is equal is compared as
// entries.
__device__ inline float bound_value(uint64_t entry) {
  const uint32_t key = entry_key(entry);
  if (key <= kNanKey) return -INFINITY;
  return key >= ordered_key(INFINITY) ? INFINITY : key_value(key);
}

// Counts the candidates above each row's bracket and lists those in it: found[b][0 .. bracket[b].found), in no order,
// `room` at most.
// Geometry  128 threads a tile of 64 rows and 128 candidates, 8 x 8 products a thread; blockIdx.x the rows, blockIdx.y
//           every gridDim.y-th tile. Each warp then looks through 16 rows of the tile, four candidates a lane, first
//           counting, then listing: one round of atomics a tile.
// Traffic   (64 + 128) d words of L2 a tile for 64 * 128 * d fmaf; 8 bytes for each candidate listed.
template <bool kCosine>
__global__ void __launch_bounds__(Square::kThreads, 3)
    similar_negative_bracket(NegativeProblem p, Bracket* bracket, uint64_t* found, int64_t room) {
  SHARED(float, low, [Square::kM]);
  SHARED(float, high, [Square::kM]);
  constexpr int kMine = Square::kRowsPerWarp;
  static_assert(Square::kN == 4 * kWarp && kMine <= kWarp);
  float* const scores = dynamic_shared<float>();
  const int64_t b0 = int64_t(blockIdx.x) * Square::kM;
  const int rows = int(p.batch - b0 < Square::kM ? p.batch - b0 : Square::kM);
  for (int r = int(threadIdx.x); r < rows; r += Square::kThreads)
    low[r] = bound_value(bracket[b0 + r].lo), high[r] = bound_value(bracket[b0 + r].hi);
  const int lane = int(threadIdx.x) % kWarp, r0 = int(threadIdx.x) / kWarp * kMine,
            mine = rows - r0 < kMine ? rows - r0 : kMine;

  enum Place { kBelow, kInside, kAbove };
  const auto place = [&](int r, int64_t c, float x) {
    if (c >= p.count || x < low[r]) return kBelow;
    if (x > high[r]) return kAbove;
    if (x > low[r] && x < high[r]) return kInside;
    const Bracket& row = bracket[b0 + r];  // equal to a bound, or NaN
    const uint64_t entry = entry_of(ordered_key(x), c);
    if (entry_key(entry) == kNanKey) atomicMax(p.nan_flag, 1);
    return entry > row.hi ? kAbove : entry >= row.lo ? kInside : kBelow;
  };
  int above = 0;  // of row r0 + lane
  tile_products<Square, kCosine>(
      scores + Square::kM * Square::kScoresLd, p.pool, rows, [&](int r) { return p.positives[b0 + r]; }, p.pool,
      p.count, [&](int64_t c) { return p.cand[c]; }, int(blockIdx.y), int((p.count + Square::kN - 1) / Square::kN),
      int(gridDim.y),
      [&](int64_t c0, const auto& acc, const float* inv) {
        put_scores<Square>(scores, acc, inv);
        __syncthreads();
        const int64_t c = c0 + 4 * lane;
        int inside = 0, at = 0;  // of row r0 + lane
        for (int r = 0; r < mine; ++r) {
          float x[4];
          read_group<4>(x, scores + (r0 + r) * Square::kScoresLd + 4 * lane);
          int more = 0, in = 0;
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const Place where = place(r0 + r, c + q, x[q]);
            more += __popc(__ballot_sync(kAll, where == kAbove)), in += __popc(__ballot_sync(kAll, where == kInside));
          }
          if (lane == r) above += more, inside = in;
        }
        if (inside) at = atomicAdd(&bracket[b0 + r0 + lane].found, inside);
        for (int r = 0; r < mine; ++r) {
          if (__shfl_sync(kAll, inside, r) == 0) continue;
          int slot = __shfl_sync(kAll, at, r);
          float x[4];
          read_group<4>(x, scores + (r0 + r) * Square::kScoresLd + 4 * lane);
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            const bool in = place(r0 + r, c + q, x[q]) == kInside;
            const unsigned lanes = __ballot_sync(kAll, in);
            const int to = slot + __popc(lanes & ((1u << lane) - 1));
            if (in && to < room) found[(b0 + r0 + r) * room + to] = entry_of(ordered_key(x[q]), c + q);
            slot += __popc(lanes);
          }
        }
      });
  if (above) atomicAdd(&bracket[b0 + r0 + lane].above, above);
}

// Selects from what the bracket caught; where it missed, or more was in it than there was room for, searches anew over
// all candidates: each pass counts into 512 parts of the interval the entry must lie in, up to six passes.
// Geometry  256 threads own 8 rows: one warp a row, and the block together for the rows that missed.
// Traffic   the listed entries, a few times (L2), and a train row; a pass of the search reads all candidates' rows.
// Limits    a single missed row keeps its block for up to six products of 8 rows on one multiprocessor: milliseconds at
//           C = 100,000 (an estimate).
template <bool kCosine>
__global__ void __launch_bounds__(Strip::kThreads, 2)
    similar_negative_finish(NegativeProblem p, const Bracket* bracket, uint64_t* found, int64_t room) {
  SHARED(Window, window, [kRows]);
  SHARED(int, searched, [kRows]);
  float* const tiles = dynamic_shared<float>();
  uint32_t* const histogram = reinterpret_cast<uint32_t*>(tiles + Strip::kFloats);  // [kRows][kBins]
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  const int64_t b0 = int64_t(blockIdx.x) * kRows, b = b0 + warp;
  const int rows = int(p.batch - b0 < kRows ? p.batch - b0 : kRows);
  uint32_t* const bins = histogram + warp * kBins;

  bool missed = false;
  if (warp < rows) {
    const Bracket row = bracket[b];
    if (row.admissible == 0) {
      if (lane == 0) p.out[b] = p.fallback[b];
    } else {
      int above = 0, listed = 0;
      p.for_excluded(b, [&](int32_t item, int64_t from, int64_t to) {
        const uint32_t key = p.key_of<kCosine>(b, item);
        for (int64_t c = from; c < to; ++c) above -= entry_of(key, c) > row.hi;
      });
      const int32_t* const item = p.items(b);
      const int64_t n_items = p.n_items(b), n = row.found <= room ? row.found : 0;
      uint64_t* const entry = found + b * room;
      for (int64_t e = lane; e < n; e += kWarp) {
        const bool excluded = has(item, n_items, p.cand[entry_place(entry[e])]);
        if (excluded) entry[e] = 0;
        listed += !excluded;
      }
      const int left = row.rank - row.above - warp_sum(above);
      listed = warp_sum(listed);
      missed = left < 0 || left >= listed;
      if (!missed) {
        const uint64_t wanted = warp_select(n, left, bins, [&](int64_t e) { return entry[e]; });
        if (lane == 0) p.out[b] = p.cand[entry_place(wanted)];
      }
    }
    if (lane == 0) window[warp] = {entry_of(kNanKey, p.count - 1), entry_of(ordered_key(INFINITY), 0), row.rank};
  }
  if (lane == 0) searched[warp] = missed;
  while (__syncthreads_or(missed)) {
    // a barrier comes before the first product
    for (int c = int(threadIdx.x); c < kRows * kBins; c += Strip::kThreads) histogram[c] = 0;
    tile_products<Strip, kCosine>(
        tiles, p.pool, rows, [&](int r) { return p.positives[b0 + r]; }, p.pool, p.count,
        [&](int64_t c) { return p.cand[c]; }, 0, int((p.count + Strip::kN - 1) / Strip::kN), 1,
        [&](int64_t c0, const auto& acc, const float* inv) {
#pragma unroll
          for (int i = 0; i < Strip::kTM; ++i) {
            if (!searched[i]) continue;
            const Window w = window[i];
            const int shift = w.shift(kBinBits);
#pragma unroll
            for (int j = 0; j < Strip::kTN; ++j) {
              const int64_t c = c0 + Strip::col(j);
              if (c >= p.count) continue;
              const uint64_t entry = entry_of(ordered_key(kCosine ? acc[i][j] * inv[Strip::col(j)] : acc[i][j]), c);
              if (w.holds(entry)) atomicAdd(&histogram[i * kBins + int((w.hi - entry) >> shift)], 1u);
            }
          }
        });
    if (missed) {
      Window w = window[warp];
      const int shift = w.shift(kBinBits);
      p.for_excluded(b, [&](int32_t item, int64_t from, int64_t to) {
        const uint32_t key = p.key_of<kCosine>(b, item);
        for (int64_t c = from; c < to; ++c)
          if (w.holds(entry_of(key, c))) atomicAdd(&bins[(w.hi - entry_of(key, c)) >> shift], ~0u);  // one less
      });
      __syncwarp();
      w.enter(bin_of_rank<kBins>(bins, w.left), shift);
      if (entry_key(w.lo) == entry_key(w.hi)) {  // one similarity: positions end at C - 1
        const uint64_t least = entry_of(entry_key(w.hi), p.count - 1);
        w.lo = w.lo > least ? w.lo : least;
      }
      missed = w.lo < w.hi;
      __syncwarp();  // all lanes have read the window
      if (lane == 0) {
        window[warp] = w, searched[warp] = missed;
        if (!missed) p.out[b] = p.cand[entry_place(w.hi)];
      }
    }
  }
}

// What a block has room for beside its tiles; no more than 4,096, with which a sample of 100,000 brackets a rank well.
// (99 KB of shared memory: 992.)
int64_t most_in_shared() {
  return std::min<int64_t>(
      4096, (chip().shared - int64_t(Strip::kSharedBytes)) / (kRows * int64_t(sizeof(uint32_t))) / 4 * 4);
}
struct Sample {  // of the candidates, and what a row's bracket may hold; stride 1: all of them, and no bracket
  int64_t stride, sampled, room;
};
// Room for the widest bracket among the ranks below k, and a quarter more: a row that needs yet more is searched.
Sample sample_of(int64_t count, int64_t k_top) {
  const int64_t most = most_in_shared(), stride = count <= most ? 1 : std::max<int64_t>(4, blocks_for(count, most));
  const int64_t sampled = (count - stride / 2 + stride - 1) / stride;
  if (stride == 1) return {stride, sampled, 0};
  const double share = std::min(0.5, double(k_top) / double(count));
  const double widest = 2 * (kDeviations * std::sqrt(double(sampled) * share * (1 - share)) + 3);
  return {stride, sampled, std::min(count, int64_t(widest * double(stride) * 1.25) + 64)};
}

template <bool kCosine>
void choose(Ctx& ctx, const NegativeProblem& p) {
  const int64_t strips = blocks_for(p.batch, kRows);
  const auto [stride, sampled, room] = sample_of(p.count, p.k_top);
  const size_t shared = size_t(kRows * blocks_for(sampled, 4) * 4) * sizeof(uint32_t) + Strip::kSharedBytes;
  if (stride == 1) {
    launch(similar_negative_in_shared<kCosine>, strips, Strip::kThreads, shared, ctx, p, stride, sampled, nullptr);
    return;
  }
  Bracket* const bracket = static_cast<Bracket*>(ctx.scratch(0, size_t(p.batch) * sizeof(Bracket)));
  uint64_t* const found = static_cast<uint64_t*>(ctx.scratch(1, size_t(p.batch * room) * sizeof(uint64_t)));
  launch(similar_negative_in_shared<kCosine>, strips, Strip::kThreads, shared, ctx, p, stride, sampled, bracket);
  // a tenth of them run at a time; two tiles each at least, so that one loads while the other multiplies
  constexpr int64_t kEnoughBlocks = 4096;
  const int64_t squares = blocks_for(p.batch, Square::kM), tiles = blocks_for(p.count, Square::kN);
  const int64_t splits = std::clamp<int64_t>(kEnoughBlocks / std::max<int64_t>(squares, 1), 1, tiles / 2);
  launch(similar_negative_bracket<kCosine>, Grid(squares, splits), Square::kThreads,
         Square::kScoresBytes + Square::kSharedBytes, ctx, p, bracket, found, room);
  launch(similar_negative_finish<kCosine>, strips, Strip::kThreads,
         Strip::kSharedBytes + size_t(kRows * kBins) * sizeof(uint32_t), ctx, p, bracket, found, room);
}

}  // namespace

void similar_negative(Ctx& ctx, int32_t* out, int32_t* nan_flag, CMat pool, const int32_t* positives,
                      const int32_t* users, int64_t batch, const int32_t* cand, int64_t count, const Csr& train,
                      int64_t k_top, bool cosine, const int32_t* fallback, Stream s) {
  CHECK_THAT(k_top >= 1);
  CHECK_THAT(count >= 0 && count < (int64_t(1) << 31));
  const NegativeProblem p{pool,  positives, users, batch,    cand, count,   train,
                          k_top, fallback,  s,     ctx.late, out,  nan_flag};
  cosine ? choose<true>(ctx, p) : choose<false>(ctx, p);
}

void similar_negative_scratch(ScratchPlan& p, int64_t batch, int64_t count, int64_t k_top, int64_t, int64_t) {
  const int64_t room = sample_of(count, k_top).room;
  if (room > 0) p.need(0, batch * int64_t(sizeof(Bracket))), p.need(1, batch * room * 8);
}

}  // namespace ccdrec::cuda
