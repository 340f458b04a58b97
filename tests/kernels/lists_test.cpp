#include "kernels/lists.h"

#include "tests/kernels/graphs.h"

namespace ccdrec::test::lists_test {
namespace {

struct Case {
  const char* name;
  int64_t I, k, d;
  bool holes;  // entries of -1
};
const Case kCases[] = {{"no rows", 0, 3, 8, false},           {"no entries", 4, 0, 8, false},
                       {"one number", 1, 1, 1, false},        {"width below eight", 9, 4, 5, true},
                       {"odd width", 40, 3, 37, true},        {"ten neighbours", 130, 10, 64, false},
                       {"only holes", 5, 2, 8, true},         {"a popular row", 700, 5, 12, true},
                       {"a block and one", 33, 1, 64, false}, {"wide", 7, 3, 515, false}};

// Squared: low rows are popular. Rows may name themselves, and one row twice.
std::vector<int32_t> neighbours(Draw& g, const Case& c) {
  std::vector<int32_t> idx(size_t(c.I * c.k), 0);
  for (auto& j : idx) {
    const float u = g.uniform(0, 1);
    j = std::min(int32_t(double(u) * u * double(c.I)), int32_t(c.I - 1));
    if (c.holes && (g.below(4) == 0 || c.I == 5)) j = -1;
  }
  return idx;
}

// `group` of the entries that are not -1: slots keep their places.
struct Targets {
  std::vector<int32_t> row, ptr{0}, slot;
  Cell<int64_t> n = 0;  // the device reads it
  Targets(const std::vector<int32_t>& idx, int64_t I) {
    for (int32_t j = 0; j < I; ++j) {
      const size_t before = slot.size();
      for (size_t s = 0; s < idx.size(); ++s)
        if (idx[s] == j) slot.push_back(int32_t(s));
      if (slot.size() > before) row.push_back(j), ptr.push_back(int32_t(slot.size()));
    }
    n = int64_t(row.size());
    row.push_back(-7);
  }
  Groups view() { return {{row.data(), &n, n}, ptr.data(), slot.data()}; }
};

TEST(ListDots, MatchesDoubleReferenceWithTheSameBitsOnBothDevices) {
  for (const Case& c : kCases) {
    Draw g;
    const int64_t J = c.I;
    const auto idx = neighbours(g, c);
    const auto a = g.floats(c.I * c.d), b = g.floats(J * c.d);
    std::vector<Ref> want(idx.size());
    for (size_t s = 0; s < idx.size(); ++s)
      for (int64_t j = 0; j < c.d && idx[s] >= 0; ++j)
        want[s].add(double(a[size_t(int64_t(s) / c.k * c.d + j)]) * b[size_t(idx[s] * c.d + j)]);
    std::vector<float> first;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> v(idx.size(), NAN);
      dev.ops->list_dots(ctx, mat(v, c.I, c.k), cmat(a, c.I, c.d), cmat(b, J, c.d), idx.data(), c.k);
      EXPECT_TRUE(close(v, want, 7e-8));
      for (size_t s = 0; s < idx.size(); ++s)
        if (idx[s] < 0) { ASSERT_EQ(v[s], 0.0f); }
      if (first.empty()) first = v;
      EXPECT_EQ(v, first);
    }
  }
}

TEST(ListSpread, IsTheGradientOfWeightedDotsWithTheSameBitsOnBothDevices) {
  for (const Case& c : kCases) {
    Draw draws;
    const auto idx = neighbours(draws, c);
    const auto g = draws.floats(c.I * c.k), y = draws.floats(c.I * c.d), before = draws.floats(c.I * c.d);
    Targets by_target(idx, c.I);
    std::vector<Ref> want(y.size());
    for (size_t i = 0; i < y.size(); ++i) want[i].add(before[i]);
    for (size_t s = 0; s < idx.size(); ++s)
      for (int64_t x = 0; x < c.d && idx[s] >= 0; ++x) {
        const size_t at = size_t(int64_t(s) / c.k * c.d + x), to = size_t(idx[s] * c.d + x);
        want[at].add(double(g[s]) * y[to]), want[to].add(double(g[s]) * y[at]);
      }
    std::vector<float> first;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> dy = before;
      dev.ops->list_spread(ctx, mat(dy, c.I, c.d), cmat(g, c.I, c.k), cmat(y, c.I, c.d), idx.data(), by_target.view());
      EXPECT_TRUE(close(dy, want, 6e-7));
      if (first.empty()) first = dy;
      EXPECT_EQ(dy, first);
    }
    const auto value = [&](size_t at, double shift) {  // sum g[i,c] y_i . y_j
      double sum = 0;
      for (size_t s = 0; s < idx.size(); ++s)
        for (int64_t x = 0; x < c.d && idx[s] >= 0; ++x) {
          const size_t i = size_t(int64_t(s) / c.k * c.d + x), j = size_t(idx[s] * c.d + x);
          sum += double(g[s]) * (double(y[i]) + (i == at ? shift : 0)) * (double(y[j]) + (j == at ? shift : 0));
        }
      return sum;
    };
    for (size_t i = 0; i < y.size(); i += 1 + y.size() / 20)
      EXPECT_NEAR(double(first[i]) - before[i], (value(i, 1e-3) - value(i, -1e-3)) / 2e-3, 1e-6 * (1 + want[i].mass))
          << c.name << " " << i;
  }
}

// As the model calls it: groups made by the device, with room to spare.
TEST(ListSpread, TakesTheGroupsOfTheOperation) {
  const Case c{"", 90, 4, 16, false};
  Draw draws;
  const auto idx = neighbours(draws, c);
  const auto g = draws.floats(c.I * c.k), y = draws.floats(c.I * c.d);
  Targets by_target(idx, c.I);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    OwnedGroups grouped(c.I * c.k);
    dev.ops->group(ctx, grouped.g, idx.data(), c.I * c.k, c.I);
    std::vector<float> got(y.size(), 1), want(y.size(), 1);
    dev.ops->list_spread(ctx, mat(got, c.I, c.d), cmat(g, c.I, c.k), cmat(y, c.I, c.d), idx.data(), grouped.g);
    dev.ops->list_spread(ctx, mat(want, c.I, c.d), cmat(g, c.I, c.k), cmat(y, c.I, c.d), idx.data(), by_target.view());
    EXPECT_EQ(got, want);
  }
}

}  // namespace
}  // namespace ccdrec::test::lists_test
