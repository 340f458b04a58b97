// MCDRec's backbone (spec mcdrec 4.1, 5): FREEDOM's chain over a training graph that the last reverse process has
// denoised. MCDRec puts its estimator over all items on it (ccdrec/dma.h); CCDRec on it is CCDRec on FREEDOM with that
// graph (11).
#pragma once
#include "host/models/freedom.h"

namespace ccdrec {

class McdRec : public Freedom {
 public:
  static void outline(Outline&, const Settings&);
  McdRec(const Setup&, Start);
};

}  // namespace ccdrec
