// A row's steps of Adam, shared by adam_rows, its siblings, catch_up_project and project_backward_step. Private to
// kernels/cpu.
#pragma once
#include "kernels/adam.h"

namespace ccdrec::cpu {

struct Reached {
  int64_t value, moments;  // steps; value >= moments - 1
};

// The forms of one machine (microkernel.h); all give the same bits. n elements each.
//   step      p, m, v from step t-1 to t; g (null: zero) belongs to t
//   gradient  m, v from step `moments` to t, to which g belongs; p from t-1 to t unless null
//   catch_up  p to step t; m, v stay, or go to t as well if `keep`
struct AdamRow {
  void (*step)(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule&, int64_t t);
  void (*gradient)(float* p, float* m, float* v, const float* g, int64_t n, const AdamSchedule&, int64_t moments,
                   int64_t t);
  void (*catch_up)(float* p, float* m, float* v, int64_t n, const AdamSchedule&, Reached, int64_t t, bool keep);
};
const AdamRow& adam_row_here();  // the widest of this machine

// One row's value to step t, unless it is there or further.
inline void bring_up(const AdamRow& row, const Table& table, int64_t r, const AdamSchedule& s, int64_t t) {
  const Reached at{table.value_at[r], table.moments_at[r]};
  if (at.value >= t) return;
  row.catch_up(table.value.row(r), table.m.row(r), table.v.row(r), table.value.cols, s, at, t, false);
  table.value_at[r] = int32_t(t);
}

// One row's gradient of step t, which neither its value nor its moments have reached. The value takes the step too if
// it moves `at_once`.
inline void take_gradient(const AdamRow& row, const Table& table, int64_t r, const float* g, const AdamSchedule& s,
                          int64_t t, bool at_once) {
  bring_up(row, table, r, s, t - 1);
  row.gradient(at_once ? table.value.row(r) : nullptr, table.m.row(r), table.v.row(r), g, table.value.cols, s,
               table.moments_at[r], t);
  table.value_at[r] = int32_t(at_once ? t : t - 1), table.moments_at[r] = int32_t(t);
}

}  // namespace ccdrec::cpu
