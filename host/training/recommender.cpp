#include "host/training/recommender.h"

#include <cmath>

#include "host/systems/registry.h"

namespace ccdrec {

Recommender::Recommender(Device& dev, const Settings& s, const Dataset& data, GraphSource& graphs,
                         std::vector<std::string>& notes)
    : dev_(dev),
      seed_(s.seed),
      U_(data.n_users),
      I_(data.n_items),
      batch_size_(std::min<int64_t>(s.train_batch_size, int64_t(data.train.size()))),
      stepping_(s),
      train_(dev, data, graphs.train),
      model_(make_system({dev, s, data, graphs, train_, notes})),
      n_losses_(model_->losses().size()),
      order_(dev, train_.rows()),
      users_(dev, batch_size_),
      items_(dev, batch_size_ * (2 + s.n_neg)),
      batch_{batch_size_, s.n_neg, users_.p(), items_.p()},
      losses_(dev, int64_t(n_losses_ * stepping_.most_passes())),
      hardness_(dev, s, data, train_, model_->chosen_lists()),
      clock_(dev) {
  const int64_t updates = stepping_.updates(steps_per_epoch());
  std::vector<AdamCoef> coef(size_t(s.epochs) * size_t(updates));
  for (size_t k = 0; k < coef.size(); ++k)
    coef[k] = adam_coef(rate_of(s, int(int64_t(k) / updates)), AdamHyper{}, int64_t(k) + 1);
  coef_ = Array<AdamCoef>(dev, coef);
  AdamHyper hyper;
  hyper.weight_decay = float(s.weight_decay);
  adam_ = {coef_.p(), coef_.n(), hyper};
}

Recommender::~Recommender() {
  for (auto& [kind, recorded] : recorded_)
    if (recorded) dev_.ops.forget(dev_.ctx, recorded);
}

void Recommender::begin_epoch(int epoch, int64_t next_step) {
  clock_.place = epoch;
  {
    const Phase phase = clock_.phase(RangeId::prune);
    model_->begin_epoch(epoch);
    if (next_step == 0) model_->rebuild(epoch);
    model_->assemble(epoch);
  }
  const Phase phase = clock_.phase(RangeId::sample);
  dev_.ops.shuffle(dev_.ctx, order_.p(), order_.n(), Stream{seed_, Use::shuffle, uint32_t(epoch), 0});
  // no copy: the host would wait for it
  dev_.ops.fill_zero(dev_.ctx, {reinterpret_cast<float*>(losses_.p()), 1, 2 * losses_.n()});
}

// --- a step ----------------------------------------------------------------------------------------------------------

Recommender::Kind Recommender::prepare(int epoch, int64_t step) {
  if (!given_) batch_.rows = std::min(batch_size_, train_.rows() - step * batch_size_);
  clock_.place = step;
  return {batch_.rows, model_->prepare(epoch, step), stepping_.passes(step).size()};
}

// The batch: rows of the epoch's order with their random negatives.
void Recommender::sample(const Moment& now) {
  const Range range = clock_.range(RangeId::uniform);
  const int64_t B = batch_.rows;
  dev_.ops.take(dev_.ctx, users_.p(), train_.user.p(), order_.p(), now.first, B);
  dev_.ops.take(dev_.ctx, items_.p(), train_.item.p(), order_.p(), now.first, B);
  if (batch_.n_neg == 0) return;
  dev_.ops.negatives(dev_.ctx, items_.p() + B, users_.p(), B, batch_.n_neg, now.first, train_csr(),
                     train_.occurring.p(), train_.occurring.n(), now.draws(seed_, Use::neg_uniform));
}

Step Recommender::pass_of(const Moment& now, int64_t t, const Pass& pass, bool keep) {
  AdamSchedule adam = adam_;
  adam.gradient = pass.gradient;
  return {{now.epoch, now.step, now.first, pass.number}, adam, t, losses_.p() + pass.number * n_losses_, keep, clock_};
}

// All passes of a step. t: Adam's steps done before it, a number or a late value as the moment is.
void Recommender::run(const Moment& now, int64_t step, int64_t t) {
  for (const Pass& pass : stepping_.passes(step)) {
    const Step s = pass_of(now, t++, pass, false);
    {
      const Phase phase = clock_.phase(RangeId::sample);
      if (!given_) {
        if (pass.number == 0) sample(now);
        model_->sample(batch_, s);
      }
    }
    model_->forward(batch_, s);
    model_->backward(batch_, s);
    model_->update(s);
    if (after_pass) after_pass(pass.number);
  }
}

// On a GPU a step is recorded once for each kind and replayed from then on; the first of a kind runs directly, which is
// when scratch memory finds its size. What differs between steps of a kind are the late values (kernels/late.h).
void Recommender::step(int epoch, int64_t step) {
  const Kind kind = prepare(epoch, step);
  const int64_t passes = int64_t(stepping_.passes(step).size());
  const Range range = clock_.range(RangeId::step);  // around the launch of a replay too: inside it there are no ranges
  const Moment now{uint32_t(epoch), uint32_t(step), step * batch_size_};
  const auto known = recorded_.find(kind);
  if (!dev_.ops.record || clock_.timed || given_ || after_pass || known == recorded_.end()) {
    run(now, step, t_);
    t_ += passes;
    recorded_.emplace(kind, nullptr);
    return;
  }
  if (!known->second)
    known->second = dev_.ops.record(dev_.ctx, [&] {
      run({kLateEpoch, kLateStep, kLateFirst}, step, kLateT);
      dev_.ops.advance_late(dev_.ctx, batch_size_, passes);
    });
  if (late_.epoch != now.epoch || late_.step != now.step || late_.first != now.first || late_.t != t_)
    dev_.ops.set_late(dev_.ctx, {now.epoch, now.step, now.first, t_});
  dev_.ops.replay(dev_.ctx, known->second);
  t_ += passes;
  late_ = {now.epoch, now.step + 1, now.first + batch_size_, t_};
}

void Recommender::flush() {
  const Phase phase = clock_.phase(RangeId::optimiser);
  model_->flush(adam_, t_);
}

void Recommender::end_epoch(int epoch) {
  clock_.place = epoch;
  flush();
  hardness_.measure(*model_, epoch, clock_);
  model_->end_epoch(epoch, clock_);
}

EpochState Recommender::state() const {
  EpochState s;
  Losses all(size_t(losses_.n()));
  std::vector<Piece> list = {{all.data(), losses_.p(), all.size() * sizeof(double)}};
  if (const int32_t* const flag = model_->nan_flag()) list.push_back({&s.saw_nan, flag, sizeof s.saw_nan});
  if (dev_.ctx.fault) list.push_back({&s.fault, dev_.ctx.fault, sizeof s.fault});
  model_->counts(list);
  dev_.ops.read(dev_.ctx, list.data(), int(list.size()));
  s.all_finite = std::all_of(all.begin(), all.end(), [](double x) { return std::isfinite(x); });
  s.losses.assign(all.begin(), all.begin() + int64_t(n_losses_));
  return s;
}

void Recommender::set_losses(const Losses& l) {
  Losses all(size_t(losses_.n()));
  std::copy(l.begin(), l.end(), all.begin());
  losses_.upload(all.data(), losses_.n());
}

void Recommender::represent(CMat& hu, CMat& hi) {
  model_->represent(h_u_, h_i_);
  hu = h_u_, hi = h_i_;
}

void Recommender::represented(CMat& hu, CMat& hi) {
  if (!h_u_) model_->represent(h_u_, h_i_);
  hu = h_u_, hi = h_i_;
}

// --- looking into a step ---------------------------------------------------------------------------------------------

void Recommender::give(const Given& given) {
  const std::vector<int32_t> users = given.indices("batch.users", {kAny}, U_);
  const int64_t B = int64_t(users.size());
  const std::vector<int32_t> positives = given.indices("batch.positives", {B}, I_);
  CHECK_THAT(B <= batch_size_);
  given_ = true;
  batch_.rows = B;
  users_.upload(users.data(), B);
  items_.upload(positives.data(), B);
  if (batch_.n_neg > 0)
    items_.upload(given.indices("batch.negatives", {batch_.n_neg, B}, I_).data(), B * batch_.n_neg, B);
  model_->give(given, batch_);
}

void Recommender::draws(Watch& w) {
  const int64_t B = batch_.rows;
  w.indices("batch.users", {B}, batch_.users);
  w.indices("batch.positives", {B}, batch_.positives());
  if (batch_.n_neg > 0) w.indices("batch.negatives", {batch_.n_neg, B}, batch_.negatives());
  model_->draws(batch_, w);
}

void Recommender::forward_backward(int epoch, int64_t step, Pass pass) {
  prepare(epoch, step);
  const Moment now{uint32_t(epoch), uint32_t(step), step * batch_size_};
  const Step s = pass_of(now, t_, pass, true);
  if (!given_) {
    const Phase phase = clock_.phase(RangeId::sample);
    sample(now);  // the same in every pass
    model_->sample(batch_, s);
  }
  model_->forward(batch_, s);
  model_->backward(batch_, s);
}

void Recommender::update(float gradient) {
  model_->update(pass_of({0, 0, 0}, t_, {0, gradient}, true));
  ++t_;
}

}  // namespace ccdrec
