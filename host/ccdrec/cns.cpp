#include "host/ccdrec/cns.h"

#include <algorithm>
#include <cmath>

namespace ccdrec {

const char* pool_name(Pool p) {
  static const char* const names[] = {"random", "3T/4", "T/2", "T/4", "0", "model"};
  return names[int(p)];
}

Pool pool_of_epoch(const Settings& s, int epoch) {
  if (epoch == 0) return Pool::random;
  if (!s.ndi || epoch > s.tau_end) return Pool::model;
  const int first = s.first_stage > 0 ? s.first_stage : s.dtau;
  const int stage = epoch < first ? 0 : std::min(3, 1 + (epoch - first) / s.dtau);
  return Pool(int(Pool::stage0) + stage);
}

int64_t Cns::candidates_of(const Settings& s, int64_t n_items) {
  return std::max<int64_t>(1, int64_t(std::floor(s.candidate_ratio * double(n_items))));
}
int64_t Cns::drawn_from(const Settings& s, int64_t count) { return std::max<int64_t>(1, int64_t(std::floor(s.kappa * double(count)))); }

Cns::Cns(Device& dev, const Settings& s, int64_t n_items) : dev_(dev), n_items_(n_items), cosine_(s.cns_cosine) {
  count_ = candidates_of(s, n_items);
  k_ = drawn_from(s, count_);
  cand_ = Array<int32_t>(dev, count_);
  nan_flag_ = Array<int32_t>(dev, 1);
}

void Cns::draw_candidates(uint32_t seed, uint32_t epoch, uint32_t step) {
  dev_.ops.candidates(dev_.ctx, cand_.p(), count_, n_items_, Stream{seed, Use::candidates, epoch, step});
}

void Cns::choose(int32_t* out, CMat pool, const int32_t* positives, const int32_t* users, int64_t batch, const Csr& train, const int32_t* fallback,
                 uint32_t seed, uint32_t epoch, uint32_t step) {
  dev_.ops.similar_negative(dev_.ctx, out, nan_flag_.p(), pool, positives, users, batch, cand_.p(), count_, train, k_, cosine_, fallback,
                            Stream{seed, Use::cns_rank, epoch, step});
}

}  // namespace ccdrec
