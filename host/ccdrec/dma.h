// DMA, diffusion-controlled multimodal aligning (spec ccdrec 3.2-3.5), an item fusion: noise the batch's items,
// estimate e_0 from the modalities, fuse it into the item start of the propagation, align it with the item table; and
// the backward of all three. The estimator's other use is NDI, the reverse process.
#pragma once
#include "host/ccdrec/denoiser.h"
#include "host/ccdrec/ndi.h"
#include "host/models/fusion.h"

namespace ccdrec {

class Dma : public ItemFusion {
 public:
  Dma(const Setup&, ParamArena&, Modalities&);
  void init() override;

  // Estimates e_0 of the listed items (D, n of them) from their noised rows of Q and their projections; draws t and
  // eps.
  void forward(CMat q, RowList items, const Step&) override;
  // start[i] = (1-mu) Hhat[i] + mu e0_hat
  void fuse(Mat start, CMat hhat, RowList items) override;
  // L_dm, into the estimator's gradients too
  void backward(double* loss, Mat d_q, Mat d_start, CMat q, const Groups& items, int64_t terms) override;
  void end_epoch(CMat q, int epoch) override;
  void fuse_all(Mat start) override;
  CMat reversed() const override { return ndi_.ready() ? ndi_.e0_hat() : CMat(); }
  const Ndi& ndi() const { return ndi_; }

  void kept(std::vector<Kept>& all) override { ndi_.kept(all); }
  void give(const Given&, int64_t items) override;
  void draws(int64_t items, Watch&) override;
  void show(int64_t items, Watch&) override;
  void show_reverse(const Given&, Watch&) override;

 private:
  Device& dev_;
  ParamArena& arena_;
  Modalities& modal_;
  uint32_t seed_;
  int64_t I_, d_;
  int steps_;  // T
  float mu_, lambda_;
  bool mirrored_;
  bool fuses_;          // the module is on; off: the estimator still learns for NDI, the backbone feels nothing
  bool given_ = false;  // t and eps
  HostSchedule host_;
  Array<float> sched_[5];
  Schedule schedule_;
  Matrix tau_, eps_, e_t_, e0_hat_, d_e0_hat_, d_e_t_, scratch_q_;
  Array<int32_t> t_;
  Denoiser denoiser_;
  EstimatorTokens tokens_;
  Ndi ndi_;
};

}  // namespace ccdrec
