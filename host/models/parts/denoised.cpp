#include "host/models/parts/denoised.h"

#include <fmt/format.h>

namespace ccdrec {

DenoisedGraph::DenoisedGraph(const Setup& z, double rho, float tau, bool direct)
    : EpochGraph(z, rho), tau_(tau), direct_(direct), a_(z.dev, z.graphs.train.nnz()) {}

std::string DenoisedGraph::about() const {
  return fmt::format(", weighed by DGD{} (dgd_tau {:g})", direct_ ? " directly" : "", tau_);
}

void DenoisedGraph::rebuild(CMat p, CMat guide) {
  dev_.ops.edge_cosines(dev_.ctx, a_.p(), edges(nullptr), p, guide, tau_);
  weighed_ = true;
}

void DenoisedGraph::assemble(int epoch) {
  dev_.ops.prune_weighted(dev_.ctx, graph_.mutable_view(), edges(nullptr), a_.p(), direct_, rho_, draws(epoch));
}

// The embeddings that the weights came from are gone when a state is taken up again in mid-epoch.
void DenoisedGraph::kept(std::vector<Kept>& all) {
  all.push_back({"dgd.edge_weight", "F32", {a_.n()}, a_.p(), size_t(a_.n()) * sizeof(float), &weighed_, 0});
}

void DenoisedGraph::show(Watch& w) const {
  if (weighed_) w.floats("dgd.edge_weight", {a_.n()}, CMat(a_.p(), 1, a_.n()));
}

}  // namespace ccdrec
