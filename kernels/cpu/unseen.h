// Items that a user lacks, drawn by rejection: negatives, unseen_items, the candidates of hardest_negative. Private to kernels/cpu.
#pragma once
#include <algorithm>

#include "kernels/rng.h"
#include "kernels/types.h"

namespace ccdrec::cpu {

constexpr uint32_t kRedraws = 64;

struct Interacted {  // one user's training items, ascending
  const int32_t *first, *last;
  Interacted(const Csr& train, int32_t u) : first(train.col + train.row_ptr[u]), last(train.col + train.row_ptr[u + 1]) {}
  bool has(int32_t i) const { return std::binary_search(first, last, i); }
};

// Uniform over item(0..n-1) without those the user has: draws 0..63 by rejection, then, for users who have nearly all, exactly by counting.
template <class Item>
inline int32_t draw_unseen(Stream s, uint32_t row, int64_t n, const Interacted& seen, Item&& item) {
  for (uint32_t sub = 0; sub < kRedraws; ++sub) {
    const int32_t i = item(below(draw(s, row, sub).v[0], uint32_t(n)));
    if (!seen.has(i)) return i;
  }
  const uint32_t x = draw(s, row, kRedraws).v[0];
  uint32_t lacks = 0;
  for (int64_t k = 0; k < n; ++k) lacks += !seen.has(item(k));
  if (lacks == 0) return item(below(x, uint32_t(n)));
  uint32_t left = below(x, lacks);
  for (int64_t k = 0;; ++k)
    if (!seen.has(item(k)) && left-- == 0) return item(k);
}

}  // namespace ccdrec::cpu
