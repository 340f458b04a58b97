// Drives a model through epochs of steps: the order of the rows, batches and their random negatives, passes, Adam's
// schedule, losses, and on a GPU the recording of steps and their replay. What a step computes is the model's
// (models/model.h).
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "host/models/model.h"
#include "host/training/hardness.h"
#include "host/training/stepping.h"

namespace ccdrec {

using Losses = std::vector<double>;  // sums over steps, one a name of Model::losses

struct EpochState {  // what a device notes while an epoch runs
  Losses losses;
  bool all_finite = true;  // losses, those that are not reported too
  int32_t saw_nan = 0;     // what has to be a number was none
  int32_t fault = 0;       // Ctx::fault
  bool finite() const { return all_finite && !saw_nan; }
};

class Recommender {
 public:
  Recommender(Device&, const Settings&, const Dataset&, GraphSource&, std::vector<std::string>& notes);
  ~Recommender();
  Recommender(const Recommender&) = delete;

  Model& model() { return *model_; }
  int64_t users() const { return U_; }
  int64_t items() const { return I_; }
  int64_t steps_per_epoch() const { return (train_.rows() + batch_size_ - 1) / batch_size_; }
  // Graphs and order of the epoch, losses to zero. In the middle of an epoch, `next_step` > 0, what chance alone
  // decides is decided again.
  void begin_epoch(int epoch, int64_t next_step = 0);
  void step(int epoch, int64_t step);  // one batch; step is zero-based within the epoch
  void end_epoch(int epoch);           // flush, and what the model does then
  // every row brought up to the last step: before anything outside a step reads parameters
  void flush();
  Losses losses() const { return state().losses; }  // sums so far in this epoch: reads the device
  // of the negatives of the last epoch that ended
  std::map<std::string, double> hardness() const { return hardness_.means(); }
  EpochState state() const;        // as losses(), with all that may have gone wrong: one wait
  void set_losses(const Losses&);  // empty: zeros

  // Representations of all users and items, by the full graph: views valid until the next step.
  void represent(CMat& hu, CMat& hi);
  void represented(CMat& hu, CMat& hi);  // what that gave last

  int64_t t() const { return t_; }  // steps of Adam done
  int64_t t_at(int epoch, int64_t next_step) const {
    return epoch * stepping_.updates(steps_per_epoch()) + stepping_.updates(next_step);
  }
  void set_t(int64_t t) { t_ = t; }
  Csr train_csr() const { return train_.by_user.view(); }
  std::map<std::string, double>& seconds() { return clock_.seconds; }  // by phase, since the caller last cleared them
  // GPU: steps run directly and every phase waits for its end, so that `seconds` knows them; otherwise steps are
  // recorded and replayed.
  void set_timed(bool timed) { clock_.timed = timed; }
  int64_t recordings() const {
    return std::count_if(recorded_.begin(), recorded_.end(), [](const auto& r) { return r.second != nullptr; });
  }

  // For `ccdrec step`, cases and tests.
  // the batch, in place of the shuffled ones, and what else the model takes
  void give(const Given&);
  void draws(Watch&);                            // what chance decided for the last step
  const Batch& batch() const { return batch_; }  // of the last step
  std::span<const Pass> passes(int64_t step) const { return stepping_.passes(step); }
  // where it is set every step runs directly, and calls it after each pass
  std::function<void(uint32_t pass)> after_pass;
  // A pass of a step without the optimiser: every gradient can be read. Then the optimiser.
  void forward_backward(int epoch, int64_t step, Pass = {0, 1.0f});
  void update(float gradient = 1.0f);

 private:
  using Kind = std::tuple<int64_t, int, size_t>;  // of a step: rows, the model's kind, passes
  Kind prepare(int epoch, int64_t step);
  void run(const Moment&, int64_t step, int64_t t);
  void sample(const Moment&);
  Step pass_of(const Moment&, int64_t t, const Pass&, bool keep);

  Device& dev_;
  const uint32_t seed_;
  const int64_t U_, I_, batch_size_;
  const Stepping stepping_;
  const Interactions train_;
  std::unique_ptr<Model> model_;
  const size_t n_losses_;
  Array<AdamCoef> coef_;  // of every step the run can take
  AdamSchedule adam_;
  int64_t t_ = 0;

  Array<int32_t> order_;          // (rows) of the training rows in this epoch
  Array<int32_t> users_, items_;  // the batch's memory
  Batch batch_;
  bool given_ = false;
  Array<double> losses_;  // (passes, losses)
  Hardness hardness_;
  Clock clock_;
  CMat h_u_, h_i_;
  std::map<Kind, void*> recorded_;  // null: seen, not yet recorded
  Late late_{};                     // what the device holds, once set
};

}  // namespace ccdrec
