// bpr: the pairwise ranking loss and its gradient in one pass (spec baselines 1.5); fro: the norm regulariser of BPR-MF and LightGCN.
//
//   x_b = h_u[b] . (h_p[b] - h_x[b]),  b < B;   all (B,d): rows already gathered
//   stable form  f = softplus(-x), f' = -sig(-x)
//   eps form     f = -log(1e-10 + s), s = sig(x), f' = -s(1-s)/(1e-10 + s)        (BPR-MF and LightGCN keep it: `with_eps`)
//   *loss += weight/B sum f(x_b);  dx_b = weight/B f'(x_b)
//   d_u += dx_b (h_p - h_x);  d_p += dx_b h_u;  d_x -= dx_b h_u                   (d_x empty: h_x is a constant)
// fro: *loss += reg ||X||_F / denom (un-squared norm), d += reg/(denom ||X||_F) X, nothing when the norm is 0. X, d (n,d).
// Order    dot products in double by fixed lanes; loss summed in double over chunks of 256 rows, chunks in order. Same bits for any thread count.
// Loss accumulators are device doubles, read by the host once per epoch.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void bpr(Ctx&, double* loss, Mat d_u, Mat d_p, Mat d_x, CMat h_u, CMat h_p, CMat h_x, float weight, bool with_eps);
void fro(Ctx&, double* loss, Mat d, CMat x, float reg, int64_t denom);
}  // namespace ccdrec::cpu
