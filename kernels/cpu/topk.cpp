#include "kernels/topk.h"

#include <omp.h>

#include <algorithm>
#include <climits>
#include <cmath>

#include "kernels/cpu/fast/microkernel.h"
#include "kernels/cpu/fast/radix.h"
#include "kernels/numbers.h"

namespace ccdrec::cpu {
namespace {

constexpr int64_t kUsers = 48, kItems = 64;  // a tile: its panels of Hi and its rows of Hu share L1 at d = 64
constexpr int64_t kByDigits = 256;           // entries of a list from which on digits sort faster than comparisons

int64_t count_above(const int32_t* key, int64_t n, int32_t limit) {
  int32_t above = 0;
  for (int64_t c = 0; c < n; ++c) above += key[c] > limit;
  return above;
}

// One user's candidates in item order: everything above the k-th best so far is appended; when the room is full the k
// best stay.
struct Best {
  int32_t *key, *item;  // key: signed_key of the score
  int64_t n;
  float limit;  // score of the k-th best when last known; NaN = take everything
  const int32_t *mask, *mask_end;

  // Scores s[at[0..found-1]] of items first + at[..]. Scores equal to the limit do not come here: items ascend, so the
  // earlier one wins.
  void take(const float* s, const int32_t* at, int64_t found, int64_t first) {
    for (int64_t c = 0; c < found; ++c) {
      const int32_t i = int32_t(first) + at[c];
      while (mask < mask_end && *mask < i) ++mask;
      if (mask < mask_end && *mask == i) continue;
      key[n] = signed_key(ordered_key(s[at[c]]));
      item[n++] = i;
    }
  }

  // Bisection on the key, each step one vector pass over a list that lies in L1. Invariant: above(hi) <= k < above(lo).
  void keep(int64_t k) {
    if (n <= k) return;
    int64_t lo = int64_t(*std::min_element(key, key + n)) - 1, hi = *std::max_element(key, key + n), above_hi = 0;
    while (hi - lo > 1 && above_hi < k) {
      const int64_t mid = lo + (hi - lo) / 2, above = count_above(key, n, int32_t(mid));
      if (above > k)
        lo = mid;
      else
        hi = mid, above_hi = above;
    }
    int64_t equals = k - above_hi, kept = 0;  // of the scores equal to hi the first are the lowest items
    int32_t last = INT_MAX;
    for (int64_t c = 0; c < n; ++c) {
      const int32_t key_c = key[c];
      // no branch: it would be a coin toss
      const bool equal = key_c == hi, stays = bool(key_c > hi) | (equal & bool(equals > 0));
      key[kept] = key_c, item[kept] = item[c];
      kept += stays, equals -= equal;
      last = stays ? std::min(last, key_c) : last;
    }
    n = kept;
    limit = key_value(unsigned_key(last));
  }

  // Best first, as (complement of the key, item) in one integer each; room for 2 n. Items ascend already, so that a
  // stable sort by the key alone leaves equals in their order.
  const uint64_t* sorted(uint64_t* room) const {
    for (int64_t c = 0; c < n; ++c) room[c] = uint64_t(~unsigned_key(key[c])) << 32 | uint32_t(item[c]);
    if (n >= kByDigits) return sort_by_high_half(room, room + n, n, int64_t(1) << 32);
    std::sort(room, room + n);
    return room;
  }
};

}  // namespace

void score_topk(Ctx& ctx, int32_t* top, float* score, CMat hu, const int32_t* users, int64_t n, CMat hi,
                const Csr* mask, int64_t k) {
  const int64_t I = hi.rows, d = hi.cols;
  CHECK_THAT(k >= 1 && n >= 0);
  CHECK_SHAPE(hu, hu.rows, d);
  if (mask) CHECK_SHAPE(*mask, hu.rows, I);
  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr, panels = (I + nr - 1) / nr;
  const int64_t kept = std::min(k, I), room = kept + std::max(kept, kItems);
  float* packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * d) * sizeof(float)));
  int32_t* lists =
      static_cast<int32_t*>(ctx.scratch(1, size_t(ctx.threads) * size_t(kUsers * 2 * room) * sizeof(int32_t)));
  uint64_t* sorting = static_cast<uint64_t*>(ctx.scratch(2, size_t(ctx.threads) * size_t(2 * kept) * sizeof(uint64_t)));

#pragma omp parallel num_threads(ctx.threads)
  {
#pragma omp for
    for (int64_t p = 0; p < panels; ++p)
      pack_along(packed + p * nr * d, nr, hi.row(p * nr), d, d, std::min(nr, I - p * nr));
#pragma omp for schedule(dynamic, 1)
    for (int64_t u0 = 0; u0 < n; u0 += kUsers) {
      const int64_t count = std::min(kUsers, n - u0);
      Best best[kUsers];
      const float* row[kUsers + kMaxMr];
      for (int64_t u = 0; u < kUsers; ++u) {
        const int64_t user = users[u0 + std::min(u, count - 1)];  // beyond the last user: any row
        row[u] = hu.row(user);
        int32_t* list = lists + (omp_get_thread_num() * kUsers + u) * 2 * room;
        best[u] = {list, list + room, 0, NAN, nullptr, nullptr};
        if (mask)
          best[u].mask = mask->col + mask->row_ptr[user], best[u].mask_end = mask->col + mask->row_ptr[user + 1];
      }
      for (int64_t i0 = 0; i0 < I; i0 += kItems) {
        const int64_t items = std::min(kItems, I - i0);
        for (int64_t g = 0; g < count; g += mr) {
          float s[kMaxMr * kItems];
          for (int64_t j = 0; j < items; j += nr) mk.in_place(s + j, kItems, row + g, packed + (i0 + j) * d, d, false);
          for (int64_t r = 0; r < std::min(mr, count - g); ++r) {
            Best& b = best[g + r];
            int32_t at[kItems];
            const int64_t found = mk.above(at, s + r * kItems, items, b.limit);
            if (found == 0) continue;
            if (b.n + found > room) b.keep(kept);  // the limit rises; those below the new one are dropped next time
            b.take(s + r * kItems, at, found, i0);
          }
        }
      }
      for (int64_t u = 0; u < count; ++u) {
        Best& b = best[u];
        b.keep(kept);
        const uint64_t* const order = b.sorted(sorting + omp_get_thread_num() * 2 * kept);
        for (int64_t c = 0; c < k; ++c) {
          top[(u0 + u) * k + c] = c < b.n ? int32_t(uint32_t(order[c])) : -1;
          score[(u0 + u) * k + c] = c < b.n ? key_value(~uint32_t(order[c] >> 32)) : -INFINITY;
        }
      }
    }
  }
}

void score_topk_scratch(ScratchPlan& p, int64_t, int64_t I, int64_t d, int64_t k) {
  const int64_t nr = micro_kernel().nr, kept = std::min(k, I), room = kept + std::max(kept, kItems);
  p.need(0, (I + nr - 1) / nr * nr * d * 4), p.need(1, p.threads * kUsers * 2 * room * 4),
      p.need(2, p.threads * 2 * kept * 8);
}

}  // namespace ccdrec::cpu
