// DNS, dynamic negative sampling (spec negative_sampling 5): of N uniform items the one that the user's score is
// highest for, or with top_m > 1 one of the so many best.
#pragma once
#include "host/samplers/hard_sampler.h"

namespace ccdrec {

class Dns : public ChoosingSampler {
 public:
  static void outline(Outline& o) { o.chooses = true; }
  Dns(const Setup& z, const Outline&)
      : ChoosingSampler(z, Gives::item), n_candidates_(z.s.n_candidates), top_m_(z.s.top_m) {}
  const char* source(int) const override { return "dns"; }
  void late(const Batch&, const Step&, const Representations&) override;

 private:
  const int n_candidates_, top_m_;
};

}  // namespace ccdrec
