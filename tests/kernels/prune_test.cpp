#include "kernels/sample.h"
#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test {
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

TEST(Prune, KeepsSetsWithTheChancesOfSequentialWeightedDraws) {
  // Users 0..3 with 1, 3, 1, 2 items: weights from 1 to 1/3.
  const std::vector<int32_t> user = {0, 1, 1, 1, 2, 3, 3}, item = {3, 0, 1, 2, 0, 0, 1};
  const Edges edges = [&] {
    TestCsr a;
    a.rows = 4, a.cols = 4;
    for (int32_t u = 0; u < 4; ++u) {
      std::vector<std::pair<int32_t, float>> row;
      for (size_t e = 0; e < user.size(); ++e)
        if (user[e] == u) row.emplace_back(item[e], 1.0f);
      a.push(row);
    }
    return Edges(a);
  }();
  ASSERT_EQ(edges.user, user);  // one device speaks for all: the kept sets are the same bits (above)
  constexpr int kKeep = 3;      // floor(7 (1 - 0.5))
  std::vector<double> share(size_t(1) << user.size());
  chance_of_sets({edges.weight.begin(), edges.weight.end()}, kKeep, 0, 1, share);
  std::vector<int64_t> seen(share.size());
  Ctx ctx(1);
  OwnedCsr out(8, 2 * kKeep);
  for (uint32_t epoch = 0; epoch < 20000; ++epoch) {
    cpu::prune(ctx, out.m, edges.list(), 0.5, Stream{2, Use::prune, epoch});
    uint32_t kept = 0;
    for (size_t e = 0; e < user.size(); ++e) {
      const auto first = out.col.begin() + out.row_ptr[size_t(user[e])],
                 last = out.col.begin() + out.row_ptr[size_t(user[e]) + 1];
      if (std::find(first, last, 4 + item[e]) != last) kept |= 1u << e;
    }
    ++seen[kept];
  }
  EXPECT_TRUE(counts_fit(seen, share));
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
}  // namespace ccdrec::test
