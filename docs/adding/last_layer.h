// H = A^L [P; Q]: LightGCN's propagation without the mean, the last layer alone.
#pragma once
#include "host/models/backbone.h"
#include "host/models/outline.h"

namespace ccdrec {

class LastLayer : public Backbone {
 public:
  static void outline(Outline&, const Settings&);
  LastLayer(const Setup&, Start);

  void touch(RowList nodes) override;
  void forward(bool) override { propagation_.forward(tables_.ego(), true); }
  CMat h() const override { return propagation_.layer(propagation_.layers()); }
  Representations representations() const override;
  void ask_layer_gradients() override;
  Mat g() override { return propagation_.g(propagation_.layers()); }
  Mat g(int layer) override { return propagation_.g(layer); }
  void finish_backward(const Slots&, Modalities*, double*) override {}
  void represent_all() override { propagation_.all(tables_.ego()); }

 private:
  void propagate_back() override { propagation_.backward(tables_.g_ego(), true); }

  Propagation propagation_;
};

}  // namespace ccdrec
