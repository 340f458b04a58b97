// Checkpoints: parameters under PyTorch-style names; for resuming also the optimiser's moments, the pools, the running
// losses and the counters.
#include "host/training/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/error.h"
#include "data/text.h"
#include "host/base/numbers.h"
#include "host/base/safetensors.h"
#include "host/base/strict_json.h"
#include "host/training/tensors.h"
#include "host/training/trainer_impl.h"

namespace ccdrec {

namespace {

constexpr const char* kFormat = "ccdrec-state-1";

// A setting that decides the numbers of a run: its name in the fingerprint, its key, its value. One that came later is
// left out of the text where it has the value that every run had before: an older run keeps its fingerprint.
struct Deciding {
  const char* name;
  const char* key;
  std::string value, before = "";
};

std::vector<Deciding> deciding_settings(const Settings& s) {
  std::string mods, mm;
  for (const std::string& m : s.modalities) mods += m + ",";
  for (const double w : s.mm_weights) mm += fmt::format("{},", w);
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  return {{"model", "model", s.model},
          {"backbone", "backbone", s.backbone},
          {"seed", "seed", text(s.seed)},
          {"modalities", "modalities", mods},
          {"d", "embedding_size", text(s.embedding_size)},
          {"lr", "learning_rate", text(s.learning_rate)},
          {"batch", "train_batch_size", text(s.train_batch_size)},
          {"n_neg", "n_neg", text(s.n_neg)},
          {"reg", "reg_weight", text(s.reg_weight)},
          {"train_features", "train_features", text(s.train_features)},
          {"eval_step", "eval_step", text(s.eval_step)},
          {"valid_metric", "valid_metric", s.valid_metric},
          {"stopping_step", "stopping_step", text(s.stopping_step)},
          {"n_ui", "n_ui_layers", text(s.n_ui_layers)},
          {"n_mm", "n_mm_layers", text(s.n_mm_layers)},
          {"knn_k", "knn_k", text(s.knn_k)},
          {"center", "knn_center", text(s.knn_center)},
          {"image_weight", "mm_image_weight", text(s.mm_image_weight)},
          {"mm_weights", "mm_weights", mm},
          {"dropout", "dropout", text(s.dropout)},
          {"frozen", "lambda_coeff", text(s.lambda_coeff), "0.9"},
          {"rates", "learning_rate_scheduler", fmt::format("{}", fmt::join(s.learning_rate_scheduler, ",")), "1,50"},
          {"dgd", "dgd", s.dgd, "on"},
          {"dgd_tau", "dgd_tau", text(s.dgd_tau), "0.3"},
          {"decay", "weight_decay", text(s.weight_decay), "0"},
          {"cl", "cl_weight", text(s.cl_weight), "2"},
          {"temp", "temp", text(s.temp), "0.2"},
          {"ssl_temp", "ssl_temp", text(s.ssl_temp), "0.1"},
          {"ssl_alpha", "ssl_alpha", text(s.ssl_alpha), "0.01"},
          {"latent", "mmgcn_latent", text(s.mmgcn_latent), "256"},
          {"mrd", "mrd", text(s.mrd), "true"},
          {"unet_dropout", "unet_dropout", text(s.unet_dropout), "0.1"},
          {"dma", "dma", text(s.dma)},
          {"ndi", "ndi", text(s.ndi)},
          {"cns", "cns", text(s.cns)},
          {"lambda", "lambda_dm", text(s.lambda)},
          {"omega", "omega", text(s.omega)},
          {"T", "timesteps", text(s.timesteps)},
          {"schedule", "noise_schedule", s.noise_schedule},
          {"noise_form", "noise_prediction_form", text(s.noise_prediction_form)},
          {"mirrored", "mirrored_timesteps", text(s.mirrored_timesteps)},
          {"mu", "mu", text(s.mu)},
          {"dtau", "dtau", text(s.dtau)},
          {"first_stage", "first_stage", text(s.first_stage)},
          {"tau_end", "tau_end", text(s.tau_end)},
          {"ratio", "candidate_ratio", text(s.candidate_ratio)},
          {"kappa", "kappa", text(s.kappa)},
          {"cosine", "cns_cosine", text(s.cns_cosine)},
          {"ndi_negative", "ndi_negative", s.ndi_negative},
          {"estimator", "estimator/estimator_layers/estimator_heads",
           fmt::format("{}/{}/{}", s.estimator, s.estimator_layers, s.estimator_heads)},
          {"precision", "precision", s.precision, "fp32"},
          {"spmm", "spmm", s.spmm, "auto"},
          {"mg", "use_mg", text(s.use_mg), "false"},
          {"alpha1", "alpha1", text(s.alpha1), "1"},
          {"alpha2", "alpha2", text(s.alpha2), "0.2"},
          {"beta", "beta", text(s.beta), "3"},
          {"sampler", "sampler", s.sampler, "none"},
          {"N", "n_candidates", text(s.n_candidates), "32"},
          {"top_m", "top_m", text(s.top_m), "1"},
          {"power", "popularity_power", text(s.popularity_power), "0.75"},
          {"p_min", "realhns_p_min", text(s.realhns_p_min), "0"},
          {"p_max", "realhns_p_max", text(s.realhns_p_max), "10"},
          {"N_c", "realhns_candidates", text(s.realhns_candidates), "1000"},
          {"clusters", "realhns_clusters", text(s.realhns_clusters), "100"},
          {"e0", "realhns_start", text(s.realhns_start), "5"},
          {"top", "realhns_top", text(s.realhns_top), "0.1"}};
}

// Two runs with the same text and the same data take the same course.
}  // namespace

std::string settings_fingerprint(const Settings& s) {
  std::string text;
  for (const Deciding& d : deciding_settings(s))
    if (d.before.empty() || d.value != d.before)
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", d.name, d.value);
  return text;
}

namespace {

// The columns of the .inter file that a run reads: user, item, split.
std::string columns_of(const Settings& s) {
  return fmt::format("{}, {}, {}", s.user_id_field, s.item_id_field, s.inter_splitting_label);
}

// The settings in which a fingerprint differs from these: "dropout = 0.8 there and 0.5 in this run, ...".
std::string differences(const std::string& fingerprint, const Settings& s) {
  std::map<std::string, std::string> there;
  std::istringstream words(fingerprint);
  std::string last;
  for (std::string word; words >> word;) {  // a word without `=` goes on with a name that holds a blank
    const size_t at = word.find('=');
    if (at != std::string::npos)
      there[last = word.substr(0, at)] = word.substr(at + 1);
    else
      there[last] += " " + word;
  }
  std::string text;
  const auto add = [&](const std::string& key, const std::string& was, const std::string& is) {
    const auto told = [](const std::string& value) { return value.empty() ? "nothing" : shown(value); };
    text += fmt::format("{}{} = {} there and {} in this run", text.empty() ? "" : ", ", key, told(was), told(is));
  };
  for (const Deciding& d : deciding_settings(s)) {
    const auto it = there.find(d.name);
    const std::string was = it == there.end() ? d.before : it->second;
    if (was != d.value) add(d.key, was, d.value);
    if (it != there.end()) there.erase(it);
  }
  for (const auto& [name, value] : there) add(shown(name), value, "");  // of a later program
  return text;
}

nlohmann::json summary_json(const TrainSummary& t) {
  return {{"best_epoch", t.best_epoch},    {"epochs_run", t.epochs_run}, {"best_score", t.best_score},
          {"best_valid", t.best_valid},    {"best_test", t.best_test},   {"train_seconds", t.train_seconds},
          {"eval_seconds", t.eval_seconds}};
}

const std::string& meta_of(const TensorFile& file, const std::string& key, const std::string& path) {
  const auto it = file.metadata.find(key);
  if (it == file.metadata.end())
    throw UserError(path + ": metadata '" + key + "' is missing; this is no state of a ccdrec run");
  return it->second;
}

int64_t number_of(const TensorFile& file, const std::string& key, int64_t least, int64_t most,
                  const std::string& path) {
  return whole_number(meta_of(file, key, path), least, most, fmt::format("{}: metadata '{}'", path, key));
}

// `epoch`: epochs done when the file was written. All that it says lies before.
TrainSummary summary_of(const TensorFile& file, int epoch, const std::string& path) {
  bool repeated = false;
  const nlohmann::json j = parse_strict(meta_of(file, "summary", path), repeated);
  const auto at = [&](const char* key) -> const nlohmann::json& {
    if (!j.is_object() || repeated || !j.contains(key))
      throw UserError(fmt::format("{}: metadata 'summary' cannot be read ({}); the file is no state of a ccdrec run",
                                  path,
                                  repeated        ? "a key stands twice"
                                  : j.is_object() ? fmt::format("no {}", key)
                                                  : "no JSON object"));
    return j[key];
  };
  const auto named = [&](const std::string& key) { return fmt::format("{}: metadata 'summary': {}", path, key); };
  const auto real = [&](const char* key, double least, double most) {
    return real_number(at(key), least, most, named(key));
  };
  constexpr double kHighest = 1 + 1e-9;  // of a metric: a mean of ones may round up
  const auto metrics = [&](const char* key) {
    if (!at(key).is_object())
      throw UserError(named(key) + " is no list of metrics; the file is no state of a ccdrec run");
    Metrics m;
    for (const auto& [name, value] : at(key).items())
      m[name] = real_number(value, 0, kHighest, named(fmt::format("{}: {}", key, shown(name))));
    return m;
  };
  TrainSummary t;
  t.best_epoch = int(whole_number(at("best_epoch"), -1, epoch - 1, named("best_epoch")));
  t.epochs_run = int(whole_number(at("epochs_run"), 0, epoch, named("epochs_run")));
  t.best_score = real("best_score", -1, kHighest);
  t.best_valid = metrics("best_valid"), t.best_test = metrics("best_test");
  constexpr double kLongest = 1e12;  // seconds
  t.train_seconds = real("train_seconds", 0, kLongest), t.eval_seconds = real("eval_seconds", 0, kLongest);
  return t;
}

int epoch_of(const TensorFile& file, const std::string& path) {
  return int(number_of(file, "epoch", 0, INT_MAX - 1, path));
}

// The state as a run with these settings continues it, and its summary with what the continued run does not know taken
// out.
SavedRun saved_run_of(const TensorFile& file, const std::string& path, const Settings& s, TrainSummary& summary) {
  if (meta_of(file, "ccdrec_format", path) != kFormat)
    throw UserError(path + ": format is '" + shown(meta_of(file, "ccdrec_format", path)) + "', this program resumes '" +
                    kFormat + "'; start a new run");
  SavedRun r;
  r.epoch = epoch_of(file, path);
  r.next_step = number_of(file, "next_step", 0, INT64_MAX, path);
  r.failures = int(number_of(file, "failures", 0, r.epoch, path));
  summary = summary_of(file, r.epoch, path);
  r.saved_best = summary.best_epoch;
  const int begun = r.epoch + (r.next_step > 0 ? 1 : 0);
  if (begun > s.epochs)
    throw UserError(fmt::format("epochs is {}, but {} has {} {} epochs; give epochs={} or more", s.epochs, path,
                                r.next_step > 0 ? "begun" : "done", begun, begun));
  if (r.epoch < s.epochs && summary.best_epoch >= 0 && !evaluated_by_plan(s, summary.best_epoch))
    summary.best_epoch = -1, summary.best_score = -1, summary.best_valid.clear(), summary.best_test.clear();
  r.best_epoch = summary.best_epoch, r.best_score = summary.best_score;
  return r;
}

RunIdentity identity_of(const TensorFile& file, const std::string& path) {
  const auto text = [&](const char* key) {
    const auto it = file.metadata.find(key);
    return it == file.metadata.end() ? "" : it->second;
  };
  RunIdentity run{text("settings"), text("columns"), text("interactions"), text("data"), {}};
  if (file.metadata.count("summary")) run.summary = summary_of(file, epoch_of(file, path), path);
  return run;
}

void check_same_run(const TensorFile& file, const std::string& path, const Settings& s,
                    const std::string& data_checksum) {
  if (meta_of(file, "data", path) != data_checksum)
    throw UserError(fmt::format(
        "{}: the data folder has changed since this run (fingerprint {}, now {}); resume with the same data", path,
        shown(meta_of(file, "data", path)), data_checksum));
  if (const std::string others = other_settings(identity_of(file, path), s); !others.empty())
    throw UserError(fmt::format(
        "{}: was computed with other settings: {}; put the first value back into config.yaml, or start a new run", path,
        others));
}

// The names of state.losses, with blanks between them. Absent: the four that every model had once.
std::string joined_losses(Recommender& model) {
  std::string names;
  for (const char* name : model.model().losses()) names += (names.empty() ? "" : " ") + std::string(name);
  return names;
}
std::vector<std::string> names_of_losses(const TensorFile& file) {
  const auto meta = file.metadata.find("losses");
  std::istringstream in(meta == file.metadata.end() ? "bpr bpr_curricular align reg" : meta->second);
  return {std::istream_iterator<std::string>(in), {}};
}

// Runs begun before there was a choice keep the first epoch of the best value even where no value can be better.
constexpr const char* kKeepsLatest = "keeps_latest";

template <class Impl>
std::map<std::string, std::string> state_metadata(const Impl& z) {
  std::map<std::string, std::string> meta = {{"format", "pt"},
                                             {"ccdrec_format", kFormat},
                                             {"model", z.s.model},
                                             {"settings", settings_fingerprint(z.s)},
                                             {"columns", columns_of(z.s)},
                                             {"interactions", z.data.interactions},
                                             {"data", z.data.checksum},
                                             {"t", std::to_string(z.model->t())},
                                             {"epoch", std::to_string(z.epoch)},
                                             {"next_step", std::to_string(z.next_step)},
                                             {"failures", std::to_string(z.failures)},
                                             {"losses", joined_losses(*z.model)},
                                             {"summary", summary_json(z.summary).dump()}};
  if (!z.blind_note.empty() && z.blind) meta[kKeepsLatest] = "true";
  return meta;
}

}  // namespace

SavedRun saved_run(const std::string& path, const Settings& s) {
  const std::vector<std::string> none;
  TrainSummary summary;
  return saved_run_of(read_safetensors(path, &none), path, s, summary);
}

RunIdentity run_identity(const std::string& path) {
  const std::vector<std::string> none;
  return identity_of(read_safetensors(path, &none), path);
}

std::string other_settings(const RunIdentity& run, const Settings& s) {
  if (run.settings != settings_fingerprint(s)) return differences(run.settings, s);
  if (run.columns.empty() || run.columns == columns_of(s)) return "";
  return fmt::format("columns = {} there and {} in this run", shown(run.columns), shown(columns_of(s)));
}

bool is_over(const SavedRun& r, const Settings& s) {
  return r.next_step == 0 && (r.epoch >= s.epochs || r.failures > s.stopping_step);
}

int best_epoch_of(const std::string& path) {
  const std::vector<std::string> none;
  try {
    const TensorFile file = read_safetensors(path, &none);
    return summary_of(file, epoch_of(file, path), path).best_epoch;
  } catch (const UserError&) { return -1; }
}

void check_same_run(const std::string& path, const Settings& s, const std::string& data_checksum) {
  const std::vector<std::string> none;
  check_same_run(read_safetensors(path, &none), path, s, data_checksum);
}

int Trainer::epoch() const { return impl_->epoch; }
int64_t Trainer::next_step() const { return impl_->next_step; }

// Called right after an evaluation: the representations it ranked with are still in place.
void Trainer::save_best(const std::string& path) {
  Impl& z = *impl_;
  const Range range(*z.device, RangeId::write, z.epoch);
  Recommender& model = *z.model;
  Writer out(*z.device);
  for (const Window& w : windows(model)) out.add("", w, *w.value);
  CMat hu, hi;
  model.represented(hu, hi);
  out.add("final.user", hu);
  out.add("final.item", hi);
  write_safetensors(path, out.views, state_metadata(z));
}

void Trainer::save_state(const std::string& path) {
  Impl& z = *impl_;
  const Range range(*z.device, RangeId::write, z.epoch);
  Recommender& model = *z.model;
  model.flush();  // every row at step t: exact, and the steps of the rows need not be stored
  Writer out(*z.device);
  for (const Window& w : windows(model)) {
    out.add("", w, *w.value);
    out.add("adam.m.", w, *w.m);
    out.add("adam.v.", w, *w.v);
  }
  std::vector<Kept> kept;
  model.model().kept(kept);
  for (const Kept& k : kept)
    if (*k.filled) out.add(k);
  const size_t n_losses = model.model().losses().size();
  out.numbers("state.losses", {int64_t(n_losses)}, z.next_step > 0 ? model.losses() : Losses(n_losses));
  write_safetensors(path, out.views, state_metadata(z));
}

void Trainer::load_state(const std::string& path) {
  Impl& z = *impl_;
  const Range range(*z.device, RangeId::read);
  Recommender& model = *z.model;
  const TensorFile file = read_safetensors(path);
  TrainSummary summary;
  const SavedRun run = saved_run_of(file, path, z.s, summary);
  check_same_run(file, path, z.s, z.data.checksum);
  const auto tensor = [&](const std::string& name, int64_t values) -> const TensorData& {
    const auto it = file.tensors.find(name);
    if (it == file.tensors.end())
      throw UserError(path + ": tensor '" + name + "' is missing; the file is no state of this model");
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
  // all of them: stopped between the last step and what follows it
  number_of(file, "next_step", 0, model.steps_per_epoch(), path);
  const int64_t t_here = model.t_at(run.epoch, run.next_step), t = number_of(file, "t", t_here, t_here, path);
  const auto losses = file.tensors.find("state.losses");
  const std::vector<std::string> saved_names = names_of_losses(file);
  if (losses == file.tensors.end() || losses->second.bytes.size() != saved_names.size() * sizeof(double))
    throw UserError(path + ": tensor 'state.losses' is missing or has another size");
  const Windows all = windows(model);
  std::vector<Kept> kept;
  model.model().kept(kept);
  // What was not there yet is in no file; what belongs together is there together.
  std::set<bool*> filled;
  for (const Kept& k : kept) {
    const bool needed = run.next_step > 0 && k.from_epoch >= 0 && run.epoch >= k.from_epoch;
    if (needed || file.tensors.count(k.name)) filled.insert(k.filled);
  }
  std::erase_if(kept, [&](const Kept& k) { return !filled.count(k.filled); });
  for (const Kept& k : kept) {
    const auto it = file.tensors.find(k.name);
    if (it == file.tensors.end())
      throw UserError(path + ": tensor '" + k.name + "' is missing; the file is no state of this model");
    if (it->second.dtype != k.dtype || it->second.bytes.size() != k.bytes)
      throw UserError(path + ": tensor '" + k.name + "' has another size than this model's");
    if (k.limit == 0) continue;
    for (size_t e = 0; e < k.bytes / sizeof(int32_t); ++e)
      if (const int32_t x = it->second.i32()[e]; x < k.lowest || x >= k.limit)
        throw UserError(fmt::format("{}: tensor '{}' has {} at position {}, expected {} to {}; the file is damaged",
                                    path, k.name, x, e, k.lowest, k.limit - 1));
  }
  for (const Window& w : all)
    for (const char* prefix : {"", "adam.m.", "adam.v."}) tensor(prefix + w.name, w.rows * w.cols);

  for (const Window& w : all) {
    restore("", w, *w.value);
    restore("adam.m.", w, *w.m);
    restore("adam.v.", w, *w.v);
    w.set_reached(t);
  }
  for (const Kept& k : kept) {
    z.device->ops.upload(z.device->ctx, k.device, file.tensors.at(k.name).bytes.data(), k.bytes);
    *k.filled = true;
  }
  model.model().restored();
  std::vector<double> sums(saved_names.size());
  std::memcpy(sums.data(), losses->second.bytes.data(), losses->second.bytes.size());
  z.partial.clear();
  for (const char* name : model.model().losses()) {
    const auto at = std::find(saved_names.begin(), saved_names.end(), name);
    z.partial.push_back(at == saved_names.end() ? 0.0 : sums[size_t(at - saved_names.begin())]);
  }
  model.set_t(t);
  z.epoch = run.epoch, z.next_step = run.next_step, z.failures = run.failures;
  z.summary = summary;
  // Earlier programs wrote zeros for a split without rows.
  if (z.data.valid.empty()) z.summary.best_valid.clear();
  if (z.data.test.empty()) z.summary.best_test.clear();
  if (!z.blind_note.empty() && !file.metadata.count(kKeepsLatest)) {
    z.blind = false;
    std::replace(z.notes.begin(), z.notes.end(), z.blind_note,
                 "valid_metric " + z.s.valid_metric +
                     " is the same for every model; this run was begun by an earlier program and goes on as it began, "
                     "with the first "
                     "epoch as the best");
  }
}

}  // namespace ccdrec
