// RealHNS in training (spec negative_sampling 7.4, 11.6): its curriculum, the table of candidates, what a step takes of
// it, and runs that are stopped while it is at work.
#include "host/samplers/realhns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "data/graph.h"
#include "host/base/device.h"
#include "host/training/recommender.h"
#include "tests/host/looked_into.h"
#include "tests/host/tiny_data.h"
#include "tests/host/trained.h"

namespace ccdrec::test {
namespace {

constexpr int32_t kUsers = 40, kItems = 30, kGreedy = 1, kLacked = 11;

// User kGreedy has all items but one.
Dataset data_with_a_greedy_user(const Folder& dir, const std::vector<int64_t>& widths = {}) {
  Dataset data = random_data(dir, kUsers, kItems, 5, widths);
  std::erase_if(data.train, [](const Pair& p) { return p.user == kGreedy; });
  for (int32_t i = 0; i < kItems; ++i)
    if (i != kLacked) data.train.push_back({kGreedy, i});
  return data;
}

Settings realhns_settings(const std::string& device = "cpu") {
  Settings s;
  s.model = "LightGCN", s.embedding_size = 8, s.train_batch_size = 48, s.epochs = 30, s.seed = 11, s.threads = 2;
  s.learning_rate = 0.02, s.device = device, s.sampler = "realhns", s.omega = 0.5;
  s.realhns_start = 0, s.realhns_p_min = 10, s.realhns_p_max = 70, s.realhns_candidates = 12, s.realhns_clusters = 5;
  s.realhns_top = 0.3;
  return s;
}

template <class T>
std::vector<T> kept_of(Trainer& t, const std::string& name) {
  return kept_values<T>(t.device(), t.model(), "realhns." + name);
}

struct Ranked {  // what evaluation ranks by now
  std::vector<float> h_u, h_i;
  explicit Ranked(Trainer& t) {
    CMat u, i;
    t.model().represent(u, i);
    h_u = host_copy(t.device(), u), h_i = host_copy(t.device(), i);
  }
  static CMat mat(const std::vector<float>& v, int64_t d) { return {v.data(), int64_t(v.size()) / d, d}; }
};

// Spec 7.1 and 7.4: of epochs from 1.
TEST(RealHns, HardensEveryTwoEpochs) {
  const auto theta = [](int e) { return RealHns::theta_share(e - 1, 5); };
  const auto q = [](int e) { return RealHns::active_share(e - 1, 5); };
  EXPECT_NEAR(theta(6), 0.23, 1e-6);
  EXPECT_EQ(theta(7), theta(6));
  EXPECT_NEAR(theta(14), 0.40, 0.005);
  EXPECT_NEAR(theta(24), 0.81, 0.005);
  EXPECT_LT(theta(27), 1);
  for (const int e : {28, 29, 100, 2000000000}) EXPECT_EQ(theta(e), 1) << e;
  for (int e = 1; e <= 5; ++e) EXPECT_EQ(q(e), 0) << e;
  for (int e = 6; e <= 60; ++e) EXPECT_EQ(q(e), std::min(1.0, std::ceil((e - 5) / 2.0) / 8)) << e;
  EXPECT_EQ(RealHns::active_share(0, 0), 0.125f);
  EXPECT_NEAR(RealHns::theta_share(0, 0), 0.23, 1e-6);
  EXPECT_EQ(RealHns::active_share(9, INT_MAX), 0);
}

TEST(RealHns, ABandIsAShareOfTheItems) {
  const auto band = [](double lo, double hi, int64_t items, int most = 1000) {
    Settings s;
    s.realhns_p_min = lo, s.realhns_p_max = hi, s.realhns_candidates = most;
    const Band b(s, 100, items);
    return std::vector<int64_t>{b.first, b.end, b.candidates};
  };
  using Three = std::vector<int64_t>;
  EXPECT_EQ(band(0, 10, 7050), (Three{0, 705, 705}));
  EXPECT_EQ(band(10, 20, 18357), (Three{1835, 3672, 1000}));
  EXPECT_EQ(band(20, 30, 50), (Three{10, 15, 5}));
  EXPECT_EQ(band(14.7, 29.4, 1000, 7), (Three{147, 294, 7})) << "products that are whole but for rounding";
  EXPECT_EQ(band(0, 100, 30), (Three{0, 30, 30}));
  EXPECT_EQ(band(1, 2, 30), (Three{0, 1, 1}));
  EXPECT_EQ(band(99.9, 100, 1), (Three{0, 1, 1}));
  Settings s;
  EXPECT_EQ(Band(s, 19445, 7050).at_once, (1 << 22) / 705);
  EXPECT_EQ(Band(s, 500, 7050).at_once, 500);
}

// A user's ranking by what evaluation ranks by, without what the user has and what no training row has.
std::vector<int32_t> ranking(const Ranked& now, int64_t d, const HostCsr& train, int32_t u) {
  const std::set<int32_t> has(train.col.begin() + train.row_ptr[size_t(u)],
                              train.col.begin() + train.row_ptr[size_t(u) + 1]);
  const std::set<int32_t> occurring(train.col.begin(), train.col.end());
  const CMat h_u = Ranked::mat(now.h_u, d), h_i = Ranked::mat(now.h_i, d);
  std::vector<std::pair<float, int32_t>> order;
  for (int32_t i = 0; i < h_i.rows; ++i) {
    float score = 0;
    for (int64_t j = 0; j < d; ++j) score = std::fma(h_u.row(u)[j], h_i.row(i)[j], score);
    if (!has.count(i) && occurring.count(i)) order.emplace_back(-score, i);
  }
  std::sort(order.begin(), order.end());
  std::vector<int32_t> items;
  for (const auto& o : order) items.push_back(o.second);
  return items;
}

TEST(RealHns, TheTableHoldsTheSameRanksOfEveryUsersRanking) {
  const Folder dir;
  const Dataset data = data_with_a_greedy_user(dir);
  const HostCsr train = pairs_by_user(data.train, kUsers, kItems);
  for (const std::string& device : devices_here())
    for (const int epoch : {0, 4}) {
      SCOPED_TRACE(device + ", epoch " + std::to_string(epoch));
      const Settings s = realhns_settings(device);
      Trainer t(s, data);
      t.model().begin_epoch(0);
      for (int64_t k = 0; k < 3; ++k) t.model().step(0, k);
      t.model().flush();
      t.model().begin_epoch(epoch);
      const Ranked now(t);
      const auto table = kept_of<int32_t>(t, "table");
      ASSERT_EQ(table.size(), size_t(kUsers * 12));
      Ctx ctx(1);
      std::vector<int32_t> ranks(18);  // 3 .. 20
      cpu::shuffle(ctx, ranks.data(), 18, Stream{s.seed, Use::band_columns, uint32_t(epoch), 0});
      int64_t missing = 0;
      for (int32_t u = 0; u < kUsers; ++u) {
        const auto order = ranking(now, 8, train, u);
        for (size_t c = 0; c < 12; ++c) {
          const auto rank = size_t(ranks[c] + 3);
          const int32_t want = rank < order.size() ? order[rank] : -1;
          EXPECT_EQ(table[size_t(u) * 12 + c], want) << "user " << u << ", rank " << rank;
          missing += want < 0;
        }
      }
      EXPECT_EQ(missing, 12) << "the greedy user's ranking ends before the band begins, the others' do not";
    }
}

// Users before and after the place where one call's lists end and the next one's begin.
TEST(RealHns, MoreUsersThanListsAreMadeOfAtOnce) {
  const Folder dir;
  const int32_t U = 3000, I = 2000;
  const Dataset data = random_data(dir, U, I, 3, {});
  const HostCsr train = pairs_by_user(data.train, U, I);
  Settings s = realhns_settings();
  s.model = "BPR", s.embedding_size = 4, s.realhns_p_min = 0, s.realhns_p_max = 100, s.realhns_candidates = 9;
  Trainer t(s, data);
  t.model().begin_epoch(0);
  const Ranked now(t);
  const auto table = kept_of<int32_t>(t, "table");
  Ctx ctx(1);
  std::vector<int32_t> ranks(size_t(I), 0);
  cpu::shuffle(ctx, ranks.data(), I, Stream{s.seed, Use::band_columns, 0, 0});
  const auto at_once = int32_t(Band(s, U, I).at_once);
  ASSERT_LT(at_once, U - 1);
  for (const int32_t u : {0, at_once - 1, at_once, at_once + 1, U - 1}) {
    const auto order = ranking(now, 4, train, u);
    for (size_t c = 0; c < 9; ++c) {
      const auto rank = size_t(ranks[c]);
      EXPECT_EQ(table[size_t(u) * 9 + c], rank < order.size() ? order[rank] : -1) << "user " << u << ", rank " << rank;
    }
  }
}

TEST(RealHns, ThetaIsAShareOfTheClustersCohesion) {
  const Folder dir;
  const Dataset data = data_with_a_greedy_user(dir);
  for (const std::string& device : devices_here())
    for (const int epoch : {5, 13, 27}) {
      Settings s = realhns_settings(device);
      s.realhns_start = 5;
      Trainer t(s, data);
      t.model().begin_epoch(epoch);
      const Ranked now(t);
      Ctx ctx(1);
      float theta_bar = 0;
      cpu::cohesion(ctx, &theta_bar, Ranked::mat(now.h_i, 8), 5, 1, Stream{s.seed, Use::centres, uint32_t(epoch), 0});
      EXPECT_GT(theta_bar, 0);
      const float theta = kept_of<float>(t, "theta").at(0);
      EXPECT_NEAR(theta, theta_bar * RealHns::theta_share(epoch, 5), 1e-6 * theta_bar) << device;
      if (epoch == 27) { EXPECT_EQ(theta, theta_bar) << device; }
    }
}

// Of single passes: the items of the batch's rows, and what is counted of them.
TEST(RealHns, AStepTakesWhatTheDefinitionTakes) {
  const Folder dir;
  const Dataset data = data_with_a_greedy_user(dir);
  const HostCsr train = pairs_by_user(data.train, kUsers, kItems);
  std::vector<int32_t> occurring;
  for (const Pair& p : data.train) occurring.push_back(p.item);
  std::sort(occurring.begin(), occurring.end());
  occurring.erase(std::unique(occurring.begin(), occurring.end()), occurring.end());
  for (const std::string& device : devices_here()) {
    Settings s = realhns_settings(device);
    s.realhns_start = 2, s.use_mg = true;
    Trainer t(s, data);
    Recommender& model = t.model();
    std::vector<int64_t> counts(2);
    for (const int epoch : {0, 3, 9, 17, 29})
      for (const uint32_t pass : {0u, 1u}) {
        SCOPED_TRACE(device + ", epoch " + std::to_string(epoch) + ", pass " + std::to_string(pass));
        const int64_t step = 3, B = 48;
        if (pass == 0) model.begin_epoch(epoch), counts.assign(2, 0);
        model.forward_backward(epoch, step, {pass, 1});
        Watch drawn(t.device());
        model.draws(drawn);
        const auto users = drawn.ids("batch.users"), positives = drawn.ids("batch.positives");
        ASSERT_EQ(int64_t(users.size()), B);
        const auto stream = [&](Use use) {
          return Stream{s.seed, Use(uint32_t(use) | pass << 8), uint32_t(epoch), uint32_t(step)};
        };
        Ctx ctx(1);
        std::vector<int32_t> want(size_t(B), -1);
        cpu::negatives(ctx, want.data(), users.data(), B, 1, step * B, train.view(), occurring.data(),
                       int64_t(occurring.size()), stream(Use::filter_uniform));
        const std::vector<int32_t> uniform = want;
        const Ranked now(t);  // the graph of a step is the whole one
        const auto table = kept_of<int32_t>(t, "table");
        const auto theta = kept_of<float>(t, "theta");
        const float q = RealHns::active_share(epoch, 2);
        FilterProblem p;
        p.h_u = Ranked::mat(now.h_u, 8), p.h_i = Ranked::mat(now.h_i, 8), p.users = users.data();
        p.positives = positives.data(), p.batch = B, p.first_row = step * B, p.table = table.data();
        p.n_candidates = 12, p.top = 4, p.theta = theta.data(), p.q = &q;
        p.active = stream(Use::filter_active), p.rank = stream(Use::filter_rank);
        cpu::plain::filtered_negative(want.data(), counts.data(), p);
        EXPECT_EQ(drawn.ids("hard.items"), want);
        EXPECT_EQ(want == uniform, q == 0);
        if (q > 0) { EXPECT_EQ(kept_of<int64_t>(t, "counts"), counts) << "of both passes"; }
        for (size_t b = 0; b < want.size(); ++b) {
          const auto row = train.col.begin();
          EXPECT_FALSE(std::binary_search(row + train.row_ptr[size_t(users[b])],
                                          row + train.row_ptr[size_t(users[b]) + 1], want[b]));
        }
      }
  }
}

struct Course {
  std::vector<std::map<std::string, double>> figures;
  std::vector<double> losses;
  TrainHooks hooks() {
    TrainHooks h;
    h.on_epoch = [this](const EpochReport& r) { figures.push_back(r.figures), losses.push_back(r.loss); };
    return h;
  }
};

TEST(RealHns, TheShareThatFellBackIsReportedWhereRowsWereActive) {
  const Folder dir;
  const Dataset data = data_with_a_greedy_user(dir);
  for (const int stats : {0, 1 << 20}) {  // what is measured of an epoch's negatives is not counted
    Settings s = realhns_settings();
    s.epochs = 9, s.realhns_start = 3, s.negative_stats = stats;
    Trainer t(s, data);
    std::vector<double> counted;
    TrainHooks hooks;
    hooks.on_epoch = [&](const EpochReport& r) {
      EXPECT_EQ(r.negatives, r.epoch < 3 ? "random" : "realhns");
      EXPECT_EQ(r.figures.count("fell_back"), r.epoch < 3 ? 0u : 1u);
      if (r.epoch < 3) return;
      const auto counts = kept_of<int64_t>(t, "counts");
      const double rows = double(data.train.size()), q = double(RealHns::active_share(r.epoch, 3));
      EXPECT_NEAR(double(counts[0]), rows * q, 5 * std::sqrt(rows * q));
      EXPECT_EQ(r.figures.at("fell_back"), double(counts[1]) / double(counts[0]));
      EXPECT_GT(counts[1], 0) << "the greedy user's rows";
      EXPECT_LT(counts[1], counts[0]);
    };
    t.run(hooks);
  }
}

struct Stop {
  int epoch;
  int64_t step;
};
void expect_same_course_when_resumed(const Settings& s, const std::vector<Stop>& stops) {
  const Folder dir;
  const Dataset data = data_with_a_greedy_user(dir, {12, 7});
  Course whole;
  Trainer unbroken(s, data);
  unbroken.run(whole.hooks());
  for (const Stop& at : stops) {
    SCOPED_TRACE(s.device + " " + s.model + ", stopped in epoch " + std::to_string(at.epoch));
    Course parts;
    TrainHooks hooks = parts.hooks();
    {
      Trainer first(s, data);
      hooks.interrupted = [&] { return first.epoch() == at.epoch && first.next_step() == at.step; };
      EXPECT_EQ(first.run(hooks).reason, StopReason::interrupted);
      first.save_state(dir / "last.safetensors");
    }
    Trainer second(s, data);
    second.load_state(dir / "last.safetensors");
    EXPECT_EQ(second.next_step(), at.step);
    hooks.interrupted = nullptr;
    second.run(hooks);
    EXPECT_EQ(parts.losses, whole.losses);
    EXPECT_EQ(parts.figures, whole.figures);
    EXPECT_EQ(state_bytes(second, dir), state_bytes(unbroken, dir));
  }
}

// Step 3 of an epoch with a table: its parameters are gone by then, so the table, theta and the counts are state.
TEST(RealHns, ResumedInTheMiddleItTakesTheSameCourseBitForBit) {
  for (const char* model : {"BPR", "FREEDOM", "LATTICE"}) {
    Settings s = realhns_settings();
    s.model = model, s.epochs = 5, s.knn_k = 3, s.dropout = 0.3;
    expect_same_course_when_resumed(s, {{0, 3}, {2, 3}, {4, 1}, {3, 0}});
  }
}

TEST(SlowRealHns, ResumedInTheMiddleOnAGpuItTakesTheSameCourseBitForBit) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  Settings s = realhns_settings("cuda");
  s.model = "BPR", s.epochs = 5;
  expect_same_course_when_resumed(s, {{2, 3}});
}

// On each of the systems it can be put on, the hard negatives are harder than uniform ones in the end.
TEST(RealHns, GivesHarderNegativesOnEveryRankedSystem) {
  const Folder dir;
  const Dataset data = random_data(dir, 150, 120, 10, {12, 7});
  const Named systems[] = {{"BPR", [](Settings& s) { s.model = "BPR"; }},
                           {"LightGCN", [](Settings& s) { s.model = "LightGCN"; }},
                           {"MG(FREEDOM)", [](Settings& s) { s.model = "FREEDOM", s.use_mg = true; }},
                           {"DMA on LightGCN", [](Settings& s) {
                              s.model = "CCDRec", s.backbone = "LightGCN", s.ndi = s.cns = false, s.timesteps = 4;
                            }}};
  for (const Named& m : systems) {
    SCOPED_TRACE(m.name);
    Settings s = realhns_settings();
    s.train_batch_size = 256, s.epochs = 16, s.knn_k = 3, s.realhns_p_min = 0, s.realhns_p_max = 20;
    s.learning_rate = 5e-3;
    m.set(s);
    std::vector<double> rank;
    TrainHooks hooks;
    hooks.on_epoch = [&](const EpochReport& r) { rank.push_back(r.hardness.at("rank")); };
    Trainer(s, data).run(hooks);
    EXPECT_LT(rank.back(), 25);
    EXPECT_LT(rank.back(), rank.front());
  }
}

}  // namespace
}  // namespace ccdrec::test
