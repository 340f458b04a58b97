#include "host/models/bpr.h"

namespace ccdrec {

// On BPR, CCDRec's objective (spec ccdrec 6) replaces the model's own: no eps in the ranking loss, no regulariser.
Bpr::Bpr(const Setup& z, Start start)
    : Backbone(z, start, Tables::Init::xavier_normal), reg_(start == Start::q ? float(z.s.reg_weight) : 0.0f) {}

// H = Ego_0: [P; Q], or [P; room]. One array is both, and one their gradient.
void Bpr::touch(RowList nodes) {
  nodes_ = nodes;
  tables_.touch(nodes);
  q_rows_ = tables_.items();
}

Representations Bpr::representations() const {
  Representations r;
  r.h_u = h().slice(0, U_), r.h_i = h().slice(U_, I_);
  r.ego[0] = h();
  return r;
}

void Bpr::propagate_back() {
  if (by_layer_) dev_.ops.add_rows(dev_.ctx, g(), g_layer_, nodes_, 0);
  if (tables_.has_room()) dev_.ops.zero_rows(dev_.ctx, g_q(), q_rows_);
}

void Bpr::finish_backward(const Slots& slots, Modalities*, double* loss) {
  if (tables_.has_room()) dev_.ops.add_rows(dev_.ctx, g_q(), g_start(), q_rows_, 0);
  if (reg_ > 0) slots.add_norms(loss, tables_.g_ego(), tables_.ego(), reg_);  // spec baselines 3
}

}  // namespace ccdrec
