// RealHNS, its general part (spec negative_sampling 7.4). At an epoch's start every user's candidates are taken from a
// band of the ranking that evaluation would give; in a step those that are too close to the positive are passed over,
// and one of the best scored of the others is the hard negative. Both harden with the epochs: how close is too close,
// and how many rows have a hard negative at all. The other rows have a second uniform one.
#pragma once
#include "host/samplers/hard_sampler.h"

namespace ccdrec {

// Ranks first .. end-1 of every user's ranking, and how many of them are candidates.
struct Band {
  Band(const Settings&, int64_t users, int64_t items);
  int64_t first, end, candidates;
  int64_t at_once;  // users whose lists, of `end` items, are made together
  int64_t width() const { return end - first; }
};

class RealHns : public ChoosingSampler {
 public:
  static void outline(Outline& o) { o.chooses = o.bands = true; }
  // Of epochs from 0 on, the specification's e - 1; start is its e0.
  static float active_share(int epoch, int start);  // q: rows that have a hard negative
  static float theta_share(int epoch, int start);   // theta / theta_bar

  RealHns(const Setup&, const Outline&);
  const char* source(int epoch) const override { return chooses(epoch) ? "realhns" : "random"; }
  Plan prepare(int epoch, int64_t step) override;
  void early(const Batch&, const Step&) override;
  void late(const Batch&, const Step&, const Representations&) override;

  bool rebuilds(int epoch) const override { return chooses(epoch); }
  void rebuild(int epoch, CMat h_u, CMat h_i) override;
  void begin_epoch(int epoch) override;
  void kept(std::vector<Kept>&) override;
  // fell_back: share of the epoch's active rows, in all passes, that found no candidate and kept the uniform negative.
  void counts(std::vector<Piece>&) override;
  void figures(std::map<std::string, double>&) const override;

 private:
  bool chooses(int epoch) const { return gives() && active_share(epoch, start_) > 0; }

  const int64_t U_;
  const Band band_;
  const int clusters_, start_;
  const int64_t top_;        // T, of the best that are not too close
  Array<int32_t> table_;     // (U,N) candidates, -1 where a user's ranking ends before the band
  Array<float> theta_;       // of the epoch
  Array<float> q_;           // of the epoch
  int64_t counted_[2] = {};  // counts_ when they were read last
  Array<int64_t> counts_;    // active rows of the epoch so far, those of them that fell back
  // Where items without a training row exist, which are no candidates: rows of H of the others, and the training rows
  // by positions among those; else empty.
  Matrix occurring_rows_;
  OwnedCsr train_of_occurring_;
  Array<int32_t> lists_;    // (at_once,end) rankings
  Array<float> scores_;     // and their scores
  Array<int32_t> users_;    // 0 .. at_once-1
  Array<int32_t> order_;    // (width) of the band's ranks
  Array<int32_t> columns_;  // (N) the first of them, counted from the top
  bool filled_ = false;     // there is a table
  float active_ = -1;       // what q_ holds; -1: not yet set
};

}  // namespace ccdrec
