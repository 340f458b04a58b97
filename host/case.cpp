#include "host/case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/error.h"
#include "host/config.h"
#include "host/tensors.h"

namespace ccdrec {
namespace {

// The settings that a step reads, as JSON of their own types.
nlohmann::json step_settings(const Settings& s) {
  static const char* const read[] = {
      "model", "backbone",  "n_ui_layers", "n_mm_layers", "reg_weight",     "learning_rate", "n_neg",        "dma",       "ndi",
      "cns",   "lambda_dm", "omega",       "mu",          "train_features", "timesteps",     "ndi_negative", "estimator", "noise_schedule"};
  std::vector<std::string> keys(std::begin(read), std::end(read));
  if (s.estimator == "transformer") keys.insert(keys.end(), {"estimator_layers", "estimator_heads"});
  if (s.noise_prediction_form) keys.push_back("noise_prediction_form");
  if (s.precision != "fp32") keys.push_back("precision");
  const std::map<std::string, std::string> values = config_values(s);
  nlohmann::json j = nlohmann::json::object();
  for (const std::string& key : keys) {
    const auto it = values.find(key);
    if (it == values.end()) continue;  // a key of other models
    const nlohmann::json typed = nlohmann::json::parse(it->second, nullptr, false);
    j[key] = typed.is_discarded() ? nlohmann::json(it->second) : typed;
  }
  return j;
}

// Their names; features that are not trained, and so have no window, are written.
nlohmann::json add_modalities(Writer& out, Recommender& model) {
  nlohmann::json names = nlohmann::json::array();
  Modalities* const modal = model.modalities();
  for (int k = 0; modal && k < modal->count(); ++k) {
    names.push_back(modal->name(k));
    RowTable& x = modal->features(k);
    const int64_t I = x.value().rows, F = x.value().cols;
    if (!x.trainable()) out.add("param." + modal->name(k) + "_embedding.weight", {I, F}, x.values().array(), 0, I, F, false);
  }
  return names;
}

std::map<std::string, std::string> case_metadata(const char* format, const Settings& s, const nlohmann::json& modalities, int epoch) {
  return {{"format", format},
          {"version", "1"},
          {"settings", step_settings(s).dump()},
          {"modalities", modalities.dump()},
          {"epoch", std::to_string(epoch)}};
}

// How the curricular negatives of a batch were found in a pool of NDI: for readers, `ccdrec step` takes the negatives as they are.
void add_search(Writer& out, Device& dev, Recommender& model, const Settings& s, const BatchDraws& b, const HostCsr& train, int epoch, int64_t step) {
  const int64_t B = int64_t(b.users.size()), C = model.cns()->candidate_count(), I = model.backbone().n_items(), d = s.embedding_size;
  const std::vector<float> pool = model.ndi()->pool_matrix(int(model.pool()) - int(Pool::stage0)).array().host();
  std::vector<int32_t> candidates(static_cast<size_t>(C)), excluded(size_t(B * C)), rank(static_cast<size_t>(B));
  dev.ops.download(dev.ctx, candidates.data(), model.cns()->candidates(), candidates.size() * sizeof(int32_t));
  std::vector<float> similarity(size_t(B * C));
  const auto dot = [&](int64_t i, int64_t j) {
    return std::inner_product(&pool[size_t(i * d)], &pool[size_t(i * d)] + d, &pool[size_t(j * d)], 0.0);
  };
  for (int64_t r = 0; r < B; ++r) {
    const int64_t p = b.positives[size_t(r)], u = b.users[size_t(r)];
    int64_t admissible = C;
    for (int64_t k = 0; k < C; ++k) {
      const int32_t c = candidates[size_t(k)];
      const double norms = s.cns_cosine ? std::sqrt(dot(p, p) * dot(c, c)) : 1.0;
      similarity[size_t(r * C + k)] = norms > 0 ? float(dot(p, c) / norms) : 0.0f;
      const auto first = train.col.begin() + train.row_ptr[size_t(u)], last = train.col.begin() + train.row_ptr[size_t(u) + 1];
      if (std::binary_search(first, last, c)) excluded[size_t(r * C + k)] = 1, --admissible;
    }
    const Draw4 x = draw(Stream{s.seed, Use::cns_rank, uint32_t(epoch), uint32_t(step)}, uint32_t(r));
    rank[size_t(r)] = admissible ? int32_t(below(x.v[0], uint32_t(std::min(model.cns()->k_top(), admissible)))) : -1;
  }
  out.floats("cns.pool", {I, d}, pool);
  out.indices("cns.candidates", {C}, candidates);
  out.floats("cns.similarity", {B, C}, similarity);
  out.indices("cns.excluded", {B, C}, excluded);
  out.indices("cns.rank", {B}, rank);
}

}  // namespace

void check_step(Trainer& trainer, const Settings& s, int epoch, int64_t step) {
  if (epoch < 0 || epoch >= s.epochs) throw UserError(fmt::format("--epoch {}: the run has epochs 0 to {} (setting epochs)", epoch, s.epochs - 1));
  const int64_t steps = trainer.model().steps_per_epoch();
  if (step < 0 || step >= steps) throw UserError(fmt::format("--step {}: an epoch of this run has steps 0 to {}", step, steps - 1));
}

TrainSummary train_to(Trainer& trainer, const Settings& s, int epoch, int64_t step, TrainHooks hooks) {
  check_step(trainer, s, epoch, step);
  TrainSummary sum;
  sum.reason = StopReason::interrupted;
  if (epoch == 0 && step == 0) return sum;
  hooks.interrupted = [&, asked = hooks.interrupted] { return (trainer.epoch() == epoch && trainer.next_step() == step) || (asked && asked()); };
  sum = trainer.run(hooks);
  if (sum.reason == StopReason::early)
    throw UserError(fmt::format("--epoch {}: the run ends before it, after epoch {} ({}); a larger stopping_step lets it go on", epoch,
                                trainer.epoch() - 1, sum.message));
  return sum;
}

void write_case(Trainer& trainer, const Settings& s, const std::string& path) {
  Recommender& model = trainer.model();
  Device& dev = trainer.device();
  const int epoch = trainer.epoch();
  const int64_t step = trainer.next_step(), d = s.embedding_size;
  model.flush();             // every row as dense Adam would have it before the step
  model.begin_epoch(epoch);  // graph and order are functions of (seed, epoch): the same again in the middle of an epoch
  model.forward_backward(epoch, step);
  dev.check_faults();
  const BatchDraws b = model.draws();

  Writer out(!dev.gpu());
  for (const Window& w : windows(model)) {
    out.add("param.", w, *w.value);
    out.add("adam.m.", w, *w.m);
    out.add("adam.v.", w, *w.v);
  }
  const nlohmann::json modalities = add_modalities(out, model);
  const BackboneSpec& spec = model.backbone().spec();
  if (spec.layers > 0) out.graph("graph.user_item", downloaded(dev, model.backbone().graph()));
  if (spec.item_graph) out.graph("graph.item_item", downloaded(dev, model.backbone().item_graph()));
  const int64_t B = int64_t(b.users.size()), n = int64_t(b.items.size());
  out.indices("batch.users", {B}, b.users);
  out.indices("batch.positives", {B}, b.positives);
  out.indices("batch.negatives", {s.n_neg, B}, b.negatives);
  if (!b.curricular.empty()) out.indices("batch.curricular", {B}, b.curricular);
  if (!b.frozen.empty()) out.floats("batch.frozen", {B, d}, b.frozen);
  if (n) out.indices("diffusion.items", {n}, b.items);
  if (!b.t.empty()) out.indices("diffusion.t", {n}, b.t), out.floats("diffusion.noise", {n, d}, b.noise);
  if (model.cns() && model.pool() >= Pool::stage0 && model.pool() <= Pool::stage3)
    add_search(out, dev, model, s, b, downloaded(dev, model.train_csr(), false), epoch, step);
  std::map<std::string, std::string> about = case_metadata("ccdrec-step", s, modalities, epoch);
  about["t"] = std::to_string(model.t() + 1), about["step"] = std::to_string(step);
  write_safetensors(path, out.views, about);
}

void write_reverse_case(Trainer& trainer, const Settings& s, const std::string& path) {
  Recommender& model = trainer.model();
  Device& dev = trainer.device();
  const int epoch = trainer.epoch();
  CHECK_THAT(model.shape().diffusion);
  model.begin_epoch(epoch);
  for (int64_t step = trainer.next_step(); step < model.steps_per_epoch(); ++step) model.step(epoch, step);
  model.flush();
  dev.check_faults();

  Writer out(!dev.gpu());
  for (const Window& w : windows(model))
    if (w.name != "user_embedding.weight") out.add("param.", w, *w.value);
  const nlohmann::json modalities = add_modalities(out, model);
  const int64_t I = model.backbone().n_items(), d = s.embedding_size, T = s.timesteps;
  const Matrix eps(dev, I, d);
  const auto drawn = [&](Use use, int64_t t) {  // as kernels/estimator.h addresses them
    dev.ops.draw_normals(dev.ctx, eps, RowList{nullptr, nullptr, I}, Stream{s.seed, use, uint32_t(epoch), uint32_t(t)});
    return eps.array().host();
  };
  out.floats("noise.start", {I, d}, drawn(Use::reverse_start, T));
  std::vector<float> steps(size_t(I * d), 0.0f);  // that of t = 1 is not used
  for (int64_t t = 2; t <= T; ++t) {
    const std::vector<float> z = drawn(Use::reverse_noise, t);
    steps.insert(steps.end(), z.begin(), z.end());
  }
  out.floats("noise.steps", {T, I, d}, std::move(steps));
  write_safetensors(path, out.views, case_metadata("ccdrec-reverse", s, modalities, epoch));
}

}  // namespace ccdrec
