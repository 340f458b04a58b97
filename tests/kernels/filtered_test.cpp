// RealHNS's operations: the table of candidates, how close the items of a cluster are, and the choice (spec
// negative_sampling 7.4, 11.6).
#include "kernels/filtered.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "kernels/cpu/fast/microkernel.h"
#include "kernels/sample.h"
#include "kernels/topk.h"
#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::filtered_test {
namespace {

constexpr Late kLate{3, 7, 4100, 0};  // what a recorded step reads in place of the stand-ins of late.h
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(PickColumns, AreThoseOfEveryList) {
  for (const auto& [n, k, c] :
       std::vector<std::array<int64_t, 3>>{{0, 4, 2}, {3, 4, 0}, {1, 1, 1}, {37, 9, 5}, {130, 12, 12}}) {
    Draw g;
    std::vector<int32_t> lists(size_t(n * k)), columns(size_t(c), 0), want;
    for (auto& x : lists) x = g.below(20) - 1;  // some are -1
    for (auto& x : columns) x = g.below(int32_t(k));
    for (int64_t r = 0; r < n; ++r)
      for (const int32_t j : columns) want.push_back(lists[size_t(r * k + j)]);
    want.push_back(77);
    for (const Device& dev : devices()) {
      DeviceCtx ctx(dev);
      std::vector<int32_t> out(want.size(), 77);
      dev.ops->pick_columns(ctx, out.data(), lists.data(), n, k, columns.data(), c, nullptr);
      EXPECT_EQ(out, want) << n << " x " << c << " of " << k << " on " << dev.name;
      std::vector<int32_t> names, named = want;
      for (int32_t i = 0; i < 20; ++i) names.push_back(3 * i + 5);
      for (size_t e = 0; e + 1 < named.size(); ++e) named[e] = want[e] < 0 ? -1 : names[size_t(want[e])];
      dev.ops->pick_columns(ctx, out.data(), lists.data(), n, k, columns.data(), c, names.data());
      EXPECT_EQ(out, named) << n << " x " << c << " of " << k << " on " << dev.name;
    }
  }
}

// --- cohesion --------------------------------------------------------------------------------------------------------

float cohesion_of(const Device& dev, const std::vector<float>& h, int64_t I, int64_t d, int clusters, Stream s,
                  float scale = 1) {
  DeviceCtx ctx(dev);
  Cell<float> theta = -7.0f;
  dev.ops->cohesion(ctx, &theta, cmat(h, I, d), clusters, scale, s);
  return theta;
}

// Items around so many directions; `spread` 0: in them.
std::vector<float> blobs(Draw& g, int64_t I, int64_t d, int64_t n, float spread) {
  const auto middle = g.floats(n * d);
  std::vector<float> h;
  for (int64_t i = 0; i < I; ++i) {
    const float length = g.uniform(0.2f, 3);
    for (int64_t j = 0; j < d; ++j) h.push_back(length * (middle[size_t(i % n * d + j)] + spread * g.uniform()));
  }
  return h;
}

struct Clustered {
  const char* name;
  int64_t I, d;
  int clusters;
  int64_t blobs;
  float spread;
};
const Clustered kClustered[] = {{"one item", 1, 3, 5, 1, 0},
                                {"one cluster", 20, 8, 1, 3, 0.5f},
                                {"more clusters than items", 9, 5, 100, 4, 0.3f},
                                {"one column", 40, 1, 3, 5, 0.5f},
                                {"clear blobs", 130, 16, 6, 6, 0.1f},
                                {"empty clusters", 50, 7, 12, 3, 0},
                                {"no structure", 129, 37, 13, 129, 1},
                                {"a tile of items and one", 65, 64, 20, 9, 0.4f},
                                {"wide", 30, 131, 4, 5, 0.4f},
                                {"ends before it stands still", 1500, 2, 4, 1500, 0}};

// The same bits on every device and path; zero rows and a row of NaN among the items.
TEST(Cohesion, IsThatOfTheDefinition) {
  for (const Clustered& c : kClustered)
    for (const bool odd : {false, true}) {
      Draw g;
      auto h = blobs(g, c.I, c.d, c.blobs, c.spread);
      if (odd)
        for (int64_t i = 0; i < c.I; i += 5) std::fill_n(h.begin() + i * c.d, c.d, 0.0f);
      if (odd && c.I > 60) h[size_t(7 * c.d)] = NAN;
      const Stream s{5, Use::centres, 4};
      float want = -1;
      cpu::plain::cohesion(&want, cmat(h, c.I, c.d), c.clusters, 0.75f, s);
      for (const char* isa : {"portable", "avx2", "avx512"}) {
        if (!cpu::find_kernel(isa)) continue;
        cpu::set_micro_kernel(cpu::find_kernel(isa));
        for (const Device& dev : isa != std::string("portable") ? cpu_devices()
                                 : c.I > 1000                   ? one_of_each_family()
                                                                : fast_devices()) {
          const float got = cohesion_of(dev, h, c.I, c.d, c.clusters, s, 0.75f);
          EXPECT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
              << c.name << (odd ? ", odd" : "") << " on " << dev.name << " with " << isa << ": " << got << ", want "
              << want;
        }
      }
      cpu::set_micro_kernel(nullptr);
    }
}

// More centres than a tile is wide.
TEST(Cohesion, OfManyClustersIsThatOfTheDefinition) {
  Draw g;
  const int64_t I = 300, d = 6;
  const auto h = blobs(g, I, d, 140, 0.2f);
  const Stream s{6, Use::centres, 1};
  float want = -1;
  cpu::plain::cohesion(&want, cmat(h, I, d), 150, 1, s);
  EXPECT_TRUE(want > 0.5f && want < 1) << want;
  for (const Device& dev : one_of_each_family()) EXPECT_EQ(cohesion_of(dev, h, I, d, 150, s), want) << dev.name;
}

// Spec 11.6. The method once more in double and by other means: members' mean cosine with their centre on one side,
// squared norms of the centres on the other.
TEST(Cohesion, IsTheMeanCosineOfMembersWithTheirCentre) {
  using Row = std::vector<double>;
  for (const Clustered& c : kClustered) {
    SCOPED_TRACE(c.name);
    Draw g;
    const auto h = blobs(g, c.I, c.d, c.blobs, c.spread);
    const Stream s{8, Use::centres, 2};
    const auto I = size_t(c.I), d = size_t(c.d), K = std::min(size_t(c.clusters), I);
    const auto dot = [](const Row& a, const Row& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); };
    const auto over_norm = [&](Row a) {
      const double norm = std::sqrt(dot(a, a));
      for (double& x : a) x /= norm;
      return a;
    };
    std::vector<Row> x, centre;
    for (size_t i = 0; i < I; ++i)
      x.push_back(over_norm(Row(h.begin() + int64_t(i * d), h.begin() + int64_t((i + 1) * d))));
    std::vector<std::pair<std::pair<uint32_t, uint32_t>, size_t>> by_key;  // `shuffle`
    for (size_t i = 0; i < I; ++i) {
      const Draw4 key = draw(s, uint32_t(i));
      by_key.push_back({{key.v[0], key.v[1]}, i});
    }
    std::sort(by_key.begin(), by_key.end());
    for (size_t k = 0; k < K; ++k) centre.push_back(x[by_key[k].second]);
    std::vector<std::vector<size_t>> members;
    int rounds = 0;
    for (bool moves = true; moves && rounds < 50; ++rounds) {
      members.assign(K, {});
      for (size_t i = 0; i < I; ++i) {
        size_t best = 0;
        for (size_t k = 1; k < K; ++k)  // equal to rounding: the lower one
          if (dot(x[i], over_norm(centre[k])) > dot(x[i], over_norm(centre[best])) + 1e-7) best = k;
        members[best].push_back(i);
      }
      double shift = 0;
      for (size_t k = 0; k < K; ++k) {
        Row mean(d);
        for (const size_t i : members[k])
          for (size_t j = 0; j < d; ++j) mean[j] += x[i][j] / double(members[k].size());
        if (members[k].empty()) {
          const size_t i = below(draw(s, uint32_t(k), uint32_t(rounds + 1)).v[0], uint32_t(I));
          mean = x[i];
        }
        double squares = 0;
        for (size_t j = 0; j < d; ++j) squares += (mean[j] - centre[k][j]) * (mean[j] - centre[k][j]);
        shift += std::sqrt(squares), centre[k] = mean;
      }
      moves = !(shift * shift < 1e-4);
    }
    double of_members = 0, of_centres = 0;
    for (size_t k = 0; k < K; ++k) {
      double sum = 0;
      for (const size_t i : members[k]) sum += dot(x[i], centre[k]) / double(members[k].size());
      of_members += (members[k].empty() ? 1.0 : sum) / double(K), of_centres += dot(centre[k], centre[k]) / double(K);
    }
    EXPECT_NEAR(of_members, of_centres, 1e-12);
    if (c.I > 100) { EXPECT_GT(rounds, 2) << "the test would not see a second round"; }
    for (const Device& dev : c.I > 1000 ? one_of_each_family() : fast_devices()) {
      EXPECT_NEAR(cohesion_of(dev, h, c.I, c.d, c.clusters, s), of_centres, 2e-6) << dev.name;
      EXPECT_NEAR(cohesion_of(dev, h, c.I, c.d, c.clusters, s, 0.25f), of_centres / 4, 1e-6) << dev.name;
    }
  }
}

TEST(Cohesion, OfItemsInOneDirectionIsOneAndOfNoneNought) {
  const std::vector<float> same = {1, 2, 2, 0.5f, 1, 1, 4, 8, 8}, zero(9);
  for (const Device& dev : one_of_each_family()) {
    EXPECT_NEAR(cohesion_of(dev, same, 3, 3, 2, Stream{1, Use::centres}), 1, 1e-6) << dev.name;
    EXPECT_EQ(cohesion_of(dev, zero, 3, 3, 2, Stream{1, Use::centres}), 0) << dev.name;
    EXPECT_EQ(cohesion_of(dev, {}, 0, 3, 2, Stream{1, Use::centres}), 0) << dev.name;
    EXPECT_THROW(cohesion_of(dev, same, 3, 3, 0, Stream{1, Use::centres}), std::logic_error);
  }
}

// --- filtered_negative -----------------------------------------------------------------------------------------------

struct Problem {
  int64_t U = 7, I, d, N;
  std::vector<float> h_u, h_i;
  std::vector<int32_t> table;
  Problem(Draw& g, int64_t I_, int64_t d_, int64_t N_, bool quarters) : I(I_), d(d_), N(N_) {
    const auto floats = [&](int64_t rows) {
      auto x = g.floats(rows * d);
      if (quarters)
        for (float& f : x) f = std::round(2 * f) / 2;
      return x;
    };
    h_u = floats(U), h_i = floats(I);
    for (int64_t e = 0; e < U * N; ++e) table.push_back(g.below(5) == 0 ? -1 : g.below(int32_t(I)));
    std::fill_n(table.begin() + 4 * N, N, -1);  // a user without any
  }

  struct Result {
    std::vector<int32_t> out;
    std::array<int64_t, 2> counts;
    bool operator==(const Result&) const = default;
  };
  struct Ask {
    int64_t B, first_row = 0, top = 5;
    float theta = 0.2f, q = 1;
    uint32_t step = 7;
    bool counted = true;
  };
  std::vector<int32_t> users(int64_t B) const {
    std::vector<int32_t> u;
    for (int64_t b = 0; b < B; ++b) u.push_back(int32_t(b * 5 % 11 % U));
    return u;
  }
  std::vector<int32_t> positives(int64_t B) const {
    std::vector<int32_t> p;
    for (int64_t b = 0; b < B; ++b) p.push_back(int32_t(b * 3 % 13 % I));
    return p;
  }
  // dev null: the definition.
  Result run(const Device* dev, const Ask& a, const Late* late = nullptr) const {
    const auto u = users(a.B), p = positives(a.B);
    std::vector<int32_t> out(size_t(a.B) + 1, -5);
    std::vector<int64_t> counts = {100, 200};
    std::vector<float> limits = {a.theta, a.q};
    const auto stream = [&](Use use) { return Stream{5, use, late ? kLateEpoch : 3u, late ? kLateStep : a.step}; };
    FilterProblem z;
    z.h_u = cmat(h_u, U, d), z.h_i = cmat(h_i, I, d), z.users = u.data(), z.positives = p.data();
    z.batch = a.B, z.first_row = late ? kLateFirst + (a.first_row - late->first) : a.first_row;
    z.table = table.data(), z.n_candidates = N, z.top = a.top;
    z.theta = &limits[0], z.q = &limits[1];
    z.active = stream(Use::filter_active), z.rank = stream(Use::filter_rank);
    int64_t* const to = a.counted ? counts.data() : nullptr;
    if (dev) {
      DeviceCtx ctx(*dev);
      if (late) dev->ops->set_late(ctx, *late);
      dev->ops->filtered_negative(ctx, out.data(), to, z);
    } else {
      cpu::plain::filtered_negative(out.data(), to, z);
    }
    EXPECT_EQ(out.back(), -5);
    out.pop_back();
    return {out, {counts[0] - 100, counts[1] - 200}};
  }
};

std::vector<Problem::Ask> asks(int64_t B) {
  using Ask = Problem::Ask;
  return {Ask{B},
          Ask{B, kLate.first, 1},
          Ask{B, (int64_t(1) << 31) - 3, 1000, 0.1f, 0.5f},
          Ask{B, 9, 3, kInfinity},
          Ask{B, 9, 3, -0.3f, 0.8f},
          Ask{B, 9, 3, 0},
          Ask{B, 9, 3, NAN},
          Ask{B, 9, 3, kInfinity, 0},
          Ask{B, 9, 3, kInfinity, NAN},
          Ask{B, 9, 4, 0.2f, 1, 7, false}};
}

// Broken eights of candidates and columns, ties (quarters), zero rows, NaN, rows that are passed over, late values.
TEST(FilteredNegative, IsThatOfTheDefinitionOnEveryDevice) {
  struct Case {
    int64_t B, I, d, N;
    bool quarters;
  };
  for (const Case& c : std::vector<Case>{{0, 20, 8, 10, false},
                                         {1, 1, 1, 1, true},
                                         {12, 20, 64, 0, false},
                                         {40, 50, 64, 33, false},
                                         {37, 30, 13, 16, true},
                                         {70, 60, 3, 41, true},
                                         {9, 12, 130, 7, false},
                                         {21, 400, 20, 129, false}}) {
    Draw g;
    Problem p(g, c.I, c.d, c.N, c.quarters);
    if (c.I > 10) std::fill_n(p.h_i.begin() + 3 * c.d, c.d, 0.0f), p.h_i[size_t(6 * c.d)] = NAN;
    for (const Problem::Ask& a : asks(c.B)) {
      const auto want = p.run(nullptr, a);
      for (const Device& dev : c.N* c.d* c.B > 50000 ? fast_devices() : devices()) {
        SCOPED_TRACE(std::to_string(c.B) + " rows of " + std::to_string(c.N) + " candidates, theta " +
                     std::to_string(a.theta) + ", q " + std::to_string(a.q) + " on " + dev.name);
        EXPECT_EQ(p.run(&dev, a), want);
        if (dev.family == "cpu" || std::isnan(a.q)) continue;
        EXPECT_EQ(p.run(&dev, a, &kLate), want) << "late";
      }
    }
  }
}

// The choice itself, in double: where no candidate is as near to theta as rounding, and no two to each other.
TEST(FilteredNegative, IsTheDrawnOneOfTheBestThatAreNotTooCloseToThePositive) {
  Draw g;
  const Problem p(g, 80, 24, 30, false);
  for (const Problem::Ask& a : {Problem::Ask{600, 11, 4, 0.15f, 0.7f}, Problem::Ask{600, 0, 100, -0.1f}}) {
    const auto users = p.users(a.B), positives = p.positives(a.B);
    const auto got = p.run(&cpu_devices()[1], a);
    const auto dot = [&](const float* x, const float* y) {
      double sum = 0;
      for (int64_t j = 0; j < p.d; ++j) sum += double(x[j]) * double(y[j]);
      return sum;
    };
    int64_t active = 0, stayed = 0, compared = 0;
    for (int64_t b = 0; b < a.B; ++b) {
      const uint32_t row = uint32_t(a.first_row + b);
      const int32_t u = users[size_t(b)];
      const float *const h_u = &p.h_u[size_t(u * p.d)], *const h_p = &p.h_i[size_t(positives[size_t(b)] * p.d)];
      if (uniform01(draw(Stream{5, Use::filter_active, 3, 7}, row).v[0]) >= a.q) {
        EXPECT_EQ(got.out[size_t(b)], -5);
        continue;
      }
      ++active;
      std::vector<std::pair<double, int32_t>> ok;
      std::set<double> scores;
      bool clear = true;
      for (int64_t m = 0; m < p.N; ++m) {
        const int32_t item = p.table[size_t(u * p.N + m)];
        if (item < 0) continue;
        const float* const h_m = &p.h_i[size_t(item * p.d)];
        const double cosine = dot(h_m, h_p) / std::sqrt(dot(h_m, h_m) * dot(h_p, h_p));
        clear &= std::fabs(cosine - double(a.theta)) > 1e-5;
        if (cosine <= double(a.theta)) ok.emplace_back(-dot(h_u, h_m), item);
      }
      stayed += ok.empty();
      if (ok.empty() || !clear) continue;
      std::sort(ok.begin(), ok.end());
      const auto rank = below(draw(Stream{5, Use::filter_rank, 3, 7}, row).v[0],
                              uint32_t(std::min<int64_t>(a.top, int64_t(ok.size()))));
      EXPECT_EQ(got.out[size_t(b)], ok[rank].second) << "row " << b;
      ++compared;
    }
    EXPECT_GT(compared, 200);
    EXPECT_EQ(got.counts, (std::array<int64_t, 2>{active, stayed}));
    EXPECT_GT(stayed, 0) << "of the user without candidates";
  }
}

// Spec 11.6: a theta that nothing reaches, and one that nothing stays below.
TEST(FilteredNegative, ThetaBeyondEveryCosineFiltersNothingOrEverything) {
  Draw g;
  Problem p(g, 40, 16, 25, false);
  for (auto& item : p.table) item = item < 0 ? g.below(40) : item;
  const int64_t B = 300;
  const auto users = p.users(B);
  for (const Device& dev : fast_devices()) {
    const auto all = p.run(&dev, {B, 2, 1, kInfinity}), none = p.run(&dev, {B, 2, 1, -1.01f});
    EXPECT_EQ(none.out, std::vector<int32_t>(size_t(B), -5)) << dev.name;
    EXPECT_EQ(none.counts, (std::array<int64_t, 2>{B, B})) << dev.name;
    EXPECT_EQ(all.counts, (std::array<int64_t, 2>{B, 0})) << dev.name;
    for (int64_t b = 0; b < B; ++b) {
      const int32_t u = users[size_t(b)];
      std::pair<double, int32_t> best(-1e30, -1);
      for (int64_t m = 0; m < p.N; ++m) {
        const int32_t item = p.table[size_t(u * p.N + m)];
        double score = 0;
        for (int64_t j = 0; j < p.d; ++j)
          score += double(p.h_u[size_t(u * p.d + j)]) * double(p.h_i[size_t(item * p.d + j)]);
        if (score > best.first) best = {score, item};
      }
      EXPECT_EQ(all.out[size_t(b)], best.second) << "row " << b << " on " << dev.name;
    }
  }
}

// Of one user's rows: each of the `top` best as often, and q of the rows.
TEST(FilteredNegative, TheBestAreEquallyLikelyAndQOfTheRowsAreActive) {
  Draw g;
  Problem p(g, 200, 8, 60, false);
  p.U = 1;
  std::iota(p.table.begin(), p.table.begin() + 60, 40);
  const int64_t B = 20000;
  for (const float q : {0.125f, 1.0f}) {
    const auto got = p.run(&cpu_devices()[1], {B, 0, 6, kInfinity, q});
    const double want = double(q) * double(B), deviation = std::sqrt(want * (1 - double(q)));
    EXPECT_NEAR(double(got.counts[0]), want, 5 * deviation);
    std::vector<std::pair<double, int32_t>> order;
    for (int32_t i = 40; i < 100; ++i) {
      double score = 0;
      for (size_t j = 0; j < 8; ++j) score += double(p.h_u[j]) * double(p.h_i[size_t(i) * 8 + j]);
      order.emplace_back(-score, i);
    }
    std::sort(order.begin(), order.end());
    std::vector<int64_t> seen(6);
    for (const int32_t i : got.out) {
      if (i == -5) continue;
      const auto at = std::find_if(order.begin(), order.end(), [&](const auto& o) { return o.second == i; });
      ASSERT_LT(at - order.begin(), 6);
      ++seen[size_t(at - order.begin())];
    }
    EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), int64_t(0)), got.counts[0]);
    EXPECT_TRUE(uniform_counts(seen));
  }
}

// Products that underflow to 0 and to -0: all scores are equal, and the table's order decides.
TEST(FilteredNegative, AZeroHasNoSign) {
  Draw g;
  Problem p(g, 40, 8, 20, false);
  std::fill(p.h_u.begin(), p.h_u.end(), 1e-30f);
  for (size_t e = 0; e < p.h_i.size(); ++e) p.h_i[e] = e / 8 % 2 ? 1e-30f : -1e-30f;
  for (auto& item : p.table) item = item < 0 ? 7 : item;
  const auto users = p.users(100);
  for (const Device& dev : fast_devices()) {
    const auto got = p.run(&dev, {100, 3, 20, kInfinity});
    for (size_t b = 0; b < 100; ++b) {
      const auto rank = below(draw(Stream{5, Use::filter_rank, 3, 7}, uint32_t(b + 3)).v[0], 20);
      ASSERT_EQ(got.out[b], p.table[size_t(users[b]) * 20 + rank]) << "row " << b << " on " << dev.name;
    }
  }
}

// More candidates than a GPU keeps in shared memory, and more rows than blocks that it then has.
TEST(FilteredNegative, OfManyCandidatesIsThatOfTheDefinition) {
  Draw g;
  const Problem p(g, 3000, 2, 10300, false);
  for (const Problem::Ask& a : {Problem::Ask{3, 5, 1030}, Problem::Ask{520, 5, 7, 0.5f, 0.01f}}) {
    const auto want = p.run(nullptr, a);
    EXPECT_GT(want.counts[0], 2);
    EXPECT_LT(want.counts[0], 12);
    for (const Device& dev : fast_devices()) EXPECT_EQ(p.run(&dev, a), want) << dev.name;
  }
}

TEST(FilteredNegative, WhatItRefuses) {
  Draw g;
  const Problem p(g, 20, 4, 6, false);
  for (const Device& dev : one_of_each_family()) {
    EXPECT_THROW(p.run(&dev, {4, 0, 0}), std::logic_error);
    Problem many(g, 20, 4, 1, false);
    many.N = kMostFiltered + 1;
    EXPECT_THROW(many.run(&dev, {0}), std::logic_error);
  }
}

// score_topk and pick_columns: a table against rankings by a plain sort. Users: nothing seen, a third, all but one,
// all.
TEST(FilteredNegative, ATableOfABandIsThatOfAPlainSort) {
  const int64_t U = 4, I = 30, d = 6, k = 12;
  Draw g;
  const auto h_u = g.floats(U * d), h_i = g.floats(I * d);
  std::vector<std::vector<int32_t>> has(4);
  TestCsr train;
  train.rows = U, train.cols = I;
  for (int32_t i = 0; i < I; ++i) {
    if (i % 3 == 0) has[1].push_back(i);
    if (i != 17) has[2].push_back(i);
    has[3].push_back(i);
  }
  for (const auto& row : has) {
    std::vector<std::pair<int32_t, float>> entries;
    for (int32_t i : row) entries.emplace_back(i, 1.0f);
    train.push(entries);
  }
  const std::vector<int32_t> columns = {7, 3, 11, 0, 9}, users = {0, 1, 2, 3};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<int32_t> lists(size_t(U * k)), table(size_t(U) * columns.size(), -9);
    std::vector<float> scores(lists.size());
    const Csr mask = train.view();
    dev.ops->score_topk(ctx, lists.data(), scores.data(), cmat(h_u, U, d), users.data(), U, cmat(h_i, I, d), &mask, k);
    dev.ops->pick_columns(ctx, table.data(), lists.data(), U, k, columns.data(), int64_t(columns.size()), nullptr);
    for (size_t u = 0; u < 4; ++u) {
      std::vector<std::pair<double, int32_t>> order;
      for (int32_t i = 0; i < I; ++i) {
        double score = 0;
        for (size_t j = 0; j < size_t(d); ++j)
          score += double(h_u[u * size_t(d) + j]) * double(h_i[size_t(i) * size_t(d) + j]);
        if (!std::binary_search(has[u].begin(), has[u].end(), i)) order.emplace_back(-score, i);
      }
      std::sort(order.begin(), order.end());
      for (size_t c = 0; c < columns.size(); ++c) {
        const auto at = size_t(columns[c]);
        EXPECT_EQ(table[u * columns.size() + c], at < order.size() ? order[at].second : -1)
            << "user " << u << ", rank " << at << " on " << dev.name;
      }
    }
  }
}

}  // namespace
}  // namespace ccdrec::test::filtered_test
