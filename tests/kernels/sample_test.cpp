// The draws of an epoch whose result is a list of items or an order: shuffle, negatives, unseen_items, candidates.
#include "kernels/sample.h"

#include <map>

#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test {
namespace {

TestCsr pattern(const std::vector<std::vector<int32_t>>& rows, int64_t cols) {
  TestCsr a;
  a.rows = int64_t(rows.size()), a.cols = cols;
  for (const auto& r : rows) {
    std::vector<std::pair<int32_t, float>> row;
    for (int32_t c : r) row.emplace_back(c, 1.0f);
    a.push(row);
  }
  return a;
}

TEST(Shuffle, OrdersRowsByTheirDraw) {
  for (int64_t n : {0, 1, 2, 31, 33, 1000, 70000}) {
    const Stream s{4, Use::shuffle, 3};
    std::vector<std::pair<uint64_t, int32_t>> want;
    for (int64_t r = 0; r < n; ++r) {
      const Draw4 x = draw(s, uint32_t(r));
      want.emplace_back(uint64_t(x.v[0]) << 32 | x.v[1], int32_t(r));
    }
    std::sort(want.begin(), want.end());
    for (const Device& dev : devices()) {
      Ctx ctx(dev.threads);
      std::vector<int32_t> order(size_t(n), -1);
      dev.ops->shuffle(ctx, order.data(), n, s);
      for (int64_t r = 0; r < n; ++r) ASSERT_EQ(order[size_t(r)], want[size_t(r)].second) << n << " rows on " << dev.name;
    }
  }
}

TEST(Shuffle, EveryPermutationOfFourIsEquallyLikely) {
  Ctx ctx(1);
  std::map<std::vector<int32_t>, int64_t> seen;
  for (uint32_t epoch = 0; epoch < 48000; ++epoch) {
    std::vector<int32_t> order(4);
    cpu::shuffle(ctx, order.data(), 4, Stream{9, Use::shuffle, epoch});
    ++seen[order];
  }
  ASSERT_EQ(seen.size(), 24u);
  std::vector<int64_t> counts;
  for (const auto& [order, n] : seen) counts.push_back(n);
  EXPECT_TRUE(uniform_counts(counts));
}

// Users: nothing seen, some seen, all but two, all but one (the exact choice decides), everything.
struct Negatives : ::testing::Test {
  static constexpr int64_t kItems = 400;
  TestCsr train;
  std::vector<int32_t> items;  // those that occur in training: not all
  std::vector<std::vector<int32_t>> row;
  Negatives() : row(5) {
    for (int32_t i = 0; i < kItems; ++i) {
      if (i % 10 != 9) items.push_back(i);
      if (i % 10 == 9) continue;
      if (i % 3 == 0) row[1].push_back(i);
      if (i != 3 && i != 200) row[2].push_back(i);
      if (i != 71) row[3].push_back(i);
      row[4].push_back(i);
    }
    train = pattern(row, kItems);
  }
  bool has(int32_t u, int32_t i) const { return std::binary_search(row[size_t(u)].begin(), row[size_t(u)].end(), i); }
};

TEST_F(Negatives, AreUniformOverTheItemsTheUserLacks) {
  constexpr int64_t B = 5 * 600;
  std::vector<int32_t> users(B);
  for (int64_t b = 0; b < B; ++b) users[size_t(b)] = int32_t(b % 5);
  std::vector<int32_t> first;
  for (const Device& dev : devices()) {
    Ctx ctx(dev.threads);
    std::vector<int32_t> all;
    for (uint32_t step = 0; step < 5; ++step) {
      std::vector<int32_t> out(2 * B, -1);
      dev.ops->negatives(ctx, out.data(), users.data(), B, 2, int64_t(step) * B, train.view(), items.data(), int64_t(items.size()),
                         Stream{5, Use::neg_uniform, 1});
      all.insert(all.end(), out.begin(), out.end());
    }
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << dev.name;
  }
  for (int32_t u = 0; u < 5; ++u) {
    SCOPED_TRACE("user " + std::to_string(u));
    std::vector<int64_t> seen(kItems);
    for (size_t j = 0; j < first.size(); ++j)
      if (users[j % B] == u) ++seen[size_t(first[j])];
    std::vector<double> share(kItems);
    double n = 0;
    for (int32_t i : items) n += u == 4 || !has(u, i);  // who has everything gets anything
    for (int32_t i : items) share[size_t(i)] = u == 4 || !has(u, i) ? 1 / n : 0;
    EXPECT_TRUE(counts_fit(seen, share));
  }
}

TEST_F(Negatives, DependOnTheirRowAndNotOnTheBatch) {
  Ctx ctx(1);
  const Stream s{5, Use::neg_uniform, 2};
  const std::vector<int32_t> users = {0, 1, 0, 2, 1, 0, 3};
  std::vector<int32_t> whole(14), a(6), b(8);
  const int64_t n = int64_t(items.size());
  cpu::negatives(ctx, whole.data(), users.data(), 7, 2, 100, train.view(), items.data(), n, s);
  cpu::negatives(ctx, a.data(), users.data(), 3, 2, 100, train.view(), items.data(), n, s);
  cpu::negatives(ctx, b.data(), users.data() + 3, 4, 2, 103, train.view(), items.data(), n, s);
  for (size_t k = 0; k < 2; ++k)
    for (size_t r = 0; r < 7; ++r) EXPECT_EQ(whole[k * 7 + r], r < 3 ? a[k * 3 + r] : b[k * 4 + r - 3]);
  // Entry k*B+b, first draw at row (first_row + b)*n_neg + k: users without history keep their first draw.
  EXPECT_EQ(whole[0], items[below(draw(s, 200, 0).v[0], uint32_t(n))]);
  EXPECT_EQ(whole[7 + 2], items[below(draw(s, 205, 0).v[0], uint32_t(n))]);
}

TEST_F(Negatives, UnseenItemsCoverAllItems) {
  constexpr int64_t B = 5 * 12000;
  std::vector<int32_t> users(B), first;
  for (int64_t b = 0; b < B; ++b) users[size_t(b)] = int32_t(b % 5);
  for (const Device& dev : devices()) {
    Ctx ctx(dev.threads);
    std::vector<int32_t> out(B, -1);
    dev.ops->unseen_items(ctx, out.data(), users.data(), B, train.view(), kItems, Stream{5, Use::ndi_item, 1, 7});
    if (first.empty()) first = out;
    EXPECT_EQ(out, first) << dev.name;
  }
  for (int32_t u = 0; u < 5; ++u) {
    SCOPED_TRACE("user " + std::to_string(u));
    std::vector<int64_t> seen(kItems);
    for (size_t b = 0; b < B; ++b)
      if (users[b] == u) ++seen[size_t(first[b])];
    std::vector<double> share(kItems);
    for (int32_t i = 0; i < kItems; ++i) share[size_t(i)] = has(u, i) ? 0 : 1.0 / double(kItems - int64_t(row[size_t(u)].size()));
    EXPECT_TRUE(counts_fit(seen, share));
  }
}

TEST_F(Negatives, UnseenItemsFallBackToAnyAndEmptyBatchesAreFine) {
  std::vector<int32_t> everything(40);
  std::iota(everything.begin(), everything.end(), 0);
  const TestCsr full = pattern({everything}, 40);
  Ctx ctx(2);
  const std::vector<int32_t> users(20000, 0);
  std::vector<int32_t> out(users.size(), -1);
  cpu::unseen_items(ctx, out.data(), users.data(), int64_t(users.size()), full.view(), 40, Stream{1, Use::ndi_item});
  std::vector<int64_t> seen(40);
  for (int32_t i : out) ++seen.at(size_t(i));
  EXPECT_TRUE(uniform_counts(seen));
  cpu::unseen_items(ctx, nullptr, nullptr, 0, full.view(), 0, Stream{});
  cpu::negatives(ctx, nullptr, nullptr, 0, 1, 0, full.view(), nullptr, 0, Stream{});
  EXPECT_THROW(cpu::unseen_items(ctx, out.data(), users.data(), 1, full.view(), 0, Stream{}), std::logic_error);
}

TEST(Candidates, AreUniformDrawsInAscendingOrder) {
  for (const auto& [count, n_items] : std::vector<std::pair<int64_t, int64_t>>{{0, 9}, {1, 1}, {50, 7}, {705, 7050}, {100000, 50}}) {
    const Stream s{8, Use::candidates, 2, 31};
    std::vector<int32_t> want;
    for (int64_t j = 0; j < count; ++j) want.push_back(int32_t(below(draw(s, uint32_t(j)).v[0], uint32_t(n_items))));
    std::sort(want.begin(), want.end());
    for (const Device& dev : devices()) {
      Ctx ctx(dev.threads);
      std::vector<int32_t> out(size_t(count), -1);
      dev.ops->candidates(ctx, out.data(), count, n_items, s);
      EXPECT_EQ(out, want) << count << " of " << n_items << " on " << dev.name;
    }
    if (count < 100000) continue;
    std::vector<int64_t> seen(static_cast<size_t>(n_items));
    for (int32_t i : want) ++seen[size_t(i)];
    EXPECT_TRUE(uniform_counts(seen));
  }
}

}  // namespace
}  // namespace ccdrec::test
