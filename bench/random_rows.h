// What bounds propagation: rows of 256 bytes at random addresses of a table, added up, sixteen asked for ahead; every thread its share. How the time of
// a row grows with the table is how much faster than the data a model of such rows must grow.
#pragma once
#include <algorithm>
#include <vector>

#include "bench/kernels/skewed.h"
#include "kernels/cpu/lanes.h"
#include "kernels/ops.h"

namespace ccdrec::bench {

class RandomRows {
 public:
  static constexpr int64_t kColumns = 64, kDraws = 2000000;  // rows read in a pass, over all threads
  RandomRows(Ctx& ctx, int64_t rows)
      : ctx_(ctx),
        table_(static_cast<float*>(cpu_ops().alloc(ctx, size_t(rows * kColumns) * sizeof(float)))),
        at_(random_ids(kDraws + kAhead, rows, 3)) {
    std::fill_n(table_, rows * kColumns, 1.0f);
  }
  ~RandomRows() { cpu_ops().free(ctx_, table_); }
  RandomRows(const RandomRows&) = delete;
  RandomRows& operator=(const RandomRows&) = delete;

  float pass() const {
    float total = 0;
#pragma omp parallel num_threads(ctx_.threads) reduction(+ : total)
    {
      cpu::V8 sum[kColumns / 8] = {};
#pragma omp for
      for (int64_t k = 0; k < kDraws; ++k) {
        for (int64_t j = 0; j < kColumns; j += 16) __builtin_prefetch(table_ + at_[size_t(k + kAhead)] * kColumns + j);
        for (int64_t j = 0; j < kColumns / 8; ++j) sum[j] += cpu::load8(table_ + at_[size_t(k)] * kColumns + 8 * j);
      }
      for (const cpu::V8& v : sum) total += cpu::sum8(v);
    }
    return total;
  }

 private:
  static constexpr int64_t kAhead = 16;
  Ctx& ctx_;
  float* table_;
  std::vector<int32_t> at_;
};

}  // namespace ccdrec::bench
