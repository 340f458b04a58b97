// Items that a user lacks, drawn by rejection: negatives, unseen_items, the candidates of hardest_negative. Private to
// kernels/cuda.
#pragma once
#include "kernels/cuda/device.h"
#include "kernels/interacted.h"

namespace ccdrec::cuda {

struct Choice {         // what is drawn from
  const int32_t* item;  // null: 0, 1, 2, ...
  int64_t n;
  __device__ int32_t at(int64_t j) const { return item ? item[j] : int32_t(j); }
};

// Uniform over the items the user lacks, by x; any item for a user who has them all. The whole warp counts, 32 items at
// a time, and gets the result.
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
    // `left` lacked items of these 32 come before it
    const bool chosen = lacked && uint32_t(__popc(here & ((1u << lane) - 1))) == left;
    return __shfl_sync(kAll, i, __ffs(int(__ballot_sync(kAll, chosen))) - 1);
  }
}

// One draw a lane, at `row` of the stream, for the lanes that are `wanted` (others get 0). The whole warp calls it:
// draws that rejection leaves open are settled one after another by all lanes.
__device__ inline int32_t draw_unseen(Stream s, bool wanted, uint32_t row, int32_t user, const Csr& train,
                                      const Choice& from) {
  bool open = wanted;
  int32_t item = 0;
  if (open) {
    const Interacted seen(train, user);
    for (uint32_t sub = 0; sub < kRedraws && open; ++sub) {
      const int32_t i = from.at(below(draw(s, row, sub).v[0], uint32_t(from.n)));
      if (seen.has(i)) continue;
      item = i;
      open = false;
    }
  }
  for (unsigned left = __ballot_sync(kAll, open); left != 0; left &= left - 1) {
    const int owner = __ffs(int(left)) - 1;
    const int32_t u = __shfl_sync(kAll, user, owner);
    const uint32_t x = draw(s, __shfl_sync(kAll, row, owner), kRedraws).v[0];
    const int32_t i = choose_exactly(x, Interacted(train, u), from);
    if (int(threadIdx.x) % kWarp == owner) item = i;
  }
  return item;
}

}  // namespace ccdrec::cuda
