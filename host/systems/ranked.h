// A recommender that ranks by h_u . h_i and learns from triples: a backbone, and on it, where the system has them, an
// item fusion and a sampler of hard negatives. BPR, LightGCN, FREEDOM and LATTICE are a backbone alone, or with a
// sampler; MCDRec has a fusion of all items; CCDRec is any of them with DMA and with CNS over NDI's pools.
#pragma once
#include <memory>
#include <optional>

#include "host/models/backbone.h"
#include "host/models/fusion.h"
#include "host/models/parts/layer_slots.h"
#include "host/models/sampler.h"

namespace ccdrec {

// What it is made of. The arena has taken its memory, and the parts in it are initialised.
struct RankedParts {
  std::unique_ptr<ParamArena> arena = std::make_unique<ParamArena>();
  std::unique_ptr<Backbone> backbone;
  std::unique_ptr<Modalities> modal;   // null: nothing maps features
  std::unique_ptr<ItemFusion> fusion;  // null: the propagation starts from what the backbone has
  std::unique_ptr<Sampler> sampler;    // null: random negatives alone
};

class Ranked : public Model {
 public:
  // losses: bpr, and of bpr_curricular, align and reg those that the system names; a sampler's own is added.
  Ranked(const Setup&, std::vector<const char*> losses, RankedParts);

  std::span<const char* const> losses() const override { return losses_; }
  void begin_epoch(int epoch) override;
  void rebuild(int epoch) override;
  void assemble(int epoch) override { backbone_->assemble(epoch); }
  int prepare(int epoch, int64_t step) override;
  void sample(const Batch&, const Step&) override;
  void forward(const Batch&, const Step&) override;
  void backward(const Batch&, const Step&) override;
  void update(const Step&) override;
  void flush(const AdamSchedule&, int64_t t) override;
  void end_epoch(int epoch, Clock&) override;
  const char* negatives(int epoch) const override { return sampler_ ? sampler_->source(epoch) : "random"; }
  void counts(std::vector<Piece>&) override;
  void figures(std::map<std::string, double>&) const override;
  const int32_t* nan_flag() const override { return sampler_ ? sampler_->nan_flag() : nullptr; }
  void represent(CMat& h_u, CMat& h_i) override;
  int chosen_lists() const override { return mixed_ ? backbone_->representations().layers + 1 : 1; }
  Chosen choose(int epoch, const Batch&, const Step&) override;

  void parameters(Windows&) override;
  void constants(Windows&) override;
  void kept(std::vector<Kept>&) override;
  void restored() override { backbone_->restored(); }
  std::vector<std::string> modalities() const override;
  bool reverses() const override { return fusion_ != nullptr; }

  void give(const Given&, const Batch&) override;
  void draws(const Batch&, Watch&) override;
  void explain(const Batch&, Watch&) override;
  void graphs(Watch& w) override { backbone_->graphs(w); }
  void show(const Batch&, Watch&) override;
  void show_reverse(const Given&, Watch&) override;

 private:
  size_t term(const char* name);  // its place among losses()
  bool late() const { return plan_.gives != Gives::nothing && !plan_.early; }
  // items without a slot: the sampler's candidates
  bool reads_others() const { return late() || plan_.gives == Gives::mixture; }
  void find_rows(const Batch&, const Step&);
  void propagate(const Step&);
  void rank(const Batch&, const Step&);
  Groups fused() const { return fusion_->items(slots_.by_item()); }  // the fusion's items

  Device& dev_;
  const Settings s_;
  int64_t U_, I_;
  const bool maps_;    // the features of a batch's items
  const bool of_all_;  // the fusion is of all items
  std::unique_ptr<ParamArena> arena_;
  std::unique_ptr<Backbone> backbone_;
  std::unique_ptr<Modalities> modal_;
  std::unique_ptr<ItemFusion> fusion_;
  std::unique_ptr<Sampler> sampler_;
  std::vector<const char*> losses_;
  std::string hard_loss_name_;
  size_t bpr_, hard_ = 0, align_ = 0, reg_ = 0;  // places among losses_
  Slots slots_;
  std::optional<LayerSlots> mixed_;  // where the sampler mixes
  Plan plan_;                        // of the step
};

}  // namespace ccdrec
