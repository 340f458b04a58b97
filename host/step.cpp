#include "host/step.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <vector>

#include "data/error.h"
#include "data/graph.h"
#include "host/config.h"
#include "host/models/recommender.h"
#include "host/safetensors.h"

namespace ccdrec {
namespace {

using Shape64 = std::vector<int64_t>;

std::string text_of(const Shape64& shape) { return fmt::format("({})", fmt::join(shape, ",")); }

// The arrays of a case, each checked when it is asked for.
class Case {
 public:
  Case(const std::string& path, const std::string& format) : path_(path), file_(read_safetensors(path)) {
    const std::string got = meta("format");
    if (got != format) fail(fmt::format("its metadata has format = '{}', expected '{}' (docs/step-format.md)", got, format));
    if (meta("version") != "1") fail(fmt::format("its metadata has version = '{}', this program reads version 1", meta("version")));
  }
  [[noreturn]] void fail(const std::string& what) const { throw UserError(path_ + ": " + what); }
  std::string meta(const std::string& key, const std::string& otherwise = "") const {
    const auto it = file_.metadata.find(key);
    return it == file_.metadata.end() ? otherwise : it->second;
  }
  nlohmann::json json(const std::string& key, const char* otherwise) const {
    const nlohmann::json j = nlohmann::json::parse(meta(key, otherwise), nullptr, false);
    if (j.is_discarded()) fail(fmt::format("the metadata '{}' is not JSON", key));
    return j;
  }
  bool has(const std::string& name) const { return file_.tensors.count(name) != 0; }
  Shape64 shape(const std::string& name) const { return at(name).shape; }

  // -1 in `want` stands for any extent.
  std::vector<float> floats(const std::string& name, const Shape64& want) const {
    const TensorData& t = at(name);
    check_shape_of(name, t.shape, want);
    std::vector<float> v;
    if (t.dtype == "F32") {
      v.resize(t.bytes.size() / sizeof(float));
      if (!v.empty()) std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
    } else if (t.dtype == "F64") {
      std::vector<double> wide(t.bytes.size() / sizeof(double));
      if (!wide.empty()) std::memcpy(wide.data(), t.bytes.data(), t.bytes.size());
      v.assign(wide.begin(), wide.end());
    } else {
      fail(fmt::format("array '{}' has type {}, expected F32 or F64", name, t.dtype));
    }
    for (size_t k = 0; k < v.size(); ++k)
      if (!std::isfinite(v[k])) fail(fmt::format("array '{}' is not finite at position {}", name, k));
    return v;
  }
  std::vector<int32_t> indices(const std::string& name, const Shape64& want, int64_t limit) const {
    const TensorData& t = at(name);
    check_shape_of(name, t.shape, want);
    std::vector<int64_t> v;
    if (t.dtype == "I64") {
      v.resize(t.bytes.size() / 8);
      if (!v.empty()) std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
    } else if (t.dtype == "I32") {
      v.assign(t.i32(), t.i32() + t.bytes.size() / 4);
    } else {
      fail(fmt::format("array '{}' has type {}, expected I32 or I64", name, t.dtype));
    }
    for (size_t k = 0; k < v.size(); ++k)
      if (v[k] < 0 || v[k] >= limit) fail(fmt::format("array '{}' has {} at position {}, expected 0 to {}", name, v[k], k, limit - 1));
    return {v.begin(), v.end()};
  }
  HostCsr sparse(const std::string& name, int64_t n) const {
    const Shape64 given = shape(name + ".value");
    if (given.size() != 1) fail(fmt::format("array '{}.value' has shape {}, expected one dimension", name, text_of(given)));
    const int64_t nnz = given[0];
    const std::vector<int32_t> at = indices(name + ".index", {2, nnz}, n);
    const std::vector<float> value = floats(name + ".value", {nnz});
    std::map<std::pair<int32_t, int32_t>, float> cells;
    for (int64_t e = 0; e < nnz; ++e) {
      const auto [it, fresh] = cells.emplace(std::pair(at[size_t(e)], at[size_t(nnz + e)]), value[size_t(e)]);
      if (!fresh) fail(fmt::format("'{}' names the cell ({},{}) twice", name, it->first.first, it->first.second));
    }
    HostCsr a;
    a.rows = a.cols = n;
    a.row_ptr.assign(size_t(n) + 1, 0);
    for (const auto& [cell, v] : cells) {
      ++a.row_ptr[size_t(cell.first) + 1];
      a.col.push_back(cell.second), a.val.push_back(v);
    }
    for (size_t r = 0; r < size_t(n); ++r) a.row_ptr[r + 1] += a.row_ptr[r];
    return a;
  }

 private:
  const TensorData& at(const std::string& name) const {
    const auto it = file_.tensors.find(name);
    if (it == file_.tensors.end()) fail(fmt::format("array '{}' is missing (docs/step-format.md lists what a case holds)", name));
    return it->second;
  }
  void check_shape_of(const std::string& name, const Shape64& got, const Shape64& want) const {
    bool good = got.size() == want.size();
    for (size_t k = 0; good && k < want.size(); ++k) good = want[k] < 0 || got[k] == want[k];
    if (!good) fail(fmt::format("array '{}' has shape {}, expected {}", name, text_of(got), text_of(want)));
  }
  std::string path_;
  TensorFile file_;
};

// What is computed, and written if a file is named.
class Result {
 public:
  void floats(const std::string& name, const Shape64& shape, std::vector<float> v) { add(name, "F32", shape, v.data(), v.size() * sizeof(float)); }
  void number(const std::string& name, double v) { add(name, "F64", {1}, &v, sizeof v); }
  TensorFile done(const std::string& path, const std::string& format) {
    kept_.metadata = {{"format", format}, {"version", "1"}};
    if (!path.empty()) write_result(path, kept_);
    return std::move(kept_);
  }

 private:
  void add(const std::string& name, const char* dtype, const Shape64& shape, const void* p, size_t bytes) {
    TensorData& t = kept_.tensors[name];
    t.dtype = dtype, t.shape = shape;
    t.bytes.resize(bytes);
    if (bytes) std::memcpy(t.bytes.data(), p, bytes);
  }
  TensorFile kept_;
};

std::vector<float> transposed(const std::vector<float>& v, int64_t rows, int64_t cols) {
  std::vector<float> t(v.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) t[size_t(c * rows + r)] = v[size_t(r * cols + c)];
  return t;
}

std::vector<float> downloaded(Device& dev, CMat m, int64_t rows) {
  std::vector<float> v(size_t(rows * m.cols));
  if (!v.empty()) dev.ops.download(dev.ctx, v.data(), m.p, v.size() * sizeof(float));
  return v;
}

// Modality features in files that vanish as soon as they are mapped: the models read features from a data set.
std::vector<Feature> features_of(const Case& c, const std::vector<std::string>& names, int64_t n_items) {
  std::vector<Feature> all;
  std::string folder = (std::filesystem::temp_directory_path() / "ccdrec-step-XXXXXX").string();
  if (!names.empty() && !mkdtemp(folder.data()))
    throw UserError("no temporary folder can be made in " + std::filesystem::temp_directory_path().string());
  for (const std::string& name : names) {
    const std::string array = "param." + name + "_embedding.weight";
    const std::vector<float> x = c.floats(array, {n_items, -1});
    const std::string path = folder + "/" + std::to_string(all.size()) + ".npy";
    write_npy(path, x.data(), n_items, c.shape(array)[1]);
    all.push_back({name, NpyMatrix(path)});
    std::filesystem::remove(path);
  }
  if (!names.empty()) std::filesystem::remove(folder);
  return all;
}

Settings settings_of(const Case& c, const std::string& device, int threads) {
  const nlohmann::json given = c.json("settings", "{}");
  if (!given.is_object()) c.fail("the metadata 'settings' is not a JSON object");
  std::vector<KeyValue> values;
  for (const auto& [key, v] : given.items()) values.push_back({key, v.is_string() ? v.get<std::string>() : v.dump(), "settings of the case"});
  Settings s = resolve_config({}, values).settings;
  s.device = device, s.threads = threads;
  s.dropout = 0;  // the graph is given, pruned or not
  return s;
}

// A model whose batch, graphs, parameters and moments are those of the case.
struct Loaded {
  const Case& c;
  Settings s;
  int64_t U = 0, I = 0, d = 0, t = 1;
  std::vector<std::string> modalities;
  Dataset data;
  std::unique_ptr<Device> dev;
  std::unique_ptr<Recommender> model;

  Loaded(const Case& file, const std::string& device, int threads, bool whole_step) : c(file), s(settings_of(file, device, threads)) {
    for (const auto& m : c.json("modalities", "[]")) modalities.push_back(m.is_string() ? m.get<std::string>() : m.dump());
    const Shape64 q = c.shape("param.item_id_embedding.weight");
    if (q.size() != 2) c.fail(fmt::format("array 'param.item_id_embedding.weight' has shape {}, expected two dimensions", text_of(q)));
    I = q[0], d = q[1];
    U = whole_step ? c.shape("param.user_embedding.weight").at(0) : 1;
    try {
      t = std::stoll(c.meta("t", "1"));
    } catch (const std::exception&) { t = 0; }
    if (t < 1 || t > 1000000) c.fail(fmt::format("the metadata t = '{}' is no step from 1 to 1000000", c.meta("t")));
    s.embedding_size = int(d), s.epochs = int(t);

    const ::ccdrec::Shape shape = model_shape(s);
    data.name = "case", data.n_users = U, data.n_items = I;
    data.users = IdMap::dense_of(U), data.items = IdMap::dense_of(I);
    if (shape.modalities) {
      if (modalities.empty()) c.fail("the model reads modalities, but the metadata 'modalities' names none");
      data.features = features_of(c, modalities, I);
    } else {
      modalities.clear();
    }
    Graphs graphs;
    if (whole_step) {
      const int64_t B = c.shape("batch.users").at(0);
      const std::vector<int32_t> users = c.indices("batch.users", {B}, U), positives = c.indices("batch.positives", {B}, I);
      for (int64_t b = 0; b < B; ++b) data.train.push_back({users[size_t(b)], positives[size_t(b)]});
      if (B == 0) c.fail("the batch is empty");
    } else {
      for (int64_t i = 0; i < I; ++i) data.train.push_back({0, int32_t(i)});  // a batch of all items: the estimator has room for them
    }
    s.train_batch_size = int(data.train.size());
    graphs.train = pairs_by_user(data.train, U, I);
    graphs.user_item.rows = graphs.user_item.cols = U + I;
    graphs.user_item.row_ptr.assign(size_t(U + I) + 1, 0);
    if (shape.backbone.layers > 0 && whole_step) {
      graphs.user_item = c.sparse("graph.user_item", U + I);
      const HostCsr back = transpose(graphs.user_item);
      if (back.col != graphs.user_item.col || back.row_ptr != graphs.user_item.row_ptr || back.val != graphs.user_item.val)
        c.fail("'graph.user_item' is not symmetric");
    }
    if (shape.backbone.item_graph) {
      graphs.items.rows = graphs.items.cols = I;
      graphs.items.row_ptr.assign(size_t(I) + 1, 0);
      if (whole_step) graphs.items = c.sparse("graph.item_item", I);
      graphs.items_t = transpose(graphs.items);
    }
    std::string note;
    dev = make_device(s.device, s.threads, note, s.precision, s.spmm);
    model = std::make_unique<Recommender>(*dev, s, data, graphs);
    RowTable& nodes = model->backbone().nodes();
    if (whole_step) rows("user_embedding.weight", nodes, 0, U);
    rows("item_id_embedding.weight", nodes, whole_step ? U : 1, I);
    nodes.set_reached(t - 1);
    for (size_t m = 0; m < modalities.size(); ++m) {
      RowTable& x = model->modalities()->features(int(m));
      if (x.trainable()) {
        rows(modalities[m] + "_embedding.weight", x, 0, I);
        x.set_reached(t - 1);
      }
    }
    ParamArena& arena = model->arena();
    for (const ParamInfo& p : arena.params()) {
      dense("param." + p.name, p, arena.values(), true);
      dense("adam.m." + p.name, p, arena.moments(), false);
      dense("adam.v." + p.name, p, arena.squares(), false);
    }
    model->set_t(t - 1);
  }

  static Shape64 outside(const ParamInfo& p) {
    return p.transposed ? Shape64{p.cols, p.rows} : p.rows == 1 ? Shape64{p.cols} : Shape64{p.rows, p.cols};
  }

 private:
  void rows(const std::string& name, RowTable& table, int64_t first, int64_t n) {
    const int64_t cols = table.value().cols;
    const auto put = [&](const std::string& array, Array<float>& to, bool needed) {
      if (!needed && !c.has(array)) return;
      const std::vector<float> v = c.floats(array, {n, cols});
      to.upload(v.data(), int64_t(v.size()), first * cols);
    };
    put("param." + name, table.values().array(), true);
    put("adam.m." + name, table.moments().array(), false);
    put("adam.v." + name, table.squares().array(), false);
  }
  void dense(const std::string& array, const ParamInfo& p, Array<float>& to, bool needed) {
    if (!needed && !c.has(array)) return;
    std::vector<float> v = c.floats(array, outside(p));
    if (p.transposed) v = transposed(v, p.cols, p.rows);
    to.upload(v.data(), int64_t(v.size()), p.offset);
  }
};

std::vector<int32_t> distinct_items(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::set<int32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  return {all.begin(), all.end()};
}

}  // namespace

void write_result(const std::string& path, const TensorFile& result) {
  std::vector<TensorView> views;
  for (const auto& [name, t] : result.tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
  write_safetensors(path, views, result.metadata);
}

TensorFile run_step_case(const std::string& in, const std::string& out, const std::string& device, int threads) {
  const Case c(in, "ccdrec-step");
  Loaded z(c, device, threads, true);
  Recommender& model = *z.model;
  Device& dev = *z.dev;
  const ::ccdrec::Shape& shape = model.shape();
  const int64_t B = int64_t(z.data.train.size()), d = z.d, U = z.U, I = z.I;
  std::vector<int32_t> users, positives, curricular;
  for (const Pair& p : z.data.train) users.push_back(p.user), positives.push_back(p.item);
  const std::vector<int32_t> negatives = c.indices("batch.negatives", {z.s.n_neg, B}, I);
  const bool frozen = c.has("batch.frozen");
  if (c.has("batch.curricular")) {
    curricular = c.indices("batch.curricular", {B}, I);
    if (!shape.cns && !shape.ndi) c.fail("'batch.curricular' is given, but the model has neither NDI nor CNS");
  }
  if (frozen && curricular.empty()) curricular.assign(size_t(B), 0);  // the rows stand for them: which items they were is not read
  const bool wants_frozen = !curricular.empty() && shape.ndi && !shape.cns && z.s.ndi_negative == "pool";
  if (frozen && !wants_frozen) c.fail("'batch.frozen' is given, but only NDI without CNS with ndi_negative = pool reads it");
  model.set_given_batch(users, positives, negatives, curricular);
  if (wants_frozen) model.set_given_frozen(c.floats("batch.frozen", {B, d}));
  const std::vector<int32_t> items = distinct_items(positives, negatives);
  const int64_t n = int64_t(items.size());
  if (shape.diffusion) {
    if (c.indices("diffusion.items", {-1}, I) != items)
      c.fail("'diffusion.items' is not the ascending list of the distinct items among positives and random negatives");
    model.dma()->set_given(c.indices("diffusion.t", {n}, z.s.timesteps), c.floats("diffusion.noise", {n, d}));
  }
  model.set_losses({});
  model.forward_backward(1, 0);

  Result r;
  static const char* const parts[] = {"loss.bpr", "loss.bpr_curricular", "loss.align", "loss.reg"};
  const EpochLosses losses = model.losses();
  double total = 0;
  for (int k = 0; k < EpochLosses::count; ++k) r.number(parts[k], losses.sum[k]), total += losses.sum[k];
  r.number("loss.total", total);
  const auto slots = [&](const std::string& name, const Shape64& s, int64_t first, int64_t rows) {
    r.floats(name, s, downloaded(dev, model.slots().slice(first, rows), rows));
    r.floats("grad." + name, s, downloaded(dev, model.slot_grads().slice(first, rows), rows));
  };
  slots("h.users", {B, d}, 0, B);
  slots("h.positives", {B, d}, B, B);
  slots("h.negatives", {z.s.n_neg, B, d}, 2 * B, z.s.n_neg * B);
  if (!curricular.empty() && !wants_frozen) slots("h.curricular", {B, d}, (2 + z.s.n_neg) * B, B);
  // Scores h_u . h_x of the batch's rows, one dot product each.
  const std::vector<float> h = downloaded(dev, model.slots(), model.slots().rows);
  const auto scores = [&](const std::string& name, const Shape64& s, int64_t first, int64_t rows) {
    std::vector<float> score;
    for (int64_t k = 0; k < rows; ++k) {
      const auto u = h.begin() + k % B * d;
      score.push_back(float(std::inner_product(u, u + d, h.begin() + (first + k) * d, 0.0)));
    }
    r.floats(name, s, score);
  };
  scores("score.positives", {B}, B, B);
  scores("score.negatives", {z.s.n_neg, B}, 2 * B, z.s.n_neg * B);
  if (!curricular.empty() && !wants_frozen) scores("score.curricular", {B}, (2 + z.s.n_neg) * B, B);
  for (size_t m = 0; m < z.modalities.size(); ++m) {
    r.floats("projection." + z.modalities[m], {n, d}, downloaded(dev, model.modalities()->h(int(m)), n));
    r.floats("grad.projection." + z.modalities[m], {n, d}, downloaded(dev, model.modalities()->d_h(int(m)), n));
  }
  if (shape.diffusion) {
    const Dma& dma = *model.dma();
    const HostSchedule schedule = make_schedule(z.s.noise_schedule, z.s.timesteps, z.s.noise_prediction_form);
    r.floats("schedule.sqrt_abar", {z.s.timesteps}, schedule.sqrt_abar);
    r.floats("schedule.sqrt_1m_abar", {z.s.timesteps}, schedule.sqrt_1m_abar);
    r.floats("e_t", {n, d}, downloaded(dev, dma.e_t(), n));
    r.floats("e0_hat", {n, d}, downloaded(dev, dma.e0_hat(), n));
    r.floats("grad.e_t", {n, d}, downloaded(dev, dma.d_e_t(), n));
    r.floats("grad.e0_hat", {n, d}, downloaded(dev, dma.d_e0_hat(), n));
    if (const EstimatorSaved* saved = dma.denoiser().saved()) {
      const int64_t K = int64_t(z.modalities.size()) + 2;
      r.floats("estimator.x", {n, K, d}, downloaded(dev, saved->x, n * K));
      r.floats("estimator.a", {n, K, K}, downloaded(dev, saved->a, n * K));
      r.floats("estimator.s", {n, d}, downloaded(dev, saved->s, n));
    }
  }

  // Gradients: the tables' rows that the step did not reach are zero, as the model is fresh.
  r.floats("grad.user_embedding.weight", {U, d}, downloaded(dev, model.backbone().user_grad(), U));
  r.floats("grad.item_id_embedding.weight", {I, d}, downloaded(dev, model.backbone().item_grad(), I));
  for (size_t m = 0; m < z.modalities.size(); ++m) {
    RowTable& x = model.modalities()->features(int(m));
    if (!x.trainable()) continue;
    const int64_t F = x.value().cols;
    const std::vector<float> listed = downloaded(dev, model.modalities()->d_x(int(m)), n);
    std::vector<float> all(size_t(I * F), 0.0f);
    for (int64_t j = 0; j < n; ++j) std::copy_n(listed.begin() + j * F, F, all.begin() + int64_t(items[size_t(j)]) * F);
    r.floats("grad." + z.modalities[m] + "_embedding.weight", {I, F}, all);
  }
  const auto arena_tensor = [&](const ParamInfo& p, CMat at) {
    const std::vector<float> v = downloaded(dev, at, p.rows);
    return p.transposed ? transposed(v, p.rows, p.cols) : v;
  };
  ParamArena& arena = model.arena();
  for (size_t k = 0; k < arena.params().size(); ++k)
    r.floats("grad." + arena.params()[k].name, Loaded::outside(arena.params()[k]), arena_tensor(arena.params()[k], arena.grad(int(k))));

  Backbone& backbone = model.backbone();
  const int L = shape.backbone.layers;
  if (const CMat hhat = backbone.hhat()) {
    r.floats("hhat", {I, d}, downloaded(dev, hhat, I));
    r.floats("grad.hhat", {I, d}, downloaded(dev, backbone.hhat_grad(), I));
  }
  if (L > 0) {  // the way back has used the memory of the layers: computed again
    for (int l = 1; l <= L; ++l) dev.ops.fill_zero(dev.ctx, backbone.layer(l));
    backbone.forward();
    for (int l = 0; l <= L; ++l) r.floats(fmt::format("ego.{}", l), {U + I, d}, downloaded(dev, backbone.layer(l), U + I));
  }

  model.update();
  model.flush();  // rows without a gradient move too, where their moments are not zero
  dev.check_faults();
  const Mat nodes = model.backbone().nodes().value();
  r.floats("new.user_embedding.weight", {U, d}, downloaded(dev, nodes.slice(0, U), U));
  r.floats("new.item_id_embedding.weight", {I, d}, downloaded(dev, nodes.slice(U, I), I));
  for (size_t m = 0; m < z.modalities.size(); ++m) {
    const Mat x = model.modalities()->features(int(m)).value();
    r.floats("new." + z.modalities[m] + "_embedding.weight", {I, x.cols}, downloaded(dev, x, I));
  }
  for (size_t k = 0; k < arena.params().size(); ++k)
    r.floats("new." + arena.params()[k].name, Loaded::outside(arena.params()[k]), arena_tensor(arena.params()[k], arena.value(int(k))));

  if (L > 0) {  // what came after took its memory: computed again
    backbone.back_propagate();
    r.floats("grad.ego.0", {U + I, d}, downloaded(dev, backbone.start_grad(), U + I));
    dev.check_faults();
  }
  return r.done(out, "ccdrec-step-result");
}

// The reverse process step by step: f_theta by the operation of training, the sum of A, B and sigma here, in the order of kernels/estimator.h.
TensorFile run_reverse_case(const std::string& in, const std::string& out, const std::string& device, int threads) {
  const Case c(in, "ccdrec-reverse");
  Loaded z(c, device, threads, false);
  Recommender& model = *z.model;
  Device& dev = *z.dev;
  if (!model.shape().diffusion) c.fail("the model of the settings has no diffusion");
  const int64_t I = z.I, d = z.d;
  const int T = z.s.timesteps;
  const std::vector<float> q = c.floats("param.item_id_embedding.weight", {I, d}), start = c.floats("noise.start", {I, d}),
                           noise = c.floats("noise.steps", {T, I, d});
  const HostSchedule h = make_schedule(z.s.noise_schedule, T, z.s.noise_prediction_form);
  model.modalities()->project_all(model.arena());
  EstimatorTokens tokens;
  Matrix e_t(dev, I, d), e0(dev, I, d);
  tokens.e_t = e_t, tokens.modalities = int(z.modalities.size()), tokens.tau = model.dma()->tau();
  for (size_t m = 0; m < z.modalities.size(); ++m) tokens.h[m] = model.modalities()->h_all(int(m));
  Array<int32_t> t_of(dev, I);
  tokens.t = t_of.p();
  std::vector<float> e(q.size()), x0, answers(q.size() * size_t(T));
  for (size_t k = 0; k < e.size(); ++k) e[k] = std::fma(h.sqrt_abar[size_t(T) - 1], q[k], h.sqrt_1m_abar[size_t(T) - 1] * start[k]);
  Result r;
  const int at[3] = {T / 4, T / 2, 3 * T / 4};
  for (int done = 0; done <= T; ++done) {
    for (int k = 0; k < 3; ++k)
      if (at[k] == done) r.floats("pool." + std::to_string(k), {I, d}, e);
    if (done == T) break;
    const int t = T - done;  // the step from t to t-1
    e_t.array().upload(e.data(), I * d);
    t_of.upload(std::vector<int32_t>(size_t(I), t - 1).data(), I);
    model.dma()->denoiser().forward(model.arena(), e0, tokens, RowList{nullptr, nullptr, I});
    x0 = downloaded(dev, e0, I);
    std::copy(x0.begin(), x0.end(), answers.begin() + int64_t(t - 1) * I * d);
    const float a = h.a[size_t(t) - 1], b = h.b[size_t(t) - 1], sigma = h.sigma[size_t(t) - 1];
    const float* const now = noise.data() + int64_t(t - 1) * I * d;
    for (size_t k = 0; k < e.size(); ++k) {
      e[k] = std::fma(b, e[k], a * x0[k]);
      if (t > 1) e[k] = std::fma(sigma, now[k], e[k]);
    }
  }
  r.floats("pool.3", {I, d}, e);
  r.floats("x0", {T, I, d}, answers);
  r.floats("schedule.a", {T}, h.a), r.floats("schedule.b", {T}, h.b), r.floats("schedule.sigma", {T}, h.sigma);
  r.floats("schedule.sqrt_abar", {T}, h.sqrt_abar), r.floats("schedule.sqrt_1m_abar", {T}, h.sqrt_1m_abar);
  dev.check_faults();
  return r.done(out, "ccdrec-reverse-result");
}

}  // namespace ccdrec
