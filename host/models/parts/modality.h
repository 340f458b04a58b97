// The modality side: raw features X_m (trainable or not), linear maps W_m, b_m, and the projections h_m = X_m[i] W_m +
// b_m of the items a batch needs (spec ccdrec 1, 3.3; baselines 9.4), or of all items at once (8.2).
#pragma once
#include <string>
#include <vector>

#include "host/models/model.h"

namespace ccdrec {

class Modalities {
 public:
  // Of W (F,d): linear_default as the bias always is, uniform in +-1/sqrt(F), or xavier_normal (spec baselines 1.2).
  enum class Init { linear_default, xavier_normal };
  Modalities(const Setup&, ParamArena&);
  void init(Init = Init::linear_default);  // after the arena has taken its memory

  int count() const { return int(x_.size()); }
  const std::vector<std::string>& names() const { return names_; }
  void project(RowList items, const Step&);     // h(m) row j = item items[j], its feature row brought up to date
  Mat h(int m) const { return h_[size_t(m)]; }  // (capacity,d)

  void project_all();             // h_all(m) (I,d), of every item, whose features are up to date
  void project_all(const Step&);  // in a step: they are brought up to date
  CMat h_all(int m) const { return h_all_[size_t(m)]; }

  // Gradient of h(m) (capacity,d), before backward: who writes it asks for it first, what comes later adds.
  Mat write_gradient(int m);
  void add_gradient(int m, CMat d_slots, const Groups& items);  // each item gets the sum over its slots
  void ask_gradient_of_all();                                   // once, before the first step: takes memory for it
  Mat write_gradient_of_all(int m);  // (I,d) of h_all(m), to be written; in this step it counts beside that of h(m)

  // W, b gradients of what has been written; the feature rows concerned, `items` or all, take their step at once, or,
  // where the step keeps its gradients, with `update`.
  void backward(RowList items, const Step&);
  void update(RowList items, const Step&);
  void flush(const AdamSchedule&, int64_t t);

  void parameters(Windows&);  // the features, where they are trained
  void constants(Windows&);   // where they are not
  void show(RowList items, Watch&);

 private:
  RowList all() const { return {nullptr, nullptr, I_}; }

  Device& dev_;
  ParamArena& arena_;
  std::vector<std::string> names_;
  std::vector<RowTable> x_;      // (I,F)
  std::vector<int> w_, b_;       // arena indices
  std::vector<Matrix> h_, d_h_;  // (cap,d)
  std::vector<bool> has_d_h_;    // in this step
  bool maps_all_ = false;        // the step maps every item
  std::vector<Matrix> d_h_all_;  // (I,d)
  Array<int32_t> places_;        // 0 .. capacity: `items` as groups of one slot each
  enum class Rows { none, listed, all };
  Rows written_ = Rows::none, stepped_ = Rows::none;  // whose gradient is there; whose the last backward was
  // (cap or I,F) gradient of feature rows, taken at the first backward that keeps it: training never does
  std::vector<Matrix> d_x_;
  std::vector<Matrix> h_all_;  // (I,d)
  int64_t I_;
  uint32_t seed_;
};

}  // namespace ccdrec
