// Steps of Adam between the terms of a register tile, in project.cpp. The bits are those of adam_row.h. Private to
// kernels/cpu.
// Awake  on AMD with AVX-512 alone (steps_fit_beside_tiles): eight lanes leave one register beside a tile, and on Intel
//        nobody has measured it. Elsewhere finish() does all.
// Gain   Zen 4, an eighth of the rows of 4,096 listed, medians. One thread: catch_up_project 10.9 to 9.5 ms,
//        project_backward_step 13.5 to 12.0. Two, which wait for the same memory: 5.7 to 5.6 and 6.8 to 6.7. An epoch
//        of CCDRec, three in turn with three: 5.2 to 4.6 s. (docs/tried.md; bench_kernels
//        --benchmark_filter=trained_projection)
// Price  these two files, about 240 lines, and tile512.h's tile cut into terms.
// How    A product keeps the fma units, a replayed step waits for the divider and a gradient for memory: a core does
//        both at a time where they stand a few instructions apart. The rows that a thread comes to next are replayed
//        while these are multiplied; the gradient of the rows before enters their moments while that of these is
//        computed.
#pragma once
#include "kernels/cpu/fast/adam_row.h"
#include "kernels/cpu/fast/microkernel.h"

namespace ccdrec::cpu {

bool steps_fit_beside_tiles();  // on this machine

// Hands out sixteens of rows to the terms of tiles.
class Beside {
 protected:
  static constexpr int64_t kOne = 1024;  // a step; what a term takes is counted in 1/1024
  int64_t n_ = 0, row_ = 0, col_ = 0;    // rows; the row and the column of the sixteen that is next
  int64_t owed_ = 0, rate_ = 0;          // steps that the terms so far should have taken; of one term
  void begin(int64_t steps, int64_t terms) {
    row_ = col_ = owed_ = 0, rate_ = steps == 0 ? 0 : steps * kOne / terms + 1;
  }
  const MicroKernel& mk_ = micro_kernel();
  const AdamRow& adam_row_ = adam_row_here();
  const bool wide_ = steps_fit_beside_tiles();
  // for a whole tile
  bool has_work(int64_t rows, int64_t cols) const { return wide_ && rate_ > 0 && rows == mk_.mr && cols == mk_.nr; }
};

// Values of rows to step t: bring_up of each.
class Replays : Beside {
 public:
  Replays(const Table& x, const AdamSchedule& s, int64_t t) : x_(x), s_(s), t_(t) {}
  // Takes rows j.. of the list, kMaxMr at most, to be replayed beside so many terms.
  void take(RowList rows, int64_t j, int64_t n, int64_t terms);
  // partial_tile, and steps beside it.
  void tile(float* c, int64_t ldc, int64_t rows, int64_t cols, const float* const* a, const float* b, int64_t k,
            bool add);
  void finish();  // what no term has taken

 private:
  struct Row {
    float *p, *m, *v;
    int64_t r;
    Reached at;
  };
  void with_512(float* c, int64_t ldc, const float* const* a, const float* b, int64_t k, bool add);
  const Table& x_;
  const AdamSchedule& s_;
  const int64_t t_;
  Row rows_[kMaxMr];
  // The sixteen that was begun: its column is col_ - 16.
  alignas(64) float p_[16] = {}, m_[16] = {}, v_[16] = {};
  int64_t left_ = 0;  // steps
  bool begun_ = false;
};

// Gradients of step t into the moments of rows: take_gradient of each.
class Gradients : Beside {
 public:
  Gradients(const Table& x, const AdamSchedule& s, int64_t t, bool at_once) : x_(x), s_(s), t_(t), at_once_(at_once) {}
  // Takes rows j.. of the list, kMaxMr at most, with their gradients (rows,F), which must stay until finish(), to enter
  // beside so many terms.
  void take(RowList rows, int64_t j, int64_t n, const float* g, int64_t terms);
  void tile(float* c, int64_t ldc, int64_t rows, int64_t cols, const float* const* a, const float* b, int64_t k,
            bool add);
  void finish();

 private:
  void with_512(float* c, int64_t ldc, const float* const* a, const float* b, int64_t k, bool add);
  const Table& x_;
  const AdamSchedule& s_;
  const int64_t t_;
  const bool at_once_;
  struct Row {
    float *p, *m, *v;  // p only where values move at once
    const float* g;
    int64_t r, moments;
  };
  Row rows_[kMaxMr];
};

}  // namespace ccdrec::cpu
