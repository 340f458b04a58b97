#include "docs/adding/growing.h"

#include <algorithm>

namespace ccdrec {

// The number of candidates is an argument of the operation: a step recorded with one cannot be replayed with another,
// so each number is a kind of its own.
Plan Growing::prepare(int epoch, int64_t step) {
  now_ = std::min(most_, 2 << std::min(epoch / every_, 10));
  Plan plan = ChoosingSampler::prepare(epoch, step);
  plan.kind = now_;
  return plan;
}

void Growing::late(const Batch& b, const Step& step, const Representations& r) {
  LayerTables pooled;
  pooled.n = 1, pooled.layer[0] = r.h_i;
  choose(b.hard(), b, step, r.h_u, pooled, now_, 1);
}

}  // namespace ccdrec
