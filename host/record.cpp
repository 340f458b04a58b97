#include "host/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "host/config.h"
#include "host/machine.h"
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
  const Shape shape = model_shape(s);
  const int64_t E = int64_t(data.train.size()), I = data.n_items, d = s.embedding_size, steps = steps_of(s, data);
  const int64_t items = std::min(E * (1 + s.n_neg), steps * I);  // distinct within their steps
  int64_t words = E * (4 + s.n_neg) + steps * 9 + (data.n_users) * (1 + 2 * kListed);
  if (shape.backbone.prune > 0) words += 2 * E;
  if (shape.cns) words += steps * std::max<int64_t>(1, int64_t(s.candidate_ratio * double(I)));
  if (shape.modalities) words += items;
  if (shape.diffusion) words += items * (1 + d) + I * d * s.timesteps;
  int64_t parameters = 2 * (data.n_users + I) * d;
  if (shape.modalities)
    for (const Feature& f : data.features) parameters += I * f.matrix.cols() + 2 * (f.matrix.cols() + 1) * d;
  if (shape.backbone.item_graph) parameters += 3 * I * s.knn_k * int64_t(data.features.size());
  if (shape.diffusion) parameters += 2 * Denoiser::parameters(s, d);
  return size_t(words * s.epochs + parameters) * 4;
}

void Recorder::check(const Settings& s, const Dataset& data) {
  const size_t most = most_bytes(s, data);
  if (most > kMost)
    throw UserError(fmt::format("--record: {} epochs of this run would be up to {}, more than {}; fewer, e.g. --set epochs=3", s.epochs,
                                describe_bytes(most), describe_bytes(kMost)));
}

Recorder::Recorder(Trainer& trainer, const Settings& s, const Dataset& data)
    : trainer_(trainer), s_(s), data_(data), train_(pairs_by_user(data.train, data.n_users, data.n_items)), out_(false) {
  std::set<int32_t> users;
  for (const std::vector<Pair>* split : {&data.valid, &data.test})
    for (const Pair& p : *split) users.insert(p.user);
  ranked_users_.assign(users.begin(), users.end());
  add_parameters("initial.", false);
  const Backbone& b = trainer_.model().backbone();
  if (b.spec().item_graph) out_.graph("graph.item_item", downloaded(trainer_.device(), b.item_graph()));
}

// The raw features at the start are those of the data folder.
void Recorder::add_parameters(const std::string& prefix, bool with_features) {
  Recommender& model = trainer_.model();
  const Modalities* modal = model.modalities();
  for (const Window& w : windows(model)) {
    bool feature = false;
    for (int k = 0; modal && k < modal->count(); ++k) feature = feature || w.name == modal->name(k) + "_embedding.weight";
    if (!feature || with_features) out_.add(prefix, w, *w.value);
  }
}

// The rank that kernels/sample.h draws for a row; -1 where no candidate is admissible and the random negative stands.
int32_t Recorder::rank(int epoch, int64_t step, int64_t row, int32_t user, const std::vector<int32_t>& candidates) const {
  const auto first = train_.col.begin() + train_.row_ptr[size_t(user)], last = train_.col.begin() + train_.row_ptr[size_t(user) + 1];
  const auto admissible = std::count_if(candidates.begin(), candidates.end(), [&](int32_t c) { return !std::binary_search(first, last, c); });
  if (admissible == 0) return -1;
  const int64_t k = std::min<int64_t>(trainer_.model().cns()->k_top(), admissible);
  return int32_t(below(draw(Stream{s_.seed, Use::cns_rank, uint32_t(epoch), uint32_t(step)}, uint32_t(row)).v[0], uint32_t(k)));
}

void Recorder::step(int epoch, int64_t step) {
  Recommender& model = trainer_.model();
  Device& dev = trainer_.device();
  if (step == 0) now_ = {}, now_.negatives.resize(size_t(s_.n_neg)), before_ = {};
  const BatchDraws b = model.draws();
  const size_t B = b.users.size();
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(now_.users, b.users);
  append(now_.positives, b.positives);
  for (size_t k = 0; k < now_.negatives.size(); ++k)
    now_.negatives[k].insert(now_.negatives[k].end(), b.negatives.begin() + int64_t(k * B), b.negatives.begin() + int64_t((k + 1) * B));
  append(now_.curricular, b.curricular);
  if (!b.curricular.empty() && model.cns()) {
    std::vector<int32_t> candidates(size_t(model.cns()->candidate_count()));
    dev.ops.download(dev.ctx, candidates.data(), model.cns()->candidates(), candidates.size() * sizeof(int32_t));
    for (size_t row = 0; row < B; ++row) now_.ranks.push_back(rank(epoch, step, int64_t(row), b.users[row], candidates));
    append(now_.candidates, candidates);
  }
  append(now_.items, b.items);
  append(now_.t, b.t);
  append(now_.noise, b.noise);
  now_.first_item.push_back(int32_t(now_.items.size()));
  now_.pool = model.negatives_name();
  const EpochLosses sum = model.losses();
  for (int k = 0; k < EpochLosses::count; ++k) now_.losses.push_back(sum.sum[k] - before_.sum[k]);
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
    out_.indices(at + "candidates", {steps, model.cns()->candidate_count()}, std::move(now_.candidates));
  }
  if (items) {
    out_.indices(at + "first_item", {steps + 1}, std::move(now_.first_item));
    out_.indices(at + "items", {items}, std::move(now_.items));
  }
  if (!now_.t.empty()) out_.indices(at + "t", {items}, std::move(now_.t)), out_.floats(at + "noise", {items, d}, std::move(now_.noise));
  out_.numbers(at + "losses", {steps, EpochLosses::count}, std::move(now_.losses));
  if (model.backbone().spec().prune > 0) {
    const HostCsr graph = downloaded(trainer_.device(), model.backbone().graph());
    std::vector<int32_t> edges(size_t(graph.nnz()));  // users' rows come first, and hold every edge once
    const size_t kept = edges.size() / 2;
    for (int64_t u = 0; u < data_.n_users; ++u)
      for (int64_t e = graph.row_ptr[size_t(u)]; e < graph.row_ptr[size_t(u) + 1]; ++e)
        edges[size_t(e)] = int32_t(u), edges[kept + size_t(e)] = int32_t(graph.col[size_t(e)] - data_.n_users);
    out_.indices(at + "edges", {2, int64_t(kept)}, std::move(edges));
  }
  if (model.shape().diffusion) add_reverse_noise(at, report.epoch);
  if (report.evaluated) add_lists(at);
  nlohmann::json j = {{"negatives", now_.pool}, {"evaluated", report.evaluated}};
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
  const int64_t n = int64_t(ranked_users_.size()), U = data_.n_users;
  const CMat h = model.backbone().h();
  const Array<int32_t> users(dev, ranked_users_), top(dev, n * kListed);
  const Array<float> score(dev, n * kListed);
  const Csr seen = model.train_csr();
  dev.ops.score_topk(dev.ctx, top.p(), score.p(), h.slice(0, U), users.p(), n, h.slice(U, data_.n_items), &seen, kListed);
  out_.indices(at + "list.users", {n}, ranked_users_);
  out_.indices(at + "list.items", {n, kListed}, top.host());
  out_.floats(at + "list.scores", {n, kListed}, score.host());
}

void Recorder::write(const std::string& path) {
  trainer_.model().flush();
  add_parameters("final.", true);
  nlohmann::json modalities = nlohmann::json::array(), epochs = nlohmann::json::array();
  if (const Modalities* modal = trainer_.model().modalities())
    for (int k = 0; k < modal->count(); ++k) modalities.push_back(modal->name(k));
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
