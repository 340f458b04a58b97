// One user's training items, looked up by the samplers of both devices. Private to kernels.
#pragma once
#include <cstdint>

#include "kernels/types.h"

namespace ccdrec {

constexpr uint32_t kRedraws = 64;  // draws by rejection; then the choice is made exactly

struct Interacted {
  const int32_t* item;  // (n), ascending
  int64_t n;
  CCDREC_HD Interacted(const Csr& train, int32_t u) : item(train.col + train.row_ptr[u]), n(train.row_ptr[u + 1] - train.row_ptr[u]) {}
  CCDREC_HD bool has(int32_t i) const {
    int64_t first = 0, last = n;
    while (first < last) {
      const int64_t middle = (first + last) / 2;
      if (item[middle] < i)
        first = middle + 1;
      else
        last = middle;
    }
    return first < n && item[first] == i;
  }
};

}  // namespace ccdrec
