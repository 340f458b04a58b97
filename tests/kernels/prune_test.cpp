#include "kernels/denoise.h"
#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::prune_test {
namespace {

struct Edges {
  int64_t U, I;
  std::vector<int32_t> user, item;
  std::vector<float> weight;
  Edges(const TestCsr& a) : U(a.rows), I(a.cols) {
    std::vector<int64_t> du(size_t(U), 0), di(size_t(I), 0);
    for (int64_t u = 0; u < U; ++u)
      for (int64_t e = a.row_ptr[size_t(u)]; e < a.row_ptr[size_t(u) + 1]; ++e) {
        user.push_back(int32_t(u)), item.push_back(a.col[size_t(e)]);
        ++du[size_t(u)], ++di[size_t(item.back())];
      }
    for (size_t e = 0; e < user.size(); ++e)
      weight.push_back(
          float(1 / std::sqrt((double(du[size_t(user[e])]) + 1e-7) * (double(di[size_t(item[e])]) + 1e-7))));
  }
  EdgeList list() const { return {user.data(), item.data(), weight.data(), int64_t(user.size()), U, I}; }
};

struct OwnedCsr {
  std::vector<int64_t> row_ptr;
  std::vector<int32_t> col;
  std::vector<float> val;
  MutableCsr m;
  OwnedCsr(int64_t N, int64_t capacity)
      : row_ptr(size_t(N + 1), -1), col(size_t(capacity + 2), -1), val(size_t(capacity + 2), NAN) {
    m = {N, N, row_ptr.data(), col.data(), val.data(), capacity};
  }
};

TEST(Prune, BuildsTheGraphOfTheEarliestArrivals) {
  struct Case {
    const char* name;
    int64_t U, I, longest;
    double rho;
  };
  for (const Case& c :
       {Case{"no edges", 4, 3, 0, 0.8}, Case{"keep all", 50, 40, 20, 0}, Case{"negative rho keeps all", 50, 40, 20, -1},
        Case{"one edge", 1, 1, 1, 0.5}, Case{"usual", 300, 200, 60, 0.8}, Case{"keep none", 50, 40, 20, 1.0},
        Case{"nearly all", 300, 200, 60, 0.01}}) {
    Draw g;
    const Edges edges(skewed_csr(g, c.U, c.I, c.longest));
    const int64_t E = int64_t(edges.user.size()), N = c.U + c.I,
                  keep = c.rho <= 0 ? E : int64_t(std::floor(double(E) * (1.0 - c.rho)));
    const Stream s{6, Use::prune, 4};
    std::vector<std::pair<float, int64_t>> race;
    for (int64_t e = 0; e < E; ++e)
      race.emplace_back(-portable_log(1.0f - uniform01(draw(s, uint32_t(e)).v[0])) / edges.weight[size_t(e)], e);
    std::sort(race.begin(), race.end());
    std::vector<std::set<int32_t>> row(size_t(N + 1));
    for (int64_t j = 0; j < keep; ++j) {
      const size_t e = size_t(race[size_t(j)].second);
      const int32_t i = int32_t(c.U) + edges.item[e];
      row[size_t(edges.user[e])].insert(i), row[size_t(i)].insert(edges.user[e]);
    }
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      OwnedCsr out(N, 2 * keep + 5);
      dev.ops->prune(ctx, out.m, edges.list(), c.rho, s);
      ASSERT_EQ(out.row_ptr[0], 0);
      ASSERT_EQ(out.row_ptr[size_t(N)], 2 * keep);
      for (int64_t r = 0; r < N; ++r) {
        const std::vector<int32_t> want(row[size_t(r)].begin(), row[size_t(r)].end());
        const std::vector<int32_t> got(out.col.begin() + out.row_ptr[size_t(r)],
                                       out.col.begin() + out.row_ptr[size_t(r) + 1]);
        ASSERT_EQ(got, want) << "row " << r;
        for (size_t k = 0; k < want.size(); ++k) {
          const double v = 1 / std::sqrt((double(want.size()) + 1e-7) * (double(row[size_t(want[k])].size()) + 1e-7));
          ASSERT_NEAR(out.val[size_t(out.row_ptr[size_t(r)]) + k], v, 1e-7 * v) << "row " << r;
        }
      }
      // nothing behind the end
      for (size_t k = size_t(2 * keep); k < out.col.size(); ++k)
        EXPECT_TRUE(out.col[k] == -1 && std::isnan(out.val[k]));
      if (keep > 0) {
        OwnedCsr small(N, 2 * keep - 1);
        EXPECT_THROW(dev.ops->prune(ctx, small.m, edges.list(), c.rho, s), std::logic_error);
      }
    }
  }
}

// Every bit of the graph is the CPU's, at the edges of warps and blocks: kept edges, rows of the graph, and single
// users and items.
TEST(Prune, HasTheSameBitsOnEveryDevice) {
  constexpr Late kLate{5, 2, 0, 0};
  const Stream s{6, Use::prune, kLate.epoch, kLate.step};
  Ctx reference(1);
  for (const auto& [U, I] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 900}, {900, 1}, {127, 128}, {128, 128}, {60, 257}}) {
    Draw g;
    Edges edges(skewed_csr(g, U, I, std::max<int64_t>(1, I * 9 / 10)));
    if (I == 1)  // skewed_csr leaves rows out
      for (int64_t u = edges.user.back() + 1; u < U; ++u)
        edges.user.push_back(int32_t(u)), edges.item.push_back(0), edges.weight.push_back(0.1f);
    for (int64_t E : {1, 2, 62, 64, 66, 254, 256, 510, 512, 514}) {
      if (E > int64_t(edges.user.size())) continue;
      for (double rho : {0.0, 0.25, 0.5}) {
        EdgeList list = edges.list();
        list.n = E;
        const int64_t keep = int64_t(std::floor(double(E) * (1.0 - rho))), N = U + I;
        OwnedCsr want(N, 2 * keep);
        cpu::prune(reference, want.m, list, rho, s);
        want.val.resize(size_t(2 * keep));  // what is behind the end is not a number, and unequal to itself
        for (const Device& dev : devices()) {
          SCOPED_TRACE(std::to_string(keep) + " of " + std::to_string(E) + " edges, " + std::to_string(U) +
                       " users, on " + dev.name);
          DeviceCtx ctx(dev);
          const auto check = [&](Stream stream) {
            OwnedCsr out(N, 2 * keep);
            dev.ops->prune(ctx, out.m, list, rho, stream);
            out.val.resize(size_t(2 * keep));
            EXPECT_EQ(out.row_ptr, want.row_ptr);
            EXPECT_EQ(out.col, want.col);
            EXPECT_EQ(out.val, want.val);
          };
          check(s);
          if (dev.family == "cpu") continue;
          dev.ops->set_late(ctx, kLate);
          check(Stream{s.seed, s.use, kLateEpoch, kLateStep});
        }
      }
    }
  }
}

// Successive weighted draws without replacement: the exact chance of every kept set, by summing over the orders that
// lead to it.
void chance_of_sets(const std::vector<double>& w, int left, uint32_t taken, double chance,
                    std::vector<double>& of_set) {
  if (left == 0) {
    of_set[taken] += chance;
    return;
  }
  double rest = 0;
  for (size_t e = 0; e < w.size(); ++e) rest += taken >> e & 1 ? 0 : w[e];
  for (size_t e = 0; e < w.size(); ++e)
    if (!(taken >> e & 1)) chance_of_sets(w, left - 1, taken | 1u << e, chance * w[e] / rest, of_set);
}

// Users 0..3 with 1, 3, 1, 2 items: weights from 1 to 1/3.
struct SevenEdges {
  const std::vector<int32_t> user = {0, 1, 1, 1, 2, 3, 3}, item = {3, 0, 1, 2, 0, 0, 1};
  static constexpr int kKeep = 3;  // floor(7 (1 - 0.5))
  OwnedCsr out{8, 2 * kKeep};

  Edges edges() const {
    TestCsr a;
    a.rows = 4, a.cols = 4;
    for (int32_t u = 0; u < 4; ++u) {
      std::vector<std::pair<int32_t, float>> row;
      for (size_t e = 0; e < user.size(); ++e)
        if (user[e] == u) row.emplace_back(item[e], 1.0f);
      a.push(row);
    }
    return Edges(a);
  }
  // How often each set of edges is kept in 20,000 epochs, against its chance.
  template <class Prune>
  ::testing::AssertionResult kept_as_weighed(const std::vector<double>& weight, Prune&& prune) {
    std::vector<double> share(size_t(1) << user.size());
    chance_of_sets(weight, kKeep, 0, 1, share);
    std::vector<int64_t> seen(share.size());
    for (uint32_t epoch = 0; epoch < 20000; ++epoch) {
      prune(out.m, Stream{2, Use::prune, epoch});
      uint32_t kept = 0;
      for (size_t e = 0; e < user.size(); ++e) {
        const auto first = out.col.begin() + out.row_ptr[size_t(user[e])],
                   last = out.col.begin() + out.row_ptr[size_t(user[e]) + 1];
        if (std::find(first, last, 4 + item[e]) != last) kept |= 1u << e;
      }
      ++seen[kept];
    }
    return counts_fit(seen, share);
  }
};

TEST(Prune, KeepsSetsWithTheChancesOfSequentialWeightedDraws) {
  SevenEdges small;
  const Edges edges = small.edges();
  ASSERT_EQ(edges.user, small.user);
  Ctx ctx(1);  // one device speaks for all: the kept sets are the same bits (above)
  EXPECT_TRUE(small.kept_as_weighed({edges.weight.begin(), edges.weight.end()}, [&](const MutableCsr& out, Stream s) {
    cpu::prune(ctx, out, edges.list(), 0.5, s);
  }));
}

// --- by weights

// Weights between 1 - spread and 1 + spread.
std::vector<float> weights_around_1(Draw& g, const Edges& edges, float spread) {
  return g.floats(int64_t(edges.user.size()), 1 - spread, 1 + spread);
}

// d_v of a set of edges, from the definition.
std::vector<double> degrees_of(const Edges& edges, const std::vector<float>& a, const std::vector<bool>& in) {
  std::vector<double> d(size_t(edges.U + edges.I), 1e-7);
  for (size_t e = 0; e < a.size(); ++e)
    if (in[e]) d[size_t(edges.user[e])] += double(a[e]), d[size_t(edges.U + edges.item[e])] += double(a[e]);
  return d;
}
double chance_of(const Edges& edges, const std::vector<double>& d, const std::vector<float>& a, bool direct, size_t e) {
  return (direct ? double(a[e]) : 1.0) / std::sqrt(d[size_t(edges.user[e])] * d[size_t(edges.U + edges.item[e])]);
}

TEST(PruneWeighted, BuildsTheGraphOfTheEarliestArrivals) {
  struct Case {
    const char* name;
    int64_t U, I, longest;
    double rho;
  };
  for (const Case& c : {Case{"no edges", 4, 3, 0, 0.8}, Case{"keep all", 50, 40, 20, 0}, Case{"one edge", 1, 1, 1, 0.5},
                        Case{"five users", 5, 6, 5, 0.4}, Case{"usual", 300, 200, 60, 0.8},
                        Case{"keep none", 50, 40, 20, 1.0}, Case{"nearly all", 300, 200, 60, 0.01}})
    for (const bool direct : {false, true}) {
      Draw g;
      const Edges edges(skewed_csr(g, c.U, c.I, c.longest));
      const std::vector<float> a = weights_around_1(g, edges, 0.7f);
      const size_t E = edges.user.size(), keep = c.rho <= 0 ? E : size_t(std::floor(double(E) * (1.0 - c.rho)));
      const int64_t N = c.U + c.I;
      const Stream s{6, Use::prune, 4};
      const std::vector<double> all = degrees_of(edges, a, std::vector<bool>(E, true));
      std::vector<std::pair<double, size_t>> race;
      for (size_t e = 0; e < E; ++e)
        race.emplace_back(
            -double(portable_log(1.0f - uniform01(draw(s, uint32_t(e)).v[0]))) / chance_of(edges, all, a, direct, e),
            e);
      std::sort(race.begin(), race.end());
      // the case depends on no rounding
      if (keep > 0 && keep < E) { ASSERT_GT(race[keep].first, race[keep - 1].first * (1 + 1e-6)); }
      std::vector<bool> in(E, false);
      for (size_t j = 0; j < keep; ++j) in[race[j].second] = true;
      const std::vector<double> kept = degrees_of(edges, a, in);
      std::vector<std::map<int32_t, double>> row(size_t(N + 1));
      for (size_t e = 0; e < E; ++e) {
        if (!in[e]) continue;
        const int32_t i = int32_t(c.U) + edges.item[e];
        row[size_t(edges.user[e])][i] = row[size_t(i)][edges.user[e]] = chance_of(edges, kept, a, direct, e);
      }
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + (direct ? ", direct, on " : " on ") + dev.name);
        DeviceCtx ctx(dev);
        OwnedCsr out(N, 2 * int64_t(keep) + 5);
        dev.ops->prune_weighted(ctx, out.m, edges.list(), a.data(), direct, c.rho, s);
        ASSERT_EQ(out.row_ptr[0], 0);
        ASSERT_EQ(out.row_ptr[size_t(N)], 2 * int64_t(keep)) << "floor(E (1 - rho)), from both ends";
        for (int64_t r = 0; r < N; ++r) {
          int64_t k = out.row_ptr[size_t(r)];
          ASSERT_EQ(out.row_ptr[size_t(r) + 1] - k, int64_t(row[size_t(r)].size())) << "row " << r;
          for (const auto& [column, value] : row[size_t(r)]) {
            ASSERT_EQ(out.col[size_t(k)], column) << "row " << r;
            ASSERT_NEAR(out.val[size_t(k)], value, 1e-7 * value) << "row " << r;
            ++k;
          }
        }
        // nothing behind the end
        for (size_t k = 2 * keep; k < out.col.size(); ++k) EXPECT_TRUE(out.col[k] == -1 && std::isnan(out.val[k]));
        if (keep > 0) {
          OwnedCsr small(N, 2 * int64_t(keep) - 1);
          EXPECT_THROW(dev.ops->prune_weighted(ctx, small.m, edges.list(), a.data(), direct, c.rho, s),
                       std::logic_error);
        }
      }
    }
}

// Weights of 1: FREEDOM's pruning, every bit of it.
TEST(PruneWeighted, WithoutGuidanceItIsPrune) {
  for (const auto& [U, I, longest] :
       std::vector<std::tuple<int64_t, int64_t, int64_t>>{{60, 257, 200}, {900, 700, 400}, {5, 4, 4}})
    for (const double rho : {0.0, 0.25, 0.8})
      for (const bool direct : {false, true}) {
        Draw g;
        Edges edges(skewed_csr(g, U, I, longest));
        const std::vector<float> ones(edges.user.size(), 1.0f);
        std::vector<int64_t> du(size_t(U), 0), di(size_t(I), 0);
        for (size_t e = 0; e < ones.size(); ++e) ++du[size_t(edges.user[e])], ++di[size_t(edges.item[e])];
        for (size_t e = 0; e < ones.size(); ++e)  // as data/graph.cpp weighs them
          edges.weight[e] = float(std::pow(double(du[size_t(edges.user[e])]) + 1e-7, -0.5) *
                                  std::pow(double(di[size_t(edges.item[e])]) + 1e-7, -0.5));
        const int64_t keep = kept_edges(int64_t(ones.size()), rho);
        for (const Device& dev : fast_devices())
          for (uint32_t epoch = 0; epoch < 3; ++epoch) {
            SCOPED_TRACE(std::to_string(keep) + " of " + std::to_string(ones.size()) + " edges on " + dev.name);
            const Stream s{9, Use::prune, epoch};
            DeviceCtx ctx(dev);
            OwnedCsr want(U + I, 2 * keep), out(U + I, 2 * keep);
            dev.ops->prune(ctx, want.m, edges.list(), rho, s);
            EdgeList unweighed = edges.list();
            unweighed.weight = nullptr;
            dev.ops->prune_weighted(ctx, out.m, unweighed, ones.data(), direct, rho, s);
            want.val.resize(size_t(2 * keep)), out.val.resize(size_t(2 * keep));
            EXPECT_EQ(out.row_ptr, want.row_ptr);
            EXPECT_EQ(out.col, want.col);
            EXPECT_EQ(out.val, want.val);
          }
      }
}

TEST(PruneWeighted, HasTheSameBitsOnEveryDevice) {
  constexpr Late kLate{5, 2, 0, 0};
  const Stream s{6, Use::prune, kLate.epoch, kLate.step};
  Ctx reference(1);
  for (const auto& [U, I] : std::vector<std::pair<int64_t, int64_t>>{{1, 900}, {900, 1}, {128, 127}, {60, 257}}) {
    Draw g;
    Edges edges(skewed_csr(g, U, I, std::max<int64_t>(1, I * 9 / 10)));
    if (I == 1)  // skewed_csr leaves rows out
      for (int64_t u = edges.user.back() + 1; u < U; ++u)
        edges.user.push_back(int32_t(u)), edges.item.push_back(0), edges.weight.push_back(0.1f);
    const std::vector<float> a = weights_around_1(g, edges, 0.9f);
    for (const int64_t E : {1, 2, 31, 33, 64, 256, 257, 512, 800}) {
      if (E > int64_t(edges.user.size())) continue;
      for (const double rho : {0.0, 0.25, 0.5})
        for (const bool direct : {false, true}) {
          EdgeList list = edges.list();
          list.n = E, list.weight = nullptr;
          const int64_t keep = kept_edges(E, rho), N = U + I;
          OwnedCsr want(N, 2 * keep);
          cpu::prune_weighted(reference, want.m, list, a.data(), direct, rho, s);
          want.val.resize(size_t(2 * keep));
          for (const Device& dev : devices()) {
            SCOPED_TRACE(std::to_string(keep) + " of " + std::to_string(E) + " edges, " + std::to_string(U) +
                         " users, on " + dev.name);
            DeviceCtx ctx(dev);
            OwnedCsr out(N, 2 * keep);
            const bool late = dev.family != "cpu";
            if (late) dev.ops->set_late(ctx, kLate);
            dev.ops->prune_weighted(ctx, out.m, list, a.data(), direct, rho,
                                    late ? Stream{s.seed, s.use, kLateEpoch, kLateStep} : s);
            out.val.resize(size_t(2 * keep));
            EXPECT_EQ(out.row_ptr, want.row_ptr);
            EXPECT_EQ(out.col, want.col);
            EXPECT_EQ(out.val, want.val);
          }
        }
    }
  }
}

TEST(PruneWeighted, KeepsSetsWithTheChancesOfSequentialWeightedDraws) {
  SevenEdges small;
  const Edges edges = small.edges();
  const std::vector<float> a = {0.2f, 1.9f, 0.3f, 1.0f, 1.7f, 0.1f, 1.4f};  // far from 1, so that they show
  const std::vector<double> d = degrees_of(edges, a, std::vector<bool>(a.size(), true));
  Ctx ctx(1);
  std::vector<double> chance[2];
  for (const bool direct : {false, true}) {
    for (size_t e = 0; e < a.size(); ++e) chance[direct].push_back(chance_of(edges, d, a, direct, e));
    const auto prune = [&](const MutableCsr& out, Stream s) {
      cpu::prune_weighted(ctx, out, edges.list(), a.data(), direct, 0.5, s);
    };
    EXPECT_TRUE(small.kept_as_weighed(chance[direct], prune)) << (direct ? "direct" : "");
    // the test can tell these chances from those of plain degrees, and from each other
    EXPECT_FALSE(small.kept_as_weighed({edges.weight.begin(), edges.weight.end()}, prune));
    if (direct) { EXPECT_FALSE(small.kept_as_weighed(chance[false], prune)); }
  }
}

// What is no number passes on to the values, where a loss finds it, and does not disturb the race of the others.
TEST(PruneWeighted, EdgesOfNoNumberArriveLastAndShow) {
  constexpr int64_t U = 40, I = 30;
  Draw g;
  const Edges edges(skewed_csr(g, U, I, 12));
  std::vector<float> a = weights_around_1(g, edges, 0.5f);
  const size_t E = a.size(), odd = 1;  // among the three lowest of those that it spoils
  a[odd] = NAN;
  std::vector<bool> spoiled(E);
  int64_t numbers = 0;
  for (size_t e = 0; e < E; ++e) {
    spoiled[e] = edges.user[e] == edges.user[odd] || edges.item[e] == edges.item[odd];
    numbers += !spoiled[e];
  }
  ASSERT_GT(numbers, 20);
  ASSERT_LT(numbers + 3, int64_t(E));
  const Stream s{6, Use::prune, 4};
  std::vector<int32_t> first[2];
  for (const Device& dev : devices())
    for (const bool more : {false, true}) {  // as many as have numbers, and three of the others
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      const int64_t keep = numbers + 3 * more;
      const double rho = 1 - (double(keep) + 0.5) / double(E);
      ASSERT_EQ(kept_edges(int64_t(E), rho), keep);
      OwnedCsr out(U + I, 2 * keep);
      dev.ops->prune_weighted(ctx, out.m, edges.list(), a.data(), false, rho, s);
      int64_t odd_values = 0;
      for (int64_t k = 0; k < 2 * keep; ++k) odd_values += !std::isfinite(out.val[size_t(k)]);
      EXPECT_EQ(odd_values > 0, more) << "the edge itself is kept";
      std::set<std::pair<int64_t, int32_t>> kept;
      for (int64_t u = 0; u < U; ++u)
        for (int64_t k = out.row_ptr[size_t(u)]; k < out.row_ptr[size_t(u) + 1]; ++k)
          kept.insert({u, int32_t(out.col[size_t(k)] - U)});
      int64_t plain = 0;
      std::vector<size_t> others;
      for (size_t e = 0; e < E; ++e)
        if (kept.count({edges.user[e], edges.item[e]})) spoiled[e] ? others.push_back(e) : void(++plain);
      EXPECT_EQ(plain, numbers);
      std::vector<size_t> lowest;  // all of them arrive at infinity
      for (size_t e = 0; e < E && lowest.size() < size_t(3 * more); ++e)
        if (spoiled[e]) lowest.push_back(e);
      EXPECT_EQ(others, lowest);
      if (first[more].empty()) first[more] = out.col;
      EXPECT_EQ(out.col, first[more]);
    }
}

TEST(Prune, EqualArrivalsGoToTheLowerEdge) {
  constexpr int64_t E = 4000;  // weights so uneven that the light edges arrive at infinity together
  std::vector<int32_t> user(E), item(E, 0);
  std::iota(user.begin(), user.end(), 0);
  const std::vector<float> weight(E, 1e-44f);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    OwnedCsr out(E + 1, 2 * (E / 2));
    dev.ops->prune(ctx, out.m, EdgeList{user.data(), item.data(), weight.data(), E, E, 1}, 0.5, Stream{3, Use::prune});
    for (int64_t u = 0; u < E; ++u) {
      const float u01 = uniform01(draw(Stream{3, Use::prune}, uint32_t(u)).v[0]);
      ASSERT_TRUE(std::isinf(-portable_log(1.0f - u01) / 1e-44f) || u01 == 0.0f);
      ASSERT_EQ(out.row_ptr[size_t(u) + 1] - out.row_ptr[size_t(u)], u < E / 2 ? 1 : 0);
    }
  }
}

}  // namespace
}  // namespace ccdrec::test::prune_test
