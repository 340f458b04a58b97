// BM3 (spec baselines 7): no negatives. What a predictor makes of a user, of an item and of each of its modalities is
// to point the way of others of these views of the pair, which stand there as constants with a share of their values
// masked. Users and items are propagated as LightGCN does, all of them in every step: the norms of the whole propagated
// tables are part of the loss, so every row of P and Q has a gradient, and both lie among the dense parameters.
#pragma once
#include "host/models/outline.h"
#include "host/models/parts/modality.h"
#include "host/models/parts/propagation.h"
#include "host/models/planner.h"

namespace ccdrec {

class Bm3 : public Model {
 public:
  static Outline outline(const Settings&);
  static void plan(Planner&);
  Bm3(const Setup&, std::vector<const char*> losses);

  std::span<const char* const> losses() const override { return losses_; }
  void sample(const Batch&, const Step&) override;
  void forward(const Batch&, const Step&) override;
  void backward(const Batch&, const Step&) override;
  void update(const Step&) override;
  void flush(const AdamSchedule& adam, int64_t t) override { modal_.flush(adam, t); }
  void represent(CMat& h_u, CMat& h_i) override;
  const char* negatives(int) const override { return ""; }

  void parameters(Windows&) override;
  void constants(Windows& all) override { modal_.constants(all); }
  std::vector<std::string> modalities() const override { return modal_.names(); }

  void give(const Given&, const Batch&) override;
  void draws(const Batch&, Watch&) override;
  void graphs(Watch&) override;
  void show(const Batch&, Watch&) override;

 private:
  // The views, which arrays of a step hold block by block, B rows each: users, items, then each modality.
  static constexpr int kUsers = 0, kItems = 1, kModality = 2;
  int views() const { return kModality + modal_.count(); }
  std::string view_name(int k) const;
  CMat q() const { return arena_.value(tables_ + 1); }
  RowList all_items() const { return {nullptr, nullptr, I_}; }
  Mat block(const Matrix& m, int k) const { return m.mat().slice(k * rows_, rows_); }
  Mat blocks(const Matrix& m) const { return m.top(views() * rows_); }
  uint16_t* mask_of(int k) const { return masks_.p() + k * most_ * words_; }
  void init(uint32_t seed);
  void propagate();
  void predict(Mat to, CMat x);
  void compare(double* loss, int online, int target, float weight, bool add);

  Device& dev_;
  const std::vector<const char*> losses_;  // user_item, modality, reg
  const uint32_t seed_;
  const int64_t U_, I_, most_, words_;  // most_: rows of a batch; words_: of a mask's row
  const float reg_, cl_, rate_;         // of the norms, divided by I; of the modalities' terms; of values masked
  ParamArena arena_;
  const int tables_, w_p_, b_p_;  // P and Q; the predictor
  Modalities modal_;
  Propagation propagation_;
  OwnedGroups user_groups_, item_groups_;
  Groups by_user_, by_item_;  // the batch's rows
  Matrix x_, o_, d_x_, d_o_;  // ((2+M) B,d) the views, what the predictor makes of them, and their gradients
  Array<uint16_t> masks_;     // (2+M,B,words_), empty where nothing is masked
  std::vector<bool> masked_;  // a view each
  int64_t rows_ = 0;          // B of the step
};

}  // namespace ccdrec
