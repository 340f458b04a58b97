#include "host/models/lightgcn.h"

namespace ccdrec {

void LightGcn::outline(Outline& o, const Settings& s) { o.layers = s.n_ui_layers, o.propagates = true; }

// On LightGCN, CCDRec's objective (spec ccdrec 6) replaces the model's own: no eps in the ranking loss, no regulariser.
LightGcn::LightGcn(const Setup& z, Start start)
    : Backbone(z, start, Tables::Init::xavier_uniform),
      reg_(start == Start::q ? float(z.s.reg_weight) : 0.0f),
      propagation_(z, z.s.n_ui_layers) {}

// H = mean_l A^l [P; start]        start = Q; under CCDRec the room that holds Q, fused
void LightGcn::touch(RowList nodes) {
  propagation_.touch(propagation_.whole(), propagation_.whole(), nodes);  // A is symmetric
  tables_.touch(propagation_.starts());
  q_rows_ = tables_.items();
}

void LightGcn::propagate_back() {
  if (tables_.has_room()) dev_.ops.zero_rows(dev_.ctx, g_q(), q_rows_);
  propagation_.backward(tables_.g_ego(), by_layer_);
}

void LightGcn::finish_backward(const Slots& slots, Modalities*, double* loss) {
  if (tables_.has_room()) dev_.ops.add_rows(dev_.ctx, g_q(), g_start(), q_rows_, 0);
  // On the initial rows (spec baselines 4): after the propagation's way back, which writes the same rows.
  if (reg_ > 0) slots.add_norms(loss, tables_.g_ego(), tables_.ego(), reg_);
}

void LightGcn::graphs(Watch& w) {
  if (propagation_.layers() > 0) w.graph("graph.user_item", propagation_.whole(), false);
}

void LightGcn::show(Watch& w) {
  tables_.show(w);
  show_layers(w, propagation_);
}

}  // namespace ccdrec
