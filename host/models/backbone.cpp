#include "host/models/backbone.h"

#include <cmath>

#include "data/error.h"

namespace ccdrec {

BackboneSpec backbone_spec(const std::string& name, const Settings& s, bool wrapped) {
  BackboneSpec b;
  b.name = name;
  b.wrapped = wrapped;
  if (name == "BPR") {
    b.normal_init = b.eps_form = b.norm_regulariser = true;
  } else if (name == "LightGCN") {
    b.layers = s.n_ui_layers;
    b.eps_form = b.norm_regulariser = true;
  } else if (name == "FREEDOM") {
    b.layers = s.n_ui_layers;
    b.item_graph = b.adds_items = true;
    b.item_layers = s.n_mm_layers;
    b.prune = s.dropout;
  } else {
    throw UserError("backbone is '" + name + "', expected BPR, LightGCN or FREEDOM");
  }
  if (wrapped) b.eps_form = b.norm_regulariser = false;  // CCDRec's objective (spec ccdrec 6) replaces the backbone's own
  return b;
}

Backbone::Backbone(Device& dev, const BackboneSpec& spec, const Graphs& graphs, int64_t d, uint32_t seed)
    : dev_(dev), spec_(spec), U_(graphs.train.rows), I_(graphs.train.cols), N_(U_ + I_), d_(d), n_edges_(graphs.train.nnz()), seed_(seed) {
  first_item_ = spec.wrapped ? N_ : U_;
  nodes_ = RowTable(dev, first_item_ + I_, d, true);
  grad_ = Matrix(dev, N_, d);
  if (!spec.bare()) h_ = Matrix(dev, N_, d);
  if (!spec.bare() && spec.layers == 0) g_ = Matrix(dev, N_, d);
  if (spec.wrapped) g_ego_ = Matrix(dev, N_, d);
  for (int l = 0; l < spec.layers; ++l) work_.emplace_back(dev, N_, d);

  // Initialisers (spec baselines 1.2): r is the number of rows of the table.
  const Mat p = user_table().value, q = q_table().value;
  for (int k = 0; k < 2; ++k) {
    const Mat t = k == 0 ? p : q;
    const Stream s{seed, Use::init, 0, uint32_t(k)};
    if (spec.normal_init)
      dev.ops.init_normal(dev.ctx, t, float(std::sqrt(2.0 / double(t.rows + d))), s);
    else
      dev.ops.init_uniform(dev.ctx, t, float(std::sqrt(6.0 / double(t.rows + d))), s);
  }

  if (spec.layers > 0) full_ = OwnedCsr(dev, graphs.user_item);
  if (spec.prune > 0) {
    n_keep_ = int64_t(std::floor(double(n_edges_) * (1.0 - spec.prune)));
    pruned_ = OwnedCsr(dev, N_, N_, 2 * n_keep_);
    std::vector<int32_t> user, item;
    for (int64_t u = 0; u < U_; ++u)
      for (int64_t e = graphs.train.row_ptr[size_t(u)]; e < graphs.train.row_ptr[size_t(u) + 1]; ++e) {
        user.push_back(int32_t(u));
        item.push_back(graphs.train.col[size_t(e)]);
      }
    edge_user_ = Array<int32_t>(dev, user), edge_item_ = Array<int32_t>(dev, item);
    edge_weight_ = Array<float>(dev, edge_weights(graphs.train));
  }
  auto list = [&](int64_t n) {
    lists_.emplace_back(dev, n);
    return lists_.back().list();
  };
  auto mask = [&](int64_t n) {
    masks_.emplace_back(dev, n);
    return masks_.back().p();
  };
  nodes_touched_.layers = spec.layers;
  for (int l = 0; l <= spec.layers; ++l) nodes_touched_.rows[l] = list(N_), nodes_touched_.mask[l] = mask(N_);
  if (spec.item_graph) {
    s_ = OwnedCsr(dev, graphs.items), s_t_ = OwnedCsr(dev, graphs.items_t);
    for (int l = 0; l < spec.item_layers; ++l) item_work_.emplace_back(dev, I_, d);
    items_touched_.layers = spec.item_layers;
    for (int l = 0; l <= spec.item_layers; ++l) items_touched_.rows[l] = list(I_), items_touched_.mask[l] = mask(I_);
  }
  users0_ = OwnedRows(dev, U_), items0_ = OwnedRows(dev, I_), seed_users_ = OwnedRows(dev, U_), seed_items_ = OwnedRows(dev, I_);
  q_rows_ = OwnedRows(dev, 2 * I_);
}

void Backbone::begin_epoch(int epoch) {
  if (spec_.prune <= 0) return;
  const EdgeList edges{edge_user_.p(), edge_item_.p(), edge_weight_.p(), n_edges_, U_, I_};
  dev_.ops.prune(dev_.ctx, pruned_.mutable_view(), edges, spec_.prune, Stream{seed_, Use::prune, uint32_t(epoch), 0});
}

void Backbone::touch(RowList seed) {
  seed_list_ = seed;
  dev_.ops.frontier(dev_.ctx, nodes_touched_, graph(), graph(), seed);
  const RowList users0 = users0_.list(), items0 = items0_.list(), seed_items = seed_items_.list();
  dev_.ops.split_rows(dev_.ctx, users0, items0, nodes_touched_.rows[0], U_);
  dev_.ops.split_rows(dev_.ctx, seed_users_.list(), seed_items, seed, U_);
  q_list_ = items0;
  if (spec_.item_graph) {
    // Rows of Hhat that are read: every row the propagation starts from when wrapped, the batch's items otherwise.
    dev_.ops.frontier(dev_.ctx, items_touched_, s_.view(), s_t_.view(), spec_.wrapped ? items0 : seed_items);
    q_list_ = items_touched_.rows[0];
    if (!spec_.wrapped) {
      q_list_ = q_rows_.list();
      dev_.ops.merge_rows(dev_.ctx, q_list_, items_touched_.rows[0], items0);
    }
  }
}

void Backbone::catch_up(int64_t t_done) {
  dev_.ops.adam_catch_up(dev_.ctx, user_table(), users0_.list(), adam_, t_done);
  dev_.ops.adam_catch_up(dev_.ctx, q_table(), q_list_, adam_, t_done);
}

CMat Backbone::items() {
  if (!spec_.item_graph) return item_table();
  CMat x = item_table();
  for (int l = 1; l <= spec_.item_layers; ++l) {
    const Mat y = item_work_[size_t(l - 1)];
    dev_.ops.spmm_rows(dev_.ctx, y, s_.view(), x, items_touched_.rows[l], nullptr, false);
    x = y;
  }
  return x;
}

Mat Backbone::start_items() {
  const CMat hhat = spec_.item_graph ? CMat(item_work_.back().mat()) : item_table();
  const Mat start = ego().slice(U_, I_);
  dev_.ops.copy_rows(dev_.ctx, start, hhat, items0_.list());
  return start;
}

void Backbone::forward(bool keep_last) {
  if (spec_.bare()) return;
  Mat work[kMaxLayers];
  for (size_t l = 0; l < work_.size(); ++l) work[l] = work_[l];
  if (!keep_last && !work_.empty()) work[work_.size() - 1] = {};
  dev_.ops.propagate(dev_.ctx, h_, work, graph(), nodes_touched_, ego());
  if (spec_.adds_items) dev_.ops.add_rows(dev_.ctx, h_, item_work_.back().mat(), seed_items_.list(), U_);
}

Mat Backbone::g(RowList filled) {
  const Mat g = h_grad();
  if (filled.idx != seed_list_.idx) dev_.ops.zero_rows(dev_.ctx, g, seed_list_);
  return g;
}

void Backbone::back_propagate() {
  if (spec_.bare()) return;
  Mat work[kMaxLayers];
  for (size_t l = 0; l < work_.size(); ++l) work[l] = work_[l];
  if (spec_.item_graph || spec_.wrapped)
    dev_.ops.zero_rows(dev_.ctx, item_grad(), q_list_);  // more rows than the propagation writes, or it writes none
  dev_.ops.propagate_backward(dev_.ctx, spec_.wrapped ? g_ego_.mat() : grad_.mat(), work, graph(), nodes_touched_, h_grad());
}

Mat Backbone::item_start_grad() { return g_ego_.mat().slice(U_, I_); }

// What is left of G_Q: (S^T)^{L_ii} G_Hhat, with G_Hhat = the gradient of the item start (wrapped) + G_{h_i} (FREEDOM).
void Backbone::finish_backward() {
  const Mat g_items = h_grad().slice(U_, I_);
  Mat g_hhat = g_items;
  if (spec_.wrapped) {
    g_hhat = item_start_grad();
    if (spec_.adds_items) dev_.ops.add_rows(dev_.ctx, g_hhat, g_items, seed_items_.list(), 0);
  }
  if (!spec_.item_graph) {
    if (spec_.wrapped) dev_.ops.add_rows(dev_.ctx, item_grad(), g_hhat, items0_.list(), 0);
    return;
  }
  CMat y = g_hhat;
  for (int l = spec_.item_layers; l >= 1; --l) {  // on rows[l-1], reading rows[l]; item_work_ is free again
    const bool last = l == 1;
    const Mat out = last ? item_grad() : item_work_[size_t(l - 2)].mat();
    dev_.ops.spmm_rows(dev_.ctx, out, s_t_.view(), y, items_touched_.rows[l - 1], items_touched_.mask[l], last);
    y = out;
  }
}

void Backbone::update(const AdamSchedule& adam, int64_t t) {
  dev_.ops.adam_rows(dev_.ctx, user_table(), users0_.list(), user_grad(), true, adam, t);
  dev_.ops.adam_rows(dev_.ctx, q_table(), q_list_, item_grad(), true, adam, t);
}

void Backbone::flush(int64_t t_done) {
  dev_.ops.adam_flush(dev_.ctx, user_table(), adam_, t_done);
  dev_.ops.adam_flush(dev_.ctx, q_table(), adam_, t_done);
}

Mat Backbone::start_items_all() {
  CMat x = item_table();
  for (size_t l = 0; l < item_work_.size(); ++l) {
    dev_.ops.spmm(dev_.ctx, item_work_[l], s_.view(), x, false);
    x = item_work_[l];
  }
  if (!spec_.wrapped) return {};
  const Mat start = ego().slice(U_, I_);
  dev_.ops.copy_rows(dev_.ctx, start, x, RowList{nullptr, nullptr, I_});
  return start;
}

void Backbone::represent_all() {
  if (spec_.bare()) return;
  Mat work[kMaxLayers];
  for (size_t l = 0; l < work_.size(); ++l) work[l] = work_[l];
  Frontier all;
  all.layers = spec_.layers;
  for (int l = 0; l <= all.layers; ++l) all.rows[l] = RowList{nullptr, nullptr, N_};
  dev_.ops.propagate(dev_.ctx, h_, work, full_.view(), all, ego());
  if (spec_.adds_items) dev_.ops.add_rows(dev_.ctx, h_, item_work_.back().mat(), RowList{nullptr, nullptr, I_}, U_);
}

}  // namespace ccdrec
