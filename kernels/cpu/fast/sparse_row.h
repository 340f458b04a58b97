// One row of a sparse product, the output kept in registers: what spmm and propagate share; and what loops over listed
// rows ask for ahead. Private to kernels/cpu and its bench.
#pragma once
#include <algorithm>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/types.h"

namespace ccdrec::cpu {

// The edges ahead whose row of X is asked for early: X is larger than L2, and a row arrives as four lines. (Forward 6 %
// shorter at Baby's shape.)
#if defined(__AVX512F__)
constexpr int64_t kEdgesAhead = 16;
#else
constexpr int64_t kEdgesAhead = 8;
#endif

inline void ask_for_row(const float* x) {  // 64 columns
  for (int line = 0; line < 4; ++line) __builtin_prefetch(x + 16 * line);
}
// Out of a table that no cache holds rows come later than sixteen edges take, and more of them can be on their way to
// L2 than to L1. (Two layers at the Electronics set's size, a table of 65 MB, Zen 4: forward 15 % shorter, backward 16
// %; up to 33 MB nothing.) On AMD only: on Intel nobody has measured it for such tables, and for one of 7 MB it was
// slower.
constexpr int64_t kFarEdgesAhead = 32, kFarBytes = int64_t(32) << 20;
inline void ask_for_far_row(const float* x) {
  for (int line = 0; line < 4; ++line) __builtin_prefetch(x + 16 * line, 0, 2);
}
inline bool rows_are_far(CMat x) {
#if defined(__x86_64__)
  return x.size() * int64_t(sizeof(float)) > kFarBytes && __builtin_cpu_is("amd");
#else
  return false;
#endif
}
inline void ask_to_write_row(float* y) {
  for (int line = 0; line < 4; ++line) __builtin_prefetch(y + 16 * line, 1);
}

// Listed rows that a loop asks for ahead: no hardware prefetcher follows a list.
constexpr int64_t kListAhead = 8;

// The columns of X that a product reads as they are; others count as zero rows. Where most are set it is cheaper to
// look an edge up when it is multiplied.
struct ColumnMask {
  const uint8_t* set = nullptr;  // (N), null: all
  bool most = true;
};

// The edges of one row, val[e] and col[e] for e in [begin, end). Behind them, up to `ask_end`, come those of rows that
// are next. Far: rows_are_far(X).
template <bool Far>
struct RowEdges {
  const int32_t* col;
  const float* val;
  int64_t begin, end, ask_end;
  const uint8_t* mask;  // edges whose column's byte is 0 are left out; null: none
  void ask_ahead(int64_t e, CMat x, int64_t j0) const {
    constexpr int64_t kAhead = Far ? kFarEdgesAhead : kEdgesAhead;
    if (e + kAhead >= ask_end) return;
    const float* const row = x.row(col[e + kAhead]) + j0;
    Far ? ask_for_far_row(row) : ask_for_row(row);
  }
};

#if defined(__AVX512F__)
// 64 columns by vectors as long as a line: a line on its way takes one place in the queue of loads, not two.
typedef float V16 __attribute__((vector_size(64)));
template <bool Masked, bool Far, class Start, class Store>
inline void sparse_row_64(const RowEdges<Far>& a, CMat x, int64_t j0, Start&& start, Store&& store) {
  __m512 acc[4];
  for (int v = 0; v < 4; ++v) {
    V8 low, high;
    start(j0 + 16 * v, 8, low), start(j0 + 16 * v + 8, 8, high);
    acc[v] = __m512(__builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
  for (int64_t e = a.begin; e < a.end; ++e) {
    const int64_t c = a.col[e];
    a.ask_ahead(e, x, j0);
    if (Masked && !a.mask[c]) continue;
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

template <int NV, bool Masked, bool Far, class Start, class Store>
inline void sparse_row_block(const RowEdges<Far>& a, CMat x, int64_t j0, int64_t lanes, Start&& start, Store&& store) {
  V8 acc[NV];
  for (int v = 0; v < NV; ++v) start(j0 + 8 * v, lanes, acc[v]);
  for (int64_t e = a.begin; e < a.end; ++e) {
    const int64_t c = a.col[e];
    if (NV == 8) a.ask_ahead(e, x, j0);
    if (Masked && !a.mask[c]) continue;
    const V8 w = splat8(a.val[e]);
    const float* x_c = x.row(c) + j0;
    for (int v = 0; v < NV; ++v) acc[v] = fma8(w, take8(x_c + 8 * v, lanes), acc[v]);
  }
  for (int v = 0; v < NV; ++v) store(j0 + 8 * v, lanes, acc[v]);
}

template <bool Masked, bool Far, class Start, class Store>
inline void sparse_row_as(const RowEdges<Far>& a, CMat x, Start&& start, Store&& store) {
  const int64_t d = x.cols;
  int64_t j = 0;
#if defined(__AVX512F__)
  for (; j + 64 <= d; j += 64) sparse_row_64<Masked>(a, x, j, start, store);
#endif
  for (; j + 64 <= d; j += 64) sparse_row_block<8, Masked>(a, x, j, 8, start, store);
  for (; j + 8 <= d; j += 8) sparse_row_block<1, Masked>(a, x, j, 8, start, store);
  if (j < d) sparse_row_block<1, Masked>(a, x, j, d - j, start, store);
}

// For the eights of a row: store(j, lanes, start + sum_e val[e] X[col[e], j..]), edges in order, one fma each; start(j,
// lanes, acc) sets the accumulator. lanes = 8, fewer at the end. Columns go 64 at a time (four or eight accumulators),
// then eight at a time.
template <bool Far, class Start, class Store>
inline void sparse_row(const RowEdges<Far>& a, CMat x, Start&& start, Store&& store) {
  if (a.mask)
    sparse_row_as<true>(a, x, start, store);
  else
    sparse_row_as<false>(a, x, start, store);
}

// Edges of rows that do not lie one behind the other in the graph, or of which a mask leaves some, copied so that they
// do: then rows of X can be asked for across the rows' ends, and no branch depends on the mask. (Baby, batches of
// 2,048, Zen 4: backward a fifth to a quarter shorter, forward up to a tenth. Not measured on Intel, where hits listed
// row by row, with nothing asked for ahead, once took longer than the branch: docs/tried.md.)
class EdgeBuffer {
 public:
  static constexpr int64_t kRoom = 1024, kRows = 128;  // 8 KB of edges: they stay in L1 beside rows of X
  EdgeBuffer() { end_[0] = 0; }
  void clear() { rows_ = 0; }
  bool has_room(int64_t edges) const { return rows_ < kRows && end_[rows_] + edges <= kRoom; }
  void take(const Csr& a, int64_t first, int64_t last, const uint8_t* mask) {  // a row, or kRoom edges of it at most
    int64_t n = end_[rows_];
    for (int64_t e = first; e < last; ++e) {
      const int32_t c = a.col[e];
      col_[n] = c, val_[n] = a.val[e];
      n += !mask || mask[c] != 0;
    }
    end_[++rows_] = n;
  }
  void ask_for_first(int64_t edges, CMat x) const {
    for (int64_t e = 0; e < std::min(edges, end_[rows_]); ++e) ask_for_row(x.row(col_[e]));
  }
  template <bool Far>
  RowEdges<Far> row(int64_t k) const {
    return {col_, val_, end_[k], end_[k + 1], end_[rows_], nullptr};
  }

 private:
  int32_t col_[kRoom];  // an edge that the mask leaves out is written too, and over
  float val_[kRoom];
  int64_t rows_ = 0, end_[kRows + 1];
};

inline int64_t rows_in_chunk(int64_t n, int threads) {
  return std::clamp<int64_t>(n / (16 * int64_t(threads)), 64, 256);
}

template <bool Far, class Ask, class Row>
inline void each_row_as(int threads, const Csr& a, RowList rows, CMat x, ColumnMask mask, Ask&& ask, Row&& row) {
  constexpr int64_t kRowsAhead = 2;
  const int64_t n = rows.n(), N = a.rows, chunk = rows_in_chunk(n, threads);
  const auto first_of = [&](int64_t j) { return a.row_ptr[rows.at(j)]; };
  const auto last_of = [&](int64_t j) { return a.row_ptr[rows.at(j) + 1]; };
  const auto ask_rows_ahead = [&](int64_t j) {
    if (j + kRowsAhead < n) ask(rows.at(j + kRowsAhead));
  };
  // nearly always the edges behind a row's own are those of the next one listed
  const bool in_place = mask.most && (!rows.idx || 2 * n > N);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t j0 = 0; j0 < n; j0 += chunk) {
    const int64_t j1 = std::min(n, j0 + chunk);
    if (in_place) {
      for (int64_t j = j0; j < j1; ++j) {
        ask_rows_ahead(j);
        row(rows.at(j), RowEdges<Far>{a.col, a.val, first_of(j), last_of(j), a.row_ptr[N], mask.set}, true, true);
      }
      continue;
    }
    EdgeBuffer b;
    for (int64_t j = j0; j < j1;) {
      b.clear();
      const int64_t from = j;
      for (; j < j1 && b.has_room(last_of(j) - first_of(j)); ++j) b.take(a, first_of(j), last_of(j), mask.set);
      if (j > from) {
        b.ask_for_first(Far ? kFarEdgesAhead : kEdgesAhead, x);
        for (int64_t k = from; k < j; ++k) {
          ask_rows_ahead(k);
          row(rows.at(k), b.row<Far>(k - from), true, true);
        }
        continue;
      }
      const int64_t first = first_of(j), last = last_of(j);  // a row that alone has more edges than there is room for
      ask_rows_ahead(j);
      for (int64_t e = first; e < last; e += EdgeBuffer::kRoom) {
        const int64_t end = std::min(last, e + EdgeBuffer::kRoom);
        b.clear();
        b.take(a, e, end, mask.set);
        b.ask_for_first(Far ? kFarEdgesAhead : kEdgesAhead, x);
        row(rows.at(j), b.row<Far>(0), e == first, end == last);
      }
      ++j;
    }
  }
}

// The rows of a list, popular rows being long: chunks of 64 to 256 go to whichever thread is free. `row(r, edges,
// first, last)` must only write row r; it is called once, or for the pieces of a long row in order, first to last.
// `ask(r)` asks for what else row r will read and write.
template <class Ask, class Row>
inline void each_row(int threads, const Csr& a, RowList rows, CMat x, ColumnMask mask, Ask&& ask, Row&& row) {
  if (rows_are_far(x))
    each_row_as<true>(threads, a, rows, x, mask, ask, row);
  else
    each_row_as<false>(threads, a, rows, x, mask, ask, row);
}

inline RowList all_rows(int64_t n) { return {nullptr, nullptr, n}; }

}  // namespace ccdrec::cpu
