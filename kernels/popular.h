// A draw by popularity, the same source for both devices: the popularity sampler's alias table (hard.h makes and reads
// it).
#pragma once
#include "kernels/interacted.h"
#include "kernels/rng.h"

namespace ccdrec {

struct PopularColumn {  // of an alias table over the items that occur in training: columns are drawn uniformly
  int32_t item, alias;  // alias: the item drawn where the second integer is not below `keep`
  uint32_t keep;        // keep / 2^32 of the column is `item` (0xffffffff, and alias = item, where all of it is)
  float share;          // P(item), for the exact choice after 64 rejections
};

// Draws 0..63 by rejection; then by `share` among the items the user lacks, which are summed in column order, by one
// draw more.
CCDREC_HD inline int32_t draw_popular(Stream s, uint32_t row, const PopularColumn* column, int64_t n,
                                      const Interacted& seen) {
  for (uint32_t sub = 0; sub < kRedraws; ++sub) {
    const Draw4 x = draw(s, row, sub);
    const PopularColumn& c = column[below(x.v[0], uint32_t(n))];
    const int32_t i = x.v[1] < c.keep ? c.item : c.alias;
    if (!seen.has(i)) return i;
  }
  const uint32_t x = draw(s, row, kRedraws).v[0];
  double lacked = 0;
  for (int64_t k = 0; k < n; ++k)
    if (!seen.has(column[k].item)) lacked += double(column[k].share);
  if (lacked == 0) return column[below(x, uint32_t(n))].item;
  const double target = double(x) * 0x1p-32 * lacked;  // below `lacked`, which the same sum reaches again
  double sum = 0;
  for (int64_t k = 0;; ++k) {
    if (seen.has(column[k].item)) continue;
    sum += double(column[k].share);
    if (sum > target) return column[k].item;
  }
}

}  // namespace ccdrec
