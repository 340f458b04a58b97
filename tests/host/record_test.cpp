// `ccdrec train --record`: the record says what the run did, and recording changes nothing of it.
#include "host/files/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <tuple>

#include "data/error.h"
#include "host/files/step.h"
#include "host/samplers/realhns.h"
#include "host/systems/registry.h"
#include "kernels/hard.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

const Named record_models[] = {
    {"BPR, two negatives", [](Settings& s) { s.model = "BPR", s.reg_weight = 0.01, s.n_neg = 2; }},
    {"LightGCN", [](Settings& s) { s.model = "LightGCN", s.reg_weight = 1e-3; }},
    {"FREEDOM, reg 0", [](Settings& s) { s.model = "FREEDOM"; }},
    {"FREEDOM", [](Settings& s) { s.model = "FREEDOM", s.reg_weight = 1e-2; }},
    {"CCDRec", [](Settings&) {}},
    {"DMA+NDI", [](Settings& s) { s.cns = false; }},
    {"BPR+popularity", [](Settings& s) { s.model = "BPR", s.sampler = "popularity"; }},
    {"MG(LightGCN)+DNS", [](Settings& s) { s.model = "LightGCN", s.use_mg = true, s.sampler = "dns"; }},
    {"MG(FREEDOM)+MixGCF", [](Settings& s) { s.model = "FREEDOM", s.use_mg = true, s.sampler = "mixgcf"; }},
    {"BPR+RealHNS",
     [](Settings& s) { s.model = "BPR", s.sampler = "realhns", s.realhns_start = 1, s.realhns_p_max = 60; }},
    {"MG(CCDRec)", [](Settings& s) { s.use_mg = true; }},
    {"LATTICE", [](Settings& s) { s.model = "LATTICE", s.lambda_coeff = 0.5; }},
    {"CCDRec on LATTICE", [](Settings& s) { s.backbone = "LATTICE"; }},
    {"CCDRec(MCDRec)", [](Settings& s) { s.backbone = "MCDRec"; }},
    bm3_models[0],
    {"MG(BM3)", [](Settings& s) { s.model = "BM3", s.n_neg = s.negative_stats = 0, s.use_mg = true; }},
    {"MCDRec", [](Settings& s) { s.model = "MCDRec", s.estimator = "unet", s.embedding_size = 64, s.timesteps = 4; }},
    {"MG(MCDRec), attention",
     [](Settings& s) { s.model = "MCDRec", s.estimator = "attention", s.reg_weight = 1e-2, s.use_mg = true; }},
    {"MMGCN", [](Settings& s) { s.model = "MMGCN", s.reg_weight = 0.1; }},
    slmrec_models[0],
    slmrec_models[1]};
const Named& recorded_model(const std::string& name) {
  for (const Named& m : record_models)
    if (m.name == name) return m;
  throw std::runtime_error(name);
}

// Nine steps an epoch; epochs 0 random, 1 the pool T/2, 2 the model's own.
Settings record_settings(const Named& m) {
  Settings s;
  s.embedding_size = 16, s.train_batch_size = 24, s.epochs = 3, s.knn_k = 3, s.seed = 11, s.threads = 1,
  s.learning_rate = 5e-3;
  s.dropout = 0.3, s.dtau = 1, s.tau_end = 1, s.timesteps = 8, s.candidate_ratio = 0.5, s.kappa = 0.4;
  m.set(s);
  return s;
}

struct Recorded {
  TensorFile file;
  std::vector<double> losses;             // the reports' means
  std::vector<std::vector<float>> pools;  // of each step of epoch 1
  std::vector<float> last;                // pool 3 at the end
  std::vector<unsigned char> state;       // parameters and moments at the end
  nlohmann::json epochs;
};

std::vector<unsigned char> state_of(Trainer& t, const Folder& dir) {
  t.save_state(dir / "state");
  std::vector<unsigned char> all;
  for (const auto& [name, tensor] : read_safetensors(dir / "state").tensors)
    all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
  return all;
}

Recorded record(const Settings& s, const Dataset& data, const Folder& dir) {
  Recorded out;
  Trainer t(s, data);
  Recorder recorder(t, s, data);
  TrainHooks hooks;
  hooks.on_step = [&](int epoch, int64_t step, int64_t) {
    recorder.step(epoch, step);
    if (epoch == 1 && outline_of(s).searches) out.pools.push_back(pool_of(t.device(), t.model(), 1));
  };
  hooks.on_epoch = [&](const EpochReport& e) {
    recorder.epoch(e);
    out.losses.push_back(e.loss);
  };
  t.run(hooks);
  recorder.write(dir / "run");
  EXPECT_LE(std::filesystem::file_size(dir / "run"), Recorder::most_bytes(s, data) + 20000);  // and the header
  out.last = pool_of(t.device(), t.model(), 3);
  out.file = read_safetensors(dir / "run");
  out.epochs = nlohmann::json::parse(out.file.metadata.at("epochs"));
  out.state = state_of(t, dir);
  return out;
}

template <class T>
std::vector<T> values(const TensorFile& f, const std::string& name) {
  const TensorData& t = f.tensors.at(name);
  std::vector<T> v(t.bytes.size() / sizeof(T));
  if (!v.empty()) std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
  return v;
}

TEST(Record, ChangesNothingAndAddsUpToTheReports) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const Named& m : record_models) {
    SCOPED_TRACE(m.name);
    const Settings s = record_settings(m);
    const Recorded got = record(s, data, dir);
    Trainer plain(s, data);
    plain.run({});
    EXPECT_EQ(state_of(plain, dir), got.state);
    ASSERT_EQ(got.losses.size(), 3u);
    for (int e = 0; e < 3; ++e) {
      double sum = 0;
      for (const double x : values<double>(got.file, "epoch." + std::to_string(e) + ".losses")) sum += x;
      EXPECT_NEAR(sum / 9, got.losses[size_t(e)], 1e-12);
    }
  }
}

TEST(Record, HoldsTheRowsNegativesAndEdgesOfEveryEpoch) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  std::set<std::pair<int32_t, int32_t>> training;
  for (const Pair& p : data.train) training.insert({p.user, p.item});
  for (const Named& m : record_models) {
    SCOPED_TRACE(m.name);
    const Settings s = record_settings(m);
    const Recorded got = record(s, data, dir);
    std::vector<int32_t> first_order;
    for (int e = 0; e < 3; ++e) {
      const std::string at = "epoch." + std::to_string(e) + ".";
      const std::vector<int32_t> users = values<int32_t>(got.file, at + "users"),
                                 positives = values<int32_t>(got.file, at + "positives");
      std::set<std::pair<int32_t, int32_t>> rows;
      for (size_t b = 0; b < users.size(); ++b) rows.insert({users[b], positives[b]});
      EXPECT_EQ(rows, training);
      EXPECT_NE(users, first_order) << "another order every epoch";
      first_order = users;
      ASSERT_EQ(got.file.tensors.count(at + "negatives"), s.n_neg > 0 ? 1u : 0u);
      const std::vector<int32_t> negatives =
          s.n_neg > 0 ? values<int32_t>(got.file, at + "negatives") : std::vector<int32_t>();
      ASSERT_EQ(negatives.size(), users.size() * size_t(s.n_neg));
      for (size_t k = 0; k < negatives.size(); ++k)
        EXPECT_FALSE(training.count({users[k % users.size()], negatives[k]}));
      if (outline_of(s).prune > 0) {
        const std::vector<int32_t> edges = values<int32_t>(got.file, at + "edges");
        std::set<std::pair<int32_t, int32_t>> kept;
        for (size_t k = 0; k < edges.size() / 2; ++k) kept.insert({edges[k], edges[edges.size() / 2 + k]});
        EXPECT_EQ(kept.size(), size_t(std::floor(double(training.size()) * 0.7)));
        for (const auto& pair : kept) EXPECT_TRUE(training.count(pair));
        EXPECT_EQ(got.file.tensors.count(at + "edge_weights"), outline_of(s).denoises ? 1u : 0u);
      } else {
        EXPECT_FALSE(got.file.tensors.count(at + "edges"));
      }
      // Lists: the best first, nothing the user has, and they give the stated Recall@20.
      const std::vector<int32_t> who = values<int32_t>(got.file, at + "list.users"),
                                 items = values<int32_t>(got.file, at + "list.items");
      const std::vector<float> scores = values<float>(got.file, at + "list.scores");
      double recall = 0;
      for (size_t j = 0; j < who.size(); ++j)
        for (size_t k = 0; k < 20; ++k) {
          EXPECT_LE(scores[20 * j + k], scores[20 * j + (k ? k - 1 : 0)]);
          EXPECT_FALSE(training.count({who[j], items[20 * j + k]}));
          // one test row a user
          for (const Pair& p : data.test) recall += p.user == who[j] && p.item == items[20 * j + k];
        }
      EXPECT_NEAR(recall / double(who.size()), got.epochs[size_t(e)]["test"]["recall@20"].get<double>(), 1e-12);
    }
  }
}

// DGD: the weights of all training pairs. Those of epoch 0 are those of the initial parameters, later ones others.
TEST(Record, HoldsTheWeightsOfTheEdges) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Recorded got = record(record_settings(recorded_model("CCDRec(MCDRec)")), data, dir);
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  const std::vector<float> p = values<float>(got.file, "initial.user_embedding.weight"),
                           q = values<float>(got.file, "initial.item_id_embedding.weight");
  std::vector<float> before;
  for (int e = 0; e < 3; ++e) {
    const std::vector<float> a = values<float>(got.file, "epoch." + std::to_string(e) + ".edge_weights");
    ASSERT_EQ(a.size(), train.col.size());
    for (int64_t u = 0; u < train.rows && e == 0; ++u)
      for (int64_t k = train.row_ptr[size_t(u)]; k < train.row_ptr[size_t(u) + 1]; ++k) {
        double dot = 0, pp = 0, qq = 0;
        for (size_t j = 0; j < 16; ++j) {
          const double x = p[size_t(u) * 16 + j], y = q[size_t(train.col[size_t(k)]) * 16 + j];
          dot += x * y, pp += x * x, qq += y * y;
        }
        ASSERT_NEAR(a[size_t(k)], 1 + 0.3 * dot / std::sqrt(pp * qq), 2e-7);
      }
    EXPECT_NE(a, before);
    before = a;
  }
}

// A row a list; none is a training row; in every batch that has two passes the second one's are those of its own draws.
TEST(Record, HoldsTheHardNegativesOfEveryPass) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  const auto owns = [&](int32_t user, int32_t item) {
    return std::binary_search(train.col.begin() + train.row_ptr[size_t(user)],
                              train.col.begin() + train.row_ptr[size_t(user) + 1], item);
  };
  for (const char* name : {"BPR+popularity", "MG(LightGCN)+DNS", "MG(FREEDOM)+MixGCF", "BPR+RealHNS", "MG(CCDRec)"}) {
    SCOPED_TRACE(name);
    const Settings s = record_settings(recorded_model(name));
    const Outline o = outline_of(s);
    const Recorded got = record(s, data, dir);
    const std::vector<std::string> losses = nlohmann::json::parse(got.file.metadata.at("losses"));
    EXPECT_EQ(std::count(losses.begin(), losses.end(), o.curricular ? "bpr_curricular" : "bpr_hard"), 1);
    const int64_t lists = o.mixes ? o.layers + 1 : 1;
    for (int e = 0; e < 3; ++e) {
      const std::string at = "epoch." + std::to_string(e) + ".";
      const std::vector<int32_t> all_users = values<int32_t>(got.file, at + "users");
      std::vector<int32_t> again;  // users of batches 0, 3 and 6
      for (size_t b = 0; b < all_users.size(); ++b)
        if (b / 24 % 3 == 0) again.push_back(all_users[b]);
      for (const std::string pass : {"", "pass1."}) {
        const std::vector<int32_t>& users = pass.empty() ? all_users : again;
        const std::string array = at + pass + (o.curricular ? "curricular" : "hard");
        if ((!pass.empty() && !s.use_mg) || (o.curricular && e == 0)) {
          EXPECT_FALSE(got.file.tensors.count(array));
          continue;
        }
        const std::vector<int32_t> hard = values<int32_t>(got.file, array);
        ASSERT_EQ(hard.size(), size_t(lists) * users.size()) << array;
        for (size_t k = 0; k < hard.size(); ++k) EXPECT_FALSE(owns(users[k % users.size()], hard[k]));
        EXPECT_EQ(got.file.tensors.count(at + pass + "alpha"), o.mixes ? 1u : 0u);
        if (o.mixes) {
          for (const float a : values<float>(got.file, at + pass + "alpha")) EXPECT_TRUE(a >= 0 && a < 1);
        }
        EXPECT_EQ(got.file.tensors.count(at + pass + "noise"), o.diffusion ? 1u : 0u);
        if (o.diffusion && !pass.empty()) {
          EXPECT_LT(values<float>(got.file, at + pass + "noise").size(), values<float>(got.file, at + "noise").size());
          EXPECT_EQ(got.file.tensors.at(at + pass + "candidates").shape, (std::vector<int64_t>{3, 15}));
        }
      }
    }
  }
}

// A mask for each row of a batch and each view, of both passes: those of the addresses (kernels/mask.h).
TEST(Record, HoldsTheMasksOfEveryPass) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const char* name : {"BM3", "MG(BM3)"}) {
    SCOPED_TRACE(name);
    const Settings s = record_settings(recorded_model(name));
    const Recorded got = record(s, data, dir);
    EXPECT_EQ(got.file.metadata.at("losses"), R"(["user_item","modality","reg"])");
    for (int e = 0; e < 3; ++e) {
      const std::string at = "epoch." + std::to_string(e) + ".";
      EXPECT_EQ(got.epochs[size_t(e)]["negatives"], "none");
      for (const uint32_t pass : {0u, 1u}) {
        const std::string from = at + (pass ? "pass1." : "");
        EXPECT_EQ(got.file.tensors.count(from + "mask.users"), pass == 0 || s.use_mg ? 1u : 0u);
        if (!got.file.tensors.count(from + "mask.users")) continue;
        std::vector<int32_t> users, items, step;
        const std::vector<int32_t> all_users = values<int32_t>(got.file, at + "users"),
                                   all_items = values<int32_t>(got.file, at + "positives");
        for (size_t b = 0; b < all_users.size(); ++b)
          if (pass == 0 || b / 24 % 3 == 0)
            users.push_back(all_users[b]), items.push_back(all_items[b]), step.push_back(int32_t(b / 24));
        const std::tuple<const char*, Use, const std::vector<int32_t>&> views[] = {
            {"mask.users", Use::view_users, users},
            {"mask.items", Use::view_items, items},
            {"mask.image", Use::view_modality, items},
            {"mask.text", Use(uint32_t(Use::view_modality) + 1), items}};
        for (const auto& [mask, use, rows] : views) {
          ASSERT_EQ(got.file.tensors.at(from + mask).shape, (std::vector<int64_t>{int64_t(rows.size()), 1})) << mask;
          const std::vector<int32_t> words = values<int32_t>(got.file, from + mask);
          for (size_t b = 0; b < rows.size(); ++b) {
            const Stream drawn{s.seed, Use(uint32_t(use) | pass << 8), uint32_t(e), uint32_t(step[b])};
            ASSERT_EQ(words[b], mask_word(drawn, uint32_t(rows[b]), 0, mask_threshold(float(s.dropout)))) << mask;
          }
        }
      }
    }
  }
}

// At the address of their row, as kernels/hard.h says.
TEST(Record, NegativesByPopularityAreTheAddressedDraws) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = record_settings(recorded_model("BPR+popularity"));
  const Recorded got = record(s, data, dir);
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  std::map<int32_t, int64_t> rows;
  for (const Pair& p : data.train) ++rows[p.item];
  std::vector<int32_t> items;
  std::vector<int64_t> counts;
  for (const auto& [item, n] : rows) items.push_back(item), counts.push_back(n);
  const std::vector<PopularColumn> columns = popular_columns(items, counts, 0.75);
  Ctx ctx(1);
  for (uint32_t e = 0; e < 3; ++e) {
    const std::vector<int32_t> users = values<int32_t>(got.file, "epoch." + std::to_string(e) + ".users");
    std::vector<int32_t> want(users.size());
    for (uint32_t step = 0; step < 9; ++step) {
      const int64_t first = 24 * step, B = std::min<int64_t>(24, int64_t(users.size()) - first);
      cpu::popular_negatives(ctx, want.data() + first, users.data() + first, B, first, train.view(), columns.data(),
                             int64_t(columns.size()), Stream{s.seed, Use::popular, e, step});
    }
    EXPECT_EQ(values<int32_t>(got.file, "epoch." + std::to_string(e) + ".hard"), want);
  }
}

// RealHNS: an epoch's candidates and the cohesion of its clusters, from the epoch in which it begins.
TEST(Record, HoldsTheCandidatesAndTheCohesionOfRealHns) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = record_settings(recorded_model("BPR+RealHNS"));
  const Recorded got = record(s, data, dir);
  std::vector<std::vector<int32_t>> tables;
  std::vector<float> theta;
  Trainer t(s, data);
  TrainHooks hooks;
  hooks.on_step = [&](int, int64_t step, int64_t) {
    if (step > 0) return;
    tables.push_back(kept_values<int32_t>(t.device(), t.model(), "realhns.table"));
    theta.push_back(kept_values<float>(t.device(), t.model(), "realhns.theta").at(0));
  };
  t.run(hooks);
  ASSERT_EQ(tables.size(), 3u);
  for (int e = 0; e < 3; ++e) {
    const std::string at = "epoch." + std::to_string(e) + ".";
    EXPECT_EQ(got.file.tensors.count(at + "table"), e == 0 ? 0u : 1u) << at;
    EXPECT_EQ(got.file.tensors.count(at + "cohesion"), e == 0 ? 0u : 1u) << at;
    if (e == 0) continue;
    EXPECT_EQ(got.file.tensors.at(at + "table").shape, (std::vector<int64_t>{40, 18})) << "60 % of 30 items";
    EXPECT_EQ(values<int32_t>(got.file, at + "table"), tables[size_t(e)]);
    const std::vector<float> cohesion = values<float>(got.file, at + "cohesion");
    ASSERT_EQ(cohesion.size(), 1u);
    EXPECT_GT(theta[size_t(e)], 0);
    EXPECT_NEAR(cohesion[0] * RealHns::theta_share(e, 1), theta[size_t(e)], 1e-6);
  }
  EXPECT_NE(tables[1], tables[2]) << "another table every epoch";
}

// LATTICE: the learned lists that an epoch's steps use, and after the last epoch those of its evaluation.
TEST(Record, HoldsTheListsOfEveryEpochsStart) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  for (const char* name : {"LATTICE", "CCDRec on LATTICE"}) {
    SCOPED_TRACE(name);
    const Settings s = record_settings(recorded_model(name));
    const Recorded got = record(s, data, dir);
    Trainer t(s, data);
    Recommender& model = t.model();
    std::map<std::string, std::vector<int32_t>> before;
    for (int e = 0; e < 4; ++e) {
      if (e < 3) {
        model.begin_epoch(e);
      } else {
        CMat h_u, h_i;
        model.represent(h_u, h_i);
      }
      for (const std::string modality : {"image", "text"}) {
        const std::string list = "learned." + modality + ".index", array = "epoch." + std::to_string(e) + "." + list;
        const std::vector<int32_t> want = kept_values<int32_t>(t.device(), model, "graph." + list);
        ASSERT_EQ(got.file.tensors.count(array), 1u) << array;
        EXPECT_EQ(got.file.tensors.at(array).shape, (std::vector<int64_t>{30, 3}));
        EXPECT_EQ(values<int32_t>(got.file, array), want) << array;
        EXPECT_NE(want, before[list]) << "other lists every epoch: " << array;
        before[list] = want;
      }
      for (int64_t k = 0; e < 3 && k < model.steps_per_epoch(); ++k) model.step(e, k);
      if (e < 3) model.end_epoch(e);
    }
  }
}

// The chosen negative is the one at the drawn rank of the pool's similarities, computed here in double.
TEST(Record, CurricularNegativesAreAtTheirRanks) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = record_settings(recorded_model("CCDRec"));
  const Recorded got = record(s, data, dir);
  EXPECT_EQ(got.epochs[0]["negatives"], "random");
  EXPECT_EQ(got.epochs[1]["negatives"], "T/2");
  EXPECT_EQ(got.epochs[2]["negatives"], "model");
  EXPECT_FALSE(got.file.tensors.count("epoch.0.curricular"));
  const HostCsr train = pairs_by_user(data.train, data.n_users, data.n_items);
  const std::vector<int32_t> users = values<int32_t>(got.file, "epoch.1.users"),
                             positives = values<int32_t>(got.file, "epoch.1.positives"),
                             chosen = values<int32_t>(got.file, "epoch.1.curricular"),
                             ranks = values<int32_t>(got.file, "epoch.1.ranks"),
                             candidates = values<int32_t>(got.file, "epoch.1.candidates");
  constexpr size_t C = 15, d = 16;
  ASSERT_EQ(candidates.size(), 9 * C);
  std::set<int32_t> seen_ranks;
  for (size_t b = 0; b < users.size(); ++b) {
    const size_t step = b / 24;
    const std::vector<float>& pool = got.pools[step];
    std::vector<std::pair<double, size_t>> order;
    for (size_t c = 0; c < C; ++c) {
      const int32_t item = candidates[step * C + c];
      const auto first = train.col.begin() + train.row_ptr[size_t(users[b])],
                 last = train.col.begin() + train.row_ptr[size_t(users[b]) + 1];
      if (std::find(first, last, item) != last) continue;
      double similarity = 0;
      for (size_t j = 0; j < d; ++j)
        similarity += double(pool[size_t(positives[b]) * d + j]) * double(pool[size_t(item) * d + j]);
      order.push_back({-similarity, c});
    }
    std::sort(order.begin(), order.end());
    ASSERT_LT(size_t(ranks[b]), std::min<size_t>(6, order.size()));
    EXPECT_EQ(candidates[step * C + order[size_t(ranks[b])].second], chosen[b]) << "row " << b;
    seen_ranks.insert(ranks[b]);
  }
  EXPECT_EQ(seen_ranks.size(), 6u);
}

// The noise of the last reverse process, from the record's parameters: `ccdrec reverse` must end in the run's own pool.
TEST(Record, ReverseNoiseLeadsToTheRunsPool) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  const Settings s = record_settings(recorded_model("CCDRec"));
  Recorded got = record(s, data, dir);
  std::vector<TensorView> views;
  for (const auto& [name, t] : got.file.tensors)
    if (name.rfind("final.", 0) == 0 && name != "final.user_embedding.weight")
      views.push_back({"param." + name.substr(6), t.dtype, t.shape, t.bytes.data()});
  const TensorData& start = got.file.tensors.at("epoch.2.reverse.start");
  views.push_back({"noise.start", "F32", start.shape, start.bytes.data()});
  std::vector<float> steps(30 * 16);  // entry 0, of t = 1, is not used
  const std::vector<float> rest = values<float>(got.file, "epoch.2.reverse.steps");
  steps.insert(steps.end(), rest.begin(), rest.end());
  views.push_back({"noise.steps", "F32", {8, 30, 16}, steps.data()});
  write_safetensors(dir / "case", views,
                    {{"format", "ccdrec-reverse"},
                     {"version", "1"},
                     {"settings", "{\"timesteps\": 8}"},
                     {"modalities", got.file.metadata.at("modalities")}});
  run_reverse_case(dir / "case", dir / "pools", "cpu", 1);
  const std::vector<float> pool = values<float>(read_safetensors(dir / "pools"), "pool.3");
  ASSERT_EQ(pool.size(), got.last.size());
  for (size_t k = 0; k < pool.size(); ++k) ASSERT_NEAR(pool[k], got.last[k], 2e-6 * (1 + std::fabs(pool[k]))) << k;
}

TEST(Record, RefusesWhatWouldBeAbsurdlyLarge) {
  const Folder dir;
  const Dataset data = random_data(dir, 40, 30, 5, {12, 7});
  Settings s = record_settings(recorded_model("CCDRec"));
  EXPECT_NO_THROW(Recorder::check(s, data));
  s.epochs = 100000;
  try {
    Recorder::check(s, data);
    FAIL();
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("--set epochs=3"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace ccdrec::test
