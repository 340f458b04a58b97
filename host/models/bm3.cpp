#include "host/models/bm3.h"

#include <algorithm>
#include <cmath>

namespace ccdrec {

static_assert(int(Use::unet_mask) - int(Use::view_modality) == kMaxModalities, "a stream for each modality");

Outline Bm3::outline(const Settings& s) {
  Outline o;
  o.ranks = false;
  o.layers = s.n_ui_layers;
  o.propagates = o.reads_features = o.projects = o.views = true;
  return o;
}

Bm3::Bm3(const Setup& z, std::vector<const char*> losses)
    : dev_(z.dev),
      losses_(std::move(losses)),
      seed_(z.s.seed),
      U_(z.users()),
      I_(z.items()),
      most_(z.batch()),
      words_(mask_words(z.width())),
      reg_(float(z.s.reg_weight / double(z.items()))),
      cl_(float(z.s.cl_weight)),
      rate_(float(z.s.dropout)),
      tables_(arena_.add_tables(U_, I_, z.width())),
      w_p_(arena_.add("predictor.weight", z.width(), z.width(), true)),
      b_p_(arena_.add("predictor.bias", 1, z.width(), false)),
      modal_(z, arena_),
      propagation_(z, z.s.n_ui_layers),
      user_groups_(z.dev, most_),
      item_groups_(z.dev, most_),
      masked_(size_t(views()), rate_ > 0) {
  for (Matrix* const m : {&x_, &o_, &d_x_, &d_o_}) *m = Matrix(z.dev, views() * most_, z.width());
  if (rate_ > 0) masks_ = Array<uint16_t>(z.dev, views() * most_ * words_);
  arena_.take(z.dev);
  init(z.s.seed);
  propagation_.touch(propagation_.whole(), propagation_.whole_t(), RowList{nullptr, nullptr, U_ + I_});
}

// P and Q xavier_uniform; maps and predictor: W xavier_normal, b linear_default (spec baselines 1.2, 7.1).
void Bm3::init(uint32_t seed) {
  const auto stream = [seed](uint32_t which) { return Stream{seed, Use::init, 0, which}; };
  for (const int table : {0, 1}) {
    const Mat t = arena_.value(tables_ + table);
    dev_.ops.init_uniform(dev_.ctx, t, float(std::sqrt(6.0 / double(t.rows + t.cols))), stream(uint32_t(table)));
  }
  const Mat w = arena_.value(w_p_);
  dev_.ops.init_normal(dev_.ctx, w, float(std::sqrt(2.0 / double(w.rows + w.cols))), stream(2));
  dev_.ops.init_uniform(dev_.ctx, arena_.value(b_p_), float(1.0 / std::sqrt(double(w.rows))), stream(3));
  modal_.init(Modalities::Init::xavier_normal);
}

std::string Bm3::view_name(int k) const {
  return k == kUsers ? "users" : k == kItems ? "items" : modal_.names()[size_t(k - kModality)];
}

// --- forward ---------------------------------------------------------------------------------------------------------
//   H  = mean_l A^l [P; Q],  its items + Q                          of every node
//   X  = [H_u[u] | H_i[p] | X_m[p] W_m + b_m, each m]               the views of the batch's rows
//   O  = X W_p + b_p

// A mask for each row of a table: rows of the batch that name the same user or item have the same.
void Bm3::sample(const Batch& batch, const Step& step) {
  if (rate_ == 0) return;
  int32_t* const users = const_cast<int32_t*>(batch.users);  // a RowList may be written, and this one is read
  for (int k = 0; k < views(); ++k) {
    const Use use = k == kUsers   ? Use::view_users
                    : k == kItems ? Use::view_items
                                  : Use(uint32_t(Use::view_modality) + uint32_t(k - kModality));
    const RowList rows{k == kUsers ? users : batch.items, nullptr, batch.rows};
    dev_.ops.draw_masks(dev_.ctx, mask_of(k), rows, words_, rate_, step.now.draws(seed_, use));
  }
}

void Bm3::propagate() {
  propagation_.forward(arena_.stacked(tables_), true);
  dev_.ops.add_rows(dev_.ctx, propagation_.h(), q(), all_items(), U_);
}

void Bm3::predict(Mat to, CMat x) {
  dev_.ops.project(dev_.ctx, to, x, RowList{nullptr, nullptr, x.rows}, arena_.value(w_p_), arena_.value(b_p_));
}

// Features catch up as they are read: that part of their optimiser's work is counted here.
void Bm3::forward(const Batch& batch, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::forward);
  rows_ = batch.rows;
  by_user_ = user_groups_.groups(), by_item_ = item_groups_.groups();
  dev_.ops.group(dev_.ctx, by_user_, batch.users, rows_, U_);
  dev_.ops.group(dev_.ctx, by_item_, batch.positives(), rows_, I_);
  propagate();
  const CMat h = propagation_.h();
  dev_.ops.gather_rows(dev_.ctx, block(x_, kUsers), h.slice(0, U_), batch.users, rows_);
  dev_.ops.gather_rows(dev_.ctx, block(x_, kItems), h.slice(U_, I_), batch.positives(), rows_);
  modal_.project(by_item_.rows, step);
  for (int m = 0; m < modal_.count(); ++m)
    dev_.ops.expand_rows(dev_.ctx, block(x_, kModality + m), modal_.h(m), by_item_);
  predict(blocks(o_), blocks(x_));
}

// --- backward --------------------------------------------------------------------------------------------------------

// weight (1 - mean cos(O of one view, X of another, masked)); into the gradient of the former, the latter is a
// constant.
void Bm3::compare(double* loss, int online, int target, float weight, bool add) {
  dev_.ops.cosine_loss(dev_.ctx, loss, block(d_o_, online), block(o_, online), block(x_, target),
                       masked_[size_t(target)] ? mask_of(target) : nullptr, weight, add);
}

// Given G_O of the cosines:  G_X = G_O W_p^T,  and with the norms' share
//   G_H = reg/I H / ||H||, of users and of items, + G_X summed by row
//   [G_P; G_Q] = prop^T G_H,  G_Q + G_H of the items                 A is symmetric
void Bm3::backward(const Batch&, const Step& step) {
  const Phase phase = step.clock.phase(RangeId::backward);
  double *const user_item = step.loss, *const modality = step.loss + 1, *const reg = step.loss + 2;
  arena_.zero_grad(dev_);
  compare(user_item, kUsers, kItems, 1, false);
  compare(user_item, kItems, kUsers, 1, false);
  for (int k = kModality; k < views(); ++k) {
    compare(modality, k, kItems, cl_, false);
    compare(modality, k, k, cl_, true);
  }
  dev_.ops.project_backward(dev_.ctx, arena_.grad(w_p_), arena_.grad(b_p_), blocks(d_x_), blocks(d_o_), blocks(x_),
                            RowList{nullptr, nullptr, views() * rows_}, arena_.value(w_p_));

  const Mat g_u = propagation_.g().slice(0, U_), g_i = propagation_.g().slice(U_, I_);
  dev_.ops.frobenius_reg(dev_.ctx, reg, g_u, propagation_.h().slice(0, U_), reg_, false);
  dev_.ops.frobenius_reg(dev_.ctx, reg, g_i, propagation_.h().slice(U_, I_), reg_, false);
  dev_.ops.segment_sum(dev_.ctx, g_u, block(d_x_, kUsers), by_user_, true, true);
  dev_.ops.segment_sum(dev_.ctx, g_i, block(d_x_, kItems), by_item_, true, true);
  propagation_.backward(arena_.stacked_grad(tables_), false);
  dev_.ops.add_rows(dev_.ctx, arena_.stacked_grad(tables_), g_i, all_items(), U_);

  for (int m = 0; m < modal_.count(); ++m) modal_.add_gradient(m, block(d_x_, kModality + m), by_item_);
  modal_.backward(by_item_.rows, step);  // the last use of the features in this step
}

void Bm3::update(const Step& step) {
  const Phase phase = step.clock.phase(RangeId::optimiser);
  modal_.update(by_item_.rows, step);
  arena_.update(dev_, step.adam, step.t + 1);
}

// --- evaluation, files, and looking into a step ----------------------------------------------------------------------

// What the predictor makes of H, without masks or features, in memory of the gradient that a step begins with.
void Bm3::represent(CMat& h_u, CMat& h_i) {
  propagate();
  const Mat all = propagation_.g();
  predict(all, propagation_.h());
  h_u = all.slice(0, U_), h_i = all.slice(U_, I_);
}

void Bm3::parameters(Windows& all) {
  arena_.parameters(all);
  modal_.parameters(all);
}

void Bm3::give(const Given& given, const Batch& batch) {
  if (masks_.n() == 0) masks_ = Array<uint16_t>(dev_, views() * most_ * words_);
  for (int k = 0; k < views(); ++k) {
    const std::string name = "mask." + view_name(k);
    masked_[size_t(k)] = given.has(name);
    if (!given.has(name)) continue;
    const std::vector<int32_t> words = given.indices(name, {batch.rows, words_}, 1 << kMaskBits);
    const std::vector<uint16_t> bits(words.begin(), words.end());
    masks_.upload(bits.data(), int64_t(bits.size()), k * most_ * words_);
  }
}

void Bm3::draws(const Batch& batch, Watch& w) {
  for (int k = 0; k < views(); ++k) {
    if (!masked_[size_t(k)]) continue;
    std::vector<uint16_t> bits(size_t(batch.rows * words_));
    masks_.download(bits.data(), int64_t(bits.size()), k * most_ * words_);
    w.indices("mask." + view_name(k), {batch.rows, words_}, std::vector<int32_t>(bits.begin(), bits.end()));
  }
}

void Bm3::graphs(Watch& w) {
  if (propagation_.layers() > 0) w.graph("graph.user_item", propagation_.whole(), false);
}

void Bm3::show(const Batch&, Watch& w) {
  const int64_t d = x_.cols();
  for (int k = 0; k < views(); ++k) {
    if (k < kModality) {
      const std::string name = k == kUsers ? "h.users" : "h.positives";
      w.floats(name, {rows_, d}, block(x_, k)), w.floats("grad." + name, {rows_, d}, block(d_x_, k));
    }
    const std::string name = "o." + view_name(k);
    w.floats(name, {rows_, d}, block(o_, k)), w.floats("grad." + name, {rows_, d}, block(d_o_, k));
  }
  modal_.show(by_item_.rows, w);
  arena_.show_gradients(w);
  propagation_.show(w, arena_.stacked(tables_), false);
  CMat h_u, h_i;
  represent(h_u, h_i);
  w.floats("final.user", {U_, d}, h_u), w.floats("final.item", {I_, d}, h_i);
}

// --- memory ----------------------------------------------------------------------------------------------------------

void Bm3::plan(Planner& p) {
  const int64_t M = int64_t(p.data.features.size()), views = kModality + M, L = p.s.n_ui_layers, d = p.d, N = p.N;
  p.dense += N * d + d * d + d;
  const int64_t most_rows = p.on_gpu ? p.B : std::min(p.B, p.I);  // distinct positives
  for (const Feature& f : p.data.features) {
    const int64_t F = f.matrix.cols();
    p.dense += F * d + d;
    p.features += p.I * (p.s.train_features ? 3 * F + 2 : F);
    p.ops.project_scratch(p.scratch, most_rows, F, d, true);
    p.ops.project_backward_scratch(p.scratch, most_rows, F, d, p.s.train_features);
  }
  p.propagated += N * d * (L > 0 ? 1 + L : 2);  // H, layers; H's gradient where no layer's memory is it
  p.items += M * p.I * d;
  if (L > 0) p.graphs += Planner::csr(N, 2 * p.E);
  p.graphs += (L + 1) * 5 * N;  // a list and a mask for each layer
  // views with their gradients, mapped features with theirs, groups, masks
  p.step += 4 * views * p.B * d + 2 * M * p.B * d + 6 * p.B;
  if (p.s.dropout > 0) p.step += (views * p.B * mask_words(d) + 1) / 2;
  p.ops.group_scratch(p.scratch, p.B);
  for (const int64_t rows : {views * p.B, N}) p.ops.project_scratch(p.scratch, rows, d, d, false);  // N: in evaluation
  p.ops.project_backward_scratch(p.scratch, views * p.B, d, d, false);
  for (const int64_t rows : {p.U, p.I}) p.ops.frobenius_reg_scratch(p.scratch, rows, d);
}

}  // namespace ccdrec
