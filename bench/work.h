// The work of an epoch: operations and memory traffic of each phase, from formulas, whatever the program does; and how
// long it takes by what the machine was measured to do.
//
//   in turn = flop / (fma rate) + bytes / (bandwidth) + roots / (rate of a square root and a division): one resource
//   after another, nothing overlaps
//   largest = the largest of the three: everything overlaps
//
// `in turn` is a model and no bound: a core computes while it waits for memory, and parts of an epoch do take less. It
// is what loops take that wait for one resource each.
//
// Counted: each array read or written once a step (caches perfect within a step and empty between steps, so that tables
// that stay in a cache can beat even the largest); propagation covers only rows that reach the batch; sizes that depend
// on the data (distinct items of a batch, edges reached) are means over a few random batches of the data set itself.
// `roots` are Adam's: dense Adam, bit for bit, takes a square root and a division for every element at every step, and
// they cost about forty times a fused multiply-add; a closed form of the steps that a row has missed could do with one
// a visit, with other bits. Formulas: work.cpp, one line each.
#pragma once
#include <map>
#include <string>

#include "bench/ceilings.h"
#include "data/dataset.h"
#include "host/base/settings.h"

namespace ccdrec::bench {

struct Work {
  double flop = 0, bytes = 0, roots = 0;
  Work& operator+=(const Work& w) {
    flop += w.flop, bytes += w.bytes, roots += w.roots;
    return *this;
  }
};
// Per epoch, by the phase names of EpochReport::seconds (prune, sample, forward, backward, optimiser, reverse,
// evaluation).
std::map<std::string, Work> epoch_work(const Settings&, const Dataset&);

struct WorkSeconds {
  double flop = 0, bytes = 0, roots = 0;
  double in_turn() const { return flop + bytes + roots; }
  double largest() const;
};
WorkSeconds seconds_of(const Work&, const Ceilings&);

}  // namespace ccdrec::bench
