// infonce: in-batch contrast (spec baselines 1.5). X, Y (B,k):
//   S = X Y^T / tau;  loss += weight mean_b (logsumexp_j S_bj - S_bb);  Pi = row-wise softmax of S
//   d_x (=) weight (Pi - Id) Y / (tau B);  d_y (=) weight (Pi - Id)^T X / (tau B)
// S is never stored: row maxima and sums in a first pass over tiles, tiles again for the gradients. Rows that are equal
// elsewhere in the batch count as negatives.
// Order    fixed for a device; the same bits for any thread count.
// Cost     8 B^2 k flop, 4 B^2 exponentials; O(B k) bytes.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void infonce(Ctx&, double* loss, Mat d_x, Mat d_y, CMat x, CMat y, float tau, float weight);
void infonce_scratch(ScratchPlan&, int64_t rows, int64_t cols);
}  // namespace ccdrec::cpu
