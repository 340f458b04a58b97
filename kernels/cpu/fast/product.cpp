#include "kernels/cpu/fast/product.h"

#include <algorithm>

namespace ccdrec::cpu {
namespace {

constexpr int64_t kTileCols = 256;
// micro-tiles a tile is high; fewer when C is small, so that there is work for all threads
constexpr int64_t kMaxGroups = 8;
constexpr int64_t kEnoughTiles = 16;
constexpr int64_t kStrip = 8;  // panels packed together, so that rows are read a strip at a time

}  // namespace

void product_scratch(ScratchPlan& p, int64_t m, int64_t n, int64_t k, bool left_trans) {
  const int64_t nr = micro_kernel().nr;
  p.need(0, ceil_div(n, nr) * nr * k * 4);
  if (left_trans) p.need(1, most_sums(m, n, k, p.threads) * 4);
}

void pack_right(float* panels, const Right& right, int64_t n, int64_t k0, int64_t kc, int64_t p0, int64_t p1) {
  const int64_t nr = micro_kernel().nr;
  if (!right.trans)
    pack_across(panels, nr, right.p + k0 * right.ld, right.ld, kc, p0 * nr, std::min(n, p1 * nr) - p0 * nr);
  for (int64_t p = p0; right.trans && p < p1; ++p)
    pack_along(panels + (p - p0) * kc * nr, nr, right.p + p * nr * right.ld + k0, right.ld, kc,
               std::min(nr, n - p * nr));
}

// Right is packed whole, in blocks of 256 terms and panels of nr columns; then the tiles of C go to the threads. Within
// a tile and block a panel (32 KB at most) stays in L1 while the rows pass by.
void product(Ctx& ctx, Mat c, int64_t k, const Left& left, const Right& right, bool accumulate) {
  const int64_t m = c.rows, n = c.cols;
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate) std::fill_n(c.p, c.size(), 0.0f);
    return;
  }
  if (left.trans) return transposed_product(ctx, c, k, left, right, accumulate);
  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr, groups = ceil_div(m, mr), panels = ceil_div(n, nr),
                col_tiles = ceil_div(n, kTileCols);
  const int64_t tile_groups = std::clamp<int64_t>(groups * col_tiles / kEnoughTiles, 1, kMaxGroups),
                row_tiles = ceil_div(groups, tile_groups);
  float* packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * k) * sizeof(float)));

#pragma omp parallel num_threads(ctx.threads_for(kTermNs* m* n* k))
  {
    const int64_t blocks = ceil_div(k, kBlock), strips = ceil_div(panels, kStrip);
#pragma omp for
    for (int64_t bs = 0; bs < blocks * strips; ++bs) {
      const int64_t k0 = bs / strips * kBlock, kc = std::min(kBlock, k - k0), p0 = bs % strips * kStrip,
                    p1 = std::min(p0 + kStrip, panels);
      pack_right(packed + (k0 * panels + p0 * kc) * nr, right, n, k0, kc, p0, p1);
    }
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t tile = 0; tile < row_tiles * col_tiles; ++tile) {
      const int64_t g0 = tile / col_tiles * tile_groups, g1 = std::min(g0 + tile_groups, groups);
      const int64_t p0 = tile % col_tiles * (kTileCols / nr), p1 = std::min(p0 + kTileCols / nr, panels);
      for (int64_t k0 = 0; k0 < k; k0 += kBlock) {
        const int64_t kc = std::min(kBlock, k - k0);
        const float* a[kMaxGroups * kMaxMr];
        // beyond the edge: any row
        for (int64_t i = 0; i < (g1 - g0) * mr; ++i) a[i] = left.row(std::min(g0 * mr + i, m - 1)) + k0;
        for (int64_t p = p0; p < p1; ++p) {
          const float* b = packed + k0 * panels * nr + p * kc * nr;
          for (int64_t g = g0; g < g1; ++g)
            partial_tile(mk, c.row(g * mr) + p * nr, n, std::min(mr, m - g * mr), std::min(nr, n - p * nr),
                         a + (g - g0) * mr, b, kc, accumulate || k0 > 0);
        }
      }
    }
  }
}

}  // namespace ccdrec::cpu
