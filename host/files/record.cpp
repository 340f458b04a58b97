#include "host/files/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "host/base/machine.h"
#include "host/files/config.h"
#include "host/samplers/realhns.h"
#include "host/systems/registry.h"
#include "kernels/sample.h"
#include "kernels/unet.h"

namespace ccdrec {
namespace {

constexpr size_t kMost = 4'000'000'000;  // a record is for a few epochs of a small set
constexpr int64_t kListed = 20;          // items of each user's list

int64_t steps_of(const Settings& s, const Dataset& data) {
  const int64_t n = int64_t(data.train.size()), B = std::min<int64_t>(s.train_batch_size, n);
  return (n + B - 1) / B;
}

nlohmann::json typed_settings(const Settings& s) {
  nlohmann::json j = nlohmann::json::object();
  for (const auto& [key, text] : config_values(s)) {
    const nlohmann::json typed = nlohmann::json::parse(text, nullptr, false);
    j[key] = typed.is_discarded() ? nlohmann::json(text) : typed;
  }
  // of this machine
  for (const char* elsewhere : {"data_path", "run_dir", "graph_cache", "device", "threads"}) j.erase(elsewhere);
  return j;
}

// Values of the parameters that a model of its own kind holds beside those that an outline tells of.
int64_t own_parameters(const Settings& s, const Dataset& data) {
  const System& system = *find_system(s.model);
  if (!system.plan) return 0;
  ScratchPlan unused;
  const int64_t U = data.n_users, I = data.n_items, E = int64_t(data.train.size());
  Planner p{
      s, data, cpu_ops(), unused, false, U, I, U + I, s.embedding_size, E, std::min<int64_t>(s.train_batch_size, E)};
  system.plan(p);
  return p.dense;
}

}  // namespace

size_t Recorder::most_bytes(const Settings& s, const Dataset& data) {
  const Outline o = outline_of(s);
  const int64_t E = int64_t(data.train.size()), I = data.n_items, d = s.embedding_size, steps = steps_of(s, data);
  // distinct within their steps
  const int64_t items = o.fuses_all ? steps * I : std::min(E * (1 + s.n_neg), steps * I);
  int64_t words = E * (4 + s.n_neg) + steps * 11 + (data.n_users) * (1 + 2 * kListed);
  if (o.prune > 0) words += 2 * E;
  if (o.denoises) words += E;
  if (o.hard && o.chooses) words += E * (o.mixes ? 2 * (o.layers + 1) : 1);
  if (o.popular) words += E;
  if (o.searches) words += steps * std::max<int64_t>(1, int64_t(s.candidate_ratio * double(I)));
  if (o.projects) words += items;
  if (o.diffusion) words += items * (1 + d) + I * d * s.timesteps;
  if (o.unet && s.unet_dropout > 0) words += items * kUnetMaskWords;
  if (o.views && s.dropout > 0) words += E * (2 + int64_t(data.features.size())) * mask_words(d);
  int64_t parameters = 2 * (data.n_users + I) * d + 2 * Trainer::own_parameters(s, data);
  if (o.projects)
    for (const Feature& f : data.features) parameters += I * f.matrix.cols() + 2 * (f.matrix.cols() + 1) * d;
  if (o.frozen_tables) {
    parameters += (data.n_users + I) * d;
    for (const Feature& f : data.features) parameters += data.n_users * f.matrix.cols();
  }
  const int64_t listed = I * s.knn_k * int64_t(data.features.size());
  if (o.item_layers) parameters += 3 * listed;  // S, or the frozen lists and the learned ones of the last evaluation
  if (o.learned_graph) words += listed, parameters += 2;
  if (o.bands) words += data.n_users * Band(s, data.n_users, I).candidates + 1;
  parameters += 2 * (o.estimator + own_parameters(s, data));
  if (o.views) parameters += 2 * (d + 1) * d;  // the predictor
  if (s.use_mg) words *= 2;                    // at most
  return size_t(words * s.epochs + parameters) * 4;
}

void Recorder::check(const Settings& s, const Dataset& data) {
  const size_t most = most_bytes(s, data);
  if (most > kMost)
    throw UserError(
        fmt::format("--record: {} epochs of this run would be up to {}, more than {}; fewer, e.g. --set epochs=3",
                    s.epochs, describe_bytes(most), describe_bytes(kMost)));
}

Recorder::Recorder(Trainer& trainer, const Settings& s, const Dataset& data)
    : trainer_(trainer), s_(s), data_(data), out_(trainer.device(), true) {
  std::set<int32_t> users;
  for (const std::vector<Pair>* split : {&data.valid, &data.test})
    for (const Pair& p : *split) users.insert(p.user);
  ranked_users_.assign(users.begin(), users.end());
  now_.negatives.resize(size_t(s.n_neg)), before_.assign(trainer.model().model().losses().size(), 0.0);
  if (s.use_mg)
    trainer.model().after_pass = [this](uint32_t pass) { take_draws(pass == 0 ? now_.draws : now_.second); };
  add_parameters("initial.", false);
  Watch shown(trainer_.device());
  trainer_.model().model().graphs(shown);
  for (const ShownGraph& g : shown.graphs)
    if (g.name == "graph.item_item") out_.graph(g.name, g.graph);
  for (const Shown& a : shown.all)
    if (a.name.starts_with("graph.frozen.")) out_.add(a);
}

// The learned lists of an epoch's steps: found at its start, and in evaluation after the one before.
void Recorder::add_lists_of_graph(int epoch) {
  Watch shown(trainer_.device());
  trainer_.model().model().graphs(shown);
  for (Shown& a : shown.all)
    if (a.name.starts_with("graph.learned.") && a.name.ends_with(".index"))
      out_.indices(fmt::format("epoch.{}.{}", epoch, a.name.substr(6)), a.shape, std::move(a.indices));
}

// RealHNS: the candidates of the epoch, and the cohesion of its clusters, of which theta is a share.
void Recorder::add_candidates_of_epoch(int epoch) {
  if (!outline_of(s_).bands || RealHns::active_share(epoch, s_.realhns_start) == 0) return;
  std::vector<Kept> kept;
  trainer_.model().model().kept(kept);
  for (const Kept& k : kept) {
    const std::string at = fmt::format("epoch.{}.", epoch);
    Device& dev = trainer_.device();
    if (k.name == "realhns.table")
      out_.indices(at + "table", k.shape,
                   host_copy(dev, static_cast<const int32_t*>(k.device), k.shape[0] * k.shape[1]));
    if (k.name == "realhns.theta") {
      const float theta = host_copy(dev, CMat(static_cast<const float*>(k.device), 1, 1))[0];
      out_.floats(at + "cohesion", {1}, {theta / RealHns::theta_share(epoch, s_.realhns_start)});
    }
  }
}

// The raw features at the start are those of the data folder. What was drawn and is not trained is there once.
void Recorder::add_parameters(const std::string& prefix, bool with_features) {
  Recommender& model = trainer_.model();
  const std::vector<std::string> modalities = model.model().modalities();
  Windows all = windows(model);
  if (!with_features && outline_of(s_).frozen_tables) model.model().constants(all);
  for (const Window& w : all) {
    const bool feature = std::any_of(modalities.begin(), modalities.end(),
                                     [&](const std::string& m) { return w.name == m + "_embedding.weight"; });
    if (!feature || with_features) out_.add(prefix, w, *w.value);
  }
}

namespace {

template <class To, class From>
void append(To& to, const From& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// Rows of (k,B), each to its own list.
template <class T>
void append_rows(std::vector<std::vector<T>>& to, const std::vector<T>& from, int64_t B) {
  to.resize(std::max(to.size(), from.size() / size_t(B)));
  for (size_t k = 0; k < from.size() / size_t(B); ++k)
    to[k].insert(to[k].end(), from.begin() + int64_t(k) * B, from.begin() + int64_t(k + 1) * B);
}

template <class T>
std::vector<T> joined(const std::vector<std::vector<T>>& lists) {
  std::vector<T> all;
  for (const std::vector<T>& l : lists) append(all, l);
  return all;
}

}  // namespace

void Recorder::take_draws(Draws& to) {
  Watch drawn(trainer_.device());
  trainer_.model().draws(drawn);
  append(to.curricular, drawn.ids("batch.curricular"));
  append(to.ranks, drawn.ids("cns.rank"));
  append(to.candidates, drawn.ids("cns.candidates"));
  append(to.t, drawn.ids("diffusion.t"));
  if (const Shown* const noise = drawn.find("diffusion.noise")) append(to.noise, noise->floats);
  const int64_t B = trainer_.model().batch().rows;
  append_rows(to.hard, drawn.ids("hard.items"), B);
  if (const Shown* const alpha = drawn.find("hard.alpha")) append_rows(to.alpha, alpha->floats, B);
  for (const Shown& a : drawn.all) {
    if (!a.name.starts_with("mask.")) continue;
    Masks& all = to.masks[a.name];
    if (all.shape.empty())
      all.shape = a.shape;
    else
      all.shape[0] += a.shape[0];
    append(all.words, a.indices);
  }
  to.rows += B, ++to.passes;
}

void Recorder::step(int epoch, int64_t step) {
  Recommender& model = trainer_.model();
  if (step == 0) add_lists_of_graph(epoch), add_candidates_of_epoch(epoch);
  Watch drawn(trainer_.device());
  model.draws(drawn);
  append(now_.users, drawn.ids("batch.users"));
  append(now_.positives, drawn.ids("batch.positives"));
  append_rows(now_.negatives, drawn.ids("batch.negatives"), model.batch().rows);
  append(now_.items, drawn.ids("diffusion.items"));
  if (!s_.use_mg) take_draws(now_.draws);
  now_.first_item.push_back(int32_t(now_.items.size()));
  const Losses sum = model.losses();
  for (size_t k = 0; k < sum.size(); ++k) now_.losses.push_back(sum[k] - before_[k]);
  before_ = sum;
}

void Recorder::epoch(const EpochReport& report) {
  Recommender& model = trainer_.model();
  const std::string at = fmt::format("epoch.{}.", report.epoch);
  const int64_t n = int64_t(now_.users.size()), steps = report.steps, items = int64_t(now_.items.size());
  out_.indices(at + "users", {n}, std::move(now_.users));
  out_.indices(at + "positives", {n}, std::move(now_.positives));
  if (s_.n_neg > 0) out_.indices(at + "negatives", {s_.n_neg, n}, joined(now_.negatives));
  add_draws(at, now_.draws);
  if (now_.second.passes > 0) add_draws(at + "pass1.", now_.second);
  if (items) {
    out_.indices(at + "first_item", {steps + 1}, std::move(now_.first_item));
    out_.indices(at + "items", {items}, std::move(now_.items));
  }
  out_.numbers(at + "losses", {steps, int64_t(model.model().losses().size())}, std::move(now_.losses));
  Watch shown(trainer_.device());
  model.model().graphs(shown);
  for (const ShownGraph& g : shown.graphs) {
    if (!g.of_epoch) continue;
    std::vector<int32_t> edges(size_t(g.graph.nnz()));  // users' rows come first, and hold every edge once
    const size_t kept = edges.size() / 2;
    for (int64_t u = 0; u < data_.n_users; ++u)
      for (int64_t e = g.graph.row_ptr[size_t(u)]; e < g.graph.row_ptr[size_t(u) + 1]; ++e)
        edges[size_t(e)] = int32_t(u), edges[kept + size_t(e)] = int32_t(g.graph.col[size_t(e)] - data_.n_users);
    out_.indices(at + "edges", {2, int64_t(kept)}, std::move(edges));
  }
  if (const Shown* const a = shown.find("dgd.edge_weight")) out_.floats(at + "edge_weights", a->shape, a->floats);
  if (model.model().reverses()) add_reverse_noise(at, report.epoch);
  evaluated_ = report.evaluated;
  if (report.evaluated) add_lists(at);
  nlohmann::json j = {{"negatives", report.negatives.empty() ? "none" : report.negatives},
                      {"evaluated", report.evaluated}};
  if (report.evaluated) j["valid"] = report.valid, j["test"] = report.test;
  epochs_.push_back(j.dump());
  now_ = {};
  before_.assign(before_.size(), 0.0);
}

void Recorder::add_draws(const std::string& at, Draws& z) {
  if (!z.curricular.empty()) out_.indices(at + "curricular", {z.rows}, std::move(z.curricular));
  if (!z.ranks.empty()) {
    const int64_t of_a_step = int64_t(z.candidates.size()) / z.passes;
    out_.indices(at + "ranks", {z.rows}, std::move(z.ranks));
    out_.indices(at + "candidates", {z.passes, of_a_step}, std::move(z.candidates));
  }
  if (!z.hard.empty()) out_.indices(at + "hard", {int64_t(z.hard.size()), z.rows}, joined(z.hard));
  if (!z.alpha.empty()) out_.floats(at + "alpha", {int64_t(z.alpha.size()), z.rows}, joined(z.alpha));
  for (auto& [name, mask] : z.masks) out_.indices(at + name, mask.shape, std::move(mask.words));
  if (z.t.empty()) return;
  const int64_t items = int64_t(z.t.size());
  out_.indices(at + "t", {items}, std::move(z.t));
  out_.floats(at + "noise", {items, s_.embedding_size}, std::move(z.noise));
}

// A pure function of its address (kernels/estimator.h), the same on every device.
void Recorder::add_reverse_noise(const std::string& at, int epoch) {
  const int64_t I = data_.n_items, d = s_.embedding_size;
  const int T = s_.timesteps;
  Ctx host(trainer_.device().ctx.threads);
  const RowList all{nullptr, nullptr, I};
  std::vector<float> start(size_t(I * d)), steps(size_t(T - 1) * size_t(I * d));
  cpu::draw_normals(host, Mat{start.data(), I, d}, all,
                    Stream{s_.seed, Use::reverse_start, uint32_t(epoch), uint32_t(T)});
  for (int t = 2; t <= T; ++t)
    cpu::draw_normals(host, Mat{steps.data() + (t - 2) * I * d, I, d}, all,
                      Stream{s_.seed, Use::reverse_noise, uint32_t(epoch), uint32_t(t)});
  out_.floats(at + "reverse.start", {I, d}, std::move(start));
  out_.floats(at + "reverse.steps", {T - 1, I, d}, std::move(steps));
}

// Every user's list from the representations that the evaluation left in place.
void Recorder::add_lists(const std::string& at) {
  Recommender& model = trainer_.model();
  Device& dev = trainer_.device();
  const int64_t n = int64_t(ranked_users_.size());
  CMat hu, hi;
  model.represented(hu, hi);
  const Array<int32_t> users(dev, ranked_users_), top(dev, n * kListed);
  const Array<float> score(dev, n * kListed);
  const Csr seen = model.train_csr();
  dev.ops.score_topk(dev.ctx, top.p(), score.p(), hu, users.p(), n, hi, &seen, kListed);
  out_.indices(at + "list.users", {n}, ranked_users_);
  out_.indices(at + "list.items", {n, kListed}, top.host());
  out_.floats(at + "list.scores", {n, kListed}, score.host());
}

void Recorder::write(const std::string& path) {
  trainer_.model().flush();
  add_parameters("final.", true);
  if (evaluated_) add_lists_of_graph(int(epochs_.size()));
  const nlohmann::json modalities = trainer_.model().model().modalities();
  nlohmann::json losses = nlohmann::json::array();
  for (const char* name : trainer_.model().model().losses()) losses.push_back(name);
  nlohmann::json epochs = nlohmann::json::array();
  for (const std::string& e : epochs_) epochs.push_back(nlohmann::json::parse(e));
  write_safetensors(path, out_.views,
                    {{"format", "ccdrec-run"},
                     {"version", "1"},
                     {"settings", typed_settings(s_).dump()},
                     {"modalities", modalities.dump()},
                     {"losses", losses.dump()},
                     {"data", data_.name},
                     {"program", this_build().version + " (" + this_build().commit + ")"},
                     {"epochs", epochs.dump()}});
}

}  // namespace ccdrec
