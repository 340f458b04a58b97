#include "host/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/rng.h"

namespace ccdrec {
namespace {

// The continued fraction of the incomplete beta function I_x(a, b), by Lentz's method: converges in the order of
// sqrt(max(a, b)) terms where x < (a+1) / (a+b+2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300, kEnough = 1e-16;
  constexpr int kMostTerms = 100000;
  const auto not_zero = [](double v) { return std::fabs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / not_zero(1 - (a + b) * x / (a + 1)), f = d;
  for (int m = 1; m < kMostTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / not_zero(1 + even * d), c = not_zero(1 + even / c), f *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / not_zero(1 + odd * d), c = not_zero(1 + odd / c), f *= d * c;
    if (std::fabs(d * c - 1) < kEnough) break;
  }
  return f;
}

// log of B(a, 1/2) for degrees of freedom in the millions too: lgamma(a + 1/2) - lgamma(a) would lose all its digits to
// their size, so large a take its asymptotic series.
double log_beta_half(double a) {
  const double log_sqrt_pi = 0.5 * std::log(3.14159265358979323846);
  if (a < 100) return std::lgamma(a) + log_sqrt_pi - std::lgamma(a + 0.5);
  const double r = 1 / a, r2 = r * r;  // log gamma(a + 1/2) - log gamma(a)
  const double ratio = 0.5 * std::log(a) - r / 8 + r * r2 / 192 - r * r2 * r2 / 640 + 17 * r * r2 * r2 * r2 / 14336;
  return log_sqrt_pi - ratio;
}

std::vector<double> differences(std::span<const double> a, std::span<const double> b) {
  std::vector<double> d(a.size());
  for (size_t k = 0; k < d.size(); ++k) d[k] = a[k] - b[k];
  return d;
}

struct StudentTest {
  double t = NAN, p = NAN, effect = NAN;
};
StudentTest student_test(std::span<const double> d) {
  const double s = deviation(d), n = double(d.size());
  if (!(s > 0)) return {};
  StudentTest test;
  test.effect = mean(d) / s;
  test.t = test.effect * std::sqrt(n);
  test.p = student_two_sided(test.t, n - 1);
  return test;
}

// P(sum of positive ranks <= w) doubled, ranks 1..n each positive with probability 1/2.
double exact_signed_ranks(int n, double w) {
  std::vector<double> count(size_t(n) * size_t(n + 1) / 2 + 1, 0.0);  // of subsets of {1..n} by their sum
  count[0] = 1;
  for (size_t rank = 1; rank <= size_t(n); ++rank)
    for (size_t sum = rank * (rank + 1) / 2; sum >= rank; --sum) count[sum] += count[sum - rank];
  double at_most = 0;
  for (size_t sum = 0; sum <= size_t(w); ++sum) at_most += count[sum];
  return std::min(1.0, 2 * at_most / std::exp2(n));
}

// Means of resamples of d, each of as many places as d, and each place any value of d.
std::vector<double> resampled_means(std::span<const double> d, uint32_t seed) {
  const auto n = uint32_t(d.size());
  std::vector<double> means(kResamples);
#pragma omp parallel for schedule(static)
  for (int r = 0; r < kResamples; ++r) {
    const Stream stream{seed, Use::bootstrap, 0, uint32_t(r)};
    double sum[4] = {0, 0, 0, 0};  // of places 4j, 4j+1, ..: one draw gives four, whose additions need not wait
    for (uint32_t place = 0; place < n; place += 4) {
      const Draw4 x = draw(stream, place / 4);
      const uint32_t here = std::min(4u, n - place);
      for (uint32_t k = 0; k < here; ++k) sum[k] += d[below(x.v[k], n)];
    }
    means[size_t(r)] = (sum[0] + sum[1] + sum[2] + sum[3]) / n;
  }
  return means;
}

// Of sorted values, between neighbours in proportion.
double quantile(std::span<const double> sorted, double q) {
  const double at = q * double(sorted.size() - 1);
  const auto k = size_t(at);
  return k + 1 < sorted.size() ? sorted[k] + (at - double(k)) * (sorted[k + 1] - sorted[k]) : sorted[k];
}

}  // namespace

double mean(std::span<const double> x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / double(x.size());
}

double deviation(std::span<const double> x) {
  const double m = mean(x);
  double sum = 0;
  for (const double v : x) sum += (v - m) * (v - m);
  return x.size() > 1 ? std::sqrt(sum / double(x.size() - 1)) : 0;
}

// I_x(degrees/2, 1/2) at x = degrees / (degrees + t^2).
double student_two_sided(double t, double degrees) {
  if (std::isnan(t) || !(degrees > 0)) return NAN;
  if (std::isinf(t)) return 0;
  if (t == 0) return 1;
  const double a = degrees / 2, x = degrees / (degrees + t * t), rest = t * t / (degrees + t * t);  // 1 - x
  const double front = std::exp(-a * std::log1p(t * t / degrees) + 0.5 * std::log(rest) - log_beta_half(a));
  if (x < (a + 1) / (a + 2.5)) return front * beta_fraction(a, 0.5, x) / a;
  return 1 - front * beta_fraction(0.5, a, rest) / 0.5;
}

SignedRanks signed_ranks(std::span<const double> all) {
  std::vector<double> d;
  for (const double v : all)
    if (v != 0) d.push_back(v);
  const auto n = d.size();
  if (n == 0) return {NAN, NAN};
  std::sort(d.begin(), d.end(), [](double x, double y) { return std::fabs(x) < std::fabs(y); });
  double plus = 0, ties = 0;  // sum of ranks of positive differences; sum of t^3 - t over groups of t as large
  for (size_t first = 0; first < n;) {
    size_t last = first;
    while (last + 1 < n && std::fabs(d[last + 1]) == std::fabs(d[first])) ++last;
    const double size = double(last - first + 1), rank = 0.5 * double(first + last) + 1;
    ties += size * size * size - size;
    for (size_t k = first; k <= last; ++k) plus += d[k] > 0 ? rank : 0;
    first = last + 1;
  }
  const double count = double(n), minus = count * (count + 1) / 2 - plus;
  SignedRanks out{.w = std::min(plus, minus)};
  constexpr size_t kMostExact = 50;
  if (n <= kMostExact && n == all.size() && ties == 0) {
    out.p = exact_signed_ranks(int(n), out.w);
  } else {
    const double variance = (count * (count + 1) * (2 * count + 1) - 0.5 * ties) / 24;
    out.p = std::erfc((count * (count + 1) / 4 - out.w) / std::sqrt(2 * variance));
  }
  return out;
}

PairedTest paired_test(std::span<const double> a, std::span<const double> b, uint32_t seed) {
  PairedTest out{.n = int64_t(a.size())};
  if (a.empty())
    return {.n = 0,
            .difference = NAN,
            .t = NAN,
            .p_t = NAN,
            .w = NAN,
            .p_wilcoxon = NAN,
            .low = NAN,
            .high = NAN,
            .effect = NAN};
  const std::vector<double> d = differences(a, b);
  out.difference = mean(d);
  const StudentTest student = student_test(d);
  out.t = student.t, out.p_t = student.p, out.effect = student.effect;
  const SignedRanks ranks = signed_ranks(d);
  out.w = ranks.w, out.p_wilcoxon = ranks.p;
  std::vector<double> means = resampled_means(d, seed);
  std::sort(means.begin(), means.end());
  out.low = quantile(means, 0.025), out.high = quantile(means, 0.975);
  return out;
}

double paired_p_of_seeds(std::span<const double> a, std::span<const double> b) {
  return a.size() < size_t(kFewestSeeds) ? NAN : student_test(differences(a, b)).p;
}

std::vector<double> holm(std::span<const double> p) {
  std::vector<size_t> order;
  for (size_t k = 0; k < p.size(); ++k)
    if (!std::isnan(p[k])) order.push_back(k);
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return p[x] < p[y]; });
  std::vector<double> out(p.size(), NAN);
  double so_far = 0;
  for (size_t k = 0; k < order.size(); ++k) {
    so_far = std::max(so_far, std::min(1.0, double(order.size() - k) * p[order[k]]));
    out[order[k]] = so_far;
  }
  return out;
}

}  // namespace ccdrec
