// FREEDOM (spec baselines 9): users and items propagated over a graph that is thinned anew each epoch; to the items is
// added what their neighbours in content make of their table, over a graph that is built once and frozen; and, with a
// weight, a ranking loss of the users with the items' mapped features.
#pragma once
#include <memory>

#include "host/models/backbone.h"
#include "host/models/outline.h"
#include "host/models/parts/item_graph.h"
#include "host/models/parts/pruning.h"
#include "host/models/parts/read_rows.h"

namespace ccdrec {

class Freedom : public Backbone {
 public:
  static void outline(Outline&, const Settings&);
  Freedom(const Setup&, Start);

  bool maps_items() const override { return reg_ > 0; }
  void begin_epoch(int epoch) override;
  void rebuild(int epoch, CMat guide) override;
  void assemble(int epoch) override;
  void touch(RowList nodes) override;
  CMat items() override { return item_graph_.forward(q()); }
  void forward(bool keep_layers) override;
  CMat h() const override { return propagation_.h(); }
  Representations representations() const override;
  void terms(const Slots&, Modalities*, double* loss) override;
  void ask_layer_gradients() override;
  Mat g() override { return propagation_.g(); }
  Mat g(int layer) override { return propagation_.g(layer); }
  void finish_backward(const Slots&, Modalities*, double* loss) override;
  CMat items_all() override { return item_graph_.all(q()); }
  void represent_all() override;
  void kept(std::vector<Kept>&) override;
  void graphs(Watch&) override;
  void show(Watch&) override;

 protected:
  Freedom(const Setup&, Start, const HostCsr& s);            // every edge is kept ..
  void train_on(const Setup&, std::unique_ptr<EpochGraph>);  // .. where this is not called, at the end

 private:
  void propagate_back() override;
  // of what the item graph adds to the items
  CMat g_items() const { return by_layer_ ? g_items_.mat() : propagation_.g().slice(U_, I_); }
  Csr graph() const { return of_epoch_ ? of_epoch_->view() : propagation_.whole(); }

  double reg_;  // weight of the modality terms
  ItemGraph item_graph_;
  Propagation propagation_;
  std::unique_ptr<EpochGraph> of_epoch_;  // null: every edge is kept
  ReadRows read_;
  Matrix x_;                 // (B (1+n_neg),d) mapped features by slot: positives, random negatives
  std::vector<Matrix> d_x_;  // a modality each: their gradient
  Matrix g_items_;           // (I,d) sum of the gradients of H and of the layers
};

}  // namespace ccdrec
