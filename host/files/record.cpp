#include "host/files/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "host/base/machine.h"
#include "host/ccdrec/denoiser.h"
#include "host/files/config.h"
#include "host/systems/registry.h"
#include "kernels/sample.h"

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
  for (const char* elsewhere : {"data_path", "run_dir", "graph_cache", "device", "threads"}) j.erase(elsewhere);  // of this machine
  return j;
}

}  // namespace

size_t Recorder::most_bytes(const Settings& s, const Dataset& data) {
  const Outline o = outline_of(s);
  const int64_t E = int64_t(data.train.size()), I = data.n_items, d = s.embedding_size, steps = steps_of(s, data);
  const int64_t items = std::min(E * (1 + s.n_neg), steps * I);  // distinct within their steps
  int64_t words = E * (4 + s.n_neg) + steps * 9 + (data.n_users) * (1 + 2 * kListed);
  if (o.prune > 0) words += 2 * E;
  if (o.searches) words += steps * std::max<int64_t>(1, int64_t(s.candidate_ratio * double(I)));
  if (o.projects) words += items;
  if (o.diffusion) words += items * (1 + d) + I * d * s.timesteps;
  int64_t parameters = 2 * (data.n_users + I) * d;
  if (o.projects)
    for (const Feature& f : data.features) parameters += I * f.matrix.cols() + 2 * (f.matrix.cols() + 1) * d;
  if (o.item_layers) parameters += 3 * I * s.knn_k * int64_t(data.features.size());
  if (o.diffusion) parameters += 2 * Denoiser::parameters(s, d);
  return size_t(words * s.epochs + parameters) * 4;
}

void Recorder::check(const Settings& s, const Dataset& data) {
  const size_t most = most_bytes(s, data);
  if (most > kMost)
    throw UserError(fmt::format("--record: {} epochs of this run would be up to {}, more than {}; fewer, e.g. --set epochs=3", s.epochs,
                                describe_bytes(most), describe_bytes(kMost)));
}

Recorder::Recorder(Trainer& trainer, const Settings& s, const Dataset& data) : trainer_(trainer), s_(s), data_(data), out_(trainer.device(), true) {
  std::set<int32_t> users;
  for (const std::vector<Pair>* split : {&data.valid, &data.test})
    for (const Pair& p : *split) users.insert(p.user);
  ranked_users_.assign(users.begin(), users.end());
  add_parameters("initial.", false);
  Watch shown(trainer_.device());
  trainer_.model().model().graphs(shown);
  for (const ShownGraph& g : shown.graphs)
    if (g.name == "graph.item_item") out_.graph(g.name, g.graph);
}

// The raw features at the start are those of the data folder.
void Recorder::add_parameters(const std::string& prefix, bool with_features) {
  Recommender& model = trainer_.model();
  const std::vector<std::string> modalities = model.model().modalities();
  for (const Window& w : windows(model)) {
    const bool feature = std::any_of(modalities.begin(), modalities.end(), [&](const std::string& m) { return w.name == m + "_embedding.weight"; });
    if (!feature || with_features) out_.add(prefix, w, *w.value);
  }
}

void Recorder::step(int, int64_t step) {
  Recommender& model = trainer_.model();
  if (step == 0) now_ = {}, now_.negatives.resize(size_t(s_.n_neg)), before_.assign(model.model().losses().size(), 0.0);
  Watch drawn(trainer_.device());
  model.draws(drawn);
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(now_.users, drawn.ids("batch.users"));
  append(now_.positives, drawn.ids("batch.positives"));
  const std::vector<int32_t>& negatives = drawn.ids("batch.negatives");
  const int64_t B = model.batch().rows;
  for (size_t k = 0; k < now_.negatives.size(); ++k)
    now_.negatives[k].insert(now_.negatives[k].end(), negatives.begin() + int64_t(k) * B, negatives.begin() + int64_t(k + 1) * B);
  append(now_.curricular, drawn.ids("batch.curricular"));
  append(now_.ranks, drawn.ids("cns.rank"));
  append(now_.candidates, drawn.ids("cns.candidates"));
  append(now_.items, drawn.ids("diffusion.items"));
  append(now_.t, drawn.ids("diffusion.t"));
  if (const Shown* const noise = drawn.find("diffusion.noise")) append(now_.noise, noise->floats);
  now_.first_item.push_back(int32_t(now_.items.size()));
  const Losses sum = model.losses();
  for (size_t k = 0; k < sum.size(); ++k) now_.losses.push_back(sum[k] - before_[k]);
  before_ = sum;
}

void Recorder::epoch(const EpochReport& report) {
  Recommender& model = trainer_.model();
  const std::string at = fmt::format("epoch.{}.", report.epoch);
  const int64_t n = int64_t(now_.users.size()), steps = report.steps, d = s_.embedding_size, items = int64_t(now_.items.size());
  std::vector<int32_t> negatives;
  for (const std::vector<int32_t>& k : now_.negatives) negatives.insert(negatives.end(), k.begin(), k.end());
  out_.indices(at + "users", {n}, std::move(now_.users));
  out_.indices(at + "positives", {n}, std::move(now_.positives));
  out_.indices(at + "negatives", {s_.n_neg, n}, std::move(negatives));
  if (!now_.curricular.empty()) out_.indices(at + "curricular", {n}, std::move(now_.curricular));
  if (!now_.ranks.empty()) {
    out_.indices(at + "ranks", {n}, std::move(now_.ranks));
    const int64_t of_a_step = int64_t(now_.candidates.size()) / steps;
    out_.indices(at + "candidates", {steps, of_a_step}, std::move(now_.candidates));
  }
  if (items) {
    out_.indices(at + "first_item", {steps + 1}, std::move(now_.first_item));
    out_.indices(at + "items", {items}, std::move(now_.items));
  }
  if (!now_.t.empty()) out_.indices(at + "t", {items}, std::move(now_.t)), out_.floats(at + "noise", {items, d}, std::move(now_.noise));
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
  if (model.model().reverses()) add_reverse_noise(at, report.epoch);
  if (report.evaluated) add_lists(at);
  nlohmann::json j = {{"negatives", report.negatives}, {"evaluated", report.evaluated}};
  if (report.evaluated) j["valid"] = report.valid, j["test"] = report.test;
  epochs_.push_back(j.dump());
}

// A pure function of its address (kernels/estimator.h), the same on every device.
void Recorder::add_reverse_noise(const std::string& at, int epoch) {
  const int64_t I = data_.n_items, d = s_.embedding_size;
  const int T = s_.timesteps;
  Ctx host(trainer_.device().ctx.threads);
  const RowList all{nullptr, nullptr, I};
  std::vector<float> start(size_t(I * d)), steps(size_t(T - 1) * size_t(I * d));
  cpu::draw_normals(host, Mat{start.data(), I, d}, all, Stream{s_.seed, Use::reverse_start, uint32_t(epoch), uint32_t(T)});
  for (int t = 2; t <= T; ++t)
    cpu::draw_normals(host, Mat{steps.data() + (t - 2) * I * d, I, d}, all, Stream{s_.seed, Use::reverse_noise, uint32_t(epoch), uint32_t(t)});
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
  const nlohmann::json modalities = trainer_.model().model().modalities();
  nlohmann::json epochs = nlohmann::json::array();
  for (const std::string& e : epochs_) epochs.push_back(nlohmann::json::parse(e));
  write_safetensors(path, out_.views,
                    {{"format", "ccdrec-run"},
                     {"version", "1"},
                     {"settings", typed_settings(s_).dump()},
                     {"modalities", modalities.dump()},
                     {"data", data_.name},
                     {"program", this_build().version + " (" + this_build().commit + ")"},
                     {"epochs", epochs.dump()}});
}

}  // namespace ccdrec
