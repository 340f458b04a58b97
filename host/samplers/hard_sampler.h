// What popularity, DNS, MixGCF and RealHNS share: a hard negative a row at every step, of the name "hard" in files, and
// the arrays that stand for it in a case.
#pragma once
#include "host/models/outline.h"
#include "host/models/sampler.h"

namespace ccdrec {

class HardSampler : public Sampler {
 public:
  HardSampler(const Setup&, Gives, bool early);
  const char* name() const override { return "hard"; }
  Plan prepare(int epoch, int64_t step) override;
  void give(const Given&, const Batch&) override;
  void draws(const Batch&, Watch&) override;

 protected:
  // The lists of a batch, (k,B) items: for one that gives items Batch::hard.
  virtual int lists() const { return 1; }
  virtual int32_t* items(const Batch& b) const { return b.hard(); }
  bool gives() const { return gives_ != Gives::nothing; }

  Device& dev_;
  const int64_t I_;
  const uint32_t seed_;

 private:
  const Gives gives_;  // nothing where it has no weight
  const bool early_;
  bool given_ = false;
};

// One that chooses by H among candidates that may be any item.
class ChoosingSampler : public HardSampler {
 public:
  ChoosingSampler(const Setup&, Gives);
  Ids candidates() const override { return gives() ? Ids{all_.p(), all_.n()} : Ids{}; }

 protected:
  // For every row the hardest of so many draws in each of the tables, or one of the top_m hardest.
  void choose(int32_t* out, const Batch&, const Step&, CMat h_u, const LayerTables&, int n_candidates, int top_m) const;

  const Csr train_;                 // by user
  const int32_t* const occurring_;  // the items of it
  const int64_t n_occurring_;

 private:
  Array<int32_t> all_;  // 0 .. I-1
};

}  // namespace ccdrec
