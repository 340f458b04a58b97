#include "host/systems/ranked.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <stdexcept>

namespace ccdrec {

Ranked::Ranked(const Setup& z, std::vector<const char*> losses, RankedParts parts)
    : dev_(z.dev),
      s_(z.s),
      U_(z.users()),
      I_(z.items()),
      maps_(parts.backbone->maps_items() || (parts.fusion && !parts.fusion->of_all_items())),
      of_all_(parts.fusion && parts.fusion->of_all_items()),
      arena_(std::move(parts.arena)),
      backbone_(std::move(parts.backbone)),
      modal_(std::move(parts.modal)),
      fusion_(std::move(parts.fusion)),
      sampler_(std::move(parts.sampler)),
      losses_(std::move(losses)),
      slots_(z, sampler_ ? sampler_->candidates().n : 0, maps_) {
  bpr_ = term("bpr"), reg_ = term("reg");
  if (fusion_) align_ = term("align");
  if (!sampler_) return;
  hard_loss_name_ = std::string("bpr_") + sampler_->name();
  hard_ = term(hard_loss_name_.c_str());
  if (!sampler_->mixes()) return;
  backbone_->ask_layer_gradients();
  mixed_.emplace(z, backbone_->representations().layers + 1);
}

// One that the system does not name is added.
size_t Ranked::term(const char* name) {
  const auto same = [name](const char* known) { return std::strcmp(known, name) == 0; };
  const auto at = std::find_if(losses_.begin(), losses_.end(), same);
  if (at == losses_.end()) return losses_.push_back(name), losses_.size() - 1;
  return size_t(at - losses_.begin());
}

void Ranked::begin_epoch(int epoch) {
  backbone_->begin_epoch(epoch);
  if (sampler_) sampler_->begin_epoch(epoch);
}

void Ranked::rebuild(int epoch) {
  backbone_->rebuild(epoch, fusion_ ? fusion_->reversed() : CMat());
  if (!sampler_ || !sampler_->rebuilds(epoch)) return;
  CMat h_u, h_i;
  represent(h_u, h_i);
  sampler_->rebuild(epoch, h_u, h_i);
}

// --- a step ----------------------------------------------------------------------------------------------------------

int Ranked::prepare(int epoch, int64_t step) {
  plan_ = sampler_ ? sampler_->prepare(epoch, step) : Plan{};
  constexpr int kOfBackbone = 1 << 20;  // kinds of its own are 0 or 1, those of a sampler fewer than that
  return plan_.kind + kOfBackbone * backbone_->prepare(epoch, step);
}

void Ranked::sample(const Batch& batch, const Step& step) {
  if (sampler_) sampler_->early(batch, step);
}

void Ranked::forward(const Batch& batch, const Step& step) {
  find_rows(batch, step);
  {
    const Phase phase = step.clock.phase(RangeId::optimiser);
    // Adam's zero-gradient steps that those rows have missed: dense Adam would have taken them one by one
    backbone_->catch_up(step);
  }
  propagate(step);
  if (late()) {
    const Phase phase = step.clock.phase(RangeId::sample);
    sampler_->late(batch, step, backbone_->representations());
  }
  const Phase phase = step.clock.phase(RangeId::forward);
  if (reads_others()) slots_.list_again(batch, plan_.gives == Gives::item);
  slots_.gather(backbone_->h());
}

// The distinct nodes and items that the batch reads, and all rows that their representations are made of.
void Ranked::find_rows(const Batch& batch, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::forward);
  slots_.list(batch, plan_.gives == Gives::item && plan_.early, reads_others() ? sampler_->candidates() : Ids{});
  backbone_->touch(slots_.nodes());
  if (maps_) slots_.list_items(batch);
}

// Maps, estimator, fusion and propagation for those rows. Features catch up as they are read: that part of their
// optimiser's work is counted here.
void Ranked::propagate(const Step& step) {
  const Phase phase = step.clock.phase(RangeId::forward);
  const CMat hhat = backbone_->items();
  if (maps_) modal_->project(slots_.by_item().rows, step);
  if (of_all_) modal_->project_all(step);
  if (fusion_) fusion_->forward(backbone_->q(), fused().rows, step);
  const Mat start = backbone_->start_items(hhat);
  if (fusion_) fusion_->fuse(start, backbone_->mixed_with(hhat), fused().rows);
  backbone_->forward(plan_.gives == Gives::mixture);
}

void Ranked::backward(const Batch& batch, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::backward);
  arena_->zero_grad(dev_);
  rank(batch, step);
  backbone_->terms(slots_, modal_.get(), step.loss + reg_);
  slots_.scatter(backbone_->g());
  const bool mixes = plan_.gives == Gives::mixture;
  for (int l = 0; mixes && l <= backbone_->representations().layers; ++l)
    mixed_->scatter(l, backbone_->g(l), slots_.nodes(), batch, sampler_->choice().items + l * batch.rows);
  backbone_->back_propagate(mixes);
  if (fusion_)
    fusion_->backward(step.loss + align_, backbone_->g_q(), backbone_->g_start(), backbone_->q(), fused(),
                      of_all_ ? I_ : batch.item_slots());
  backbone_->finish_backward(slots_, modal_.get(), step.loss + reg_);
  if (modal_) modal_->backward(slots_.by_item().rows, step);  // the last use of the features in this step
}

// (1 - omega) mean_k BPR(h_u, h_p, h_rk) + omega BPR(h_u, h_p, hard); without a hard negative the first alone, with
// weight 1 (spec ccdrec 6).
void Ranked::rank(const Batch& batch, const Step& step) {
  const bool eps = backbone_->bpr_with_eps();
  const CMat h_u = slots_.h(0), h_p = slots_.h(1);
  const Mat d_u = slots_.d(0), d_p = slots_.d(1);
  const int n_neg = slots_.n_neg(), hard = slots_.hard();
  const float w_random = float(plan_.gives == Gives::nothing ? 1.0 : 1.0 - s_.omega) / float(n_neg),
              w_hard = float(s_.omega);
  for (int k = 0; k < n_neg; ++k)
    dev_.ops.bpr(dev_.ctx, step.loss + bpr_, {d_u, d_p, slots_.d(2 + k), k > 0, k > 0}, h_u, h_p, slots_.h(2 + k),
                 w_random, eps);
  switch (plan_.gives) {
    case Gives::nothing:
      break;
    case Gives::item:
      dev_.ops.bpr(dev_.ctx, step.loss + hard_, {d_u, d_p, slots_.d(hard)}, h_u, h_p, slots_.h(hard), w_hard, eps);
      break;
    case Gives::constant:
      dev_.ops.bpr(dev_.ctx, step.loss + hard_, {d_u, d_p, {}}, h_u, h_p,
                   sampler_->choice().rows.slice(0, slots_.rows()), w_hard, eps);
      break;
    case Gives::mixture: {  // always in the stable form: the published loss
      const Choice c = sampler_->choice();
      dev_.ops.mixed_bpr(dev_.ctx, step.loss + hard_, d_u, mixed_->d(batch.rows), mixed_->h(batch.rows), h_u,
                         backbone_->representations().item_layers(), batch.positives(), c.items, c.alpha, w_hard,
                         false);
      break;
    }
  }
}

void Ranked::update(const Step& step) {
  const Phase phase = step.clock.phase(RangeId::optimiser);
  backbone_->update(step);
  if (modal_) modal_->update(slots_.by_item().rows, step);
  arena_->update(dev_, step.adam, step.t + 1);
}

void Ranked::flush(const AdamSchedule& adam, int64_t t) {
  backbone_->flush(adam, t);
  if (modal_) modal_->flush(adam, t);
}

void Ranked::end_epoch(int epoch, Clock& clock) {
  if (!fusion_) return;
  const Phase phase = clock.phase(RangeId::reverse);
  fusion_->end_epoch(backbone_->q(), epoch);
}

void Ranked::represent(CMat& h_u, CMat& h_i) {
  const Mat start = backbone_->start_all();
  if (fusion_) fusion_->fuse_all(start);
  backbone_->represent_all();
  h_u = backbone_->h().slice(0, U_);
  h_i = backbone_->h().slice(U_, I_);
}

// As a step does it, and the arrays that it does it in are those of a step: the next one fills them again.
Chosen Ranked::choose(int epoch, const Batch& batch, const Step& step) {
  Chosen c;
  const CMat all_u = backbone_->h().slice(0, U_), all_i = backbone_->h().slice(U_, I_);
  const Plan plan = sampler_ ? sampler_->prepare(epoch, step.now.step) : Plan{};
  if (plan.gives != Gives::nothing) {
    sampler_->early(batch, step);
    if (!plan.early) sampler_->late(batch, step, backbone_->representations());
  }
  const Mat room = slots_.block(1, batch.rows);
  c.items = plan.gives == Gives::nothing   ? batch.negatives()
            : plan.gives == Gives::mixture ? sampler_->choice().items
                                           : batch.hard();
  c.rows = room;
  if (plan.gives == Gives::constant) {
    c.rows = sampler_->choice().rows.slice(0, batch.rows);
  } else if (plan.gives == Gives::mixture) {
    const Mat h_u = slots_.block(0, batch.rows);
    dev_.ops.gather_rows(dev_.ctx, h_u, all_u, batch.users, batch.rows);
    dev_.ops.mixed_bpr(dev_.ctx, step.loss, slots_.block(2, batch.rows), mixed_->d(batch.rows), room, h_u,
                       backbone_->representations().item_layers(), batch.positives(), c.items, sampler_->choice().alpha,
                       1, false);
  } else {
    dev_.ops.gather_rows(dev_.ctx, room, all_i, c.items, batch.rows);
  }
  return c;
}

// --- files, and looking into a step ----------------------------------------------------------------------------------

void Ranked::parameters(Windows& all) {
  backbone_->parameters(all);
  if (modal_) modal_->parameters(all);
  arena_->parameters(all);
}

void Ranked::constants(Windows& all) {
  if (modal_) modal_->constants(all);
}

void Ranked::kept(std::vector<Kept>& all) {
  backbone_->kept(all);
  if (fusion_) fusion_->kept(all);
  if (sampler_) sampler_->kept(all);
}

void Ranked::counts(std::vector<Piece>& all) {
  backbone_->counts(all);
  if (sampler_) sampler_->counts(all);
}

void Ranked::figures(std::map<std::string, double>& all) const {
  backbone_->figures(all);
  if (sampler_) sampler_->figures(all);
}

std::vector<std::string> Ranked::modalities() const { return modal_ ? modal_->names() : std::vector<std::string>{}; }

void Ranked::give(const Given& given, const Batch& batch) {
  backbone_->give(given);
  const std::vector<int32_t> listed = host_copy(dev_, batch.items, batch.item_slots());
  const std::set<int32_t> distinct(listed.begin(), listed.end());
  const std::vector<int32_t> fused_items =
      of_all_ ? host_copy(dev_, fused().rows) : std::vector<int32_t>(distinct.begin(), distinct.end());
  if (sampler_) {
    sampler_->give(given, batch);
  } else {
    if (given.has("batch.curricular"))
      given.fail("'batch.curricular' is given, but the model has neither NDI nor CNS; leave it away");
    if (given.has("batch.frozen"))
      given.fail("'batch.frozen' is given, but only NDI without CNS with ndi_negative = pool reads it; leave it away");
  }
  const bool reads_hard = sampler_ && sampler_->name() == std::string("hard");
  for (const char* array : {"hard.items", "hard.alpha"})
    if (!reads_hard && given.has(array))
      given.fail(std::string("'") + array + "' is given, but the settings name no sampler; leave it away");
  if ((fusion_ || given.has("diffusion.items")) && given.indices("diffusion.items", {kAny}, I_) != fused_items)
    given.fail(std::string("'diffusion.items' is not the ascending list of ") +
               (of_all_ ? "all items" : "the distinct items among positives and random negatives"));
  if (fusion_) fusion_->give(given, int64_t(fused_items.size()));
}

void Ranked::draws(const Batch& batch, Watch& w) {
  if (sampler_) sampler_->draws(batch, w);
  if (!maps_ && !of_all_) return;
  const std::vector<int32_t> items = host_copy(dev_, of_all_ ? fused().rows : slots_.by_item().rows);
  w.indices("diffusion.items", {int64_t(items.size())}, items);
  if (fusion_) fusion_->draws(int64_t(items.size()), w);
}

void Ranked::explain(const Batch& batch, Watch& w) {
  if (sampler_) sampler_->explain(batch, w);
}

void Ranked::show(const Batch& batch, Watch& w) {
  slots_.show(w, plan_.gives == Gives::item ? sampler_->name() : nullptr);
  if (plan_.gives == Gives::mixture) slots_.show(w, std::string(sampler_->name()), mixed_->h(batch.rows));
  if (modal_) modal_->show(slots_.by_item().rows, w);
  if (fusion_) fusion_->show(int64_t(host_copy(dev_, fused().rows).size()), w);
  arena_->show_gradients(w);
  backbone_->show(w);
}

void Ranked::show_reverse(const Given& given, Watch& w) {
  if (fusion_) fusion_->show_reverse(given, w);
}

}  // namespace ccdrec
