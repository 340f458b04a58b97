// A run's record, for another program to repeat the run with its own mathematics (docs/run-format.md): `ccdrec train
// --record FILE`. It holds what chance decided and what came of it. Recording reads, downloads and changes nothing: a
// recorded run takes the steps of an unrecorded one.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "host/training/tensors.h"
#include "host/training/trainer.h"

namespace ccdrec {

class Recorder {
 public:
  // what the record can grow to; it stays in memory until the run ends
  static size_t most_bytes(const Settings&, const Dataset&);
  static void check(const Settings&, const Dataset&);  // UserError when that is absurd

  Recorder(Trainer&, const Settings&, const Dataset&);  // before the first step
  void step(int epoch, int64_t step);                   // after each
  void epoch(const EpochReport&);                       // after each, its evaluation included
  void write(const std::string& path);                  // after the last

 private:
  void add_parameters(const std::string& prefix, bool with_features);
  void add_reverse_noise(const std::string& at, int epoch);
  void add_lists(const std::string& at);
  void add_lists_of_graph(int epoch);
  void add_candidates_of_epoch(int epoch);

  struct Masks {  // rows of words, step by step
    Extents shape;
    std::vector<int32_t> words;
  };
  struct Draws {  // of passes over the batches of the running epoch, one after the other
    std::vector<int32_t> curricular, ranks, candidates, t;
    std::vector<float> noise;
    std::vector<std::vector<int32_t>> hard;  // a list each
    std::vector<std::vector<float>> alpha;   // likewise
    std::map<std::string, Masks> masks;      // mask.X
    int64_t rows = 0, passes = 0;
  };
  struct Steps {
    std::vector<int32_t> users, positives, items;
    std::vector<std::vector<int32_t>> negatives;  // n_neg of them
    std::vector<int32_t> first_item{0};           // steps+1: where a step's items begin
    std::vector<double> losses;
    Draws draws, second;  // of the first passes; of Mirror Gradient's second ones
  };
  void take_draws(Draws&);
  void add_draws(const std::string& at, Draws&);
  Trainer& trainer_;
  const Settings& s_;
  const Dataset& data_;
  std::vector<int32_t> ranked_users_;  // those with a held-out item, ascending
  Steps now_;
  Losses before_;
  std::vector<std::string> epochs_;  // JSON objects
  bool evaluated_ = false;           // the last epoch was
  Writer out_;
};

}  // namespace ccdrec
