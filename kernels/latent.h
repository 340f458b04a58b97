// LATTICE's item graph, learned and frozen, as lists of neighbours side by side (spec baselines 8.2, 8.5 (b) to (e)).
//
// M modalities; K_m (I,k) learned similarities of row i and row idx_m[i,c], O_m (I,k) values of the frozen graph and
// frozen_idx_m its neighbours. The union of two lists is never formed: a pair in several of them has several entries.
//
// softmax_weights           w = softmax(theta)                                                      M <= kMaxModalities
// softmax_weights_backward  g_theta += w (g_w - w . g_w)
// latent_graph   c_i = sum_m w_m sum_c K_m[i,c];  s_i = c_i^(-1/2), 0 where c_i <= 0;  *empty = how many such rows.
//                s (I) is kept for the backward. S as rows of 2Mk entries, written:
//                  entry  m k + c       column idx_m[i,c] = j    value (1 - lambda) w_m s_i K_m[i,c] s_j
//                  entry (M + m) k + c  frozen_idx_m[i,c]        lambda w_m O_m[i,c]
//                s_val (I,2Mk), s_col (I,2Mk): a Csr whose row r starts at 2Mk r, for spmm. Columns do not ascend.
// latent_graph_backward     gradients of the loss in K_m and w, given those in S: Gamma_m (I,k) at the learned entries,
//                           frozen_gamma_m (I,k) at the frozen ones. In LATTICE both are list_dots of D_k and Z_{k-1},
//                           summed over the item layers.
//                  G_L = (1 - lambda) Gamma;   C = the sum of w_m K_m, in lists
//                  g_s[i] = sum over i's entries of G_L w_m K_m s_j + sum over the entries that name i of G_L w_m K_m
//                  s_j, where j is the other end;   g_c = -1/2 s^3 g_s
//                  G_C = s_i s_j G_L + g_c[i];   g_k_m (I,k) = w_m G_C     (written)
//                  g_w[m] = sum G_C K_m + lambda sum O_m frozen_gamma_m    (written)
//                by_target[m] groups idx_m (rows.h). A row with c_i <= 0 has s_i = 0 and so gradient 0.
// Order    all in double, rounded once. Sums of a row or a group: entries in order (m, then c; slots), entry e in lane
//          e % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)); groups' sums of m = 0, 1, .. before the row's. The same
//          bits on both devices, but for g_w: rows in chunks of 256, chunks in order; on a GPU block by block.
// Cost     latent_graph I M k (4 + 4 + 8) bytes read and 16 I M k written; backward about 48 I M k. Scratch: 8 bytes a
//          row, and what the sums of g_w take.
#pragma once
#include "kernels/ctx.h"
#include "kernels/estimator.h"
#include "kernels/numbers.h"

namespace ccdrec {

struct LatentLists {
  int M = 0;
  CMat learned[kMaxModalities], frozen[kMaxModalities];                       // K_m, O_m (I,k)
  const int32_t *idx[kMaxModalities] = {}, *frozen_idx[kMaxModalities] = {};  // (I,k)
};
struct LatentGradients {
  CMat gamma[kMaxModalities], frozen_gamma[kMaxModalities];  // (I,k)
  Groups by_target[kMaxModalities];                          // of idx_m
  Mat g_k[kMaxModalities];                                   // (I,k)
};

// One source for both devices: the same bits.
CCDREC_HD inline void softmax_of(float* w, const float* theta, int M) {
  float top = theta[0], e[kMaxModalities];
  for (int m = 1; m < M; ++m) top = theta[m] > top ? theta[m] : top;
  double sum = 0;
  for (int m = 0; m < M; ++m) sum += double(e[m] = portable_exp(theta[m] - top));
  for (int m = 0; m < M; ++m) w[m] = float(double(e[m]) / sum);
}
CCDREC_HD inline void add_softmax_gradient(float* g_theta, const float* w, const float* g_w, int M) {
  double mean = 0;
  for (int m = 0; m < M; ++m) mean += double(w[m]) * double(g_w[m]);
  for (int m = 0; m < M; ++m) g_theta[m] += float(double(w[m]) * (double(g_w[m]) - mean));
}
// What an entry of S is, and what it adds to g_s of either end: `other` is s of the end that it is not added to.
CCDREC_HD inline float learned_value(float w, float k, float s_i, float s_j, float lambda) {
  return float((1 - double(lambda)) * double(w) * double(s_i) * double(k) * double(s_j));
}
CCDREC_HD inline float frozen_value(float w, float o, float lambda) {
  return float(double(lambda) * double(w) * double(o));
}
CCDREC_HD inline double end_gradient(float gamma, float w, float k, float other, float lambda) {
  return (1 - double(lambda)) * double(gamma) * double(w) * double(k) * double(other);
}
CCDREC_HD inline double scale_of(double c) { return c <= 0 ? 0 : 1 / std::sqrt(c); }  // a NaN passes
CCDREC_HD inline double sum_gradient(float s, double g_s) { return -0.5 * double(s) * double(s) * double(s) * g_s; }
CCDREC_HD inline double entry_gradient(float gamma, float s_i, float s_j, double g_c, float lambda) {
  return double(s_i) * double(s_j) * ((1 - double(lambda)) * double(gamma)) + g_c;
}

}  // namespace ccdrec

namespace ccdrec::cpu {
void softmax_weights(Ctx&, float* w, const float* theta, int M);
void softmax_weights_backward(Ctx&, float* g_theta, const float* w, const float* g_w, int M);
void latent_graph(Ctx&, Mat s_val, int32_t* s_col, float* s, int64_t* empty, const LatentLists&, const float* w,
                  float lambda);
void latent_graph_backward(Ctx&, float* g_w, const LatentGradients&, const LatentLists&, const float* w, const float* s,
                           float lambda);
void latent_graph_backward_scratch(ScratchPlan&, int64_t I, int64_t k, int M);
}  // namespace ccdrec::cpu
