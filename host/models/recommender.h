// One model ready to train: a backbone, and around it, where the settings ask, the modality side and CCDRec's three modules. One step is
//   sample -> forward -> backward -> optimiser, in the order of the paper (spec ccdrec 6); an epoch ends with a flush and, with diffusion, the
//   reverse process.
#pragma once
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "host/ccdrec/cns.h"
#include "host/ccdrec/dma.h"
#include "host/ccdrec/ndi.h"

namespace ccdrec {

// Which parts a model has; derived from the settings in one place.
struct Shape {
  BackboneSpec backbone;
  bool ccdrec = false;     // objective of spec ccdrec 6
  bool diffusion = false;  // DMA or NDI: the estimator exists and learns
  bool dma = false, ndi = false, cns = false;
  bool modalities = false;  // features are read
  double modality_reg = 0;  // weight of FREEDOM's modality BPR terms
  double norm_reg = 0;      // weight of the norm regulariser
};
Shape model_shape(const Settings&);  // UserError for an unknown model or settings that exclude each other

struct EpochLosses {  // sums over steps; slots of the device accumulator
  enum { bpr, curricular, align, reg, count };
  double sum[count] = {};
};

struct EpochState {  // what a device notes while an epoch runs
  EpochLosses losses;
  int32_t saw_nan = 0;  // a similarity was none
  int32_t fault = 0;    // Ctx::fault
  bool finite() const;
};

struct BatchDraws {                                              // what chance decided for a batch, on the host
  std::vector<int32_t> users, positives, negatives, curricular;  // (B), (B), (n_neg,B), (B) or empty: the batch has none
  std::vector<float> frozen;                                     // (B,d): the pool's rows where they stand for h_c; else empty
  std::vector<int32_t> items;                                    // (n) distinct positives and negatives, ascending, where features are read
  std::vector<int32_t> t;                                        // (n) their diffusion steps, zero-based, where there is a diffusion,
  std::vector<float> noise;                                      // (n,d) and their noise
};

class Recommender {
 public:
  Recommender(Device&, const Settings&, const Dataset&, const Graphs&);
  ~Recommender();
  Recommender(const Recommender&) = delete;

  int64_t steps_per_epoch() const { return (n_train_ + batch_ - 1) / batch_; }
  void begin_epoch(int epoch);         // prune, shuffle; losses to zero
  void step(int epoch, int64_t step);  // one batch; step is zero-based within the epoch
  void end_epoch(int epoch);           // flush; reverse process
  void flush();
  EpochLosses losses() const { return state().losses; }  // sums so far in this epoch: reads the device
  EpochState state() const;                              // likewise, with all that may have gone wrong: one wait for everything
  void set_losses(const EpochLosses&);
  const char* negatives_name() const { return pool_name(pool_); }  // where the last batch's curricular negatives came from
  Pool pool() const { return pool_; }                              // likewise

  // Representations of all users and items with the full graph (and ehat_0 fused in): views valid until the next step.
  void represent(CMat& hu, CMat& hi);

  // State.
  int64_t t() const { return t_; }
  void set_t(int64_t t) { t_ = t; }
  Backbone& backbone() { return *backbone_; }
  Modalities* modalities() { return modal_.get(); }
  Dma* dma() { return dma_.get(); }
  Ndi* ndi() { return ndi_.get(); }
  const Cns* cns() const { return cns_.get(); }
  ParamArena& arena() { return arena_; }
  const Shape& shape() const { return shape_; }
  Csr train_csr() const { return train_.view(); }
  std::map<std::string, double>& seconds() { return seconds_; }  // by phase, since the caller last cleared them
  // GPU: steps run directly and every phase waits for its end, so that `seconds` knows them; otherwise steps are recorded and replayed.
  void set_timed(bool timed) { timed_ = timed; }
  int64_t recordings() const {
    return std::count_if(recorded_.begin(), recorded_.end(), [](const auto& r) { return r.second != nullptr; });
  }

  // For tests and parity: fixed batches in place of the shuffled ones. Device copies are made.
  void set_given_batch(const std::vector<int32_t>& users, const std::vector<int32_t>& positives, const std::vector<int32_t>& negatives,
                       const std::vector<int32_t>& curricular);
  void set_given_frozen(const std::vector<float>& rows);  // (B,d) in place of the pool's rows, after set_given_batch
  BatchDraws draws() const;                               // of the last batch
  CMat slots() const { return slots_; }                   // representations of the last batch: users, positives, negatives, curricular
  CMat slot_grads() const { return d_slots_; }            // and their gradients
  void forward_backward(int epoch, int64_t step);         // step without the optimiser: every gradient can be read
  void update();                                          // after forward_backward

 private:
  struct Moment {  // when a batch is: numbers, or late values while a step is recorded
    uint32_t epoch, step;
    int64_t first;  // step * batch
  };
  Phase phase_of(RangeId id) { return {dev_, seconds_, id, timed_, place_}; }
  using BatchKind = std::tuple<int64_t, int, bool>;  // rows, pool, curricular
  void plan_batch(int epoch, int64_t step);
  void run_batch(const Moment&);
  void sample(const Moment&);
  void sample_uniform(const Moment&);
  void forward(const Moment&);
  void list_rows(bool c_is_node, bool c_later);
  void catch_up();
  void propagate(const Moment&);
  void backward();
  void name_slots(bool with_curricular);
  void modality_terms(double* loss, Mat d_u, CMat h_u);
  Mat block(Mat m, int k) const { return m.slice(k * rows_, rows_); }  // slots of one kind: users, positives, negatives 0.., curricular

  Device& dev_;
  Settings s_;
  Shape shape_;
  uint32_t seed_;
  int64_t U_, I_, N_, n_train_, batch_, d_;
  int n_neg_;
  ParamArena arena_;
  std::unique_ptr<Backbone> backbone_;
  std::unique_ptr<Modalities> modal_;
  std::unique_ptr<Dma> dma_;
  std::unique_ptr<Ndi> ndi_;
  std::unique_ptr<Cns> cns_;
  Array<AdamCoef> coef_;
  AdamSchedule adam_;
  int64_t t_ = 0;

  // data
  Array<int32_t> train_user_, train_item_, order_, train_items_;
  OwnedCsr train_;

  // batch; slots = [users | positives | negatives 0.. | curricular or candidates]
  int64_t rows_ = 0;  // B of this batch
  Pool pool_ = Pool::random;
  bool curricular_ = false;         // the batch has curricular negatives
  bool frozen_curricular_ = false;  // they are pool rows, constants (NDI without CNS)
  bool given_ = false;
  bool keep_gradients_ = false;   // forward_backward: the features' gradient is not consumed where it is computed
  Array<int32_t> users_, items_;  // users_ (B); items_ (B*(1+n_neg) | B curricular)
  Array<int32_t> node_ids_;       // slots as graph nodes
  OwnedGroups seed_groups_, slot_groups_, item_groups_;
  Groups seed_list_, slot_list_, item_list_;  // nodes to be read and slots, by node; item slots (positives, random negatives) by item
  int64_t slot_count_ = 0;
  Matrix slots_, d_slots_, frozen_, modal_slots_;
  std::vector<Matrix> d_modal_slots_;
  Array<double> losses_;
  bool timed_ = false;
  int64_t place_ = -1;                   // what ranges of profilers carry: the epoch, within a step its number
  std::map<BatchKind, void*> recorded_;  // null: seen, not yet recorded
  Late late_{};                          // what the device holds, once set
  std::map<std::string, double> seconds_;
};

}  // namespace ccdrec
