#include "kernels/cuda/library.h"
#include "kernels/cuda/ordered.h"
#include "kernels/topk.h"

// Up to kMostInLists items a user: a block scores 64 users against a range of items tile by tile and keeps, per user, a
// list of what beat the k-th best so far; a full list is cut back to its k best. A second launch joins a user's ranges
// and sorts. Longer lists, up to all items and beyond: the scores of as many users as fit a bounded room, sorted by the
// library.
namespace ccdrec::cuda {
namespace {

using Square = TileShape<64, 128, 8, 8, 4>;

constexpr int64_t kMostInLists = 512;
// each has lists of its own; on an H200 about 400 run at a time
constexpr int64_t kTopkBlocks = 640;
// room for all blocks' lists, and for what they found
constexpr int64_t kListBytes = int64_t(1) << 28, kBestBytes = int64_t(1) << 25;
constexpr int64_t kSortedAtOnce = int64_t(1) << 21;  // scores, 24 bytes each

struct TopkProblem {
  CMat hu, hi;
  const int32_t* users;
  int64_t n;
  Csr mask;  // row_ptr null: none
  int64_t k, kept;

  __device__ const int32_t* masked(int64_t u) const {
    return mask.row_ptr ? mask.col + mask.row_ptr[users[u]] : nullptr;
  }
  __device__ int64_t n_masked(int64_t u) const {
    return mask.row_ptr ? mask.row_ptr[users[u] + 1] - mask.row_ptr[users[u]] : 0;
  }
};

// The `kept` best of a list's n entries (all, if they are fewer) go to `to`, which may be the list itself; returns how
// many. Entries from `fresh` on may name masked items, which are dropped first: few items get as far as here, so that
// none other is ever looked up. *worst is set to the last one's entry if there are as many as wanted. One whole warp;
// the order within the list is of no matter.
__device__ inline int keep_best(uint64_t* to, uint64_t* list, int n, int fresh, int kept, const int32_t* masked,
                                int64_t n_masked, uint32_t* bins, uint64_t* worst) {
  const int lane = int(threadIdx.x) % kWarp;
  int clean = 0;
  for (int c = lane; c < n; c += kWarp) {
    const bool drop = list[c] == 0 || (c >= fresh && has(masked, n_masked, int32_t(entry_place(list[c]))));
    if (drop) list[c] = 0;
    clean += !drop;
  }
  clean = warp_sum(clean);
  uint64_t limit = 1;
  if (clean > kept) limit = warp_select(n, kept - 1, bins, [&](int64_t c) { return list[c]; });
  int taken = 0;
  for (int base = 0; base < n; base += kWarp) {
    const uint64_t v = base + lane < n ? list[base + lane] : 0;
    const unsigned stays = __ballot_sync(kAll, v >= limit);
    if (v >= limit) to[taken + __popc(stays & ((1u << lane) - 1))] = v;
    taken += __popc(stays);
    __syncwarp();  // what was read may be overwritten now, not before
  }
  if (clean > kept) *worst = limit;
  return taken;
}

// best[u][split][0 .. kept): the best entries of each user among a range of the items, in no order; 0 where there are
// fewer.
// Geometry  128 threads score 64 users against tiles of 128 items, 8 x 8 products a thread; each warp then looks
//           through 16 users' scores, four items a lane. Blocks take (users, range) one after another from a counter:
//           which block does it changes nothing.
// Traffic   (64 + 128) d words of L2 a tile for 64 * 128 * d fmaf. A user's list in global memory takes about k (1 +
//           ln(I / k)) entries, twice that with the room there is between two cuts.
__global__ void __launch_bounds__(Square::kThreads, 3)
    score_topk_tiles(TopkProblem p, int64_t splits, int64_t room, uint64_t* lists, uint64_t* best, int32_t* next) {
  constexpr int kMine = Square::kRowsPerWarp, kWarps = Square::kThreads / kWarp;
  SHARED(int, length, [Square::kM]);
  SHARED(int, fresh, [Square::kM]);
  SHARED(float, limit, [Square::kM]);  // the k-th best score so far; NaN takes everything
  SHARED(uint4, counts, [kWarps][kSelectBins / 4]);
  SHARED(int, task, );
  float* const scores = dynamic_shared<float>();
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp, kept = int(p.kept);
  uint32_t* const bins = &counts[warp][0].x;
  const int64_t I = p.hi.rows, item_tiles = (I + Square::kN - 1) / Square::kN,
                tasks = (p.n + Square::kM - 1) / Square::kM * splits;
  for (;;) {
    if (threadIdx.x == 0) task = atomicAdd(next, 1);
    __syncthreads();
    const int64_t t = task;
    if (t >= tasks) return;
    const int64_t u0 = t / splits * Square::kM, split = t % splits;
    const int rows = int(p.n - u0 < Square::kM ? p.n - u0 : Square::kM);
    const int r0 = warp * kMine, r1 = rows < r0 + kMine ? rows : r0 + kMine;
    uint64_t* const mine = lists + int64_t(blockIdx.x) * Square::kM * room;
    if (r0 + lane < r1) length[r0 + lane] = fresh[r0 + lane] = 0, limit[r0 + lane] = key_value(kNanKey);
    __syncwarp();

    const auto cut = [&](int r, uint64_t* to) {
      uint64_t worst = 0;
      const int n =
          keep_best(to, mine + r * room, length[r], fresh[r], kept, p.masked(u0 + r), p.n_masked(u0 + r), bins, &worst);
      __syncwarp();
      if (lane == 0) length[r] = fresh[r] = n;
      if (lane == 0 && worst) limit[r] = key_value(entry_key(worst));
      __syncwarp();
    };
    tile_products<Square, false>(
        scores + Square::kM * Square::kScoresLd, p.hu, rows, [&](int r) { return p.users[u0 + r]; }, p.hi, I,
        [&](int64_t i) { return i; }, int(split * item_tiles / splits), int((split + 1) * item_tiles / splits), 1,
        [&](int64_t i0, const auto& acc, const float* inv) {
          put_scores<Square>(scores, acc, inv);
          __syncthreads();
          for (int r = r0; r < r1; ++r) {
            float x[4];
            read_group<4>(x, scores + r * Square::kScoresLd + 4 * lane);
            const float least = limit[r];  // an equal score comes too late: items ascend
            bool passes[4], any = false;
            for (int q = 0; q < 4; ++q) passes[q] = i0 + 4 * lane + q < I && !(x[q] <= least), any |= passes[q];
            if (!__any_sync(kAll, any)) continue;
            int at = length[r];
            for (int q = 0; q < 4; ++q) {
              const unsigned lanes = __ballot_sync(kAll, passes[q]);
              if (passes[q])
                mine[r * room + at + __popc(lanes & ((1u << lane) - 1))] =
                    entry_of(ordered_key(x[q]), i0 + 4 * lane + q);
              at += __popc(lanes);
            }
            __syncwarp();
            if (lane == 0) length[r] = at;
            __syncwarp();
            if (at + Square::kN > room) cut(r, mine + r * room);  // the next tile must find room
          }
        });
    for (int r = r0; r < r1; ++r) {
      uint64_t* const to = best + ((u0 + r) * splits + split) * p.kept;
      cut(r, to);
      for (int64_t c = length[r] + lane; c < p.kept; c += kWarp) to[c] = 0;
    }
    __syncthreads();  // everyone has read `task`
  }
}

__device__ inline void write_rank(const TopkProblem& p, int32_t* top, float* score, int64_t u, int64_t c, bool is_there,
                                  int64_t item, uint32_t key) {
  top[u * p.k + c] = is_there ? int32_t(item) : -1;
  score[u * p.k + c] = is_there ? key_value(key) : -INFINITY;
}

// A user's ranges joined, sorted and written out.
// Geometry  one warp a user; bitonic sort of 2^m >= kept entries, two at least, in shared memory.
// Traffic   8 kept splits bytes a user, a few times (L2), and 8 k out.
__global__ void score_topk_join(TopkProblem p, int64_t splits, int sorted, uint64_t* best, int32_t* top, float* score) {
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int64_t u = int64_t(blockIdx.x) * (blockDim.x / kWarp) + warp;
  if (u >= p.n) return;  // a whole warp, and no barrier of the block follows
  uint64_t* const list = dynamic_shared<uint64_t>() + int64_t(warp) * (sorted + kSelectBins / 2);
  uint32_t* const bins = reinterpret_cast<uint32_t*>(list + sorted);
  uint64_t worst;
  const int n = int(splits * p.kept),
            taken = keep_best(list, best + u * n, n, n, int(p.kept), nullptr, 0, bins, &worst);
  for (int c = taken + lane; c < sorted; c += kWarp) list[c] = 0;
  __syncwarp();
  for (int run = 2; run <= sorted; run *= 2)
    for (int apart = run / 2; apart > 0; apart /= 2) {
      for (int c = lane; c < sorted / 2; c += kWarp) {
        const int a = c / apart * 2 * apart + c % apart, b = a + apart;
        const uint64_t v = list[a], w = list[b];
        const bool swap = a & run ? v > w : v < w;  // the last run descends
        if (swap) list[a] = w, list[b] = v;
      }
      __syncwarp();
    }
  for (int64_t c = lane; c < p.k; c += kWarp) {
    const uint64_t v = c < taken ? list[c] : 0;
    write_rank(p, top, score, u, c, c < taken, entry_place(v), entry_key(v));
  }
}

// The sort keys of n users' scores against all items: user, then score descending; stable sorting leaves equals by
// item.
// Geometry  as score_topk_tiles; blockIdx.x the users, blockIdx.y every gridDim.y-th tile.
// Traffic   12 bytes a score.
__global__ void __launch_bounds__(Square::kThreads) score_topk_keys(TopkProblem p, uint64_t* key, int32_t* item) {
  const int64_t u0 = int64_t(blockIdx.x) * Square::kM, I = p.hi.rows;
  const int rows = int(p.n - u0 < Square::kM ? p.n - u0 : Square::kM);
  tile_products<Square, false>(
      dynamic_shared<float>(), p.hu, rows, [&](int r) { return p.users[u0 + r]; }, p.hi, I,
      [&](int64_t i) { return i; }, int(blockIdx.y), int((I + Square::kN - 1) / Square::kN), int(gridDim.y),
      [&](int64_t i0, const auto& acc, const float*) {
#pragma unroll
        for (int a = 0; a < Square::kTM; ++a)
#pragma unroll
          for (int b = 0; b < Square::kTN; ++b) {
            const int64_t u = u0 + Square::row(a), i = i0 + Square::col(b);
            if (Square::row(a) >= rows || i >= I) continue;
            key[u * I + i] = uint64_t(u) << 32 | uint64_t(~ordered_key(acc[a][b]));
            item[u * I + i] = int32_t(i);
          }
      });
}

// Masked items last of their user's.
// Geometry  one warp a user.
__global__ void score_topk_mask(TopkProblem p, uint64_t* key) {
  const int64_t u = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (u >= p.n) return;
  const int32_t* const masked = p.masked(u);
  for (int64_t e = threadIdx.x % kWarp; e < p.n_masked(u); e += kWarp)
    key[u * p.hi.rows + masked[e]] = uint64_t(u) << 32 | uint64_t(~kExcludedKey);
}

// Geometry: one thread a place of a list, grid-stride.
__global__ void score_topk_write(TopkProblem p, const uint64_t* key, const int32_t* item, int32_t* top, float* score) {
  const int64_t I = p.hi.rows;
  for (int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; j < p.n * p.k;
       j += int64_t(gridDim.x) * blockDim.x) {
    const int64_t u = j / p.k, c = j % p.k, at = u * I + c;
    const uint32_t k = c < I ? ~uint32_t(key[at]) : kExcludedKey;
    write_rank(p, top, score, u, c, k != kExcludedKey, c < I ? item[at] : 0, k);
  }
}

constexpr int64_t kJoinWarps = 4;

struct ListSizes {
  int64_t room, splits, most_blocks, at_once;  // entries of a user's list; ranges of the items; blocks; users
};
ListSizes list_sizes(int64_t n, int64_t I, int64_t kept) {
  const int64_t room = kept + std::max<int64_t>(kept, 192) + Square::kN;  // after a cut, two tiles at least find room
  const int64_t item_tiles = blocks_for(I, Square::kN), user_tiles = blocks_for(n, Square::kM);
  // Few users: their items in ranges of eight tiles or more, so that there is work for all blocks.
  const int64_t splits = std::max<int64_t>(1, std::min(kTopkBlocks / std::max<int64_t>(user_tiles, 1), item_tiles / 8));
  const int64_t most_blocks = std::clamp<int64_t>(kListBytes / (Square::kM * room * 8), 1, kTopkBlocks);
  const int64_t at_once =
      std::max<int64_t>(Square::kM, kBestBytes / std::max<int64_t>(splits * kept * 8, 1) / Square::kM * Square::kM);
  return {room, splits, most_blocks, at_once};
}
int64_t sorted_at_once(int64_t n, int64_t I) { return std::max<int64_t>(1, std::min(n, kSortedAtOnce / I)); }

void by_lists(Ctx& ctx, int32_t* top, float* score, TopkProblem p) {
  const auto [room, splits, most_blocks, at_once] = list_sizes(p.n, p.hi.rows, p.kept);
  int sorted = 2;  // the counts behind a list are read 16 bytes at a time: it is a multiple of two entries
  while (sorted < p.kept) sorted *= 2;
  const size_t join_shared = size_t(kJoinWarps) * (size_t(sorted) * sizeof(uint64_t) + kSelectBins * sizeof(uint32_t));
  const TopkProblem all = p;
  for (int64_t first = 0; first < all.n; first += at_once) {
    p.users = all.users + first, p.n = std::min(at_once, all.n - first);
    const int64_t blocks = std::min(most_blocks, blocks_for(p.n, Square::kM) * splits);
    uint64_t* const lists =
        static_cast<uint64_t*>(ctx.scratch(0, size_t(blocks * Square::kM * room) * sizeof(uint64_t)));
    uint64_t* const best = static_cast<uint64_t*>(ctx.scratch(1, size_t(p.n * splits * p.kept) * sizeof(uint64_t)));
    int32_t* const next = static_cast<int32_t*>(ctx.scratch(2, sizeof(int32_t)));
    library::fill(ctx, next, 0, sizeof(int32_t));
    launch(score_topk_tiles, blocks, Square::kThreads, Square::kScoresBytes + Square::kSharedBytes, ctx, p, splits,
           room, lists, best, next);
    launch(score_topk_join, blocks_for(p.n, kJoinWarps), int(kJoinWarps) * kWarp, join_shared, ctx, p, splits, sorted,
           best, top + first * p.k, score + first * p.k);
  }
}

void by_sorting(Ctx& ctx, int32_t* top, float* score, TopkProblem p) {
  const int64_t I = p.hi.rows, at_once = sorted_at_once(p.n, I), entries = at_once * I;
  uint64_t* const keys = static_cast<uint64_t*>(ctx.scratch(0, size_t(entries) * sizeof(uint64_t)));
  uint64_t* const sorted_keys = static_cast<uint64_t*>(ctx.scratch(1, size_t(entries) * sizeof(uint64_t)));
  int32_t* const items = static_cast<int32_t*>(ctx.scratch(2, size_t(entries) * sizeof(int32_t)));
  int32_t* const sorted_items = static_cast<int32_t*>(ctx.scratch(3, size_t(entries) * sizeof(int32_t)));
  int bits = 32;
  while (at_once > int64_t(1) << (bits - 32)) ++bits;
  const TopkProblem all = p;
  for (int64_t first = 0; first < all.n; first += at_once) {
    p.users = all.users + first, p.n = std::min(at_once, all.n - first);
    const int64_t user_tiles = blocks_for(p.n, Square::kM), item_tiles = blocks_for(I, Square::kN);
    launch(score_topk_keys, Grid(user_tiles, std::min<int64_t>(item_tiles, 1024)), Square::kThreads,
           Square::kSharedBytes, ctx, p, keys, items);
    if (p.mask.row_ptr) launch(score_topk_mask, blocks_for(p.n, 8), 8 * kWarp, 0, ctx, p, keys);
    library::sort_pairs(ctx, sorted_keys, sorted_items, keys, items, p.n * I, bits);
    launch(score_topk_write, std::min<int64_t>(4096, blocks_for(p.n * p.k, 256)), 256, 0, ctx, p, sorted_keys,
           sorted_items, top + first * p.k, score + first * p.k);
  }
}

}  // namespace

void score_topk(Ctx& ctx, int32_t* top, float* score, CMat hu, const int32_t* users, int64_t n, CMat hi,
                const Csr* mask, int64_t k) {
  const int64_t I = hi.rows, d = hi.cols;
  CHECK_THAT(k >= 1 && n >= 0);
  CHECK_SHAPE(hu, hu.rows, d);
  if (mask) CHECK_SHAPE(*mask, hu.rows, I);
  const TopkProblem p{hu, hi, users, n, mask ? *mask : Csr{}, k, std::min(k, I)};
  p.kept <= kMostInLists ? by_lists(ctx, top, score, p) : by_sorting(ctx, top, score, p);
}

void score_topk_scratch(ScratchPlan& p, int64_t n, int64_t I, int64_t, int64_t k) {
  const int64_t kept = std::min(k, I);
  if (kept > kMostInLists) {
    const int64_t entries = sorted_at_once(n, I) * I;
    p.need(0, entries * 8), p.need(1, entries * 8), p.need(2, entries * 4), p.need(3, entries * 4);
    library::sort_scratch(p, entries, 8);
    return;
  }
  const ListSizes s = list_sizes(n, I, kept);
  const int64_t users = std::min(s.at_once, n),
                blocks = std::min(s.most_blocks, blocks_for(users, Square::kM) * s.splits);
  p.need(0, blocks * Square::kM * s.room * 8), p.need(1, users * s.splits * kept * 8), p.need(2, 4);
}

}  // namespace ccdrec::cuda
