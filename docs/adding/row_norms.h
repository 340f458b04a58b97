// row_norms: out[j] = ||X[rows[j]]||_2, j < rows.n(). X (R,d), out (capacity).
// Order    squares in double, columns ascending: the same bits for any thread count. On a GPU by lanes of a team.
// Cost     4 d bytes and 2 d flop a row.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec::cpu {
void row_norms(Ctx&, float* out, CMat x, RowList rows);
}  // namespace ccdrec::cpu
