// propagate: layer-averaged propagation ("LightGCN propagation", spec baselines 1.3) for the rows a batch reads.
//
//   prop(A, E0, L) = (1/(L+1)) sum_{l=0..L} A^l E0,  A (N,N) symmetric, E0 (N,d)
// frontier            rows[L] = the rows wanted (given); rows[l-1] = rows[l] and their neighbours. mask[l][r] = 1 iff r is in rows[l].
//                     a_t is the transpose of A, which need not be symmetric here (values are not read).
//                     A null seed (idx null) means all rows: every list is then the identity and every mask null.
// propagate           H[r] for r in rows[L]; other rows of H untouched. E_l (layer l = 1..L in `work[l-1]`, (N,d)) is computed on rows[l] only.
//                     work[L-1] may be empty: E_L is then not stored (refused where cuSPARSE computes all rows: it has to store it). Reads E0 on
//                     rows[0].
// propagate_backward  given G (N,d), taken as zero outside rows[L]: G_E0[r] = prop^T(G)[r] for r in rows[0] (every other row is mathematically zero
//                     and left untouched). Horner: Y <- G; L times Y <- G + A Y; G_E0 = Y/(L+1). work: L matrices (N,d), of which the last
//                     is not used and may be G.
// Exact: rows outside the lists would receive or contribute zeros. A is symmetric, so it serves both ways.
// Order    as spmm; of all rows on a GPU possibly by cuSPARSE, as spmm. Cost: the edges of the listed rows only.
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
void propagate_backward(Ctx&, Mat g_e0, Mat* work, const Csr& a, const Frontier&, CMat g);
}  // namespace ccdrec::cpu
