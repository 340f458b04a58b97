// f_theta of the diffusion (spec ccdrec 3.3) forward and backward, and the whole reverse process (3.6).
//
//   tokens of item j, K = M+2, width d: [ e_t[j], h_1[j], .., h_M[j], tau[t_j] ]
//   token --LayerNorm(eps 1e-5, no affine)--> x --W_q,W_k,W_v--> q,k,v;  a = softmax(q k^T / sqrt(d)) (K,K);
//   e0_hat = mean over rows of a v
// Structure used: mean_r(sum_c a_rc v_c) = sum_c w_c v_c = (sum_c w_c x_c) W_v with w_c = mean_r a_rc: one (1,d)x(d,d)
// product per item for v. Likewise q_r . k_c = (x_r G) . x_c with G = W_q W_k^T: one product y = x G per token instead
// of two, forward and backward.
//
// estimator_forward   writes e0_hat[j], j < n (n = rows.count), and Saved.
// estimator_backward  given d_e0_hat (cap,d): dW_q, dW_k, dW_v += ; d_e_t[j] = ; d_h[m][j] = (the time tokens are
//                     constants).
//    with s = sum_c w_c x_c: ds = d_e0_hat W_v^T, dW_v += s^T d_e0_hat; dw_c = ds . x_c, da_rc = dw_c / K; softmax
//    backward to the scores' gradient
//    g; u_r = sum_c g_rc x_c, dG = x^T u, dW_q += dG W_k, dW_k += dG^T W_q; dx_c = w_c ds + u_c G^T + sum_r g_rc y_r;
//    LayerNorm backward.
// reverse_process     e_T = sqrt_abar[T] Q + sqrt_1m_abar[T] z_start;
//                     t = T..1: x0 = f(e_t, t-1 zero-based); e_{t-1} = A x0 + B e + sigma z (no noise at t = 1).
//    pools[0..2]: e after T/4, T/2, 3T/4 reverse steps (integer division; 0 steps is e_T), pools[3] = the end; any may
//    be empty.
//    Normals: Stream{use reverse_start | reverse_noise, epoch, step = t}, row = item, sub = column/4. x and y of
//    constant tokens are computed once per item tile.
// tau      (T,d), host: time_embedding().
// Order    every item by one thread; products sum ascending, dot products in eight fixed lanes; weight gradients as
//          gemm. Same bits for any thread count.
// Cost     2 n (K+1) d^2 flop forward, twice that backward; reverse 4 d^2 flop an item and step.
#pragma once
#include <vector>

#include "kernels/ctx.h"
#include "kernels/diffusion.h"

namespace ccdrec {

constexpr int kMaxModalities = 8;

struct EstimatorParams {
  CMat wq, wk, wv;
};  // (d,d), (in,out)
struct EstimatorGrads {
  Mat wq, wk, wv;
};
struct EstimatorTokens {       // inputs
  CMat e_t;                    // (cap,d)
  CMat h[kMaxModalities];      // (cap,d) each
  int modalities = 0;          // M >= 1
  CMat tau;                    // (T,d)
  const int32_t* t = nullptr;  // (cap) zero-based
};
struct EstimatorSaved {  // all that forward leaves for backward; sized for the capacity
  Mat x;                 // (cap*K, d) normalised tokens
  Mat rstd;              // (cap*K, 1)
  Mat y;                 // (cap*K, d) x G
  Mat u;                 // (cap*K, d) room of backward
  Mat a;                 // (cap*K, K)
  Mat s;                 // (cap, d) sum_c w_c x_c
};
std::vector<float> time_embedding(int steps, int64_t d);  // (T,d) row-major: sinusoids of the zero-based step

}  // namespace ccdrec

namespace ccdrec::cpu {
void estimator_forward(Ctx&, Mat e0_hat, const EstimatorSaved&, const EstimatorTokens&, const EstimatorParams&,
                       RowList rows);
void estimator_backward(Ctx&, Mat d_e_t, const Mat* d_h, const EstimatorGrads&, CMat d_e0_hat, const EstimatorTokens&,
                        const EstimatorSaved&, const EstimatorParams&, RowList rows);
// h: M matrices (I,d), the projections of all items.
void reverse_process(Ctx&, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const EstimatorParams&,
                     const Schedule&, uint32_t seed, uint32_t epoch);
void estimator_scratch(ScratchPlan&, int64_t rows, int modalities, int64_t d);  // forward and backward
void reverse_process_scratch(ScratchPlan&, int64_t items, int modalities, int64_t d, int64_t T);
}  // namespace ccdrec::cpu
