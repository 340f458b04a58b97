// BM3 (spec baselines 7) against a dense double-precision reference written from the specification: losses, and every
// gradient by central differences with the targets held; its masks; and that it learns.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "data/error.h"
#include "host/files/config.h"
#include "host/training/trainer.h"
#include "kernels/mask.h"
#include "tests/host/looked_into.h"
#include "tests/host/model_reference.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

struct Case {
  const char* name;
  std::vector<int64_t> widths;
  void (*set)(Settings&);
};
const Case cases[] = {
    {"one modality", {5}, [](Settings&) {}},
    {"two modalities, two layers", {6, 3}, [](Settings& s) { s.n_ui_layers = 2, s.cl_weight = 0.7; }},
    {"three modalities, nothing masked", {6, 3, 4}, [](Settings& s) { s.dropout = 0, s.reg_weight = 3; }},
    {"three modalities, most masked", {4, 3, 2}, [](Settings& s) { s.dropout = 0.9, s.n_ui_layers = 2; }},
    {"no layers", {6, 3}, [](Settings& s) { s.n_ui_layers = 0, s.reg_weight = 0; }},
    {"features frozen", {6, 3}, [](Settings& s) { s.train_features = false; }},
    {"no modality terms", {4}, [](Settings& s) { s.cl_weight = 0; }},
    {"one row", {6, 3}, [](Settings& s) { s.train_batch_size = 1, s.embedding_size = 17; }},
};

Settings bm3_settings(const std::string& device) {
  Settings s;
  s.model = "BM3", s.device = device, s.threads = 2, s.seed = 11;
  s.n_neg = s.negative_stats = 0;
  s.embedding_size = 9, s.train_batch_size = 20, s.epochs = 3, s.learning_rate = 5e-3;
  s.n_ui_layers = 1, s.reg_weight = 0.4, s.dropout = 0.5, s.cl_weight = 2;
  return s;
}

// --- the reference ---------------------------------------------------------------------------------------------------

struct RefBm3 {
  int64_t U = 0, I = 0, d = 0;
  Settings s;
  Dense A;                             // (N,N)
  std::map<std::string, Dense> theta;  // by the names of files, a linear map as (in,out)
  std::vector<std::string> names;      // of modalities
  std::vector<int32_t> u, p;           // (B)
  std::vector<Dense> kept;             // users, items, modalities: (B,d) of 1 and 0

  int64_t B() const { return int64_t(u.size()); }
  Dense h() const {  // (N,d): mean of the layers, items + Q
    const Dense &P = theta.at("user_embedding.weight"), &Q = theta.at("item_id_embedding.weight");
    Dense layer(U + I, d);
    std::copy(P.v.begin(), P.v.end(), layer.v.begin());
    std::copy(Q.v.begin(), Q.v.end(), layer.v.begin() + U * d);
    Dense sum = layer;
    for (int l = 0; l < s.n_ui_layers; ++l) {
      layer = times(A, layer);
      for (size_t k = 0; k < sum.v.size(); ++k) sum.v[k] += layer.v[k];
    }
    for (double& x : sum.v) x /= s.n_ui_layers + 1;
    for (size_t k = 0; k < Q.v.size(); ++k) sum.v[size_t(U * d) + k] += Q.v[k];
    return sum;
  }
  static Dense mapped(const Dense& x, const Dense& w, const Dense& b) {
    Dense y = times(x, w);
    for (size_t k = 0; k < y.v.size(); ++k) y.v[k] += b.v[k % size_t(y.cols)];
    return y;
  }
  // Users, items and modalities of the batch's rows, (B,d) each.
  std::vector<Dense> views(const Dense& H) const {
    std::vector<Dense> all;
    const auto rows_of = [&](const Dense& from, const std::vector<int32_t>& ids, int64_t first) {
      Dense to(B(), d);
      for (int64_t b = 0; b < B(); ++b)
        for (int64_t j = 0; j < d; ++j) to(b, j) = from(first + ids[size_t(b)], j);
      return to;
    };
    all.push_back(rows_of(H, u, 0)), all.push_back(rows_of(H, p, U));
    for (const std::string& m : names)
      all.push_back(rows_of(
          mapped(theta.at(m + "_embedding.weight"), theta.at(m + "_trs.weight"), theta.at(m + "_trs.bias")), p, 0));
    return all;
  }
  std::vector<Dense> targets() const {
    std::vector<Dense> all = views(h());
    for (size_t k = 0; k < all.size(); ++k)
      for (size_t j = 0; j < all[k].v.size(); ++j) all[k].v[j] *= kept[k].v[j] / (1 - s.dropout);
    return all;
  }
  // user_item, modality, reg, with the targets as constants.
  std::array<double, 3> losses(const std::vector<Dense>& target) const {
    const Dense H = h();
    std::vector<Dense> online = views(H);
    for (Dense& o : online) o = mapped(o, theta.at("predictor.weight"), theta.at("predictor.bias"));
    const auto apart = [&](const Dense& o, const Dense& x) {
      double sum = 0;
      for (int64_t b = 0; b < B(); ++b) {
        double oo = 0, xx = 0, ox = 0;
        for (int64_t j = 0; j < d; ++j) oo += o(b, j) * o(b, j), xx += x(b, j) * x(b, j), ox += o(b, j) * x(b, j);
        sum += ox / (std::max(std::sqrt(oo), 1e-8) * std::max(std::sqrt(xx), 1e-8));
      }
      return 1 - sum / double(B());
    };
    std::array<double, 3> out{apart(online[0], target[1]) + apart(online[1], target[0]), 0, 0};
    for (size_t k = 2; k < online.size(); ++k)
      out[1] += s.cl_weight * (apart(online[k], target[1]) + apart(online[k], target[k]));
    double of_users = 0, of_items = 0;
    for (size_t k = 0; k < H.v.size(); ++k) (k < size_t(U * d) ? of_users : of_items) += H.v[k] * H.v[k];
    out[2] = s.reg_weight * (std::sqrt(of_users) + std::sqrt(of_items)) / double(I);
    return out;
  }
};

Dense dense_of(const Window& w) {
  Dense x(w.rows, w.cols);
  const std::vector<float> v = values_of(w);
  x.v.assign(v.begin(), v.end());
  return x;
}

// The model's state as the reference takes it: graph, parameters, and what chance decided for the last step.
RefBm3 reference_of(Trainer& t, const Settings& s, const Dataset& data) {
  RefBm3 r;
  r.U = data.n_users, r.I = data.n_items, r.d = s.embedding_size, r.s = s;
  r.A = Dense(r.U + r.I, r.U + r.I);
  for (const Feature& f : data.features) r.names.push_back(f.name);
  Recommender& model = t.model();
  model.flush();
  Watch w(t.device());
  model.model().graphs(w);
  for (const ShownGraph& g : w.graphs)
    for (int64_t row = 0; row < g.graph.rows; ++row)
      for (int64_t e = g.graph.row_ptr[size_t(row)]; e < g.graph.row_ptr[size_t(row) + 1]; ++e)
        r.A(row, g.graph.col[size_t(e)]) = double(g.graph.val[size_t(e)]);
  for (const Window& p : windows_of(model)) r.theta[p.name] = dense_of(p);
  model.draws(w);
  r.u = w.ids("batch.users"), r.p = w.ids("batch.positives");
  std::vector<std::string> views = {"users", "items"};
  views.insert(views.end(), r.names.begin(), r.names.end());
  const int64_t words = mask_words(r.d);
  for (const std::string& view : views) {
    Dense kept(r.B(), r.d);
    const std::vector<int32_t>& bits = w.ids("mask." + view);
    EXPECT_EQ(bits.empty(), s.dropout == 0) << view;
    for (int64_t b = 0; b < r.B(); ++b)
      for (int64_t j = 0; j < r.d; ++j)
        kept(b, j) = bits.empty() ? 1.0 : double((bits[size_t(b * words + j / 16)] >> (j % 16)) & 1);
    r.kept.push_back(kept);
  }
  return r;
}

void expect_as_the_reference(const Case& c, const std::string& device) {
  SCOPED_TRACE(std::string(c.name) + " on " + device);
  const Folder dir;
  const Dataset data = random_data(dir, 9, 8, 4, c.widths);
  Settings s = bm3_settings(device);
  c.set(s);
  Trainer t(s, data);
  Recommender& model = t.model();
  model.begin_epoch(0);
  for (int64_t k = 0; k + 1 < model.steps_per_epoch() && k < 3; ++k) model.step(0, k);  // moments, rows that wait
  const int64_t step = std::min<int64_t>(3, model.steps_per_epoch() - 1);
  model.flush();
  model.set_losses({});
  model.forward_backward(0, step);
  RefBm3 r = reference_of(t, s, data);
  const std::vector<Dense> targets = r.targets();
  const std::array<double, 3> want = r.losses(targets);
  const Losses got = model.losses();
  ASSERT_EQ(got.size(), 3u);
  for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(got[k], want[k], 2e-6 * (1 + want[k])) << k;
  const Watch shown = shown_of(t.device(), model);
  Windows trained;
  model.model().parameters(trained);
  EXPECT_EQ(trained.size(), 4 + 2 * c.widths.size() + (s.train_features ? c.widths.size() : 0));
  for (const Window& w : trained) {
    const std::vector<float> g = gradient_of(shown, w);
    std::vector<double> slopes;
    double most = 0;
    for (double& x : r.theta.at(w.name).v) {
      const double at = x, h = 1e-5;
      const auto total = [&](double moved) {
        x = moved;
        const std::array<double, 3> l = r.losses(targets);
        return l[0] + l[1] + l[2];
      };
      slopes.push_back((total(at + h) - total(at - h)) / (2 * h));
      x = at;
      most = std::max(most, std::fabs(slopes.back()));
    }
    ASSERT_EQ(g.size(), slopes.size());
    for (size_t k = 0; k < g.size(); ++k) ASSERT_NEAR(g[k], slopes[k], 1e-5 * most + 1e-8) << w.name << ", " << k;
    const bool of_modality = w.name.find("_trs") != std::string::npos || w.name.ends_with("e_embedding.weight");
    if (s.cl_weight > 0 || !of_modality) { EXPECT_GT(most, 0) << w.name; }
  }
  // What ranks: the predictor on all rows, without masks.
  const Dense all = RefBm3::mapped(r.h(), r.theta.at("predictor.weight"), r.theta.at("predictor.bias"));
  CMat h_u, h_i;
  model.represent(h_u, h_i);
  std::vector<float> rows = host_copy(t.device(), h_u);
  const std::vector<float> of_items = host_copy(t.device(), h_i);
  rows.insert(rows.end(), of_items.begin(), of_items.end());
  ASSERT_EQ(rows.size(), all.v.size());
  for (size_t k = 0; k < rows.size(); ++k) EXPECT_NEAR(rows[k], all.v[k], 2e-6 * (1 + std::fabs(all.v[k]))) << k;
  for (const auto& [name, part] : {std::pair{"final.user", h_u}, {"final.item", h_i}})
    EXPECT_EQ(shown.find(name)->floats, host_copy(t.device(), part)) << name;
}

TEST(Bm3, LossesAndGradientsAreTheReferences) {
  for (const std::string& device : devices_here())
    for (const Case& c : cases) expect_as_the_reference(c, device);
}

// A user or item that the batch names twice, which the shapes of above have: the sum over its rows, one mask.
TEST(Bm3, ABatchNamesUsersAndItemsTwice) {
  const Folder dir;
  const Dataset data = random_data(dir, 9, 8, 4, {5});
  Trainer t(bm3_settings("cpu"), data);
  t.model().begin_epoch(0);
  t.model().forward_backward(0, 0);
  Watch w(t.device());
  t.model().draws(w);
  for (const auto& [ids, mask] : {std::pair{"batch.users", "mask.users"}, {"batch.positives", "mask.items"}}) {
    std::map<int32_t, int32_t> of_row;
    size_t twice = 0;
    const std::vector<int32_t>&named = w.ids(ids), &bits = w.ids(mask);
    ASSERT_EQ(named.size(), bits.size());  // nine columns: a word a row
    for (size_t b = 0; b < named.size(); ++b) {
      const auto [at, fresh] = of_row.emplace(named[b], bits[b]);
      if (fresh) continue;
      EXPECT_EQ(at->second, bits[b]) << ids << " " << named[b];
      ++twice;
    }
    EXPECT_GT(twice, 0u);
  }
}

// --- masks -----------------------------------------------------------------------------------------------------------

TEST(Bm3, MasksAreTheAddressedDrawsOfTheirPass) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const std::pair<const char*, uint32_t> views[] = {{"mask.users", uint32_t(Use::view_users)},
                                                    {"mask.items", uint32_t(Use::view_items)},
                                                    {"mask.image", uint32_t(Use::view_modality)},
                                                    {"mask.text", uint32_t(Use::view_modality) + 1}};
  for (const std::string& device : devices_here()) {
    Settings s = bm3_settings(device);
    s.embedding_size = 40, s.use_mg = true, s.beta = 2, s.dropout = 0.3, s.epochs = 2;
    Trainer t(s, data);
    int64_t seen = 0, kept = 0, all = 0;
    uint32_t epoch = 0, step = 0;
    t.model().after_pass = [&](uint32_t pass) {
      Watch w(t.device());
      t.model().draws(w);
      for (const auto& [name, use] : views) {
        const std::vector<int32_t>&rows = w.ids(name == views[0].first ? "batch.users" : "batch.positives"),
              &bits = w.ids(name);
        ASSERT_EQ(bits.size(), 3 * rows.size());
        for (size_t b = 0; b < rows.size(); ++b)
          for (uint32_t word = 0; word < 3; ++word) {
            const uint16_t want = mask_word(Stream{s.seed, Use(use | pass << 8), epoch, step}, uint32_t(rows[b]), word,
                                            mask_threshold(0.3f));
            ASSERT_EQ(bits[3 * b + word], want) << name << ", pass " << pass;
            kept += std::popcount(want), all += 16;
          }
      }
      ++seen;
    };
    for (epoch = 0; epoch < 2; ++epoch) {
      t.model().begin_epoch(int(epoch));
      for (step = 0; step < t.model().steps_per_epoch(); ++step) t.model().step(int(epoch), step);
      t.model().end_epoch(int(epoch));
    }
    EXPECT_EQ(seen, 2 * (10 + 5)) << device;
    EXPECT_NEAR(double(kept) / double(all), 0.7, 0.01) << device;
  }
}

// Every step propagates the whole graph: by cuSPARSE, where that is asked for.
TEST(Bm3, TrainsByCusparseAsByOwnProducts) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  if (!gpu_info().cusparse) GTEST_SKIP() << "built without cuSPARSE";
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  std::vector<double> losses[2];
  for (const bool library : {false, true}) {
    Settings s = bm3_settings("cuda");
    s.embedding_size = 16, s.n_ui_layers = 2, s.spmm = library ? "cusparse" : "own";
    Trainer t(s, data);
    TrainHooks hooks;
    hooks.on_epoch = [&](const EpochReport& e) { losses[library].push_back(e.loss); };
    t.run(hooks);
  }
  ASSERT_EQ(losses[0].size(), 3u);
  for (size_t e = 0; e < 3; ++e) EXPECT_NEAR(losses[1][e], losses[0][e], 2e-5 * losses[0][e]) << "epoch " << e;
}

// --- settings --------------------------------------------------------------------------------------------------------

std::string sentence(const std::vector<KeyValue>& list) {
  try {
    resolve_config({}, list);
  } catch (const UserError& e) { return e.what(); }
  return "no complaint";
}

TEST(Bm3, DrawsNoNegativesWhateverIsAskedFor) {
  const Config c =
      resolve_config({}, {{"model", "BM3", "-m"}, {"n_neg", "2", "--set"}, {"negative_stats", "9", "--set"}});
  EXPECT_EQ(c.settings.n_neg, 0);
  EXPECT_EQ(c.settings.negative_stats, 0);
  EXPECT_EQ(c.settings.n_ui_layers, 1);
  EXPECT_DOUBLE_EQ(c.settings.dropout, 0.5);
  EXPECT_DOUBLE_EQ(c.settings.reg_weight, 0.1);
  EXPECT_DOUBLE_EQ(c.settings.cl_weight, 2);
  ASSERT_EQ(c.notes.size(), 2u);
  for (const std::string& note : c.notes) EXPECT_NE(note.find(" has no influence on BM3"), std::string::npos) << note;
  for (const char* sampler : {"popularity", "dns", "mixgcf", "realhns"})
    EXPECT_EQ(sentence({{"model", "BM3", "-m"}, {"sampler", sampler, "--set"}}),
              std::string("sampler = ") + sampler +
                  " (--set): BM3 learns from no pairs of a positive and a negative; leave it away");
}

TEST(Bm3, AModalityCannotHaveTheNameOfAView) {
  const Folder dir;
  Dataset data = random_data(dir, 9, 8, 4, {});
  add_feature(data, dir, "items", std::vector<float>(16, 0.5f), 2);
  try {
    Trainer t(bm3_settings("cpu"), data);
    FAIL();
  } catch (const UserError& e) {
    EXPECT_EQ(std::string(e.what()),
              "model BM3 has masks of users and of items, so no modality can be called 'items'; rename items_feat.npy");
  }
}

// --- that it learns --------------------------------------------------------------------------------------------------

// Two blocks of users and items; features say nothing. Of the items that a user lacks, those of the own block rank
// first.
TEST(Bm3, LearnsBlocks) {
  const Folder dir;
  Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  data.train.clear(), data.valid.clear(), data.test.clear();
  Draw g;
  for (int32_t u = 0; u < 40; ++u) {
    std::vector<int32_t> own;
    for (int32_t i = u % 2; i < 30; i += 2) own.push_back(i);
    for (size_t k = 0; k < 9; ++k) {
      std::swap(own[k], own[k + size_t(g.below(int32_t(own.size() - k)))]);
      (k < 7 ? data.train : k < 8 ? data.valid : data.test).push_back({u, own[k]});
    }
  }
  Settings s = bm3_settings("cpu");
  s.embedding_size = 16, s.epochs = 40, s.stopping_step = 100, s.learning_rate = 0.01, s.train_batch_size = 70;
  Trainer t(s, data);
  std::vector<double> losses;
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport& e) {
    losses.push_back(e.loss);
    EXPECT_EQ(e.negatives, "");
    EXPECT_TRUE(e.hardness.empty());
  };
  t.run(hooks);
  EXPECT_LT(losses.back(), 0.6 * losses.front());
  CMat h_u, h_i;
  t.model().represent(h_u, h_i);
  const std::vector<float> users = host_copy(t.device(), h_u), items = host_copy(t.device(), h_i);
  std::set<std::pair<int32_t, int32_t>> seen;
  for (const Pair& p : data.train) seen.insert({p.user, p.item});
  double right = 0, pairs = 0;  // of an item of the own block and one of the other
  for (int32_t u = 0; u < 40; ++u) {
    std::vector<double> score(30);
    for (size_t i = 0; i < 30; ++i)
      for (size_t j = 0; j < 16; ++j) score[i] += double(users[size_t(u) * 16 + j]) * items[i * 16 + j];
    for (int32_t i = u % 2; i < 30; i += 2)
      for (int32_t other = 1 - u % 2; other < 30 && !seen.count({u, i}); other += 2)
        right += score[size_t(i)] > score[size_t(other)], ++pairs;
  }
  EXPECT_GT(right / pairs, 0.9);
}

}  // namespace
}  // namespace ccdrec::test
