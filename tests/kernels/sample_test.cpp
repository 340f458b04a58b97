// The draws of an epoch whose result is a list of items or an order: shuffle, negatives, unseen_items, candidates.
#include "kernels/sample.h"

#include <map>

#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::sample_test {
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

// What a recorded step reads in place of the stand-ins of late.h.
constexpr Late kLate{3, 7, 4100, 0};
Stream late(Stream s) { return {s.seed, s.use, kLateEpoch, kLateStep}; }

TEST(Shuffle, OrdersRowsByTheirDraw) {
  for (int64_t n : {0, 1, 2, 31, 33, 255, 256, 257, 1000, 70000}) {
    const Stream s{4, Use::shuffle, kLate.epoch, kLate.step};
    std::vector<std::pair<uint64_t, int32_t>> want;
    for (int64_t r = 0; r < n; ++r) {
      const Draw4 x = draw(s, uint32_t(r));
      want.emplace_back(uint64_t(x.v[0]) << 32 | x.v[1], int32_t(r));
    }
    std::sort(want.begin(), want.end());
    for (const Device& dev : devices()) {
      DeviceCtx ctx(dev);
      std::vector<int32_t> order(size_t(n) + 1, -1);
      dev.ops->shuffle(ctx, order.data(), n, s);
      for (int64_t r = 0; r < n; ++r)
        ASSERT_EQ(order[size_t(r)], want[size_t(r)].second) << n << " rows on " << dev.name;
      EXPECT_EQ(order[size_t(n)], -1);
      if (dev.family == "cpu") continue;
      std::vector<int32_t> again(size_t(n) + 1, -1);
      dev.ops->set_late(ctx, kLate);
      dev.ops->shuffle(ctx, again.data(), n, late(s));
      EXPECT_EQ(again, order) << n << " rows, late, on " << dev.name;
    }
  }
}

// Of the draws, so on one device: the others order the same draws (above).
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
  for (const Device& dev : fast_devices()) {
    DeviceCtx ctx(dev);
    std::vector<int32_t> all;
    for (uint32_t step = 0; step < 5; ++step) {
      std::vector<int32_t> out(2 * B, -1);
      dev.ops->negatives(ctx, out.data(), users.data(), B, 2, int64_t(step) * B, train.view(), items.data(),
                         int64_t(items.size()), Stream{5, Use::neg_uniform, 1});
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

// The rule of sample.h, literally.
int32_t unseen(Stream s, uint32_t row, const std::vector<int32_t>& from, const std::vector<int32_t>& has) {
  const auto lacks = [&](int32_t i) { return !std::binary_search(has.begin(), has.end(), i); };
  for (uint32_t sub = 0; sub < 64; ++sub) {
    const int32_t i = from[below(draw(s, row, sub).v[0], uint32_t(from.size()))];
    if (lacks(i)) return i;
  }
  std::vector<int32_t> left;
  std::copy_if(from.begin(), from.end(), std::back_inserter(left), lacks);
  if (left.empty()) left = from;
  return left[below(draw(s, row, 64).v[0], uint32_t(left.size()))];
}

// Whole and broken warps and blocks; users who need the exact choice beside users who do not; items in any order;
// addresses beyond 32 bits.
TEST_F(Negatives, FollowTheRuleAtEveryBatchSize) {
  std::vector<int32_t> all(kItems), turned(items.rbegin(), items.rend());
  std::iota(all.begin(), all.end(), 0);
  for (int64_t B : {1, 2, 31, 32, 33, 63, 64, 65, 129, 300})
    for (int n_neg : {1, 3})
      for (int64_t first_row : {int64_t(0), kLate.first, (int64_t(1) << 32) - 20}) {
        const Stream s{5, Use::neg_uniform, kLate.epoch, kLate.step};
        const std::vector<int32_t>& from = B % 2 ? items : turned;
        const int64_t n = B * n_neg;
        std::vector<int32_t> users, want(size_t(n) + 1, -1), want_any(size_t(B) + 1, -1);
        for (int64_t b = 0; b < B; ++b) users.push_back(int32_t(b * 7 % 11 % 5));
        for (int64_t b = 0; b < B; ++b) {
          const std::vector<int32_t>& has = row[size_t(users[size_t(b)])];
          for (int64_t k = 0; k < n_neg; ++k)
            want[size_t(k * B + b)] = unseen(s, uint32_t((first_row + b) * n_neg + k), from, has);
          want_any[size_t(b)] = unseen(s, uint32_t(b), all, has);
        }
        for (const Device& dev : devices()) {
          SCOPED_TRACE(std::to_string(B) + " x " + std::to_string(n_neg) + " from row " + std::to_string(first_row) +
                       " on " + dev.name);
          DeviceCtx ctx(dev);
          const auto check = [&](Stream stream, int64_t first) {
            std::vector<int32_t> out(size_t(n) + 1, -1), any(size_t(B) + 1, -1);
            dev.ops->negatives(ctx, out.data(), users.data(), B, n_neg, first, train.view(), from.data(),
                               int64_t(from.size()), stream);
            dev.ops->unseen_items(ctx, any.data(), users.data(), B, train.view(), kItems, stream);
            EXPECT_EQ(out, want);
            EXPECT_EQ(any, want_any);
          };
          check(s, first_row);
          if (dev.family == "cpu") continue;
          dev.ops->set_late(ctx, kLate);
          check(late(s), kLateFirst + (first_row - kLate.first));
        }
      }
}

TEST_F(Negatives, DependOnTheirRowAndNotOnTheBatch) {
  const Stream s{5, Use::neg_uniform, 2};
  const std::vector<int32_t> users = {0, 1, 0, 2, 1, 0, 3};
  const int64_t n = int64_t(items.size());
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> whole(14), a(6), b(8);
    dev.ops->negatives(ctx, whole.data(), users.data(), 7, 2, 100, train.view(), items.data(), n, s);
    dev.ops->negatives(ctx, a.data(), users.data(), 3, 2, 100, train.view(), items.data(), n, s);
    dev.ops->negatives(ctx, b.data(), users.data() + 3, 4, 2, 103, train.view(), items.data(), n, s);
    for (size_t k = 0; k < 2; ++k)
      for (size_t r = 0; r < 7; ++r) EXPECT_EQ(whole[k * 7 + r], r < 3 ? a[k * 3 + r] : b[k * 4 + r - 3]);
    // Entry k*B+b, first draw at row (first_row + b)*n_neg + k: users without history keep their first draw.
    EXPECT_EQ(whole[0], items[below(draw(s, 200, 0).v[0], uint32_t(n))]);
    EXPECT_EQ(whole[7 + 2], items[below(draw(s, 205, 0).v[0], uint32_t(n))]);
  }
}

TEST_F(Negatives, UnseenItemsCoverAllItems) {
  constexpr int64_t B = 5 * 12000;
  std::vector<int32_t> users(B), first;
  for (int64_t b = 0; b < B; ++b) users[size_t(b)] = int32_t(b % 5);
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
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
    for (int32_t i = 0; i < kItems; ++i)
      share[size_t(i)] = has(u, i) ? 0 : 1.0 / double(kItems - int64_t(row[size_t(u)].size()));
    EXPECT_TRUE(counts_fit(seen, share));
  }
}

TEST_F(Negatives, UnseenItemsFallBackToAnyAndEmptyBatchesAreFine) {
  std::vector<int32_t> everything(40);
  std::iota(everything.begin(), everything.end(), 0);
  const TestCsr full = pattern({everything}, 40);
  const std::vector<int32_t> users(20000, 0);
  std::vector<int32_t> first;
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> out(users.size(), -1);
    dev.ops->unseen_items(ctx, out.data(), users.data(), int64_t(users.size()), full.view(), 40,
                          Stream{1, Use::ndi_item});
    if (first.empty()) first = out;
    EXPECT_EQ(out, first);
    dev.ops->unseen_items(ctx, nullptr, nullptr, 0, full.view(), 0, Stream{});
    dev.ops->negatives(ctx, nullptr, nullptr, 0, 1, 0, full.view(), nullptr, 0, Stream{});
    EXPECT_THROW(dev.ops->unseen_items(ctx, out.data(), users.data(), 1, full.view(), 0, Stream{}), std::logic_error);
    EXPECT_THROW(dev.ops->negatives(ctx, out.data(), users.data(), 1, 1, 0, full.view(), out.data(), 0, Stream{}),
                 std::logic_error);
  }
  std::vector<int64_t> seen(40);
  for (int32_t i : first) ++seen.at(size_t(i));
  EXPECT_TRUE(uniform_counts(seen));
}

TEST(Candidates, AreUniformDrawsInAscendingOrder) {
  for (const auto& [count, n_items] : std::vector<std::pair<int64_t, int64_t>>{{0, 9},
                                                                               {0, 0},
                                                                               {1, 1},
                                                                               {40, 1},
                                                                               {50, 7},
                                                                               {255, 128},
                                                                               {256, 129},
                                                                               {257, 65536},
                                                                               {300, 65537},
                                                                               {300, 0x7fffffff},
                                                                               {705, 7050},
                                                                               {100000, 50}}) {
    const Stream s{8, Use::candidates, kLate.epoch, kLate.step};
    std::vector<int32_t> want;
    for (int64_t j = 0; j < count; ++j) want.push_back(int32_t(below(draw(s, uint32_t(j)).v[0], uint32_t(n_items))));
    std::sort(want.begin(), want.end());
    want.push_back(-1);
    for (const Device& dev : devices()) {
      DeviceCtx ctx(dev);
      std::vector<int32_t> out(size_t(count) + 1, -1);
      dev.ops->candidates(ctx, out.data(), count, n_items, s);
      EXPECT_EQ(out, want) << count << " of " << n_items << " on " << dev.name;
      if (count > 0) { EXPECT_THROW(dev.ops->candidates(ctx, out.data(), count, 0, s), std::logic_error); }
      if (dev.family == "cpu") continue;
      std::vector<int32_t> again(size_t(count) + 1, -1);
      dev.ops->set_late(ctx, kLate);
      dev.ops->candidates(ctx, again.data(), count, n_items, late(s));
      EXPECT_EQ(again, want) << count << " of " << n_items << ", late, on " << dev.name;
    }
    if (count < 100000) continue;
    std::vector<int64_t> seen(static_cast<size_t>(n_items));
    want.pop_back();
    for (int32_t i : want) ++seen[size_t(i)];
    EXPECT_TRUE(uniform_counts(seen));
  }
}

}  // namespace
}  // namespace ccdrec::test::sample_test
