#include "host/models/mcdrec.h"

#include "host/models/parts/denoised.h"

namespace ccdrec {
namespace {

// Off is FREEDOM's own pruning: its weights come from doubles of the host, and its bits are what they are there.
std::unique_ptr<EpochGraph> graph_of(const Setup& z) {
  if (z.s.dgd == "off") return std::make_unique<PrunedGraph>(z, z.s.dropout);
  return std::make_unique<DenoisedGraph>(z, z.s.dropout, float(z.s.dgd_tau), z.s.dgd == "direct");
}

}  // namespace

void McdRec::outline(Outline& o, const Settings& s) {
  Freedom::outline(o, s);
  o.may_denoise = true, o.denoises = s.dropout > 0 && s.dgd != "off";
}

McdRec::McdRec(const Setup& z, Start start) : Freedom(z, start, z.graphs.items()) {
  if (z.s.dropout > 0) train_on(z, graph_of(z));
}

}  // namespace ccdrec
