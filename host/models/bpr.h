// BPR-MF (spec baselines 3): users and items are rows of two tables and nothing else.
#pragma once
#include "host/models/backbone.h"
#include "host/models/outline.h"

namespace ccdrec {

class Bpr : public Backbone {
 public:
  static void outline(Outline&, const Settings&) {}
  Bpr(const Setup&, Start);

  bool bpr_with_eps() const override { return !tables_.has_room(); }
  void touch(RowList nodes) override;
  void forward(bool) override {}
  CMat h() const override { return tables_.ego(); }
  Representations representations() const override;
  void ask_layer_gradients() override { g_layer_ = Matrix(dev_, U_ + I_, tables_.q().cols); }
  Mat g() override { return tables_.g_ego(); }
  Mat g(int) override { return g_layer_; }
  void finish_backward(const Slots&, Modalities*, double* loss) override;
  void represent_all() override {}

 private:
  void propagate_back() override;

  float reg_;       // weight of the norms
  RowList nodes_;   // of the step
  Matrix g_layer_;  // (N,d) of Ego_0, the one layer
};

}  // namespace ccdrec
