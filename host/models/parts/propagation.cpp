#include "host/models/parts/propagation.h"

#include <fmt/format.h>

#include <algorithm>

namespace ccdrec {

LayerTables Representations::item_layers() const {
  LayerTables all;
  all.n = layers + 1, all.item_part = item_part;
  for (int l = 0; l <= layers; ++l) all.layer[l] = ego[l].slice(h_u.rows, h_i.rows);
  return all;
}

Propagation::Propagation(const Setup& z, int layers, Graph graph)
    : dev_(z.dev), N_(z.users() + z.items()), h_(z.dev, N_, z.width()) {
  if (layers > 0 && graph == Graph::symmetric) whole_ = OwnedCsr(z.dev, z.graphs.user_item());
  if (layers > 0 && graph == Graph::mean) {
    const HostCsr a = z.graphs.user_item_mean(true);
    whole_ = OwnedCsr(z.dev, a), whole_t_ = OwnedCsr(z.dev, transpose(a));
  }
  for (int l = 0; l < layers; ++l) work_.emplace_back(z.dev, N_, z.width());
  if (layers == 0) g_ = Matrix(z.dev, N_, z.width());
  touched_.layers = layers;
  for (int l = 0; l <= layers; ++l) {
    lists_.emplace_back(z.dev, N_), masks_.emplace_back(z.dev, N_);
    touched_.rows[l] = lists_.back().list(), touched_.mask[l] = masks_.back().p();
  }
}

void Propagation::touch(const Csr& a, const Csr& a_t, RowList seed) {
  a_ = a, a_t_ = a_t;
  dev_.ops.frontier(dev_.ctx, touched_, a_, a_t_, seed);
}

Mat* Propagation::work(bool keep_last) {
  for (size_t l = 0; l < work_.size(); ++l) given_[l] = work_[l];
  if (!keep_last && !work_.empty()) given_[work_.size() - 1] = {};
  return given_;
}

void Propagation::forward(CMat ego, bool keep_last) {
  dev_.ops.propagate(dev_.ctx, h_, work(keep_last), a_, touched_, ego);
}

void Propagation::ask_layer_gradients() {
  if (!g_layers_.empty()) return;
  if (!g_) g_ = Matrix(dev_, N_, h_.cols());
  for (int l = 0; l <= layers(); ++l) g_layers_.emplace_back(dev_, N_, h_.cols());
}

void Propagation::backward(Mat g_ego, bool by_layer) {
  if (!by_layer) {
    dev_.ops.propagate_backward(dev_.ctx, g_ego, work(true), a_t_, touched_, g());
    return;
  }
  CMat of_layers[kMaxLayers + 1];
  for (int l = 0; l <= layers(); ++l) of_layers[l] = g(l);
  dev_.ops.propagate_backward_layers(dev_.ctx, g_ego, work(true), a_t_, touched_, g(), of_layers);
}

void Propagation::sum_gradients(Mat g_items, RowList items) const {
  const int64_t I = g_items.rows, U = N_ - I;
  dev_.ops.copy_rows(dev_.ctx, g_items, g().slice(U, I), items);
  for (int l = 0; l <= layers(); ++l) dev_.ops.add_rows(dev_.ctx, g_items, g(l).slice(U, I), items, 0);
}

void Propagation::all(CMat ego) {
  Frontier every;
  every.layers = touched_.layers;
  for (int l = 0; l <= every.layers; ++l) every.rows[l] = RowList{nullptr, nullptr, N_};
  dev_.ops.propagate(dev_.ctx, h_, work(true), whole_.view(), every, ego);
}

Representations Propagation::representations(CMat ego, int64_t users) const {
  Representations r;
  r.h_u = h().slice(0, users), r.h_i = h().slice(users, N_ - users);
  r.layers = layers();
  r.ego[0] = ego;
  for (int l = 1; l <= r.layers; ++l) r.ego[l] = layer(l);
  return r;
}

// The way back has used the layers' memory: they are computed again. H and its gradient, which lies where Ego_L goes,
// are put back.
void Propagation::show(Watch& w, CMat ego, bool touched_rows) {
  const int64_t d = h_.cols();
  if (layers() == 0) return;
  const PutBack h(dev_, h_), gradient(dev_, g());
  for (const Matrix& layer : work_) dev_.ops.fill_zero(dev_.ctx, layer);
  forward(ego, true);
  std::vector<float> start = host_copy(dev_, ego);
  if (touched_rows) {
    std::vector<float> kept(start.size(), 0.0f);
    for (const int32_t r : host_copy(dev_, starts())) std::copy_n(start.begin() + r * d, d, kept.begin() + r * d);
    start = std::move(kept);
  }
  w.floats("ego.0", {N_, d}, std::move(start));
  for (int l = 1; l <= layers(); ++l) w.floats(fmt::format("ego.{}", l), {N_, d}, layer(l));
}

}  // namespace ccdrec
