// Metrics against hand-computed cases (spec baselines 2.7).
#include "host/training/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "tests/host/command.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

TEST(Metrics, TheExampleOfTheSpecification) {  // hits at ranks 1 and 3, three held out
  const HeldOut held = held_out({{4, 10}, {4, 12}, {4, 99}});
  const int32_t top[] = {10, 11, 12, 13, 14};
  const Metrics m = ranking_metrics(held, top, 5, {2, 5});
  EXPECT_NEAR(m.at("recall@5"), 0.6667, 5e-5);
  EXPECT_NEAR(m.at("precision@5"), 0.4, 1e-12);
  EXPECT_NEAR(m.at("ndcg@5"), 0.7039, 5e-5);
  EXPECT_NEAR(m.at("map@5"), 0.5556, 5e-5);
  EXPECT_NEAR(m.at("map@2"), 0.5, 1e-12);
  EXPECT_EQ(m.at("mrr@5"), 1.0);
  EXPECT_EQ(m.at("hit@5"), 1.0);
}

// Two users: the first hit at rank 3, another at 4; and at rank 2.
TEST(Metrics, TheFirstHitAloneMakesReciprocalRankAndHit) {
  const HeldOut held = held_out({{0, 12}, {0, 13}, {1, 21}});
  const int32_t top[] = {10, 11, 12, 13, 20, 21, 22, 23};
  const Metrics m = ranking_metrics(held, top, 4, {1, 2, 3, 9});
  EXPECT_EQ(m.at("mrr@1"), 0.0);
  EXPECT_EQ(m.at("hit@1"), 0.0);
  EXPECT_EQ(m.at("mrr@2"), (0 + 1.0 / 2) / 2);
  EXPECT_EQ(m.at("hit@2"), 0.5);
  for (const std::string k : {"3", "9"}) {
    EXPECT_EQ(m.at("mrr@" + k), (1.0 / 3 + 1.0 / 2) / 2);
    EXPECT_EQ(m.at("hit@" + k), 1.0);
  }
}

TEST(Metrics, UsersCountEquallyAndShortListsCountAsMisses) {
  // order of first appearance: 7, 3; a repeated row counts once
  const HeldOut held = held_out({{7, 1}, {3, 5}, {7, 2}, {3, 5}});
  ASSERT_EQ(held.users, (std::vector<int32_t>{7, 3}));
  const int32_t top[] = {1, 2, -1, -1, 9, 5, -1, -1};
  const Metrics m = ranking_metrics(held, top, 4, {1, 4, 10});
  EXPECT_NEAR(m.at("recall@1"), (0.5 + 0) / 2, 1e-12);
  EXPECT_NEAR(m.at("recall@4"), (1.0 + 1.0) / 2, 1e-12);
  EXPECT_NEAR(m.at("recall@10"), 1.0, 1e-12);
  EXPECT_NEAR(m.at("precision@10"), (0.2 + 0.1) / 2, 1e-12);
  EXPECT_NEAR(m.at("ndcg@4"), (1.0 + 1 / std::log2(3.0)) / 2, 1e-12);
  EXPECT_NEAR(m.at("map@4"), (1.0 + 0.5) / 2, 1e-12);
}

TEST(Metrics, RoundsToFourDecimalsAndNamesUnknownMetrics) {
  EXPECT_EQ(round4(0.04445), 0.0445);
  EXPECT_EQ(round4(0.044449), 0.0444);
  EXPECT_EQ(metric_key("Recall@20"), "recall@20");
  EXPECT_EQ(metric_key("NDCG@5"), "ndcg@5");
  EXPECT_EQ(metric_key("MRR@5"), "mrr@5");
  EXPECT_EQ(metric_key("Hit@5"), "hit@5");
  EXPECT_EQ(metric_cutoff(metric_key("MAP@2147483647")), 2147483647);
  for (const char* bad : {"Recall", "Recall@", "AUC@5", "HitRate@5", "Recall@x", "@5", "Recall@0", "Recall@-1",
                          "Recall@5x", "Recall@2147483648"})
    EXPECT_THROW(metric_key(bad), UserError) << bad;
}

TEST(Metrics, WhichMetricsCanTellModelsApart) {
  // Of 6 items user 0 has trained on 2 (4 candidates), user 1 on none (6), user 2 on 5 (1 candidate), user 3 validates
  // what it trained on.
  const HostCsr train = pairs_by_user({{0, 0}, {0, 1}, {2, 0}, {2, 1}, {2, 2}, {2, 3}, {2, 4}, {3, 0}}, 4, 6);
  const HeldOut two = held_out({{0, 2}, {1, 2}}), four = held_out({{0, 2}, {1, 2}, {2, 5}, {3, 0}});
  const auto is = [&](const char* metric, const HeldOut& held, int64_t fixed, int64_t is_short, int64_t most,
                      int64_t fewest) {
    const Selects s = selects(metric_key(metric), held, train);
    EXPECT_EQ(s.fixed_users, fixed) << metric;
    EXPECT_EQ(s.short_users, is_short) << metric;
    EXPECT_EQ(s.most_places, most) << metric;
    EXPECT_EQ(s.fewest_places, fewest) << metric;
  };
  is("Recall@3", two, 0, 0, 0, 4);
  is("Recall@4", two, 1, 1, 4, 4);  // user 0's list takes all 4
  is("Precision@5", two, 1, 1, 4, 4);
  is("Recall@6", two, 2, 2, 6, 4);
  is("Precision@20", two, 2, 2, 6, 4);
  is("NDCG@20", two, 0, 0, 0, 4);  // the place in the list counts
  is("MAP@6", two, 0, 0, 0, 4);
  is("NDCG@20", four, 2, 0, 0, 4);  // one candidate has one order; what is masked is never found
  is("Recall@3", four, 2, 0, 0, 4);
  is("Recall@6", four, 4, 2, 6, 4);
  is("MAP@3", held_out({{2, 5}, {3, 0}}), 2, 0, 0, 0);  // no k helps
  is("Recall@20", HeldOut{}, 0, 0, 0, 0);
  // A list that leaves out fewer candidates than are held out holds one of these.
  const HeldOut three = held_out({{0, 2}, {0, 3}, {1, 2}});
  is("Hit@2", three, 0, 0, 0, 3);
  is("Hit@3", three, 1, 1, 3, 3);  // of user 0's 4 candidates all but one are in the list, and two are held out
  is("Recall@3", three, 0, 0, 0, 4);
  is("Hit@6", three, 2, 2, 6, 3);
  is("MRR@20", three, 0, 0, 0, 3 + 1);  // the place of the first hit counts

  // As it is said, so it is: over all orders of the items the value is one, or several.
  std::vector<int32_t> order = {0, 1, 2, 3, 4, 5};
  const std::vector<int> ks = {1, 2, 3, 4, 5, 6, 20};
  const std::vector<HeldOut> alone = {held_out({{0, 2}}), held_out({{1, 2}}), held_out({{2, 5}}), held_out({{3, 0}}),
                                      held_out({{0, 2}, {0, 3}})};
  std::map<std::string, std::set<double>> seen;  // metric and user
  do {
    for (size_t u = 0; u < alone.size(); ++u) {
      std::vector<int32_t> list;
      const auto user = size_t(alone[u].users[0]);
      const auto first = train.col.begin() + train.row_ptr[user], last = train.col.begin() + train.row_ptr[user + 1];
      for (const int32_t item : order)
        if (!std::binary_search(first, last, item)) list.push_back(item);
      list.resize(6, -1);
      for (const auto& [key, value] : ranking_metrics(alone[u], list.data(), 6, ks))
        seen[key + " of " + std::to_string(u)].insert(value);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  ASSERT_EQ(seen.size(), alone.size() * ks.size() * kMetricStems);
  for (const MetricName& m : kMetrics)
    for (const int k : ks)
      for (size_t u = 0; u < alone.size(); ++u) {
        const std::string key = std::string(m.key) + "@" + std::to_string(k);
        EXPECT_EQ(selects(key, alone[u], train).fixed_users == 1, seen.at(key + " of " + std::to_string(u)).size() == 1)
            << key << " of user " << u;
      }
}

TEST(Metrics, ASplitWithoutRowsHasNone) { EXPECT_TRUE(ranking_metrics(HeldOut{}, nullptr, 5, {5, 10}).empty()); }

TEST(Metrics, EvaluationMasksTrainingItemsOnlyAndScoresBothSplitsInOnePass) {
  // Two users, four items on a line: user 0 prefers 0 > 1 > 2 > 3, user 1 the reverse.
  std::vector<float> hu = {1, -1}, hi = {4, 3, 2, 1};
  const std::vector<int64_t> ptr = {0, 1, 2};
  const std::vector<int32_t> col = {0, 3};  // training: user 0 has item 0, user 1 has item 3
  const Csr mask{2, 4, ptr.data(), col.data(), nullptr};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    const HeldOut valid = held_out({{0, 1}}), test = held_out({{1, 1}, {0, 2}});
    const EvalResult r = evaluate(ctx, *dev.ops, cmat(hu, 2, 1), cmat(hi, 4, 1), mask, valid, test, {1, 2});
    EXPECT_EQ(r.valid.at("recall@1"), 1.0);  // 0 is masked, so 1 is first
    EXPECT_EQ(r.test.at("recall@1"), 0.0);   // the validation item 1 stays a candidate and costs user 0 the first place
    EXPECT_EQ(r.test.at("recall@2"), 1.0);   // user 1: 2, then 1; user 0: 1, then 2
  }
}

// Lists of some users at a time: the metrics of all at once, and one wait for each batch.
TEST(Metrics, BatchesOfUsersChangeNoBitAndWaitOnceEach) {
  constexpr int64_t U = 30, I = 25, d = 3;
  Draw g;
  const std::vector<float> hu = g.floats(U * d), hi = g.floats(I * d);
  const std::vector<int64_t> ptr(U + 1, 0);
  const Csr mask{U, I, ptr.data(), nullptr, nullptr};
  std::vector<Pair> valid, test;
  for (int32_t u = 0; u < 20; ++u) valid.push_back({u, g.below(I)});
  for (int32_t u = 29; u > 10; --u) test.push_back({u, g.below(I)});
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx owner(dev);
    Ctx& ctx = owner.get();
    std::vector<EvalResult> results;
    for (const int64_t at_once : {0, 1, 7, 30, 100}) {
      const Evaluation evaluation(ctx, *dev.ops, U, I, held_out(valid), held_out(test), {1, 5, 20}, at_once);
      const Ctx::Calls before = ctx.calls;
      results.push_back(evaluation.run(cmat(hu, U, d), cmat(hi, I, d), mask));
      if (ctx.device != DeviceKind::cuda) continue;
      EXPECT_EQ(ctx.calls.waits - before.waits, at_once == 1 ? 30 : at_once == 7 ? 5 : 1);
    }
    for (const EvalResult& r : results) EXPECT_TRUE(r.valid == results[0].valid && r.test == results[0].test);
    EXPECT_GT(results[0].test.at("recall@20"), 0.5);
  }
}

// Any k: those up to the number of items rank as many, those beyond it all there are. Item i scores p(i), a
// permutation, for user 0 and -p(i) for user 1.
TEST(Metrics, ListsAreAsLongAsIsAskedUpToAllItems) {
  constexpr int32_t I = 10500;
  std::vector<float> hu = {1, -1}, hi;
  const auto score_of = [](int64_t i) { return i * 7919 % I; };
  std::vector<int32_t> item(I);
  for (int32_t i = 0; i < I; ++i) hi.push_back(float(score_of(i))), item[size_t(score_of(i))] = i;
  const std::vector<int64_t> ptr = {0, 0, 0};
  const Csr mask{2, I, ptr.data(), nullptr, nullptr};
  constexpr int kMost = std::numeric_limits<int>::max();
  const HeldOut valid = held_out({{0, item[I - 1 - 10000]}, {1, item[0]}});  // at ranks 10,001 and 1
  const HeldOut test = held_out({{0, item[0]}, {1, item[I - 1]}});           // both last
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    const EvalResult r = evaluate(ctx, *dev.ops, cmat(hu, 2, 1), cmat(hi, I, 1), mask, valid, test,
                                  {10000, 10001, I - 1, I, I + 1, kMost});
    EXPECT_EQ(r.valid.at("recall@10000"), 0.5);
    EXPECT_EQ(r.valid.at("recall@10001"), 1.0);
    EXPECT_NEAR(r.valid.at("ndcg@10001"), (1 + 1 / std::log2(10002.0)) / 2, 1e-12);
    EXPECT_EQ(r.test.at("recall@10499"), 0.0);
    for (const std::string k : {"10500", "10501", "2147483647"}) {
      EXPECT_EQ(r.test.at("recall@" + k), 1.0);
      EXPECT_NEAR(r.test.at("ndcg@" + k), 1 / std::log2(10501.0), 1e-12);
      EXPECT_NEAR(r.test.at("map@" + k), 1.0 / 10500, 1e-15);
      EXPECT_NEAR(r.test.at("precision@" + k), 1 / std::stod(k), 1e-15);
    }
  }
}

TEST(Metrics, CutoffsAreThoseAskedForAndLongerListsAreNamed) {
  EXPECT_EQ(cutoffs({20, 5}, "Recall@20"), (std::vector<int>{5, 20}));
  EXPECT_EQ(cutoffs({5}, "NDCG@2147483647"), (std::vector<int>{5, 2147483647}));
  EXPECT_EQ(list_width({5, 2147483647}, 40), 40);
  EXPECT_EQ(list_width({5, 20}, 40), 20);
  EXPECT_EQ(longer_than_items({5, 40}, 40), "");
  EXPECT_EQ(longer_than_items({5, 50, 100}, 40),
            "topk 50, 100: there are 40 items, and a longer list holds all of them; Precision@k still divides by k");
  // Room for lists: as many users as ever where they are short, some always.
  EXPECT_EQ(users_at_once(DeviceKind::cuda, 50), 65536);
  EXPECT_EQ(users_at_once(DeviceKind::cpu, 50), 4096);
  EXPECT_EQ(users_at_once(DeviceKind::cuda, 63001), 532);
  EXPECT_EQ(users_at_once(DeviceKind::cpu, 2147483647), 64);
}

// Training and the commands agree, on either device: no k is refused from 1 on, and one beyond the items is said to be.
TEST(Metrics, AnyKFromOneOnInTrainingAndEvaluation) {
  const std::string note =
      "note: topk 50, 20000: there are 40 items, and a longer list holds all of them; Precision@k still divides by k\n";
  for (const std::string device : {"cpu", "cuda"}) {
    if (device == "cuda" && !gpu_info().usable) continue;
    SCOPED_TRACE(device);
    const Folder dir;
    const Result t = run(train_words("BPR", dir / "run",
                                     {"--device", device, "--set", "epochs=1", "--set", "topk=[5,40,50,20000]", "--set",
                                      "valid_metric=Recall@20000"}));
    ASSERT_EQ(t.code, 0) << t.err;
    EXPECT_TRUE(has(t.out, note)) << t.out;
    const auto trained = nlohmann::json::parse(read_text(dir / "run/summary.json"))["best_test"];
    const Result e = run({"evaluate", dir / "run", "--device", device, "--json"});
    ASSERT_EQ(e.code, 0) << e.err;
    EXPECT_TRUE(has(e.err, note)) << e.err;
    const auto evaluated = nlohmann::json::parse(e.out)["test"];
    EXPECT_EQ(evaluated.size(), 4 * kMetricStems);
    for (const auto& [key, value] : evaluated.items()) EXPECT_EQ(trained.at(key), value) << key;
    EXPECT_EQ(evaluated.at("recall@20000"), 1.0);
    EXPECT_EQ(evaluated.at("recall@20000"), evaluated.at("recall@40"));
    const Result more = run({"evaluate", dir / "run", "--device", device, "--topk", "20000,2147483647"});
    EXPECT_TRUE(has(more.out, "@2147483647")) << more.out << more.err;
    EXPECT_EQ(run({"evaluate", dir / "run", "--topk", "40"}).err, "")
        << "as many as there are items is no more than that";
    EXPECT_EQ(run({"recommend", dir / "run", "--device", device, "-k", "20000", "-o", dir / "lists.tsv"}).code, 0);
    const Result lists =
        run({"evaluate", "--recs", dir / "lists.tsv", "-d", data_folder(), "--topk", "5,2147483647", "--json"});
    ASSERT_EQ(lists.code, 0) << lists.err;
    EXPECT_TRUE(has(lists.err, "note: topk 2147483647: there are 40 items")) << lists.err;
    EXPECT_EQ(nlohmann::json::parse(lists.out)["test"]["recall@2147483647"], 1.0);
    for (const char* bad : {"0", "-1", "2147483648"}) {
      const Result refused = run({"evaluate", dir / "run", "--topk", bad});
      EXPECT_EQ(refused.code, 2) << bad;
      EXPECT_TRUE(has(refused.err, "expected list lengths from 1 to 2147483647")) << refused.err;
    }
  }
}

}  // namespace
}  // namespace ccdrec::test
