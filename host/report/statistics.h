// What a comparison of two systems needs: paired tests, intervals, the correction for many tests. Definitions for
// readers: docs/metrics.md.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace ccdrec {

double mean(std::span<const double>);
double deviation(std::span<const double>);  // of a sample: n-1; 0 for one value

// P(|T| >= |t|) of Student's distribution with `degrees` of freedom.
double student_two_sided(double t, double degrees);

// The signed-rank test of differences, zeros dropped, both sides, as SciPy's wilcoxon(zero_method='wilcox').
//   w  the smaller of the sums of ranks of positive and of negative differences; ties share their mean rank
//   p  from the exact distribution where there are at most 50 differences, no two as large and none zero; else from the
//      normal distribution, its variance corrected for ties, without continuity correction. NAN: all are zero
struct SignedRanks {
  double w = 0, p = 0;
};
SignedRanks signed_ranks(std::span<const double> differences);

// a against b, value by value: differences d = a - b. p-values are two-sided; NAN where a test has nothing to say (no
// difference differs, fewer than two values).
struct PairedTest {
  int64_t n = 0;
  double difference = 0;         // mean of d
  double t = 0, p_t = 0;         // paired t, n-1 degrees of freedom
  double w = 0, p_wilcoxon = 0;  // signed ranks
  double low = 0, high = 0;      // 95 % percentile interval of `difference` over 10,000 bootstrap resamples
  double effect = 0;             // Cohen's d of pairs: difference / deviation(d)
};
constexpr int kResamples = 10000;
// Resamples are addressed by (seed, resample, place): the same for any number of threads.
PairedTest paired_test(std::span<const double> a, std::span<const double> b, uint32_t seed = 999);

// A few paired values, one a seed: a p-value of the paired t-test from six pairs on, NAN below: so few cannot tell.
constexpr int kFewestSeeds = 6;
double paired_p_of_seeds(std::span<const double> a, std::span<const double> b);

// Holm's step-down correction: adjusted p-values in the order given; NANs stay and do not count.
std::vector<double> holm(std::span<const double> p);

}  // namespace ccdrec
