#include "host/models/parts/modality.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/models/parts/features.h"

namespace ccdrec {

Modalities::Modalities(const Setup& z, ParamArena& arena) : dev_(z.dev), arena_(arena), I_(z.items()), seed_(z.s.seed) {
  const int64_t d = z.width(), capacity = z.item_slots();
  for (const Feature& f : z.data.features) {
    const int64_t F = f.matrix.cols();
    names_.push_back(f.name);
    x_.emplace_back(z.dev, I_, F, z.s.train_features);
    upload_features(z, f, x_.back().values().array());
    w_.push_back(arena.add(f.name + "_trs.weight", F, d, true));
    b_.push_back(arena.add(f.name + "_trs.bias", 1, d, false));
    h_.emplace_back(z.dev, capacity, d), d_h_.emplace_back(z.dev, capacity, d);
    h_all_.emplace_back(z.dev, I_, d);
  }
  has_d_h_.resize(x_.size());
}

void Modalities::init(Init init) {
  for (size_t m = 0; m < x_.size(); ++m) {
    const Mat w = arena_.value(w_[m]);
    const float bound = float(1.0 / std::sqrt(double(w.rows)));
    const Stream of_w{seed_, Use::init, 0, uint32_t(16 + 2 * m)};
    if (init == Init::xavier_normal)
      dev_.ops.init_normal(dev_.ctx, w, float(std::sqrt(2.0 / double(w.rows + w.cols))), of_w);
    else
      dev_.ops.init_uniform(dev_.ctx, w, bound, of_w);
    dev_.ops.init_uniform(dev_.ctx, arena_.value(b_[m]), bound, Stream{seed_, Use::init, 0, uint32_t(17 + 2 * m)});
  }
}

void Modalities::project(RowList items, const Step& step) {
  maps_all_ = false;
  for (size_t m = 0; m < x_.size(); ++m) {
    const CMat w = arena_.value(w_[m]), b = arena_.value(b_[m]);
    if (x_[m].trainable())
      dev_.ops.catch_up_project(dev_.ctx, h_[m], x_[m].table(), items, w, b, step.adam, step.t);
    else
      dev_.ops.project(dev_.ctx, h_[m], x_[m].value(), items, w, b);
    has_d_h_[m] = false;
  }
}

Mat Modalities::write_gradient(int m) {
  has_d_h_[size_t(m)] = true;
  if (written_ == Rows::none) written_ = Rows::listed;
  return d_h_[size_t(m)];
}

void Modalities::add_gradient(int m, CMat d_slots, const Groups& items) {
  const bool add = has_d_h_[size_t(m)];
  dev_.ops.segment_sum(dev_.ctx, write_gradient(m), d_slots, items, false, add);
}

void Modalities::ask_gradient_of_all() {
  for (const Matrix& h : h_all_) d_h_all_.emplace_back(dev_, I_, h.cols());
  std::vector<int32_t> places(size_t(h_.empty() ? 0 : h_[0].rows()) + 1);
  std::iota(places.begin(), places.end(), 0);
  places_ = Array<int32_t>(dev_, places);
}

Mat Modalities::write_gradient_of_all(int m) {
  written_ = Rows::all;
  return d_h_all_[size_t(m)];
}

void Modalities::backward(RowList items, const Step& step) {
  stepped_ = written_, written_ = Rows::none;
  if (stepped_ == Rows::none) return;
  const RowList rows = stepped_ == Rows::all ? all() : items;
  if (step.keep && d_x_.empty())
    for (const RowTable& x : x_)
      d_x_.push_back(x.trainable()
                         ? Matrix(dev_, d_h_all_.empty() ? h_[0].rows() : std::max(h_[0].rows(), I_), x.value().cols)
                         : Matrix());
  for (size_t m = 0; m < x_.size(); ++m) {
    if (stepped_ == Rows::all && has_d_h_[m])
      dev_.ops.segment_sum(dev_.ctx, d_h_all_[m], d_h_[m], {items, places_.p(), places_.p()}, true, true);
    const CMat d_h = stepped_ == Rows::all ? d_h_all_[m] : d_h_[m];
    const Mat dw = arena_.grad(w_[m]), db = arena_.grad(b_[m]);
    const CMat w = arena_.value(w_[m]);
    if (x_[m].trainable() && !step.keep)
      dev_.ops.project_backward_step(dev_.ctx, dw, db, d_h, x_[m].table(), rows, w, step.adam, step.t + 1);
    else
      dev_.ops.project_backward(dev_.ctx, dw, db, step.keep ? d_x_[m].mat() : Mat(), d_h, x_[m].value(), rows, w);
  }
}

void Modalities::update(RowList items, const Step& step) {
  if (!step.keep || stepped_ == Rows::none) return;
  for (size_t m = 0; m < x_.size(); ++m)
    if (x_[m].trainable())
      dev_.ops.adam_rows(dev_.ctx, x_[m].table(), stepped_ == Rows::all ? all() : items, d_x_[m].mat(), false,
                         step.adam, step.t + 1);
}

void Modalities::flush(const AdamSchedule& adam, int64_t t) {
  for (RowTable& x : x_)
    if (x.trainable()) dev_.ops.adam_flush(dev_.ctx, x.table(), adam, t);
}

void Modalities::project_all() {
  for (size_t m = 0; m < x_.size(); ++m)
    dev_.ops.project(dev_.ctx, h_all_[m], x_[m].value(), all(), arena_.value(w_[m]), arena_.value(b_[m]));
}

void Modalities::project_all(const Step& step) {
  maps_all_ = true;
  for (size_t m = 0; m < x_.size(); ++m) {
    has_d_h_[m] = false;
    const CMat w = arena_.value(w_[m]), b = arena_.value(b_[m]);
    if (x_[m].trainable())
      dev_.ops.catch_up_project(dev_.ctx, h_all_[m], x_[m].table(), all(), w, b, step.adam, step.t);
    else
      dev_.ops.project(dev_.ctx, h_all_[m], x_[m].value(), all(), w, b);
  }
}

void Modalities::parameters(Windows& all) {
  for (size_t m = 0; m < x_.size(); ++m)
    if (x_[m].trainable()) all.push_back(window(names_[m] + "_embedding.weight", x_[m], 0, I_));
}

void Modalities::constants(Windows& all) {
  for (size_t m = 0; m < x_.size(); ++m)
    if (!x_[m].trainable()) all.push_back(window(names_[m] + "_embedding.weight", x_[m], 0, I_));
}

// The features' gradient is of all items after a step that had one of all, else of those listed, if any were mapped.
void Modalities::show(RowList items, Watch& w) {
  const bool listed = stepped_ == Rows::listed || (!has_d_h_.empty() && has_d_h_[0]), whole = stepped_ == Rows::all;
  const std::vector<int32_t> ids = listed ? host_copy(dev_, items) : std::vector<int32_t>();
  const int64_t n = int64_t(ids.size()), d = h_.empty() ? 0 : h_[0].cols();
  for (size_t m = 0; m < x_.size(); ++m) {
    if (maps_all_) {
      w.floats("projection." + names_[m], {I_, d}, h_all_[m]);
      w.floats("grad.projection." + names_[m], {I_, d}, d_h_all_[m]);
    } else if (listed) {
      w.floats("projection." + names_[m], {n, d}, h_[m]);
      w.floats("grad.projection." + names_[m], {n, d}, d_h_[m]);
    }
    if (!x_[m].trainable()) continue;
    const int64_t F = x_[m].value().cols;
    std::vector<float> all(size_t(I_ * F), 0.0f);
    if (whole) {
      all = host_copy(dev_, d_x_[m].top(I_));
    } else if (listed) {
      const std::vector<float> rows = host_copy(dev_, d_x_[m].top(n));
      for (int64_t j = 0; j < n; ++j) std::copy_n(rows.begin() + j * F, F, all.begin() + int64_t(ids[size_t(j)]) * F);
    }
    w.floats("grad." + names_[m] + "_embedding.weight", {I_, F}, std::move(all));
  }
}

}  // namespace ccdrec
