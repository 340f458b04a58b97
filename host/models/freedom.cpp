#include "host/models/freedom.h"

namespace ccdrec {

void Freedom::outline(Outline& o, const Settings& s) {
  o.layers = s.n_ui_layers, o.item_layers = s.n_mm_layers, o.prune = s.dropout;
  o.propagates = o.reads_features = true;
  o.modality_terms = o.projects = o.maps_items = s.reg_weight > 0;
}

// S before all else: building it takes memory for a while.
Freedom::Freedom(const Setup& z, Start start) : Freedom(z, start, z.graphs.items()) {
  if (z.s.dropout > 0) train_on(z, std::make_unique<PrunedGraph>(z, z.s.dropout));
}

Freedom::Freedom(const Setup& z, Start start, const HostCsr& s)
    : Backbone(z, start, Tables::Init::xavier_uniform),
      reg_(z.s.reg_weight),
      item_graph_(z, s, z.s.n_mm_layers),
      propagation_(z, z.s.n_ui_layers),
      read_(z) {
  if (!maps_items()) return;
  x_ = Matrix(z.dev, z.item_slots(), z.width());
  for (size_t m = 0; m < z.data.features.size(); ++m) d_x_.emplace_back(z.dev, z.item_slots(), z.width());
}

void Freedom::train_on(const Setup& z, std::unique_ptr<EpochGraph> graph) {
  of_epoch_ = std::move(graph);
  z.notes.push_back("training graph: " + std::to_string(of_epoch_->kept_edges()) + " of " +
                    std::to_string(z.graphs.train.nnz()) + " edges kept per epoch" + of_epoch_->about());
}

void Freedom::begin_epoch(int epoch) {
  if (of_epoch_) of_epoch_->begin_epoch(epoch);
}

void Freedom::rebuild(int, CMat guide) {
  if (of_epoch_) of_epoch_->rebuild(CMat(tables_.ego()).slice(0, U_), guide ? guide : q());
}

void Freedom::assemble(int epoch) {
  if (of_epoch_) of_epoch_->assemble(epoch);
}

void Freedom::kept(std::vector<Kept>& all) {
  if (of_epoch_) of_epoch_->kept(all);
}

// --- forward ---------------------------------------------------------------------------------------------------------
//   Hhat = S^L Q
//   H    = mean_l A'^l [P; start]                    start = Q; under CCDRec the room that holds Hhat, fused
//   h_u  = H[u],   h_i = H[U + i] + Hhat[i]

void Freedom::touch(RowList nodes) {
  propagation_.touch(graph(), graph(), nodes);  // A' is symmetric
  tables_.touch(propagation_.starts());
  q_rows_ = read_.touch(nodes, tables_, item_graph_);
}

void Freedom::forward(bool keep_layers) {
  propagation_.forward(tables_.ego(), keep_layers);
  dev_.ops.add_rows(dev_.ctx, propagation_.h(), item_graph_.hhat(), read_.items(), U_);
}

Representations Freedom::representations() const {
  Representations r = propagation_.representations(tables_.ego(), U_);
  r.item_part = item_graph_.hhat();
  return r;
}

// --- backward --------------------------------------------------------------------------------------------------------

// The modality terms (spec baselines 9.4): BPR of h_u with the mapped features in place of h_p and h_r, random
// negatives only, their mean.
void Freedom::terms(const Slots& slots, Modalities* modal, double* loss) {
  if (!maps_items()) return;
  const int64_t B = slots.rows();
  const int n_neg = slots.n_neg();
  const float w = float(reg_) / float(n_neg);
  const auto block = [B](Mat m, int k) { return m.slice(k * B, B); };  // 0 positives, 1 .. negatives
  const Mat x = x_.top(slots.item_slots());
  for (int m = 0; m < modal->count(); ++m) {
    const Mat d_x = d_x_[size_t(m)].top(x.rows);
    dev_.ops.expand_rows(dev_.ctx, x, modal->h(m), slots.by_item());
    for (int k = 0; k < n_neg; ++k)
      dev_.ops.bpr(dev_.ctx, loss, {slots.d(0), block(d_x, 0), block(d_x, 1 + k), true, k > 0}, slots.h(0), block(x, 0),
                   block(x, 1 + k), w, false);
  }
}

void Freedom::ask_layer_gradients() {
  propagation_.ask_layer_gradients();
  g_items_ = Matrix(dev_, I_, tables_.q().cols);
}

void Freedom::propagate_back() {
  if (by_layer_) propagation_.sum_gradients(g_items_, read_.items());
  dev_.ops.zero_rows(dev_.ctx, g_q(), q_rows_);  // more rows than the propagation writes, or it writes none
  if (tables_.copies_q()) dev_.ops.fill_zero(dev_.ctx, g_start());  // likewise: a fusion reads all of it
  propagation_.backward(tables_.g_ego(), by_layer_);
}

// What is left of G_Q: (S^T)^L G_Hhat with G_Hhat = G_{h_i}, to which a start that was copied from Hhat adds what is
// left of its gradient; what is left of a copy of Q is Q's at once.
void Freedom::finish_backward(const Slots& slots, Modalities* modal, double*) {
  CMat g_hhat = g_items();
  if (tables_.copies_q()) {
    dev_.ops.add_rows(dev_.ctx, g_q(), g_start(), q_rows_, 0);
  } else if (tables_.has_room()) {
    dev_.ops.add_rows(dev_.ctx, g_start(), g_hhat, read_.items(), 0);
    g_hhat = g_start();
  }
  item_graph_.backward(g_q(), g_hhat);
  if (!maps_items()) return;
  for (int m = 0; m < modal->count(); ++m)
    modal->add_gradient(m, d_x_[size_t(m)].top(slots.item_slots()), slots.by_item());
}

// --- evaluation, and looking into a step -----------------------------------------------------------------------------

void Freedom::represent_all() {
  propagation_.all(tables_.ego());
  dev_.ops.add_rows(dev_.ctx, propagation_.h(), item_graph_.hhat(), RowList{nullptr, nullptr, I_}, U_);
}

void Freedom::graphs(Watch& w) {
  if (propagation_.layers() > 0) w.graph("graph.user_item", graph(), of_epoch_ != nullptr);
  if (of_epoch_) of_epoch_->show(w);
  item_graph_.graphs(w);
}

void Freedom::show(Watch& w) {
  tables_.show(w);
  const int64_t d = tables_.q().cols;
  w.floats("hhat", {I_, d}, item_graph_.hhat());
  w.floats("grad.hhat", {I_, d}, tables_.has_room() && !tables_.copies_q() ? CMat(g_start()) : g_items());
  show_layers(w, propagation_);
}

}  // namespace ccdrec
