#include "kernels/project.h"

#include <algorithm>

#include "kernels/cpu/product.h"

namespace ccdrec::cpu {

void project(Ctx& ctx, Mat y, CMat x, RowList rows, CMat w, CMat b) {
  const int64_t n = rows.n(), F = x.cols, d = w.cols;
  CHECK_THAT(y.rows >= n && y.cols == d);
  CHECK_SHAPE(w, F, d);
  CHECK_SHAPE(b, 1, d);
  for (int64_t j = 0; j < n; ++j) std::copy_n(b.p, d, y.row(j));  // the sums start from the bias
  product(ctx, y.slice(0, n), F, {x.p, F, rows.idx, false}, {w.p, d, false}, true);
}

// Y = X W + b. Given dY: dW += X^T dY, db += 1^T dY, dX = dY W^T.
void project_backward(Ctx& ctx, Mat dw, Mat db, Mat dx, CMat dy, CMat x, RowList rows, CMat w) {
  const int64_t n = rows.n(), F = x.cols, d = dy.cols;
  CHECK_THAT(dy.rows >= n);
  CHECK_SHAPE(dw, F, d);
  CHECK_SHAPE(db, 1, d);
  CHECK_SHAPE(w, F, d);
  if (dx) CHECK_THAT(dx.rows >= n && dx.cols == F);
  product(ctx, dw, n, {x.p, F, rows.idx, true}, {dy.p, d, false}, true);
  if (dx) product(ctx, dx.slice(0, n), d, {dy.p, d, nullptr, false}, {w.p, d, true}, false);

  constexpr int64_t kCols = 64;
  for (int64_t c0 = 0; c0 < d; c0 += kCols) {
    const int64_t cols = std::min(kCols, d - c0);
    for (int64_t j0 = 0; j0 < n; j0 += kBlock) {
      float sum[kCols] = {};
      for (int64_t j = j0; j < std::min(n, j0 + kBlock); ++j)
        for (int64_t c = 0; c < cols; ++c) sum[c] += dy.row(j)[c0 + c];
      for (int64_t c = 0; c < cols; ++c) db.p[c0 + c] += sum[c];
    }
  }
}

}  // namespace ccdrec::cpu
