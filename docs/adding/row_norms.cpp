#include "docs/adding/row_norms.h"

#include <cmath>

namespace ccdrec::cpu {

void row_norms(Ctx& ctx, float* out, CMat x, RowList rows) {
  const int64_t n = rows.n();
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) {
    const float* const row = x.row(rows.at(j));
    double squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += double(row[c]) * double(row[c]);
    out[j] = float(std::sqrt(squares));
  }
}

}  // namespace ccdrec::cpu
