#include "host/ccdrec/ndi.h"

namespace ccdrec {

Ndi::Ndi(Device& dev, int64_t n_items, int64_t d, bool all_pools) {
  for (int k = all_pools ? 0 : 3; k < 4; ++k) pools_[k] = Matrix(dev, n_items, d);
}

void Ndi::run(ParamArena& arena, Modalities& modal, const Dma& dma, CMat q, uint32_t seed, int epoch) {
  modal.project_all(arena);
  Mat pools[4];
  for (int k = 0; k < 4; ++k) pools[k] = pools_[k];
  CMat h[kMaxModalities];
  for (int m = 0; m < modal.count(); ++m) h[m] = modal.h_all(m);
  dma.denoiser().reverse(arena, pools, q, h, modal.count(), dma.tau(), dma.schedule(), seed, uint32_t(epoch));
  ready_ = true;
}

}  // namespace ccdrec
