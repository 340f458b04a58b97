// The training graph of an epoch: a share of the edges left out, popular ones more often, and the rest normalised by
// the degrees that remain (spec baselines 9.3). Evaluation uses the whole graph.
#pragma once
#include "host/models/model.h"

namespace ccdrec {

class PrunedGraph {
 public:
  PrunedGraph(const Setup&, double rho);
  void begin_epoch(int epoch);  // a function of (seed, epoch)
  Csr view() const { return graph_.view(); }
  int64_t kept_edges() const { return kept_; }

 private:
  Device& dev_;
  double rho_;
  uint32_t seed_;
  int64_t U_, I_, edges_, kept_;
  OwnedCsr graph_;                        // (N,N) A', symmetric
  Array<int32_t> edge_user_, edge_item_;  // (E)
  Array<float> edge_weight_;              // (E) w_e = 1 / sqrt(deg_u deg_i)
};

}  // namespace ccdrec
