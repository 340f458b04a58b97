#include "host/samplers/mixgcf.h"

namespace ccdrec {

MixGcf::MixGcf(const Setup& z, const Outline& o)
    : ChoosingSampler(z, Gives::mixture),
      n_candidates_(z.s.n_candidates),
      tables_(o.layers + 1),
      items_(z.dev, gives() ? tables_ * z.batch() : 0),
      alpha_(z.dev, gives() ? tables_ * z.batch() : 0) {}

void MixGcf::late(const Batch& b, const Step& step, const Representations& r) {
  rows_ = b.rows;
  choose(items_.p(), b, step, r.h_u, r.item_layers(), n_candidates_, 1);
  dev_.ops.draw_mixing(dev_.ctx, {alpha_.p(), tables_, rows_}, step.now.first, step.now.draws(seed_, Use::mix));
}

Choice MixGcf::choice() const {
  Choice c;
  c.items = items_.p(), c.alpha = {alpha_.p(), tables_, rows_};
  return c;
}

void MixGcf::give(const Given& given, const Batch& b) {
  HardSampler::give(given, b);
  rows_ = b.rows;
  if (!gives()) return;
  const std::vector<float> alpha = given.floats("hard.alpha", {tables_, rows_});
  for (const float a : alpha)
    if (!(a >= 0 && a <= 1))
      given.fail("'hard.alpha' holds " + std::to_string(a) + ", expected shares of the positive in [0, 1]");
  alpha_.upload(alpha.data(), int64_t(alpha.size()));
}

void MixGcf::draws(const Batch& b, Watch& w) {
  HardSampler::draws(b, w);
  if (gives()) w.floats("hard.alpha", {tables_, b.rows}, CMat{alpha_.p(), tables_, b.rows});
}

}  // namespace ccdrec
