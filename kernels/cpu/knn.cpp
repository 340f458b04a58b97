#include "kernels/knn.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/fast/microkernel.h"
#include "kernels/numbers.h"

namespace ccdrec::cpu {
namespace {

// rows of a tile: 16 micro-tiles pass over a panel of candidates while it lies in L1
constexpr int64_t kRows = 96;
constexpr int64_t kCandidates = 512;  // candidates packed at a time, shared by all threads: 8 MB at F = 4096

// The k nearest others of one row, best first: similarity, then hash, then id.
struct Neighbour {
  uint64_t rank;  // the similarity's ordered key, then the complement of the hash: higher is better
  int32_t id;
  bool before(const Neighbour& o) const { return rank != o.rank ? rank > o.rank : id < o.id; }
};

struct Nearest {
  Neighbour* best;  // room for one more than is kept
  int32_t n;
  // the float just below the last one when the list is full, so that equals go to the hash; NaN = take everything
  float below;

  void offer(int32_t row, int32_t candidate, float similarity, int64_t room, uint32_t seed) {
    const uint32_t hash = draw(Stream{seed, Use::knn_tie}, uint32_t(row), uint32_t(candidate)).v[0];
    const Neighbour x{uint64_t(ordered_key(similarity)) << 32 | uint32_t(~hash), candidate};
    int64_t at = n;
    for (; at > 0 && x.before(best[at - 1]); --at) best[at] = best[at - 1];
    best[at] = x;
    n = int32_t(std::min<int64_t>(n + 1, room));
    if (n == room) {
      const float last = key_value(uint32_t(best[room - 1].rank >> 32));
      below = last == -INFINITY ? NAN : std::nextafter(last, -INFINITY);
    }
  }
};

}  // namespace

// Similarities are kept without the row's own norm: it changes no order within the row. A block of candidates is packed
// by all threads; then tiles of rows pass over it, each (96,512) tile of products by one thread.
void knn_cosine(Ctx& ctx, int32_t* idx, int64_t* tied_rows, CMat x, int64_t k, bool centre, uint32_t seed) {
  const int64_t I = x.rows, F = x.cols;
  CHECK_THAT(k >= 1 && k <= I);
  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr;
  const int64_t others = std::min(k, I - 1);  // k-1 are kept; one more tells whether the cut fell between equals
  float* packed = static_cast<float*>(ctx.scratch(0, size_t(kCandidates * F) * sizeof(float)));
  const int64_t room = kRows * (kBlock + kCandidates);
  float* tiles = static_cast<float*>(ctx.scratch(1, size_t(ctx.threads * room) * sizeof(float)));
  float* inv_norm = static_cast<float*>(ctx.scratch(2, size_t(I + F) * sizeof(float)));
  float* mean = inv_norm + I;
  Neighbour* lists = static_cast<Neighbour*>(ctx.scratch(3, size_t(I * (others + 1)) * sizeof(Neighbour)));
  Nearest* nearest = static_cast<Nearest*>(ctx.scratch(4, size_t(I) * sizeof(Nearest)));
  int64_t tied = 0;

#pragma omp parallel num_threads(ctx.threads) reduction(+ : tied)
  {
    if (centre) {
      constexpr int64_t kCols = 64;
#pragma omp for
      for (int64_t c0 = 0; c0 < F; c0 += kCols) {
        const int64_t cols = std::min(kCols, F - c0);
        double sum[kCols] = {};
        for (int64_t i = 0; i < I; ++i)
          for (int64_t c = 0; c < cols; ++c) sum[c] += x.row(i)[c0 + c];
        for (int64_t c = 0; c < cols; ++c) mean[c0 + c] = float(sum[c] / double(I));
      }
    }
#pragma omp for
    for (int64_t i = 0; i < I; ++i) {
      double sum = 0;
      for (int64_t f = 0; f < F; ++f) {
        const float v = centre ? x.row(i)[f] - mean[f] : x.row(i)[f];
        sum += double(v) * v;
      }
      inv_norm[i] = float(1 / std::max(std::sqrt(sum), 1e-12));
      nearest[i] = {lists + i * (others + 1), 0, NAN};
    }
    float *left = tiles + omp_get_thread_num() * room, *dots = left + kRows * kBlock;
    for (int64_t j0 = 0; j0 < I; j0 += kCandidates) {
      const int64_t candidates = std::min(kCandidates, I - j0), panels = (candidates + nr - 1) / nr,
                    blocks = (F + kBlock - 1) / kBlock;
#pragma omp for
      for (int64_t bp = 0; bp < blocks * panels; ++bp) {
        const int64_t f0 = bp / panels * kBlock, fc = std::min(kBlock, F - f0), j = bp % panels * nr;
        pack_along(packed + f0 * panels * nr + j * fc, nr, x.row(j0 + j) + f0, F, fc, std::min(nr, candidates - j),
                   centre ? mean + f0 : nullptr);
      }
#pragma omp for schedule(dynamic, 1)
      for (int64_t i0 = 0; i0 < I; i0 += kRows) {
        const int64_t rows = std::min(kRows, I - i0);
        if (F == 0) std::fill_n(dots, kRows * kCandidates, 0.0f);
        for (int64_t f0 = 0; f0 < F; f0 += kBlock) {
          const int64_t fc = std::min(kBlock, F - f0);
          for (int64_t r = 0; r < rows; r += mr)
            pack_along(left + r * fc, mr, x.row(i0 + r) + f0, F, fc, std::min(mr, rows - r),
                       centre ? mean + f0 : nullptr);
          for (int64_t j = 0; j < candidates; j += nr)
            for (int64_t r = 0; r < rows; r += mr)
              mk.packed(dots + r * kCandidates + j, kCandidates, left + r * fc, packed + f0 * panels * nr + j * fc, fc,
                        f0 > 0);
        }
        for (int64_t r = 0; others > 0 && r < rows; ++r) {
          Nearest& list = nearest[i0 + r];
          float* similarity = dots + r * kCandidates;
          for (int64_t j = 0; j < candidates; ++j) similarity[j] *= inv_norm[j0 + j];
          int32_t at[kCandidates];
          const int64_t found = mk.above(at, similarity, candidates, list.below);
          for (int64_t c = 0; c < found; ++c) {
            const int64_t j = at[c];
            if (j0 + j != i0 + r && !(similarity[j] <= list.below))
              list.offer(int32_t(i0 + r), int32_t(j0 + j), similarity[j], others, seed);
          }
        }
      }
    }
#pragma omp for
    for (int64_t i = 0; i < I; ++i) {
      const Neighbour* best = nearest[i].best;
      idx[i * k] = int32_t(i);
      for (int64_t c = 1; c < k; ++c) idx[i * k + c] = best[c - 1].id;
      tied += k >= 2 && k < I && best[k - 2].rank >> 32 == best[k - 1].rank >> 32;
    }
  }
  *tied_rows = tied;
}

void knn_cosine_scratch(ScratchPlan& p, int64_t I, int64_t F, int64_t k, bool) {
  p.need(0, kCandidates * F * 4), p.need(1, p.threads * kRows * (kBlock + kCandidates) * 4), p.need(2, (I + F) * 4);
  p.need(3, I * (std::min(k, I - 1) + 1) * int64_t(sizeof(Neighbour))), p.need(4, I * int64_t(sizeof(Nearest)));
}

}  // namespace ccdrec::cpu
