#include "host/samplers/hard_sampler.h"

#include <numeric>

namespace ccdrec {

HardSampler::HardSampler(const Setup& z, Gives gives, bool early)
    : dev_(z.dev), I_(z.items()), seed_(z.s.seed), gives_(z.s.omega == 0 ? Gives::nothing : gives), early_(early) {}

Plan HardSampler::prepare(int, int64_t) { return {gives_, early_ || given_, 0}; }

void HardSampler::give(const Given& given, const Batch& b) {
  given_ = true;
  for (const char* of_others : {"batch.curricular", "batch.frozen"})
    if (given.has(of_others))
      given.fail(std::string("'") + of_others + "' is given, but the model has neither NDI nor CNS; leave it away");
  for (const char* array : {"hard.items", "hard.alpha"})
    if (!gives() && given.has(array))
      given.fail(std::string("'") + array + "' is given, but omega = 0 leaves no hard negative; leave it away");
  if (!gives()) return;
  if (!mixes() && given.has("hard.alpha"))
    given.fail("'hard.alpha' is given, but only the sampler mixgcf reads it; leave it away");
  const std::vector<int32_t> chosen = given.indices("hard.items", {lists(), b.rows}, I_);
  dev_.ops.upload(dev_.ctx, items(b), chosen.data(), chosen.size() * sizeof chosen[0]);
}

void HardSampler::draws(const Batch& b, Watch& w) {
  if (gives()) w.indices("hard.items", {lists(), b.rows}, items(b));
}

ChoosingSampler::ChoosingSampler(const Setup& z, Gives gives)
    : HardSampler(z, gives, false),
      train_(z.train.by_user.view()),
      occurring_(z.train.occurring.p()),
      n_occurring_(z.train.occurring.n()) {
  if (!this->gives()) return;
  std::vector<int32_t> all(size_t(z.items()));
  std::iota(all.begin(), all.end(), 0);
  all_ = Array<int32_t>(z.dev, all);
}

void ChoosingSampler::choose(int32_t* out, const Batch& b, const Step& step, CMat h_u, const LayerTables& tables,
                             int n_candidates, int top_m) const {
  const Range range = step.clock.range(RangeId::hardest);
  dev_.ops.hardest_negative(dev_.ctx, out, h_u, b.users, b.rows, step.now.first, tables, train_, occurring_,
                            n_occurring_, n_candidates, top_m, step.now.draws(seed_, Use::hard),
                            step.now.draws(seed_, Use::hard_rank));
}

}  // namespace ccdrec
