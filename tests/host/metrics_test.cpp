// Metrics against hand-computed cases (spec baselines 2.7).
#include "host/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
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
}

TEST(Metrics, UsersCountEquallyAndShortListsCountAsMisses) {
  const HeldOut held = held_out({{7, 1}, {3, 5}, {7, 2}, {3, 5}});  // order of first appearance: 7, 3; a repeated row counts once
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
  for (const char* bad : {"Recall", "Recall@", "AUC@5", "Recall@x", "@5"}) EXPECT_THROW(metric_key(bad), UserError) << bad;
}

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

}  // namespace
}  // namespace ccdrec::test
