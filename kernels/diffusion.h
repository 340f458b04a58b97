// The diffusion around the estimator: schedule, forward process, fusion, alignment loss (spec ccdrec 3.1, 3.2, 3.4,
// 3.5).
//
// make_schedule     host arrays for t = 1..T: linear | cosine | exponential | sqrt, computed in double, stored float.
//                   Posterior form by default:
//                   A_t = beta_t sqrt(abar_{t-1})/(1-abar_t), B_t = (1-abar_{t-1}) sqrt(alpha_t)/(1-abar_t), A_1 = 1,
//                   B_1 = 0 exactly;
//                   `noise_form`: A_t = -beta_t/(sqrt(alpha_t) sqrt(1-abar_t)), B_t = 1/sqrt(alpha_t). sigma_t^2 =
//                   beta_t (1-abar_{t-1})/(1-abar_t).
// draw_timesteps    zero-based t[j] for j < n: mirrored: h = n/2+1 draws s_0..s_{h-1}, t[j] = s_j (j < h), t[h+j] =
//                   T-1-s_j; otherwise all drawn. Row address j.
// draw_normals      eps[j,:] ~ N(0,1), j < n; address (row = `rows`[j] - the item, not its place in the batch -, sub =
//                   column/4).
// diffuse           e_t[j] = sqrt_abar[t_j] Q[i] + sqrt_1m_abar[t_j] eps[j],  i = rows[j]; arrays are indexed by the
//                   zero-based t
// diffuse_backward  d_q[i] += sqrt_abar[t_j] d_e_t[j]
// fuse              ego[i] = (1-mu) Hhat[i] + mu e0_hat[j],  i = rows[j]; other rows of ego untouched. ego, Hhat (I,d)
// align             L_dm and the backward of fusion in one pass. m_i = slots in group j, s = lambda/(terms d), terms =
//                   the 2B of the spec:
//                   *loss += s sum_j m_i ||Q[i]-e0_hat[j]||^2 ;  g = 2 s m_i (Q[i]-e0_hat[j])
//                   d_e0_hat[j] = mu g_ego[i] - g ;  d_q[i] += g ;
//                   g_ego[i] *= (1-mu)         (g_ego (I,d): then what Hhat receives)
// Order    elementwise; the loss as in bpr.h.
#pragma once
#include <string>
#include <vector>

#include "kernels/ctx.h"
#include "kernels/rng.h"

namespace ccdrec {

struct HostSchedule {  // entry t-1 for step t
  std::vector<float> sqrt_abar, sqrt_1m_abar, a, b, sigma;
  std::vector<double> beta, abar;
};
// throws std::invalid_argument for an unknown kind or steps < 1
HostSchedule make_schedule(const std::string& kind, int steps, bool noise_form);

struct Schedule {  // the same on the device
  int steps = 0;
  const float *sqrt_abar = nullptr, *sqrt_1m_abar = nullptr, *a = nullptr, *b = nullptr, *sigma = nullptr;
};

}  // namespace ccdrec

namespace ccdrec::cpu {
void draw_timesteps(Ctx&, int32_t* t, RowList rows, int steps, bool mirrored, Stream);
void draw_normals(Ctx&, Mat eps, RowList rows, Stream);
void diffuse(Ctx&, Mat e_t, CMat q, CMat eps, const int32_t* t, RowList rows, const Schedule&);
void diffuse_backward(Ctx&, Mat d_q, CMat d_e_t, const int32_t* t, RowList rows, const Schedule&);
void fuse(Ctx&, Mat ego, CMat hhat, CMat e0_hat, RowList rows, float mu);
void align(Ctx&, double* loss, Mat d_e0_hat, Mat d_q, Mat g_ego, CMat q, CMat e0_hat, const Groups&, float lambda,
           int64_t terms, float mu);
}  // namespace ccdrec::cpu
