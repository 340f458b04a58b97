#include "kernels/spmm.h"

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

void spmm_scratch(ScratchPlan&, int64_t, int64_t, bool) {}

}  // namespace ccdrec::cpu
