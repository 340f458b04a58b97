// score_topk: score, mask and the k best in one pass by tiles: evaluation and recommendation (spec baselines 2.7).
//
//   for each listed user: the k items with the largest h_u . h_i, items of mask row u excluded (mask null: none).
//   Hu (U,d), Hi (I,d), users (n) row indices of Hu and of the mask; top (n,k) item ids, score (n,k), best first.
//   Order: score descending, then lower item id. Fewer than k admissible: the rest is -1 with score -inf. 1 <= k; k up
//   to I and beyond works. A NaN score sorts last.
// Order    each score is one fma chain over d ascending: same bits for any thread count and vector width. Cost 2 n I d
//          flop; nothing (n,I) is stored.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void score_topk(Ctx&, int32_t* top, float* score, CMat hu, const int32_t* users, int64_t n, CMat hi, const Csr* mask,
                int64_t k);
void score_topk_scratch(ScratchPlan&, int64_t n, int64_t I, int64_t d, int64_t k);
}  // namespace ccdrec::cpu
