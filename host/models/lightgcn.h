// LightGCN (spec baselines 4): the tables, propagated over the graph of the training rows.
#pragma once
#include "host/models/backbone.h"
#include "host/models/outline.h"

namespace ccdrec {

class LightGcn : public Backbone {
 public:
  static void outline(Outline&, const Settings&);
  LightGcn(const Setup&, Start);

  bool bpr_with_eps() const override { return !tables_.has_room(); }
  void touch(RowList nodes) override;
  void forward(bool keep_layers) override { propagation_.forward(tables_.ego(), keep_layers); }
  CMat h() const override { return propagation_.h(); }
  Representations representations() const override { return propagation_.representations(tables_.ego(), U_); }
  void ask_layer_gradients() override { propagation_.ask_layer_gradients(); }
  Mat g() override { return propagation_.g(); }
  Mat g(int layer) override { return propagation_.g(layer); }
  void finish_backward(const Slots&, Modalities*, double* loss) override;
  void represent_all() override { propagation_.all(tables_.ego()); }
  void graphs(Watch&) override;
  void show(Watch&) override;

 private:
  void propagate_back() override;

  float reg_;  // weight of the norms
  Propagation propagation_;
};

}  // namespace ccdrec
