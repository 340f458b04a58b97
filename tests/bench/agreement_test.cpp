// What bench_parity lets pass as rounding, and what it does not.
#include "bench/gpu/agreement.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ccdrec::bench {
namespace {

constexpr int64_t d = 64;
const double kRounding = 64 * std::ldexp(1.0, -24);

TEST(Agreement, LimitsAreTheMantissasAndTheLengths) {
  EXPECT_EQ(product_error("fp32", 64), kRounding);
  EXPECT_EQ(product_error("fp32", 0), 0);
  EXPECT_NEAR(product_error("tf32", 0), 2.0 / 1024, 1.0 / 1024 / 1024 * 1.01);
  EXPECT_NEAR(product_error("bf16", 0), 2.0 / 128, 1.0 / 128 / 128 * 1.01);
  EXPECT_GT(product_error("tf32", 64), product_error("tf32", 0) + kRounding);
  EXPECT_EQ(loss_limit("fp32"), 1e-4);
  EXPECT_LT(loss_limit("tf32"), 2.1e-3);
  EXPECT_LT(loss_limit("bf16"), 1.6e-2);
  EXPECT_EQ(score_limit("fp32", 64), 2 * kRounding);
}

// Item i has scores 10 - i on both devices, but for what a test changes.
struct Ranked {
  std::vector<ItemScores> of;
  Ranked() {
    for (int i = 0; i < 8; ++i) of.push_back({10.0 - i, 10.0 - i, 20});
  }
  Flips flips(const std::vector<int32_t>& cpu, const std::vector<int32_t>& gpu) const {
    Flips f;
    add_flips(
        f, "user 3", cpu, gpu, [&](int32_t i) { return of[size_t(i)]; }, d);
    return f;
  }
};

TEST(Agreement, EqualListsHaveNoFlips) {
  EXPECT_EQ(Ranked().flips({0, 1, 2, -1}, {0, 1, 2, -1}).count, 0);
  EXPECT_EQ(Ranked().flips({0, 1, 2}, {0, 1, 2}).text(), "no flips");
}

TEST(Agreement, AFlipWithinRoundingIsATie) {
  Ranked r;
  r.of[2].cpu = r.of[2].gpu = 9 - 0.9 * kRounding * 40;  // by less than both sums can be off
  const Flips f = r.flips({0, 1, 2, 3}, {0, 2, 1, 3});
  EXPECT_EQ(f.count, 1);
  EXPECT_TRUE(f.all_ties()) << f.text();
  EXPECT_NEAR(f.gap, 0.9 * kRounding, 1e-3 * kRounding);
  EXPECT_NEAR(f.limit, kRounding, 1e-3 * kRounding);
  EXPECT_NE(f.text().find("1 flip, all ties"), std::string::npos) << f.text();
  EXPECT_NE(f.text().find("user 3: item 1 before 2 on the CPU"), std::string::npos) << f.text();
  EXPECT_NE(f.text().find("3.4e-06 of the mass apart, a tie up to 3.8e-06"), std::string::npos) << f.text();
}

TEST(Agreement, AFlipBeyondRoundingIsNone) {
  Ranked r;
  r.of[2].cpu = r.of[2].gpu = 9 - 1.1 * kRounding * 40;
  const Flips f = r.flips({0, 1, 2, 3}, {0, 2, 1, 3});
  EXPECT_EQ(f.count, 1);
  EXPECT_EQ(f.no_ties, 1);
  EXPECT_NE(f.text().find("**1 no tie**"), std::string::npos) << f.text();
}

// Where training has moved the two items apart by more than they are apart, both orders are right.
TEST(Agreement, AFlipThatTheDevicesScoresExplainIsATie) {
  Ranked r;
  r.of[1] = {9.001, 9.000, 20}, r.of[2] = {9.000, 9.001, 20};
  EXPECT_TRUE(r.flips({0, 1, 2}, {0, 2, 1}).all_ties());
  EXPECT_EQ(r.flips({0, 2, 1}, {0, 1, 2}).no_ties, 1) << "the same scores, and each device has the other's order";
  // both moved alike: the GPU's order is not that of its scores
  r.of[2] = {9.000, 9.0005, 20}, r.of[1] = {9.001, 9.0015, 20};
  EXPECT_EQ(r.flips({0, 1, 2}, {0, 2, 1}).no_ties, 1);
}

TEST(Agreement, AnItemThatAListLacksStandsBehindIt) {
  const Ranked r;
  const Flips f = r.flips({0, 1, 2}, {0, 1, 5});  // 5 stands before 2 on the GPU and cannot
  EXPECT_EQ(f.count, 1);
  EXPECT_EQ(f.no_ties, 1);
  EXPECT_EQ(r.flips({0, 1, 2}, {5, 0, 1}).count, 1 + 2) << "before 0 and 1 as well";
}

TEST(Agreement, ANaNIsNoTieAndStaysTheWorst) {
  Ranked r;
  r.of[1].gpu = NAN;
  Flips f = r.flips({0, 1, 2}, {0, 2, 1});
  EXPECT_EQ(f.no_ties, 1);
  EXPECT_TRUE(std::isnan(f.gap));
  f.add("user 4", 0, {1, 1, 20}, 1, {1, 1, 20}, d);
  EXPECT_TRUE(std::isnan(f.gap));
  EXPECT_EQ(f.count, 2);
  double worst = 1;
  keep_worst(worst, NAN), keep_worst(worst, 2);
  EXPECT_TRUE(std::isnan(worst));
}

}  // namespace
}  // namespace ccdrec::bench
