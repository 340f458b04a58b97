// Operations on lists of neighbours: a sparse (I,J) matrix kept as k entries a row, idx (I,k), never as a CSR (spec
// baselines 8.5). What they need of its columns comes from `group` of idx (rows.h): slot s is entry s % k of row s / k.
//
// list_dots    v[i,c] = A[i] . B[idx[i,c]];  an entry of idx that is -1 gives 0          V (I,k), A (I,d), B (J,d)
// list_spread  dY += (G + G^T) Y, G[i,idx[i,c]] = g[i,c]: the gradient of sum g[i,c] Y[i] . Y[idx[i,c]]
//              dY[i] += sum_c g[i,c] Y[idx[i,c]], then dY[j] += sum over the slots s of group j of g[s] Y[s / k]
//              g (I,k), Y and dY (I,d), dY no part of Y. An entry that is -1 is skipped; by_target groups the others.
// Order    a dot product in double, column j in lane j % 8, lanes added ((0+4)+(2+6)) + ((1+5)+(3+7)); a sum by one fma
//          an entry, from what dY holds, entries and slots ascending. The same bits on both devices.
// Cost     list_dots 2 I k d flop, I k (8 + 4 d) + 4 I d bytes where no row of B comes from cache; list_spread twice
//          that. A row that thousands of lists name is one team's serial loop on a GPU.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void list_dots(Ctx&, Mat v, CMat a, CMat b, const int32_t* idx, int64_t k);
void list_spread(Ctx&, Mat dy, CMat g, CMat y, const int32_t* idx, const Groups& by_target);
}  // namespace ccdrec::cpu
