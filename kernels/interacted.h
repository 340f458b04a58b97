// One user's training items, looked up by the samplers of both devices. Private to kernels.
#pragma once
#include <cstdint>

#include "kernels/types.h"

namespace ccdrec {

constexpr uint32_t kRedraws = 64;  // draws by rejection; then the choice is made exactly

struct Interacted {
  const int32_t* item;  // (n), ascending
  int64_t n;
  CCDREC_HD Interacted(const Csr& train, int32_t u)
      : item(train.col + train.row_ptr[u]), n(train.row_ptr[u + 1] - train.row_ptr[u]) {}
  CCDREC_HD bool has(int32_t i) const {  // as many steps for every item: nothing to mispredict
    const int32_t* at = item;
    int64_t left = n;
    for (; left > 1; left -= left / 2) at += (left / 2) & -int64_t(at[left / 2 - 1] < i);
    return left == 1 && *at == i;
  }
};

}  // namespace ccdrec
