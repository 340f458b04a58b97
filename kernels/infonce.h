// infonce: in-batch contrast (spec baselines 1.5). X, Y (B,k):
//   S = X Y^T / tau;  loss += weight mean_b (logsumexp_j S_bj - S_bb);  Pi = row-wise softmax of S
//   d_x (=) weight (Pi - Id) Y / (tau B);  d_y (=) weight (Pi - Id)^T X / (tau B)
// Rows that are equal elsewhere in the batch count as negatives. S is stored a strip of rows at a time, never whole:
// a strip's products, its softmax in place, and from it its rows of d_x and its share of d_y. The row maximum is taken
// off the products before they are divided by tau, and Pi_bb - 1 is minus the sum of the others: large products
// neither overflow nor cancel.
// Order    products as gemm; d_y sums strips ascending, whose height B alone decides; the losses of rows are summed in
//          double. The same bits for any thread count.
// Cost     6 B^2 k flop and B^2 exponentials; on a GPU the products are gemm's, in the run's precision. Scratch: a
//          strip of some megabytes, or of kContrastRows rows where those take more.
#pragma once
#include <algorithm>

#include "kernels/ctx.h"

namespace ccdrec {

constexpr int64_t kContrastRows = 48;                          // of a strip at least
inline int64_t contrast_strip(int64_t rows, int64_t floats) {  // rows of a strip of about so many floats
  return std::min(rows, std::max(kContrastRows, floats / std::max<int64_t>(rows, 1)));
}

}  // namespace ccdrec

namespace ccdrec::cpu {
void infonce(Ctx&, double* loss, Mat d_x, Mat d_y, CMat x, CMat y, float tau, float weight);
void infonce_scratch(ScratchPlan&, int64_t rows, int64_t cols);
}  // namespace ccdrec::cpu
