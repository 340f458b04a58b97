// Checkpoints: parameters under PyTorch-style names; for resuming also the optimiser's moments, the pools, the running losses and the counters.
#include "host/checkpoint.h"

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "host/safetensors.h"
#include "host/tensors.h"
#include "host/trainer_impl.h"

namespace ccdrec {

namespace {

constexpr const char* kFormat = "ccdrec-state-1";

// The settings that decide the numbers of a run. Two runs with the same text and the same data take the same course.
std::string settings_fingerprint(const Settings& s) {
  std::string mods, mm;
  for (const std::string& m : s.modalities) mods += m + ",";
  for (const double w : s.mm_weights) mm += fmt::format("{},", w);
  return fmt::format(
             "model={} backbone={} seed={} modalities={} d={} lr={} batch={} n_neg={} reg={} train_features={} eval_step={} valid_metric={} "
             "stopping_step={} n_ui={} n_mm={} "
             "knn_k={} center={} image_weight={} mm_weights={} dropout={} dma={} ndi={} cns={} lambda={} omega={} T={} schedule={} noise_form={} "
             "mirrored={} mu={} dtau={} "
             "first_stage={} tau_end={} ratio={} kappa={} cosine={} ndi_negative={} estimator={}/{}/{}",
             s.model, s.backbone, s.seed, mods, s.embedding_size, s.learning_rate, s.train_batch_size, s.n_neg, s.reg_weight, s.train_features,
             s.eval_step, s.valid_metric, s.stopping_step, s.n_ui_layers, s.n_mm_layers, s.knn_k, s.knn_center, s.mm_image_weight, mm, s.dropout,
             s.dma, s.ndi, s.cns, s.lambda, s.omega, s.timesteps, s.noise_schedule, s.noise_prediction_form, s.mirrored_timesteps, s.mu, s.dtau,
             s.first_stage, s.tau_end, s.candidate_ratio, s.kappa, s.cns_cosine, s.ndi_negative, s.estimator, s.estimator_layers, s.estimator_heads) +
         (s.precision == "fp32" ? "" : " precision=" + s.precision) + (s.spmm == "auto" ? "" : " spmm=" + s.spmm);
}

nlohmann::json summary_json(const TrainSummary& t) {
  return {{"best_epoch", t.best_epoch}, {"epochs_run", t.epochs_run},       {"best_score", t.best_score},    {"best_valid", t.best_valid},
          {"best_test", t.best_test},   {"train_seconds", t.train_seconds}, {"eval_seconds", t.eval_seconds}};
}

const std::string& meta_of(const TensorFile& file, const std::string& key, const std::string& path) {
  const auto it = file.metadata.find(key);
  if (it == file.metadata.end()) throw UserError(path + ": metadata '" + key + "' is missing; this is no state of a ccdrec run");
  return it->second;
}

int64_t number_of(const TensorFile& file, const std::string& key, const std::string& path) {
  const std::string& text = meta_of(file, key, path);
  try {
    return std::stoll(text);
  } catch (const std::logic_error&) { throw UserError(path + ": metadata '" + key + "' is '" + text + "', expected a number"); }
}

TrainSummary summary_of(const TensorFile& file, const std::string& path) {
  TrainSummary t;
  try {
    const auto j = nlohmann::json::parse(meta_of(file, "summary", path));
    t.best_epoch = j.at("best_epoch"), t.epochs_run = j.at("epochs_run"), t.best_score = j.at("best_score");
    t.best_valid = j.at("best_valid").get<Metrics>(), t.best_test = j.at("best_test").get<Metrics>();
    t.train_seconds = j.at("train_seconds"), t.eval_seconds = j.at("eval_seconds");
  } catch (const nlohmann::json::exception&) { throw UserError(path + ": metadata 'summary' cannot be read; the file is no state of a ccdrec run"); }
  return t;
}

// The state as a run with these settings continues it, and its summary with what the continued run does not know taken out.
SavedRun saved_run_of(const TensorFile& file, const std::string& path, const Settings& s, TrainSummary& summary) {
  if (meta_of(file, "ccdrec_format", path) != kFormat)
    throw UserError(path + ": format is '" + meta_of(file, "ccdrec_format", path) + "', this program resumes '" + kFormat + "'; start a new run");
  summary = summary_of(file, path);
  SavedRun r;
  r.epoch = int(number_of(file, "epoch", path)), r.next_step = number_of(file, "next_step", path),
  r.failures = int(number_of(file, "failures", path));
  const int begun = r.epoch + (r.next_step > 0 ? 1 : 0);
  if (begun > s.epochs)
    throw UserError(fmt::format("epochs is {}, but {} has {} {} epochs; give epochs={} or more", s.epochs, path, r.next_step > 0 ? "begun" : "done",
                                begun, begun));
  if (r.epoch < s.epochs && summary.best_epoch >= 0 && !evaluated_by_plan(s, summary.best_epoch))
    summary.best_epoch = -1, summary.best_score = -1, summary.best_valid.clear(), summary.best_test.clear();
  r.best_epoch = summary.best_epoch, r.best_score = summary.best_score;
  return r;
}

template <class Impl>
std::map<std::string, std::string> state_metadata(const Impl& z) {
  return {{"format", "pt"},
          {"ccdrec_format", kFormat},
          {"model", z.s.model},
          {"settings", settings_fingerprint(z.s)},
          {"data", z.data.checksum},
          {"t", std::to_string(z.model->t())},
          {"epoch", std::to_string(z.epoch)},
          {"next_step", std::to_string(z.next_step)},
          {"failures", std::to_string(z.failures)},
          {"summary", summary_json(z.summary).dump()}};
}

}  // namespace

SavedRun saved_run(const std::string& path, const Settings& s) {
  const std::vector<std::string> none;
  TrainSummary summary;
  return saved_run_of(read_safetensors(path, &none), path, s, summary);
}

bool is_over(const SavedRun& r, const Settings& s) { return r.next_step == 0 && (r.epoch >= s.epochs || r.failures > s.stopping_step); }

int best_epoch_of(const std::string& path) {
  const std::vector<std::string> none;
  try {
    return summary_of(read_safetensors(path, &none), path).best_epoch;
  } catch (const UserError&) { return -1; }
}

int Trainer::epoch() const { return impl_->epoch; }
int64_t Trainer::next_step() const { return impl_->next_step; }

// Called right after an evaluation: the representations it ranked with are still in place.
void Trainer::save_best(const std::string& path) {
  Impl& z = *impl_;
  const Range range(*z.device, RangeId::write, z.epoch);
  Recommender& model = *z.model;
  Writer out(z.device->ctx.device == DeviceKind::cpu);
  for (const Window& w : windows(model)) out.add("", w, *w.value);
  Backbone& b = model.backbone();
  const Array<float>& h = b.h_array();
  const int64_t U = b.users(), I = b.n_items(), d = z.s.embedding_size;
  out.add("final.user", {U, d}, h, 0, U, d, false);
  out.add("final.item", {I, d}, h, U * d, I, d, false);
  write_safetensors(path, out.views, state_metadata(z));
}

void Trainer::save_state(const std::string& path) {
  Impl& z = *impl_;
  const Range range(*z.device, RangeId::write, z.epoch);
  Recommender& model = *z.model;
  model.flush();  // every row at step t: exact, and the steps of the rows need not be stored
  Writer out(z.device->ctx.device == DeviceKind::cpu);
  for (const Window& w : windows(model)) {
    out.add("", w, *w.value);
    out.add("adam.m.", w, *w.m);
    out.add("adam.v.", w, *w.v);
  }
  if (Ndi* ndi = model.ndi(); ndi && ndi->ready())
    for (int k = 0; k < 4; ++k)
      if (Matrix& pool = ndi->pool_matrix(k))
        out.add("pool." + std::to_string(k), {pool.rows(), pool.cols()}, pool.array(), 0, pool.rows(), pool.cols(), false);
  const EpochLosses losses = z.next_step > 0 ? model.losses() : EpochLosses{};
  out.views.push_back({"state.losses", "F64", {EpochLosses::count}, losses.sum});
  write_safetensors(path, out.views, state_metadata(z));
}

void Trainer::load_state(const std::string& path) {
  Impl& z = *impl_;
  const Range range(*z.device, RangeId::read);
  Recommender& model = *z.model;
  const TensorFile file = read_safetensors(path);
  const auto meta = [&](const std::string& key) { return meta_of(file, key, path); };
  TrainSummary summary;
  const SavedRun run = saved_run_of(file, path, z.s, summary);
  if (meta("data") != z.data.checksum)
    throw UserError(path + ": the data folder has changed since this run (fingerprint " + meta("data") + ", now " + z.data.checksum +
                    "); resume with the same data");
  if (meta("settings") != settings_fingerprint(z.s))
    throw UserError(path + ": the settings differ from those of this run; resume with the run's own config.yaml (was: " + meta("settings") + ")");
  const auto tensor = [&](const std::string& name, int64_t values) -> const TensorData& {
    const auto it = file.tensors.find(name);
    if (it == file.tensors.end()) throw UserError(path + ": tensor '" + name + "' is missing; the file is no state of this model");
    if (it->second.dtype != "F32" || int64_t(it->second.bytes.size()) != values * 4)
      throw UserError(path + ": tensor '" + name + "' has another size than this model's");
    return it->second;
  };
  const auto restore = [&](const std::string& prefix, const Window& w, Array<float>& into) {
    const TensorData& t = tensor(prefix + w.name, w.rows * w.cols);
    if (!w.transposed) return into.upload(t.f32(), w.rows * w.cols, w.offset);
    std::vector<float> turned(size_t(w.rows * w.cols));
    for (int64_t r = 0; r < w.rows; ++r)
      for (int64_t c = 0; c < w.cols; ++c) turned[size_t(r * w.cols + c)] = t.f32()[c * w.rows + r];
    into.upload(turned.data(), w.rows * w.cols, w.offset);
  };
  // Everything is read before anything changes.
  const int64_t t = number_of(file, "t", path);
  const auto losses = file.tensors.find("state.losses");
  if (losses == file.tensors.end() || losses->second.bytes.size() != sizeof(EpochLosses{}.sum))
    throw UserError(path + ": tensor 'state.losses' is missing or has another size");
  const std::vector<Window> all = windows(model);
  for (const Window& w : all)
    for (const char* prefix : {"", "adam.m.", "adam.v."}) tensor(prefix + w.name, w.rows * w.cols);

  for (const Window& w : all) {
    restore("", w, *w.value);
    restore("adam.m.", w, *w.m);
    restore("adam.v.", w, *w.v);
  }
  model.backbone().nodes().set_reached(t);
  if (Modalities* modal = model.modalities())
    for (int k = 0; k < modal->count(); ++k)
      if (modal->features(k).trainable()) modal->features(k).set_reached(t);
  if (Ndi* ndi = model.ndi(); ndi && file.tensors.count("pool.3")) {
    for (int k = 0; k < 4; ++k)
      if (Matrix& pool = ndi->pool_matrix(k))
        pool.array().upload(tensor("pool." + std::to_string(k), pool.rows() * pool.cols()).f32(), pool.rows() * pool.cols());
    ndi->set_ready(true);
  }
  std::memcpy(z.partial.sum, losses->second.bytes.data(), sizeof z.partial.sum);
  model.set_t(t);
  z.epoch = run.epoch, z.next_step = run.next_step, z.failures = run.failures;
  z.summary = summary;
}

}  // namespace ccdrec
