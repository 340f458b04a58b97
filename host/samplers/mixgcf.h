// MixGCF (spec negative_sampling 6): at every layer of the propagation the item of N uniform ones that scores highest
// there, mixed with the positive by a coefficient that is drawn; the mean over the layers is the negative.
#pragma once
#include "host/samplers/hard_sampler.h"

namespace ccdrec {

class MixGcf : public ChoosingSampler {
 public:
  static void outline(Outline& o) { o.chooses = o.mixes = true; }
  MixGcf(const Setup&, const Outline&);
  const char* source(int) const override { return "mixgcf"; }
  void late(const Batch&, const Step&, const Representations&) override;
  bool mixes() const override { return gives(); }
  Choice choice() const override;
  void give(const Given&, const Batch&) override;
  void draws(const Batch&, Watch&) override;

 protected:
  int lists() const override { return tables_; }
  int32_t* items(const Batch&) const override { return items_.p(); }

 private:
  const int n_candidates_;
  const int tables_;      // L+1
  int64_t rows_ = 0;      // B of the last step
  Array<int32_t> items_;  // (L+1,B) chosen
  Array<float> alpha_;    // (L+1,B) weight of the positive
};

}  // namespace ccdrec
