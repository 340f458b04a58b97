#include "host/case.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

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
  const int64_t step = trainer.next_step(), I = model.backbone().n_items(), d = s.embedding_size;
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
  nlohmann::json modalities = nlohmann::json::array();
  if (Modalities* modal = model.modalities())
    for (int k = 0; k < modal->count(); ++k) {
      modalities.push_back(modal->name(k));
      RowTable& x = modal->features(k);
      const int64_t F = x.value().cols;
      if (!x.trainable()) out.add("param." + modal->name(k) + "_embedding.weight", {I, F}, x.values().array(), 0, I, F, false);
    }
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
  write_safetensors(path, out.views,
                    {{"format", "ccdrec-step"},
                     {"version", "1"},
                     {"settings", step_settings(s).dump()},
                     {"t", std::to_string(model.t() + 1)},
                     {"modalities", modalities.dump()},
                     {"epoch", std::to_string(epoch)},
                     {"step", std::to_string(step)}});
}

}  // namespace ccdrec
