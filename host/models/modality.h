// The modality side: raw features X_m (trainable or not), linear maps W_m, b_m, and the projections h_m = X_m[i] W_m + b_m of the items a batch needs
// (spec ccdrec 1, 3.3; baselines 9.4).
#pragma once
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/models/arena.h"

namespace ccdrec {

class Modalities {
 public:
  // capacity: most distinct items of a batch.
  Modalities(Device&, const std::vector<Feature>&, ParamArena&, int64_t d, int64_t capacity, bool train_features, uint32_t seed);
  void init(ParamArena&);  // after the arena has taken its memory

  int count() const { return int(x_.size()); }
  void project(ParamArena&, RowList items, int64_t t_done);   // h(m) row j = item items[j], its feature row brought up to date
  Mat h(int m) const { return h_[size_t(m)]; }                // (capacity,d)
  Mat d_h(int m) const { return d_h_[size_t(m)]; }            // (capacity,d) to be filled before backward
  void backward_step(ParamArena&, RowList items, int64_t t);  // W, b gradients; the listed feature rows take step t at once
  void backward(ParamArena&, RowList items);                  // the same, but the rows' gradient is kept: d_x, for update
  CMat d_x(int m) const { return d_x_[size_t(m)]; }           // (capacity,F) gradient of the listed feature rows, after backward
  void update(RowList items, int64_t t);                      // the step that backward left open
  void flush(int64_t t_done);
  void project_all(ParamArena&);  // h_all(m) (I,d)
  CMat h_all(int m) const { return h_all_[size_t(m)]; }

  RowTable& features(int m) { return x_[size_t(m)]; }
  const std::string& name(int m) const { return names_[size_t(m)]; }
  void set_adam(const AdamSchedule& s) { adam_ = s; }

 private:
  Device& dev_;
  std::vector<std::string> names_;
  std::vector<RowTable> x_;      // (I,F)
  std::vector<int> w_, b_;       // arena indices
  std::vector<Matrix> h_, d_h_;  // (cap,d)
  std::vector<Matrix> d_x_;      // (cap,F), taken at the first backward that keeps it: training never does
  std::vector<Matrix> h_all_;    // (I,d), taken at the first project_all
  int64_t items_, d_;
  uint32_t seed_;
  AdamSchedule adam_;
};

}  // namespace ccdrec
