// Moving rows about: gather, group, segmented sum. The scatter-add of every backward pass is group + segment_sum: no
// float atomics.
//
// group        ids (n slots, values in [0,limit)) -> Groups: distinct ids ascending, their slots ascending. Stable, so
//              sums have a fixed order.
// gather_rows  Y[s] = X[ids[s]], s = 0..n-1; Y (>= n, d).
// copy_rows    Y[r] = X[r] for r in rows (same row index on both sides); X and Y (R,d).
// segment_sum  for each group j: sum of X[slot] over its slots, in order; written (or added when `accumulate`) to
//              Y[rows[j]] when `by_row`, else Y[j].
// split_rows   cuts an ascending list of nodes at U: users = entries < U, items = the others minus U. Both lists have
//              their own memory.
// merge_rows   ascending union of two ascending lists. Out has its own memory; capacity must hold both, or throws
//              std::logic_error.
// fill_zero    all elements of Y.  zero_rows: Y[r] = 0 for r in rows.
// Cost     one read and one write per element moved; group: a sort of n keys.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void group(Ctx&, Groups& out, const int32_t* ids, int64_t n, int64_t limit);
void gather_rows(Ctx&, Mat y, CMat x, const int32_t* ids, int64_t n);
void copy_rows(Ctx&, Mat y, CMat x, RowList rows);
void segment_sum(Ctx&, Mat y, CMat x, const Groups&, bool by_row, bool accumulate);
void split_rows(Ctx&, RowList users, RowList items, RowList nodes, int64_t n_users);
void merge_rows(Ctx&, RowList out, RowList a, RowList b);
void fill_zero(Ctx&, Mat y);
void zero_rows(Ctx&, Mat y, RowList rows);
void group_scratch(ScratchPlan&, int64_t n);
void merge_rows_scratch(ScratchPlan&, int64_t capacity);  // of both lists together
}  // namespace ccdrec::cpu
