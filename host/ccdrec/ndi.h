// NDI, negative-sensitive diffusive inferring (spec ccdrec 3.6, 4): once per epoch the reverse process takes every item
// from noise to e_0 and leaves four pools of growing hardness: after T/4, T/2, 3T/4 and T reverse steps.
#pragma once
#include "host/ccdrec/denoiser.h"
#include "host/models/parts/modality.h"

namespace ccdrec {

class Ndi {
 public:
  // `pools` of them, the last ones: all four where the curriculum needs them; ehat_0 always (fusion at evaluation).
  Ndi(const Setup&, int pools);

  // features mapped
  void run(const Denoiser&, ParamArena&, const Modalities&, CMat tau, const Schedule&, CMat q, uint32_t seed,
           int epoch);
  bool ready() const { return ready_; }
  CMat pool(int k) const { return pools_[k]; }  // (I,d), k = 0 (3T/4) .. 3 (0)
  CMat e0_hat() const { return pools_[3]; }
  void kept(std::vector<Kept>&);

  // The process step by step from given noise: f_theta by the operation of training, the sum of A, B and sigma here, in
  // the order of kernels/estimator.h.
  void show(Denoiser&, ParamArena&, const Modalities&, CMat tau, const HostSchedule&, const Given&, Watch&) const;

 private:
  Device& dev_;
  Matrix pools_[4];
  bool ready_ = false;
};

}  // namespace ccdrec
