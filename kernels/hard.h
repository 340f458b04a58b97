// Hard negatives beside the uniform ones: DNS, MixGCF, popularity, and how hard a negative was (spec negative_sampling
// 2 to 6).
//
// v_i^(l) = layer[l] row i + item_part row i, n tables (2.3). DNS has one table, the pooled h_i, and no item part.
//
// hardest_negative   out (n,B). Row b draws N candidates by the rule of `negatives` (sample.h) at rows (first_row +
//                    b)*N + m (mod 2^32) of `candidates`, m < N <= kMostCandidates; all tables choose among the same.
//                    out[l,b] = the candidate of the largest h_u . v^(l), h_u = row users[b] of (U,d); of equals the
//                    one drawn first. top_m > 1: of the min(top_m, N) best, equals in the order of their draws, the one
//                    of rank below(draw(rank, first_row + b, l)): uniform. A candidate drawn twice stands there twice;
//                    a NaN score counts as -inf.
//                    Score = h_u . layer + h_u . part, each in double: products are exact there, column j goes to lane
//                    j % 8, lanes are added ((0+4)+(2+6)) + ((1+5)+(3+7)). The same bits, and so the same choice, on
//                    both devices. Refused: N or top_m below 1, no items.
// draw_mixing        alpha (n,B) in [0,1), 24 bits: row first_row + b, sub l.
// mixed_bpr          MixGCF's ranking loss in the form of 6.3, where the mixed vectors are never made. u (B,d): users'
//                    rows, gathered; positives (B) and hard (n,B): item ids; alpha (n,B).
//                      w_b = 1/n sum_l (1 - alpha_lb) (v_p^(l) - v_hard_l^(l));   x_b = u . w_b;
//                      *loss += weight/B sum f(x_b), f as in bpr.h
//                      c = weight/B f'(x_b);   d_u += c w_b;
//                      d_layer[l] (2B,d), rows [positives | hard] (written): row b = c (1 - alpha_lb)/n u, row B+b its
//                      negative. The item part's gradient is the sum of them over l
//                      h_n (B,d) where not empty = 1/n sum_l alpha_lb v_p^(l) + (1 - alpha_lb) v_hard_l^(l)  (written)
// popular_negatives  out (B), at row first_row + b: P(j) ~ share over the columns of the alias table, redrawn (sub 0,
//                    1, ..) while in train row users[b]; after 64 redraws exactly, by share among the items the user
//                    lacks (popular.h); a user who has them all gets any.
// negative_ranks     out (B,3), for analysis: of h_n (B,d) as a negative of user users[b]
//                      [0] rank percentile 50 (larger + not smaller) / A: how many of the A items that are not in train
//                          row users[b] score above h_n, and how many no less; an item itself is one of those. 0
//                          hardest, 100 easiest. A uniform negative has the mean 50 whatever the ties, DNS with N
//                          candidates about 100/(N+1). 50 where A = 0; comparisons with NaN fail
//                      [1] cosine of h_n and row positives[b] of h_i (I,d), 0 for a zero vector
//                      [2] h_u . h_n
//                    Scores are one float fma chain over ascending columns, so that an item's own row has its own
//                    score: the same bits on both devices.
// Order    fixed sums and integers: the same bits for any thread count. mixed_bpr: x_b in double by fixed lanes, loss
//          as bpr.h.
// Cost     hardest_negative N n rows of d floats gathered and 2 N n d flop a row; with an item part n + 1 in place of n
//          (on a GPU 2 n: each table's warp reads the part anew). Nothing of size B x N is stored. negative_ranks 2 B I
//          d flop in tiles; nothing (B,I) is stored.
#pragma once
#include <span>
#include <vector>

#include "kernels/ctx.h"
#include "kernels/popular.h"
#include "kernels/propagate.h"
#include "kernels/rng.h"

namespace ccdrec {

struct LayerTables {
  int n = 0;                   // tables: 1, or L+1
  CMat layer[kMaxLayers + 1];  // (I,d) each
  CMat item_part;              // (I,d); empty: nothing is added
};
constexpr int kMostCandidates = 1024;

// On the host: P(items[k]) ~ counts[k]^power in double; an item of count 0 is never drawn. The same columns for the
// same arguments on one machine.
std::vector<PopularColumn> popular_columns(std::span<const int32_t> items, std::span<const int64_t> counts,
                                           double power);

}  // namespace ccdrec

namespace ccdrec::cpu {
void hardest_negative(Ctx&, int32_t* out, CMat h_u, const int32_t* users, int64_t batch, int64_t first_row,
                      const LayerTables&, const Csr& train, const int32_t* items, int64_t n_items, int n_candidates,
                      int top_m, Stream candidates, Stream rank);
void draw_mixing(Ctx&, Mat alpha, int64_t first_row, Stream);
void mixed_bpr(Ctx&, double* loss, Mat d_u, const Mat* d_layer, Mat h_n, CMat u, const LayerTables&,
               const int32_t* positives, const int32_t* hard, CMat alpha, float weight, bool with_eps);
void popular_negatives(Ctx&, int32_t* out, const int32_t* users, int64_t batch, int64_t first_row, const Csr& train,
                       const PopularColumn* columns, int64_t n, Stream);
void negative_ranks(Ctx&, Mat out, CMat h_u, const int32_t* users, const int32_t* positives, CMat h_n, CMat h_i,
                    const Csr& train);
void negative_ranks_scratch(ScratchPlan&, int64_t items, int64_t d);
}  // namespace ccdrec::cpu
namespace ccdrec::cpu::plain {  // the definition, by one thread
void negative_ranks(Mat out, CMat h_u, const int32_t* users, const int32_t* positives, CMat h_n, CMat h_i,
                    const Csr& train);
}
