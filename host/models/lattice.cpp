#include "host/models/lattice.h"

namespace ccdrec {

void Lattice::outline(Outline& o, const Settings& s) {
  o.layers = s.n_ui_layers, o.item_layers = s.n_mm_layers;
  o.propagates = o.reads_features = o.projects = o.learned_graph = true;
}

// The item graph before all else: its frozen part takes memory for a while.
Lattice::Lattice(const Setup& z, Start start) : Lattice(z, start, LatentGraph(z)) {}

Lattice::Lattice(const Setup& z, Start start, LatentGraph latent)
    : Backbone(z, start, Tables::Init::xavier_uniform),
      reg_(float(z.s.reg_weight)),
      batch_(z.s.train_batch_size),
      latent_(std::move(latent)),
      item_graph_(z, latent_.s(), latent_.s_t(), z.s.n_mm_layers),
      propagation_(z, z.s.n_ui_layers, Propagation::Graph::mean),
      read_(z),
      z_hat_(z.dev, I_, z.width()),
      inv_norm_(z.dev, I_) {
  if (!tables_.has_room()) d_z_ = Matrix(z.dev, I_, z.width());
}

// --- the graph of an epoch -------------------------------------------------------------------------------------------
// The parameters after an epoch's last step are those before the next one's first: one S serves the evaluation of the
// one, and the steps of the other.

void Lattice::refresh() {
  if (built_at_ == flushed_at_) return;
  latent_.build();
  latent_.assemble();
  built_at_ = flushed_at_;
}

void Lattice::rebuild(int, CMat) {
  refresh();
  rebuilt_ = true;
}

// Where the epoch goes on from a state, lists, values and weights are the state's, of parameters that are gone.
void Lattice::assemble(int) {
  if (!rebuilt_) latent_.assemble(), built_at_ = -1;
  rebuilt_ = false;
  latent_.begin_epoch();
}

int Lattice::prepare(int, int64_t step) {
  first_ = step == 0;
  return first_ ? 1 : 0;
}

// --- forward ---------------------------------------------------------------------------------------------------------
//   Z  = S^L Q,   Z^ = rows of Z at length 1
//   H  = mean_l A_rw^l [P; start]                    start = Q; under CCDRec the room that holds Z, fused
//   h_u = H[u],   h_i = H[U + i] + Z^[i]

void Lattice::touch(RowList nodes) {
  propagation_.touch(propagation_.whole(), propagation_.whole_t(), nodes);
  tables_.touch(propagation_.starts());
  q_rows_ = read_.touch(nodes, tables_, item_graph_);
}

void Lattice::forward(bool keep_layers) {
  dev_.ops.normalize_rows(dev_.ctx, z_hat_, inv_norm_.p(), item_graph_.hhat(), read_.items());
  propagation_.forward(tables_.ego(), keep_layers);
  dev_.ops.add_rows(dev_.ctx, propagation_.h(), z_hat_, read_.items(), U_);
}

Representations Lattice::representations() const {
  Representations r = propagation_.representations(tables_.ego(), U_);
  r.item_part = z_hat_;
  return r;
}

// --- backward --------------------------------------------------------------------------------------------------------

// reg/2 of the squares of h_u, h_p and h_r over B0; of several random negatives the mean.
void Lattice::terms(const Slots& slots, Modalities*, double* loss) {
  if (reg_ == 0) return;
  const float w = reg_ / float(batch_);
  const int n_neg = slots.n_neg();
  for (int k = 0; k < 2 + n_neg; ++k)
    dev_.ops.square_reg(dev_.ctx, loss, slots.d(k), slots.h(k), k < 2 ? w : w / float(n_neg));
}

void Lattice::ask_layer_gradients() {
  propagation_.ask_layer_gradients();
  g_items_ = Matrix(dev_, I_, tables_.q().cols);
}

void Lattice::propagate_back() {
  if (by_layer_) propagation_.sum_gradients(g_items_, read_.items());
  // more rows than the propagation writes, or it writes none
  dev_.ops.zero_rows(dev_.ctx, g_q(), q_rows_);
  // all of the gradient at Z is read: no row of an earlier step may be left in it
  if (learns_graph()) dev_.ops.fill_zero(dev_.ctx, tables_.has_room() ? g_start() : d_z_.mat());
  propagation_.backward(tables_.g_ego(), by_layer_);
}

// D_L, the gradient at Z: of Z^ on the batch's items, and with room of what the propagation started from.
//   D_(l-1) = S^T D_l,   G_Q += D_0
void Lattice::finish_backward(const Slots&, Modalities*, double*) {
  const bool room = tables_.has_room();
  const Mat d_z = room ? g_start() : d_z_.mat();
  const CMat g_z_hat = by_layer_ ? g_items_.mat() : propagation_.g().slice(U_, I_);
  dev_.ops.normalize_rows_backward(dev_.ctx, d_z, g_z_hat, z_hat_, inv_norm_.p(), read_.items(), room);
  if (!learns_graph()) {
    item_graph_.backward(g_q(), d_z);
    return;
  }
  item_graph_.backward(
      g_q(), d_z, [this](CMat d, CMat z) { latent_.add_dots(d, z); }, q());
  latent_.backward();
}

// --- evaluation, and looking into a step -----------------------------------------------------------------------------

CMat Lattice::items_all() {
  refresh();
  return item_graph_.all(q());
}

void Lattice::represent_all() {
  const RowList every{nullptr, nullptr, I_};
  propagation_.all(tables_.ego());
  dev_.ops.normalize_rows(dev_.ctx, z_hat_, inv_norm_.p(), item_graph_.hhat(), every);
  dev_.ops.add_rows(dev_.ctx, propagation_.h(), z_hat_, every, U_);
}

void Lattice::give(const Given& given) {
  latent_.give(given);
  built_at_ = -1;
  refresh();
}

void Lattice::graphs(Watch& w) {
  if (propagation_.layers() > 0) w.graph("graph.user_item", propagation_.whole(), false);
  latent_.graphs(w, !(first_ && pass_ == 0));
}

void Lattice::show(Watch& w) {
  const int64_t d = tables_.q().cols;
  w.floats("hhat", {I_, d}, item_graph_.hhat());
  w.floats("grad.hhat", {I_, d}, tables_.has_room() ? CMat(g_start()) : d_z_.mat());
  latent_.show(w, learns_graph());
  tables_.show(w);
  show_layers(w, propagation_);
}

}  // namespace ccdrec
