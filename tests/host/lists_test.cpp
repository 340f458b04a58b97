// What lists are like: against a case worked out by hand; and as runs keep it.
#include "host/training/lists.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/text.h"
#include "host/files/kept_figures.h"
#include "host/files/recommendations.h"
#include "tests/host/command.h"
#include "tests/host/looked_into.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

using nlohmann::json;
const double kLog10 = std::log2(10.0), kLog3 = std::log2(3.0), kRank2 = 1 / std::log2(3.0);

// Four users, six items. Training rows, one of them twice:
//   user 0: 0      user 1: 0 1      user 2: 0 1      user 3: 0 1 2 2 3
// so item i has 4 3 2 1 0 0 of the R = 10 rows, and 0 1 2 with 9 of them are the fewest that hold 8: the tail is 3 4 5.
// Scores are the users' vectors, for items are unit vectors. Lists, without the items of training:
//   user 0: 1 3 2 4 5    user 1: 2 3 4 5    user 2: 2 5 3 4    user 3: 5 4, it has no more candidates
// Held out for test  user 0: 3 4    user 1: 2    user 2: 3    user 3: 4, for validation  user 2: 5
struct ByHand {
  Folder dir;
  Dataset data;
  std::vector<float> hu = {0, 5, 3, 4, 2, 1,   //
                           9, 9, 5, 4, 3, 2,   //
                           9, 9, 5, 3, 2, 4,   //
                           9, 9, 9, 9, 1, 2},  //
      hi = std::vector<float>(36, 0.0f);
  ByHand() {
    data.n_users = 4, data.n_items = 6;
    data.train = {{0, 0}, {1, 0}, {1, 1}, {2, 0}, {2, 1}, {3, 0}, {3, 1}, {3, 2}, {3, 2}, {3, 3}};
    data.valid = {{2, 5}};
    data.test = {{0, 3}, {0, 4}, {1, 2}, {2, 3}, {3, 4}};
    for (size_t i = 0; i < 6; ++i) hi[i * 7] = 1;
    add_feature(data, dir, "image", {1, 0, 2, 0, 0, 3, -1, 0, 0, 0, 0, 0.5f}, 2);  // of item 4: zeros
    add_feature(data, dir, "text", std::vector<float>(6, 0.0f), 1);
  }
  ListFigures figures(const std::string& device, const std::vector<int>& ks, bool mask_valid = false) const {
    std::string note;
    const auto dev = make_device(device, 2, note);
    return list_figures(*dev, {hu.data(), 4, 6}, {hi.data(), 6, 6}, data, data.features, ks, mask_valid);
  }
};

void expect_near(const Metrics& got, const std::map<std::string, double>& want) {
  for (const auto& [key, value] : want) {
    ASSERT_TRUE(got.count(key)) << key;
    EXPECT_NEAR(got.at(key), value, 1e-12) << key;
  }
  EXPECT_EQ(got.size(), want.size());
}

TEST(Lists, AgainstACaseByHand) {
  const ByHand c;
  for (const std::string& device : devices_here()) {
    SCOPED_TRACE(device);
    const ListFigures f = c.figures(device, {2, 3});
    // Each item is listed @2: 0 1 2 2 1 2 times, of 8 places; @3: 0 1 3 3 2 2 times, of 11.
    // Gini, counts ascending times -5 -3 -1 1 3 5 over 6 sum: @2 (-3-1+2+6+10)/48, @3 (-3-2+2+9+15)/66.
    // Distances, image: items 1 3 are opposite, 2 5 the same, others at right angles, 4 has none.
    //   @2: 2, 1, 0, none    @3: (2+1+1)/3, 1 (of 2 3 alone), (0+1+1)/3, none
    expect_near(f.lists, {{"coverage@2", 5.0 / 6},
                          {"coverage@3", 5.0 / 6},
                          {"gini@2", 14.0 / 48},
                          {"gini@3", 21.0 / 66},
                          {"arp@2", (2 + 1.5 + 1 + 0) / 4},
                          {"arp@3", (2.0 + 1 + 1 + 0) / 4},
                          {"tail@2", 5.0 / 8},
                          {"tail@3", 7.0 / 11},
                          {"novelty@2", (4 * kLog10 - kLog3 / 2 - 0.5 - 0.5) / 4},
                          {"novelty@3", (4 * kLog10 - (kLog3 + 1) / 3 - 1.0 / 3 - 1.0 / 3) / 4},
                          {"ild_image@2", 1.0},
                          {"ild_image@3", (4.0 / 3 + 1 + 2.0 / 3) / 3}});
    // Ascending by rows, ties by number: 4 5 3 2 1 0, cut into 1 1 1 1 2.
    ASSERT_EQ(f.popularity.size(), 5u);
    const int64_t items[] = {1, 1, 1, 1, 2}, rows[] = {2, 0, 2, 1, 0}, users[] = {2, 0, 2, 1, 0},
                  fewest[] = {0, 0, 1, 2, 3}, most[] = {0, 0, 1, 2, 4};
    for (size_t g = 0; g < 5; ++g) {
      SCOPED_TRACE(g);
      EXPECT_EQ(f.popularity[g].items, items[g]);
      EXPECT_EQ(f.popularity[g].rows, rows[g]);
      EXPECT_EQ(f.popularity[g].users, users[g]);
      EXPECT_EQ(f.popularity[g].fewest, fewest[g]);
      EXPECT_EQ(f.popularity[g].most, most[g]);
    }
    expect_near(f.popularity[0].metrics, {{"recall@2", 0.5}, {"recall@3", 0.5}});  // item 4: of users 0 no, 3 yes
    expect_near(f.popularity[1].metrics, {});
    expect_near(f.popularity[2].metrics,
                {{"recall@2", 0.5}, {"recall@3", 1.0}});  // item 3: of users 0 yes, 2 at rank 3
    expect_near(f.popularity[3].metrics, {{"recall@2", 1.0}, {"recall@3", 1.0}});
    // Users 0 | 1 2 | 3 with 1 | 2 2 | 5 rows at places 0 | 1 2 | 3 of four: the third group is empty.
    ASSERT_EQ(f.activity.size(), 4u);
    const int64_t of_users[] = {1, 2, 0, 1}, trained[] = {1, 2, 0, 5};
    for (size_t g = 0; g < 4; ++g) {
      EXPECT_EQ(f.activity[g].users, of_users[g]) << g;
      EXPECT_EQ(f.activity[g].fewest, trained[g]) << g;
      EXPECT_EQ(f.activity[g].most, trained[g]) << g;
    }
    const double first = kRank2 / (1 + kRank2);  // user 0: a hit at rank 2, two held out
    expect_near(f.activity[0].metrics, {{"recall@2", 0.5}, {"recall@3", 0.5}, {"ndcg@2", first}, {"ndcg@3", first}});
    expect_near(f.activity[1].metrics,
                {{"recall@2", 0.5}, {"recall@3", 1.0}, {"ndcg@2", 0.5}, {"ndcg@3", (1 + 0.5) / 2}});
    EXPECT_TRUE(f.activity[2].metrics.empty());
    expect_near(f.activity[3].metrics, {{"recall@2", 1.0}, {"recall@3", 1.0}, {"ndcg@2", kRank2}, {"ndcg@3", kRank2}});

    EXPECT_NEAR(f.result.test.at("mrr@2"), (0.5 + 1 + 0 + 0.5) / 4, 1e-12);
    EXPECT_NEAR(f.result.test.at("mrr@3"), (0.5 + 1 + 1.0 / 3 + 0.5) / 4, 1e-12);
    EXPECT_NEAR(f.result.test.at("hit@2"), 0.75, 1e-12);
    // One row of validation, four of test: user, training rows, six metrics at each k.
    const std::vector<std::string> columns = {"user",        "train_rows", "recall@2", "ndcg@2",   "precision@2",
                                              "map@2",       "mrr@2",      "hit@2",    "recall@3", "ndcg@3",
                                              "precision@3", "map@3",      "mrr@3",    "hit@3"};
    EXPECT_EQ(f.columns, columns);
    ASSERT_EQ(f.valid, 1);
    ASSERT_EQ(f.test, 4);
    ASSERT_EQ(f.values.size(), 5 * columns.size());
    const auto k2 = [&](size_t row) {
      return std::vector<float>(f.values.begin() + long(row * columns.size()),
                                f.values.begin() + long(row * columns.size() + 8));
    };
    const auto r2 = float(kRank2);
    EXPECT_EQ(k2(0), (std::vector<float>{2, 2, 1, r2, 0.5f, 0.5f, 0.5f, 1}));  // validation: item 5 at rank 2
    EXPECT_EQ(k2(1), (std::vector<float>{0, 1, 0.5f, float(first), 0.5f, 0.25f, 0.5f, 1}));
    EXPECT_EQ(k2(2), (std::vector<float>{1, 2, 1, 1, 0.5f, 1, 1, 1}));
    EXPECT_EQ(k2(3), (std::vector<float>{2, 2, 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(k2(4), (std::vector<float>{3, 5, 1, r2, 0.5f, 0.5f, 0.5f, 1}));
  }
}

TEST(Lists, WhatHasNoValueHasNoKey) {
  ByHand c;
  ListFigures f = c.figures("cpu", {1, 100});
  EXPECT_FALSE(f.lists.count("ild_image@1")) << "one item has no distance";
  EXPECT_TRUE(f.lists.count("ild_image@100"));
  EXPECT_FALSE(f.lists.count("ild_text@100")) << "rows of zeros have none";
  EXPECT_EQ(f.lists.at("coverage@100"), 5.0 / 6) << "all candidates; everybody has trained on item 0";
  // The validation item 5 of user 2 is left out when test is ranked: 2 3 4.
  EXPECT_NEAR(c.figures("cpu", {3}, true).lists.at("tail@3"), (1 + 2 + 2 + 2) / 11.0, 1e-12);
  EXPECT_NEAR(c.figures("cpu", {2}, true).lists.at("arp@2"), (2 + 1.5 + 1.5 + 0) / 4, 1e-12);
  // User 3 has trained on everything: an empty list has no mean, and no place.
  c.data.train.insert(c.data.train.end(), {{3, 4}, {3, 5}});  // rows 4 3 2 1 1 1
  f = c.figures("cpu", {2});
  EXPECT_NEAR(f.lists.at("arp@2"), (2 + 1.5 + 1.5) / 3, 1e-12);
  EXPECT_EQ(f.result.test.at("hit@2"), 0.5) << "it counts as a miss";
  // All users as active: one group.
  EXPECT_EQ(f.lists.at("coverage@2"), 4.0 / 6);
  c.data.train = {{0, 0}, {1, 0}, {2, 0}, {3, 0}};
  f = c.figures("cpu", {2});
  EXPECT_EQ(f.activity[0].users, 4);
  EXPECT_EQ(f.activity[1].users + f.activity[2].users + f.activity[3].users, 0);
  // One item for everybody is as uneven as 6 items allow; nothing is held out.
  c.hu.assign(24, 0.0f);
  for (size_t u = 0; u < 4; ++u) c.hu[u * 6 + 2] = 1;
  EXPECT_NEAR(c.figures("cpu", {1}).lists.at("gini@1"), 1 - 1.0 / 6, 1e-12);
  c.data.test.clear();
  f = c.figures("cpu", {2});
  EXPECT_TRUE(f.lists.empty() && f.popularity.empty() && f.activity.empty());
  EXPECT_EQ(lists_json(f).dump() + groups_json(f).dump(), R"({}{"popularity":[],"activity":[]})");
  EXPECT_EQ(f.test, 0);
  EXPECT_EQ(f.valid, 1);
}

// More users than threads take at a time, matrices of each kind: the bits of one thread and of two, and the k widths of
// the contract give the distance that all pairs do.
TEST(Lists, ThreadsAndKindsOfFilesChangeNothing) {
  const Folder dir;
  const Dataset data = random_data(dir, 90, 40, 6, {9});
  Draw g;
  const std::vector<float> hu = g.floats(90 * 4), hi = g.floats(40 * 4);
  std::vector<ListFigures> all;
  for (const int threads : {1, 3}) {
    std::string note;
    const auto dev = make_device("cpu", threads, note);
    all.push_back(list_figures(*dev, cmat(hu, 90, 4), cmat(hi, 40, 4), data, data.features, {5, 10}));
  }
  EXPECT_EQ(all[0].lists, all[1].lists);
  EXPECT_EQ(all[0].values, all[1].values);
  // the same numbers as float64 in column order
  std::vector<double> columns(size_t(40 * 9));
  for (size_t i = 0; i < 40; ++i)
    for (size_t j = 0; j < 9; ++j) columns[j * 40 + i] = double(data.features[0].matrix.floats()[i * 9 + j]);
  std::string header = "{'descr': '<f8', 'fortran_order': True, 'shape': (40, 9), }";
  header.resize(118 - 1, ' '), header += '\n';
  std::ofstream out(dir / "f8.npy", std::ios::binary);
  out << "\x93NUMPY" << '\x01' << '\0' << '\x76' << '\0' << header;
  out.write(reinterpret_cast<const char*>(columns.data()), long(columns.size() * 8));
  out.close();
  std::vector<Feature> turned;
  turned.push_back({"image", NpyMatrix(dir / "f8.npy")});
  ASSERT_EQ(turned[0].matrix.floats(), nullptr);
  std::string note;
  const auto dev = make_device("cpu", 2, note);
  EXPECT_EQ(list_figures(*dev, cmat(hu, 90, 4), cmat(hi, 40, 4), data, turned, {5, 10}).lists, all[0].lists);

  std::vector<int32_t> users;
  for (int32_t u = 0; u < 89; ++u) users.push_back(u);
  double sum = 0;
  recommend(dev->ctx, dev->ops, cmat(hu, 90, 4), cmat(hi, 40, 4), pairs_by_user(data.train, 90, 40), users, 5,
            [&](int32_t, const int32_t* items, const float*, int64_t n) {
              ASSERT_EQ(n, 5);
              double of_pairs = 0;
              for (int a = 0; a < 5; ++a)
                for (int b = a + 1; b < 5; ++b) {
                  const float *x = data.features[0].matrix.floats() + items[a] * 9,
                              *y = data.features[0].matrix.floats() + items[b] * 9;
                  double xy = 0, xx = 0, yy = 0;
                  for (int j = 0; j < 9; ++j)
                    xy += double(x[j]) * y[j], xx += double(x[j]) * x[j], yy += double(y[j]) * y[j];
                  of_pairs += 1 - xy / std::sqrt(xx * yy);
                }
              sum += of_pairs / 10;
            });
  EXPECT_NEAR(all[0].lists.at("ild_image@5"), sum / 89, 1e-12);
}

// ------------------------------------------------------------------------------------------------------------ as kept

json summary_of(const std::string& folder) { return json::parse(read_text(folder + "/summary.json")); }

// The means over users are what training reported, and evaluate says what the run keeps.
TEST(KeptLists, AreThoseOfTheMetricsThatTrainingReported) {
  for (const std::string& device : devices_here()) {
    SCOPED_TRACE(device);
    const Folder dir;
    const std::string run_dir = dir / "run";
    ASSERT_EQ(run(train_words("BPR", run_dir,
                              {"--device", device, "--set", "epochs=3", "--set", "topk=[3,5,7]", "--set",
                               "valid_metric=MRR@5"}))
                  .code,
              0);
    const json summary = summary_of(run_dir);
    EXPECT_NEAR(summary["best_score"].get<double>(), summary["best_valid"]["mrr@5"].get<double>(), 5e-5);
    const UserValues v = read_user_values(RunFolder::open(run_dir));
    ASSERT_EQ(v.columns.size(), 2 + 3 * kMetricStems);
    EXPECT_EQ(v.best_epoch, summary["best_epoch"]);
    for (const bool valid : {true, false}) {
      const json& best = summary[valid ? "best_valid" : "best_test"];
      for (size_t c = 2; c < v.columns.size(); ++c) {
        double sum = 0;
        const std::vector<double> of_users = v.of(valid, int(c));
        for (const double x : of_users) sum += x;
        EXPECT_NEAR(sum / double(of_users.size()), best.at(v.columns[c]).get<double>(), 1e-6) << v.columns[c];
      }
    }
    const Result e = run({"evaluate", run_dir, "--device", device, "--json"});
    ASSERT_EQ(e.code, 0) << e.err;
    for (const char* key : {"lists", "groups"}) EXPECT_EQ(json::parse(e.out)[key], summary[key]);
    EXPECT_TRUE(summary["lists"].contains("ild_image@7") && summary["lists"].contains("ild_text@7"));
    for (const char* line : {"\ntest MRR  ", "\ncoverage  ", "\nild_text  ", "\npopularity 5  ", "\nactivity 1  "})
      EXPECT_TRUE(has(run({"evaluate", run_dir}).out, line)) << line;
    // What is there already is written as it was.
    const std::string users = read_text(run_dir + "/users.f32"), text = read_text(run_dir + "/summary.json");
    ASSERT_EQ(run({"evaluate", run_dir, "--device", device, "--keep"}).code, 0);
    EXPECT_TRUE(read_text(run_dir + "/users.f32") == users);
    EXPECT_EQ(read_text(run_dir + "/summary.json"), text);
  }
}

TEST(KeptLists, OfAKilledAndOfAContinuedRunAreTheRunsOwn) {
  const Folder dir;
  const std::string folder = dir / "run", longer = dir / "longer";
  ASSERT_EQ(run(train_words("LightGCN", folder, {"--set", "epochs=3"})).code, 0);
  ASSERT_EQ(run(train_words("LightGCN", longer, {"--set", "epochs=30"})).code, 0);
  ASSERT_NE(summary_of(folder)["best_epoch"], summary_of(longer)["best_epoch"]);
  const std::string users = read_text(folder + "/users.f32");
  json summary = summary_of(folder);
  // killed between the two files; and in the middle of the first, after an earlier end
  std::filesystem::remove(folder + "/summary.json");
  for (const char* left : {"", "half of it"}) {
    if (*left) std::ofstream(folder + "/users.f32") << left, std::filesystem::remove(folder + "/summary.json");
    ASSERT_EQ(run({"train", "--resume", folder}).code, 0);
    EXPECT_TRUE(read_text(folder + "/users.f32") == users);
    for (const char* key : {"users", "lists", "groups"}) EXPECT_EQ(summary_of(folder)[key], summary[key]);
  }
  ASSERT_EQ(run({"train", "--resume", folder, "--set", "epochs=30"}).code, 0);
  EXPECT_TRUE(read_text(folder + "/users.f32") == read_text(longer + "/users.f32"));
  EXPECT_EQ(summary_of(folder)["lists"], summary_of(longer)["lists"]);
  // A run that goes on without saving its best model has none to look at, and leaves none of an earlier one.
  const std::string unsaved = dir / "unsaved";
  ASSERT_EQ(run(train_words("LightGCN", unsaved, {"--set", "epochs=3"})).code, 0);
  ASSERT_EQ(run({"train", "--resume", unsaved, "--set", "epochs=30", "--set", "save_best=false"}).code, 0);
  EXPECT_FALSE(std::filesystem::exists(unsaved + "/users.f32"));
  for (const char* key : {"users", "lists", "groups"}) EXPECT_FALSE(summary_of(unsaved).contains(key)) << key;
  EXPECT_TRUE(read_user_values(RunFolder::open(unsaved)).columns.empty());
  EXPECT_TRUE(has(run({"evaluate", unsaved, "--keep"}).err, "so --keep has no model to look at"));
}

// Features that a model does not read cost it a figure, never the run.
TEST(KeptLists, OfAModelWithoutFeaturesAreMeasuredInThoseThatCanBeRead) {
  const Folder dir;
  const auto trained = [&](const std::string& name) {
    const Result r = run({"train", "-m", "BPR", "-d", dir / "tiny", "--run-dir", dir / name, "--threads", "2", "--set",
                          "embedding_size=8", "--set", "epochs=2"});
    EXPECT_EQ(r.code, 0) << r.err;
    return summary_of(dir / name);
  };
  std::filesystem::copy(data_folder(), dir / "tiny");
  const json both = trained("both");
  EXPECT_TRUE(both["lists"].contains("ild_image@5") && both["lists"].contains("ild_text@5"));
  EXPECT_EQ(both["data"]["checksum"], both["data"]["interactions"]) << "they are none of the run's";
  std::ofstream(dir / "tiny/image_feat.npy") << "no matrix";
  json broken = trained("broken");
  EXPECT_FALSE(broken["lists"].contains("ild_image@5"));
  EXPECT_EQ(broken["lists"]["ild_text@5"], both["lists"]["ild_text@5"]);
  EXPECT_TRUE(has(read_text(dir / "broken/train.log"), "note: lists are not measured in a modality: "));
  EXPECT_TRUE(has(run({"evaluate", dir / "broken"}).err, "image_feat.npy: does not begin as an npy file does"));
  std::vector<float> nan(60, std::numeric_limits<float>::quiet_NaN());
  write_npy(dir / "tiny/image_feat.npy", nan.data(), 40, 1);
  write_npy(dir / "tiny/text_feat.npy", nan.data(), 39, 1);
  write_npy(dir / "tiny/user_feat.npy", nan.data(), 60, 1);  // of users: not looked at
  broken = trained("worse");
  for (const auto& [key, value] : broken["lists"].items()) EXPECT_FALSE(key.starts_with("ild_")) << key;
  EXPECT_TRUE(has(read_text(dir / "worse/train.log"), "text_feat.npy: has 39 rows, expected 40, one for each item"));
  for (const char* file : {"image", "text", "user"})
    std::filesystem::remove(dir / ("tiny/" + std::string(file) + "_feat.npy"));
  trained("bare");
  EXPECT_TRUE(
      has(read_text(dir / "bare/train.log"), "not measured in a modality: " + (dir / "tiny has no *_feat.npy")));
  expect_same_tensors(dir / "bare/best.safetensors", dir / "both/best.safetensors");
  EXPECT_TRUE(read_text(dir / "bare/users.f32") == read_text(dir / "both/users.f32"));
}

TEST(KeptLists, OfARunThatIsNotOverAreNone) {
  const Folder dir;
  const std::string folder = dir / "run";
  ASSERT_EQ(run(train_words("BPR", folder, {"--set", "epochs=2", "--set", "stopping_step=1000000"})).code, 0);
  ASSERT_TRUE(std::filesystem::exists(folder + "/users.f32"));
  // Continued, and stopped by hand once epochs more have been reported: a best epoch, and nothing of the earlier end.
  std::atomic<bool> ended = false;
  std::thread hand([&] {
    const auto epochs = [&] {
      const std::string lines = read_text(folder + "/metrics.jsonl");
      return std::count(lines.begin(), lines.end(), '\n');
    };
    while (!ended && epochs() < 4) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!ended) std::raise(SIGINT);
  });
  const Result r = run({"train", "--resume", folder, "--set", "epochs=1000000"});
  ended = true;
  hand.join();
  ASSERT_EQ(r.code, 130) << r.err;
  const json summary = summary_of(folder);
  EXPECT_GE(summary["best_epoch"], 0);
  EXPECT_FALSE(std::filesystem::exists(folder + "/users.f32"));
  EXPECT_FALSE(summary.contains("users") || summary.contains("lists") || summary.contains("groups"));
  // Asked for, they are there.
  ASSERT_EQ(run({"evaluate", folder, "--keep"}).code, 0);
  EXPECT_FALSE(read_user_values(RunFolder::open(folder)).columns.empty());
  const std::string diverging = dir / "diverging";
  ASSERT_EQ(run(train_words("BPR", diverging, {"--set", "learning_rate=1e38"})).code, 4);
  EXPECT_FALSE(std::filesystem::exists(diverging + "/users.f32"));
  EXPECT_FALSE(summary_of(diverging).contains("lists"));
}

// Runs of a program that knew no such figures (old_runs_test.cpp).
TEST(KeptLists, AreAddedToRunsOfEarlierPrograms) {
  const std::string runs = std::string(CCDREC_SOURCE_DIR) + "/tests/runs", data = runs + "/tiny";
  const Folder dir;
  for (const char* name : {"bpr-finished", "ccdrec-stopped", "freedom-killed"})
    std::filesystem::copy(runs + "/" + name, dir / name, std::filesystem::copy_options::recursive);
  EXPECT_TRUE(read_user_values(RunFolder::open(dir / "bpr-finished")).columns.empty());
  for (const std::string name : {"bpr-finished", "ccdrec-stopped"}) {
    SCOPED_TRACE(name);
    const json before = summary_of(dir / name);
    const Result r = run({"evaluate", dir / name, "-d", data, "--keep", "--threads", "2"});
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(has(r.err, "users.f32, and users, lists and groups of summary.json"));
    json after = summary_of(dir / name);
    const UserValues v = read_user_values(RunFolder::open(dir / name));
    EXPECT_EQ(v.test, after["users"]["test"]);
    const std::vector<double> recall = v.of(false, v.column("recall@5"));
    double sum = 0;
    for (const double x : recall) sum += x;
    EXPECT_NEAR(sum / double(recall.size()), before["best_test"]["recall@5"].get<double>(), 1e-6);
    EXPECT_TRUE(after["lists"].contains("ild_text@5"));
    EXPECT_EQ(after["groups"]["popularity"].size(), 5u);
    EXPECT_EQ(after["groups"]["activity"].size(), 4u);
    for (const char* key : {"users", "lists", "groups"}) after.erase(key);
    EXPECT_EQ(after, before);
    EXPECT_EQ(run({"compare", dir / name}).code, 0);
  }
  const auto refused = [&](std::vector<std::string> words, const std::string& why) {
    words.insert(words.end(), {"-d", data, "--keep"});
    const Result r = run(words);
    EXPECT_EQ(r.code, 2);
    EXPECT_TRUE(has(r.err, why)) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  };
  refused({"evaluate", dir / "freedom-killed"}, "has no summary.json for --keep to write to");
  const std::string with = "it goes with none of --other-data, --topk, --mask-valid and --recs";
  refused({"evaluate", dir / "bpr-finished", "--topk", "5"}, with);
  refused({"evaluate", dir / "bpr-finished", "--other-data"}, with);
  refused({"evaluate", dir / "bpr-finished", "--mask-valid"}, with);
  refused({"evaluate", dir / "bpr-finished", "--recs", data + "/tiny.inter"}, with);
  refused({"evaluate", "--recs", data + "/tiny.inter"}, with);
  const RunLock training(RunFolder::open(dir / "bpr-finished"));
  refused({"evaluate", dir / "bpr-finished"}, "another program is training in it");
}

}  // namespace
}  // namespace ccdrec::test
