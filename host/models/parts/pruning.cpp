#include "host/models/parts/pruning.h"

namespace ccdrec {
namespace {

std::vector<int32_t> users_of(const HostCsr& train) {
  std::vector<int32_t> user;
  for (int64_t u = 0; u < train.rows; ++u)
    user.insert(user.end(), size_t(train.row_ptr[size_t(u) + 1] - train.row_ptr[size_t(u)]), int32_t(u));
  return user;
}

}  // namespace

EpochGraph::EpochGraph(const Setup& z, double rho)
    : dev_(z.dev),
      rho_(rho),
      seed_(z.s.seed),
      U_(z.users()),
      I_(z.items()),
      kept_(::ccdrec::kept_edges(z.graphs.train.nnz(), rho)),
      user_(z.dev, users_of(z.graphs.train)),
      item_(z.dev, z.graphs.train.col),
      graph_(z.dev, U_ + I_, U_ + I_, 2 * kept_) {}

PrunedGraph::PrunedGraph(const Setup& z, double rho)
    : EpochGraph(z, rho), weight_(z.dev, edge_weights(z.graphs.train)) {}

void PrunedGraph::begin_epoch(int epoch) {
  dev_.ops.prune(dev_.ctx, graph_.mutable_view(), edges(weight_.p()), rho_, draws(epoch));
}

}  // namespace ccdrec
