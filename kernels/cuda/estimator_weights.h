// The estimator's weight gradients alone, the last part of estimator_backward: for the bench that holds them against
// cuBLAS.
#pragma once
#include "kernels/estimator.h"

namespace ccdrec::cuda {

// Given x, u, s of `saved` and d_e0_hat of the listed rows, K tokens each, dG = x^T u:  dW_q += dG W_k,  dW_k += dG^T
// W_q,  dW_v += s^T d_e0_hat. 2 d^2 (n K + n + 2 d) flop; 4 d (2 n K + 2 n) bytes and, for the partial sums, as many
// again at d <= 64.
void estimator_weight_gradients(Ctx&, const EstimatorGrads&, CMat d_e0_hat, const EstimatorSaved&,
                                const EstimatorParams&, RowList rows, int K);

}  // namespace ccdrec::cuda
