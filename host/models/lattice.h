// LATTICE (spec baselines 8): users and items propagated over the row-normalised graph with self loops; to the items is
// added, with length 1, what their neighbours in content make of their table, over a graph whose weights are learned:
// once an epoch, in its first batch, the loss reaches through S to the modalities' maps and weights.
#pragma once
#include "host/models/backbone.h"
#include "host/models/outline.h"
#include "host/models/parts/item_graph.h"
#include "host/models/parts/latent_graph.h"
#include "host/models/parts/read_rows.h"

namespace ccdrec {

class Lattice : public Backbone {
 public:
  static void outline(Outline&, const Settings&);
  Lattice(const Setup&, Start);

  void join(ParamArena& arena, Modalities* modal) override { latent_.join(arena, *modal); }
  void init() override { latent_.init(); }
  void rebuild(int epoch, CMat guide) override;
  void assemble(int epoch) override;
  int prepare(int epoch, int64_t step) override;
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
  CMat items_all() override;
  void represent_all() override;

  void kept(std::vector<Kept>& all) override { latent_.kept(all); }
  void restored() override { built_at_ = -1; }
  void counts(std::vector<Piece>& all) override { latent_.counts(all); }
  void figures(std::map<std::string, double>& all) const override { latent_.figures(all); }
  void give(const Given&) override;
  void graphs(Watch&) override;
  void show(Watch&) override;

 private:
  Lattice(const Setup&, Start, LatentGraph);
  void propagate_back() override;
  // the loss reaches through S to the parameters it was made of: in the first pass over an epoch's first batch
  bool learns_graph() const { return first_ && pass_ == 0 && !latent_.constant(); }
  void refresh();

  const float reg_;      // weight of the squared representations
  const int64_t batch_;  // B0, by which it is divided: the configured rows of a batch, also where there are fewer
  LatentGraph latent_;
  ItemGraph item_graph_;
  Propagation propagation_;
  ReadRows read_;
  Matrix z_hat_, d_z_;     // (I,d) rows of Z at length 1; gradient of Z
  Array<float> inv_norm_;  // (I) of Z
  Matrix g_items_;         // (I,d) sum of the gradients of H and of the layers, where they have some
  bool first_ = false;     // the step is its epoch's first
  bool rebuilt_ = false;   // for the epoch that begins
  int64_t built_at_ = -1;  // S is that of the parameters after so many steps; -1: unknown
};

}  // namespace ccdrec
