// adam: the optimiser of spec baselines 2.4, exact: an element whose gradient is zero still moves.
//
//   m <- b1 m + (1-b1) g ;  v <- b2 v + (1-b2) g^2 ;  theta <- theta - c1[t] m / ( sqrt(v) c2[t] + eps )
//   c1[t] = lr / (1-b1^t),  c2[t] = 1 / sqrt(1-b2^t), computed in double, stored float; t = 1, 2, ...
// One element function (adam.cpp), explicit fma, no contraction: the dense and the on-demand form give the same bits.
//
// adam       every element of a tensor, one pass: 28 bytes an element.
// adam_rows  tables whose rows are stepped on demand (P, Q, the raw features). last[r] is the step row r has reached.
//            For each listed row: replay the zero-gradient steps last[r]+1 .. t-1 (t without a gradient), then step t with its gradient; last[r] = t.
//            So `adam_rows(table, rows, {}, t)` brings rows up to date before they are read, and `adam_rows(table, all, {}, t)` flushes.
//            A row whose m is zero throughout does not move (exact: v then only decays, and v is zero too if no gradient ever came) - only last
//            changes.
// Given    gradient g: (capacity,cols) with row j for rows[j], or (R,cols) with row rows[j] when `by_row`; empty = zero.
// Order    elementwise. Cost of a replayed step: one divide and one square root an element, in registers; a row is loaded and stored once.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

struct AdamCoef {
  float c1, c2;
};  // c1 = lr/(1-b1^t), c2 = 1/sqrt(1-b2^t)
struct AdamHyper {
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
};

// Coefficients of steps 1..n (entry t-1 for step t) on the device, so that a replay can read any of them.
struct AdamSchedule {
  const AdamCoef* coef = nullptr;
  int64_t steps = 0;
  AdamHyper hyper;
};
AdamCoef adam_coef(double lr, AdamHyper, int64_t t);

struct Table {              // a parameter matrix stepped by rows
  Mat value, m, v;          // (R,cols) each
  int32_t* last = nullptr;  // (R) step each row has reached
};

}  // namespace ccdrec

namespace ccdrec::cpu {
void adam(Ctx&, Mat p, Mat m, Mat v, CMat g, const AdamSchedule&, int64_t t);
void adam_rows(Ctx&, const Table&, RowList rows, CMat g, bool by_row, const AdamSchedule&, int64_t t);
}  // namespace ccdrec::cpu
