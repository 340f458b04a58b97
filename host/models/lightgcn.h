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
  Mat g() override { return propagation_.g(); }
  void back_propagate() override;
  void finish_backward(const Slots&, Modalities*, double* loss) override;
  void represent_all() override { propagation_.all(tables_.ego()); }
  void graphs(Watch&) override;
  void show(Watch&) override;

 private:
  float reg_;  // weight of the norms
  Propagation propagation_;
};

}  // namespace ccdrec
