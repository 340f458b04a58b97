#include "host/models/modality.h"

#include <algorithm>
#include <cmath>

namespace ccdrec {

Modalities::Modalities(Device& dev, const std::vector<Feature>& features, ParamArena& arena, int64_t d, int64_t capacity, bool train_features,
                       uint32_t seed)
    : dev_(dev), items_(features.empty() ? 0 : features[0].matrix.rows()), d_(d), seed_(seed) {
  std::vector<float> block;
  for (const Feature& f : features) {
    const int64_t F = f.matrix.cols();
    names_.push_back(f.name);
    x_.emplace_back(dev, items_, F, train_features);
    const int64_t rows_at_once = std::max<int64_t>(1, (int64_t(1) << 20) / F);  // 4 MB of host memory
    for (int64_t r = 0; r < items_; r += rows_at_once) {
      const int64_t n = std::min(rows_at_once, items_ - r);
      block.resize(size_t(n * F));
      f.matrix.read_rows(block.data(), r, n);
      x_.back().values().array().upload(block.data(), n * F, r * F);
      f.matrix.forget_pages();
    }
    w_.push_back(arena.add(f.name + "_trs.weight", F, d, true));
    b_.push_back(arena.add(f.name + "_trs.bias", 1, d, false));
    h_.emplace_back(dev, capacity, d), d_h_.emplace_back(dev, capacity, d);
    h_all_.emplace_back(dev, items_, d);
  }
}

// linear_default: weight and bias uniform in +-1/sqrt(F).
void Modalities::init(ParamArena& arena) {
  for (size_t m = 0; m < x_.size(); ++m) {
    const float bound = float(1.0 / std::sqrt(double(x_[m].value().cols)));
    dev_.ops.init_uniform(dev_.ctx, arena.value(w_[m]), bound, Stream{seed_, Use::init, 0, uint32_t(16 + 2 * m)});
    dev_.ops.init_uniform(dev_.ctx, arena.value(b_[m]), bound, Stream{seed_, Use::init, 0, uint32_t(17 + 2 * m)});
  }
}

void Modalities::project(ParamArena& arena, RowList items, int64_t t_done) {
  for (size_t m = 0; m < x_.size(); ++m) {
    const CMat w = arena.value(w_[m]), b = arena.value(b_[m]);
    if (x_[m].trainable())
      dev_.ops.catch_up_project(dev_.ctx, h_[m], x_[m].table(), items, w, b, adam_, t_done);
    else
      dev_.ops.project(dev_.ctx, h_[m], x_[m].value(), items, w, b);
  }
}

void Modalities::backward(ParamArena& arena, RowList items) {
  if (d_x_.empty())
    for (const RowTable& x : x_) d_x_.push_back(x.trainable() ? Matrix(dev_, h_[0].rows(), x.value().cols) : Matrix());
  for (size_t m = 0; m < x_.size(); ++m)
    dev_.ops.project_backward(dev_.ctx, arena.grad(w_[m]), arena.grad(b_[m]), d_x_[m].mat(), d_h_[m], x_[m].value(), items, arena.value(w_[m]));
}

void Modalities::update(RowList items, int64_t t) {
  for (size_t m = 0; m < x_.size(); ++m)
    if (x_[m].trainable()) dev_.ops.adam_rows(dev_.ctx, x_[m].table(), items, d_x_[m].mat(), false, adam_, t);
}

void Modalities::backward_step(ParamArena& arena, RowList items, int64_t t) {
  for (size_t m = 0; m < x_.size(); ++m) {
    const Mat dw = arena.grad(w_[m]), db = arena.grad(b_[m]);
    const CMat w = arena.value(w_[m]);
    if (x_[m].trainable())
      dev_.ops.project_backward_step(dev_.ctx, dw, db, d_h_[m], x_[m].table(), items, w, adam_, t);
    else
      dev_.ops.project_backward(dev_.ctx, dw, db, {}, d_h_[m], x_[m].value(), items, w);
  }
}

void Modalities::flush(int64_t t_done) {
  for (RowTable& x : x_)
    if (x.trainable()) dev_.ops.adam_flush(dev_.ctx, x.table(), adam_, t_done);
}

void Modalities::project_all(ParamArena& arena) {
  for (size_t m = 0; m < x_.size(); ++m)
    dev_.ops.project(dev_.ctx, h_all_[m], x_[m].value(), RowList{nullptr, nullptr, items_}, arena.value(w_[m]), arena.value(b_[m]));
}

}  // namespace ccdrec
