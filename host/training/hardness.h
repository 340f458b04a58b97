// How hard the negatives of an epoch are, as numbers: training rows, drawn by address and with replacement, get
// negatives as the sampler of the epoch gives them, by the parameters that the epoch ended with and before its reverse
// process, and each negative is ranked among the items that its user lacks. Nothing of training depends on it: its
// draws have an address of their own, and held-out rows are looked at only after the choice.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <unordered_set>

#include "host/models/model.h"

namespace ccdrec {

class Hardness {
 public:
  Hardness(Device&, const Settings&, const Dataset&, const Interactions&, int lists);  // Model::chosen_lists
  static int64_t rows(const Settings&, int64_t train_rows);                            // measured an epoch

  void measure(Model&, int epoch, Clock&);  // after a flush. Waits for nothing
  // Means over the rows of the last epoch measured: rank (percentile from 0, the hardest; kernels/hard.h), similarity
  // (cosine with the positive), score, held_out (share that are held-out rows of the user), and rows. Empty: there is
  // nothing to measure.
  std::map<std::string, double> means() const;

 private:
  Device& dev_;
  const uint32_t seed_;
  const int n_neg_;
  const int64_t rows_, at_once_;
  const Interactions& train_;
  std::unordered_set<uint64_t> held_out_;  // user << 32 | item
  const int lists_;
  Array<int32_t> picked_;  // (rows) training rows
  Array<int32_t> items_;   // of some rows at once: as Batch::items
  // Read together: (rows) users; the items behind the negatives, (lists,n) of n rows after those of the rows before;
  // and as floats (rows,3) ranks.
  Array<int32_t> found_;
  Array<double> loss_;  // of a mixture: read by nobody
};

}  // namespace ccdrec
