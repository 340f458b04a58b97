#include "docs/adding/last_layer.h"

#include "data/error.h"

namespace ccdrec {

void LastLayer::outline(Outline& o, const Settings& s) {
  o.layers = s.n_ui_layers;
  o.propagates = true;
}

LastLayer::LastLayer(const Setup& z, Start start)
    : Backbone(z, start, Tables::Init::xavier_uniform), propagation_(z, z.s.n_ui_layers) {
  if (start != Start::q || z.s.n_ui_layers < 1)
    throw UserError("model LastLayer starts from the item table and has at least one layer");
  propagation_.ask_layer_gradients();  // H is one layer: its gradient is that layer's, and that of the mean stays zero
}

void LastLayer::touch(RowList nodes) {
  propagation_.touch(propagation_.whole(), propagation_.whole(), nodes);  // A is symmetric
  tables_.touch(propagation_.starts());
  q_rows_ = tables_.items();
}

Representations LastLayer::representations() const {
  Representations r;
  r.h_u = h().slice(0, U_), r.h_i = h().slice(U_, I_);
  return r;
}

void LastLayer::ask_layer_gradients() {
  throw UserError("sampler mixgcf mixes layers whose mean is H, and LastLayer has none");
}

}  // namespace ccdrec
