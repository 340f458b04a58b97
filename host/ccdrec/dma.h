// DMA, diffusion-controlled multimodal aligning (spec ccdrec 3.2-3.5), an item fusion: noise the batch's items,
// estimate e_0 from the modalities, fuse it into the item start of the propagation, align it with the item table; and
// the backward of all three. The estimator's other use is NDI, the reverse process. MCDRec's MRD (spec mcdrec 2-4) is
// the same over all items, mixed with Q.
#pragma once
#include "host/ccdrec/denoiser.h"
#include "host/ccdrec/ndi.h"
#include "host/models/fusion.h"
#include "host/models/outline.h"

namespace ccdrec {

class Dma : public ItemFusion {
 public:
  // The outline: whether and what it fuses, and how many pools are kept.
  Dma(const Setup&, const Outline&, ParamArena&, Modalities&);
  void init() override;
  bool of_all_items() const override { return of_all_; }
  Groups items(const Groups& of_batch) const override;

  // Estimates e_0 of the listed items (D, n of them) from their noised rows of Q and their projections; draws t and
  // eps.
  void forward(CMat q, RowList items, const Step&) override;
  // start[i] = (1-mu) base[i] + mu e0_hat
  void fuse(Mat start, CMat base, RowList items) override;
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
  const bool fuses_;    // the module is on; off: the estimator still learns for NDI, the backbone feels nothing
  const bool of_all_;   // every item at every step
  bool given_ = false;  // t and eps
  HostSchedule host_;
  Array<float> sched_[5];
  Schedule schedule_;
  Matrix tau_, eps_, e_t_, e0_hat_, d_e0_hat_, d_e_t_, scratch_q_;
  Array<int32_t> t_, every_;  // of_all_: (I+1) 0 .. I, every item as a group of one slot
  Denoiser denoiser_;
  EstimatorTokens tokens_;
  Ndi ndi_;
};

}  // namespace ccdrec
