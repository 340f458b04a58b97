#include "host/training/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "data/error.h"
#include "host/base/metric_name.h"
#include "host/systems/keys.h"
#include "host/systems/registry.h"
#include "host/training/checkpoint.h"
#include "host/training/trainer_impl.h"

namespace ccdrec {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// A setting with which each list leaves something out: with a k that is among topk already, where one is.
std::string usable_metric(const Settings& s, const Selects& choice) {
  int k = 0;
  for (const int t : s.topk)
    if (t < choice.fewest_places) k = std::max(k, t);
  const std::string setting = "valid_metric=" + s.valid_metric.substr(0, s.valid_metric.find('@') + 1);
  if (k > 0) return setting + std::to_string(k);
  k = int(choice.fewest_places / 2);
  return fmt::format("{}{} with {} among topk", setting, k, k);
}

// Why a list of that length says the same of every model for users who would have a say with a shorter one.
std::string takes_too_many(const std::string& metric, const Selects& choice, bool all_users) {
  if (metric.starts_with("hit"))
    return fmt::format("its list holds a hit{} in any order (from at most {} places on)",
                       all_users ? " of each validation user" : "", choice.most_places);
  return fmt::format("its list takes all {} (items without those of training, at most {})",
                     all_users ? "candidates of each validation user" : "of their candidates", choice.most_places);
}

std::string cannot_select(const Settings& s, const Selects& choice) {
  if (choice.short_users == 0)
    return "valid_metric " + s.valid_metric +
           " is the same for every model: no validation user has candidates both held out and not";
  return fmt::format("valid_metric {} is the same for every model: {}; {} can select", s.valid_metric,
                     takes_too_many(metric_key(s.valid_metric), choice, true), usable_metric(s, choice));
}

}  // namespace

void Trainer::check_settings(const Settings& s, const Dataset& data) {
  check_ranges(s);
  check_system(s, data);
}

Trainer::Impl::Impl(const Settings& settings, const Dataset& dataset) : s(settings), data(dataset) {
  check_settings(s, data);
  std::string note;
  device = make_device(s.device, s.threads, note, s.precision, s.spmm);
  notes.push_back(note);
  if (device->gpu()) device->ctx.reserve(Trainer::scratch(s, data));  // once: no step and no evaluation takes memory
  GraphsOfData graphs(*device, s, data, notes);
  model = std::make_unique<Recommender>(*device, s, data, graphs, notes);
  metric = metric_key(s.valid_metric);
  const std::vector<int> ks = cutoffs(s.topk, s.valid_metric);
  const HeldOut held_valid = held_out(data.valid);
  evaluation = std::make_unique<Evaluation>(device->ctx, device->ops, data.n_users, data.n_items, held_valid,
                                            held_out(data.test), ks);
  if (const std::string longer = longer_than_items(ks, data.n_items); !longer.empty()) notes.push_back(longer);
  const Selects choice = selects(metric, held_valid, graphs.train);
  const std::string latest_kept = fmt::format(
      "nothing to stop early by, so all {} epochs are trained and the last model evaluated is kept as the best",
      s.epochs);
  blind = choice.fixed_users == int64_t(held_valid.users.size());
  if (data.valid.empty()) {
    notes.push_back("no validation rows: " + latest_kept);
  } else if (blind) {
    blind_note = cannot_select(s, choice) + "; " + latest_kept;
    notes.push_back(blind_note);
  } else if (choice.short_users > 0) {
    notes.push_back(fmt::format("valid_metric {} has no say for {} of {} validation users: {}; {} would hear all",
                                s.valid_metric, choice.short_users, held_valid.users.size(),
                                takes_too_many(metric, choice, false), usable_metric(s, choice)));
  }
}

Trainer::Trainer(const Settings& s, const Dataset& data) : impl_(std::make_unique<Impl>(s, data)) {}
Trainer::~Trainer() = default;
const std::vector<std::string>& Trainer::notes() const { return impl_->notes; }
const Dataset& Trainer::data() const { return impl_->data; }
size_t Trainer::device_bytes() const { return impl_->device->ctx.peak_bytes(); }
Recommender& Trainer::model() { return *impl_->model; }
Device& Trainer::device() { return *impl_->device; }

TrainSummary Trainer::run(const TrainHooks& hooks) {
  Impl& z = *impl_;
  Recommender& model = *z.model;
  const int64_t steps = model.steps_per_epoch();
  TrainSummary& sum = z.summary;
  sum.reason = StopReason::running;
  int epochs_here = 0;
  const bool blind = sum.latest = z.blind;
  const auto out_of_patience = [&] {
    if (blind || z.failures <= z.s.stopping_step) return false;
    sum.reason = StopReason::early;
    sum.message = "no better " + z.s.valid_metric + " on validation for " + std::to_string(z.failures) + " evaluations";
    return true;
  };
  if (z.next_step == 0 && out_of_patience()) return sum;  // resumed after it had stopped
  for (int epoch = z.epoch; epoch < z.s.epochs; ++epoch) {
    EpochReport report;
    report.epoch = epoch, report.steps = steps;
    model.seconds().clear();
    // On a GPU the first epoch of a run waits after every phase and knows their seconds; later ones replay recorded
    // steps and know their total.
    const bool gpu = z.device->gpu();
    model.set_timed(gpu && epochs_here++ == 0);
    const double start = now();
    const Range range(*z.device, RangeId::epoch, epoch);
    model.begin_epoch(epoch, z.next_step);
    if (z.next_step > 0) model.set_losses(z.partial);  // resumed in the middle
    for (int64_t step = z.next_step; step < steps; ++step) {
      model.step(epoch, step);
      z.epoch = epoch, z.next_step = step + 1;
      if (!gpu && !model.state().finite()) {  // on a GPU asked once per epoch: a step waits for nothing
        sum.reason = StopReason::diverged;
        sum.message = "the loss is no longer finite at epoch " + std::to_string(epoch) + ", step " +
                      std::to_string(step) + "; try a smaller learning_rate";
        return sum;
      }
      if (hooks.on_step) hooks.on_step(epoch, step, steps);
      if (hooks.interrupted && hooks.interrupted()) {
        z.partial = model.losses();
        sum.reason = StopReason::interrupted;
        sum.message = "stopped after epoch " + std::to_string(epoch) + ", step " + std::to_string(step);
        sum.train_seconds += now() - start;
        return sum;
      }
    }
    model.end_epoch(epoch);
    const EpochState state = model.state();  // waits for a GPU; what is read after it is there
    if (state.fault) z.device->check_faults();
    if (gpu && !state.finite()) {
      sum.reason = StopReason::diverged;
      sum.message = "the loss is no longer finite in epoch " + std::to_string(epoch) + "; try a smaller learning_rate";
      return sum;
    }
    for (size_t k = 0; k < state.losses.size(); ++k) {
      const double mean = state.losses[k] / double(steps);
      report.losses[model.model().losses()[k]] = mean, report.loss += mean;
    }
    report.negatives = model.model().negatives(epoch);
    report.hardness = model.hardness();
    model.model().figures(report.figures);
    const double trained = now() - start;
    sum.train_seconds += trained;
    report.seconds = model.seconds();
    report.seconds["train"] = trained;

    const bool last = epoch + 1 == z.s.epochs;
    if (evaluated_by_plan(z.s, epoch) || (last && (blind || sum.best_epoch < 0))) {
      const double eval_start = now();
      const EvalResult r = z.evaluate();
      const double eval_seconds = now() - eval_start;
      report.evaluated = true, report.valid = r.valid, report.test = r.test;
      report.seconds["evaluation"] = eval_seconds;
      sum.eval_seconds += eval_seconds;
      const double score = r.valid.empty() ? 0 : round4(r.valid.at(z.metric));
      report.latest = blind;
      report.improved = blind || score > sum.best_score;
      if (report.improved) {
        sum.best_score = score, sum.best_epoch = epoch, sum.best_valid = r.valid, sum.best_test = r.test;
        z.failures = 0;
      } else {
        ++z.failures;
      }
    }
    z.epoch = epoch + 1, z.next_step = 0;
    sum.epochs_run = epoch + 1;
    if (report.improved && hooks.on_best) hooks.on_best();
    if (hooks.on_epoch) hooks.on_epoch(report);
    if (out_of_patience()) return sum;
    if (!last && hooks.interrupted && hooks.interrupted()) {
      sum.reason = StopReason::interrupted;
      sum.message = "stopped after epoch " + std::to_string(epoch);
      return sum;
    }
  }
  sum.reason = StopReason::max_epochs;
  return sum;
}

StepTimes Trainer::time_steps(int steps) {
  Impl& z = *impl_;
  Recommender& model = *z.model;
  StepTimes times;
  times.steps = model.steps_per_epoch();
  const auto timed = [&](auto&& work) {
    const double start = now();
    work();
    z.device->wait();
    return now() - start;
  };
  // The first epoch has no curricular negatives and no candidates of RealHNS: one step of it, whose time is that of
  // touching memory for the first time, and then an epoch by which they have begun.
  model.begin_epoch(0);
  model.step(0, 0);
  model.end_epoch(0);
  const int epoch = std::min(z.s.epochs - 1, std::max(z.s.dtau, z.s.realhns_start) + 1);
  times.begin = timed([&] { model.begin_epoch(epoch); });
  const int64_t n = std::min<int64_t>(steps, times.steps);
  times.step = timed([&] {
                 for (int64_t step = 0; step < n; ++step) model.step(epoch, step);
               }) /
               double(n);
  times.end = timed([&] { model.end_epoch(epoch); });
  times.evaluation = timed([&] { z.evaluate(); });
  return times;
}

EvalResult Trainer::Impl::evaluate() {
  const Range range(*device, RangeId::evaluation, epoch);
  CMat hu, hi;
  model->represent(hu, hi);
  return evaluation->run(hu, hi, model->train_csr());
}

}  // namespace ccdrec
