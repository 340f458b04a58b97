// bpr: the pairwise ranking loss and its gradient in one pass (spec baselines 1.5); norm_reg: the norm regulariser of
// BPR-MF and LightGCN; square_reg: the squared one of LATTICE (8.3).
//
//   x_b = h_u[b] . (h_p[b] - h_x[b]),  b < B;   all (B,d): rows already gathered
//   stable form  f = softplus(-x), f' = -sig(-x)
//   eps form     f = -log(1e-10 + s), s = sig(x), f' = -s(1-s)/(1e-10 + s)   (BPR-MF and LightGCN keep it: `with_eps`)
//   *loss += weight/B sum f(x_b);  dx_b = weight/B f'(x_b)
//   d.u (+)= dx_b (h_p - h_x);  d.p (+)= dx_b h_u;  d.x = -dx_b h_u               (d.x empty: h_x is a constant)
//
// norm_reg: slots are blocks of B, [users | positives | negatives 0 .. n_neg-1], slot s is row ids[s] of X (R,d);
// `slots` groups them by row. One further block of B slots, the hard negatives, may be among them: it has no share.
//   *loss += sum_k w_k ||X[ids of block k]||_F (un-squared norms), w_k = reg/B of users and positives, reg/(B n_neg) of
//   a block of negatives
//   g[r] += sum over the slots s of r of w_k(s) / ||..||_F X[r]                   g (R,d)
//   a block whose norm is 0 adds nothing
// square_reg: *loss += weight/2 sum X^2;  d += weight X, one fma an element        X, d (R,d); d empty: X is a constant
// Order    dot products in double by fixed lanes; loss summed in double over chunks of 256 rows, chunks in order. Same
//          bits for any thread count. Loss accumulators are device doubles, read by the host once per epoch.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

// (B,d) each. A block of negatives takes part in one loss: x is written; u and p may have gradients of others already
struct BprGradients {
  Mat u, p, x;
  bool add_u = true, add_p = true;  // false: written
};

}  // namespace ccdrec

namespace ccdrec::cpu {
void bpr(Ctx&, double* loss, const BprGradients& d, CMat h_u, CMat h_p, CMat h_x, float weight, bool with_eps);
void norm_reg(Ctx&, double* loss, Mat g, CMat x, const Groups& slots, const int32_t* ids, int64_t B, int n_neg,
              float reg);
void square_reg(Ctx&, double* loss, Mat d, CMat x, float weight);
}  // namespace ccdrec::cpu
