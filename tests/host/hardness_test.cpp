// How hard the negatives were (training/hardness.h): training does not notice that they are measured, and the numbers
// are what they say.
#include "host/training/hardness.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "data/graph.h"
#include "host/base/device.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "kernels/hard.h"
#include "tests/host/model_reference.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

const Named measured[] = {
    {"LightGCN", [](Settings& s) { s.model = "LightGCN"; }},
    {"BPR+popularity", [](Settings& s) { s.model = "BPR", s.sampler = "popularity", s.n_neg = 2; }},
    {"BPR+MixGCF", [](Settings& s) { s.model = "BPR", s.sampler = "mixgcf"; }},
    {"LightGCN+DNS", [](Settings& s) { s.model = "LightGCN", s.sampler = "dns"; }},
    {"FREEDOM+MixGCF", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2, s.sampler = "mixgcf"; }},
    {"omega 0", [](Settings& s) { s.model = "LightGCN", s.sampler = "mixgcf", s.omega = 0; }},
    {"CCDRec", [](Settings&) {}},  // random, four pools, the model's own
    {"CCDRec without NDI", [](Settings& s) { s.ndi = false; }},
    {"DMA+NDI", [](Settings& s) { s.cns = false; }},
    {"DMA+NDI, index", [](Settings& s) { s.cns = false, s.ndi_negative = "index"; }},
    {"DMA+MixGCF", [](Settings& s) { s.ndi = s.cns = false, s.sampler = "mixgcf"; }},
    {"MG(LightGCN)+DNS", [](Settings& s) { s.model = "LightGCN", s.sampler = "dns", s.use_mg = true; }},
    {"FREEDOM+RealHNS",
     [](Settings& s) {  // uniform at first; what it counts of an epoch is part of the state
       s.model = "FREEDOM", s.reg_weight = 1e-2, s.sampler = "realhns", s.realhns_start = 2, s.realhns_p_max = 60;
     }},
    lattice_models[0],
    mmgcn_models[1]};

Settings hardness_settings(const Named& m, const char* device) {
  Settings s;
  s.embedding_size = 8, s.train_batch_size = 70, s.epochs = 6, s.knn_k = 3, s.seed = 11, s.threads = 2,
  s.learning_rate = 5e-3, s.n_candidates = 6;
  s.dropout = 0.3, s.dtau = 1, s.tau_end = 4, s.timesteps = 6, s.candidate_ratio = 0.5, s.device = device;
  m.set(s);
  return s;
}

void expect_unnoticed(const Named& m, const char* device) {
  SCOPED_TRACE(std::string(m.name) + " on " + device);
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  std::vector<unsigned char> states[3];
  std::vector<std::map<std::string, double>> seen[3];
  const int rows[] = {0, 60, 1024};  // none, fewer than a batch, all in several
  for (size_t k = 0; k < 3; ++k) {
    Settings s = hardness_settings(m, device);
    s.negative_stats = rows[k];
    Trainer t(s, data);
    TrainHooks log;
    log.on_epoch = [&](const EpochReport& r) { seen[k].push_back(r.hardness); };
    t.run(log);
    states[k] = state_bytes(t, dir);
  }
  EXPECT_TRUE(states[0] == states[1]);
  EXPECT_TRUE(states[0] == states[2]);
  for (int epoch = 0; epoch < 6; ++epoch) {
    EXPECT_TRUE(seen[0][size_t(epoch)].empty());
    EXPECT_EQ(seen[1][size_t(epoch)].at("rows"), 60);
    EXPECT_EQ(seen[2][size_t(epoch)].at("rows"), 195);
    for (const auto& [name, x] : seen[2][size_t(epoch)]) EXPECT_TRUE(std::isfinite(x)) << name;
  }
}

TEST(Hardness, IsNotNoticedByTraining) {
  for (const Named& m : measured) expect_unnoticed(m, "cpu");
}

TEST(SlowHardness, IsNotNoticedByReplayedSteps) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const int m : {4, 6, 12}) expect_unnoticed(measured[m], "cuda");
}

// Spec negative_sampling 11.7, on a trained model: a uniform negative is anywhere, DNS has the best of N. Limits: four
// standard deviations of the mean of n ranks, each that of the smallest of N uniform numbers, and the place of an item
// among the I it is compared with.
TEST(Hardness, RanksAreThoseOfTheSamplers) {
  const Folder dir;
  const int32_t U = 150, I = 200;
  const Dataset data = random_data(dir, U, I, 14, {});
  struct Sampled {
    const char* sampler;
    int n_candidates;
  };
  for (const Sampled& z : {Sampled{"none", 1}, {"dns", 1}, {"dns", 4}, {"dns", 19}}) {
    SCOPED_TRACE(std::string(z.sampler) + ", N = " + std::to_string(z.n_candidates));
    Settings s;
    s.model = "LightGCN", s.embedding_size = 16, s.train_batch_size = 256, s.epochs = 8, s.seed = 4, s.threads = 2,
    s.learning_rate = 5e-3;
    s.negative_stats = 1 << 20, s.sampler = z.sampler, s.n_candidates = z.n_candidates, s.omega = 0.5;
    std::map<std::string, double> last;
    TrainHooks log;
    log.on_epoch = [&](const EpochReport& r) { last = r.hardness; };
    Trainer(s, data).run(log);
    const double N = z.n_candidates, n = last.at("rows"),
                 deviation = 100 * std::sqrt(N / ((N + 1) * (N + 1) * (N + 2)));
    EXPECT_EQ(n, (U - 1) * 14);
    EXPECT_NEAR(last.at("rank"), 100 / (N + 1), 4 * deviation / std::sqrt(n) + 100.0 / I);
    EXPECT_LT(std::fabs(last.at("similarity")), 1);
  }
}

// A mixture lies between the positive and what was chosen: harder than what DNS gives.
TEST(Hardness, AMixtureIsHarderThanItsItems) {
  const Folder dir;
  const Dataset data = random_data(dir, 60, 50, 8, {});
  std::map<std::string, double> of[2];
  for (const bool mixes : {false, true}) {
    Settings s;
    s.model = "LightGCN", s.embedding_size = 16, s.train_batch_size = 128, s.epochs = 12, s.seed = 4, s.threads = 2,
    s.learning_rate = 5e-3;
    s.sampler = mixes ? "mixgcf" : "dns", s.n_candidates = 4, s.omega = 0.5;
    TrainHooks log;
    log.on_epoch = [&](const EpochReport& r) { of[mixes] = r.hardness; };
    Trainer(s, data).run(log);
  }
  EXPECT_LT(of[1].at("rank"), of[0].at("rank"));
  EXPECT_GT(of[1].at("similarity"), of[0].at("similarity") + 0.2);
}

// The rows, the items behind the negatives and the means, all counted here.
TEST(Hardness, MeansAreThoseOfAHandCount) {
  const Folder dir;
  const int32_t U = 12, I = 16;
  const Dataset data = random_data(dir, U, I, 4, {});
  const HostCsr train = pairs_by_user(data.train, U, I);
  const auto E = int64_t(data.train.size()), rows = E - 3;
  std::set<std::pair<int32_t, int32_t>> held_out;
  for (const auto* split : {&data.valid, &data.test})
    for (const Pair& p : *split) held_out.insert({p.user, p.item});
  std::vector<int32_t> occurring;
  std::vector<int64_t> counts;
  for (int32_t i = 0; i < I; ++i)
    if (const auto n = std::count_if(data.train.begin(), data.train.end(), [&](const Pair& p) { return p.item == i; }))
      occurring.push_back(i), counts.push_back(n);
  const auto owns = [&](int32_t user, int32_t item) {
    return std::binary_search(train.col.begin() + train.row_ptr[size_t(user)],
                              train.col.begin() + train.row_ptr[size_t(user) + 1], item);
  };
  for (const std::string sampler : {"none", "popularity", "dns", "mixgcf"}) {
    SCOPED_TRACE(sampler);
    Settings s;
    s.model = "LightGCN", s.embedding_size = 8, s.train_batch_size = 16, s.epochs = 3, s.seed = 4, s.threads = 2,
    s.learning_rate = 0.02;
    s.sampler = sampler, s.n_candidates = 3, s.negative_stats = int(rows), s.omega = 0.5;
    Trainer t(s, data);
    std::map<std::string, double> got;
    TrainHooks log;
    log.on_epoch = [&](const EpochReport& r) { got = r.hardness; };
    t.run(log);
    CMat h_u, h_i;
    t.model().represent(h_u, h_i);

    // v^(0) .. v^(2) by the whole graph, whose mean they are.
    RefModel ref = reference_of(t.device(), t.model(), s);
    std::vector<std::vector<float>> layers;
    for (const Dense& v : ref.layers(dense_of(user_item_graph(train).view()), ref.Q, {}))
      layers.emplace_back(v.v.begin(), v.v.end());
    ASSERT_EQ(layers.size(), 3u);

    const auto stream = [&](Use use) { return Stream{s.seed, Use(uint32_t(use) | 255u << 8), 2, 0}; };
    Ctx ctx(1);
    std::vector<int32_t> picked(static_cast<size_t>(rows)), users, positives, items(static_cast<size_t>(rows));
    cpu::candidates(ctx, picked.data(), rows, E, Stream{s.seed, Use::stats_rows, 2, 0});
    for (const int32_t e : picked)
      users.push_back(data.train[size_t(e)].user), positives.push_back(data.train[size_t(e)].item);
    const auto n = int64_t(occurring.size());
    if (sampler == "none") {
      cpu::negatives(ctx, items.data(), users.data(), rows, 1, 0, train.view(), occurring.data(), n,
                     stream(Use::neg_uniform));
    } else if (sampler == "popularity") {
      const auto columns = popular_columns(occurring, counts, s.popularity_power);
      cpu::popular_negatives(ctx, items.data(), users.data(), rows, 0, train.view(), columns.data(),
                             int64_t(columns.size()), stream(Use::popular));
    } else {
      const int lists = sampler == "dns" ? 1 : 3;
      items.resize(size_t(lists * rows));
      LayerTables tables;
      tables.n = lists, tables.layer[0] = h_i;
      for (int l = 0; l < 3 && lists == 3; ++l) tables.layer[l] = {layers[size_t(l)].data() + int64_t(U) * 8, I, 8};
      cpu::hardest_negative(ctx, items.data(), h_u, users.data(), rows, 0, tables, train.view(), occurring.data(), n, 3,
                            1, stream(Use::hard), stream(Use::hard_rank));
    }
    std::vector<float> alpha(items.size(), 0.0f);
    if (sampler == "mixgcf") cpu::draw_mixing(ctx, {alpha.data(), 3, rows}, 0, stream(Use::mix));
    const auto dot = [](const auto* a, const auto* b) {
      double sum = 0;
      for (int j = 0; j < 8; ++j) sum += double(a[j]) * double(b[j]);
      return sum;
    };
    const size_t lists = items.size() / users.size();
    double rank = 0, similarity = 0, score = 0, found = 0;
    for (size_t b = 0; b < users.size(); ++b) {
      const int32_t u = users[b];
      const float *const user = h_u.row(u), *const positive = h_i.row(positives[b]);
      std::vector<double> h_n(8);
      for (size_t l = 0; l < lists; ++l) {
        const size_t at = l * users.size() + b;
        const int32_t j = items[at];
        EXPECT_FALSE(owns(u, j));
        found += double(held_out.count({u, j}));
        for (size_t x = 0; x < 8; ++x) {
          const auto of = [&](int32_t i) {
            return lists == 1 ? double(h_i.row(i)[x]) : double(layers[l][size_t(U + i) * 8 + x]);
          };
          h_n[x] += (double(alpha[at]) * of(positives[b]) + (1 - double(alpha[at])) * of(j)) / double(lists);
        }
      }
      double above = 0, lacked = 0;  // an item is itself among those that it is compared with: half of it is above
      for (int32_t i = 0; i < I; ++i) {
        if (owns(u, i)) continue;
        ++lacked, above += lists == 1 && i == items[b] ? 0.5 : double(dot(user, h_i.row(i)) > dot(user, h_n.data()));
      }
      rank += 100 * above / lacked;
      similarity += dot(h_n.data(), positive) / std::sqrt(dot(h_n.data(), h_n.data()) * dot(positive, positive));
      score += dot(user, h_n.data());
    }
    const auto count = double(rows);
    EXPECT_GT(found, 0) << "the test would not see them";
    EXPECT_EQ(got.at("rows"), count);
    EXPECT_DOUBLE_EQ(got.at("held_out"), found / (count * double(lists)));
    EXPECT_NEAR(got.at("rank"), rank / count, 1e-4);
    EXPECT_NEAR(got.at("similarity"), similarity / count, 1e-5);
    EXPECT_NEAR(got.at("score"), score / count, 1e-5);
  }
}

// Three users, each with all items but two.
Dataset nearly_full() {
  Dataset data;
  data.name = "held out", data.checksum = "test", data.n_users = 3, data.n_items = 6;
  data.users = IdMap::dense_of(3), data.items = IdMap::dense_of(6);
  for (int32_t u = 0; u < 3; ++u)
    for (int32_t k = 0; k < 6; ++k)
      (k < 4 ? data.train : k == 4 ? data.valid : data.test).push_back({u, (2 * u + k) % 6});
  return data;
}

// Where both are held out, whatever is chosen is held out, at every layer of a mixture.
TEST(Hardness, HeldOutItemsAreCounted) {
  for (const std::string sampler : {"none", "popularity", "dns", "mixgcf", "realhns"})
    for (const bool kept : {true, false}) {
      SCOPED_TRACE(sampler);
      Settings s;
      s.model = "LightGCN", s.embedding_size = 4, s.train_batch_size = 8, s.epochs = 1, s.threads = 1,
      s.sampler = sampler, s.n_candidates = 3, s.realhns_start = 0, s.realhns_p_max = 100;
      Dataset data = nearly_full();
      if (!kept) data.valid.resize(1), data.test.clear();  // of user 0 alone
      double share = -1;
      TrainHooks log;
      log.on_epoch = [&](const EpochReport& r) { share = r.hardness.at("held_out"); };
      Trainer(s, data).run(log);
      if (kept)
        EXPECT_EQ(share, 1);
      else
        EXPECT_LE(share, 4.0 / 12) << "of twelve rows four are of user 0";
    }
}

}  // namespace
}  // namespace ccdrec::test
