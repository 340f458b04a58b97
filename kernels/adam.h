// adam: the optimiser of spec baselines 2.4, exact: an element whose gradient is zero still moves.
//
//   m <- b1 m + (1-b1) f g ;  v <- b2 v + (1-b2) f^2 g^2 ;  theta <- theta - c1[t] m / ( sqrt(v) c2[t] + eps )
//   c1[t] = lr / (1-b1^t),  c2[t] = 1 / sqrt(1-b2^t),  (1-b1) f and (1-b2) f^2 are computed in double,
//   stored float;  t = 1, 2, ...
//   f = AdamSchedule::gradient of the step that g belongs to; a step without a gradient does not read it.
//   With a weight decay w, f g + w theta is in the place of f g (one fma), and of a gradient that is not there: theta
//   is pulled to zero at every step. The dense form alone has it; the others refuse it. Without it no bit is another's.
// One element function (Element8 of cpu/fast/adam_row.cpp), explicit fma, no contraction: the dense and the on-demand
// form give the same bits. (Only an m of -0 stays -0 under f < 0 and a dense g of 0, where a replay makes it +0.)
//
// adam           every element of a tensor, one pass: 28 bytes an element.
// The others are for tables whose rows are stepped on demand (P, Q, the raw features). A row's value and its moments
// each know the step they have reached; between the two, steps without a gradient wait to be replayed.
// adam_rows      the gradient of step t enters the moments of the listed rows, after the decays they have missed;
//                moments_at = t. A value behind t-1 is brought there first (from the moments before). Then it waits,
//                since what moves it by step t is in the moments, and will move through that step and the next ones in
//                one go - but where most rows are listed (moves_at_once) and hardly any step is ever replayed.
// adam_catch_up  values of the listed rows to step t, before they are read: the moments are replayed in registers and
//                stay as they are.
// adam_flush     every row's value and moments to step t, before anything outside a step reads them.
//                A row whose m and v are zero throughout does not move (exact), only its steps change.
// Given    gradient g: (capacity,cols) with row j for rows[j], or (R,cols) with row rows[j] when `by_row`.
// Order    elementwise. Cost, bytes an element: adam_rows 16 (24 at once) and 4 of the gradient, adam_catch_up 16,
//          adam_flush 24. A replayed step of a value: one divide and one square root an element; of moments alone: two
//          fma.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

struct AdamCoef {
  float c1, c2;
};  // c1 = lr/(1-b1^t), c2 = 1/sqrt(1-b2^t)
struct AdamHyper {
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  float weight_decay = 0.0f;  // w, of the dense form alone
};

// Coefficients of steps 1..n (entry t-1 for step t) on the device, so that a replay can read any of them.
struct AdamSchedule {
  const AdamCoef* coef = nullptr;
  int64_t steps = 0;
  AdamHyper hyper;
  float gradient = 1.0f;  // what g is multiplied by (Mirror Gradient scales the gradient of a pass: spec baselines 10)
};
struct AdamRest {
  float m, v;
};  // (1-b1) f and (1-b2) f^2: what g and g^2 are multiplied by on their way into the moments
CCDREC_HD inline AdamRest adam_rest(const AdamSchedule& s) {
  const double f = s.hyper.weight_decay == 0 ? double(s.gradient) : 1;  // otherwise f is in what enters already
  return {float((1.0 - double(s.hyper.beta1)) * f), float((1.0 - double(s.hyper.beta2)) * f * f)};
}
AdamCoef adam_coef(double lr, AdamHyper, int64_t t);

struct Table {      // a parameter matrix stepped by rows
  Mat value, m, v;  // (R,cols) each
  // (R) steps that a row's value and moments have reached; value_at >= moments_at - 1
  int32_t *value_at = nullptr, *moments_at = nullptr;
};

// What is cheaper: a row listed in every fourth step or more would be fetched twice a step for one or two steps of
// replay. (Rows of 4,096, lists drawn at random, catch-up and gradient together: waiting takes 7 % less than moving at
// once with 13 % of the rows listed, 4 % less with 20 %, and more with 27 % and up.) The bits are the same.
CCDREC_HD inline bool moves_at_once(int64_t listed, int64_t rows) { return 4 * listed > rows; }

}  // namespace ccdrec

namespace ccdrec::cpu {
void adam(Ctx&, Mat p, Mat m, Mat v, CMat g, const AdamSchedule&, int64_t t);
void adam_rows(Ctx&, const Table&, RowList rows, CMat g, bool by_row, const AdamSchedule&, int64_t t);
void adam_catch_up(Ctx&, const Table&, RowList rows, const AdamSchedule&, int64_t t);
void adam_flush(Ctx&, const Table&, const AdamSchedule&, int64_t t);
}  // namespace ccdrec::cpu
