// propagate: layer-averaged propagation ("LightGCN propagation", spec baselines 1.3) for the rows a batch reads.
//
//   H = prop(A, E_0, L) = (1/(L+1)) sum_{l=0..L} E_l,  E_l = A^l E_0;  A (N,N), symmetric or not, E_0 (N,d)
//   prop^T(A, G, L)     = (1/(L+1)) sum_{l=0..L} (A^T)^l G
// frontier            rows[L] = the rows wanted (given); rows[l-1] = rows[l] and their neighbours. mask[l][r] = 1 iff r
//                     is in rows[l].
//                     a_t is the transpose of A (values are not read).
//                     A null seed (idx null) means all rows: every list is then the identity and every mask null.
// propagate           H[r] for r in rows[L]; other rows of H untouched. E_l (layer l = 1..L in `work[l-1]`, (N,d)) is
//                     computed on rows[l] only. work[L-1] may be empty: E_L is then not stored (refused where cuSPARSE
//                     computes all rows: it has to store it). Reads E0 on rows[0].
// propagate_backward  given G (N,d), taken as zero outside rows[L]: G_E0[r] = prop^T(G)[r] for r in rows[0] (every
//                     other row is mathematically zero and left untouched). Horner: Y <- G; L times Y <- G + A^T Y;
//                     G_E0 = Y/(L+1). a_t is the transpose of the A that the frontier and the layers were made with.
//                     work: L matrices (N,d), of which the last is not used and may be G.
// propagate_backward_layers
//                     where layers have gradients besides (spec negative_sampling 6.3): given G of H and G_l of E_l in
//                     g_layer[l], l = 0..L, (N,d) each, all taken as zero outside rows[L], and those without memory
//                     everywhere:
//                       Z_L = G_L + G/(L+1);  Z_l = G_l + G/(L+1) + A^T Z_(l+1);
//                       G_E0[r] = Z_0[r] for r in rows[0], other rows untouched.
//                     work: L matrices (N,d), all used: Z_l goes to work[l-1], on rows[l]. G_l may lie there, and G_0
//                     in g_e0: an element is read before it is written. G may lie in none of them.
// Exact: rows outside the lists would receive or contribute zeros.
// Order    as spmm; of all rows on a GPU possibly by cuSPARSE, as spmm. Cost: the edges of the listed rows only; of
//          gradients by layer, a row of each layer and of H's for every layer more.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {
constexpr int kMaxLayers = 8;
struct Frontier {
  int layers = 0;                      // L
  RowList rows[kMaxLayers + 1];        // capacity N each; rows[0] is the widest
  uint8_t* mask[kMaxLayers + 1] = {};  // (N) each
};
}  // namespace ccdrec

namespace ccdrec::cpu {
void frontier(Ctx&, Frontier&, const Csr& a, const Csr& a_t, RowList seed);  // seed: ascending, distinct
void propagate(Ctx&, Mat h, Mat* work, const Csr& a, const Frontier&, CMat e0);
void propagate_backward(Ctx&, Mat g_e0, Mat* work, const Csr& a_t, const Frontier&, CMat g);
void propagate_backward_layers(Ctx&, Mat g_e0, Mat* work, const Csr& a_t, const Frontier&, CMat g, const CMat* g_layer);
}  // namespace ccdrec::cpu
