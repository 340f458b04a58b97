#include "host/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "data/error.h"
#include "host/checkpoint.h"
#include "host/config.h"
#include "host/trainer_impl.h"

namespace ccdrec {

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<float> modality_weights(const Settings& s, size_t count) {
  std::vector<float> w;
  if (!s.mm_weights.empty()) {
    double sum = 0;
    for (const double x : s.mm_weights) sum += x;
    if (s.mm_weights.size() != count || std::fabs(sum - 1.0) > 1e-6)
      throw UserError("mm_weights has " + std::to_string(s.mm_weights.size()) + " values with sum " + std::to_string(sum) + ", expected " +
                      std::to_string(count) + " values (one per modality) with sum 1");
    w.assign(s.mm_weights.begin(), s.mm_weights.end());
  } else if (count == 1) {
    w = {1.0f};
  } else if (count == 2) {
    w = {float(s.mm_image_weight), float(1.0 - s.mm_image_weight)};
  } else {
    w.assign(count, float(1.0 / double(count)));
  }
  return w;
}

// A setting with which each list leaves something out: with a k that is among topk already, where one is.
std::string usable_metric(const Settings& s, const Selects& choice) {
  int k = 0;
  for (const int t : s.topk)
    if (t < choice.fewest_candidates) k = std::max(k, t);
  const std::string setting = "valid_metric=" + s.valid_metric.substr(0, s.valid_metric.find('@') + 1);
  if (k > 0) return setting + std::to_string(k);
  k = int(choice.fewest_candidates / 2);
  return fmt::format("{}{} with {} among topk", setting, k, k);
}

std::string cannot_select(const Settings& s, const Selects& choice) {
  if (choice.short_users == 0)
    return "valid_metric " + s.valid_metric + " is the same for every model: no validation user has candidates both held out and not";
  return fmt::format(
      "valid_metric {} is the same for every model: its list takes all candidates of each validation user (items without those of training, at most "
      "{}); {} can select",
      s.valid_metric, choice.most_candidates, usable_metric(s, choice));
}

}  // namespace

void Trainer::check_settings(const Settings& s, const Dataset& data) {
  const auto bad = [](const std::string& key, const std::string& got, const std::string& want) {
    throw UserError(key + " is " + got + ", expected " + want);
  };
  check_ranges(s);
  const Shape shape = model_shape(s);
  if (shape.diffusion) check_estimator(s);
  constexpr int kWidestOnGpu = 512;  // kernels/cuda/estimator.h: a row stays in the registers of a warp
  if (shape.diffusion && s.embedding_size > kWidestOnGpu && s.estimator == "attention" && takes_gpu(s.device))
    bad("embedding_size", std::to_string(s.embedding_size), "at most " + std::to_string(kWidestOnGpu) + " on a GPU with the estimator attention");
  if (data.train.empty()) throw UserError("data set " + data.name + " has no training rows; x_label 0 marks them");
  const bool needs_features = shape.modalities || shape.backbone.item_graph;
  if (needs_features && data.features.empty())
    throw UserError("model " + s.model + " reads item features, but " + data.folder + " has no *_feat.npy; add one, or choose BPR or LightGCN");
  if (needs_features && data.features.size() > size_t(kMaxModalities))
    throw UserError(std::to_string(data.features.size()) + " modalities found, at most " + std::to_string(kMaxModalities) +
                    " are supported; choose some with modalities");
  if (shape.backbone.item_graph && s.knn_k > data.n_items)
    bad("knn_k", std::to_string(s.knn_k), "at most the number of items, " + std::to_string(data.n_items));
  if (shape.backbone.item_graph) modality_weights(s, data.features.size());
}

Trainer::Impl::Impl(const Settings& settings, const Dataset& dataset) : s(settings), data(dataset) {
  check_settings(s, data);
  std::string note;
  device = make_device(s.device, s.threads, note, s.precision, s.spmm);
  notes.push_back(note);
  if (device->gpu()) device->ctx.reserve(Trainer::scratch(s, data));  // once: no step and no evaluation takes memory
  const Shape shape = model_shape(s);
  Graphs graphs;
  graphs.train = pairs_by_user(data.train, data.n_users, data.n_items);
  if (shape.backbone.layers > 0) graphs.user_item = user_item_graph(graphs.train);
  if (graphs.train.nnz() < int64_t(data.train.size()))
    notes.push_back(std::to_string(int64_t(data.train.size()) - graphs.train.nnz()) +
                    " duplicated training rows: one edge each in the graphs, kept as training samples");
  if (shape.backbone.item_graph) {
    std::vector<std::vector<int32_t>> knn;
    for (const Feature& f : data.features) {
      const Range range(*device, RangeId::knn);
      KnnResult r = knn_lists(device->ctx, device->ops, f, s.knn_k, s.knn_center, s.seed, s.graph_cache);
      notes.push_back("item graph of " + f.name + ": " + std::to_string(s.knn_k) + " neighbours each, " + std::to_string(r.tied_rows) + " of " +
                      std::to_string(data.n_items) + " rows tie at the last one" + (r.from_cache ? " (from the cache)" : ""));
      if (!r.note.empty()) notes.push_back(r.note);
      knn.push_back(std::move(r.idx));
      f.matrix.forget_pages();
    }
    const std::vector<float> weights = modality_weights(s, data.features.size());
    graphs.items = item_graph(knn, weights, data.n_items, s.knn_k);
    std::string mixed;
    for (size_t m = 0; m < weights.size(); ++m) mixed += fmt::format("{}{} {:g}", m ? ", " : "", data.features[m].name, weights[m]);
    notes.push_back("item graph: weights " + mixed);
    graphs.items_t = transpose(graphs.items);
  }
  model = std::make_unique<Recommender>(*device, s, data, graphs);
  if (shape.backbone.prune > 0)
    notes.push_back("training graph: " + std::to_string(model->backbone().kept_edges()) + " of " + std::to_string(graphs.train.nnz()) +
                    " edges kept per epoch");
  metric = metric_key(s.valid_metric);
  const std::vector<int> ks = cutoffs(s.topk, s.valid_metric);
  const HeldOut held_valid = held_out(data.valid);
  evaluation = std::make_unique<Evaluation>(device->ctx, device->ops, data.n_users, data.n_items, held_valid, held_out(data.test), ks);
  if (const std::string longer = longer_than_items(ks, data.n_items); !longer.empty()) notes.push_back(longer);
  const Selects choice = selects(metric, held_valid, graphs.train);
  const std::string latest_kept =
      fmt::format("nothing to stop early by, so all {} epochs are trained and the last model evaluated is kept as the best", s.epochs);
  blind = choice.fixed_users == int64_t(held_valid.users.size());
  if (data.valid.empty()) {
    notes.push_back("no validation rows: " + latest_kept);
  } else if (blind) {
    blind_note = cannot_select(s, choice) + "; " + latest_kept;
    notes.push_back(blind_note);
  } else if (choice.short_users > 0) {
    notes.push_back(fmt::format(
        "valid_metric {} has no say for {} of {} validation users: its list takes all of their candidates (items without those of training, "
        "at most {}); {} would hear all",
        s.valid_metric, choice.short_users, held_valid.users.size(), choice.most_candidates, usable_metric(s, choice)));
  }
}

Trainer::Trainer(const Settings& s, const Dataset& data) : impl_(std::make_unique<Impl>(s, data)) {}
Trainer::~Trainer() = default;
const std::vector<std::string>& Trainer::notes() const { return impl_->notes; }
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
    // On a GPU the first epoch of a run waits after every phase and knows their seconds; later ones replay recorded steps and know their total.
    const bool gpu = z.device->gpu();
    model.set_timed(gpu && epochs_here++ == 0);
    const double start = now();
    const Range range(*z.device, RangeId::epoch, epoch);
    model.begin_epoch(epoch);
    if (z.next_step > 0) model.set_losses(z.partial);  // resumed in the middle: order and graph are functions of (seed, epoch)
    for (int64_t step = z.next_step; step < steps; ++step) {
      model.step(epoch, step);
      z.epoch = epoch, z.next_step = step + 1;
      if (!gpu && !model.state().finite()) {  // on a GPU asked once per epoch: a step waits for nothing
        sum.reason = StopReason::diverged;
        sum.message =
            "the loss is no longer finite at epoch " + std::to_string(epoch) + ", step " + std::to_string(step) + "; try a smaller learning_rate";
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
    const EpochState state = model.state();  // the one wait of an epoch on a GPU
    if (state.fault) z.device->check_faults();
    if (gpu && !state.finite()) {
      sum.reason = StopReason::diverged;
      sum.message = "the loss is no longer finite in epoch " + std::to_string(epoch) + "; try a smaller learning_rate";
      return sum;
    }
    const EpochLosses& l = state.losses;
    static const char* const parts[] = {"bpr", "bpr_curricular", "align", "reg"};
    for (int k = 0; k < EpochLosses::count; ++k) report.losses[parts[k]] = l.sum[k] / double(steps), report.loss += l.sum[k] / double(steps);
    report.negatives = model.negatives_name();
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

EvalResult Trainer::Impl::evaluate() {
  const Range range(*device, RangeId::evaluation, epoch);
  CMat hu, hi;
  model->represent(hu, hi);
  return evaluation->run(hu, hi, model->train_csr());
}

}  // namespace ccdrec
