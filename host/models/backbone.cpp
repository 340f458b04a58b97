#include "host/models/backbone.h"

namespace ccdrec {

Backbone::Backbone(const Setup& z, Start start, Tables::Init init)
    : dev_(z.dev), U_(z.users()), I_(z.items()), tables_(z, start, init) {}

void Backbone::catch_up(const Step& step) {
  pass_ = step.now.pass;
  tables_.catch_up(q_rows_, step);
}

void Backbone::flush(const AdamSchedule& adam, int64_t t) {
  tables_.flush(adam, t);
  flushed_at_ = t;
}

void Backbone::update(const Step& step) { tables_.update(q_rows_, step); }

void Backbone::back_propagate(bool by_layer) {
  by_layer_ = by_layer;
  propagate_back();
}

Mat Backbone::start_items(CMat hhat) { return tables_.copy_to_start(mixed_with(hhat), tables_.items()); }

Mat Backbone::start_all() { return tables_.copy_to_start(mixed_with(items_all()), RowList{nullptr, nullptr, I_}); }

// finish_backward has changed G_Ego_0: it is computed again, and what it became is put back for the update.
void Backbone::show_layers(Watch& w, Propagation& propagation) {
  if (propagation.layers() == 0) return;
  propagation.show(w, tables_.ego(), tables_.has_room());
  const PutBack kept_ego(dev_, tables_.g_ego()), kept_q(dev_, tables_.g_q());
  propagate_back();
  w.floats("grad.ego.0", {U_ + I_, tables_.g_ego().cols}, tables_.g_ego());
}

}  // namespace ccdrec
