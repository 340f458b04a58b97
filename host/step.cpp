#include "host/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <vector>

#include "host/loaded_case.h"
#include "host/tensors.h"

namespace ccdrec {
namespace {

// What is computed, and written if a file is named. UserError at the first number that is not finite: what follows from it says nothing.
class Result {
 public:
  explicit Result(const CaseFile& c) : case_(c) {}
  void floats(const std::string& name, const Extents& shape, const std::vector<float>& v) { add(name, "F32", shape, v); }
  void number(const std::string& name, double v) { add(name, "F64", {1}, std::vector<double>{v}); }
  TensorFile done(const std::string& path, const std::string& format) {
    kept_.metadata = {{"format", format}, {"version", "1"}};
    if (!path.empty()) write_result(path, kept_);
    return std::move(kept_);
  }

 private:
  template <class T>
  void add(const std::string& name, const char* dtype, const Extents& shape, const std::vector<T>& v) {
    for (size_t k = 0; k < v.size(); ++k)
      if (!std::isfinite(v[k]))
        case_.fail(
            fmt::format("its numbers are too large to compute with: '{}' of the result is {} at position {}; make the arrays of the case, or the "
                        "weights and the learning_rate of its settings, smaller",
                        name, std::isnan(v[k]) ? "no number" : "infinite", k));
    TensorData& t = kept_.tensors[name];
    t.dtype = dtype, t.shape = shape;
    t.bytes.resize(v.size() * sizeof(T));
    if (!v.empty()) std::memcpy(t.bytes.data(), v.data(), t.bytes.size());
  }
  const CaseFile& case_;
  TensorFile kept_;
};

std::vector<float> downloaded(Device& dev, CMat m, int64_t rows) {
  std::vector<float> v(size_t(rows * m.cols));
  if (!v.empty()) dev.ops.download(dev.ctx, v.data(), m.p, v.size() * sizeof(float));
  return v;
}

std::vector<int32_t> distinct_items(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::set<int32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  return {all.begin(), all.end()};
}

// What a step is given besides the model.
struct Batch {
  std::vector<int32_t> users, positives, negatives, curricular;
  std::vector<int32_t> items;  // the distinct ones among positives and negatives, ascending
  bool frozen = false;         // rows stand for the curricular negatives
  int64_t B() const { return int64_t(users.size()); }
  int64_t n() const { return int64_t(items.size()); }
  bool scores_curricular() const { return !curricular.empty() && !frozen; }
};

Batch read_batch(const LoadedCase& z) {
  const CaseFile& c = z.c;
  const Shape& shape = z.model->shape();
  Batch b;
  for (const Pair& p : z.data.train) b.users.push_back(p.user), b.positives.push_back(p.item);
  b.negatives = c.indices("batch.negatives", {z.s.n_neg, b.B()}, z.I);
  if (c.has("batch.curricular")) {
    if (!shape.cns && !shape.ndi) c.fail("'batch.curricular' is given, but the model has neither NDI nor CNS; leave it away");
    b.curricular = c.indices("batch.curricular", {b.B()}, z.I);
  }
  const bool given = c.has("batch.frozen"), reads = shape.ndi && !shape.cns && z.s.ndi_negative == "pool";
  if (given && !reads) c.fail("'batch.frozen' is given, but only NDI without CNS with ndi_negative = pool reads it; leave it away");
  if (!given && reads && !b.curricular.empty())
    c.fail("'batch.frozen' is missing: with NDI, without CNS and with ndi_negative = pool its rows stand for 'batch.curricular'; give it or neither");
  b.frozen = given;
  if (given && b.curricular.empty()) b.curricular.assign(size_t(b.B()), 0);  // which items the rows were is not read
  b.items = distinct_items(b.positives, b.negatives);
  if ((shape.diffusion || c.has("diffusion.items")) && c.indices("diffusion.items", {kAny}, z.I) != b.items)
    c.fail("'diffusion.items' is not the ascending list of the distinct items among positives and random negatives");
  return b;
}

void give_batch(LoadedCase& z, const Batch& b) {
  z.model->set_given_batch(b.users, b.positives, b.negatives, b.curricular);
  if (b.frozen) z.model->set_given_frozen(z.c.floats("batch.frozen", {b.B(), z.d}));
  if (z.model->shape().diffusion)
    z.model->dma()->set_given(z.c.indices("diffusion.t", {b.n()}, z.s.timesteps), z.c.floats("diffusion.noise", {b.n(), z.d}));
}

void add_losses(Result& r, const Recommender& model) {
  static const char* const parts[] = {"loss.bpr", "loss.bpr_curricular", "loss.align", "loss.reg"};
  const EpochLosses losses = model.losses();
  double total = 0;
  for (int k = 0; k < EpochLosses::count; ++k) r.number(parts[k], losses.sum[k]), total += losses.sum[k];
  r.number("loss.total", total);
}

// Representations of the batch's places, their gradients, and the scores h_u . h_x, one dot product each.
void add_slots(Result& r, LoadedCase& z, const Batch& batch) {
  const Recommender& model = *z.model;
  const int64_t B = batch.B(), d = z.d, n_neg = z.s.n_neg;
  const std::vector<float> h = downloaded(*z.dev, model.slots(), model.slots().rows);
  const auto slots = [&](const std::string& kind, const Extents& places, int64_t first, int64_t rows) {
    Extents shape = places;
    shape.push_back(d);
    r.floats("h." + kind, shape, {h.begin() + first * d, h.begin() + (first + rows) * d});
    r.floats("grad.h." + kind, shape, downloaded(*z.dev, model.slot_grads().slice(first, rows), rows));
    if (kind == "users") return;
    std::vector<float> score;
    for (int64_t k = 0; k < rows; ++k) {
      const auto u = h.begin() + k % B * d;
      score.push_back(float(std::inner_product(u, u + d, h.begin() + (first + k) * d, 0.0)));
    }
    r.floats("score." + kind, places, score);
  };
  slots("users", {B}, 0, B);
  slots("positives", {B}, B, B);
  slots("negatives", {n_neg, B}, 2 * B, n_neg * B);
  if (batch.scores_curricular()) slots("curricular", {B}, (2 + n_neg) * B, B);
}

void add_projections(Result& r, LoadedCase& z, int64_t n) {
  for (size_t m = 0; m < z.modalities.size(); ++m) {
    r.floats("projection." + z.modalities[m], {n, z.d}, downloaded(*z.dev, z.model->modalities()->h(int(m)), n));
    r.floats("grad.projection." + z.modalities[m], {n, z.d}, downloaded(*z.dev, z.model->modalities()->d_h(int(m)), n));
  }
}

void add_diffusion(Result& r, LoadedCase& z, int64_t n) {
  const Dma& dma = *z.model->dma();
  Device& dev = *z.dev;
  const int64_t d = z.d;
  const HostSchedule schedule = make_schedule(z.s.noise_schedule, z.s.timesteps, z.s.noise_prediction_form);
  r.floats("schedule.sqrt_abar", {z.s.timesteps}, schedule.sqrt_abar);
  r.floats("schedule.sqrt_1m_abar", {z.s.timesteps}, schedule.sqrt_1m_abar);
  r.floats("e_t", {n, d}, downloaded(dev, dma.e_t(), n));
  r.floats("e0_hat", {n, d}, downloaded(dev, dma.e0_hat(), n));
  r.floats("grad.e_t", {n, d}, downloaded(dev, dma.d_e_t(), n));
  r.floats("grad.e0_hat", {n, d}, downloaded(dev, dma.d_e0_hat(), n));
  const EstimatorSaved* const saved = dma.denoiser().saved();
  if (!saved) return;
  const int64_t K = int64_t(z.modalities.size()) + 2;
  r.floats("estimator.x", {n, K, d}, downloaded(dev, saved->x, n * K));
  r.floats("estimator.a", {n, K, K}, downloaded(dev, saved->a, n * K));
  r.floats("estimator.s", {n, d}, downloaded(dev, saved->s, n));
}

// The small parameters or their gradients, as they lie outside.
void add_dense(Result& r, LoadedCase& z, const std::string& kind, Mat (ParamArena::*at)(int) const) {
  ParamArena& arena = z.model->arena();
  for (size_t k = 0; k < arena.params().size(); ++k) {
    const ParamInfo& p = arena.params()[k];
    const std::vector<float> v = downloaded(*z.dev, (arena.*at)(int(k)), p.rows);
    r.floats(kind + p.name, LoadedCase::outside(p), p.transposed ? transposed(v, p.rows, p.cols) : v);
  }
}

// The tables' rows that the step did not reach are zero, as the model is fresh.
void add_gradients(Result& r, LoadedCase& z, const std::vector<int32_t>& items) {
  Recommender& model = *z.model;
  Device& dev = *z.dev;
  r.floats("grad.user_embedding.weight", {z.U, z.d}, downloaded(dev, model.backbone().user_grad(), z.U));
  r.floats("grad.item_id_embedding.weight", {z.I, z.d}, downloaded(dev, model.backbone().item_grad(), z.I));
  for (size_t m = 0; m < z.modalities.size(); ++m) {
    RowTable& x = model.modalities()->features(int(m));
    if (!x.trainable()) continue;
    const int64_t F = x.value().cols, n = int64_t(items.size());
    const std::vector<float> listed = downloaded(dev, model.modalities()->d_x(int(m)), n);
    std::vector<float> all(size_t(z.I * F), 0.0f);
    for (int64_t j = 0; j < n; ++j) std::copy_n(listed.begin() + j * F, F, all.begin() + int64_t(items[size_t(j)]) * F);
    r.floats("grad." + z.modalities[m] + "_embedding.weight", {z.I, F}, all);
  }
  add_dense(r, z, "grad.", &ParamArena::grad);
}

std::vector<int32_t> ids_of(Device& dev, RowList rows) {
  int64_t n = 0;
  dev.ops.download(dev.ctx, &n, rows.count, sizeof n);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  dev.ops.download(dev.ctx, ids.data(), rows.idx, ids.size() * sizeof ids[0]);
  return ids;
}

// The others are zero.
void keep_rows(std::vector<float>& table, const std::vector<int32_t>& rows, int64_t d) {
  std::vector<float> kept(table.size(), 0.0f);
  for (int32_t r : rows) std::copy_n(table.begin() + r * d, d, kept.begin() + r * d);
  table = std::move(kept);
}

void add_layers(Result& r, LoadedCase& z) {
  Backbone& backbone = z.model->backbone();
  Device& dev = *z.dev;
  const int64_t N = z.U + z.I;
  const int L = z.model->shape().backbone.layers;
  if (const CMat hhat = backbone.hhat()) {
    r.floats("hhat", {z.I, z.d}, downloaded(dev, hhat, z.I));
    r.floats("grad.hhat", {z.I, z.d}, downloaded(dev, backbone.hhat_grad(), z.I));
  }
  if (L == 0) return;
  const Mat h_grad = backbone.h_grad();  // lies where Ego_L goes, and is asked for again
  const std::vector<float> kept = downloaded(dev, h_grad, N);
  for (int l = 1; l <= L; ++l) dev.ops.fill_zero(dev.ctx, backbone.layer(l));  // the way back has used their memory: computed again
  backbone.forward(true);
  for (int l = 0; l <= L; ++l) {
    std::vector<float> ego = downloaded(dev, backbone.layer(l), N);
    if (l == 0 && backbone.spec().wrapped) keep_rows(ego, ids_of(dev, backbone.reached()), z.d);  // P itself is its upper part
    r.floats(fmt::format("ego.{}", l), {N, z.d}, std::move(ego));
  }
  dev.ops.upload(dev.ctx, h_grad.p, kept.data(), kept.size() * sizeof kept[0]);
}

void add_updated(Result& r, LoadedCase& z) {
  Recommender& model = *z.model;
  Device& dev = *z.dev;
  model.update();
  model.flush();  // rows without a gradient move too, where their moments are not zero
  dev.check_faults();
  const Mat nodes = model.backbone().nodes().value();
  r.floats("new.user_embedding.weight", {z.U, z.d}, downloaded(dev, nodes.slice(0, z.U), z.U));
  r.floats("new.item_id_embedding.weight", {z.I, z.d}, downloaded(dev, nodes.slice(model.backbone().first_item(), z.I), z.I));
  for (size_t m = 0; m < z.modalities.size(); ++m) {
    const Mat x = model.modalities()->features(int(m)).value();
    r.floats("new." + z.modalities[m] + "_embedding.weight", {z.I, x.cols}, downloaded(dev, x, z.I));
  }
  add_dense(r, z, "new.", &ParamArena::value);
}

}  // namespace

void write_result(const std::string& path, const TensorFile& result) {
  std::vector<TensorView> views;
  for (const auto& [name, t] : result.tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
  write_safetensors(path, views, result.metadata);
}

TensorFile run_step_case(const std::string& in, const std::string& out, const std::string& device, int threads) {
  const CaseFile c(in, "ccdrec-step");
  LoadedCase z(c, device, threads, Of::step);
  Recommender& model = *z.model;
  const Batch batch = read_batch(z);
  give_batch(z, batch);
  model.set_losses({});
  model.forward_backward(1, 0);

  Result r(c);
  add_losses(r, model);
  add_slots(r, z, batch);
  add_projections(r, z, batch.n());
  if (model.shape().diffusion) add_diffusion(r, z, batch.n());
  add_gradients(r, z, batch.items);
  add_layers(r, z);
  add_updated(r, z);
  if (model.shape().backbone.layers > 0) {  // what came after took its memory: computed again
    model.backbone().back_propagate();
    r.floats("grad.ego.0", {z.U + z.I, z.d}, downloaded(*z.dev, model.backbone().start_grad(), z.U + z.I));
    z.dev->check_faults();
  }
  return r.done(out, "ccdrec-step-result");
}

// The reverse process step by step: f_theta by the operation of training, the sum of A, B and sigma here, in the order of kernels/estimator.h.
TensorFile run_reverse_case(const std::string& in, const std::string& out, const std::string& device, int threads) {
  const CaseFile c(in, "ccdrec-reverse");
  LoadedCase z(c, device, threads, Of::reverse);
  Recommender& model = *z.model;
  Device& dev = *z.dev;
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
  Result r(c);
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
