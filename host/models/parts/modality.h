// The modality side: raw features X_m (trainable or not), linear maps W_m, b_m, and the projections h_m = X_m[i] W_m +
// b_m of the items a batch needs (spec ccdrec 1, 3.3; baselines 9.4).
#pragma once
#include <string>
#include <vector>

#include "host/models/model.h"

namespace ccdrec {

class Modalities {
 public:
  Modalities(const Setup&, ParamArena&);
  void init();  // after the arena has taken its memory

  int count() const { return int(x_.size()); }
  const std::vector<std::string>& names() const { return names_; }
  void project(RowList items, const Step&);     // h(m) row j = item items[j], its feature row brought up to date
  Mat h(int m) const { return h_[size_t(m)]; }  // (capacity,d)

  // Gradient of h(m) (capacity,d), before backward: who writes it asks for it first, what comes later adds.
  Mat write_gradient(int m);
  void add_gradient(int m, CMat d_slots, const Groups& items);  // each item gets the sum over its slots

  // W, b gradients; the listed feature rows take their step at once, or, where the step keeps its gradients, with
  // `update`.
  void backward(RowList items, const Step&);
  void update(RowList items, const Step&);
  void flush(const AdamSchedule&, int64_t t);
  void project_all();  // h_all(m) (I,d)
  CMat h_all(int m) const { return h_all_[size_t(m)]; }

  void parameters(Windows&);  // the features, where they are trained
  void constants(Windows&);   // where they are not
  void show(RowList items, Watch&);

 private:
  Device& dev_;
  ParamArena& arena_;
  std::vector<std::string> names_;
  std::vector<RowTable> x_;      // (I,F)
  std::vector<int> w_, b_;       // arena indices
  std::vector<Matrix> h_, d_h_;  // (cap,d)
  std::vector<bool> has_d_h_;    // in this step
  // (cap,F) gradient of the listed feature rows, taken at the first backward that keeps it: training never does
  std::vector<Matrix> d_x_;
  std::vector<Matrix> h_all_;  // (I,d)
  int64_t I_;
  uint32_t seed_;
};

}  // namespace ccdrec
