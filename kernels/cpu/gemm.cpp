#include "kernels/gemm.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

#include "kernels/cpu/product.h"

namespace ccdrec::cpu {
namespace {

constexpr int64_t kTileCols = 256;
constexpr int64_t kMaxGroups = 8;  // micro-tiles a tile is high; fewer when C is small, so that there is work for all threads
constexpr int64_t kEnoughTiles = 16;
constexpr int64_t kStrip = 8;                                // panels packed together, so that rows are read a strip at a time
constexpr int64_t kLeftRoom = kMaxGroups * kMaxMr * kBlock;  // floats of a thread's transposed left operand

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void product_scratch(ScratchPlan& p, int64_t n, int64_t k, bool left_trans) {
  const int64_t nr = micro_kernel().nr;
  p.need(0, ceil_div(n, nr) * nr * k * 4);
  if (left_trans) p.need(1, kLeftRoom * p.threads * 4);
}

// Right is packed whole, in blocks of 256 terms and panels of nr columns; then the tiles of C go to the threads. Within a tile and block a panel
// (32 KB at most) stays in L1 while the rows pass by. A transposed left operand is packed strip by strip, 256 rows of features that lie pages apart, where
// no hardware prefetcher follows: while one strip is multiplied, the tiles ask for the lines of the next.
void product(Ctx& ctx, Mat c, int64_t k, const Left& left, const Right& right, bool accumulate) {
  const int64_t m = c.rows, n = c.cols;
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate) std::fill_n(c.p, c.size(), 0.0f);
    return;
  }
  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr, groups = ceil_div(m, mr), panels = ceil_div(n, nr), col_tiles = ceil_div(n, kTileCols);
  const int64_t tile_groups = std::clamp<int64_t>(groups * col_tiles / kEnoughTiles, 1, kMaxGroups), row_tiles = ceil_div(groups, tile_groups);
  float* packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * k) * sizeof(float)));
  float* packed_left = left.trans ? static_cast<float*>(ctx.scratch(1, size_t(kLeftRoom) * size_t(ctx.threads) * sizeof(float))) : nullptr;
  const int64_t tiles = row_tiles * col_tiles;
  std::atomic<int64_t> taken{0};

#pragma omp parallel num_threads(ctx.threads)
  {
    const int64_t blocks = ceil_div(k, kBlock), strips = ceil_div(panels, kStrip);
#pragma omp for
    for (int64_t bs = 0; bs < blocks * strips; ++bs) {
      const int64_t k0 = bs / strips * kBlock, kc = std::min(kBlock, k - k0), p0 = bs % strips * kStrip, p1 = std::min(p0 + kStrip, panels);
      float* strip = packed + (k0 * panels + p0 * kc) * nr;
      if (!right.trans) pack_across(strip, nr, right.p + k0 * right.ld, right.ld, nullptr, kc, p0 * nr, std::min(n, p1 * nr) - p0 * nr);
      for (int64_t p = p0; right.trans && p < p1; ++p)
        pack_along(strip + (p - p0) * kc * nr, nr, right.p + p * nr * right.ld + k0, right.ld, kc, std::min(nr, n - p * nr));
    }
    float* mine = left.trans ? packed_left + omp_get_thread_num() * kLeftRoom : nullptr;
    const float* ahead[kBlock];
    for (int64_t tile = taken++, next; tile < tiles; tile = next) {
      next = taken++;
      const int64_t g0 = tile / col_tiles * tile_groups, g1 = std::min(g0 + tile_groups, groups);
      const int64_t p0 = tile % col_tiles * (kTileCols / nr), p1 = std::min(p0 + kTileCols / nr, panels);
      for (int64_t k0 = 0; k0 < k; k0 += kBlock) {
        const int64_t kc = std::min(kBlock, k - k0);
        const float* a[kMaxGroups * kMaxMr];
        for (int64_t i = 0; !left.trans && i < (g1 - g0) * mr; ++i) a[i] = left.row(std::min(g0 * mr + i, m - 1)) + k0;  // beyond the edge: any row
        Ahead asked{ahead};
        int64_t rows_ahead = 0;
        if (left.trans) {
          const int64_t cols = std::min(g1 * mr, m) - g0 * mr;
          pack_across(mine, mr, left.idx ? left.p : left.row(k0), left.ld, left.idx ? left.idx + k0 : nullptr, kc, g0 * mr, cols);
          const bool here = k0 + kBlock < k;
          const int64_t k1 = here ? k0 + kBlock : 0, first = (here ? g0 : next / col_tiles * tile_groups) * mr;
          if (first < m) rows_ahead = std::min(kBlock, k - k1);
          for (int64_t t = 0; t < rows_ahead; ++t) ahead[t] = left.row(k1 + t) + first;
          asked.lines = ceil_div(cols, kLine), asked.n = ceil_div(rows_ahead, (p1 - p0) * (g1 - g0));
        }
        const bool add = accumulate || k0 > 0;
        for (int64_t p = p0; p < p1; ++p) {
          const float* b = packed + k0 * panels * nr + p * kc * nr;
          const int64_t cols = std::min(nr, n - p * nr);
          for (int64_t g = g0; g < g1; ++g) {
            const int64_t rows = std::min(mr, m - g * mr);
            float* c_tile = c.row(g * mr) + p * nr;
            if (!left.trans) {
              partial_tile(mk, c_tile, n, rows, cols, a + (g - g0) * mr, b, kc, add);
              continue;
            }
            asked.n = std::min(asked.n, ahead + rows_ahead - asked.row);
            partial_tile(mk, c_tile, n, rows, cols, Panel{mine + (g - g0) * mr * kc, asked}, b, kc, add);
            asked.row += asked.n;
          }
        }
      }
    }
  }
}

void gemm(Ctx& ctx, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate) {
  const int64_t m = trans_a ? a.cols : a.rows, k = trans_a ? a.rows : a.cols, n = trans_b ? b.rows : b.cols;
  CHECK_THAT((trans_b ? b.cols : b.rows) == k);
  CHECK_SHAPE(c, m, n);
  product(ctx, c, k, {a.p, a.cols, nullptr, trans_a}, {b.p, b.cols, trans_b}, accumulate);
}

const char* gemm_isa() { return micro_kernel().name; }

}  // namespace ccdrec::cpu
