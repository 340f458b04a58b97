// The product with a transposed left operand, C (m,n) = or += X^T Y with X (k,m) and Y (k,n): gradients of weights,
// summed over the rows of a batch.
#include <algorithm>
#include <atomic>
#include <utility>

#include "kernels/cpu/fast/product.h"

namespace ccdrec::cpu {
namespace {

// columns of X that are multiplied together: whole tiles of 12 and of 6
constexpr int64_t kChunk = kLinesAhead * kLine;
constexpr int64_t kWidest = 4 * kChunk;          // of a strip, which a thread takes with all its terms
constexpr int64_t kStripsEach = 4;               // for a thread at least, where C has as many chunks
constexpr int64_t kMostSums = int64_t(2) << 20;  // floats of block sums that are kept
// strips a thread up to which it takes blocks of terms (of 256 columns with 64, 26,495 terms: 18.9 to 12.9 ms of a
// core)
constexpr int64_t kFewStrips = 8;

// The rows of X that a block of terms reads.
struct Terms {
  const float* row[kBlock];
  int64_t n = 0;
  void take(const Left& x, int64_t k0, int64_t k) {
    n = std::min(kBlock, k - k0);
    for (int64_t t = 0; t < n; ++t) row[t] = x.row(k0 + t);
  }
};

// Columns from `first` on of a block of terms, mr of them, k-major; zeros from m1 on.
void pack_columns(float* to, int64_t mr, const Terms& x, int64_t first, int64_t m1) {
  const int64_t n = std::min(mr, m1 - first);
  for (int64_t t = 0; t < x.n; ++t) {
    for (int64_t r = 0; r < n; ++r) to[t * mr + r] = x.row[t][first + r];
    for (int64_t r = n; r < mr; ++r) to[t * mr + r] = 0;
  }
}

void ask_for(const Ahead& rows) {
  for (int64_t i = 0; i < rows.n; ++i)
    for (int64_t l = 0; l < kLinesAhead; ++l) __builtin_prefetch(rows.row[i] + rows.first + kLine * l, 0, 2);
}

// Panels of B from which on a chunk of X is packed before it is multiplied. Read where it lies, a chunk comes again for
// every panel, a page a term, more pages than the first TLB holds and out of L2. (Of 4096 columns with 256, 7,050
// terms: 250 to 157 ms of a core, Xeon; with 64, two panels of 32, it loses a little.)
constexpr int64_t kPackedFrom = 4;

// C[m0..m1) = or += X[:, m0..m1)^T B over a block of terms, kChunk rows of C at most. b: B's panels. Meanwhile the rows
// `asked` are asked for.
void multiply(const MicroKernel& mk, Mat c, const Terms& x, int64_t m0, int64_t m1, const float* b, bool add,
              Ahead asked) {
  const int64_t mr = mk.mr, nr = mk.nr, n = c.cols, panels = ceil_div(n, nr), groups = ceil_div(m1 - m0, mr),
                asked_end = asked.n;
  const bool packs = panels >= kPackedFrom;
  Ahead now = asked;
  now.n = ceil_div(asked.n, panels * groups);
  float packed[kBlock * (kChunk + kMaxMr)];  // groups of mr columns, k-major
  float* const edge_values = packed;         // or the last group alone
  const float* edge[kBlock];
  const int64_t at_edge = m0 + (groups - 1) * mr;
  if (packs) {
    for (int64_t g = 0; g < groups; ++g) pack_columns(packed + g * mr * x.n, mr, x, m0 + g * mr, m1);
  } else if (at_edge + mr > m1) {  // a tile reads mr columns, and behind the last ones of X nobody may read
    pack_columns(edge_values, mr, x, at_edge, m1);
    for (int64_t t = 0; t < x.n; ++t) edge[t] = edge_values + t * mr;
  }
  int64_t asked_for = 0;
  for (int64_t p = 0; p < panels; ++p)
    for (int64_t m = m0; m < m1; m += mr) {
      now.row = asked.row + asked_for, now.n = std::min(now.n, asked_end - asked_for), asked_for += now.n;
      const int64_t rows = std::min(mr, m1 - m), cols = std::min(nr, n - p * nr);
      float* const c_m = c.row(m) + p * nr;
      const float* const b_p = b + p * x.n * nr;
      if (packs)
        ask_for(now), partial_tile(mk, c_m, n, rows, cols, Packed{packed + (m - m0) * x.n}, b_p, x.n, add);
      else
        partial_tile(mk, c_m, n, rows, cols, rows < mr ? Across{edge, 0, now} : Across{x.row, m, now}, b_p, x.n, add);
    }
}

// A thread takes strips of columns, the terms block by block. The rows of X lie pages apart, where no hardware
// prefetcher follows, and a power of two at that, so that a cache holds few of them: while a chunk is multiplied, the
// lines of the next are asked for.
void by_strips(Ctx& ctx, Mat c, int64_t k, const Left& left, const Right& right, bool accumulate) {
  const MicroKernel& mk = micro_kernel();
  const int64_t m = c.rows, n = c.cols, nr = mk.nr, panels = ceil_div(n, nr), blocks = ceil_div(k, kBlock);
  const int64_t width = std::clamp(m / (kStripsEach * ctx.threads) / kChunk * kChunk, kChunk, kWidest),
                strips = ceil_div(m, width);
  float* const packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * k) * sizeof(float)));
  std::atomic<int64_t> taken{0};
#pragma omp parallel num_threads(ctx.threads_for(kTermNs* m* n* k))
  {
#pragma omp for collapse(2)
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t k0 = block * kBlock, kc = std::min(kBlock, k - k0);
        pack_right(packed + (k0 * panels + p * kc) * nr, right, n, k0, kc, p, p + 1);
      }
    Terms two[2], *here = two, *next = two + 1;
    int64_t strip = taken++;
    if (strip < strips) here->take(left, 0, k);
    for (int64_t next_strip; strip < strips; strip = next_strip) {
      next_strip = taken++;
      const int64_t m0 = strip * width, m1 = std::min(m0 + width, m);
      for (int64_t k0 = 0; k0 < k; k0 += kBlock) {
        const bool more = k0 + kBlock < k;
        next->take(left, more ? k0 + kBlock : 0, k);
        for (int64_t c0 = m0; c0 < m1; c0 += kChunk) {
          const int64_t c1 = std::min(c0 + kChunk, m1);
          const Ahead asked = c1 < m1                       ? Ahead{here->row, c1, here->n}
                              : more || next_strip < strips ? Ahead{next->row, more ? m0 : next_strip * width, next->n}
                                                            : Ahead{};
          multiply(mk, c, *here, c0, c1, packed + k0 * panels * nr, accumulate || k0 > 0, asked);
        }
        std::swap(here, next);
      }
    }
  }
}

// Few strips and many terms: a thread takes blocks of terms. Their sums are kept, and added in order.
void by_blocks(Ctx& ctx, Mat c, int64_t k, const Left& left, const Right& right, bool accumulate) {
  const MicroKernel& mk = micro_kernel();
  const int64_t m = c.rows, n = c.cols, nr = mk.nr, panels = ceil_div(n, nr), blocks = ceil_div(k, kBlock);
  float* const packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * k) * sizeof(float)));
  float* const sums = static_cast<float*>(ctx.scratch(1, size_t(blocks * m * n) * sizeof(float)));
#pragma omp parallel num_threads(ctx.threads)
  {
    Terms x;
#pragma omp for schedule(dynamic, 1)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t k0 = block * kBlock;
      float* const b = packed + k0 * panels * nr;
      x.take(left, k0, k);
      pack_right(b, right, n, k0, x.n, 0, panels);
      for (int64_t m0 = 0; m0 < m; m0 += kChunk) {
        const int64_t m1 = std::min(m0 + kChunk, m);
        multiply(mk, {sums + block * m * n, m, n}, x, m0, m1, b, false, m1 < m ? Ahead{x.row, m1, x.n} : Ahead{});
      }
    }
#pragma omp for
    for (int64_t r = 0; r < m; ++r) {
      float* const c_r = c.row(r);
      for (int64_t block = 0; block < blocks; ++block) {
        const float* const sum_r = sums + (block * m + r) * n;
        if (block == 0 && !accumulate)
          std::copy_n(sum_r, n, c_r);
        else
          for (int64_t j = 0; j < n; ++j) c_r[j] += sum_r[j];
      }
    }
  }
}

}  // namespace

bool sums_by_blocks(int64_t m, int64_t n, int64_t k, int threads) {
  const int64_t strips = ceil_div(m, kChunk), blocks = ceil_div(k, kBlock);
  return strips < kFewStrips * threads && strips < blocks && blocks * m * n <= kMostSums;
}

// Sums are kept by blocks for few terms, by strips for many: what so many terms or fewer may ask for.
int64_t most_sums(int64_t m, int64_t n, int64_t k, int threads) {
  const int64_t strips = ceil_div(m, kChunk), blocks = ceil_div(k, kBlock);
  return strips < kFewStrips * threads && strips < blocks ? std::min(blocks * m * n, kMostSums) : 0;
}

void transposed_product(Ctx& ctx, Mat c, int64_t k, const Left& left, const Right& right, bool accumulate) {
  if (sums_by_blocks(c.rows, c.cols, k, ctx.threads))
    by_blocks(ctx, c, k, left, right, accumulate);
  else
    by_strips(ctx, c, k, left, right, accumulate);
}

}  // namespace ccdrec::cpu
