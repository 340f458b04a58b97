
#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/sample.h"

namespace ccdrec::cuda {
namespace {

constexpr uint32_t kRedraws = 64;
constexpr int kSampleBlock = 256, kUnseenBlock = 64;  // a batch of 2,048 is only 64 warps: small blocks spread them over more multiprocessors

// A 64-bit key and its row's number.
// Geometry  one thread a row. Traffic 12 bytes a row written.
__global__ void shuffle_keys(uint64_t* key, int32_t* index, int64_t n, Stream stream, const Late* late) {
  const int64_t r = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r >= n) return;
  const Draw4 x = draw(resolved(stream, late), uint32_t(r));
  key[r] = uint64_t(x.v[0]) << 32 | x.v[1];
  index[r] = int32_t(r);
}

// Geometry  one thread a candidate. Traffic 4 bytes each written.
__global__ void candidates_draw(uint32_t* drawn, int64_t count, uint32_t n_items, Stream stream, const Late* late) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j < count) drawn[j] = below(draw(resolved(stream, late), uint32_t(j)).v[0], n_items);
}

struct Interacted {  // one user's training items, ascending
  const int32_t* item;
  int64_t n;
  __device__ Interacted(const Csr& train, int32_t u) : item(train.col + train.row_ptr[u]), n(train.row_ptr[u + 1] - train.row_ptr[u]) {}
  __device__ bool has(int32_t i) const {
    int64_t first = 0, last = n;
    while (first < last) {
      const int64_t middle = (first + last) / 2;
      if (item[middle] < i)
        first = middle + 1;
      else
        last = middle;
    }
    return first < n && item[first] == i;
  }
};

struct Choice {         // what is drawn from
  const int32_t* item;  // null: 0, 1, 2, ...
  int64_t n;
  __device__ int32_t at(int64_t j) const { return item ? item[j] : int32_t(j); }
};

// Uniform over the items the user lacks, by x; any item for a user who has them all. The whole warp counts, 32 items at a time, and gets the result.
__device__ inline int32_t choose_exactly(uint32_t x, const Interacted& seen, const Choice& from) {
  const int lane = int(threadIdx.x) % kWarp;
  uint32_t lacks = 0;
  for (int64_t j = lane; j < from.n; j += kWarp) lacks += !seen.has(from.at(j));
  for (int step = kWarp / 2; step > 0; step /= 2) lacks += __shfl_xor_sync(kAll, lacks, step);
  if (lacks == 0) return from.at(below(x, uint32_t(from.n)));
  uint32_t left = below(x, lacks);
  for (int64_t base = 0;; base += kWarp) {
    const int64_t j = base + lane;
    const int32_t i = j < from.n ? from.at(j) : 0;
    const bool lacked = j < from.n && !seen.has(i);
    const unsigned here = __ballot_sync(kAll, lacked);
    if (left >= uint32_t(__popc(here))) {
      left -= uint32_t(__popc(here));
      continue;
    }
    const bool chosen = lacked && uint32_t(__popc(here & ((1u << lane) - 1))) == left;  // `left` lacked items of these 32 come before it
    return __shfl_sync(kAll, i, __ffs(int(__ballot_sync(kAll, chosen))) - 1);
  }
}

// out[k*batch + b] = an item that users[b] lacks, drawn at row (first_row + b)*n_neg + k: by rejection, then exactly.
// Geometry  one thread an entry; the entries that 64 draws left open are settled one after another by their whole warp.
// Traffic   8 bytes an entry, coalesced; each draw reads one item and the log2(row) nodes of a search in the user's row, mostly from cache.
// Limits    a user who has nearly all items reads the item list twice: n_items/32 steps of a warp.
__global__ void unseen_thread_per_entry(int32_t* out, const int32_t* users, int64_t batch, int64_t n_neg, int64_t first_row, Csr train, Choice from,
                                        Stream stream, const Late* late) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const Stream s = resolved(stream, late);
  bool open = e < n_neg * batch;
  int32_t user = 0;
  uint32_t row = 0;
  if (open) {
    const int64_t b = e % batch, k = e / batch;
    user = users[b];
    row = uint32_t((late_first(first_row, late) + b) * n_neg + k);
    const Interacted seen(train, user);
    for (uint32_t sub = 0; sub < kRedraws && open; ++sub) {
      const int32_t i = from.at(below(draw(s, row, sub).v[0], uint32_t(from.n)));
      if (seen.has(i)) continue;
      out[e] = i;
      open = false;
    }
  }
  for (unsigned left = __ballot_sync(kAll, open); left != 0; left &= left - 1) {
    const int owner = __ffs(int(left)) - 1;
    const int32_t u = __shfl_sync(kAll, user, owner);
    const uint32_t x = draw(s, __shfl_sync(kAll, row, owner), kRedraws).v[0];
    const int32_t i = choose_exactly(x, Interacted(train, u), from);
    if (int(threadIdx.x) % kWarp == owner) out[e] = i;
  }
}

void draw_unseen(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int64_t n_neg, int64_t first_row, const Csr& train, Choice from,
                 Stream s) {
  CHECK_THAT(batch == 0 || from.n > 0);
  launch(unseen_thread_per_entry, blocks_for(n_neg * batch, kUnseenBlock), kUnseenBlock, 0, ctx, out, users, batch, n_neg, first_row, train, from, s,
         ctx.late);
}

}  // namespace

// The sort is stable: equal keys stay in the order of their rows.
void shuffle(Ctx& ctx, int32_t* order, int64_t n, Stream s) {
  CHECK_THAT(n < int64_t(1) << 31);
  auto* key = static_cast<uint64_t*>(ctx.scratch(0, size_t(n) * sizeof(uint64_t)));
  auto* sorted = static_cast<uint64_t*>(ctx.scratch(1, size_t(n) * sizeof(uint64_t)));
  auto* index = static_cast<int32_t*>(ctx.scratch(2, size_t(n) * sizeof(int32_t)));
  launch(shuffle_keys, blocks_for(n, kSampleBlock), kSampleBlock, 0, ctx, key, index, n, s, ctx.late);
  library::sort_pairs(ctx, sorted, order, key, index, n);
}

void negatives(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int n_neg, int64_t first_row, const Csr& train, const int32_t* items,
               int64_t n_items, Stream s) {
  CHECK_THAT(batch == 0 || items != nullptr);
  draw_unseen(ctx, out, users, batch, n_neg, first_row, train, Choice{items, n_items}, s);
}

void unseen_items(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, const Csr& train, int64_t n_items, Stream s) {
  draw_unseen(ctx, out, users, batch, 1, 0, train, Choice{nullptr, n_items}, s);
}

void candidates(Ctx& ctx, int32_t* out, int64_t count, int64_t n_items, Stream s) {
  CHECK_THAT(count == 0 || n_items > 0);
  auto* drawn = static_cast<uint32_t*>(ctx.scratch(0, size_t(count) * sizeof(uint32_t)));
  launch(candidates_draw, blocks_for(count, kSampleBlock), kSampleBlock, 0, ctx, drawn, count, uint32_t(n_items), s, ctx.late);
  library::sort_keys(ctx, reinterpret_cast<uint32_t*>(out), drawn, count, bits_below(n_items));
}

void shuffle_scratch(ScratchPlan& p, int64_t n) {
  p.need(0, n * 8), p.need(1, n * 8), p.need(2, n * 4);
  library::sort_scratch(p, n, 8);
}
void candidates_scratch(ScratchPlan& p, int64_t count) {
  p.need(0, count * 4);
  library::sort_scratch(p, count, 4);
}

}  // namespace ccdrec::cuda
