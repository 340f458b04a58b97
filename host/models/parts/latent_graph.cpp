#include "host/models/parts/latent_graph.h"

namespace ccdrec {

LatentGraph::LatentGraph(const Setup& z)
    : dev_(z.dev), I_(z.items()), d_(z.width()), k_(z.s.knn_k), lambda_(float(z.s.lambda_coeff)), seed_(z.s.seed) {
  const int64_t M = int64_t(z.data.features.size()), row = 2 * M * k_;
  for (int64_t m = 0; m < M; ++m) {
    const NeighbourLists frozen = z.graphs.frozen(size_t(m));  // before the other arrays: it takes memory for a while
    CHECK_THAT(int64_t(frozen.idx.size()) == I_ * k_);
    Lists& l = m_.emplace_back();
    l.frozen_idx = Array<int32_t>(dev_, frozen.idx);
    l.frozen_value = Matrix(dev_, I_, k_);
    l.frozen_value.array().upload(frozen.val.data(), I_ * k_);
    names_.push_back(z.data.features[size_t(m)].name);
  }
  for (Lists& l : m_) {
    l.idx = Array<int32_t>(dev_, I_ * k_);
    l.inv_norm = Array<float>(dev_, I_);
    l.by_target = OwnedGroups(dev_, I_ * k_);
    l.y = Matrix(dev_, I_, d_);
    for (Matrix* list : {&l.value, &l.gamma, &l.frozen_gamma, &l.g_value}) *list = Matrix(dev_, I_, k_);
  }
  w_ = Array<float>(dev_, M), g_w_ = Array<float>(dev_, M);
  std::vector<int64_t> ptr(size_t(I_) + 1);
  for (int64_t i = 0; i <= I_; ++i) ptr[size_t(i)] = i * row;
  ptr_ = Array<int64_t>(dev_, ptr);
  col_ = Array<int32_t>(dev_, I_ * row), val_ = Matrix(dev_, I_, row), scale_ = Array<float>(dev_, I_);
  s_t_ = OwnedCsr(dev_, I_, I_, I_ * row);
  tied_ = Array<int64_t>(dev_, 1), empty_ = Array<int64_t>(dev_, 2);
  layer_gamma_ = Matrix(dev_, I_, k_), d_y_ = Matrix(dev_, I_, d_);
}

void LatentGraph::join(ParamArena& arena, Modalities& modal) {
  arena_ = &arena, modal_ = &modal;
  theta_ = arena.add("modal_weight", 1, int64_t(m_.size()), false);
  modal.ask_gradient_of_all();
}

// 1/M each: (0.5, 0.5) for two, as published.
void LatentGraph::init() {
  const std::vector<float> equal(m_.size(), 1.0f / float(m_.size()));
  arena_->values().upload(equal.data(), int64_t(equal.size()), arena_->params()[size_t(theta_)].offset);
}

LatentLists LatentGraph::lists() const {
  LatentLists all;
  all.M = int(m_.size());
  for (size_t m = 0; m < m_.size(); ++m) {
    all.learned[m] = m_[m].value, all.frozen[m] = m_[m].frozen_value;
    all.idx[m] = m_[m].idx.p(), all.frozen_idx[m] = m_[m].frozen_idx.p();
  }
  return all;
}

// --- forward ---------------------------------------------------------------------------------------------------------
//   Y_m = X_m W_m + b_m,  y = Y / |Y|;  the k nearest rows of each;  K_m their y . y;  w = softmax(theta)

void LatentGraph::build() {
  if (constant_) return;
  modal_->project_all();
  const RowList every{nullptr, nullptr, I_};
  for (size_t m = 0; m < m_.size(); ++m) {
    Lists& l = m_[m];
    const CMat mapped = modal_->h_all(int(m));
    dev_.ops.normalize_rows(dev_.ctx, l.y, l.inv_norm.p(), mapped, every);
    const Range range(dev_, RangeId::knn);
    if (!given_) dev_.ops.knn_cosine(dev_.ctx, l.idx.p(), tied_.p(), mapped, k_, false, seed_);
    dev_.ops.list_dots(dev_.ctx, l.value, l.y, l.y, l.idx.p(), k_);
  }
  dev_.ops.softmax_weights(dev_.ctx, w_.p(), arena_->value(theta_).p, int(m_.size()));
  built_ = true;
}

void LatentGraph::assemble() {
  slot_ ^= 1;
  dev_.ops.latent_graph(dev_.ctx, val_, col_.p(), scale_.p(), empty_.p() + slot_, lists(), w_.p(), lambda_);
  Csr s = this->s();
  s.nnz = col_.n();
  dev_.ops.transpose(dev_.ctx, s_t_.mutable_view(), s);
  for (Lists& l : m_) {
    Groups targets = l.by_target.groups();
    dev_.ops.group(dev_.ctx, targets, l.idx.p(), I_ * k_, I_);
  }
}

// --- backward --------------------------------------------------------------------------------------------------------

void LatentGraph::add_dots(CMat d, CMat z) {
  const RowList every{nullptr, nullptr, I_};
  const auto add = [&](const Matrix& to, const Array<int32_t>& idx) {
    dev_.ops.list_dots(dev_.ctx, has_gamma_ ? layer_gamma_ : to, d, z, idx.p(), k_);
    if (has_gamma_) dev_.ops.add_rows(dev_.ctx, to, layer_gamma_, every, 0);
  };
  for (Lists& l : m_) add(l.gamma, l.idx), add(l.frozen_gamma, l.frozen_idx);
  has_gamma_ = true;
}

// Top-k passes gradient to the kept entries; the choice is a constant.
void LatentGraph::backward() {
  has_gamma_ = false;
  LatentGradients g;
  for (size_t m = 0; m < m_.size(); ++m) {
    g.gamma[m] = m_[m].gamma, g.frozen_gamma[m] = m_[m].frozen_gamma;
    g.by_target[m] = m_[m].by_target.groups(), g.g_k[m] = m_[m].g_value;
  }
  const int M = int(m_.size());
  dev_.ops.latent_graph_backward(dev_.ctx, g_w_.p(), g, lists(), w_.p(), scale_.p(), lambda_);
  dev_.ops.softmax_weights_backward(dev_.ctx, arena_->grad(theta_).p, w_.p(), g_w_.p(), M);
  for (int m = 0; m < M; ++m) map_gradient(modal_->write_gradient_of_all(m), size_t(m));
}

void LatentGraph::map_gradient(Mat g, size_t m) {
  const Lists& l = m_[m];
  dev_.ops.fill_zero(dev_.ctx, d_y_);
  dev_.ops.list_spread(dev_.ctx, d_y_, l.g_value, l.y, l.idx.p(), l.by_target.groups());
  dev_.ops.normalize_rows_backward(dev_.ctx, g, d_y_, l.y, l.inv_norm.p(), RowList{nullptr, nullptr, I_}, false);
}

// --- files, and looking into a step ----------------------------------------------------------------------------------

void LatentGraph::kept(std::vector<Kept>& all) {
  for (size_t m = 0; m < m_.size(); ++m) {
    const std::string at = "graph.learned." + names_[m];
    Lists& l = m_[m];
    all.push_back({at + ".index", "I32", {I_, k_}, l.idx.p(), size_t(I_ * k_) * 4, &built_, 0, 0, int32_t(I_)});
    all.push_back({at + ".value", "F32", {I_, k_}, l.value.array().p(), size_t(I_ * k_) * 4, &built_, 0});
  }
  all.push_back({"graph.modal_weight", "F32", {w_.n()}, w_.p(), size_t(w_.n()) * 4, &built_, 0});
}

void LatentGraph::counts(std::vector<Piece>& all) { all.push_back({counted_, empty_.p(), sizeof counted_}); }

void LatentGraph::figures(std::map<std::string, double>& all) const {
  const int64_t n = counted_[of_epoch_];
  if (n > 0) all["graph_rows_without_scale"] = double(n);
}

void LatentGraph::give(const Given& given) {
  given_ = true, constant_ = given.has("graph.modal_weight");
  for (size_t m = 0; m < m_.size(); ++m) {
    const std::string at = "graph.learned." + names_[m];
    Lists& l = m_[m];
    l.idx.upload(given.indices(at + ".index", {I_, k_}, I_).data(), I_ * k_);
    if (given.has(at + ".value") != constant_)
      given.fail("'" + at +
                 ".value' and 'graph.modal_weight' go together: a later batch of an epoch has both, its "
                 "first batch, where they follow from the parameters, neither");
    if (constant_) l.value.array().upload(given.floats(at + ".value", {I_, k_}).data(), I_ * k_);
  }
  if (constant_) w_.upload(given.floats("graph.modal_weight", {w_.n()}).data(), w_.n());
}

void LatentGraph::graphs(Watch& w, bool values) {
  for (size_t m = 0; m < m_.size(); ++m) {
    const std::string of = names_[m];
    const Lists& l = m_[m];
    w.indices("graph.frozen." + of + ".index", {I_, k_}, l.frozen_idx.p());
    w.floats("graph.frozen." + of + ".value", {I_, k_}, l.frozen_value);
    if (!built_) continue;
    w.indices("graph.learned." + of + ".index", {I_, k_}, l.idx.p());
    if (values) w.floats("graph.learned." + of + ".value", {I_, k_}, l.value);
  }
  if (built_ && values) w.floats("graph.modal_weight", {w_.n()}, CMat{w_.p(), 1, w_.n()});
}

// The maps' gradients are computed again: the modalities have added to theirs what comes from the batch's items.
void LatentGraph::show(Watch& w, bool with_gradient) {
  w.floats("s.value", {I_, val_.cols()}, val_);
  if (!with_gradient) return;
  const Matrix g(dev_, I_, d_);
  for (size_t m = 0; m < m_.size(); ++m) {
    w.floats("projection_all." + names_[m], {I_, d_}, modal_->h_all(int(m)));
    map_gradient(g, m);
    w.floats("grad.projection_all." + names_[m], {I_, d_}, g);
  }
}

}  // namespace ccdrec
