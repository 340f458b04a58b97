// What bounds propagation: rows of 256 bytes at random addresses of a table, added up, those to come asked for as a
// sparse product asks for them; every thread its share. How the time of a row grows with the table is how much faster
// than the data a model of such rows must grow.
#pragma once
#include <algorithm>
#include <vector>

#include "bench/kernels/skewed.h"
#include "kernels/cpu/fast/sparse_row.h"
#include "kernels/ops.h"

namespace ccdrec::bench {

class RandomRows {
 public:
  static constexpr int64_t kColumns = 64, kDraws = 2000000;  // rows read in a pass, over all threads
  RandomRows(Ctx& ctx, int64_t rows)
      : ctx_(ctx),
        table_(static_cast<float*>(cpu_ops().alloc(ctx, size_t(rows * kColumns) * sizeof(float)))),
        rows_(rows),
        at_(random_ids(kDraws + cpu::kFarEdgesAhead, rows, 3)) {
    std::fill_n(table_, rows * kColumns, 1.0f);
  }
  ~RandomRows() { cpu_ops().free(ctx_, table_); }
  RandomRows(const RandomRows&) = delete;
  RandomRows& operator=(const RandomRows&) = delete;

  float pass() const { return cpu::rows_are_far({table_, rows_, kColumns}) ? pass_as<true>() : pass_as<false>(); }

 private:
  template <bool Far>
  float pass_as() const {
    constexpr int64_t kAhead = Far ? cpu::kFarEdgesAhead : cpu::kEdgesAhead;
    float total = 0;
#pragma omp parallel num_threads(ctx_.threads) reduction(+ : total)
    {
      cpu::V8 sum[kColumns / 8] = {};
#pragma omp for
      for (int64_t k = 0; k < kDraws; ++k) {
        const float* const next = table_ + at_[size_t(k + kAhead)] * kColumns;
        Far ? cpu::ask_for_far_row(next) : cpu::ask_for_row(next);
        for (int64_t j = 0; j < kColumns / 8; ++j) sum[j] += cpu::load8(table_ + at_[size_t(k)] * kColumns + 8 * j);
      }
      for (const cpu::V8& v : sum) total += cpu::sum8(v);
    }
    return total;
  }

  Ctx& ctx_;
  float* table_;
  int64_t rows_;
  std::vector<int32_t> at_;
};

}  // namespace ccdrec::bench
