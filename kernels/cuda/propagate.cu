#include <type_traits>

#include "kernels/cuda/compact.h"
#include "kernels/cuda/sparse_row.h"
#include "kernels/propagate.h"

namespace ccdrec::cuda {
namespace {

// ---- the rows a propagation touches

struct Masks {
  uint8_t* p[kMaxLayers + 1];
};

constexpr int kBytes = 16;  // of a mask that one thread writes or reads at once
__device__ inline bool whole(const uint8_t* mask, int64_t at, int64_t N) {
  return reinterpret_cast<uintptr_t>(mask) % kBytes == 0 && at + kBytes <= N;
}

// rows[L] = seed, and every mask that of the seed: what the wider ones start from.
// Geometry  one thread 16 bytes of every mask; it finds its first row of the seed by binary search.
// Traffic   L+1 bytes a node, 8 a seed row.
__global__ void frontier_start(Masks mask, int masks, int64_t N, RowList to, RowList seed, int32_t* fault) {
  const int64_t n = seed.n(), k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x,
                threads = int64_t(gridDim.x) * blockDim.x;
  if (to.idx != seed.idx)
    for (int64_t j = k; j < n && j < to.capacity; j += threads) to.idx[j] = seed.idx[j];
  if (k == 0) {
    if (n > to.capacity) atomicMax(fault, int(kListTooSmall));
    *to.count = n < to.capacity ? n : to.capacity;
  }
  const int64_t at = k * kBytes;
  if (at >= N) return;
  int64_t j = 0, end = n;
  while (j < end) {
    const int64_t mid = (j + end) / 2;
    if (seed.idx[mid] < at)
      j = mid + 1;
    else
      end = mid;
  }
  uint64_t half[2] = {0, 0};
  for (; j < n && seed.idx[j] < at + kBytes; ++j) {
    const int b = int(seed.idx[j] - at);
    const uint64_t one = uint64_t(1) << (b % 8 * 8);
    half[0] |= b < 8 ? one : 0, half[1] |= b < 8 ? 0 : one;
  }
#pragma unroll
  for (int l = 0; l <= kMaxLayers; ++l) {  // unrolled: the pointers stay where the arguments are
    if (l >= masks) break;
    uint8_t* m = mask.p[l];
    if (whole(m, at, N))
      *reinterpret_cast<uint4*>(m + at) =
          make_uint4(unsigned(half[0]), unsigned(half[0] >> 32), unsigned(half[1]), unsigned(half[1] >> 32));
    else
      for (int64_t b = 0; b < kBytes && at + b < N; ++b)
        m[at + b] = uint8_t((b < 8 ? half[0] : half[1]) >> (b % 8 * 8));
  }
}

// wider[r] = 1 for the listed rows and their neighbours. Several threads may set the same byte: to the same value.
// Geometry  one warp a row, 8 rows a block, four edges a lane in flight.
// Traffic   4 bytes an edge, coalesced, and a scattered byte.
__global__ void frontier_mark(uint8_t* wider, Csr a, RowList rows) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t n = rows.n(), warps = int64_t(gridDim.x) * kRowsPerBlock;
  for (int64_t j = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp; j < n; j += warps) {
    const int64_t r = rows.at(j), end = a.row_ptr[r + 1];
    if (lane == 0) wider[r] = 1;
    for (int64_t e = a.row_ptr[r] + lane; e < end; e += 4 * kWarp) {
      int32_t c[4];
      for (int k = 0; k < 4; ++k) c[k] = e + k * kWarp < end ? a.col[e + k * kWarp] : int32_t(r);
      for (int k = 0; k < 4; ++k) wider[c[k]] = 1;
    }
  }
}

// The set bytes of a mask as an ascending list. Geometry, traffic: compact.h, 16 bytes a thread.
__global__ void __launch_bounds__(kCompactThreads)
    frontier_list(RowList out, const uint8_t* mask, int64_t N, int32_t* fault) {
  const auto bits = [&](int64_t chunk) {
    const int64_t at = chunk * kBytes;
    unsigned b = 0;
    if (whole(mask, at, N)) {
      const uint4 m = *reinterpret_cast<const uint4*>(mask + at);
      const auto four = [](unsigned w) { return w * 0x10204080u >> 28; };  // bytes 0 or 1 to four bits
      b = four(m.x) | four(m.y) << 4 | four(m.z) << 8 | four(m.w) << 12;
    } else {
      for (int k = 0; k < kBytes && at + k < N; ++k) b |= unsigned(mask[at + k] != 0) << k;
    }
    return b;
  };
  const auto write = [&](int64_t j, int64_t r) {
    if (j < out.capacity) out.idx[j] = int32_t(r);
  };
  compact<kBytes>(N, bits, write, [&](int64_t found) {
    if (found > out.capacity) atomicMax(fault, int(kListTooSmall));
    *out.count = found < out.capacity ? found : out.capacity;
  });
}

// ---- propagation

struct Layers {
  const float* p[kMaxLayers];
};

// E_l = A E_{l-1} on the listed rows. The last layer and the mean are one pass: H = (E_0 + .. + E_{L-1} + its own row)
// / (L+1).
// Geometry  sparse_row.h.
// Traffic   per edge 8 bytes and one row of E_{l-1}; a row out; in the last layer L rows more in and one out, and its
//           own only where it is kept.
template <int V, bool Last>
__global__ void propagate_layer(Mat e_l, Csr a, const float* before, RowList rows, Mat h, CMat e0, Layers e, int layers,
                                float share) {
  rows_in_turn<V>(
      a, before, e0.cols, rows, nullptr, [](int64_t, int64_t) { return 0.0f; },
      [&](int64_t r, int64_t j, float sum) {
        const int64_t at = r * e0.cols + j;
        if (!Last || e_l.p) e_l.p[at] = sum;
        if constexpr (Last) {
          float total = e0.p[at];
#pragma unroll
          for (int l = 1; l < kMaxLayers; ++l)  // unrolled: the pointers stay where the arguments are
            if (l < layers) total += e.p[l - 1][at];
          h.p[at] = (total + sum) * share;
        }
      });
}

// H = (E_0 + .. + E_L) / (L+1) where the layers were computed apart, in the order of propagate_layer.
// Geometry  one thread an element.
// Traffic   4 (L+2) bytes each, coalesced.
__global__ void propagate_mean(Mat h, CMat e0, Layers e, int layers, float share) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= h.size()) return;
  float total = e0.p[at];
#pragma unroll
  for (int l = 1; l <= kMaxLayers; ++l)
    if (l <= layers) total += e.p[l - 1][at];
  h.p[at] = total * share;
}

// out[r] = scale (G[r] + sum over edges to rows of the mask of val * before[col]) on the listed rows; G[r] is zero
// where `given` is 0.
// Geometry  sparse_row.h.
// Traffic   per edge 9 bytes and, where the mask allows it, one row of `before`; one or two rows a row.
template <int V>
__global__ void propagate_backward_layer(Mat out, Csr a_t, const float* before, const uint8_t* mask, RowList rows,
                                         CMat g, const uint8_t* given, float scale) {
  rows_in_turn<V>(
      a_t, before, out.cols, rows, mask, [&](int64_t r, int64_t j) { return !given || given[r] ? g.row(r)[j] : 0.0f; },
      [&](int64_t r, int64_t j, float sum) { out.row(r)[j] = sum * scale; });
}

// What Z_l[r] is without the layer above it: G_l[r] + G[r]/(L+1), zero where no gradient is given, whatever the memory
// holds there.
struct OwnGradient {
  CMat g_l, g;           // empty: zero
  const uint8_t* given;  // null: every row
  float share;           // 1/(L+1)
  __device__ float at(int64_t r, int64_t j) const {
    if (given && !given[r]) return 0.0f;
    const float sum = g_l.p ? g_l.row(r)[j] : 0.0f;
    return g.p ? fmaf(share, g.row(r)[j], sum) : sum;
  }
};

// Z_L on the listed rows.
// Geometry  one warp a row, 8 rows a block, which take turns; lane l owns columns l, l+32, ...
// Traffic   three rows a row, coalesced.
__global__ void propagate_backward_top(Mat z, RowList rows, OwnGradient own) {
  const int64_t n = rows.n(), warps = int64_t(gridDim.x) * kRowsPerBlock;
  for (int64_t i = int64_t(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarp; i < n; i += warps) {
    const int64_t r = rows.at(i);
    for (int64_t j = threadIdx.x % kWarp; j < z.cols; j += kWarp) z.row(r)[j] = own.at(r, j);
  }
}

// Z_l = own + sum over edges to rows of the mask of val * Z_(l+1)[col] on the listed rows.
// Geometry  sparse_row.h.
// Traffic   per edge 9 bytes and, where the mask allows it, one row of Z_(l+1); one to three rows a row.
template <int V>
__global__ void propagate_backward_own(Mat z, Csr a_t, const float* above, const uint8_t* mask, RowList rows,
                                       OwnGradient own) {
  rows_in_turn<V>(
      a_t, above, z.cols, rows, mask, [&](int64_t r, int64_t j) { return own.at(r, j); },
      [&](int64_t r, int64_t j, float sum) { z.row(r)[j] = sum; });
}

}  // namespace

void frontier(Ctx& ctx, Frontier& f, const Csr& a, const Csr&, RowList seed) {
  const int L = f.layers;
  CHECK_THAT(L >= 0 && L <= kMaxLayers);
  const int64_t N = L > 0 ? a.rows : f.rows[0].capacity;  // without layers there may be no graph
  CHECK_THAT(L == 0 || a.rows == a.cols);
  if (!seed.idx) {
    for (int l = 0; l <= L; ++l) f.rows[l] = RowList{nullptr, nullptr, N}, f.mask[l] = nullptr;
    return;
  }
  Masks masks;
  std::copy_n(f.mask, kMaxLayers + 1, masks.p);
  launch(frontier_start, std::max(int64_t(1), blocks_for(N, 128 * kBytes)), 128, 0, ctx, masks, L + 1, N, f.rows[L],
         seed, ctx.fault);
  for (int l = L; l >= 1; --l) {
    launch(frontier_mark, list_blocks(f.rows[l]), kRowsPerBlock * kWarp, 0, ctx, f.mask[l - 1], a, f.rows[l]);
    launch(frontier_list, compact_blocks(N, kBytes), kCompactThreads, 0, ctx, f.rows[l - 1], f.mask[l - 1], N,
           ctx.fault);
  }
}

void propagate(Ctx& ctx, Mat h, Mat* work, const Csr& a, const Frontier& f, CMat e0) {
  const int L = f.layers;
  CHECK_SHAPE(h, e0.rows, e0.cols);
  if (L == 0) {
    copy_rows(ctx, h, e0, f.rows[0]);
    return;
  }
  CHECK_SHAPE(e0, a.cols, e0.cols);
  const float share = float(1.0 / double(L + 1));
  Layers e{};
  for (int l = 1; l <= L; ++l) e.p[l - 1] = work[l - 1].p;
  // all rows: then every list is the identity
  if (!f.rows[L].idx && !f.rows[L].count && by_cusparse(ctx, a, e0.cols)) {
    CHECK_SHAPE(work[L - 1], a.rows, e0.cols);
    for (int l = 1; l <= L; ++l) spmm(ctx, work[l - 1], a, l == 1 ? e0 : CMat(work[l - 2]), false);
    launch(propagate_mean, blocks_for(h.size(), 256), 256, 0, ctx, h, e0, e, L, share);
    return;
  }
  for (int l = 1; l <= L; ++l) {
    const Mat e_l = work[l - 1];
    const CMat before = l == 1 ? e0 : CMat(work[l - 2]);
    if (e_l || l < L) CHECK_SHAPE(e_l, a.rows, e0.cols);
    const auto run = [&](auto last) {
      const int64_t grid = list_blocks(f.rows[l]);
      if (two_columns(before))
        launch((propagate_layer<2, last()>), grid, kRowsPerBlock * kWarp, 0, ctx, e_l, a, before.p, f.rows[l], h, e0, e,
               L, share);
      else
        launch((propagate_layer<1, last()>), grid, kRowsPerBlock * kWarp, 0, ctx, e_l, a, before.p, f.rows[l], h, e0, e,
               L, share);
    };
    if (l == L)
      run(std::true_type{});
    else
      run(std::false_type{});
  }
}

// prop^T is the polynomial of prop in A^T: Y_0 = G, Y_k = G + A^T Y_{k-1}, G_E0 = Y_L/(L+1).
// Y_k lives on rows[L-k] in work[k-1]; G is zero outside rows[L], whatever its memory holds there.
void propagate_backward(Ctx& ctx, Mat g_e0, Mat* work, const Csr& a_t, const Frontier& f, CMat g) {
  const int L = f.layers;
  CHECK_SHAPE(g_e0, g.rows, g.cols);
  if (L == 0) {
    copy_rows(ctx, g_e0, g, f.rows[0]);
    return;
  }
  CHECK_SHAPE(g, a_t.cols, g.cols);
  for (int k = 1; k <= L; ++k) {
    const CMat before = k == 1 ? g : CMat(work[k - 2]);
    CHECK_SHAPE(work[k - 1], a_t.rows, g.cols);
    const float scale = k == L ? float(1.0 / double(L + 1)) : 1.0f;
    const Mat out = k == L ? g_e0 : work[k - 1];
    const RowList rows = f.rows[L - k];
    if (two_columns(before))
      launch(propagate_backward_layer<2>, list_blocks(rows), kRowsPerBlock * kWarp, 0, ctx, out, a_t, before.p,
             f.mask[L - k + 1], rows, g, f.mask[L], scale);
    else
      launch(propagate_backward_layer<1>, list_blocks(rows), kRowsPerBlock * kWarp, 0, ctx, out, a_t, before.p,
             f.mask[L - k + 1], rows, g, f.mask[L], scale);
  }
}

// Z_L = G_L + G/(L+1);  Z_l = G_l + G/(L+1) + A^T Z_(l+1). Z_l lives on rows[l] in work[l-1], Z_0 in g_e0.
void propagate_backward_layers(Ctx& ctx, Mat g_e0, Mat* work, const Csr& a_t, const Frontier& f, CMat g,
                               const CMat* g_layer) {
  const int L = f.layers;
  const int64_t N = g_e0.rows, d = g_e0.cols;
  const float share = float(1.0 / double(L + 1));
  if (g) CHECK_SHAPE(g, N, d);
  if (L > 0) CHECK_SHAPE(g_e0, a_t.rows, d);
  for (int l = 0; l <= L; ++l)
    if (g_layer[l]) CHECK_SHAPE(g_layer[l], N, d);
  for (int l = 0; l < L; ++l) CHECK_SHAPE(work[l], N, d);
  const auto z = [&](int l) { return l == 0 ? g_e0 : work[l - 1]; };
  const auto own = [&](int l) { return OwnGradient{g_layer[l], g, f.mask[L], share}; };
  launch(propagate_backward_top, list_blocks(f.rows[L]), kRowsPerBlock * kWarp, 0, ctx, z(L), f.rows[L], own(L));
  for (int l = L - 1; l >= 0; --l) {
    const CMat above = z(l + 1);
    const RowList rows = f.rows[l];
    if (two_columns(above))
      launch(propagate_backward_own<2>, list_blocks(rows), kRowsPerBlock * kWarp, 0, ctx, z(l), a_t, above.p,
             f.mask[l + 1], rows, own(l));
    else
      launch(propagate_backward_own<1>, list_blocks(rows), kRowsPerBlock * kWarp, 0, ctx, z(l), a_t, above.p,
             f.mask[l + 1], rows, own(l));
  }
}

}  // namespace ccdrec::cuda
