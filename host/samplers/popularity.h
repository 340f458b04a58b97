// Negatives by popularity (spec negative_sampling 4): P(j) ~ f_j^power, f_j the training rows of item j.
#pragma once
#include "host/samplers/hard_sampler.h"

namespace ccdrec {

class Popularity : public HardSampler {
 public:
  static void outline(Outline& o) { o.popular = true; }
  Popularity(const Setup&, const Outline&);
  const char* source(int) const override { return "popularity"; }
  void early(const Batch&, const Step&) override;

 private:
  const Csr train_;
  Array<PopularColumn> columns_;  // an alias table over the items that occur
};

}  // namespace ccdrec
