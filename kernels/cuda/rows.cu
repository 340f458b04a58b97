#include "kernels/cuda/compact.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/row_moves.h"
#include "kernels/rows.h"

namespace ccdrec::cuda {
namespace {

// ---- lists

// Ids outside [0, limit) are a fault, and taken as the nearest inside, so that nothing that follows leaves its bounds.
__device__ inline uint32_t key_of(int32_t id, int64_t limit) {
  return uint32_t(id < 0 ? 0 : id < limit ? id : limit - 1);
}

constexpr int kRankThreads = 256, kRankWarps = kRankThreads / kWarp;
constexpr int kRankSlots = 64;   // of one block: two a lane
constexpr int kRankTile = 1024;  // keys in shared memory
// slots up to which counting beats a radix sort's seven launches; to be measured
constexpr int64_t kMostCounted = 12288;

// The place of slot s in the stable order by key: the keys below its own, and the equal ones of earlier slots.
// Geometry  64 slots a block, lane l of every warp has slots l and l+32; the eight warps share the keys compared with
//           and add up at the end.
// Traffic   n^2 compare-and-adds, 4n keys a block from L2. n = 8192: 134 million adds, about 5 us; four keys a
//           shared-memory read.
__global__ void group_rank_by_counting(uint32_t* sorted, int32_t* slot, const int32_t* ids, int n, int64_t limit,
                                       int32_t* fault) {
  SHARED(uint4, tile, [kRankTile / 4]);
  SHARED(int, part, [kRankWarps][kRankSlots]);
  uint32_t* const key = reinterpret_cast<uint32_t*>(tile);
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, first = int(blockIdx.x) * kRankSlots;
  uint32_t mine[2];
  for (int k = 0; k < 2; ++k) mine[k] = first + lane + 32 * k < n ? key_of(ids[first + lane + 32 * k], limit) : 0;
  int below[2] = {0, 0};
  for (int t0 = 0; t0 < n; t0 += kRankTile) {
    // above all
    for (int i = int(threadIdx.x); i < kRankTile; i += kRankThreads)
      key[i] = t0 + i < n ? key_of(ids[t0 + i], limit) : 0xffffffffu;
    __syncthreads();
    for (int g = warp; g < kRankTile / kRankSlots && t0 + g * kRankSlots < n; g += kRankWarps) {
      const int s0 = t0 + g * kRankSlots;
      if (s0 == first) {  // the block's own: earlier and later slots among them
        for (int i = 0; i < kRankSlots; ++i)
          for (int k = 0; k < 2; ++k) below[k] += key[s0 - t0 + i] < mine[k] + (i < lane + 32 * k);
        continue;
      }
      const uint32_t ties = s0 < first;  // equal keys count when they come first
#pragma unroll 4
      for (int q = 0; q < kRankSlots / 4; ++q) {
        const uint4 four = tile[g * (kRankSlots / 4) + q];
        for (int k = 0; k < 2; ++k) {
          const uint32_t bound = mine[k] + ties;
          below[k] += int(four.x < bound) + int(four.y < bound) + int(four.z < bound) + int(four.w < bound);
        }
      }
    }
    __syncthreads();
  }
  for (int k = 0; k < 2; ++k) part[warp][lane + 32 * k] = below[k];
  __syncthreads();
  const int s = first + int(threadIdx.x);
  if (int(threadIdx.x) >= kRankSlots || s >= n) return;
  int place = 0;
  for (int w = 0; w < kRankWarps; ++w) place += part[w][threadIdx.x];
  const int32_t id = ids[s];
  sorted[place] = key_of(id, limit), slot[place] = s;
  if (id < 0 || id >= limit) atomicMax(fault, int(kIdOutOfRange));
}

// What the radix sort of long lists takes.
// Geometry  one thread a slot.
__global__ void group_keys(uint32_t* key, int32_t* slot, const int32_t* ids, int64_t n, int64_t limit, int32_t* fault) {
  const int64_t s = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (s >= n) return;
  key[s] = key_of(ids[s], limit), slot[s] = int32_t(s);
  if (ids[s] < 0 || ids[s] >= limit) atomicMax(fault, int(kIdOutOfRange));
}

// The distinct of the a.n() + b.n() ascending keys; where each starts to `ptr` if given, and their end. Keys have room
// for a multiple of four. Geometry, traffic: compact.h, four keys a thread.
__global__ void __launch_bounds__(kCompactThreads)
    rows_distinct(RowList out, int32_t* ptr, const uint32_t* sorted, RowList a, RowList b, int32_t* fault) {
  const int64_t n = a.n() + b.n();
  const auto starts = [&](int64_t c) {
    const int64_t p = 4 * c;
    const uint4 k = reinterpret_cast<const uint4*>(sorted)[c];
    const uint32_t left = p > 0 ? sorted[p - 1] : ~k.x;
    const unsigned bits =
        unsigned(k.x != left) | unsigned(k.y != k.x) << 1 | unsigned(k.z != k.y) << 2 | unsigned(k.w != k.z) << 3;
    return p + 4 <= n ? bits : bits & ((1u << (n - p)) - 1);
  };
  const auto write = [&](int64_t j, int64_t p) {
    if (j < out.capacity) out.idx[j] = int32_t(sorted[p]);
    if (ptr && j <= out.capacity) ptr[j] = int32_t(p);
  };
  compact<4>(n, starts, write, [&](int64_t found) {
    if (found > out.capacity) atomicMax(fault, int(kListTooSmall));
    if (ptr && found <= out.capacity) ptr[found] = int32_t(n);
    *out.count = found < out.capacity ? found : out.capacity;
  });
}
void write_distinct(Ctx& ctx, RowList out, int32_t* ptr, const uint32_t* sorted, RowList a, RowList b) {
  launch(rows_distinct, compact_blocks(a.capacity + b.capacity, 4), kCompactThreads, 0, ctx, out, ptr, sorted, a, b,
         ctx.fault);
}
uint32_t* keys_room(Ctx& ctx, int slot, int64_t n) {
  return static_cast<uint32_t*>(ctx.scratch(slot, size_t(blocks_for(n, 4)) * 4 * sizeof(uint32_t)));
}

// Entries of the list below v. A thread alone.
__device__ inline int64_t row_count_below(const RowList& rows, int64_t n, int64_t v) {
  int64_t lo = 0, hi = n;
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    if (rows.at(mid) < v)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

// The same by a whole warp, 32 probes a round: three or four round trips to memory for any list.
__device__ inline int64_t warp_count_below(const RowList& rows, int64_t n, int64_t v) {
  const int lane = int(threadIdx.x) % kWarp;
  int64_t lo = 0, hi = n;
  while (lo < hi) {
    const int64_t step = (hi - lo + kWarp - 1) / kWarp, probe = lo + lane * step + step - 1;
    const int k = __popc(__ballot_sync(kAll, probe < hi && rows.at(probe) < v));  // the lists ascend: the first k lanes
    const int64_t end = lo + (k + 1) * step - 1;
    lo += k * step;
    hi = end < hi ? end : hi;
  }
  return lo;
}

// Both lists in one ascending sequence, equal entries side by side: an entry's place is its own index and the entries
// of the other list before it.
// Geometry  one thread an entry.
// Traffic   4 bytes in, 4 out, and a binary search in L2.
__global__ void merge_by_rank(uint32_t* both, RowList a, RowList b) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, na = a.n(), nb = b.n();
  if (k < na) {
    const int32_t v = a.at(k);
    both[k + row_count_below(b, nb, v)] = uint32_t(v);
  } else if (k - na < nb) {
    const int32_t v = b.at(k - na);
    both[k - na + row_count_below(a, na, int64_t(v) + 1)] = uint32_t(v);
  }
}

// Geometry  one thread an entry; every warp finds the cut for itself.
// Traffic   8 bytes an entry.
__global__ void split_at(RowList users, RowList items, RowList nodes, int64_t n_users, int32_t* fault) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, n = nodes.n();
  if (int64_t(blockIdx.x) * blockDim.x >= n && blockIdx.x > 0) return;
  const int64_t cut = nodes.idx ? warp_count_below(nodes, n, n_users) : (n < n_users ? n : n_users);
  if (j < cut && j < users.capacity) users.idx[j] = nodes.at(j);
  if (j >= cut && j < n && j - cut < items.capacity) items.idx[j - cut] = int32_t(nodes.at(j) - n_users);
  if (j > 0) return;
  if (cut > users.capacity || n - cut > items.capacity) atomicMax(fault, int(kListTooSmall));
  *users.count = cut < users.capacity ? cut : users.capacity;
  *items.count = n - cut < items.capacity ? n - cut : items.capacity;
}

// ---- rows: geometry of row_moves.h; T is float4 where rows allow it

template <class T>
__global__ void gather_by_tile(float* y, const float* x, const int32_t* ids, int64_t n, int64_t width) {
  each_element(n, width, [&](int64_t s, int64_t c) {
    reinterpret_cast<T*>(y)[s * width + c] = reinterpret_cast<const T*>(x)[ids[s] * width + c];
  });
}

template <class T>
__global__ void copy_by_tile(float* y, const float* x, RowList rows, int64_t width) {
  each_element(rows.n(), width, [&](int64_t j, int64_t c) {
    const int64_t at = rows.at(j) * width + c;
    reinterpret_cast<T*>(y)[at] = reinterpret_cast<const T*>(x)[at];
  });
}

template <class T>
__global__ void zero_by_tile(float* y, RowList rows, int64_t width) {
  each_element(rows.n(), width, [&](int64_t j, int64_t c) { reinterpret_cast<T*>(y)[rows.at(j) * width + c] = T{}; });
}

// ---- sums

constexpr int kRowGroups = 8;
constexpr int kSlotChunk = 128;  // slots of a long group that one warp adds up

// The rows of the slots that lanes e .. e+kReads-1 hold, in order: all are asked for before the first is used, with no
// branch between the reads.
template <int kReads, int V>
__device__ inline void add_next_slots(float (&sum)[V], int32_t mine, int e, const float* x_c, int64_t cols) {
  float x_s[kReads][V];
#pragma unroll
  for (int k = 0; k < kReads; ++k) {
    const float* const from = x_c + __shfl_sync(kAll, mine, e + k) * cols;
    if constexpr (V == 2) {
      const float2 two = *reinterpret_cast<const float2*>(from);
      x_s[k][0] = two.x, x_s[k][1] = two.y;
    } else {
      x_s[k][0] = *from;
    }
  }
#pragma unroll
  for (int k = 0; k < kReads; ++k)
    for (int v = 0; v < V; ++v) sum[v] += x_s[k][v];
}

// The rows of slots first .. last-1 in order, columns c .. c+V-1. The sum starts from -0, which changes no bit of what
// is added to it. A lane past the row's end adds up its beginning, for nothing.
template <int V>
__device__ inline void add_slots(float (&sum)[V], const int32_t* slot, int32_t first, int32_t last, CMat x, int64_t c,
                                 bool in_row) {
  const int lane = int(threadIdx.x) % kWarp;
  const float* const x_c = x.p + (in_row ? c : 0);
  for (int v = 0; v < V; ++v) sum[v] = -0.0f;
  for (int32_t base = first; base < last; base += kWarp) {
    const int32_t mine = base + lane < last ? slot[base + lane] : 0;
    const int n = int(last - base < kWarp ? last - base : kWarp);
    int e = 0;
    for (; e + 4 <= n; e += 4) add_next_slots<4>(sum, mine, e, x_c, x.cols);
    if (n & 2) add_next_slots<2>(sum, mine, e, x_c, x.cols), e += 2;
    if (n & 1) add_next_slots<1>(sum, mine, e, x_c, x.cols);
  }
}

// Y[row of j] = or += sum over the slots of group j, in order.
// Geometry  one warp a group, 8 groups a block; lane l owns columns 2l, 2l+1 of each 64 where rows allow it, else l of
//           each 32.
// Traffic   4 bytes of slot and one coalesced row a slot, one row a group.
// Limits    a group of more than 128 slots is shared by the block's warps in chunks of 128, whose sums are added in
//           order; shorter ones have the CPU's bits. One with 10,000 slots is ten rounds of one block.
template <int V>
__global__ void segment_sum_warp_per_group(Mat y, CMat x, Groups g, bool by_row, bool accumulate, int32_t* fault) {
  SHARED(float, part, [kRowGroups][kWarp * V]);
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  const int64_t n = g.rows.n(), first = int64_t(blockIdx.x) * kRowGroups;
  if (first >= n) return;  // the whole block
  for (int64_t c0 = 0; c0 < x.cols; c0 += kWarp * V) {
    const int64_t c = c0 + lane * V;
    const bool in_row = c < x.cols;
    const auto put = [&](int64_t j, const float(&sum)[V]) {
      const int64_t r = by_row ? int64_t(g.rows.at(j)) : j;
      if (r >= y.rows) atomicMax(fault, int(kIdOutOfRange));
      if (r >= y.rows || !in_row) return;
      float* to = y.row(r) + c;
      if constexpr (V == 2) {
        const float2 was = accumulate ? *reinterpret_cast<const float2*>(to) : make_float2(-0.0f, -0.0f);
        *reinterpret_cast<float2*>(to) = make_float2(sum[0] + was.x, sum[1] + was.y);
      } else {
        to[0] = accumulate ? sum[0] + to[0] : sum[0];
      }
    };
    if (first + warp < n) {
      const int32_t e0 = g.ptr[first + warp], e1 = g.ptr[first + warp + 1];
      float sum[V];
      if (e1 - e0 <= kSlotChunk) {
        add_slots<V>(sum, g.slot, e0, e1, x, c, in_row);
        put(first + warp, sum);
      }
    }
    for (int w = 0; w < kRowGroups && first + w < n; ++w) {  // the same for every thread
      const int32_t e0 = g.ptr[first + w], e1 = g.ptr[first + w + 1];
      if (e1 - e0 <= kSlotChunk) continue;
      float sum[V], total[V];
      for (int v = 0; v < V; ++v) total[v] = -0.0f;
      for (int32_t e = e0; e < e1; e += kRowGroups * kSlotChunk) {
        const int32_t s0 = e + warp * kSlotChunk, s1 = s0 + kSlotChunk < e1 ? s0 + kSlotChunk : e1;
        add_slots<V>(sum, g.slot, s0, s1, x, c, in_row);
        for (int v = 0; v < V; ++v) part[warp][lane * V + v] = sum[v];
        __syncthreads();
        for (int p = 0; p < kRowGroups && warp == 0; ++p)  // chunks beyond the end are -0
          for (int v = 0; v < V; ++v) total[v] += part[p][lane * V + v];
        __syncthreads();
      }
      if (warp == 0) put(first + w, total);
    }
  }
}

}  // namespace

void group(Ctx& ctx, Groups& out, const int32_t* ids, int64_t n, int64_t limit) {
  CHECK_THAT(n == 0 || limit > 0);
  CHECK_THAT(n < (int64_t(1) << 31));
  const RowList slots{nullptr, nullptr, n}, none;
  uint32_t* const sorted = keys_room(ctx, 0, n);
  if (n <= kMostCounted) {
    launch(group_rank_by_counting, blocks_for(n, kRankSlots), kRankThreads, 0, ctx, sorted, out.slot, ids, int(n),
           limit, ctx.fault);
  } else {
    uint32_t* const keys = keys_room(ctx, 1, n);
    int32_t* const values = static_cast<int32_t*>(ctx.scratch(2, size_t(n) * sizeof(int32_t)));
    int bits = 1;
    while (bits < 32 && limit - 1 >= int64_t(1) << bits) ++bits;
    launch(group_keys, blocks_for(n, 256), 256, 0, ctx, keys, values, ids, n, limit, ctx.fault);
    library::sort_pairs(ctx, sorted, out.slot, keys, values, n, bits);
  }
  write_distinct(ctx, out.rows, out.ptr, sorted, slots, none);
}

void gather_rows(Ctx& ctx, Mat y, CMat x, const int32_t* ids, int64_t n) {
  CHECK_THAT(y.cols == x.cols && y.rows >= n);
  if (moves_by(4, x.cols, y.p, x.p))
    launch(gather_by_tile<float4>, tiles(n), kMoveThreads, 0, ctx, y.p, x.p, ids, n, x.cols / 4);
  else
    launch(gather_by_tile<float>, tiles(n), kMoveThreads, 0, ctx, y.p, x.p, ids, n, x.cols);
}

void copy_rows(Ctx& ctx, Mat y, CMat x, RowList rows) {
  CHECK_THAT(y.cols == x.cols);
  if (moves_by(4, x.cols, y.p, x.p))
    launch(copy_by_tile<float4>, tiles(rows.capacity), kMoveThreads, 0, ctx, y.p, x.p, rows, x.cols / 4);
  else
    launch(copy_by_tile<float>, tiles(rows.capacity), kMoveThreads, 0, ctx, y.p, x.p, rows, x.cols);
}

void segment_sum(Ctx& ctx, Mat y, CMat x, const Groups& g, bool by_row, bool accumulate) {
  CHECK_THAT(y.cols == x.cols);
  const int64_t blocks = blocks_for(g.rows.capacity, kRowGroups);
  if (moves_by(2, x.cols, y.p, x.p))
    launch(segment_sum_warp_per_group<2>, blocks, kRowGroups * kWarp, 0, ctx, y, x, g, by_row, accumulate, ctx.fault);
  else
    launch(segment_sum_warp_per_group<1>, blocks, kRowGroups * kWarp, 0, ctx, y, x, g, by_row, accumulate, ctx.fault);
}

void split_rows(Ctx& ctx, RowList users, RowList items, RowList nodes, int64_t n_users) {
  // an empty list has counts to write as well
  const int64_t blocks = std::max(int64_t(1), blocks_for(nodes.capacity, 256));
  launch(split_at, blocks, 256, 0, ctx, users, items, nodes, n_users, ctx.fault);
}

void merge_rows(Ctx& ctx, RowList out, RowList a, RowList b) {
  uint32_t* const both = keys_room(ctx, 0, a.capacity + b.capacity);
  launch(merge_by_rank, blocks_for(a.capacity + b.capacity, 256), 256, 0, ctx, both, a, b);
  write_distinct(ctx, out, nullptr, both, a, b);
}

void fill_zero(Ctx& ctx, Mat y) {
  if (y.size()) library::fill(ctx, y.p, 0, size_t(y.size()) * sizeof(float));
}

void zero_rows(Ctx& ctx, Mat y, RowList rows) {
  if (moves_by(4, y.cols, y.p))
    launch(zero_by_tile<float4>, tiles(rows.capacity), kMoveThreads, 0, ctx, y.p, rows, y.cols / 4);
  else
    launch(zero_by_tile<float>, tiles(rows.capacity), kMoveThreads, 0, ctx, y.p, rows, y.cols);
}

void group_scratch(ScratchPlan& p, int64_t n) {
  const int64_t keys = blocks_for(n, 4) * 4 * 4;
  p.need(0, keys);
  if (n > kMostCounted) p.need(1, keys), p.need(2, n * 4), library::sort_scratch(p, n, 4);
}
void merge_rows_scratch(ScratchPlan& p, int64_t capacity) { p.need(0, blocks_for(capacity, 4) * 4 * 4); }

}  // namespace ccdrec::cuda
