#include "host/ccdrec/pool_negatives.h"

namespace ccdrec {

PoolNegatives::PoolNegatives(const Setup& z, const Ndi& ndi)
    : dev_(z.dev),
      ndi_(ndi),
      train_(z.train.by_user.view()),
      I_(z.items()),
      d_(z.width()),
      seed_(z.s.seed),
      weight_(z.s.omega),
      as_constants_(z.s.ndi_negative == "pool"),
      rows_(z.dev, z.batch(), d_) {}

Plan PoolNegatives::prepare(int epoch, int64_t) {
  if (given_) return plan_;
  const Gives gives = !drawn(epoch) ? Gives::nothing : as_constants_ ? Gives::constant : Gives::item;
  return plan_ = {gives, true, int(gives)};
}

void PoolNegatives::early(const Batch& b, const Step& step) {
  if (plan_.gives == Gives::nothing) return;
  const Range range = step.clock.range(RangeId::uniform);
  dev_.ops.unseen_items(dev_.ctx, b.hard(), b.users, b.rows, train_, I_, step.now.draws(seed_, Use::ndi_item));
  if (as_constants_) dev_.ops.gather_rows(dev_.ctx, rows_, ndi_.e0_hat(), b.hard(), b.rows);
}

void PoolNegatives::give(const Given& given, const Batch& b) {
  given_ = true;
  const bool has_rows = given.has("batch.frozen"), has_items = given.has("batch.curricular");
  if (has_rows && !as_constants_)
    given.fail("'batch.frozen' is given, but only NDI without CNS with ndi_negative = pool reads it; leave it away");
  if (!has_rows && as_constants_ && has_items)
    given.fail(
        "'batch.frozen' is missing: with NDI, without CNS and with ndi_negative = pool its rows stand for "
        "'batch.curricular'; give it or neither");
  plan_ = {has_rows ? Gives::constant : has_items ? Gives::item : Gives::nothing, true, 0};
  if (has_items) {
    const std::vector<int32_t> items = given.indices("batch.curricular", {b.rows}, I_);
    dev_.ops.upload(dev_.ctx, b.hard(), items.data(), items.size() * sizeof items[0]);
  }
  if (has_rows) {
    const std::vector<float> rows = given.floats("batch.frozen", {b.rows, d_});
    rows_.array().upload(rows.data(), b.rows * d_);
  }
}

void PoolNegatives::draws(const Batch& b, Watch& w) {
  if (plan_.gives == Gives::nothing) return;
  w.indices("batch.curricular", {b.rows}, b.hard());
  if (plan_.gives == Gives::constant) w.floats("batch.frozen", {b.rows, d_}, rows_);
}

}  // namespace ccdrec
