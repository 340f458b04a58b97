// Items that a user lacks, drawn by rejection: negatives, unseen_items, the candidates of hardest_negative. Private to
// kernels/cpu.
#pragma once
#include "kernels/interacted.h"
#include "kernels/rng.h"

namespace ccdrec::cpu {

// Uniform over item(0..n-1) without those the user has: draws 0..63 by rejection, then, for users who have nearly all,
// exactly by counting.
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
