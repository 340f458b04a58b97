#include "host/models/parts/layer_slots.h"

namespace ccdrec {

LayerSlots::LayerSlots(const Setup& z, int tables)
    : dev_(z.dev),
      U_(z.users()),
      I_(z.items()),
      ids_(z.dev, 2 * z.batch()),
      groups_(z.dev, 2 * z.batch()),
      h_(z.dev, z.batch(), z.width()) {
  for (int l = 0; l < tables; ++l) d_.emplace_back(z.dev, 2 * z.batch(), z.width());
}

const Mat* LayerSlots::d(int64_t rows) {
  for (size_t l = 0; l < d_.size(); ++l) of_step_[l] = d_[l].top(2 * rows);
  return of_step_;
}

void LayerSlots::scatter(int l, Mat g, RowList nodes, const Batch& b, const int32_t* chosen) {
  dev_.ops.offset_ids(dev_.ctx, ids_.p(), b.positives(), b.rows, int32_t(U_));
  dev_.ops.offset_ids(dev_.ctx, ids_.p() + b.rows, chosen, b.rows, int32_t(U_));
  Groups slots = groups_.groups();
  dev_.ops.group(dev_.ctx, slots, ids_.p(), 2 * b.rows, U_ + I_);
  dev_.ops.zero_rows(dev_.ctx, g, nodes);
  dev_.ops.segment_sum(dev_.ctx, g, d_[size_t(l)].top(2 * b.rows), slots, true, false);
}

}  // namespace ccdrec
