#include "host/models/parts/slots.h"

#include <numeric>

namespace ccdrec {

Slots::Slots(const Setup& z, int64_t most_others, bool by_item)
    : dev_(z.dev),
      U_(z.users()),
      I_(z.items()),
      n_neg_(z.s.n_neg),
      node_ids_(z.dev, z.batch() * (2 + n_neg_) + std::max(z.batch(), most_others)),
      node_groups_(z.dev, node_ids_.n()),
      slot_groups_(z.dev, z.batch() * (3 + n_neg_)),
      h_(z.dev, z.batch() * (3 + n_neg_), z.width()),
      d_(z.dev, z.batch() * (3 + n_neg_), z.width()) {
  if (by_item) item_groups_ = OwnedGroups(z.dev, z.item_slots());
}

// Node ids of the slots.
void Slots::name(const Batch& b, bool with_hard) {
  rows_ = b.rows;
  count_ = rows_ * (2 + n_neg_ + (with_hard ? 1 : 0));
  dev_.ops.offset_ids(dev_.ctx, node_ids_.p(), b.users, rows_, 0);
  dev_.ops.offset_ids(dev_.ctx, node_ids_.p() + rows_, b.items, count_ - rows_, int32_t(U_));
}

void Slots::list(const Batch& b, bool with_hard, Ids others) {
  name(b, with_hard);
  if (others.n) dev_.ops.offset_ids(dev_.ctx, node_ids_.p() + count_, others.p, others.n, int32_t(U_));
  nodes_ = node_groups_.groups();
  dev_.ops.group(dev_.ctx, nodes_, node_ids_.p(), count_ + others.n, U_ + I_);
  slots_ = nodes_;
}

void Slots::list_again(const Batch& b, bool with_hard) {
  name(b, with_hard);
  slots_ = slot_groups_.groups();
  dev_.ops.group(dev_.ctx, slots_, node_ids_.p(), count_, U_ + I_);
}

void Slots::list_items(const Batch& b) {
  items_ = item_groups_.groups();
  dev_.ops.group(dev_.ctx, items_, b.items, b.item_slots(), I_);
}

void Slots::gather(CMat h) { dev_.ops.gather_rows(dev_.ctx, h_, h, node_ids_.p(), count_); }

void Slots::scatter(Mat g) {
  if (slots_.rows.idx != nodes_.rows.idx) dev_.ops.zero_rows(dev_.ctx, g, nodes_.rows);  // others were listed too
  dev_.ops.segment_sum(dev_.ctx, g, d_.top(count_), slots_, true, false);
}

void Slots::add_norms(double* loss, Mat g, CMat x, float reg) const {
  dev_.ops.norm_reg(dev_.ctx, loss, g, x, slots_, node_ids_.p(), rows_, n_neg_, reg);
}

// Scores h_u . h_x of rows (k B,d), one dot product each.
std::vector<float> Slots::scores(CMat rows) const {
  const int64_t B = rows_, width = h_.cols();
  const std::vector<float> users = host_copy(dev_, h(0)), others = host_copy(dev_, rows);
  std::vector<float> score;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const auto u = users.begin() + r % B * width;
    score.push_back(float(std::inner_product(u, u + width, others.begin() + r * width, 0.0)));
  }
  return score;
}

void Slots::show(Watch& w, const std::string& name, CMat rows) const {
  w.floats("h." + name, {rows_, rows.cols}, rows);
  w.floats("score." + name, {rows_}, scores(rows));
}

// Representations of the batch's places, their gradients and scores. `lead`: the shape without the width.
void Slots::show_block(Watch& w, const std::string& kind, int k, const Extents& lead, const Extents& whole) const {
  w.floats("h." + kind, whole, h(k));
  w.floats("grad.h." + kind, whole, d(k));
  if (k > 0) w.floats("score." + kind, lead, scores({h(k).p, k == 2 ? n_neg_ * rows_ : rows_, h_.cols()}));
}

void Slots::show(Watch& w, const char* hard_name) const {
  const int64_t B = rows_, width = h_.cols();
  show_block(w, "users", 0, {B}, {B, width});
  show_block(w, "positives", 1, {B}, {B, width});
  show_block(w, "negatives", 2, {n_neg_, B}, {n_neg_, B, width});
  if (hard_name) show_block(w, hard_name, hard(), {B}, {B, width});
}

}  // namespace ccdrec
