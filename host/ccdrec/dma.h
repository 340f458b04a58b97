// DMA, diffusion-controlled multimodal aligning (spec ccdrec 3.2-3.5): noise the batch's items, estimate e_0 from the modalities, fuse it into the
// item start of the propagation, align it with the item table; and the backward of all three.
#pragma once
#include "host/ccdrec/denoiser.h"
#include "host/models/backbone.h"
#include "host/models/modality.h"

namespace ccdrec {

class Dma {
 public:
  Dma(Device&, ParamArena&, const Settings&, int64_t d, int64_t capacity, int modalities);
  void init(ParamArena&, uint32_t seed);

  // Estimates e_0 of the listed items (D, n of them) from their noised rows of Q and their projections; draws t and eps at (epoch, step).
  void forward(ParamArena&, Modalities&, CMat q, RowList items, uint32_t seed, uint32_t epoch, uint32_t step);
  void fuse(Mat item_start, CMat hhat, RowList items);                     // item_start[i] = (1-mu) Hhat[i] + mu e0_hat
  void fuse_all(Mat item_start, CMat hhat, CMat e0_hat, int64_t n_items);  // evaluation: every item
  // L_dm and the way back: adds into d_q (I,d), scales item_start_grad (I,d), leaves d_h of the modalities and the estimator's gradients.
  void backward(ParamArena&, Modalities&, double* loss, Mat d_q, Mat item_start_grad, CMat q, const Groups& items, int64_t terms);

  const Denoiser& denoiser() const { return denoiser_; }
  Denoiser& denoiser() { return denoiser_; }
  const Schedule& schedule() const { return schedule_; }
  CMat tau() const { return tau_; }
  const Array<int32_t>& t() const { return t_; }  // of the last batch, row j: its j-th item
  CMat noise() const { return eps_; }             // likewise
  Mat e_t() const { return e_t_; }
  Mat e0_hat() const { return e0_hat_; }
  CMat d_e_t() const { return d_e_t_; }
  CMat d_e0_hat() const { return d_e0_hat_; }
  // For tests and parity: t and eps of the running batch can be given in place of drawn.
  void set_given(const std::vector<int32_t>& t, const std::vector<float>& eps);

 private:
  Device& dev_;
  int modalities_, steps_;
  float mu_, lambda_;
  bool mirrored_, fuses_, given_ = false;  // fuses_ = the module is on; off: the estimator still learns for NDI, the backbone feels nothing
  HostSchedule host_;
  Array<float> sched_[5];
  Schedule schedule_;
  Matrix tau_, eps_, e_t_, e0_hat_, d_e0_hat_, d_e_t_, scratch_q_;
  Array<int32_t> t_;
  Denoiser denoiser_;
  EstimatorTokens tokens_;
};

}  // namespace ccdrec
