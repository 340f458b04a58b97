#include "kernels/sample.h"

#include <algorithm>
#include <bit>

#include "kernels/cpu/fast/radix.h"
#include "kernels/cpu/unseen.h"

namespace ccdrec::cpu {
namespace {

// rows of a batch: where a user's items begin is asked for so early, the first of them half as early
constexpr int64_t kAhead = 16;

struct Entry {  // of a shuffle
  uint64_t key;
  int64_t row;
  bool operator<(const Entry& o) const { return key != o.key ? key < o.key : row < o.row; }
};
int bucket_bits(int64_t n) { return std::clamp(int(std::bit_width(uint64_t(n))) - 5, 1, 16); }

}  // namespace

// Sort by (key, row): rows are dealt into buckets by the leading bits of their keys, about 32 to each, and every bucket
// is sorted alone.
void shuffle(Ctx& ctx, int32_t* order, int64_t n, Stream s) {
  const int bits = bucket_bits(n);
  const int64_t buckets = int64_t(1) << bits;
  uint64_t* key = static_cast<uint64_t*>(ctx.scratch(0, size_t(n) * sizeof(uint64_t)));
  Entry* entry = static_cast<Entry*>(ctx.scratch(1, size_t(n) * sizeof(Entry)));
  int64_t* start = static_cast<int64_t*>(ctx.scratch(2, size_t(buckets + 1) * sizeof(int64_t)));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < n; ++r) {
    const Draw4 x = draw(s, uint32_t(r));
    key[r] = uint64_t(x.v[0]) << 32 | x.v[1];
  }
  std::fill_n(start, buckets + 1, int64_t(0));
  for (int64_t r = 0; r < n; ++r) ++start[key[r] >> (64 - bits)];
  for (int64_t b = 0, sum = 0; b <= buckets; ++b) sum += std::exchange(start[b], sum);
  // start[b] becomes the end of bucket b
  for (int64_t r = 0; r < n; ++r) entry[start[key[r] >> (64 - bits)]++] = {key[r], r};
#pragma omp parallel for num_threads(ctx.threads) schedule(static, 64)
  for (int64_t b = 0; b < buckets; ++b) {
    const int64_t from = b ? start[b - 1] : 0, to = start[b];
    std::sort(entry + from, entry + to);
    for (int64_t j = from; j < to; ++j) order[j] = int32_t(entry[j].row);
  }
}

void negatives(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int n_neg, int64_t first_row,
               const Csr& train, const int32_t* items, int64_t n_items, Stream s) {
  CHECK_THAT(batch == 0 || n_items > 0);
#pragma omp parallel for num_threads(ctx.threads) schedule(static, 64)
  for (int64_t b = 0; b < batch; ++b) {
    if (b + kAhead < batch) __builtin_prefetch(train.row_ptr + users[b + kAhead]);
    if (b + kAhead / 2 < batch) __builtin_prefetch(train.col + train.row_ptr[users[b + kAhead / 2]]);
    const Interacted seen(train, users[b]);
    for (int64_t k = 0; k < n_neg; ++k)
      out[k * batch + b] =
          draw_unseen(s, uint32_t((first_row + b) * n_neg + k), n_items, seen, [items](int64_t j) { return items[j]; });
  }
}

void unseen_items(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, const Csr& train, int64_t n_items,
                  Stream s) {
  CHECK_THAT(batch == 0 || n_items > 0);
#pragma omp parallel for num_threads(ctx.threads) schedule(static, 64)
  for (int64_t b = 0; b < batch; ++b)
    out[b] = draw_unseen(s, uint32_t(b), n_items, Interacted(train, users[b]), [](int64_t i) { return int32_t(i); });
}

void candidates(Ctx& ctx, int32_t* out, int64_t count, int64_t n_items, Stream s) {
  CHECK_THAT(count == 0 || n_items > 0);
  uint64_t* drawn = static_cast<uint64_t*>(ctx.scratch(0, size_t(count) * sizeof(uint64_t)));
  uint64_t* room = static_cast<uint64_t*>(ctx.scratch(1, size_t(count) * sizeof(uint64_t)));
  for (int64_t j = 0; j < count; ++j) drawn[j] = uint64_t(below(draw(s, uint32_t(j)).v[0], uint32_t(n_items))) << 32;
  const uint64_t* sorted = sort_by_high_half(drawn, room, count, n_items);
  for (int64_t j = 0; j < count; ++j) out[j] = int32_t(sorted[j] >> 32);
}

void shuffle_scratch(ScratchPlan& p, int64_t n) {
  p.need(0, n * 8), p.need(1, n * int64_t(sizeof(Entry))), p.need(2, ((int64_t(1) << bucket_bits(n)) + 1) * 8);
}
void candidates_scratch(ScratchPlan& p, int64_t count) { p.need(0, count * 8), p.need(1, count * 8); }

}  // namespace ccdrec::cpu
