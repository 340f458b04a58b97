// CNS, the curricular negative sampler (spec ccdrec 5): which pool an epoch draws from, and the draw.
#pragma once
#include "host/models/backbone.h"

namespace ccdrec {

// Where an epoch's curricular negatives come from.
enum class Pool { random, stage0, stage1, stage2, stage3, model };
const char* pool_name(Pool);  // random, 3T/4, T/2, T/4, 0, model

// Epoch n: random before the first reverse process; n > tau_end: the model's own h_i; otherwise stage min(3, floor(n/dtau)), the first stage lasting
// `first_stage` epochs when that is set. Without NDI there are no pools: random in epoch 0, the model's own afterwards.
Pool pool_of_epoch(const Settings&, int epoch);

class Cns {
 public:
  Cns(Device&, const Settings&, int64_t n_items);
  static int64_t candidates_of(const Settings&, int64_t n_items);  // C
  static int64_t drawn_from(const Settings&, int64_t candidates);  // k, the most similar of them
  int64_t candidate_count() const { return count_; }
  int64_t k_top() const { return k_; }
  void draw_candidates(uint32_t seed, uint32_t epoch, uint32_t step);
  const int32_t* candidates() const { return cand_.p(); }  // (C) ascending
  // out (B): the curricular negative of each row, from the given pool (I,d).
  void choose(int32_t* out, CMat pool, const int32_t* positives, const int32_t* users, int64_t batch, const Csr& train, const int32_t* fallback,
              uint32_t seed, uint32_t epoch, uint32_t step);
  const int32_t* nan_flag() const { return nan_flag_.p(); }  // on the device; not 0: a similarity was no number

 private:
  Device& dev_;
  int64_t n_items_, count_, k_;
  bool cosine_;
  Array<int32_t> cand_, nan_flag_;
};

}  // namespace ccdrec
