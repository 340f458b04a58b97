// knn_cosine: the k nearest rows of each feature row by cosine similarity, exact, by tiles; never (I,I) (spec ccdrec 2,
// baselines 9.2).
//
//   X (I,F); idx (I,k) neighbours (the row itself first, then by the order below). Row norms are clamped at 1e-12: a
//   zero row has similarity 0 to all. Total order: the row itself first; then similarity descending; exact ties by a
//   seeded hash draw(Stream{seed, knn_tie}, row, candidate), then lower id: ties are common in real data (items of one
//   brand), and an order by index would favour old items. *tied_rows = rows whose k-th and (k+1)-th candidates tie
//   exactly. `centre`: subtract the column means first. k <= I, or throws std::logic_error. Rows that are bit-identical
//   must get bit-identical similarities to any third row: products sum k in one fixed order (as gemm).
// Cost     I^2 F flop (half of 2 I^2 F by symmetry is not taken: tiles are simple), memory I k + tiles.
#pragma once
#include "kernels/ctx.h"
#include "kernels/rng.h"

namespace ccdrec::cpu {
void knn_cosine(Ctx&, int32_t* idx, int64_t* tied_rows, CMat x, int64_t k, bool centre, uint32_t seed);
void knn_cosine_scratch(ScratchPlan&, int64_t I, int64_t F, int64_t k, bool centre);
}  // namespace ccdrec::cpu
