#include "host/files/case.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "host/files/config.h"
#include "host/systems/registry.h"
#include "host/training/tensors.h"

namespace ccdrec {
namespace {

// The settings that a step of that epoch reads, as JSON of their own types.
nlohmann::json step_settings(const Settings& s, int epoch) {
  static const char* const read[] = {"model",       "backbone",
                                     "n_ui_layers", "n_mm_layers",
                                     "reg_weight",  "learning_rate",
                                     "n_neg",       "dma",
                                     "ndi",         "cns",
                                     "lambda_dm",   "omega",
                                     "mu",          "train_features",
                                     "timesteps",   "ndi_negative",
                                     "estimator",   "noise_schedule"};
  std::vector<std::string> keys(std::begin(read), std::end(read));
  if (s.estimator == "transformer") keys.insert(keys.end(), {"estimator_layers", "estimator_heads"});
  if (s.estimator == "unet") keys.push_back("unet_dropout");
  keys.insert(keys.end(), {"cl_weight", "temp", "ssl_temp", "ssl_alpha", "weight_decay", "mmgcn_latent", "mrd"});
  if (s.sampler != "none") keys.push_back("sampler");
  if (s.noise_prediction_form) keys.push_back("noise_prediction_form");
  if (s.precision != "fp32") keys.push_back("precision");
  if (outline_of(s).learned_graph) keys.insert(keys.end(), {"lambda_coeff", "train_batch_size"});
  const std::map<std::string, std::string> values = config_values(s);
  nlohmann::json j = nlohmann::json::object();
  for (const std::string& key : keys) {
    const auto it = values.find(key);
    if (it == values.end()) continue;  // a key of other models
    if (key == "omega" && !outline_of(s).curricular && s.sampler == "none") continue;
    const nlohmann::json typed = nlohmann::json::parse(it->second, nullptr, false);
    j[key] = typed.is_discarded() ? nlohmann::json(it->second) : typed;
  }
  if (rate_of(s, epoch) != s.learning_rate) j["learning_rate"] = rate_of(s, epoch);
  return j;
}

// Parameters; those too that could be trained and are not.
void add_parameters(Writer& out, Recommender& model, bool with_users) {
  Windows all = windows(model);
  model.model().constants(all);
  for (const Window& w : all)
    if (with_users || w.name != "user_embedding.weight") out.add("param.", w, *w.value);
}

// Of modalities whose features are no parameters, as they stand in the data: the model makes its own of them.
void add_raw_features(Writer& out, Trainer& trainer) {
  Windows all = windows(trainer.model());
  trainer.model().model().constants(all);
  for (const std::string& m : trainer.model().model().modalities()) {
    const std::string name = m + "_embedding.weight";
    if (std::any_of(all.begin(), all.end(), [&](const Window& w) { return w.name == name; })) continue;
    for (const Feature& f : trainer.data().features) {
      if (f.name != m) continue;
      std::vector<float> x(size_t(f.matrix.rows() * f.matrix.cols()));
      f.matrix.read_rows(x.data(), 0, f.matrix.rows());
      out.floats("param." + name, {f.matrix.rows(), f.matrix.cols()}, std::move(x));
    }
  }
}

std::map<std::string, std::string> case_metadata(const char* format, const Settings& s, Recommender& model, int epoch) {
  return {{"format", format},
          {"version", "1"},
          {"settings", step_settings(s, epoch).dump()},
          {"modalities", nlohmann::json(model.model().modalities()).dump()},
          {"epoch", std::to_string(epoch)}};
}

}  // namespace

void check_step(Trainer& trainer, const Settings& s, int epoch, int64_t step, int pass) {
  if (epoch < 0 || epoch >= s.epochs)
    throw UserError(fmt::format("--epoch {}: the run has epochs 0 to {} (setting epochs)", epoch, s.epochs - 1));
  const int64_t steps = trainer.model().steps_per_epoch();
  if (step < 0 || step >= steps)
    throw UserError(fmt::format("--step {}: an epoch of this run has steps 0 to {}", step, steps - 1));
  const int passes = int(trainer.model().passes(step).size());
  if (pass >= 0 && pass < passes) return;
  throw UserError(fmt::format(
      "--pass {}: {}", pass,
      passes > 1 ? "this step has passes 0 and 1"
      : s.use_mg
          ? fmt::format("this step has pass 0 alone; steps 0, {0}, {1}, .. have two (beta = {0})", s.beta, 2 * s.beta)
          : "a step has one pass, 0; Mirror Gradient (use_mg) has two"));
}

TrainSummary train_to(Trainer& trainer, const Settings& s, int epoch, int64_t step, TrainHooks hooks) {
  check_step(trainer, s, epoch, step);
  TrainSummary sum;
  sum.reason = StopReason::interrupted;
  if (epoch == 0 && step == 0) return sum;
  hooks.interrupted = [&, asked = hooks.interrupted] {
    return (trainer.epoch() == epoch && trainer.next_step() == step) || (asked && asked());
  };
  sum = trainer.run(hooks);
  if (sum.reason == StopReason::early)
    throw UserError(
        fmt::format("--epoch {}: the run ends before it, after epoch {} ({}); a larger stopping_step lets it go on",
                    epoch, trainer.epoch() - 1, sum.message));
  return sum;
}

void write_case(Trainer& trainer, const Settings& s, int pass, const std::string& path) {
  Recommender& model = trainer.model();
  Device& dev = trainer.device();
  const int epoch = trainer.epoch();
  const int64_t step = trainer.next_step();
  model.flush();                   // every row as dense Adam would have it before the step
  model.begin_epoch(epoch, step);  // in the middle of an epoch too: what chance alone decided is decided again
  const std::span<const Pass> passes = model.passes(step);
  for (int before = 0; before < pass; ++before) {
    model.forward_backward(epoch, step, passes[size_t(before)]);
    model.update(passes[size_t(before)].gradient);
    model.flush();
  }
  const Pass& now = passes[size_t(pass)];
  model.forward_backward(epoch, step, now);
  dev.check_faults();

  Writer out(dev);
  add_parameters(out, model, true);
  add_raw_features(out, trainer);
  for (const Window& w : windows(model)) {
    out.add("adam.m.", w, *w.m);
    out.add("adam.v.", w, *w.v);
  }
  Watch shown(dev), search(dev);
  model.model().graphs(shown);
  for (const ShownGraph& g : shown.graphs) out.graph(g.name, g.graph);
  model.draws(shown);
  for (const Shown& a : shown.all)
    if (a.name.starts_with("batch.") || a.name.starts_with("diffusion.") || a.name.starts_with("hard.") ||
        a.name.starts_with("graph.") || a.name.starts_with("mask."))
      out.add(a);
  model.model().explain(model.batch(), search);  // for readers; `ccdrec step` takes the negatives as they are
  for (const Shown& a : search.all) out.add(a);
  std::map<std::string, std::string> about = case_metadata("ccdrec-step", s, model, epoch);
  if (now.gradient != 1.0f) about["gradient"] = fmt::format("{}", now.gradient);
  about["t"] = std::to_string(model.t() + 1), about["step"] = std::to_string(step);
  write_safetensors(path, out.views, about);
}

void write_reverse_case(Trainer& trainer, const Settings& s, const std::string& path) {
  Recommender& model = trainer.model();
  Device& dev = trainer.device();
  const int epoch = trainer.epoch();
  CHECK_THAT(model.model().reverses());
  model.begin_epoch(epoch, trainer.next_step());
  for (int64_t step = trainer.next_step(); step < model.steps_per_epoch(); ++step) model.step(epoch, step);
  model.flush();
  dev.check_faults();

  Writer out(dev);
  add_parameters(out, model, false);
  const int64_t I = model.items(), d = s.embedding_size, T = s.timesteps;
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
  write_safetensors(path, out.views, case_metadata("ccdrec-reverse", s, model, epoch));
}

}  // namespace ccdrec
