// CNS, the curricular negative sampler (spec ccdrec 5): which pool an epoch draws from, and the draw.
#pragma once
#include "host/ccdrec/ndi.h"
#include "host/models/sampler.h"

namespace ccdrec {

// Where an epoch's curricular negatives come from.
enum class Pool { random, stage0, stage1, stage2, stage3, model };
const char* pool_name(Pool);  // random, 3T/4, T/2, T/4, 0, model

// Epoch n: random before the first reverse process; n > tau_end: the model's own h_i; otherwise stage min(3,
// floor(n/dtau)), the first stage lasting `first_stage` epochs when that is set. Without NDI there are no pools: random
// in epoch 0, the model's own afterwards.
Pool pool_of_epoch(const Settings&, int epoch);

// From a pool of NDI the negatives are chosen before the step's forward, from the model's own h_i after it.
class Cns : public Sampler {
 public:
  Cns(const Setup&, const Ndi*);
  static int64_t candidates_of(const Settings&, int64_t n_items);  // C
  static int64_t drawn_from(const Settings&, int64_t candidates);  // k, the most similar of them

  const char* name() const override { return "curricular"; }
  const char* source(int epoch) const override { return pool_name(pool(epoch)); }
  Plan prepare(int epoch, int64_t step) override;
  void early(const Batch&, const Step&) override;
  void late(const Batch&, const Step&, const Representations&) override;
  Ids candidates() const override { return {candidates_.p(), count_}; }  // (C) ascending
  const int32_t* nan_flag() const override { return nan_flag_.p(); }     // a similarity was no number

  void give(const Given&, const Batch&) override;
  void draws(const Batch&, Watch&) override;
  void explain(const Batch&, Watch&) override;

 private:
  Pool pool(int epoch) const;                         // random where curricular negatives weigh nothing
  void choose(CMat pool, const Batch&, const Step&);  // the curricular negative of each row, from (I,d)
  void show_ranks(const Batch&, Watch&);              // candidates, and which of them were chosen
  const HostCsr& pattern();                           // the training rows, on the host

  Device& dev_;
  const Settings s_;
  const Ndi* const ndi_;  // null: no pools
  const Csr train_;
  int64_t I_, d_, count_, k_;
  Array<int32_t> candidates_, nan_flag_;
  Pool pool_ = Pool::random;  // of the step
  int64_t epoch_ = 0, step_ = 0;
  uint32_t pass_ = 0;
  bool given_ = false, given_any_ = false;
  HostCsr pattern_;
};

}  // namespace ccdrec
