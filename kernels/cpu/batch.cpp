#include "kernels/batch.h"

#include <algorithm>

#include "kernels/cpu/fast/sparse_row.h"

namespace ccdrec::cpu {

void take(Ctx& ctx, int32_t* out, const int32_t* table, const int32_t* order, int64_t first, int64_t n) {
#pragma omp parallel for num_threads(ctx.threads_for(4.0 * n))
  for (int64_t j = 0; j < n; ++j) out[j] = table[order[first + j]];
}

void offset_ids(Ctx&, int32_t* out, const int32_t* in, int64_t n, int32_t offset) {
  for (int64_t j = 0; j < n; ++j) out[j] = in[j] + offset;
}

void expand_rows(Ctx& ctx, Mat y, CMat x, const Groups& g) {
  CHECK_THAT(x.cols == y.cols);
  const int64_t n = g.rows.n();
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* g.ptr[n] * x.cols))
  for (int64_t j = 0; j < n; ++j)
    for (int32_t e = g.ptr[j]; e < g.ptr[j + 1]; ++e) std::copy_n(x.row(j), x.cols, y.row(g.slot[e]));
}

void add_rows(Ctx& ctx, Mat y, CMat x, RowList rows, int64_t y_first) {
  CHECK_THAT(x.cols == y.cols);
  const int64_t n = rows.n(), d = x.cols;
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* d))
  for (int64_t j = 0; j < n; ++j) {
    if (j + kListAhead < n)
      ask_for_row(x.row(rows.at(j + kListAhead))), ask_to_write_row(y.row(y_first + rows.at(j + kListAhead)));
    const int64_t r = rows.at(j);
    float* y_r = y.row(y_first + r);
    const float* x_r = x.row(r);
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) y_r[c] += x_r[c];
  }
}

}  // namespace ccdrec::cpu
