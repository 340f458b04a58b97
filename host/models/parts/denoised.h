// DGD, diffusion-guided graph denoising (spec mcdrec 5): an epoch's training graph whose edges are weighed, when the
// epoch begins, by how near the user is to what the last reverse process made of the item. The weights decide through
// the degrees of an edge's ends; with `direct` an edge's own counts as well.
#pragma once
#include "host/models/parts/pruning.h"

namespace ccdrec {

class DenoisedGraph : public EpochGraph {
 public:
  DenoisedGraph(const Setup&, double rho, float tau, bool direct);
  std::string about() const override;
  void rebuild(CMat p, CMat guide) override;
  void assemble(int epoch) override;
  void kept(std::vector<Kept>&) override;
  void show(Watch&) const override;

 private:
  const float tau_;
  const bool direct_;
  Array<float> a_;  // (E) a_e = 1 + tau cos(P[u_e], guide[i_e]), of the epoch
  bool weighed_ = false;
};

}  // namespace ccdrec
