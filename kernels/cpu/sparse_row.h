// One row of a sparse product, the output kept in registers: what spmm and propagate share. Private to kernels/cpu.
#pragma once
#include <algorithm>

#include "kernels/cpu/lanes.h"
#include "kernels/types.h"

namespace ccdrec::cpu {

// The edges ahead whose row of X is asked for early: X is larger than L2, and a row arrives as four lines. (Forward 6 % shorter at Baby's shape. Under a
// mask, asking only for rows that will be read takes longer than it saves: without, the backward pass is 12 % shorter.)
#if defined(__AVX512F__)
constexpr int64_t kEdgesAhead = 16;
#else
constexpr int64_t kEdgesAhead = 8;
#endif

inline void ask_for_row(const float* x) {  // 64 columns
  for (int line = 0; line < 4; ++line) __builtin_prefetch(x + 16 * line);
}

#if defined(__AVX512F__)
// 64 columns by vectors as long as a line: a line on its way takes one place in the queue of loads, not two.
typedef float V16 __attribute__((vector_size(64)));
template <bool Masked, class Start, class Store>
inline void sparse_row_64(const Csr& a, int64_t r, CMat x, const uint8_t* mask, int64_t ask_end, int64_t j0, Start&& start, Store&& store) {
  __m512 acc[4];
  for (int v = 0; v < 4; ++v) {
    V8 low, high;
    start(j0 + 16 * v, 8, low), start(j0 + 16 * v + 8, 8, high);
    acc[v] = __m512(__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
  const int64_t end = a.row_ptr[r + 1];
  for (int64_t e = a.row_ptr[r]; e < end; ++e) {
    const int64_t c = a.col[e];
    if (Masked && !mask[c]) continue;
    if (!Masked && e + kEdgesAhead < ask_end) ask_for_row(x.row(a.col[e + kEdgesAhead]) + j0);
    const __m512 w = _mm512_set1_ps(a.val[e]);
    const float* x_c = x.row(c) + j0;
    for (int v = 0; v < 4; ++v) acc[v] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x_c + 16 * v), acc[v]);
  }
  for (int v = 0; v < 4; ++v) {
    const auto sum = V16(acc[v]);
    store(j0 + 16 * v, 8, __builtin_shufflevector(sum, sum, 0, 1, 2, 3, 4, 5, 6, 7));
    store(j0 + 16 * v + 8, 8, __builtin_shufflevector(sum, sum, 8, 9, 10, 11, 12, 13, 14, 15));
  }
}
#endif

template <int NV, bool Masked, class Start, class Store>
inline void sparse_row_block(const Csr& a, int64_t r, CMat x, const uint8_t* mask, int64_t ask_end, int64_t j0, int64_t lanes, Start&& start,
                             Store&& store) {
  V8 acc[NV];
  for (int v = 0; v < NV; ++v) start(j0 + 8 * v, lanes, acc[v]);
  const int64_t end = a.row_ptr[r + 1];
  for (int64_t e = a.row_ptr[r]; e < end; ++e) {
    const int64_t c = a.col[e];
    if (Masked && !mask[c]) continue;
    if (NV == 8 && !Masked && e + kEdgesAhead < ask_end) ask_for_row(x.row(a.col[e + kEdgesAhead]) + j0);
    const V8 w = splat8(a.val[e]);
    const float* x_c = x.row(c) + j0;
    for (int v = 0; v < NV; ++v) acc[v] = fma8(w, take8(x_c + 8 * v, lanes), acc[v]);
  }
  for (int v = 0; v < NV; ++v) store(j0 + 8 * v, lanes, acc[v]);
}

// For the eights of row r: store(j, lanes, start + sum_e val[e] X[col[e], j..]), edges in CSR order, one fma each; start(j, lanes, acc) sets the
// accumulator. lanes = 8, fewer at the end. Columns go 64 at a time (four or eight accumulators), then eight at a time.
template <bool Masked, class Start, class Store>
inline void sparse_row(const Csr& a, int64_t r, int64_t ask_end, CMat x, const uint8_t* mask, Start&& start, Store&& store) {
  const int64_t d = x.cols;
  int64_t j = 0;
#if defined(__AVX512F__)
  for (; j + 64 <= d; j += 64) sparse_row_64<Masked>(a, r, x, mask, ask_end, j, start, store);
#endif
  for (; j + 64 <= d; j += 64) sparse_row_block<8, Masked>(a, r, x, mask, ask_end, j, 8, start, store);
  for (; j + 8 <= d; j += 8) sparse_row_block<1, Masked>(a, r, x, mask, ask_end, j, 8, start, store);
  if (j < d) sparse_row_block<1, Masked>(a, r, x, mask, ask_end, j, d - j, start, store);
}

// The rows of a list, popular rows being long: chunks of 64 to 256 go to whichever thread is free. `row(r, ask_end)` must only write row r. Where most rows
// are listed, the edges behind a row's own are the next row's, and it is worth asking for their rows of X too.
template <class Row>
inline void each_row(int threads, const Csr& a, RowList rows, Row&& row) {
  const int64_t n = rows.n(), chunk = std::clamp<int64_t>(n / (16 * int64_t(threads)), 64, 256);
  if (!rows.idx) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
    for (int64_t r = 0; r < n; ++r) row(r, a.row_ptr[n]);
    return;
  }
  const bool dense = 2 * n > a.rows;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
  for (int64_t j = 0; j < n; ++j) row(int64_t(rows.idx[j]), dense ? a.row_ptr[a.rows] : a.row_ptr[rows.idx[j] + 1]);
}

inline RowList all_rows(int64_t n) { return {nullptr, nullptr, n}; }
constexpr auto zero_start = [](int64_t, int64_t, V8& acc) { acc = V8{}; };

}  // namespace ccdrec::cpu
