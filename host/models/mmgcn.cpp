#include "host/models/mmgcn.h"

#include <cmath>
#include <set>

#include "host/models/parts/features.h"

namespace ccdrec {

namespace {

// Whose preferences the regulariser counts: of the published two modalities the visual one.
bool is_visual(const std::string& name) { return name == "image" || name == "visual" || name == "vision"; }

}  // namespace

Outline Mmgcn::outline(const Settings&) {
  Outline o;
  o.ranks = false;
  o.reads_features = o.projects = o.propagates = o.frozen_tables = true;
  return o;
}

Mmgcn::Mmgcn(const Setup& z, std::vector<const char*> losses)
    : dev_(z.dev),
      losses_(std::move(losses)),
      U_(z.users()),
      I_(z.items()),
      d_(z.width()),
      reg_(float(z.s.reg_weight)),
      seed_(z.s.seed),
      messages_(z),
      id_(z.dev, U_ + I_, d_),
      r_(z.dev, U_ + I_, d_),
      slots_(z, 0, false),
      g_r_(z.dev, U_ + I_, d_),
      g_one_(z.dev, U_ + I_, d_),
      g_two_(z.dev, U_ + I_, d_),
      g_y_(z.dev, U_ + I_, d_) {
  int64_t widest = d_;
  for (size_t m = 0; m < z.data.features.size(); ++m) {
    add(z, m);
    widest = std::max(widest, branches_.back().c);
  }
  messages_.reserve(widest);
  g_h_ = Matrix(dev_, U_ + I_, widest);
  if (reg_ > 0) rms_ = Matrix(dev_, 1, 1), id_rows_ = Matrix(dev_, z.batch(), d_);
  arena_.take(dev_);
  init();
  settle();
}

void Mmgcn::add(const Setup& z, size_t modality) {
  const Feature& f = z.data.features[modality];
  const int64_t N = U_ + I_, F = f.matrix.cols(), latent = z.graphs.latent_width(modality);
  Branch& b = branches_.emplace_back();
  b.name = f.name;
  b.c = latent > 0 ? latent : F;
  b.features = upload_features(z, f);
  if (latent > 0) {
    b.mlp = arena_.add(b.name + ".mlp.weight", F, b.c, true);
    b.mlp_bias = arena_.add(b.name + ".mlp.bias", 1, b.c, false);
  }
  b.x = Matrix(dev_, N, b.c), b.inv_norm = Array<float>(dev_, N);
  for (int k = 0; k < kLayers; ++k) {
    Layer& l = b.layer[k];
    const int64_t c = k == 0 ? b.c : d_;
    const auto name = [&](const char* part, const char* end) {
      return b.name + "." + part + std::to_string(k + 1) + "." + end;
    };
    // C is written as it is, (in,out). One of (1,1) too is a matrix in files: its transpose is itself.
    l.conv = arena_.add(name("conv", "weight"), c, c, c == 1);
    l.linear = arena_.add(name("linear", "weight"), c, d_, true);
    l.linear_bias = arena_.add(name("linear", "bias"), 1, d_, false);
    l.g = arena_.add(name("g", "weight"), c + d_, d_, true);
    l.g_bias = arena_.add(name("g", "bias"), 1, d_, false);
    l.k = Matrix(dev_, messages_.near(), c);
    l.h = Matrix(dev_, N, c), l.y = Matrix(dev_, N, d_), l.s = Matrix(dev_, N, d_);
  }
}

// --- initial values (spec baselines 1.2, 5.1) ------------------------------------------------------------------------

void Mmgcn::fill_normal(Mat t, int64_t modality, int tensor) const {
  const float sd = float(std::sqrt(2.0 / double(t.rows + t.cols)));
  dev_.ops.init_normal(dev_.ctx, t, sd, {seed_, Use::init, 0, uint32_t(1 + modality * kTensors + tensor)});
}

void Mmgcn::fill_uniform(Mat t, int64_t modality, int tensor, int64_t in) const {
  const float bound = float(1 / std::sqrt(double(in)));
  dev_.ops.init_uniform(dev_.ctx, t, bound, {seed_, Use::init, 0, uint32_t(1 + modality * kTensors + tensor)});
}

void Mmgcn::init() {
  const float sd = float(std::sqrt(2.0 / double(U_ + I_ + d_)));
  dev_.ops.init_normal(dev_.ctx, id_, sd, {seed_, Use::init, 0, 0});
  for (size_t m = 0; m < branches_.size(); ++m) {
    const Branch& b = branches_[m];
    const int64_t at = int64_t(m);
    if (b.mapped()) {
      const int64_t F = b.features.cols();
      fill_uniform(value(b.mlp), at, kMlp, F), fill_uniform(value(b.mlp_bias), at, kMlpBias, F);
    }
    for (int k = 0; k < kLayers; ++k) {
      const Layer& l = b.layer[k];
      const Mat z = value(l.g);
      const int64_t c = value(l.conv).rows;
      fill_normal(value(l.conv), at, kConv + k);
      fill_normal(value(l.linear), at, kLinear + k);
      fill_uniform(value(l.linear_bias), at, kLinearBias + k, c);
      if (k == 0)
        fill_normal(z, at, kG);
      else
        fill_uniform(z, at, kG + k, z.rows);
      fill_uniform(value(l.g_bias), at, kGBias + k, z.rows);
    }
  }
}

void Mmgcn::draw_preference(Mat to, size_t branch) const { fill_normal(to, int64_t(branch), kPreference); }

// What follows from the constants: the users' rows of x_1, those of the items where they are not mapped, k of the first
// layer where it stays, and the preferences' share of the regulariser.
void Mmgcn::settle() {
  bool counted = false;
  for (size_t m = 0; m < branches_.size(); ++m) {
    Branch& b = branches_[m];
    const RowList users{nullptr, nullptr, U_};
    const Mat x_u = b.x.top(U_), x_i = items_of(b.x);
    if (b.preference)
      dev_.ops.copy_rows(dev_.ctx, x_u, b.preference, users);
    else
      draw_preference(x_u, m);
    if (rms_ && !counted && is_visual(b.name)) {
      counted = true;
      double squares = 0;
      for (const float v : host_copy(dev_, x_u)) squares += double(v) * v;
      const float root = float(std::sqrt(squares / double(x_u.size())));
      rms_.array().upload(&root, 1);
    }
    if (!b.mapped()) dev_.ops.copy_rows(dev_.ctx, x_i, b.features, items());
    dev_.ops.normalize_rows(dev_.ctx, b.x, b.inv_norm.p(), b.x, nodes());
    messages_.gather(b.layer[0].k, b.x);
  }
}

// --- forward ---------------------------------------------------------------------------------------------------------

// The items' rows of x_1 where they are mapped. k of the first layer stays where it is of the users' rows.
void Mmgcn::map(Branch& b) {
  const Mat x_i = items_of(b.x);
  dev_.ops.project(dev_.ctx, x_i, b.features, items(), value(b.mlp), value(b.mlp_bias));
  dev_.ops.normalize_rows(dev_.ctx, x_i, b.inv_norm.p() + U_, x_i, items());
  if (!messages_.items_are_near()) messages_.gather(b.layer[0].k, b.x);
}

// R of the parameters as they are.
void Mmgcn::compute() {
  const Slopes share = Slopes::share_of(int(branches_.size()));
  for (Branch& b : branches_) {
    if (b.mapped()) map(b);
    CMat x = b.x;
    for (int k = 0; k < kLayers; ++k) {
      const Layer& l = b.layer[k];
      if (k > 0) messages_.gather(l.k, x);
      messages_.send(l.h, l.k, x, value(l.conv));
      dev_.ops.leaky_relu(dev_.ctx, l.h, l.h, {}, {});
      dev_.ops.project(dev_.ctx, l.y, x, nodes(), value(l.linear), value(l.linear_bias));
      dev_.ops.leaky_relu(dev_.ctx, l.y, l.y, id_, {});
      const Mat z = value(l.g);
      dev_.ops.project(dev_.ctx, l.s, l.h, nodes(), of_h(z), value(l.g_bias));
      dev_.ops.gemm(dev_.ctx, l.s, l.y, false, of_y(z), false, true);
      if (k + 1 < kLayers) dev_.ops.leaky_relu(dev_.ctx, l.s, l.s, {}, {});
      x = l.s;
    }
    dev_.ops.leaky_relu(dev_.ctx, r_, x, &b == branches_.data() ? CMat() : CMat(r_), share);
  }
}

void Mmgcn::forward(const Batch& batch, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::forward);
  slots_.list(batch, false, {});
  compute();
  slots_.gather(r_);
}

// --- backward --------------------------------------------------------------------------------------------------------

void Mmgcn::backward(const Batch& batch, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::backward);
  arena_.zero_grad(dev_);
  rank(batch, step);
  dev_.ops.fill_zero(dev_.ctx, g_r_);
  slots_.scatter(g_r_);
  const Slopes share = Slopes::share_of(int(branches_.size()));
  for (Branch& b : branches_) go_back(b, share);
}

// The mean of the ranking loss over the random negatives.
void Mmgcn::rank(const Batch& batch, const Step& step) {
  const int n_neg = slots_.n_neg();
  for (int k = 0; k < n_neg; ++k)
    dev_.ops.bpr(dev_.ctx, step.loss, {slots_.d(0), slots_.d(1), slots_.d(2 + k), k > 0, k > 0}, slots_.h(0),
                 slots_.h(1), slots_.h(2 + k), 1.0f / float(n_neg), false);
  if (reg_ > 0) add_constant(batch, step.loss + 1);
}

// reg { mean over the rows (u,p), (u,n) and d columns of ID[u]^2 + ID[item]^2, + mean of the visual pref^2 }; of
// several negatives the mean. In the 2 B rows those of users stand twice.
void Mmgcn::add_constant(const Batch& batch, double* loss) {
  const int64_t B = batch.rows;
  const float w = reg_ / float(B * d_);
  const Mat rows = id_rows_.top(B);
  const auto add = [&](CMat table, const int32_t* ids, float weight) {
    dev_.ops.gather_rows(dev_.ctx, rows, table, ids, B);
    dev_.ops.square_reg(dev_.ctx, loss, {}, rows, weight);
  };
  add(id_.top(U_), batch.users, 2 * w);
  add(items_of(id_), batch.positives(), w);
  for (int k = 0; k < batch.n_neg; ++k) add(items_of(id_), batch.negatives() + k * B, w / float(batch.n_neg));
  dev_.ops.square_reg(dev_.ctx, loss, {}, rms_, 2 * reg_);
}

//   G_s = lrelu'(s) G_x4                G_Z = [h, y]^T G_s, G_z;   [G_h, G_y] = G_s Z^T
//   G_r = lrelu'(r) G_h                 G_C and, of x, what came by messages
//   G_q = lrelu'(q) G_y                 G_A = x^T G_q, G_a;        G_x += G_q A^T
void Mmgcn::go_back(Branch& b, Slopes share) {
  Mat g_s = g_one_, g_x = g_two_;
  dev_.ops.leaky_relu_backward(dev_.ctx, g_s, g_r_, b.layer[kLayers - 1].s, {}, share);
  for (int k = kLayers - 1; k >= 0; --k) {
    const Layer& l = b.layer[k];
    const CMat x = k == 0 ? b.x : b.layer[k - 1].s;
    const CMat a = value(l.linear), z_h = of_h(value(l.g)), z_y = of_y(value(l.g));
    const Mat g_z = grad(l.g), g_y = g_y_;
    const Mat g_h{g_h_.array().p(), U_ + I_, x.cols};
    dev_.ops.project_backward(dev_.ctx, of_h(g_z), grad(l.g_bias), g_h, g_s, l.h, nodes(), z_h);
    dev_.ops.gemm(dev_.ctx, of_y(g_z), l.y, true, g_s, false, true);
    dev_.ops.gemm(dev_.ctx, g_y, g_s, false, z_y, true, false);
    dev_.ops.leaky_relu_backward(dev_.ctx, g_h, g_h, l.h, {}, {});
    dev_.ops.leaky_relu_backward(dev_.ctx, g_y, g_y, l.y, id_, {});
    dev_.ops.project_backward(dev_.ctx, grad(l.linear), grad(l.linear_bias), {}, g_y, x, nodes(), a);
    if (k > 0) {
      messages_.backward(grad(l.conv), g_x, Messages::Wanted::all, g_h, l.k, x, value(l.conv));
      dev_.ops.gemm(dev_.ctx, g_x, g_y, false, a, true, true);
      dev_.ops.leaky_relu_backward(dev_.ctx, g_x, g_x, x, {}, {});  // G_s of the layer before
      std::swap(g_s, g_x);
      continue;
    }
    const Mat g_f = items_of(g_h);  // the users' rows of x_1 are constants
    messages_.backward(grad(l.conv), g_f, b.mapped() ? Messages::Wanted::items : Messages::Wanted::none, g_h, l.k, x,
                       value(l.conv));
    if (!b.mapped()) continue;
    dev_.ops.gemm(dev_.ctx, g_f, items_of(g_y), false, a, true, true);
    map_back(b, g_f);
  }
}

// From the gradient of the items' rows of x_1.
void Mmgcn::map_back(Branch& b, Mat g_f) {
  dev_.ops.normalize_rows_backward(dev_.ctx, g_f, g_f, items_of(b.x), b.inv_norm.p() + U_, items(), false);
  dev_.ops.project_backward(dev_.ctx, grad(b.mlp), grad(b.mlp_bias), {}, g_f, b.features, items(), value(b.mlp));
}

void Mmgcn::update(const Step& step) {
  const Phase phase = step.clock.phase(RangeId::optimiser);
  arena_.update(dev_, step.adam, step.t + 1);
}

// --- evaluation ------------------------------------------------------------------------------------------------------

void Mmgcn::represent(CMat& h_u, CMat& h_i) {
  compute();
  h_u = r_.top(U_), h_i = items_of(r_);
}

Chosen Mmgcn::choose(int, const Batch& batch, const Step&) {
  const Mat room = slots_.block(1, batch.rows);
  dev_.ops.gather_rows(dev_.ctx, room, items_of(r_), batch.negatives(), batch.rows);
  return {room, batch.negatives()};
}

// --- files, and looking into a step ----------------------------------------------------------------------------------

std::vector<std::string> Mmgcn::modalities() const {
  std::vector<std::string> names;
  for (const Branch& b : branches_) names.push_back(b.name);
  return names;
}

// Training has the preferences only at length 1, in x_1. Who asks for them, a case or a record, gets them drawn again.
void Mmgcn::constants(Windows& all) {
  const auto frozen = [&](const std::string& name, Matrix& m) {
    all.push_back({name, m.rows(), m.cols(), false, &m.array(), nullptr, nullptr, 0});
  };
  frozen("id_embedding", id_);
  for (size_t m = 0; m < branches_.size(); ++m) {
    Branch& b = branches_[m];
    if (!b.preference) {
      b.preference = Matrix(dev_, U_, b.c);
      draw_preference(b.preference, m);
    }
    frozen(b.name + ".preference", b.preference);
    frozen(b.name + "_embedding.weight", b.features);
  }
}

void Mmgcn::give(const Given& given, const Batch& batch) {
  for (const char* array : {"batch.curricular", "batch.frozen", "hard.items", "hard.alpha"})
    if (given.has(array))
      given.fail(std::string("'") + array + "' is given, but this model has no hard negatives; leave it away");
  if (!given.has("diffusion.items")) return;
  const std::vector<int32_t> listed = host_copy(dev_, batch.items, batch.item_slots());
  const std::set<int32_t> distinct(listed.begin(), listed.end());
  if (given.indices("diffusion.items", {kAny}, I_) != std::vector<int32_t>(distinct.begin(), distinct.end()))
    given.fail(
        "'diffusion.items' is not the ascending list of the distinct items among positives and random negatives");
}

void Mmgcn::show(const Batch&, Watch& w) {
  slots_.show(w, nullptr);
  arena_.show_gradients(w);
}

// --- memory ----------------------------------------------------------------------------------------------------------

void Mmgcn::plan(Planner& p) {
  const int64_t N = p.N, d = p.d;
  const auto parameter = [&](int64_t values) { p.dense += (values + 15) / 16 * 16; };
  int64_t widest = d;
  p.propagated += 6 * N * d;  // ID, R; gradients of R, s, x and y
  for (const Feature& f : p.data.features) {
    const int64_t F = f.matrix.cols(), latent = latent_width(p.s, F), c_1 = latent > 0 ? latent : F;
    widest = std::max(widest, c_1);
    p.features += p.I * F;
    p.propagated += N * (c_1 + 1);
    if (latent > 0) {
      parameter(F * c_1), parameter(c_1);
      p.project_all(p.I, F, c_1);
    }
    for (const int64_t c : {c_1, d, d}) {
      p.propagated += N * (c + 2 * d);
      for (const int64_t values : {c * c, c * d, d, (c + d) * d, d}) parameter(values);
      Messages::plan_layer(p, c);
      p.project_all(N, c, d);  // A, Z_h
      p.project_all(N, d, d);  // Z_y
      p.product(N, c, d);      // G Z_h^T, G A^T
    }
  }
  Messages::plan(p, widest);
  p.propagated += N * widest;
  const int64_t n_neg = p.s.n_neg, slots = p.B * (3 + n_neg);
  p.ops.group_scratch(p.scratch, p.B * (2 + n_neg));
  p.step += 2 * slots * d + 7 * slots + p.B * (3 + n_neg);  // slots, their ids and groups; the batch
  if (p.s.reg_weight > 0) p.step += p.B * d + 1;
}

}  // namespace ccdrec
