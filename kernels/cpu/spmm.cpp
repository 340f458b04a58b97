#include "kernels/spmm.h"

#include "kernels/cpu/sparse_row.h"

namespace ccdrec::cpu {
namespace {

template <bool Masked>
void rows_of_product(Ctx& ctx, Mat y, const Csr& a, CMat x, RowList rows, const uint8_t* mask, bool accumulate) {
  each_row(ctx.threads, a, rows, [&](int64_t r, int64_t ask_end) {
    float* y_r = y.row(r);
    const auto store = [&](int64_t j, int64_t lanes, const V8& sum) { put8(y_r + j, sum, lanes); };
    if (accumulate)
      sparse_row<Masked>(
          a, r, ask_end, x, mask, [&](int64_t j, int64_t lanes, V8& acc) { acc = take8(y_r + j, lanes); }, store);
    else
      sparse_row<Masked>(a, r, ask_end, x, mask, zero_start, store);
  });
}

}  // namespace

void spmm_rows(Ctx& ctx, Mat y, const Csr& a, CMat x, RowList rows, const uint8_t* mask, bool accumulate) {
  CHECK_SHAPE(x, a.cols, x.cols);
  CHECK_SHAPE(y, a.rows, x.cols);
  CHECK_THAT(rows.n() <= a.rows);
  if (rows.n() == 0) return;
  CHECK_THAT(a.row_ptr[a.rows] == 0 || a.val);  // a pattern alone has no product
  if (mask)
    rows_of_product<true>(ctx, y, a, x, rows, mask, accumulate);
  else
    rows_of_product<false>(ctx, y, a, x, rows, nullptr, accumulate);
}

void spmm(Ctx& ctx, Mat y, const Csr& a, CMat x, bool accumulate) { spmm_rows(ctx, y, a, x, all_rows(a.rows), nullptr, accumulate); }

void spmm_scratch(ScratchPlan&, int64_t, int64_t, bool) {}

}  // namespace ccdrec::cpu
