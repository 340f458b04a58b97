// The least an epoch can cost: arithmetic and memory traffic of each phase, from formulas, whatever the program does.
//
//   floor seconds = flop / (measured fma rate) + bytes / (measured bandwidth) + roots / (measured rate of one square root and one division)
//
// Counted: what the mathematics cannot do without. Each array is read or written once a step (caches are taken to be perfect within a step and empty
// between steps); propagation covers only rows that reach the batch; sizes that depend on the data (distinct items of a batch, edges reached) are
// means over a few random batches of the data set itself. `roots` are Adam's: exact Adam takes a square root and a division for every element at
// every step, and they cost about forty times a fused multiply-add. Formulas: floors.cpp, one line each.
#pragma once
#include <map>
#include <string>

#include "data/dataset.h"
#include "host/settings.h"

namespace ccdrec::bench {

struct Work {
  double flop = 0, bytes = 0, roots = 0;
  Work& operator+=(const Work& w) {
    flop += w.flop, bytes += w.bytes, roots += w.roots;
    return *this;
  }
};
// Per epoch, by the phase names of EpochReport::seconds (prune, sample, forward, backward, optimiser, reverse, evaluation).
std::map<std::string, Work> epoch_work(const Settings&, const Dataset&);

}  // namespace ccdrec::bench
