// Tests, intervals and corrections of a comparison: cases worked out by hand, figures that SciPy gave, and SciPy itself
// where it is installed.
#include "host/report/statistics.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "kernels/rng.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {
namespace {

using Values = std::vector<double>;

// Paired values as recalls are: few distinct ones, most differences zero.
struct PairsOfUsers {
  Values a, b;
  explicit PairsOfUsers(int n, double ties = 0.8) {
    for (uint32_t u = 0; u < uint32_t(n); ++u) {
      const Draw4 x = draw(Stream{3, Use::test}, u);
      const double base = below(x.v[0], 4) / 4.0;
      b.push_back(base);
      a.push_back(uniform01(x.v[1]) < ties ? base : base + (below(x.v[2], 7) - 2.9) / 10);
    }
  }
};

TEST(Statistics, StudentsDistributionHasTheFiguresOfSciPy) {
  // 2 * scipy.stats.t.sf(abs(t), degrees), SciPy 1.10.1 and 1.17.1
  const struct {
    double t, degrees, p;
  } cases[] = {{0.1, 1, 0.93654896513889285},  {2.5, 5, 0.054490099342376204}, {1.96, 29999, 0.050005033680133},
               {-3.2, 17, 0.0052475567187706}, {12, 250, 1.6735296226983e-26}, {0.001, 7, 0.99923001724499882},
               {5, 1e6, 5.7339978708907e-07}};
  for (const auto& c : cases) EXPECT_NEAR(student_two_sided(c.t, c.degrees) / c.p, 1, 1e-11) << c.t << " " << c.degrees;
  for (const double t : {0.3, 1.0, 4.0}) {  // in closed form: one degree, and two
    EXPECT_NEAR(student_two_sided(t, 1), 1 - 2 * std::atan(t) / M_PI, 1e-14);
    EXPECT_NEAR(student_two_sided(t, 2), 1 - t / std::sqrt(2 + t * t), 1e-14);
  }
  EXPECT_EQ(student_two_sided(0, 9), 1);
  EXPECT_EQ(student_two_sided(INFINITY, 9), 0);
  EXPECT_TRUE(std::isnan(student_two_sided(NAN, 9)));
  EXPECT_TRUE(std::isnan(student_two_sided(1, 0)));
}

TEST(Statistics, PairsHaveTheFiguresOfSciPy) {
  // scipy.stats.ttest_rel(a, b), wilcoxon(a - b); d.mean() / d.std(ddof=1)
  const Values a = {0.61, 0.42, 0.88, 0.35, 0.79, 0.50, 0.27, 0.93, 0.66, 0.48},
               b = {0.55, 0.47, 0.71, 0.36, 0.60, 0.42, 0.25, 0.80, 0.69, 0.33};
  const PairedTest x = paired_test(a, b);
  EXPECT_EQ(x.n, 10);
  EXPECT_NEAR(x.difference, 0.071, 1e-15);
  EXPECT_NEAR(x.t, 2.5850961394841026, 1e-12);
  EXPECT_NEAR(x.p_t, 0.029449407222210258, 1e-13);
  EXPECT_EQ(x.w, 8);
  EXPECT_NEAR(x.p_wilcoxon, 0.048828125, 1e-15);
  EXPECT_NEAR(x.effect, 0.8174791771278098, 1e-13);
  EXPECT_LT(x.low, x.difference);
  EXPECT_GT(x.high, x.difference);
  EXPECT_GT(x.low, 0.0) << "p is 0.029, and the interval says the same";
  const PairedTest turned = paired_test(b, a);
  EXPECT_EQ(turned.t, -x.t);
  EXPECT_EQ(turned.p_wilcoxon, x.p_wilcoxon);
  EXPECT_NEAR(turned.low, -x.high, 1e-12) << "the same resamples";
}

TEST(Statistics, SignedRanksAreExactOrNormalAsSciPyHasThem) {
  // of three differences, all positive: one sign in eight is as extreme on each side
  EXPECT_EQ(signed_ranks(Values{1, 2, 3}).p, 0.25);
  EXPECT_EQ(signed_ranks(Values{1, 2, -3}).w, 3);
  EXPECT_EQ(signed_ranks(Values{1, 2, -3}).p, 1) << "the middle of the distribution";
  // scipy.stats.wilcoxon(d), SciPy 1.10.1
  const SignedRanks plants = signed_ranks(Values{6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75});
  EXPECT_EQ(plants.w, 24);
  EXPECT_NEAR(plants.p, 0.041259765625, 1e-15);
  // wilcoxon(d, method='approx'): zeros and ties
  const SignedRanks tied = signed_ranks(Values{0, 0, 1, 1, 1, -1, 2, 2, -3, 0, 4, 5, -5, 6, 0.5, -0.5, 7});
  EXPECT_EQ(tied.w, 26.5);
  EXPECT_NEAR(tied.p, 0.1015385684101614, 1e-14);
  Values more;  // more than 50, ties among them
  for (int k = 0; k < 60; ++k) more.push_back(((k * 37) % 101 - 45) / 10.0);
  EXPECT_EQ(signed_ranks(more).w, 763.5);
  EXPECT_NEAR(signed_ranks(more).p, 0.2647081919479235, 1e-14);
  EXPECT_TRUE(std::isnan(signed_ranks(Values{0, 0}).p));
}

TEST(Statistics, WhereNothingDiffersNoTestSpeaks) {
  const Values x = {0.25, 0.5, 0.75}, more = {0.5, 0.75, 1.0};
  for (const Values& b : {x, more}) {
    const PairedTest test = paired_test(x, b);
    EXPECT_EQ(test.difference, x[0] - b[0]);
    EXPECT_TRUE(std::isnan(test.p_t) && std::isnan(test.t) && std::isnan(test.effect));
    EXPECT_EQ(test.low, test.difference);
    EXPECT_EQ(test.high, test.difference);
  }
  EXPECT_TRUE(std::isnan(paired_test(x, x).p_wilcoxon));
  EXPECT_EQ(paired_test(x, more).w, 0) << "all differ by as much, in one direction";
  EXPECT_TRUE(std::isnan(paired_test({}, {}).difference));
  EXPECT_TRUE(std::isnan(paired_test(Values{1}, Values{2}).p_t)) << "one value has no deviation";
}

// Twenty values 0 and twenty 1: a resample's mean is that of 40 tosses, whose quantiles are 14 and 26 of 40.
TEST(Statistics, TheIntervalIsThatOfTheBinomialDistribution) {
  Values a(40, 0.0);
  for (size_t k = 0; k < 40; k += 2) a[k] = 1;
  const PairedTest test = paired_test(a, Values(40, 0.0));
  EXPECT_DOUBLE_EQ(test.low, 14 / 40.0);
  EXPECT_DOUBLE_EQ(test.high, 26 / 40.0);
  const PairedTest other = paired_test(PairsOfUsers(301).a, PairsOfUsers(301).b, 1);
  EXPECT_NE(other.low, paired_test(PairsOfUsers(301).a, PairsOfUsers(301).b, 2).low) << "another seed";
}

TEST(Statistics, TheIntervalIsTheSameForAnyNumberOfThreads) {
  const PairsOfUsers pairs(333);
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const PairedTest one = paired_test(pairs.a, pairs.b);
  omp_set_num_threads(3);
  const PairedTest three = paired_test(pairs.a, pairs.b);
  omp_set_num_threads(before);
  EXPECT_EQ(one.low, three.low);
  EXPECT_EQ(one.high, three.high);
}

TEST(Statistics, SeedsAreTestedFromSixOn) {
  const Values a = {0.5, 0.52, 0.51, 0.53, 0.5, 0.55}, b = {0.49, 0.5, 0.51, 0.5, 0.48, 0.5};
  EXPECT_NEAR(paired_p_of_seeds(a, b), paired_test(a, b).p_t, 1e-16);
  EXPECT_TRUE(std::isnan(paired_p_of_seeds(std::span(a).first(5), std::span(b).first(5))));
}

// By hand: the smallest of three times 3, the next times 2, the largest as it is, none below one before it.
TEST(Statistics, HolmCorrectsInOrder) {
  EXPECT_EQ(holm(Values{0.03, 0.01, 0.04}), (Values{0.06, 0.03, 0.06}));
  EXPECT_EQ(holm(Values{0.5, 0.9}), (Values{1, 1}));
  const Values some = holm(Values{NAN, 0.02, NAN, 0.03});
  EXPECT_TRUE(std::isnan(some[0]) && std::isnan(some[2])) << "not tests";
  EXPECT_EQ(some[1], 0.04);
  EXPECT_EQ(some[3], 0.04);
  EXPECT_TRUE(holm({}).empty());
}

TEST(Statistics, MeansAndDeviationsAreOfASample) {
  const Values x = {1, 2, 6};
  EXPECT_EQ(mean(x), 3);
  EXPECT_NEAR(deviation(x), std::sqrt(7.0), 1e-15);
  EXPECT_EQ(deviation(Values{5}), 0);
}

TEST(Statistics, AgreeWithSciPyItself) {
  if (std::system("python3 -c 'import scipy' >/dev/null 2>&1") != 0) GTEST_SKIP() << "python3 has no scipy here";
  const Folder dir;
  nlohmann::json cases = nlohmann::json::array();
  std::vector<PairsOfUsers> pairs;
  for (const auto& [n, ties] : {std::pair{2, 0.0}, {7, 0.5}, {31, 0.2}, {50, 0.9}, {51, 0.0}, {400, 0.8}, {3000, 0.9}})
    pairs.emplace_back(n, ties);
  pairs.emplace_back(40, 0.0);  // all differences of their own size: exact
  for (size_t k = 0; k < 40; ++k) pairs.back().a[k] = pairs.back().b[k] + (double(k) - 13.3) / 64;
  for (const PairsOfUsers& p : pairs) {
    Values d;
    for (size_t k = 0; k < p.a.size(); ++k) d.push_back(p.a[k] - p.b[k]);
    cases.push_back({{"a", p.a}, {"b", p.b}});
  }
  dir.write("cases.json", cases.dump());
  // The method by name: releases of SciPy choose differently where there are ties.
  dir.write("ask.py", R"(
import json, sys, warnings
import numpy as np
from scipy import stats
warnings.simplefilter("ignore")
out = []
for case in json.load(open(sys.argv[1])):
    a, b = np.array(case["a"]), np.array(case["b"])
    d = a - b
    size = np.abs(d)
    exact = len(d) <= 50 and (d != 0).all() and len(np.unique(size)) == len(d)
    t = stats.ttest_rel(a, b)
    w = stats.wilcoxon(d, zero_method="wilcox", method="exact" if exact else "approx") if (d != 0).any() else None
    out.append([t.statistic, t.pvalue, w.statistic if w else 0, w.pvalue if w else 0, bool(exact)])
json.dump(out, open(sys.argv[2], "w"))
)");
  ASSERT_EQ(
      std::system(("python3 " + (dir / "ask.py") + " " + (dir / "cases.json") + " " + (dir / "said.json")).c_str()), 0);
  const nlohmann::json said = nlohmann::json::parse(dir.read("said.json"));
  ASSERT_EQ(said.size(), pairs.size());
  EXPECT_TRUE(said.back()[4].get<bool>());
  for (size_t k = 0; k < pairs.size(); ++k) {
    SCOPED_TRACE(pairs[k].a.size());
    const PairedTest got = paired_test(pairs[k].a, pairs[k].b);
    EXPECT_NEAR(got.t / said[k][0].get<double>(), 1, 1e-10);
    EXPECT_NEAR(got.p_t / said[k][1].get<double>(), 1, 1e-10);
    EXPECT_EQ(got.w, said[k][2].get<double>());
    EXPECT_NEAR(got.p_wilcoxon / said[k][3].get<double>(), 1, 1e-10);
  }
}

}  // namespace
}  // namespace ccdrec::test
