// NDI, negative-sensitive diffusive inferring (spec ccdrec 3.6, 4): once per epoch the reverse process takes every item from noise to e_0 and leaves
// four pools of growing hardness: after T/4, T/2, 3T/4 and T reverse steps.
#pragma once
#include "host/ccdrec/dma.h"

namespace ccdrec {

class Ndi {
 public:
  // all_pools: keep the three early pools too (the curriculum needs them); the last, ehat_0, always is (fusion at evaluation).
  Ndi(Device&, int64_t n_items, int64_t d, bool all_pools);
  void run(ParamArena&, Modalities&, const Dma&, CMat q, uint32_t seed, int epoch);
  bool ready() const { return ready_; }
  CMat pool(int k) const { return pools_[k]; }  // k = 0 (3T/4) .. 3 (0)
  CMat e0_hat() const { return pools_[3]; }
  Matrix& pool_matrix(int k) { return pools_[k]; }
  void set_ready(bool r) { ready_ = r; }

 private:
  Matrix pools_[4];
  bool ready_ = false;
};

}  // namespace ccdrec
