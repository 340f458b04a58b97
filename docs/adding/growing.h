// DNS whose number of candidates doubles every `every` epochs, from 2 up to n_candidates: negatives that grow harder.
#pragma once
#include "host/samplers/hard_sampler.h"

namespace ccdrec {

class Growing : public ChoosingSampler {
 public:
  static void outline(Outline& o) { o.chooses = true; }
  Growing(const Setup& z, int every) : ChoosingSampler(z, Gives::item), most_(z.s.n_candidates), every_(every) {}
  const char* source(int) const override { return "growing"; }
  Plan prepare(int epoch, int64_t step) override;
  void late(const Batch&, const Step&, const Representations&) override;

 private:
  const int most_, every_;
  int now_ = 0;  // candidates of this epoch
};

}  // namespace ccdrec
