// The ranges that an emulated run opens: what a profiler would have been told.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/ranges.h"

namespace ccdrec::simt {

struct Ranges {
  struct Entry {
    RangeId id;
    int64_t payload;
    int parent;  // position of the range around it; -1: none
    bool closed = false;
  };
  std::vector<Entry> all;  // in the order in which they were opened
  std::vector<int> open;   // positions, outermost first
  int64_t closed_too_often = 0;
};

// Keeps the ranges of its lifetime. One at a time.
class RangeWatch {
 public:
  RangeWatch();
  ~RangeWatch();
  RangeWatch(const RangeWatch&) = delete;
  RangeWatch& operator=(const RangeWatch&) = delete;
  Ranges kept;
};

}  // namespace ccdrec::simt
