// The small index work of a batch: pairs in shuffled order, item ids as graph nodes, rows between slots and groups.
//
// take         out[j] = table[order[first + j]], j < n.
// offset_ids   out[j] = in[j] + offset, j < n.
// expand_rows  Y[s] = X[j] for every slot s of group j: the inverse of segment_sum with by_row = false. Y (slots,d), X
//              (capacity,d).
// add_rows     Y[y_first + r] += X[r] for r in rows.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void take(Ctx&, int32_t* out, const int32_t* table, const int32_t* order, int64_t first, int64_t n);
void offset_ids(Ctx&, int32_t* out, const int32_t* in, int64_t n, int32_t offset);
void expand_rows(Ctx&, Mat y, CMat x, const Groups&);
void add_rows(Ctx&, Mat y, CMat x, RowList rows, int64_t y_first);
}  // namespace ccdrec::cpu
