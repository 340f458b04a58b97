#include "kernels/adam.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/fast/adam_row.h"

namespace ccdrec {

// The betas are taken as the floats they are, here and in the element function: then m c1 and v c2^2 are exact weighted
// means of the gradients.
AdamCoef adam_coef(double lr, AdamHyper h, int64_t t) {
  const double b1 = std::pow(double(h.beta1), double(t)), b2 = std::pow(double(h.beta2), double(t));
  return {float(lr / (1 - b1)), float(1 / std::sqrt(1 - b2))};
}

namespace cpu {
namespace {

constexpr double kStepNs = 0.7;  // of a core, about, for a step of one float: for Ctx::threads_for

// Mostly few rows of a batch are behind. Counting them takes less than waking a thread for it, unless the list is long.
int threads_to_catch_up(const Ctx& ctx, const Table& table, RowList rows, int64_t t) {
  constexpr int64_t kShort = 4096;
  const int64_t n = rows.n();
  if (n > kShort) return ctx.threads;
  int64_t behind = 0;
  for (int64_t j = 0; j < n; ++j) behind += table.value_at[rows.at(j)] < t;
  return ctx.threads_for(kStepNs * behind * table.value.cols);
}

// Rows have waited for different times: chunks are dealt out.
int64_t rows_dealt(int64_t cols) { return std::max<int64_t>(1, 4096 / std::max<int64_t>(cols, 1)); }

void check_table(const Table& table, const AdamSchedule& s) {
  CHECK_THAT(s.hyper.weight_decay == 0);  // steps are replayed without it
  CHECK_SHAPE(table.m, table.value.rows, table.value.cols);
  CHECK_SHAPE(table.v, table.value.rows, table.value.cols);
}

}  // namespace

void adam(Ctx& ctx, Mat p, Mat m, Mat v, CMat g, const AdamSchedule& s, int64_t t) {
  CHECK_SHAPE(m, p.rows, p.cols);
  CHECK_SHAPE(v, p.rows, p.cols);
  if (g) CHECK_SHAPE(g, p.rows, p.cols);
  CHECK_THAT(t >= 1 && t <= s.steps);
  constexpr int64_t kChunk = 4096;
  const AdamRow& row = adam_row_here();
#pragma omp parallel for num_threads(ctx.threads_for(kStepNs* p.size()))
  for (int64_t j = 0; j < p.size(); j += kChunk)
    row.step(p.p + j, m.p + j, v.p + j, g ? g.p + j : nullptr, std::min(kChunk, p.size() - j), s, t);
}

void adam_rows(Ctx& ctx, const Table& table, RowList rows, CMat g, bool by_row, const AdamSchedule& s, int64_t t) {
  const int64_t n = rows.n(), cols = table.value.cols;
  check_table(table, s);
  CHECK_THAT(g.cols == cols && g.rows >= (by_row ? table.value.rows : n));
  CHECK_THAT(t >= 1 && t <= s.steps);
  const AdamRow& row = adam_row_here();
  const bool at_once = moves_at_once(n, table.value.rows);
  int64_t stepped_already = 0;
  const int threads = ctx.threads_for(kStepNs * n * cols);
#pragma omp parallel for num_threads(threads) schedule(dynamic, rows_dealt(cols)) reduction(+ : stepped_already)
  for (int64_t j = 0; j < n; ++j) {
    const int64_t r = rows.at(j);
    if (std::max(table.value_at[r], table.moments_at[r]) >= t)
      ++stepped_already;
    else
      take_gradient(row, table, r, g.row(by_row ? r : j), s, t, at_once);
  }
  CHECK_THAT(stepped_already == 0);  // a gradient for a step that its row has behind it
}

void adam_catch_up(Ctx& ctx, const Table& table, RowList rows, const AdamSchedule& s, int64_t t) {
  const int64_t n = rows.n(), cols = table.value.cols;
  check_table(table, s);
  CHECK_THAT(t >= 0 && t <= s.steps);
  const AdamRow& row = adam_row_here();
#pragma omp parallel for num_threads(threads_to_catch_up(ctx, table, rows, t)) schedule(dynamic, rows_dealt(cols))
  for (int64_t j = 0; j < n; ++j) bring_up(row, table, rows.at(j), s, t);
}

void adam_flush(Ctx& ctx, const Table& table, const AdamSchedule& s, int64_t t) {
  const int64_t R = table.value.rows, cols = table.value.cols;
  check_table(table, s);
  CHECK_THAT(t >= 0 && t <= s.steps);
  const AdamRow& row = adam_row_here();
#pragma omp parallel for num_threads(ctx.threads) schedule(dynamic, rows_dealt(cols))
  for (int64_t r = 0; r < R; ++r) {
    const Reached at{table.value_at[r], table.moments_at[r]};
    const int64_t to = std::max(t, at.value);
    if (at.value >= to && at.moments >= to) continue;
    row.catch_up(table.value.row(r), table.m.row(r), table.v.row(r), cols, s, at, to, true);
    table.value_at[r] = table.moments_at[r] = int32_t(to);
  }
}

}  // namespace cpu
}  // namespace ccdrec
