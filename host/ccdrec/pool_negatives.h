// NDI without CNS (spec ccdrec 6, ablations): from the second epoch on each row gets an item its user lacks, at random.
// Its row of NDI's last pool stands for h_c as a constant, or the item is a negative like any other (setting
// ndi_negative: pool, index).
#pragma once
#include "host/ccdrec/ndi.h"
#include "host/models/sampler.h"

namespace ccdrec {

class PoolNegatives : public Sampler {
 public:
  PoolNegatives(const Setup&, const Ndi&);
  const char* name() const override { return "curricular"; }
  const char* source(int epoch) const override { return drawn(epoch) ? "0" : "random"; }  // the pool at t = 0
  Plan prepare(int epoch, int64_t step) override;
  void early(const Batch&, const Step&) override;
  Choice choice() const override { return {rows_, nullptr, {}}; }
  void give(const Given&, const Batch&) override;
  void draws(const Batch&, Watch&) override;

 private:
  bool drawn(int epoch) const { return epoch > 0 && weight_ != 0; }  // there is no pool before

  Device& dev_;
  const Ndi& ndi_;
  const Csr train_;
  int64_t I_, d_;
  uint32_t seed_;
  double weight_;
  bool as_constants_;
  Matrix rows_;  // (B,d) of the pool
  Plan plan_;
  bool given_ = false;
};

}  // namespace ccdrec
