// DGD, diffusion-guided graph denoising (spec mcdrec 5): edges weighed by how near their two ends are to each other,
// and the training graph of an epoch whose edges are kept, and normalised, by weighted degrees.
//
// edge_cosines    a_e = max(1e-7, 1 + tau cos(P[u_e], X[i_e])); the cosine with a row of zeros is 0
//                 a (E), P (U,d), X (I,d)
// prune_weighted  prune (sample.h), its draws and its ties, with d_v(S) = 1e-7 + the sum of a over v's edges in S where
//                 prune has degrees: floor(E (1-rho)) edges K are kept by w_e = 1/sqrt(d_u(E) d_i(E)), and their values
//                 are 1/sqrt(d_u(K) d_i(K)); with `direct` both times a_e. Writes the symmetric (N,N) CSR, users first.
//                 a (E) > 0. Where it is 1 everywhere the graph is prune's. An edge whose a is no number, and those
//                 that share an end with it, are kept only after all others.
// Edges are sorted by (user, item) and distinct; EdgeList::weight is not read.
// Order    a_e: dot products and squares in double, column j in lane j % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)),
//          rounded once. d_v(S): in double, v's edges ascending. The same bits on both devices.
// Cost     edge_cosines 2 E d flop, 4 d bytes an edge and row where none comes from cache. prune_weighted: prune, and
//          both ends of all edges once more; on a GPU another sort of E pairs.
#pragma once
#include "kernels/sample.h"

namespace ccdrec {

// One source for both devices: the same bits.
CCDREC_HD inline double inverse_or_zero(double squares) { return squares == 0 ? 0 : 1 / std::sqrt(squares); }
CCDREC_HD inline float edge_weight(double dot, double inv_p, double inv_x, float tau) {
  const double a = std::fma(double(tau), dot * inv_p * inv_x, 1.0);
  return float(a < 1e-7 ? 1e-7 : a);  // a NaN passes
}
CCDREC_HD inline double root_of_degree(double sum) { return 1.0 / std::sqrt(sum + 1e-7); }
// w_e and the value of an edge: the roots of its ends, and a_e or 1
CCDREC_HD inline float weighted_value(double root_u, double root_i, float a) {
  return float(root_u * root_i * double(a));
}

}  // namespace ccdrec

namespace ccdrec::cpu {
void edge_cosines(Ctx&, float* a, const EdgeList&, CMat p, CMat x, float tau);
void prune_weighted(Ctx&, const MutableCsr& out, const EdgeList&, const float* a, bool direct, double rho, Stream);
void edge_cosines_scratch(ScratchPlan&, int64_t nodes);
void prune_weighted_scratch(ScratchPlan&, int64_t edges, int64_t kept, int64_t nodes);
}  // namespace ccdrec::cpu
