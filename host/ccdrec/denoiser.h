// f_theta of the diffusion with its parameters: the reference's attention (estimator.h) or the full Transformer encoder
// (encoder.h), one face to DMA and NDI.
#pragma once
#include "host/base/settings.h"
#include "host/models/parts/arena.h"
#include "kernels/encoder.h"

namespace ccdrec {

void check_estimator(const Settings&);  // UserError: heads that do not divide the width

class Denoiser {
 public:
  // Adds its parameters to the arena; capacity: most items of a batch. The settings have been checked.
  Denoiser(Device&, ParamArena&, const Settings&, int64_t d, int64_t capacity, int modalities);
  void init(ParamArena&, uint32_t seed);  // Xavier-normal products; encoder: biases 0, LayerNorm scales 1

  void forward(ParamArena&, Mat e0_hat, const EstimatorTokens&, RowList rows);
  void backward(ParamArena&, Mat d_e_t, const Mat* d_h, CMat d_e0_hat, const EstimatorTokens&, RowList rows);
  void reverse(ParamArena&, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const Schedule&,
               uint32_t seed, uint32_t epoch) const;

  // of the last forward; null: the Transformer keeps others
  const EstimatorSaved* saved() const { return encoder_ ? nullptr : &saved_; }

  static int64_t parameters(const Settings&, int64_t d);  // values
  // what forward leaves for backward
  static int64_t saved_floats(const Settings&, int64_t d, int64_t capacity, int modalities);

 private:
  EstimatorParams attention(ParamArena& a) const { return {a.value(first_), a.value(first_ + 1), a.value(first_ + 2)}; }
  EncoderParams encoder(ParamArena&) const;

  Device& dev_;
  bool encoder_;
  int first_ = 0;  // arena index of the first parameter; the others follow
  int layers_, heads_;
  Array<float> room_;
  EstimatorSaved saved_;
  EncoderSaved encoder_saved_;
};

}  // namespace ccdrec
