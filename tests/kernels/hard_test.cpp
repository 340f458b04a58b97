// Hard negatives: the choice of DNS and MixGCF, MixGCF's loss, popularity, and how hard a negative was (spec
// negative_sampling 11).
#include "kernels/hard.h"

#include <array>
#include <numeric>
#include <set>

#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::hard_test {
namespace {

constexpr Late kLate{3, 7, 4100, 0};  // what a recorded step reads in place of the stand-ins of late.h
Stream late(Stream s) { return {s.seed, s.use, kLateEpoch, kLateStep}; }

// Users: nothing seen, a third, all but one, everything, a few. The last items occur in nobody's training: `items` are
// the others.
struct Problem {
  int64_t I, d;
  LayerTables v;
  std::vector<std::vector<int32_t>> has;
  TestCsr train;
  std::vector<int32_t> items;
  std::vector<float> h_u, part;
  std::vector<std::vector<float>> layer;
  static constexpr int32_t kLacked = 5;  // by user 2 alone

  Problem(Draw& g, int64_t I_, int64_t d_, int n, bool with_part, bool quarters = false) : I(I_), d(d_), has(5) {
    for (int32_t i = 0; i < I - 2; ++i) {
      items.push_back(i);
      if (i % 3 == 0) has[1].push_back(i);
      if (i != kLacked) has[2].push_back(i);
      has[3].push_back(i);
      if (i % 11 == 4) has[4].push_back(i);
    }
    train.rows = int64_t(has.size()), train.cols = I;
    for (const auto& row : has) {
      std::vector<std::pair<int32_t, float>> entries;
      for (int32_t i : row) entries.emplace_back(i, 1.0f);
      train.push(entries);
    }
    const auto floats = [&](int64_t rows) {
      auto x = g.floats(rows * d);
      if (quarters)
        for (float& f : x) f = std::round(2 * f) / 2;
      return x;
    };
    h_u = floats(train.rows);
    for (int l = 0; l < n; ++l) layer.push_back(floats(I));
    if (with_part) part = floats(I);
    v.n = n;
    for (int l = 0; l < n; ++l) v.layer[l] = cmat(layer[size_t(l)], I, d);
    if (with_part) v.item_part = cmat(part, I, d);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  bool owns(int32_t u, int32_t i) const { return std::binary_search(has[size_t(u)].begin(), has[size_t(u)].end(), i); }
  std::vector<int32_t> users(int64_t B) const {
    std::vector<int32_t> u;
    for (int64_t b = 0; b < B; ++b) u.push_back(int32_t(b * 7 % 11 % train.rows));
    return u;
  }
  // The order of hard.h, literally.
  double score(int32_t u, int l, int32_t i) const {
    const auto dot = [&](const std::vector<float>& table) {
      std::array<double, 8> lane{};
      for (int64_t j = 0; j < d; ++j)
        lane[size_t(j % 8)] += double(h_u[size_t(u * d + j)]) * double(table[size_t(i * d + j)]);
      return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    };
    const double s = dot(layer[size_t(l)]) + (part.empty() ? 0.0 : dot(part));
    return std::isnan(s) ? -INFINITY : s;
  }
  std::vector<int32_t> ranked(int32_t u, int l, const std::vector<int32_t>& drawn) const {
    std::vector<std::pair<double, int32_t>> order;
    for (int32_t i : drawn) order.emplace_back(-score(u, l, i), i);
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<int32_t> best;
    for (const auto& o : order) best.push_back(o.second);
    return best;
  }
  // What `negatives` draws at the rows of the candidates: [b][m].
  std::vector<std::vector<int32_t>> candidates(const std::vector<int32_t>& u, int64_t first_row, int N,
                                               Stream s) const {
    const int64_t B = int64_t(u.size());
    Ctx ctx(1);
    std::vector<int32_t> out(size_t(B * N));
    cpu::negatives(ctx, out.data(), u.data(), B, N, first_row, train.view(), items.data(), int64_t(items.size()), s);
    std::vector<std::vector<int32_t>> rows(static_cast<size_t>(B));
    for (int64_t b = 0; b < B; ++b)
      for (int64_t m = 0; m < N; ++m) rows[size_t(b)].push_back(out[size_t(m * B + b)]);
    return rows;
  }
  std::vector<int32_t> chosen(const Device& dev, const std::vector<int32_t>& u, int64_t first_row, int N, int top_m,
                              Stream s, Stream rank, const Late* with = nullptr) const {
    DeviceCtx ctx(dev);
    if (with) dev.ops->set_late(ctx, *with);
    const int64_t B = int64_t(u.size());
    std::vector<int32_t> out(size_t(B * v.n) + 1, -1);
    dev.ops->hardest_negative(ctx, out.data(), cmat(h_u, train.rows, d), u.data(), B, first_row, v, train.view(),
                              items.data(), int64_t(items.size()), N, top_m, s, rank);
    EXPECT_EQ(out.back(), -1);
    out.pop_back();
    return out;
  }
};

// Whole and broken warps of candidates and of rows, several tables, ties (quarters), NaN, rows of no full eight
// columns, late values.
TEST(HardestNegative, IsTheOneOfItsRankAmongTheDrawn) {
  struct Case {
    int64_t B, d;
    int n;
    bool part, quarters;
    int N, top_m;
  };
  for (const Case& c : std::vector<Case>{{0, 8, 1, false, false, 4, 1},
                                         {1, 1, 1, false, true, 1, 1},
                                         {5, 64, 1, false, false, 32, 1},
                                         {37, 13, 3, true, true, 33, 1},
                                         {9, 7, 2, true, false, 31, 3},
                                         {11, 3, 1, false, true, 40, 5},
                                         {6, 20, 9, true, true, 6, 100},
                                         {3, 4, 1, true, true, 1000, 7},
                                         {3, 4, 1, true, true, 1024, 1024},
                                         {3, 4, 2, false, false, 1024, 1}}) {
    Draw g;
    Problem p(g, 60, c.d, c.n, c.part, c.quarters);
    p.layer[0][size_t(7 * c.d)] = p.layer[0][size_t(31 * c.d)] = NAN;
    for (int64_t first_row : {kLate.first, (int64_t(1) << 31) - 3}) {
      const Stream s{5, Use::hard, kLate.epoch, kLate.step}, rank{5, Use::hard_rank, kLate.epoch, kLate.step};
      const auto users = p.users(c.B);
      const auto drawn = p.candidates(users, first_row, c.N, s);
      std::vector<int32_t> want;
      for (int l = 0; l < c.n; ++l)
        for (int64_t b = 0; b < c.B; ++b) {
          const uint32_t x = draw(rank, uint32_t(first_row + b), uint32_t(l)).v[0];
          const uint32_t r = c.top_m == 1 ? 0 : below(x, uint32_t(std::min(c.top_m, c.N)));
          want.push_back(p.ranked(users[size_t(b)], l, drawn[size_t(b)])[r]);
        }
      for (const Device& dev : c.N > 500 ? fast_devices() : devices()) {
        SCOPED_TRACE(std::to_string(c.B) + " rows, " + std::to_string(c.n) + " tables, N " + std::to_string(c.N) +
                     " on " + dev.name);
        EXPECT_EQ(p.chosen(dev, users, first_row, c.N, c.top_m, s, rank), want);
        if (dev.family == "cpu") continue;
        EXPECT_EQ(
            p.chosen(dev, users, kLateFirst + (first_row - kLate.first), c.N, c.top_m, late(s), late(rank), &kLate),
            want);
      }
    }
  }
}

TEST(HardestNegative, OfOneCandidateIsTheUniformNegative) {
  Draw g;
  const Problem p(g, 60, 8, 2, true);
  const auto users = p.users(50);
  const Stream s{6, Use::hard, 1, 2};
  const auto drawn = p.candidates(users, 100, 1, s);
  for (const Device& dev : devices())
    for (int top_m : {1, 4}) {
      const auto got = p.chosen(dev, users, 100, 1, top_m, s, Stream{6, Use::hard_rank});
      for (size_t b = 0; b < 50; ++b)
        EXPECT_TRUE(got[b] == drawn[b][0] && got[50 + b] == drawn[b][0]) << b << " on " << dev.name;
    }
}

// So many draws of so few items that each is among them: the exact arg-max of what the user lacks.
TEST(HardestNegative, OfAllItemsIsTheArgMax) {
  Draw g;
  const Problem p(g, 22, 5, 3, true);
  const std::vector<int32_t> users = {0, 1, 2, 4};
  for (const Device& dev : fast_devices()) {
    const auto got = p.chosen(dev, users, 0, 1024, 1, Stream{6, Use::hard}, Stream{6, Use::hard_rank});
    for (int l = 0; l < 3; ++l)
      for (size_t b = 0; b < users.size(); ++b) {
        std::vector<int32_t> lacked;
        for (int32_t i : p.items)
          if (!p.owns(users[b], i)) lacked.push_back(i);
        EXPECT_EQ(got[size_t(l) * users.size() + b], p.ranked(users[b], l, lacked)[0])
            << "user " << users[b] << ", table " << l << " on " << dev.name;
      }
  }
}

TEST(HardestNegative, IsNeverATrainingPositive) {
  Draw g;
  const Problem p(g, 60, 8, 2, false);
  const auto users = p.users(600);
  for (const Device& dev : fast_devices()) {
    const auto got = p.chosen(dev, users, 0, 16, 1, Stream{7, Use::hard}, Stream{7, Use::hard_rank});
    for (size_t e = 0; e < got.size(); ++e) {
      const int32_t u = users[e % users.size()];
      ASSERT_LT(got[e], p.I - 2) << "an item that occurs in nobody's training";
      if (u == 2) { ASSERT_EQ(got[e], Problem::kLacked); }
      if (u != 3) { ASSERT_FALSE(p.owns(u, got[e])) << "user " << u << " on " << dev.name; }
    }
  }
}

TEST(HardestNegative, TheBestAreEquallyLikely) {
  Draw g;
  const Problem p(g, 300, 8, 2, false);
  const std::vector<int32_t> users(8000, 4);
  const Stream s{8, Use::hard};
  const auto drawn = p.candidates(users, 0, 8, s);
  const auto got = p.chosen(cpu_devices()[1], users, 0, 8, 3, s, Stream{8, Use::hard_rank});
  std::vector<int64_t> pairs(9);  // of the ranks in the two tables: each table has a draw of its own
  for (size_t b = 0; b < users.size(); ++b) {
    // which of two draws it was nobody can say
    if (std::set<int32_t>(drawn[b].begin(), drawn[b].end()).size() < 8) continue;
    std::array<int64_t, 2> rank{};
    for (int l = 0; l < 2; ++l) {
      const auto best = p.ranked(4, l, drawn[b]);
      rank[size_t(l)] = std::find(best.begin(), best.end(), got[size_t(l) * users.size() + b]) - best.begin();
      ASSERT_LT(rank[size_t(l)], 3);
    }
    ++pairs[size_t(3 * rank[0] + rank[1])];
  }
  EXPECT_TRUE(uniform_counts(pairs));
}

// Section 6.1 mixes every candidate with the positive before it chooses: the coefficient changes nothing.
TEST(HardestNegative, MixingWithThePositiveChoosesTheSame) {
  Draw g;
  const Problem p(g, 60, 16, 3, true);
  const auto users = p.users(40);
  const Stream s{9, Use::hard};
  const auto drawn = p.candidates(users, 0, 12, s);
  const auto got = p.chosen(cpu_devices()[0], users, 0, 12, 1, s, Stream{9, Use::hard_rank});
  for (int k = 0; k < 2; ++k)
    for (int l = 0; l < 3; ++l)
      for (size_t b = 0; b < users.size(); ++b) {
        const double alpha = double(g.uniform(0, 0.999f));
        const double positive = p.score(users[b], l, 3 * int32_t(b % 15));
        std::pair<double, int32_t> best(-INFINITY, -1);
        for (int32_t i : drawn[b]) {
          const double mixed = alpha * positive + (1 - alpha) * p.score(users[b], l, i);
          if (mixed > best.first) best = {mixed, i};
        }
        EXPECT_EQ(got[size_t(l) * users.size() + b], best.second);
      }
}

TEST(HardestNegative, WhatItRefuses) {
  Draw g;
  const Problem p(g, 20, 4, 1, false);
  for (const Device& dev : one_of_each_family()) {
    const auto run = [&](int N, int top_m) {
      return p.chosen(dev, {0}, 0, N, top_m, Stream{1, Use::hard}, Stream{1, Use::hard_rank});
    };
    EXPECT_THROW(run(0, 1), std::logic_error);
    EXPECT_THROW(run(1025, 1), std::logic_error);
    EXPECT_THROW(run(4, 0), std::logic_error);
  }
}

TEST(DrawMixing, IsTheDrawOfRowAndLayer) {
  for (const auto& [B, n] : std::vector<std::pair<int64_t, int>>{{0, 3}, {1, 1}, {65, 3}, {300, 9}}) {
    const Stream s{4, Use::mix, kLate.epoch, kLate.step};
    std::vector<float> want;
    for (int l = 0; l < n; ++l)
      for (int64_t b = 0; b < B; ++b) want.push_back(uniform01(draw(s, uint32_t(kLate.first + b), uint32_t(l)).v[0]));
    want.push_back(7);
    for (const Device& dev : devices()) {
      DeviceCtx ctx(dev);
      std::vector<float> alpha(want.size(), 7.0f);
      dev.ops->draw_mixing(ctx, mat(alpha, n, B), kLate.first, s);
      EXPECT_EQ(alpha, want) << dev.name;
      if (dev.family == "cpu") continue;
      std::vector<float> again(want.size(), 7.0f);
      dev.ops->set_late(ctx, kLate);
      dev.ops->draw_mixing(ctx, mat(again, n, B), kLateFirst, late(s));
      EXPECT_EQ(again, want) << "late, on " << dev.name;
    }
  }
}

double loss_of(double m, bool with_eps) {
  if (with_eps) return -std::log(1e-10 + 1 / (1 + std::exp(-m)));
  return std::max(-m, 0.0) + std::log1p(std::exp(-std::fabs(m)));
}

// One row of section 6.1 as published, in double: the mixed vectors are made. x[0] = u, x[1+2l] = v_p^(l), x[2+2l] =
// v_hard^(l).
using Row = std::vector<std::vector<double>>;
std::vector<double> mixed(const Row& x, const std::vector<double>& alpha) {
  std::vector<double> h(x[0].size());
  for (size_t l = 0; l < alpha.size(); ++l)
    for (size_t j = 0; j < h.size(); ++j)
      h[j] += (alpha[l] * x[1 + 2 * l][j] + (1 - alpha[l]) * x[2 + 2 * l][j]) / double(alpha.size());
  return h;
}
double published_margin(const Row& x, const std::vector<double>& alpha) {
  const std::vector<double> h_n = mixed(x, alpha);
  double h_p = 0, score = 0;
  for (size_t j = 0; j < h_n.size(); ++j) {
    for (size_t l = 0; l < alpha.size(); ++l) h_p += x[0][j] * x[1 + 2 * l][j] / double(alpha.size());
    score += x[0][j] * h_n[j];
  }
  return h_p - score;
}

struct MixedCase {
  const char* name;
  int64_t B, d;
  int n;
  bool part;
  double scale;
};
struct MixedProblem {
  int64_t B, d, I = 11;
  int n;
  std::vector<float> u, alpha, part;
  std::vector<std::vector<float>> layer;
  std::vector<int32_t> positives, hard;
  LayerTables v;
  MixedProblem(Draw& g, const MixedCase& c) : B(c.B), d(c.d), n(c.n) {
    const float s = float(c.scale);
    u = g.floats(B * d, -s, s), alpha = g.floats(n * B, 0, 1);
    v.n = n;
    for (int l = 0; l < n; ++l) layer.push_back(g.floats(I * d, -s, s));
    for (int l = 0; l < n; ++l) v.layer[l] = cmat(layer[size_t(l)], I, d);
    if (c.part) part = g.floats(I * d, -s, s), v.item_part = cmat(part, I, d);
    for (int64_t b = 0; b < B; ++b) positives.push_back(g.below(int32_t(I)));
    for (int64_t b = 0; b < n * B; ++b) hard.push_back(g.below(int32_t(I)));
  }
  MixedProblem(const MixedProblem&) = delete;
  MixedProblem& operator=(const MixedProblem&) = delete;
  std::vector<double> vec(int l, int32_t i) const {
    std::vector<double> x;
    for (int64_t j = 0; j < d; ++j)
      x.push_back(double(layer[size_t(l)][size_t(i * d + j)]) + (part.empty() ? 0.0 : double(part[size_t(i * d + j)])));
    return x;
  }
  Row row(int64_t b) const {
    Row x{{u.begin() + b * d, u.begin() + (b + 1) * d}};
    for (int l = 0; l < n; ++l) x.push_back(vec(l, positives[size_t(b)])), x.push_back(vec(l, hard[size_t(l * B + b)]));
    return x;
  }
  std::vector<double> mixing(int64_t b) const {
    std::vector<double> a;
    for (int l = 0; l < n; ++l) a.push_back(double(alpha[size_t(l * B + b)]));
    return a;
  }
  struct Result {
    double loss;
    std::vector<float> d_u, h_n;
    std::vector<std::vector<float>> d_layer;
  };
  Result run(const Device& dev, double loss0, const std::vector<float>& du0, float weight, bool with_eps,
             bool with_h_n = true) const {
    DeviceCtx ctx(dev);
    Result r{0, du0, std::vector<float>(with_h_n ? u.size() : 0, NAN), {}};
    std::vector<Mat> to;
    r.d_layer.assign(size_t(n), std::vector<float>(2 * u.size(), NAN));
    for (auto& x : r.d_layer) to.push_back(mat(x, 2 * B, d));
    Cell<double> loss = loss0;
    dev.ops->mixed_bpr(ctx, &loss, mat(r.d_u, B, d), to.data(), with_h_n ? mat(r.h_n, B, d) : Mat{}, cmat(u, B, d), v,
                       positives.data(), hard.data(), cmat(alpha, n, B), weight, with_eps);
    r.loss = loss;
    return r;
  }
};

// The short form of 6.3 against the published one: loss, h_n, and every gradient by central differences of the
// published loss.
TEST(MixedBpr, IsThePublishedLossAndItsGradient) {
  for (const MixedCase& c : std::vector<MixedCase>{{"no rows", 0, 8, 2, true, 1},
                                                   {"one element", 1, 1, 1, false, 1},
                                                   {"three tables and a part", 70, 64, 3, true, 0.5},
                                                   {"odd width", 33, 37, 3, true, 0.7},
                                                   {"nine tables", 17, 8, 9, false, 1},
                                                   {"many rows", 600, 4, 2, false, 1},
                                                   {"large margins", 40, 24, 2, true, 3},
                                                   {"more than a warp of fours", 9, 300, 2, true, 0.2},
                                                   {"more than a warp of ones", 9, 131, 2, true, 0.3}})
    for (bool with_eps : {false, true}) {
      Draw g;
      const MixedProblem p(g, c);
      const auto du0 = g.floats(c.B * c.d);
      const float weight = 0.6f;
      double want = 0;
      std::vector<Ref> want_du(p.u.size()), want_hn(p.u.size());
      std::vector<std::vector<Ref>> want_layer(size_t(c.n), std::vector<Ref>(2 * p.u.size()));
      for (int64_t b = 0; b < c.B; ++b) {
        Row x = p.row(b);
        const auto alpha = p.mixing(b);
        const double m = published_margin(x, alpha), share = double(weight) / double(c.B), h = 1e-4;
        want += share * loss_of(m, with_eps);
        const double slope = share * (loss_of(m + h, with_eps) - loss_of(m - h, with_eps)) / (2 * h);
        // The margin is linear in each vector: its difference is exact.
        const auto derivative = [&](size_t k, size_t j) {
          const double at = x[k][j];
          x[k][j] = at + 1;
          const double up = published_margin(x, alpha);
          x[k][j] = at - 1;
          const double down = published_margin(x, alpha);
          x[k][j] = at;
          return slope * (up - down) / 2;
        };
        const auto h_n = mixed(x, alpha);
        for (size_t j = 0; j < size_t(c.d); ++j) {
          const size_t e = size_t(b * c.d) + j;
          // about what a column of a gradient is made of; the slope is a difference
          const double size = (std::fabs(slope) + 1e-4 * share) * c.scale;
          want_du[e].add(du0[e]), want_du[e].add(derivative(0, j)), want_du[e].mass += size;
          want_hn[e] = {h_n[j], 3 * c.scale};
          for (int l = 0; l < c.n; ++l) {
            want_layer[size_t(l)][e] = {derivative(1 + 2 * size_t(l), j), size};
            want_layer[size_t(l)][p.u.size() + e] = {derivative(2 + 2 * size_t(l), j), size};
          }
        }
      }
      SameBits same;
      for (const Device& dev : c.B* c.d* c.n > 4000 ? fast_devices() : devices()) {
        SCOPED_TRACE(std::string(c.name) + (with_eps ? ", eps" : ", stable") + " on " + dev.name);
        const auto got = p.run(dev, -1.5, du0, weight, with_eps), without = p.run(dev, 0, du0, weight, with_eps, false);
        EXPECT_NEAR(got.loss, -1.5 + want, 1e-12 * (1 + want));
        EXPECT_TRUE(close(got.d_u, want_du, 4e-7));
        EXPECT_TRUE(close(got.h_n, want_hn, 2e-7));
        for (size_t l = 0; l < size_t(c.n); ++l) {
          EXPECT_TRUE(close(got.d_layer[l], want_layer[l], 1e-6)) << "table " << l;
          EXPECT_EQ(got.d_layer[l], without.d_layer[l]);
          EXPECT_TRUE(same(dev, "d_layer " + std::to_string(l), got.d_layer[l]));
        }
        EXPECT_EQ(got.d_u, without.d_u);
        EXPECT_TRUE(same(dev, "loss", got.loss));
        EXPECT_TRUE(same(dev, "d_u", got.d_u));
        EXPECT_TRUE(same(dev, "h_n", got.h_n));
      }
    }
}

TEST(MixedBpr, OfOneUnmixedTableIsBpr) {
  Draw g;
  MixedProblem p(g, {"", 300, 20, 1, true, 0.8});
  std::fill(p.alpha.begin(), p.alpha.end(), 0.0f);
  std::vector<float> h_p, h_x;
  for (int64_t b = 0; b < p.B; ++b) {
    for (double x : p.vec(0, p.positives[size_t(b)])) h_p.push_back(float(x));
    for (double x : p.vec(0, p.hard[size_t(b)])) h_x.push_back(float(x));
  }
  const std::vector<float> zero(p.u.size());
  for (const Device& dev : devices())
    for (bool with_eps : {false, true}) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> du = zero, dp = zero, dx = zero;
      Cell<double> loss = 0;
      dev.ops->bpr(ctx, &loss, {mat(du, p.B, p.d), mat(dp, p.B, p.d), mat(dx, p.B, p.d)}, cmat(p.u, p.B, p.d),
                   cmat(h_p, p.B, p.d), cmat(h_x, p.B, p.d), 0.5f, with_eps);
      const auto got = p.run(dev, 0, zero, 0.5f, with_eps);
      EXPECT_NEAR(got.loss, loss, 1e-7 * loss);  // h_p and h_x were rounded to float
      for (size_t e = 0; e < zero.size(); ++e) {
        const float most = 0.5f / 300;
        ASSERT_NEAR(got.d_u[e], du[e], 1e-6f * most);
        ASSERT_NEAR(got.d_layer[0][e], dp[e], 1e-6f * most);
        ASSERT_NEAR(got.d_layer[0][zero.size() + e], dx[e], 1e-6f * most);
      }
    }
}

// Gradients of tables that a graph made: E^(1) = A E^(0), E^(2) = A E^(1), v^(l) = E_i^(l) + part, h_u = the mean of
// E_u^(l). The choice is frozen, every number of E^(0) is moved.
TEST(MixedBpr, FiniteDifferencesThroughATwoLayerGraph) {
  constexpr int64_t U = 3, I = 5, N = U + I, d = 4, B = 6;
  constexpr int L = 2;
  Draw g;
  std::vector<double> a(N * N), part(I * d);
  std::vector<std::vector<double>> e(L + 1, std::vector<double>(N * d));
  for (int64_t u = 0; u < U; ++u)
    for (int64_t i = U; i < N; ++i) a[size_t(u * N + i)] = a[size_t(i * N + u)] = double(g.uniform(0, 0.5f));
  for (double& x : part) x = double(g.uniform());
  for (double& x : e[0]) x = double(g.uniform());
  std::vector<int32_t> users, positives, hard;
  std::vector<float> alpha = g.floats((L + 1) * B, 0, 1);
  for (int64_t b = 0; b < B; ++b) users.push_back(g.below(U)), positives.push_back(g.below(I));
  for (int64_t b = 0; b < (L + 1) * B; ++b) hard.push_back(g.below(I));
  const auto propagate = [&] {
    for (size_t l = 0; l < L; ++l)
      for (int64_t r = 0; r < N; ++r)
        for (int64_t j = 0; j < d; ++j) {
          double sum = 0;
          for (int64_t k = 0; k < N; ++k) sum += a[size_t(r * N + k)] * e[l][size_t(k * d + j)];
          e[l + 1][size_t(r * d + j)] = sum;
        }
  };
  const auto row = [&](int64_t b) {
    Row x{std::vector<double>(d)};
    for (size_t l = 0; l <= L; ++l)
      for (int64_t j = 0; j < d; ++j) x[0][size_t(j)] += e[l][size_t(users[size_t(b)] * d + j)] / (L + 1);
    for (size_t l = 0; l <= L; ++l)
      for (int32_t i : {positives[size_t(b)], hard[l * B + size_t(b)]}) {
        x.emplace_back();
        for (int64_t j = 0; j < d; ++j) x.back().push_back(e[l][size_t((U + i) * d + j)] + part[size_t(i * d + j)]);
      }
    return x;
  };
  const auto mixing = [&](int64_t b) {
    std::vector<double> m;
    for (size_t l = 0; l <= L; ++l) m.push_back(double(alpha[l * B + size_t(b)]));
    return m;
  };
  const auto loss = [&] {
    propagate();
    double sum = 0;
    for (int64_t b = 0; b < B; ++b) sum += loss_of(published_margin(row(b), mixing(b)), false) / B;
    return sum;
  };
  loss();
  // The operation's tables are the float images of these.
  std::vector<float> u, part_f(part.begin(), part.end());
  std::vector<std::vector<float>> layer(L + 1);
  LayerTables v;
  v.n = L + 1, v.item_part = cmat(part_f, I, d);
  for (int64_t b = 0; b < B; ++b) {
    const Row x = row(b);
    u.insert(u.end(), x[0].begin(), x[0].end());
  }
  for (size_t l = 0; l <= L; ++l) layer[l].assign(e[l].begin() + U * d, e[l].end()), v.layer[l] = cmat(layer[l], I, d);
  const std::vector<double> start = e[0];
  std::vector<double> want;
  for (size_t k = 0; k < start.size(); ++k) {
    e[0] = start, e[0][k] += 1e-5;
    const double up = loss();
    e[0] = start, e[0][k] -= 1e-5;
    want.push_back((up - loss()) / 2e-5);
  }
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> du(u.size());
    std::vector<std::vector<float>> d_layer(L + 1, std::vector<float>(2 * u.size()));
    std::vector<Mat> to;
    for (auto& x : d_layer) to.push_back(mat(x, 2 * B, d));
    Cell<double> value = 0;
    dev.ops->mixed_bpr(ctx, &value, mat(du, B, d), to.data(), {}, cmat(u, B, d), v, positives.data(), hard.data(),
                       cmat(alpha, L + 1, B), 1, false);
    // Z^(l) = G^(l) + A^T Z^(l+1).
    std::vector<double> z(N * d);
    for (size_t l = L + 1; l-- > 0;) {
      std::vector<double> next(N * d);
      for (int64_t r = 0; r < N; ++r)
        for (int64_t k = 0; k < N; ++k)
          for (int64_t j = 0; j < d; ++j) next[size_t(r * d + j)] += a[size_t(k * N + r)] * z[size_t(k * d + j)];
      for (int64_t b = 0; b < B; ++b)
        for (int64_t j = 0; j < d; ++j) {
          next[size_t(users[size_t(b)] * d + j)] += double(du[size_t(b * d + j)]) / (L + 1);
          next[size_t((U + positives[size_t(b)]) * d + j)] += double(d_layer[l][size_t(b * d + j)]);
          next[size_t((U + hard[l * B + size_t(b)]) * d + j)] += double(d_layer[l][size_t((B + b) * d + j)]);
        }
      z = next;
    }
    for (size_t k = 0; k < z.size(); ++k) EXPECT_NEAR(z[k], want[k], 2e-7) << k << " on " << dev.name;
  }
}

// Power-law counts over 40 items; one item of count 0.
struct Popular : ::testing::Test {
  static constexpr int32_t kItems = 40, kNever = 17;
  std::vector<int32_t> items;
  std::vector<int64_t> counts;
  Popular() {
    for (int32_t i = 0; i < kItems; ++i)
      items.push_back(i), counts.push_back(i == kNever ? 0 : 1 + 1000 / ((i * 7) % kItems + 1));
  }
  std::vector<double> share(double power, const std::vector<int32_t>& without) const {
    std::vector<double> p(kItems);
    double sum = 0;
    for (int32_t i = 0; i < kItems; ++i)
      if (counts[size_t(i)] > 0 && !std::binary_search(without.begin(), without.end(), i))
        sum += p[size_t(i)] = std::pow(counts[size_t(i)], power);
    for (double& x : p) x /= sum;
    return p;
  }
};

TEST_F(Popular, ColumnsHoldTheShares) {
  for (double power : {0.0, 0.5, 0.75, 1.0, 2.0}) {
    const auto columns = popular_columns(items, counts, power);
    ASSERT_EQ(columns.size(), size_t(kItems - 1));  // an item of count 0 has none
    const auto want = share(power, {});
    std::vector<double> held(kItems);
    for (const PopularColumn& c : columns) {
      const double own = double(c.keep) * 0x1p-32;
      held[size_t(c.item)] += own / double(columns.size()), held[size_t(c.alias)] += (1 - own) / double(columns.size());
      EXPECT_NEAR(c.share, want[size_t(c.item)], 6e-8 * want[size_t(c.item)]);
    }
    for (int32_t i = 0; i < kItems; ++i)
      EXPECT_NEAR(held[size_t(i)], want[size_t(i)], 1e-9) << "item " << i << ", power " << power;
    const auto again = popular_columns(items, counts, power);
    for (size_t k = 0; k < columns.size(); ++k)
      EXPECT_TRUE(columns[k].item == again[k].item && columns[k].alias == again[k].alias &&
                  columns[k].keep == again[k].keep);
  }
  EXPECT_TRUE(popular_columns({}, {}, 1).empty());
  EXPECT_THROW(popular_columns(items, std::vector<int64_t>(3), 1), std::logic_error);
}

// Users: nothing, the most popular third, all but three (the exact choice decides), all but one, everything.
TEST_F(Popular, NegativesFollowTheSharesOfWhatTheUserLacks) {
  std::vector<std::vector<int32_t>> has(5);
  for (int32_t i = 0; i < kItems; ++i) {
    if ((i * 7) % kItems < 13) has[1].push_back(i);
    if (i != 2 && i != 9 && i != 30 && i != kNever) has[2].push_back(i);
    if (i != 9) has[3].push_back(i);
    has[4].push_back(i);
  }
  TestCsr train;
  train.rows = 5, train.cols = kItems;
  for (const auto& row : has) {
    std::vector<std::pair<int32_t, float>> entries;
    for (int32_t i : row) entries.emplace_back(i, 1.0f);
    train.push(entries);
  }
  const auto columns = popular_columns(items, counts, 0.75);
  const int64_t n = int64_t(columns.size());
  const auto run = [&](const Device& dev, int64_t B, int64_t first_row, Stream s, const Late* with = nullptr) {
    std::vector<int32_t> users, out(size_t(B) + 1, -1);
    for (int64_t b = 0; b < B; ++b) users.push_back(int32_t(b % 5));
    DeviceCtx ctx(dev);
    if (with) dev.ops->set_late(ctx, *with);
    dev.ops->popular_negatives(ctx, out.data(), users.data(), B, first_row, train.view(), columns.data(), n, s);
    EXPECT_EQ(out.back(), -1);
    out.pop_back();
    return out;
  };
  const Stream s{3, Use::popular, kLate.epoch, kLate.step};
  const auto many = run(cpu_devices()[1], 5 * 60000, kLate.first, s);
  for (const Device& dev : devices())
    for (int64_t B : {0, 1, 63, 64, 65, 300}) {
      const std::vector<int32_t> want(many.begin(), many.begin() + B);
      EXPECT_EQ(run(dev, B, kLate.first, s), want) << B << " on " << dev.name;
      if (dev.family != "cpu") {
        EXPECT_EQ(run(dev, B, kLateFirst, late(s), &kLate), want) << B << ", late, on " << dev.name;
      }
    }
  for (size_t u = 0; u < 5; ++u) {
    SCOPED_TRACE("user " + std::to_string(u));
    std::vector<int64_t> seen(kItems);
    for (size_t b = u; b < many.size(); b += 5) ++seen[size_t(many[b])];
    if (u < 4) {
      EXPECT_TRUE(counts_fit(seen, share(0.75, has[u])));
    } else {
      EXPECT_EQ(seen[kNever], 0);
    }
  }
  for (const Device& dev : one_of_each_family()) {
    DeviceCtx ctx(dev);
    int32_t user = 0;
    EXPECT_THROW(dev.ops->popular_negatives(ctx, &user, &user, 1, 0, train.view(), columns.data(), 0, s),
                 std::logic_error);
  }
}

std::vector<float> ranks(const Device& dev, const Problem& p, const std::vector<int32_t>& users,
                         const std::vector<int32_t>& positives, const std::vector<float>& h_n) {
  const int64_t B = int64_t(users.size());
  DeviceCtx ctx(dev);
  std::vector<float> out(size_t(3 * B), NAN);
  dev.ops->negative_ranks(ctx, mat(out, B, 3), cmat(p.h_u, p.train.rows, p.d), users.data(), positives.data(),
                          cmat(h_n, B, p.d), p.v.layer[0], p.train.view());
  return out;
}

// Whole and broken tiles of items and of rows; ties; vectors that are items and vectors that are none; zero vectors.
TEST(NegativeRanks, AreThoseOfTheDefinition) {
  struct Shape {
    int64_t B, I, d;
    bool quarters;
  };
  for (const Shape& z : std::vector<Shape>{{0, 20, 4, false},
                                           {1, 3, 1, true},
                                           {70, 131, 13, true},
                                           {49, 300, 64, false},
                                           {129, 64, 5, true},
                                           {13, 500, 8, false}}) {
    Draw g;
    const Problem p(g, z.I, z.d, 1, false, z.quarters);
    const auto users = p.users(z.B);
    std::vector<int32_t> positives;
    std::vector<float> h_n = g.floats(z.B * z.d);
    for (int64_t b = 0; b < z.B; ++b) {
      positives.push_back(g.below(int32_t(z.I)));
      if (b % 3 == 0) std::copy_n(p.layer[0].begin() + g.below(int32_t(z.I)) * z.d, z.d, h_n.begin() + b * z.d);
      if (b % 7 == 5) std::fill_n(h_n.begin() + b * z.d, z.d, 0.0f);
    }
    std::vector<float> want(size_t(3 * z.B), NAN);
    cpu::plain::negative_ranks(mat(want, z.B, 3), cmat(p.h_u, p.train.rows, z.d), users.data(), positives.data(),
                               cmat(h_n, z.B, z.d), p.v.layer[0], p.train.view());
    for (const Device& dev : z.I > 200 ? fast_devices() : devices()) {
      SCOPED_TRACE(std::to_string(z.B) + " of " + std::to_string(z.I) + " on " + dev.name);
      EXPECT_EQ(ranks(dev, p, users, positives, h_n), want);  // the same bits on both devices
    }
    for (int64_t b = 0; b < z.B; ++b) {  // the definition itself, in double and apart from ties
      double product = 0, n2 = 0, p2 = 0, score = 0, mass = 0;
      for (int64_t j = 0; j < z.d; ++j) {
        const double n = h_n[size_t(b * z.d + j)], q = p.layer[0][size_t(positives[size_t(b)] * z.d + j)],
                     u = p.h_u[size_t(users[size_t(b)] * z.d + j)];
        product += n * q, n2 += n * n, p2 += q * q, score += u * n, mass += std::fabs(u * n);
      }
      EXPECT_NEAR(want[size_t(3 * b + 1)], n2 * p2 == 0 ? 0 : product / std::sqrt(n2 * p2), 1e-6);
      EXPECT_NEAR(want[size_t(3 * b + 2)], score, 1e-6 * mass + 1e-30);
      if (b % 3 == 0 || b % 7 == 5) continue;
      int64_t above = 0, admissible = 0;
      double least_gap = 1;
      for (int32_t i = 0; i < z.I; ++i) {
        if (p.owns(users[size_t(b)], i)) continue;
        double s = 0;
        for (int64_t j = 0; j < z.d; ++j)
          s += double(p.h_u[size_t(users[size_t(b)] * z.d + j)]) * double(p.layer[0][size_t(i * z.d + j)]);
        ++admissible, above += s > score, least_gap = std::min(least_gap, std::fabs(s - score));
      }
      if (least_gap > 1e-5) { EXPECT_NEAR(want[size_t(3 * b)], 100.0 * double(above) / double(admissible), 1e-4); }
    }
  }
}

// Every item that a user lacks once: 50, ties or not. The best of N: 100/(N+1). A user who lacks nothing: 50.
TEST(NegativeRanks, AreFiftyForUniformNegativesAndAHundredthOfNPlusOneForDns) {
  for (bool quarters : {false, true}) {
    Draw g;
    const Problem p(g, 60, 8, 1, false, quarters);
    for (const Device& dev : one_of_each_family())
      for (int32_t u : {0, 1, 4}) {
        std::vector<int32_t> lacked;
        std::vector<float> h_n;
        for (int32_t i = 0; i < p.I; ++i)
          if (!p.owns(u, i))
            lacked.push_back(i),
                h_n.insert(h_n.end(), p.layer[0].begin() + i * p.d, p.layer[0].begin() + (i + 1) * p.d);
        const auto out = ranks(dev, p, std::vector<int32_t>(lacked.size(), u), lacked, h_n);
        double sum = 0;
        for (size_t b = 0; b < lacked.size(); ++b) sum += double(out[3 * b]);
        EXPECT_NEAR(sum / double(lacked.size()), 50, 1e-4) << "user " << u << " on " << dev.name;
        for (size_t b = 0; b < lacked.size(); ++b) {
          // a zero vector has no direction
          if (p.score(u, 0, lacked[b]) != 0) { EXPECT_NEAR(out[3 * b + 1], 1, 1e-6); }
        }
      }
  }
  Draw g;
  const Problem p(g, 302, 8, 1, false);
  for (int N : {1, 4, 32}) {
    const std::vector<int32_t> users(3000, 4);
    const auto chosen = p.chosen(cpu_devices()[1], users, 0, N, 1, Stream{3, Use::hard}, Stream{3, Use::hard_rank});
    std::vector<float> h_n;
    for (int32_t i : chosen) h_n.insert(h_n.end(), p.layer[0].begin() + i * p.d, p.layer[0].begin() + (i + 1) * p.d);
    const auto out = ranks(cpu_devices()[1], p, users, chosen, h_n);
    double sum = 0, squares = 0;
    for (size_t b = 0; b < users.size(); ++b)
      sum += double(out[3 * b]), squares += double(out[3 * b]) * double(out[3 * b]);
    const double mean = sum / 3000, error = std::sqrt((squares / 3000 - mean * mean) / 3000);
    EXPECT_NEAR(mean, 100.0 / (N + 1), 5 * error + 1) << N;  // two of the 302 items are never drawn
  }
  for (const Device& dev : one_of_each_family()) {  // user 3 without the two items that nobody has
    Problem all(g, 20, 4, 1, false);
    all.train = TestCsr{};
    all.train.rows = 1, all.train.cols = 20;
    std::vector<std::pair<int32_t, float>> every;
    for (int32_t i = 0; i < 20; ++i) every.emplace_back(i, 1.0f);
    all.train.push(every);
    EXPECT_EQ(ranks(dev, all, {0}, {1}, std::vector<float>(4, 1.0f))[0], 50.0f);
  }
}

}  // namespace
}  // namespace ccdrec::test::hard_test
