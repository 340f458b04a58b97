#include "kernels/spmm.h"

#include <algorithm>

#include "kernels/cpu/fast/sparse_row.h"

namespace ccdrec::cpu {
void spmm_rows(Ctx& ctx, Mat y, const Csr& a, CMat x, RowList rows, const uint8_t* mask, bool accumulate) {
  CHECK_SHAPE(x, a.cols, x.cols);
  CHECK_SHAPE(y, a.rows, x.cols);
  CHECK_THAT(rows.n() <= a.rows);
  if (rows.n() == 0) return;
  CHECK_THAT(a.row_ptr[a.rows] == 0 || a.val);  // a pattern alone has no product
  const auto ask = [&](int64_t r) { ask_to_write_row(y.row(r)); };
  each_row(ctx.threads, a, rows, x, {mask, !mask}, ask, [&](int64_t r, const auto& edges, bool first, bool) {
    float* y_r = y.row(r);
    const bool add = accumulate || !first;
    sparse_row(
        edges, x, [&](int64_t j, int64_t lanes, V8& acc) { acc = add ? take8(y_r + j, lanes) : V8{}; },
        [&](int64_t j, int64_t lanes, const V8& sum) { put8(y_r + j, sum, lanes); });
  });
}

void spmm(Ctx& ctx, Mat y, const Csr& a, CMat x, bool accumulate) {
  spmm_rows(ctx, y, a, x, all_rows(a.rows), nullptr, accumulate);
}

// A counting sort whose counters are out.row_ptr itself: row_ptr[c] starts as the end of row c and moves down to its
// beginning as A is walked backwards, which keeps equal columns in order.
void transpose(Ctx&, const MutableCsr& out, const Csr& a) {
  CHECK_THAT(out.rows == a.cols && out.cols == a.rows);
  CHECK_THAT(a.nnz >= 0 && a.nnz <= out.capacity);
  CHECK_THAT(a.nnz == a.row_ptr[a.rows]);
  std::fill_n(out.row_ptr, out.rows + 1, int64_t(0));
  for (int64_t e = 0; e < a.nnz; ++e) ++out.row_ptr[a.col[e]];
  for (int64_t c = 0; c < out.rows; ++c) out.row_ptr[c + 1] += out.row_ptr[c];
  for (int64_t r = a.rows; r-- > 0;)
    for (int64_t e = a.row_ptr[r + 1]; e-- > a.row_ptr[r];) {
      const int64_t at = --out.row_ptr[a.col[e]];
      out.col[at] = int32_t(r);
      if (a.val) out.val[at] = a.val[e];
    }
}

void spmm_scratch(ScratchPlan&, int64_t, int64_t, bool) {}
void transpose_scratch(ScratchPlan&, int64_t) {}

}  // namespace ccdrec::cpu
