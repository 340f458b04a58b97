#include "host/samplers/dns.h"

namespace ccdrec {

void Dns::late(const Batch& b, const Step& step, const Representations& r) {
  LayerTables pooled;
  pooled.n = 1, pooled.layer[0] = r.h_i;
  choose(b.hard(), b, step, r.h_u, pooled, n_candidates_, top_m_);
}

}  // namespace ccdrec
