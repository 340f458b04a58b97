// f_theta of the diffusion with its parameters: the reference's attention (estimator.h), the full Transformer encoder
// (encoder.h) or MCDRec's U-Net (unet.h), one face to DMA and NDI.
#pragma once
#include "host/base/settings.h"
#include "host/models/parts/arena.h"
#include "host/models/watch.h"
#include "kernels/encoder.h"
#include "kernels/unet.h"

namespace ccdrec {

// UserError: heads that do not divide the width, a U-Net of another width than its images have
void check_estimator(const Settings&);
// UserError: more modalities than the U-Net's images have channels for
void check_estimator(const Settings&, size_t modalities);

class Denoiser {
 public:
  // Adds its parameters to the arena; capacity: most items of a batch. The settings have been checked.
  Denoiser(Device&, ParamArena&, const Settings&, int64_t d, int64_t capacity, int modalities);
  // Xavier-normal products; encoder: biases 0, LayerNorm scales 1; U-Net: uniform by fan-in (spec mcdrec 3.3)
  void init(ParamArena&, uint32_t seed);
  std::vector<float> step_encoding(int steps) const;  // (T,width of the time tokens) row-major

  // The U-Net's dropout: drawn for a step, or given, and applied by forward where it `drops`; the others have none.
  void draw_masks(RowList rows, Stream);
  void give(const Given&, int64_t rows);
  void draws(int64_t rows, Watch&) const;

  void forward(ParamArena&, Mat e0_hat, const EstimatorTokens&, RowList rows, bool drops);
  void backward(ParamArena&, Mat d_e_t, const Mat* d_h, CMat d_e0_hat, const EstimatorTokens&, RowList rows);
  void reverse(ParamArena&, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const Schedule&,
               uint32_t seed, uint32_t epoch) const;

  // of the last forward; null: the others keep arrays of their own
  const EstimatorSaved* saved() const { return form_ == Form::attention ? &saved_ : nullptr; }

  static int64_t parameters(const Settings&, int64_t d);  // values
  // what forward leaves for backward
  static int64_t saved_floats(const Settings&, int64_t d, int64_t capacity, int modalities);

 private:
  EstimatorParams attention(ParamArena& a) const { return {a.value(first_), a.value(first_ + 1), a.value(first_ + 2)}; }
  EncoderParams encoder(ParamArena&) const;
  UnetParams unet(ParamArena&) const;
  UnetMask mask() const { return {dropped_ ? bits_.p() : nullptr, 1.0f - rate_}; }

  enum class Form { attention, transformer, unet };
  static Form form_of(const Settings&);

  Device& dev_;
  const Form form_;
  const int64_t width_;
  int first_ = 0;  // arena index of the first parameter; the others follow
  int layers_, heads_;
  Array<float> room_;
  EstimatorSaved saved_;
  EncoderSaved encoder_saved_;
  UnetSaved unet_saved_;
  Array<uint16_t> bits_;  // (capacity, kUnetMaskWords) of the step, where something is dropped
  float rate_;            // the share that is
  bool dropped_ = false;  // the last forward did it
};

}  // namespace ccdrec
