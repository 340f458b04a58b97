// project: the modality map of the items a batch needs, Y[j] = X[rows[j]] W + b, and its backward (spec 1, 3.3).
//
//   X (R,F) raw features, rows: n <= capacity row indices of X, W (F,d), b (1,d), Y (capacity,d): rows j < n are
//   written, the rest untouched.
// catch_up_project, given a trainable X as a Table: adam_catch_up (adam.h) of the listed rows to step t, then project,
//   and the bits of the two; a row is multiplied while it is at hand. Rows that are further than t stay. Rows are
//   listed once each.
// project_backward, given dY (capacity,d):
//   dW (F,d) += X[rows]^T dY ;  db (1,d) += column sums of dY ;
//   dX (capacity,F) = dY W^T (row j for item rows[j]; skipped when dX is empty)
// project_backward_step, given a trainable X as a Table: dW and db the same, and that dX, which need not be stored,
//   enters the moments of the listed rows as the gradient of step t (adam_rows, adam.h): what it costs to write and
//   read it falls away. Bits: those of project_backward, then adam_rows. Neither value nor moments of the rows may have
//   reached t: throws std::logic_error otherwise, and nothing has moved.
// Order    as gemm; dW and db sum the rows in list order. Same bits for any thread count.
// Cost     2 n F d flop forward, twice or three times that backward. X rows are read where they lie.
#pragma once
#include "kernels/adam.h"
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void project(Ctx&, Mat y, CMat x, RowList rows, CMat w, CMat b);
void catch_up_project(Ctx&, Mat y, const Table& x, RowList rows, CMat w, CMat b, const AdamSchedule&, int64_t t);
void project_backward(Ctx&, Mat dw, Mat db, Mat dx, CMat dy, CMat x, RowList rows, CMat w);
void project_backward_step(Ctx&, Mat dw, Mat db, CMat dy, const Table& x, RowList rows, CMat w, const AdamSchedule&,
                           int64_t t);
// At most `rows` rows: all of X in order, or `listed`, whose number then is the device's. Backward: `step` for
// project_backward_step.
void project_scratch(ScratchPlan&, int64_t rows, int64_t F, int64_t d, bool listed);
void project_backward_scratch(ScratchPlan&, int64_t rows, int64_t F, int64_t d, bool step);
void project_backward_all_scratch(ScratchPlan&, int64_t rows, int64_t F,
                                  int64_t d);  // of all of X in order, without dX
}  // namespace ccdrec::cpu
