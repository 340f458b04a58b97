#include "host/models/parts/pruning.h"

#include <cmath>

namespace ccdrec {

PrunedGraph::PrunedGraph(const Setup& z, double rho)
    : dev_(z.dev),
      rho_(rho),
      seed_(z.s.seed),
      U_(z.users()),
      I_(z.items()),
      edges_(z.graphs.train.nnz()),
      kept_(int64_t(std::floor(double(edges_) * (1.0 - rho)))),
      graph_(z.dev, U_ + I_, U_ + I_, 2 * kept_) {
  const HostCsr& train = z.graphs.train;
  std::vector<int32_t> user;
  for (int64_t u = 0; u < U_; ++u)
    user.insert(user.end(), size_t(train.row_ptr[size_t(u) + 1] - train.row_ptr[size_t(u)]), int32_t(u));
  edge_user_ = Array<int32_t>(z.dev, user), edge_item_ = Array<int32_t>(z.dev, train.col);
  edge_weight_ = Array<float>(z.dev, edge_weights(train));
}

void PrunedGraph::begin_epoch(int epoch) {
  const EdgeList edges{edge_user_.p(), edge_item_.p(), edge_weight_.p(), edges_, U_, I_};
  dev_.ops.prune(dev_.ctx, graph_.mutable_view(), edges, rho_, Stream{seed_, Use::prune, uint32_t(epoch), 0});
}

}  // namespace ccdrec
