
#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/unseen.h"
#include "kernels/sample.h"

namespace ccdrec::cuda {
namespace {

// a batch of 2,048 is only 64 warps: small blocks spread them over more multiprocessors
constexpr int kSampleBlock = 256, kUnseenBlock = 64;

// A 64-bit key and its row's number.
// Geometry  one thread a row.
// Traffic   12 bytes a row written.
__global__ void shuffle_keys(uint64_t* key, int32_t* index, int64_t n, Stream stream, const Late* late) {
  const int64_t r = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r >= n) return;
  const Draw4 x = draw(resolved(stream, late), uint32_t(r));
  key[r] = uint64_t(x.v[0]) << 32 | x.v[1];
  index[r] = int32_t(r);
}

// Geometry  one thread a candidate.
// Traffic   4 bytes each written.
__global__ void candidates_draw(uint32_t* drawn, int64_t count, uint32_t n_items, Stream stream, const Late* late) {
  const int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j < count) drawn[j] = below(draw(resolved(stream, late), uint32_t(j)).v[0], n_items);
}

// out[k*batch + b] = an item that users[b] lacks, drawn at row (first_row + b)*n_neg + k: by rejection, then exactly.
// Geometry  one thread an entry; the entries that 64 draws left open are settled one after another by their whole warp.
// Traffic   8 bytes an entry, coalesced; each draw reads one item and the log2(row) nodes of a search in the user's
//           row, mostly from cache.
// Limits    a user who has nearly all items reads the item list twice: n_items/32 steps of a warp.
__global__ void unseen_thread_per_entry(int32_t* out, const int32_t* users, int64_t batch, int64_t n_neg,
                                        int64_t first_row, Csr train, Choice from, Stream stream, const Late* late) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const Stream s = resolved(stream, late);
  const bool here = e < n_neg * batch;
  const int64_t b = e % batch, k = e / batch;
  const int32_t user = here ? users[b] : 0;
  const int32_t item = draw_unseen(s, here, uint32_t((late_first(first_row, late) + b) * n_neg + k), user, train, from);
  if (here) out[e] = item;
}

void launch_unseen(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int64_t n_neg, int64_t first_row,
                   const Csr& train, Choice from, Stream s) {
  CHECK_THAT(batch == 0 || from.n > 0);
  launch(unseen_thread_per_entry, blocks_for(n_neg * batch, kUnseenBlock), kUnseenBlock, 0, ctx, out, users, batch,
         n_neg, first_row, train, from, s, ctx.late);
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

void negatives(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int n_neg, int64_t first_row,
               const Csr& train, const int32_t* items, int64_t n_items, Stream s) {
  CHECK_THAT(batch == 0 || items != nullptr);
  launch_unseen(ctx, out, users, batch, n_neg, first_row, train, Choice{items, n_items}, s);
}

void unseen_items(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, const Csr& train, int64_t n_items,
                  Stream s) {
  launch_unseen(ctx, out, users, batch, 1, 0, train, Choice{nullptr, n_items}, s);
}

void candidates(Ctx& ctx, int32_t* out, int64_t count, int64_t n_items, Stream s) {
  CHECK_THAT(count == 0 || n_items > 0);
  auto* drawn = static_cast<uint32_t*>(ctx.scratch(0, size_t(count) * sizeof(uint32_t)));
  launch(candidates_draw, blocks_for(count, kSampleBlock), kSampleBlock, 0, ctx, drawn, count, uint32_t(n_items), s,
         ctx.late);
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
