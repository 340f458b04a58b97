// RealHNS: hard negatives from a band of each user's ranking, without those too close to the positive (spec
// negative_sampling 7.4).
//
// pick_columns       out (n,c): out[r,j] = lists[r,columns[j]], lists (n,k), 0 <= columns[j] < k. Of score_topk's lists
//                    it makes rows of a table of candidates; -1, where a ranking ends early, is passed on. Where names
//                    is given, lists hold positions in it, and out its entries.
// cohesion           *theta = scale * mean over K = min(clusters, I) clusters of |c_k|^2, the mean dot product
//                    X_i . c_k of a cluster's members with their centre, which is not of length 1. k-means by cosine
//                    over the rows of h (I,d):
//                      X_i = h_i / max(|h_i|, 1e-12), as normalize_rows;  c_k = X[order[k]], order as `shuffle` at s
//                      at most kCohesionRounds times, r = 0, 1, ..
//                        a_i = the k of the largest X_i . c_k / max(|c_k|, 1e-12), of equals the lowest; 0 where all
//                        are NaN. A zero row or centre has the cosine 0
//                        c_k = the mean of the X_i with a_i = k; without any, X[below(draw(s, k, r + 1), I)]
//                        end where (sum_k |c_k - what it was|)^2 < kCohesionShift
//                    scale is a number of the host: the call is none of a recorded step. On a GPU all rounds are
//                    launched; those after the last return at once, and the host is not asked.
// filtered_negative  out (B) holds the fallback. Row b is active where
//                    uniform01(draw(active, first_row + b)) < *q. m goes through row users[b] of table (U,N):
//                      s_m = h_u . h_m;  m is ok where it is not -1, s_m is a number and
//                      (h_p . h_m) inv_m inv_p <= *theta,  inv = 1 / max(|h|, 1e-12), p = positives[b]
//                    Of the ok ones the min(top, how many) best scored, equals in the order of the table: the one of
//                    rank below(draw(rank, first_row + b), so many), 0 the best, goes to out[b]. None is ok: out[b]
//                    stays. A zero vector has the cosine 0 with every other; a NaN is below no theta.
//                    counts[0] += active rows, counts[1] += those of them where out[b] stayed; null: not counted.
//                    theta and q lie on the device: a recorded step is replayed with others.
// Order    cohesion: cosines by one float fma chain over ascending columns. Norms, shifts, their sum and the sum of
//          squares in double: term j goes to lane j % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)). Means likewise,
//          a cluster's members in ascending order. filtered_negative: both products in float, column j by one fma
//          in lane j % 8, lanes added as above; norms as normalize_rows. The same bits, and so the same choice, on
//          both devices.
// Cost     cohesion 2 I K d flop a round. filtered_negative 4 d flop and 4 d + 4 bytes a candidate of an active row,
//          from the caches: one reading of h_m gives score and cosine. N keys of a row and I norms are stored.
#pragma once
#include "kernels/ctx.h"
#include "kernels/rng.h"

namespace ccdrec {

constexpr int kCohesionRounds = 50;
constexpr double kCohesionShift = 1e-4;
constexpr int64_t kMostFiltered = 65536;  // candidates of a user

struct FilterProblem {  // what filtered_negative reads
  CMat h_u, h_i;        // (U,d), (I,d)
  const int32_t* users = nullptr;
  const int32_t* positives = nullptr;
  int64_t batch = 0, first_row = 0;
  const int32_t* table = nullptr;  // (U,n_candidates)
  int64_t n_candidates = 0, top = 0;
  const float *theta = nullptr, *q = nullptr;  // one number each, on the device
  Stream active, rank;
};

}  // namespace ccdrec

namespace ccdrec::cpu {
void pick_columns(Ctx&, int32_t* out, const int32_t* lists, int64_t n, int64_t k, const int32_t* columns, int64_t c,
                  const int32_t* names);
void cohesion(Ctx&, float* theta, CMat h, int clusters, float scale, Stream);
void filtered_negative(Ctx&, int32_t* out, int64_t* counts, const FilterProblem&);
void cohesion_scratch(ScratchPlan&, int64_t items, int64_t d, int clusters);
void filtered_negative_scratch(ScratchPlan&, int64_t batch, int64_t items, int64_t n_candidates);
}  // namespace ccdrec::cpu
namespace ccdrec::cpu::plain {  // the definitions, by one thread
void cohesion(float* theta, CMat h, int clusters, float scale, Stream);
void filtered_negative(int32_t* out, int64_t* counts, const FilterProblem&);
}  // namespace ccdrec::cpu::plain
