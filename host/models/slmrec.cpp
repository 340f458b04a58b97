#include "host/models/slmrec.h"

#include <algorithm>
#include <cmath>

#include "host/models/parts/features.h"

namespace ccdrec {
namespace {

// The two modalities in the order that the setting names them in, or that of the data.
std::vector<const Feature*> in_place(const Setup& z) {
  std::vector<const Feature*> all;
  for (const Feature& f : z.data.features) all.push_back(&f);
  const std::vector<std::string>& named = z.s.modalities;
  const auto place = [&](const Feature* f) { return std::find(named.begin(), named.end(), f->name); };
  std::stable_sort(all.begin(), all.end(), [&](const Feature* a, const Feature* b) { return place(a) < place(b); });
  return all;
}

}  // namespace

Outline SlmRec::outline(const Settings& s) {
  Outline o;
  o.ranks = false;
  o.layers = s.n_ui_layers;
  o.propagates = o.reads_features = o.projects = true;
  o.modalities = kModalities;
  return o;
}

SlmRec::SlmRec(const Setup& z, std::vector<const char*> losses)
    : dev_(z.dev),
      U_(z.users()),
      I_(z.items()),
      d_(z.width()),
      temp_(float(z.s.temp)),
      ssl_temp_(float(z.s.ssl_temp)),
      ssl_alpha_(float(z.s.ssl_alpha)),
      losses_(std::move(losses)),
      tables_(arena_.add_tables(U_, I_, d_)),
      propagation_(z, z.s.n_ui_layers),
      nodes_(z.dev, U_ + I_, d_),
      z_all_(z.dev, U_ + I_, d_),
      ids_(z.dev, 2 * z.batch()),
      groups_(z.dev, 2 * z.batch()),
      inv_norm_(z.dev, 2 * z.batch()) {
  const Array<float> inv_norm(z.dev, I_);
  const std::vector<const Feature*> places = in_place(z);
  z.notes.push_back("modalities: " + places[0]->name + " in the visual place, " + places[1]->name +
                    " in the textual one; the setting modalities names them in that order");
  for (const Feature* f : places) {
    Matrix x = upload_features(z, *f);
    dev_.ops.normalize_rows(dev_.ctx, x, inv_norm.p(), x, all(I_));  // rows of zeros stay
    const int64_t F = x.cols();
    modalities_.push_back({f->name, std::move(x), add_map(f->name + "_dense", F, d_)});
  }
  fuse_user_ = add_map("fuse_user", kTowers * d_, d_), fuse_item_ = add_map("fuse_item", kTowers * d_, d_);
  g1_ = add_map("ssl.g1", d_, d_), g2_ = add_map("ssl.g2", d_, d_), g3_ = add_map("ssl.g3", d_, d_);
  g4_ = add_map("ssl.g4", d_, d_ / 2), g5_ = add_map("ssl.g5", d_, d_ / 2);
  arena_.take(dev_);
  init(z.s.seed);
  const int64_t B = z.batch();
  for (Matrix* slots : {h_, h_ + 1, h_ + 2, d_h_, d_h_ + 1, d_h_ + 2, &z_, &z_hat_, &d_z_, &d_z_hat_})
    *slots = Matrix(dev_, 2 * B, d_);
  for (Matrix* fine : {&x1_, &x2_, &x3_, &d1_, &d2_, &d3_}) *fine = Matrix(dev_, B, d_);
  for (Matrix* coarse : {&x4_, &x5_, &d4_, &d5_}) *coarse = Matrix(dev_, B, d_ / 2);
}

SlmRec::Map SlmRec::add_map(const std::string& name, int64_t in, int64_t out) {
  const int w = arena_.add(name + ".weight", in, out, true);
  return {w, arena_.add(name + ".bias", 1, out, false)};
}

// Tables and weights xavier_uniform, biases linear_default (spec baselines 1.2, 6.1).
void SlmRec::init(uint32_t seed) {
  const auto uniform = [&](int parameter, double bound, uint32_t which) {
    dev_.ops.init_uniform(dev_.ctx, arena_.value(parameter), float(bound), Stream{seed, Use::init, 0, which});
  };
  const auto xavier = [&](int parameter, uint32_t which) {
    const Mat w = arena_.value(parameter);
    uniform(parameter, std::sqrt(6.0 / double(w.rows + w.cols)), which);
  };
  xavier(tables_, 0), xavier(tables_ + 1, 1);
  std::vector<Map> maps;
  for (const Modality& m : modalities_) maps.push_back(m.dense);
  maps.insert(maps.end(), {fuse_user_, fuse_item_, g1_, g2_, g3_, g4_, g5_});
  uint32_t which = 16;
  for (const Map& m : maps) {
    xavier(m.w, which++);
    uniform(m.b, 1 / std::sqrt(double(arena_.value(m.w).rows)), which++);
  }
}

// --- linear maps -----------------------------------------------------------------------------------------------------

void SlmRec::map(Mat y, CMat x, Map m) {
  dev_.ops.project(dev_.ctx, y, x, all(x.rows), arena_.value(m.w), arena_.value(m.b));
}

// Gradients of W and b.
void SlmRec::map_back(Map m, CMat x, CMat d_y, bool with_bias) {
  if (with_bias)
    dev_.ops.project_backward(dev_.ctx, arena_.grad(m.w), arena_.grad(m.b), {}, d_y, x, all(x.rows), arena_.value(m.w));
  else
    dev_.ops.gemm(dev_.ctx, arena_.grad(m.w), x, true, d_y, false, true);
}

// Z = [H_id | H_v | H_t] F + f, a tower at a time.
void SlmRec::fuse(Mat z, CMat h, int tower, Map f) {
  if (tower == 0)
    dev_.ops.project(dev_.ctx, z, h, all(h.rows), w_of(f, 0), arena_.value(f.b));
  else
    dev_.ops.gemm(dev_.ctx, z, h, false, w_of(f, tower), false, true);
}

void SlmRec::fuse_back(Map f, CMat d_z, CMat h, int tower, Mat d_h, bool add) {
  const Mat d_w = arena_.grad(f.w).slice(tower * d_, d_);
  if (tower == 0)
    dev_.ops.project_backward(dev_.ctx, d_w, arena_.grad(f.b), {}, d_z, h, all(h.rows), w_of(f, 0));
  else
    dev_.ops.gemm(dev_.ctx, d_w, h, true, d_z, false, true);
  dev_.ops.gemm(dev_.ctx, d_h, d_z, false, w_of(f, tower), true, add);
}

// --- forward ---------------------------------------------------------------------------------------------------------
//   V = X_v W_v + b_v,  T = X_t W_t + b_t                                                   (I,d)
//   H_id = prop([P; Q]),  H_v = prop([P; V]),  H_t = prop([P; T])                           (N,d)
//   Zu = [H_id | H_v | H_t]_users F_u + f_u,  Zi = [H_id | H_v | H_t]_items F_i + f_i
// A step forms H, Zu and Zi of its nodes alone; of H there is one at a time.

CMat SlmRec::start(int tower) {
  if (tower == 0) return arena_.stacked(tables_);
  const Modality& m = modalities_[size_t(tower - 1)];
  map(values_of_items(nodes_), m.x, m.dense);
  dev_.ops.copy_rows(dev_.ctx, nodes_.top(U_), arena_.value(tables_), all(U_));
  return nodes_;
}

void SlmRec::forward(const Batch& batch, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::forward);
  B_ = batch.rows;
  dev_.ops.offset_ids(dev_.ctx, ids_.p(), batch.users, B_, 0);
  dev_.ops.offset_ids(dev_.ctx, ids_.p() + B_, batch.positives(), B_, int32_t(U_));
  slots_ = groups_.groups();
  dev_.ops.group(dev_.ctx, slots_, ids_.p(), 2 * B_, U_ + I_);
  propagation_.touch(propagation_.whole(), propagation_.whole_t(), slots_.rows);
  for (int tower = 0; tower < kTowers; ++tower) {
    propagation_.forward(start(tower));
    const Mat h = h_[tower].top(2 * B_);
    dev_.ops.gather_rows(dev_.ctx, h, propagation_.h(), ids_.p(), 2 * B_);
    fuse(z_.top(B_), h.slice(0, B_), tower, fuse_user_);
    fuse(z_.mat().slice(B_, B_), h.slice(B_, B_), tower, fuse_item_);
  }
  dev_.ops.normalize_rows(dev_.ctx, z_hat_.top(2 * B_), inv_norm_.p(), z_.top(2 * B_), all(2 * B_));
  const auto positives = [&](int tower) { return h_[tower].mat().slice(B_, B_); };
  map(x1_.top(B_), positives(0), g1_), map(x2_.top(B_), positives(1), g2_);
  map(x3_.top(B_), x1_.top(B_), g3_), map(x4_.top(B_), x3_.top(B_), g4_);
  map(x5_.top(B_), positives(2), g5_);
}

// --- backward --------------------------------------------------------------------------------------------------------
//   main = nce(rows of Zu[u] at length 1, of Zi[p] at length 1, temp)
//   x1 = H_id[p] g1,  x2 = H_v[p] g2,                 ssl_1 = nce(x1, x2, ssl_temp)
//   x3 = x1 g3,  x4 = x3 g4,  x5 = H_t[p] g5,         ssl_2 = nce(x4, x5, ssl_temp)
//   L = main + ssl_alpha (ssl_1 + ssl_2)

void SlmRec::backward(const Batch&, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::backward);
  arena_.zero_grad(dev_);
  contrast(step);
  ssl_back();
  dev_.ops.normalize_rows_backward(dev_.ctx, d_z_.top(2 * B_), d_z_hat_.top(2 * B_), z_hat_.top(2 * B_), inv_norm_.p(),
                                   all(2 * B_), false);
  for (int tower = 0; tower < kTowers; ++tower) {
    const Mat h = h_[tower], d_h = d_h_[tower];
    fuse_back(fuse_user_, d_z_.top(B_), h.slice(0, B_), tower, d_h.slice(0, B_), false);
    fuse_back(fuse_item_, d_z_.mat().slice(B_, B_), h.slice(B_, B_), tower, d_h.slice(B_, B_), true);
    propagate_back(tower);
  }
}

// The losses with the gradients of what they compare.
void SlmRec::contrast(const Step& step) {
  const Mat z = z_hat_, d_z = d_z_hat_;
  dev_.ops.infonce(dev_.ctx, step.loss + kMain, d_z.slice(0, B_), d_z.slice(B_, B_), z.slice(0, B_), z.slice(B_, B_),
                   temp_, 1);
  dev_.ops.infonce(dev_.ctx, step.loss + kFine, d1_.top(B_), d2_.top(B_), x1_.top(B_), x2_.top(B_), ssl_temp_,
                   ssl_alpha_);
  dev_.ops.infonce(dev_.ctx, step.loss + kCoarse, d4_.top(B_), d5_.top(B_), x4_.top(B_), x5_.top(B_), ssl_temp_,
                   ssl_alpha_);
}

// From x1 .. x5 to the positives' rows of d_h, which it writes. What the biases of g2 and g5 do to a row of logits is
// the same for all of them: their gradients are 0, and not computed.
void SlmRec::ssl_back() {
  const auto rows = [&](const Matrix& m) { return m.top(B_); };
  const auto positives = [&](const Matrix& m) { return m.mat().slice(B_, B_); };
  const auto through = [&](Mat d_x, CMat d_y, Map m, bool add) {
    dev_.ops.gemm(dev_.ctx, d_x, d_y, false, arena_.value(m.w), true, add);
  };
  map_back(g4_, rows(x3_), rows(d4_), true), through(rows(d3_), rows(d4_), g4_, false);
  map_back(g3_, rows(x1_), rows(d3_), true), through(rows(d1_), rows(d3_), g3_, true);
  map_back(g1_, positives(h_[0]), rows(d1_), true), through(positives(d_h_[0]), rows(d1_), g1_, false);
  map_back(g2_, positives(h_[1]), rows(d2_), false), through(positives(d_h_[1]), rows(d2_), g2_, false);
  map_back(g5_, positives(h_[2]), rows(d5_), false), through(positives(d_h_[2]), rows(d5_), g5_, false);
}

// To P, to which every tower adds, and to Q or the map of a modality. Nodes that the step does not reach have gradient
// 0, which the way back leaves to others to write.
void SlmRec::propagate_back(int tower) {
  dev_.ops.segment_sum(dev_.ctx, propagation_.g(), d_h_[tower].top(2 * B_), slots_, true, false);
  if (tower == 0) return propagation_.backward(arena_.stacked_grad(tables_), false);
  dev_.ops.fill_zero(dev_.ctx, nodes_);
  propagation_.backward(nodes_, false);
  dev_.ops.add_rows(dev_.ctx, arena_.grad(tables_), nodes_.top(U_), all(U_), 0);
  const Modality& m = modalities_[size_t(tower - 1)];
  map_back(m.dense, m.x, values_of_items(nodes_), true);
}

void SlmRec::update(const Step& step) {
  const Phase phase = step.clock.phase(RangeId::optimiser);
  arena_.update(dev_, step.adam, step.t + 1);
}

// --- evaluation, and looking into a step -----------------------------------------------------------------------------

void SlmRec::represent(CMat& h_u, CMat& h_i) {
  for (int tower = 0; tower < kTowers; ++tower) {
    propagation_.all(start(tower));
    const Mat h = propagation_.h();
    fuse(z_all_.top(U_), h.slice(0, U_), tower, fuse_user_);
    fuse(values_of_items(z_all_), values_of_items(h), tower, fuse_item_);
  }
  h_u = z_all_.top(U_), h_i = values_of_items(z_all_);
}

std::vector<std::string> SlmRec::modalities() const {
  std::vector<std::string> names;
  for (const Modality& m : modalities_) names.push_back(m.name);
  return names;
}

void SlmRec::graphs(Watch& w) {
  if (propagation_.layers() > 0) w.graph("graph.user_item", propagation_.whole(), false);
}

void SlmRec::show(const Batch&, Watch& w) {
  const auto half = [&](const Matrix& m, int k) { return m.mat().slice(k * B_, B_); };
  w.floats("h.users", {B_, d_}, half(z_, 0)), w.floats("h.positives", {B_, d_}, half(z_, 1));
  w.floats("grad.h.users", {B_, d_}, half(d_z_, 0)), w.floats("grad.h.positives", {B_, d_}, half(d_z_, 1));
  const Matrix* const x[] = {&x1_, &x2_, &x3_, &x4_, &x5_};
  const Matrix* const g[] = {&d1_, &d2_, &d3_, &d4_, &d5_};
  for (int k = 0; k < 5; ++k) {
    const std::string name = "ssl.x" + std::to_string(k + 1);
    w.floats(name, {B_, x[k]->cols()}, x[k]->top(B_));
    w.floats("grad." + name, {B_, g[k]->cols()}, g[k]->top(B_));
  }
  arena_.show_gradients(w);
}

// --- what it takes ---------------------------------------------------------------------------------------------------

void SlmRec::plan(Planner& p) {
  const int64_t d = p.d, L = p.s.n_ui_layers;
  const auto tensor = [&](int64_t rows, int64_t cols) { p.dense += (rows * cols + 15) / 16 * 16; };
  const auto linear = [&](int64_t in, int64_t out) { tensor(in, out), tensor(1, out); };
  tensor(p.N, d);
  for (const Feature& f : p.data.features) linear(f.matrix.cols(), d), p.features += p.I * f.matrix.cols();
  linear(kTowers * d, d), linear(kTowers * d, d);
  for (int k = 0; k < 3; ++k) linear(d, d);
  for (int k = 0; k < 2; ++k) linear(d, d / 2);
  // the propagation's H and layers, without one a gradient too; a tower's start; Z
  p.propagated += (1 + std::max<int64_t>(L, 1) + 2) * p.N * d;
  if (L > 0) p.graphs += Planner::csr(p.N, 2 * p.E);
  p.graphs += (L + 1) * (5 * p.N + 8);  // rows that a step reaches: a list and a mask for each layer
  p.step += 2 * p.B * (10 * d + 1) + p.B * (6 * d + 4 * (d / 2));
  p.step += 8 * p.B + 3;  // nodes of the slots, and in groups

  p.ops.group_scratch(p.scratch, 2 * p.B);
  for (const Feature& f : p.data.features) {
    p.ops.project_scratch(p.scratch, p.I, f.matrix.cols(), d, false);
    p.ops.project_backward_all_scratch(p.scratch, p.I, f.matrix.cols(), d);
  }
  for (const int64_t rows : {p.B, p.E % p.B})
    for (const int64_t width : {d, d / 2}) {
      p.ops.project_scratch(p.scratch, rows, d, width, false);
      p.ops.project_backward_all_scratch(p.scratch, rows, d, width);
      p.ops.infonce_scratch(p.scratch, rows, width);
    }
}

}  // namespace ccdrec
