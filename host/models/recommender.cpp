#include "host/models/recommender.h"

#include <algorithm>
#include <cmath>

#include "data/error.h"

namespace ccdrec {

Shape model_shape(const Settings& s) {
  Shape m;
  m.ccdrec = s.model == "CCDRec";
  if (!m.ccdrec && s.model != "BPR" && s.model != "LightGCN" && s.model != "FREEDOM")
    throw UserError("model is '" + s.model + "', expected BPR, LightGCN, FREEDOM or CCDRec");
  if (m.ccdrec) m.dma = s.dma, m.ndi = s.ndi, m.cns = s.cns;
  m.diffusion = m.dma || m.ndi;
  m.backbone = backbone_spec(m.ccdrec ? s.backbone : s.model, s, m.ccdrec);
  if (m.backbone.item_graph) m.modality_reg = s.reg_weight;
  if (m.backbone.norm_regulariser) m.norm_reg = s.reg_weight;
  m.modalities = m.diffusion || m.modality_reg > 0;
  return m;
}

Recommender::~Recommender() {
  for (auto& [kind, recorded] : recorded_)
    if (recorded) dev_.ops.forget(dev_.ctx, recorded);
}

Recommender::Recommender(Device& dev, const Settings& s, const Dataset& data, const Graphs& graphs)
    : dev_(dev),
      s_(s),
      shape_(model_shape(s)),
      seed_(s.seed),
      U_(data.n_users),
      I_(data.n_items),
      N_(U_ + I_),
      n_train_(int64_t(data.train.size())),
      batch_(std::min<int64_t>(s.train_batch_size, n_train_)),
      d_(s.embedding_size),
      n_neg_(s.n_neg) {
  const int64_t item_slots = batch_ * (1 + n_neg_);
  if (shape_.modalities) {
    const Range range(dev, RangeId::read);  // the files are mapped: their pages come now
    modal_ = std::make_unique<Modalities>(dev, data.features, arena_, d_, item_slots, s.train_features, seed_);
  }
  if (shape_.diffusion) dma_ = std::make_unique<Dma>(dev, arena_, s, d_, item_slots, modal_->count());
  arena_.take(dev);
  if (modal_) modal_->init(arena_);
  if (dma_) {
    dma_->init(arena_, seed_);
    ndi_ = std::make_unique<Ndi>(dev, I_, d_, shape_.ndi && shape_.cns);
  }
  backbone_ = std::make_unique<Backbone>(dev, shape_.backbone, graphs, d_, seed_);
  if (shape_.cns) cns_ = std::make_unique<Cns>(dev, s, I_);

  // Adam's coefficients of every step the run can take.
  std::vector<AdamCoef> coef(size_t(s.epochs) * size_t(steps_per_epoch()));
  for (size_t k = 0; k < coef.size(); ++k) coef[k] = adam_coef(s.learning_rate, AdamHyper{}, int64_t(k) + 1);
  coef_ = Array<AdamCoef>(dev, coef);
  adam_ = {coef_.p(), coef_.n(), AdamHyper{}};
  backbone_->set_adam(adam_);
  if (modal_) modal_->set_adam(adam_);

  std::vector<int32_t> user(static_cast<size_t>(n_train_)), item(static_cast<size_t>(n_train_)), seen;
  std::vector<bool> occurs(static_cast<size_t>(I_));
  for (size_t e = 0; e < user.size(); ++e) user[e] = data.train[e].user, item[e] = data.train[e].item, occurs[size_t(item[e])] = true;
  for (int64_t i = 0; i < I_; ++i)
    if (occurs[size_t(i)]) seen.push_back(int32_t(i));
  train_user_ = Array<int32_t>(dev, user), train_item_ = Array<int32_t>(dev, item), train_items_ = Array<int32_t>(dev, seen);
  order_ = Array<int32_t>(dev, n_train_);
  train_ = OwnedCsr(dev, graphs.train);

  const int64_t C = cns_ ? cns_->candidate_count() : 0, extra = std::max(batch_, C), slots = batch_ * (3 + n_neg_);
  users_ = Array<int32_t>(dev, batch_), items_ = Array<int32_t>(dev, item_slots + batch_);
  node_ids_ = Array<int32_t>(dev, batch_ * (2 + n_neg_) + extra);
  seed_groups_ = OwnedGroups(dev, node_ids_.n()), slot_groups_ = OwnedGroups(dev, slots);
  slots_ = Matrix(dev, slots, d_), d_slots_ = Matrix(dev, slots, d_);
  if (shape_.modalities) item_groups_ = OwnedGroups(dev, item_slots);
  if (shape_.ndi && !shape_.cns) frozen_ = Matrix(dev, batch_, d_);
  if (shape_.modality_reg > 0) {
    modal_slots_ = Matrix(dev, item_slots, d_);
    for (int m = 0; m < modal_->count(); ++m) d_modal_slots_.emplace_back(dev, item_slots, d_);
  }
  losses_ = Array<double>(dev, EpochLosses::count);
}

void Recommender::begin_epoch(int epoch) {
  place_ = epoch;
  {
    const Phase phase = phase_of(RangeId::prune);
    backbone_->begin_epoch(epoch);
  }
  const Phase phase = phase_of(RangeId::sample);
  dev_.ops.shuffle(dev_.ctx, order_.p(), n_train_, Stream{seed_, Use::shuffle, uint32_t(epoch), 0});
  dev_.ops.fill_zero(dev_.ctx, {reinterpret_cast<float*>(losses_.p()), 1, 2 * EpochLosses::count});  // no copy: the host would wait for it
}

bool EpochState::finite() const {
  return !saw_nan && std::all_of(losses.sum, losses.sum + EpochLosses::count, [](double x) { return std::isfinite(x); });
}
EpochState Recommender::state() const {
  EpochState s;
  Piece list[3] = {{s.losses.sum, losses_.p(), sizeof s.losses.sum}};
  int n = 1;
  if (cns_) list[n++] = {&s.saw_nan, cns_->nan_flag(), sizeof s.saw_nan};
  if (dev_.ctx.fault) list[n++] = {&s.fault, dev_.ctx.fault, sizeof s.fault};
  dev_.ops.read(dev_.ctx, list, n);
  return s;
}
void Recommender::set_losses(const EpochLosses& l) { losses_.upload(l.sum, EpochLosses::count); }

void Recommender::set_given_batch(const std::vector<int32_t>& users, const std::vector<int32_t>& positives, const std::vector<int32_t>& negatives,
                                  const std::vector<int32_t>& curricular) {
  given_ = true;
  rows_ = int64_t(users.size());
  CHECK_THAT(rows_ <= batch_ && positives.size() == users.size() && negatives.size() == users.size() * size_t(n_neg_));
  users_.upload(users.data(), rows_);
  items_.upload(positives.data(), rows_);
  items_.upload(negatives.data(), rows_ * n_neg_, rows_);
  curricular_ = !curricular.empty();
  frozen_curricular_ = curricular_ && shape_.ndi && !shape_.cns && s_.ndi_negative == "pool";
  if (curricular_) items_.upload(curricular.data(), rows_, rows_ * (1 + n_neg_));
  if (frozen_curricular_) dev_.ops.gather_rows(dev_.ctx, frozen_, ndi_->e0_hat(), items_.p() + rows_ * (1 + n_neg_), rows_);
}

void Recommender::set_given_frozen(const std::vector<float>& rows) {
  CHECK_THAT(frozen_curricular_ && int64_t(rows.size()) == rows_ * d_);
  frozen_.array().upload(rows.data(), rows_ * d_);
}

BatchDraws Recommender::draws() const {
  BatchDraws b;
  const auto get = [&](auto& to, const auto* from, int64_t n) {
    to.resize(size_t(n));
    if (n) dev_.ops.download(dev_.ctx, to.data(), from, to.size() * sizeof to[0]);
  };
  get(b.users, users_.p(), rows_);
  get(b.positives, items_.p(), rows_);
  get(b.negatives, items_.p() + rows_, rows_ * n_neg_);
  if (curricular_) get(b.curricular, items_.p() + rows_ * (1 + n_neg_), rows_);
  if (frozen_curricular_) get(b.frozen, frozen_.mat().p, rows_ * d_);
  if (!shape_.modalities) return b;
  int64_t n = 0;
  dev_.ops.download(dev_.ctx, &n, item_list_.rows.count, sizeof n);
  get(b.items, item_list_.rows.idx, n);
  if (!shape_.diffusion) return b;
  get(b.t, dma_->t().p(), n);
  get(b.noise, dma_->noise().p, n * d_);
  return b;
}

// What kind of batch this is: its rows, and where its curricular negatives come from. A branch of weight zero is not taken.
void Recommender::plan_batch(int epoch, int64_t step) {
  if (given_) return;
  rows_ = std::min(batch_, n_train_ - step * batch_);
  pool_ = Pool::random;
  curricular_ = frozen_curricular_ = false;
  if (s_.omega == 0) return;
  if (shape_.cns) {
    pool_ = pool_of_epoch(s_, epoch);
    curricular_ = pool_ != Pool::random;
  } else if (shape_.ndi && epoch > 0) {  // the last pool, at random
    curricular_ = true;
    frozen_curricular_ = s_.ndi_negative == "pool";
    pool_ = Pool::stage3;
  }
}

// The batch, its negatives and, where the pool is already there, its curricular negatives.
void Recommender::sample(const Moment& now) {
  const Phase phase = phase_of(RangeId::sample);
  if (given_) return;
  sample_uniform(now);
  if (!curricular_ || !shape_.cns) return;
  const Range range(dev_, RangeId::cns, place_);
  cns_->draw_candidates(seed_, now.epoch, now.step);
  if (pool_ != Pool::model)
    cns_->choose(items_.p() + rows_ * (1 + n_neg_), ndi_->pool(int(pool_) - int(Pool::stage0)), items_.p(), users_.p(), rows_, train_.view(),
                 items_.p() + rows_, seed_, now.epoch, now.step);
}

// Rows of the epoch's order with their random negatives, and without the sampler the curricular ones, which are random items then.
void Recommender::sample_uniform(const Moment& now) {
  const Range range(dev_, RangeId::uniform, place_);
  int32_t* const positives = items_.p();
  int32_t* const negatives = items_.p() + rows_;
  int32_t* const chosen = items_.p() + rows_ * (1 + n_neg_);
  dev_.ops.take(dev_.ctx, users_.p(), train_user_.p(), order_.p(), now.first, rows_);
  dev_.ops.take(dev_.ctx, positives, train_item_.p(), order_.p(), now.first, rows_);
  dev_.ops.negatives(dev_.ctx, negatives, users_.p(), rows_, n_neg_, now.first, train_.view(), train_items_.p(), train_items_.n(),
                     Stream{seed_, Use::neg_uniform, now.epoch, now.step});
  if (!curricular_ || shape_.cns) return;
  dev_.ops.unseen_items(dev_.ctx, chosen, users_.p(), rows_, train_.view(), I_, Stream{seed_, Use::ndi_item, now.epoch, now.step});
  if (frozen_curricular_) dev_.ops.gather_rows(dev_.ctx, frozen_, ndi_->e0_hat(), chosen, rows_);
}

// Node ids of the slots, [users | positives | negatives | curricular].
void Recommender::name_slots(bool with_curricular) {
  dev_.ops.offset_ids(dev_.ctx, node_ids_.p(), users_.p(), rows_, 0);
  dev_.ops.offset_ids(dev_.ctx, node_ids_.p() + rows_, items_.p(), rows_ * (1 + n_neg_ + (with_curricular ? 1 : 0)), int32_t(U_));
}

void Recommender::forward(const Moment& now) {
  const bool c_is_node = curricular_ && !frozen_curricular_;
  const bool c_later = c_is_node && pool_ == Pool::model && !given_;  // chosen from this step's own h_i
  list_rows(c_is_node, c_later);
  catch_up();
  propagate(now);
  if (c_later) {
    const Phase phase = phase_of(RangeId::sample);
    const Range range(dev_, RangeId::cns, place_);
    cns_->choose(items_.p() + rows_ * (1 + n_neg_), backbone_->item_representations(), items_.p(), users_.p(), rows_, train_.view(),
                 items_.p() + rows_, seed_, now.epoch, now.step);
  }
  const Phase phase = phase_of(RangeId::forward);
  slot_count_ = rows_ * (2 + n_neg_ + (c_is_node ? 1 : 0));
  if (c_later) {
    name_slots(c_is_node);
    slot_list_ = slot_groups_.groups();
    dev_.ops.group(dev_.ctx, slot_list_, node_ids_.p(), slot_count_, N_);
  } else {
    slot_list_ = seed_list_;  // list_rows has named and grouped just these slots
  }
  dev_.ops.gather_rows(dev_.ctx, slots_, backbone_->h(), node_ids_.p(), slot_count_);
}

// The distinct nodes and items the batch reads.
void Recommender::list_rows(bool c_is_node, bool c_later) {
  const Phase phase = phase_of(RangeId::forward);
  name_slots(c_is_node && !c_later);
  int64_t n = rows_ * (2 + n_neg_ + (c_is_node && !c_later ? 1 : 0));
  if (c_later) {  // every candidate's representation is needed
    dev_.ops.offset_ids(dev_.ctx, node_ids_.p() + n, cns_->candidates(), cns_->candidate_count(), int32_t(U_));
    n += cns_->candidate_count();
  }
  seed_list_ = seed_groups_.groups();
  dev_.ops.group(dev_.ctx, seed_list_, node_ids_.p(), n, N_);
  backbone_->touch(seed_list_.rows);
  if (!shape_.modalities) return;
  item_list_ = item_groups_.groups();
  dev_.ops.group(dev_.ctx, item_list_, items_.p(), rows_ * (1 + n_neg_), I_);
}

// Adam's zero-gradient steps that those rows have missed: dense Adam would have taken them one by one.
void Recommender::catch_up() {
  const Phase phase = phase_of(RangeId::optimiser);
  backbone_->catch_up(t_);
}

// Projections, estimator, fusion and propagation for those rows.
void Recommender::propagate(const Moment& now) {
  const Phase phase = phase_of(RangeId::forward);
  const CMat hhat = backbone_->items();
  // The features catch up as they are read: that part of their optimiser's work is counted here, not in its phase.
  if (shape_.modalities) modal_->project(arena_, item_list_.rows, t_);
  if (shape_.diffusion) dma_->forward(arena_, *modal_, backbone_->item_table(), item_list_.rows, seed_, now.epoch, now.step);
  if (shape_.backbone.wrapped) {
    const Mat start = backbone_->start_items();
    if (shape_.dma) dma_->fuse(start, hhat, item_list_.rows);
  }
  backbone_->forward();
}

void Recommender::backward() {
  const Phase phase = phase_of(RangeId::backward);
  arena_.zero_grad(dev_);
  double* const loss = losses_.p();
  const Mat h = slots_, d_h = d_slots_.top(slot_count_);
  const Mat d_u = block(d_slots_, 0), d_p = block(d_slots_, 1);
  const CMat h_u = block(h, 0), h_p = block(h, 1);
  const bool eps = shape_.backbone.eps_form;
  const float w_random = float(curricular_ ? 1.0 - s_.omega : 1.0) / float(n_neg_);
  for (int k = 0; k < n_neg_; ++k)
    dev_.ops.bpr(dev_.ctx, loss + EpochLosses::bpr, {d_u, d_p, block(d_slots_, 2 + k), k > 0, k > 0}, h_u, h_p, block(h, 2 + k), w_random, eps);
  if (curricular_) {
    const int c = 2 + n_neg_;
    if (frozen_curricular_)
      dev_.ops.bpr(dev_.ctx, loss + EpochLosses::curricular, {d_u, d_p, {}}, h_u, h_p, frozen_.top(rows_), float(s_.omega), eps);
    else
      dev_.ops.bpr(dev_.ctx, loss + EpochLosses::curricular, {d_u, d_p, block(d_slots_, c)}, h_u, h_p, block(h, c), float(s_.omega), eps);
  }

  if (shape_.modality_reg > 0) modality_terms(loss + EpochLosses::reg, d_u, h_u);

  dev_.ops.segment_sum(dev_.ctx, backbone_->g(slot_list_.rows), d_h, slot_list_, true, false);
  backbone_->back_propagate();
  if (shape_.diffusion)  // writes the modalities' d_h
    dma_->backward(arena_, *modal_, loss + EpochLosses::align, backbone_->item_grad(), backbone_->item_start_grad(), backbone_->item_table(),
                   item_list_, rows_ * (1 + n_neg_));
  backbone_->finish_backward();
  if (shape_.norm_reg > 0)  // on the initial rows (spec baselines 3, 4): after back_propagate, which writes the same rows
    dev_.ops.norm_reg(dev_.ctx, loss + EpochLosses::reg, backbone_->initial_grad(), backbone_->initial(), slot_list_, node_ids_.p(), rows_, n_neg_,
                      float(shape_.norm_reg));
  if (shape_.modality_reg > 0)
    for (int m = 0; m < modal_->count(); ++m)
      dev_.ops.segment_sum(dev_.ctx, modal_->d_h(m), d_modal_slots_[size_t(m)].top(rows_ * (1 + n_neg_)), item_list_, false, shape_.diffusion);
  if (!modal_) return;
  if (keep_gradients_)
    modal_->backward(arena_, item_list_.rows);
  else  // the last use of the features in this step: their optimiser's work is counted here, not in its phase
    modal_->backward_step(arena_, item_list_.rows, t_ + 1);
}

// FREEDOM's modality terms (spec baselines 9.4): BPR of h_u with the projections, random negatives only, their mean.
void Recommender::modality_terms(double* loss, Mat d_u, CMat h_u) {
  const float w = float(shape_.modality_reg) / float(n_neg_);
  const Mat x = modal_slots_.top(rows_ * (1 + n_neg_));
  for (int m = 0; m < modal_->count(); ++m) {
    const Mat dx = d_modal_slots_[size_t(m)].top(x.rows);
    dev_.ops.expand_rows(dev_.ctx, x, modal_->h(m), item_list_);
    for (int k = 0; k < n_neg_; ++k)
      dev_.ops.bpr(dev_.ctx, loss, {d_u, block(dx, 0), block(dx, 1 + k), true, k > 0}, h_u, block(x, 0), block(x, 1 + k), w, false);
  }
}

void Recommender::update() {
  const Phase phase = phase_of(RangeId::optimiser);
  ++t_;
  backbone_->update(adam_, t_);
  if (modal_ && keep_gradients_) modal_->update(item_list_.rows, t_);
  arena_.update(dev_, adam_, t_);
}

void Recommender::forward_backward(int epoch, int64_t step) {
  plan_batch(epoch, step);
  keep_gradients_ = true, place_ = step;
  run_batch({uint32_t(epoch), uint32_t(step), step * batch_});
}
void Recommender::run_batch(const Moment& now) {
  sample(now);
  forward(now);
  backward();
}

// On a GPU a step is recorded once for each kind of batch and replayed from then on; the first batch of a kind runs directly, which is when scratch
// memory finds its size. What differs between batches of a kind are the late values (kernels/late.h).
void Recommender::step(int epoch, int64_t step) {
  plan_batch(epoch, step);
  keep_gradients_ = false, place_ = step;
  const Range range(dev_, RangeId::step, step);  // around the launch of a replay too: inside it there are no ranges
  const Moment now{uint32_t(epoch), uint32_t(step), step * batch_};
  const BatchKind kind{rows_, int(pool_), curricular_};
  const auto known = recorded_.find(kind);
  if (!dev_.ops.record || timed_ || given_ || known == recorded_.end()) {
    run_batch(now);
    update();
    recorded_.emplace(kind, nullptr);
    return;
  }
  if (!known->second) {
    const int64_t t = t_;
    t_ = kLateT;
    try {
      known->second = dev_.ops.record(dev_.ctx, [&] {
        run_batch({kLateEpoch, kLateStep, kLateFirst});
        update();
        dev_.ops.advance_late(dev_.ctx, batch_);
      });
    } catch (...) {
      t_ = t;
      throw;
    }
    t_ = t;
  }
  if (late_.epoch != now.epoch || late_.step != now.step || late_.first != now.first || late_.t != t_)
    dev_.ops.set_late(dev_.ctx, {now.epoch, now.step, now.first, t_});
  dev_.ops.replay(dev_.ctx, known->second);
  ++t_;
  late_ = {now.epoch, now.step + 1, now.first + batch_, t_};
}

// Every row brought up to the last step: before anything outside a step reads the tables.
void Recommender::flush() {
  const Phase phase = phase_of(RangeId::optimiser);
  backbone_->flush(t_);
  if (modal_) modal_->flush(t_);
}

void Recommender::end_epoch(int epoch) {
  place_ = epoch;
  flush();
  if (!shape_.diffusion) return;
  const Phase phase = phase_of(RangeId::reverse);
  ndi_->run(arena_, *modal_, *dma_, backbone_->item_table(), seed_, epoch);
}

void Recommender::represent(CMat& hu, CMat& hi) {
  const Mat start = backbone_->start_items_all();
  if (shape_.dma && ndi_->ready()) dma_->fuse_all(start, start, ndi_->e0_hat(), I_);
  backbone_->represent_all();
  hu = backbone_->h().slice(0, U_);
  hi = backbone_->h().slice(U_, I_);
}

}  // namespace ccdrec
