#include "kernels/propagate.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/cpu/fast/sparse_row.h"
#include "kernels/rows.h"

namespace ccdrec::cpu {
namespace {

constexpr int64_t kChunk = 4096;  // mask bytes counted and listed together

// The set bytes of a mask as an ascending list: count per chunk, sum, write.
void list_of_mask(Ctx& ctx, RowList out, const uint8_t* mask, int64_t n) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  int64_t* first = static_cast<int64_t*>(ctx.scratch(0, size_t(chunks + 1) * sizeof(int64_t)));
  first[0] = 0;
#pragma omp parallel for num_threads(ctx.threads_for(0.4 * n))
  for (int64_t c = 0; c < chunks; ++c) {
    int64_t set = 0;
    for (int64_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i) set += mask[i];
    first[c + 1] = set;
  }
  for (int64_t c = 0; c < chunks; ++c) first[c + 1] += first[c];
  CHECK_THAT(first[chunks] <= out.capacity);
  *out.count = first[chunks];
#pragma omp parallel for num_threads(ctx.threads_for(1.0 * n))
  for (int64_t c = 0; c < chunks; ++c) {
    int32_t found[kChunk];  // written without a branch, which nothing could predict
    int64_t at = 0;
    for (int64_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i) found[at] = int32_t(i), at += mask[i];
    std::copy_n(found, at, out.idx + first[c]);
  }
}

// wider = mask and what its rows read. Pushing visits every edge of the listed rows, and a store takes a line of the
// mask from the other cores: an edge costs four times as much as one looked at in pulling, which asks each other row
// whether a listed one reads it and stops at the first that does. If the listed rows have one edge in k, that is after
// k edges or so. (The frontier of 2,048 pairs of Baby, two layers, two cores: 0.93 ms pushed, 0.28 ms so.)
void widen(Ctx& ctx, uint8_t* wider, const uint8_t* mask, const Csr& a, const Csr& a_t, RowList rows) {
  constexpr double kPush = 4;
  const int64_t n = rows.n(), N = a.rows;
  int64_t pushed = 0;
#pragma omp parallel for num_threads(ctx.threads_for(2.0 * n)) reduction(+ : pushed)
  for (int64_t j = 0; j < n; ++j) pushed += a.row_ptr[rows.idx[j] + 1] - a.row_ptr[rows.idx[j]];
  if (kPush * double(pushed) * double(pushed) > double(N - n) * double(a.row_ptr[N])) {
#pragma omp parallel for num_threads(ctx.threads_for(8.0 * N)) schedule(dynamic, 1024)
    for (int64_t r = 0; r < N; ++r) {
      uint8_t reached = mask[r];
      const int32_t *c = a_t.col + a_t.row_ptr[r], *const end = a_t.col + a_t.row_ptr[r + 1];
      // fewer branches that go wrong
      for (; !reached && end - c >= 4; c += 4) reached = mask[c[0]] | mask[c[1]] | mask[c[2]] | mask[c[3]];
      for (; !reached && c < end; ++c) reached = mask[*c];
      wider[r] = reached;
    }
    return;
  }
  std::memcpy(wider, mask, size_t(N));
  const int64_t chunk = rows_in_chunk(n, ctx.threads);
#pragma omp parallel for num_threads(ctx.threads_for(2.0 * pushed)) schedule(dynamic, chunk)
  // several threads may set the same byte: to the same value
  for (int64_t j = 0; j < n; ++j)
    for (int64_t e = a.row_ptr[rows.idx[j]]; e < a.row_ptr[rows.idx[j] + 1]; ++e) {
      const std::atomic_ref<uint8_t> reached(wider[a.col[e]]);
      // a store takes the line from the other cores
      if (!reached.load(std::memory_order_relaxed)) reached.store(1, std::memory_order_relaxed);
    }
}

}  // namespace

void frontier(Ctx& ctx, Frontier& f, const Csr& a, const Csr& a_t, RowList seed) {
  const int L = f.layers;
  CHECK_THAT(L >= 0 && L <= kMaxLayers);
  const int64_t N = L > 0 ? a.rows : f.rows[0].capacity;  // without layers there may be no graph
  CHECK_THAT(L == 0 || (a.rows == a.cols && a_t.rows == a.rows));
  if (!seed.idx) {
    for (int l = 0; l <= L; ++l) f.rows[l] = all_rows(N), f.mask[l] = nullptr;
    return;
  }
  const int64_t n = seed.n();
  CHECK_THAT(n <= f.rows[L].capacity);
  if (f.rows[L].idx != seed.idx) std::copy_n(seed.idx, n, f.rows[L].idx);
  *f.rows[L].count = n;
  std::memset(f.mask[L], 0, size_t(N));
  for (int64_t j = 0; j < n; ++j) f.mask[L][seed.idx[j]] = 1;
  for (int l = L; l >= 1; --l) {
    widen(ctx, f.mask[l - 1], f.mask[l], a, a_t, f.rows[l]);
    list_of_mask(ctx, f.rows[l - 1], f.mask[l - 1], N);
  }
}

// H = (E_0 + .. + E_L)/(L+1) on rows[L]. The last layer and the mean are one pass: its row is still in registers, and
// stored only where it is asked for.
void propagate(Ctx& ctx, Mat h, Mat* work, const Csr& a, const Frontier& f, CMat e0) {
  const int L = f.layers;
  CHECK_SHAPE(h, e0.rows, e0.cols);
  const float share = float(1.0 / double(L + 1));
  if (L == 0) {
    copy_rows(ctx, h, e0, f.rows[0]);
    return;
  }
  CHECK_SHAPE(e0, a.cols, e0.cols);
  for (int l = 1; l <= L; ++l) {
    const Mat e_l = work[l - 1];
    const CMat before = l == 1 ? e0 : CMat(work[l - 2]);
    const bool mean = l == L;
    if (e_l || !mean) CHECK_SHAPE(e_l, a.rows, e0.cols);
    const auto ask = [&](int64_t r) {
      if (e_l) ask_to_write_row(e_l.row(r));
      if (!mean) return;
      ask_to_write_row(h.row(r)), ask_for_row(e0.row(r));
      for (int k = 1; k < L; ++k) ask_for_row(work[k - 1].row(r));
    };
    each_row(ctx.threads, a, f.rows[l], before, {}, ask, [&](int64_t r, const auto& edges, bool first, bool last) {
      float *const h_r = h.row(r), *const sum_r = e_l ? e_l.row(r) : h_r;
      const auto start = [&](int64_t j, int64_t lanes, V8& acc) { acc = first ? V8{} : take8(sum_r + j, lanes); };
      sparse_row(edges, before, start, [&](int64_t j, int64_t lanes, const V8& sum) {
        if (e_l || !last) put8(sum_r + j, sum, lanes);
        if (!mean || !last) return;
        V8 total = take8(e0.row(r) + j, lanes);
        for (int k = 1; k < L; ++k) total += take8(work[k - 1].row(r) + j, lanes);
        put8(h_r + j, (total + sum) * splat8(share), lanes);
      });
    });
  }
}

// prop^T is the polynomial of prop in A^T: Y_0 = G, Y_k = G + A^T Y_{k-1}, G_E0 = Y_L/(L+1).
// Y_k lives on rows[L-k] in work[k-1]; G is zero outside rows[L], whatever its memory holds there.
void propagate_backward(Ctx& ctx, Mat g_e0, Mat* work, const Csr& a_t, const Frontier& f, CMat g) {
  const int L = f.layers;
  CHECK_SHAPE(g_e0, g.rows, g.cols);
  const uint8_t* given = f.mask[L];
  if (L == 0) {
    copy_rows(ctx, g_e0, g, f.rows[0]);
    return;
  }
  CHECK_SHAPE(g, a_t.cols, g.cols);
  for (int k = 1; k <= L; ++k) {
    const CMat before = k == 1 ? g : CMat(work[k - 2]);
    const ColumnMask mask = {f.mask[L - k + 1], 2 * f.rows[L - k + 1].n() > a_t.rows};
    const float scale = k == L ? float(1.0 / double(L + 1)) : 1.0f;
    const Mat out = k == L ? g_e0 : work[k - 1];
    CHECK_SHAPE(out, a_t.rows, g.cols);
    const auto ask = [&](int64_t r) {
      ask_to_write_row(out.row(r));
      if (!given || given[r]) ask_for_row(g.row(r));
    };
    each_row(ctx.threads, a_t, f.rows[L - k], before, mask, ask,
             [&](int64_t r, const auto& edges, bool first, bool last) {
               float* const out_r = out.row(r);
               const bool has_g = !given || given[r];
               const auto start = [&](int64_t j, int64_t lanes, V8& acc) {
                 acc = !first ? take8(out_r + j, lanes) : has_g ? take8(g.row(r) + j, lanes) : V8{};
               };
               sparse_row(edges, before, start, [&](int64_t j, int64_t lanes, const V8& sum) {
                 put8(out_r + j, last ? sum * splat8(scale) : sum, lanes);
               });
             });
  }
}

// Z_L = G_L + G/(L+1);  Z_l = G_l + G/(L+1) + A^T Z_(l+1). Z_l lives on rows[l] in work[l-1], Z_0 in g_e0.
void propagate_backward_layers(Ctx& ctx, Mat g_e0, Mat* work, const Csr& a_t, const Frontier& f, CMat g,
                               const CMat* g_layer) {
  const int L = f.layers;
  const int64_t N = g_e0.rows, d = g_e0.cols;
  const float share = float(1.0 / double(L + 1));
  const uint8_t* given = f.mask[L];
  if (g) CHECK_SHAPE(g, N, d);
  if (L > 0) CHECK_SHAPE(g_e0, a_t.rows, d);
  for (int l = 0; l <= L; ++l)
    if (g_layer[l]) CHECK_SHAPE(g_layer[l], N, d);
  for (int l = 0; l < L; ++l) CHECK_SHAPE(work[l], N, d);
  const auto z = [&](int l) { return l == 0 ? g_e0 : work[l - 1]; };
  // What Z_l[r] is without the layer above it: G_l[r] + G[r]/(L+1), zero where no gradient is given, whatever the
  // memory holds there.
  const auto own = [&](int l, int64_t r, int64_t j, int64_t lanes, V8& sum) {
    sum = V8{};
    if (given && !given[r]) return;
    if (g_layer[l]) sum = take8(g_layer[l].row(r) + j, lanes);
    if (g) sum = fma8(splat8(share), take8(g.row(r) + j, lanes), sum);
  };

  const int64_t n = f.rows[L].n();
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* d))
  for (int64_t i = 0; i < n; ++i) {
    const int64_t r = f.rows[L].at(i);
    each8(d, [&](int64_t j, int64_t lanes) {
      V8 sum;
      own(L, r, j, lanes, sum);
      put8(z(L).row(r) + j, sum, lanes);
    });
  }
  for (int l = L - 1; l >= 0; --l) {
    const Mat z_l = z(l);
    const CMat above = z(l + 1);
    const ColumnMask mask = {f.mask[l + 1], 2 * f.rows[l + 1].n() > N};
    const auto ask = [&](int64_t r) {
      ask_to_write_row(z_l.row(r));
      if (given && !given[r]) return;
      if (g_layer[l]) ask_for_row(g_layer[l].row(r));
      if (g) ask_for_row(g.row(r));
    };
    each_row(ctx.threads, a_t, f.rows[l], above, mask, ask, [&](int64_t r, const auto& edges, bool first, bool) {
      float* const z_r = z_l.row(r);
      const auto start = [&](int64_t j, int64_t lanes, V8& acc) {
        if (first)
          own(l, r, j, lanes, acc);
        else
          acc = take8(z_r + j, lanes);
      };
      sparse_row(edges, above, start, [&](int64_t j, int64_t lanes, const V8& sum) { put8(z_r + j, sum, lanes); });
    });
  }
}

}  // namespace ccdrec::cpu
