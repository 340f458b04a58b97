// Draws of an epoch: order, negatives, pruned edges, candidates, curricular negatives (spec ccdrec 2, 5; baselines 2.3,
// 9.3).
//
// shuffle           order (n) = a uniform permutation of 0..n-1: rows sorted by (64-bit key, index), key = draw(stream,
//                   row).
// negatives         out (n_neg*B), entry k*B+b: uniform over `items` (n_items, those that occur in training), redrawn
//                   (sub = 0, 1, ...) while it is in train row users[b]; address row = (first_row + b)*n_neg + k. After
//                   64 redraws the choice is made exactly, uniform over the items the user lacks; a user who has them
//                   all gets any item (there is no true negative).
// unseen_items      NDI without CNS: out (B) uniform over all I items outside train row users[b] (same redraw rule,
//                   falls back to any).
// prune             keep floor(E (1-rho)) edges without replacement, probability ~ w_e =
//                   1/sqrt((deg_u+1e-7)(deg_i+1e-7)): exponential race,
//                   key = -portable_log(1-u)/w_e (u of 24 bits; ties go to the lower edge), the n_keep smallest; then
//                   degrees of the kept edges, values 1/sqrt((deg+1e-7)(deg+1e-7)), and the symmetric (N,N) CSR with
//                   users first. Edges are given sorted by (user, item), distinct.
// candidates        out (C): uniform over 0..I-1 with replacement, sorted ascending (address row = position before
//                   sorting).
// similar_negative  CNS: for row b, positives' pool row . candidates' pool rows; candidates in train row users[b] are
//                   excluded; of the k = k_top most similar admissible ones (fewer if fewer are admissible) one is
//                   drawn uniformly: rank = floor(x min(k,a)), a = admissible count with multiplicity, x from the
//                   address row b; total order: similarity descending, then position in the sorted candidate
//                   list. a = 0: out[b] = fallback[b]. `cosine` divides by the norms. Pool rows of positives and
//                   candidates: pool (I,d). Any NaN similarity sets *nan_flag = 1. -0 equals 0. The columns of train
//                   are distinct and below I.
// Order    integers only, or fixed sums (similarities as gemm): same bits for any thread count, and on a GPU.
// Cost     similar_negative 2 B C d flop, tiles of candidates; nothing (B,C) leaves the cache.
#pragma once
#include "kernels/ctx.h"
#include "kernels/rng.h"

namespace ccdrec {
struct EdgeList {  // training pairs, distinct, sorted by (user, item)
  const int32_t *user = nullptr, *item = nullptr;
  const float* weight = nullptr;  // w_e
  int64_t n = 0, users = 0, items = 0;
};
}  // namespace ccdrec

namespace ccdrec::cpu {
void shuffle(Ctx&, int32_t* order, int64_t n, Stream);
void negatives(Ctx&, int32_t* out, const int32_t* users, int64_t batch, int n_neg, int64_t first_row, const Csr& train,
               const int32_t* items, int64_t n_items, Stream);
void unseen_items(Ctx&, int32_t* out, const int32_t* users, int64_t batch, const Csr& train, int64_t n_items, Stream);
void prune(Ctx&, const MutableCsr& out, const EdgeList&, double rho, Stream);
void candidates(Ctx&, int32_t* out, int64_t count, int64_t n_items, Stream);
void similar_negative(Ctx&, int32_t* out, int32_t* nan_flag, CMat pool, const int32_t* positives, const int32_t* users,
                      int64_t batch, const int32_t* cand, int64_t count, const Csr& train, int64_t k_top, bool cosine,
                      const int32_t* fallback, Stream);
void shuffle_scratch(ScratchPlan&, int64_t n);
void prune_scratch(ScratchPlan&, int64_t edges, int64_t kept, int64_t nodes);
void candidates_scratch(ScratchPlan&, int64_t count);
void similar_negative_scratch(ScratchPlan&, int64_t batch, int64_t count, int64_t k_top, int64_t items, int64_t d);
}  // namespace ccdrec::cpu
