// SLMRec (spec baselines 6): users propagated over the user-item graph with the items' table, with their visual and
// with their textual features in turn; what the three make of a node is fused by a linear map. It learns by contrasts
// within the batch: of users with their positives, and, of the positives alone, of the modalities with the table.
//
// P and Q lie in the arena: every row of them moves at every step. The features do not: they are brought to length 1
// once, and their maps are trained, so that every step maps all items.
#pragma once
#include <memory>

#include "host/models/model.h"
#include "host/models/outline.h"
#include "host/models/parts/propagation.h"
#include "host/models/planner.h"

namespace ccdrec {

class SlmRec : public Model {
 public:
  static constexpr int kModalities = 2;  // the first named has the visual place, the second the textual one
  static Outline outline(const Settings&);
  static void plan(Planner&);
  SlmRec(const Setup&, std::vector<const char*> losses);

  std::span<const char* const> losses() const override { return losses_; }
  void forward(const Batch&, const Step&) override;
  void backward(const Batch&, const Step&) override;
  void update(const Step&) override;
  void flush(const AdamSchedule&, int64_t) override {}
  void represent(CMat& h_u, CMat& h_i) override;
  const char* negatives(int) const override { return ""; }  // it learns from none

  void parameters(Windows& all) override { arena_.parameters(all); }
  std::vector<std::string> modalities() const override;
  void graphs(Watch&) override;
  void show(const Batch&, Watch&) override;

 private:
  static constexpr int kTowers = 1 + kModalities;  // what is propagated beside P: Q, then the mapped features
  struct Map {                                     // y = x W + b: places in the arena
    int w, b;
  };
  struct Modality {
    std::string name;
    Matrix x;  // (I,F) rows of length 1
    Map dense;
  };
  enum Loss { kMain, kFine, kCoarse };

  Map add_map(const std::string& name, int64_t in, int64_t out);
  void init(uint32_t seed);
  RowList all(int64_t n) const { return {nullptr, nullptr, n}; }
  CMat start(int tower);
  Mat values_of_items(Mat nodes) const { return nodes.slice(U_, I_); }
  void map(Mat y, CMat x, Map);
  void map_back(Map, CMat x, CMat d_y, bool with_bias);
  Mat w_of(Map m, int tower) { return arena_.value(m.w).slice(tower * d_, d_); }  // the tower's rows of a fusion
  void fuse(Mat z, CMat h, int tower, Map);
  void fuse_back(Map, CMat d_z, CMat h, int tower, Mat d_h, bool add);
  void contrast(const Step&);
  void ssl_back();
  void propagate_back(int tower);

  Device& dev_;
  const int64_t U_, I_, d_;
  const float temp_, ssl_temp_, ssl_alpha_;
  const std::vector<const char*> losses_;
  std::vector<Modality> modalities_;
  ParamArena arena_;
  int tables_;
  Map fuse_user_, fuse_item_, g1_, g2_, g3_, g4_, g5_;
  Propagation propagation_;
  Matrix nodes_;  // (N,d) [P; mapped features] of one tower, and on the way back its gradient
  Matrix z_all_;  // (N,d) Zu and Zi

  // A step's: [users | positives], (2B,d) each.
  int64_t B_ = 0;
  Array<int32_t> ids_;  // their nodes
  OwnedGroups groups_;
  Groups slots_;
  Matrix h_[kTowers], d_h_[kTowers];  // what the towers make of them
  Matrix z_, z_hat_, d_z_, d_z_hat_;  // fused; of length 1
  Array<float> inv_norm_;             // (2B)
  Matrix x1_, x2_, x3_, x4_, x5_;     // of the positives, (B,d); the last two (B,d/2)
  Matrix d1_, d2_, d3_, d4_, d5_;     // their gradients
};

}  // namespace ccdrec
