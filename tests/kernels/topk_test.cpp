#include "kernels/topk.h"

#include <set>

#include "kernels/cpu/fast/microkernel.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::topk_test {
namespace {

struct Case {
  const char* name;
  int64_t U, I, d, n, k, mask;  // mask: longest row, 0 = none
};
const Case kCases[] = {{"no users", 5, 9, 8, 0, 3, 0},
                       {"one item", 3, 1, 1, 3, 1, 0},
                       {"k is I", 7, 20, 64, 7, 20, 6},
                       {"k beyond I", 10, 33, 37, 12, 50, 33},
                       {"one user", 4, 300, 64, 1, 10, 30},
                       {"tiles and a tail", 150, 333, 16, 131, 50, 200},
                       {"many items, small k", 60, 3000, 64, 55, 5, 900},
                       {"two blocks of d", 20, 100, 300, 20, 7, 10},
                       {"no items", 3, 0, 8, 3, 4, 0},
                       {"k is 1", 40, 517, 37, 40, 1, 300},
                       {"one short of a tile of the GPU", 63, 127, 15, 63, 10, 20},
                       {"a tile", 64, 128, 16, 64, 32, 20},
                       {"one beyond", 65, 129, 17, 65, 33, 20},
                       {"items in ranges", 20, 2900, 20, 17, 50, 2000},
                       {"k is 1, items in ranges", 20, 2100, 16, 17, 1, 300},
                       {"the longest list", 6, 1100, 4, 5, 512, 300},
                       {"longer than lists", 70, 700, 5, 67, 513, 690},
                       {"d is 1", 60, 300, 1, 100, 20, 40}};

// Scores of one user by the contract's chain, and the list that a sort gives.
struct Want {
  std::vector<int32_t> top;
  std::vector<float> score;
};
Want ranking(const Case& c, const std::vector<float>& hu, int32_t u, const std::vector<float>& hi, const Csr* mask) {
  std::vector<std::pair<float, int32_t>> all;
  std::set<int32_t> excluded;
  if (mask) excluded.insert(mask->col + mask->row_ptr[u], mask->col + mask->row_ptr[u + 1]);
  for (int32_t i = 0; i < c.I; ++i) {
    float s = 0;
    for (int64_t j = 0; j < c.d; ++j) s = std::fma(hu[size_t(u * c.d + j)], hi[size_t(i * c.d + j)], s);
    if (!excluded.count(i)) all.emplace_back(s, i);
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    if (std::isnan(a.first) != std::isnan(b.first)) return std::isnan(b.first);
    if (!std::isnan(a.first) && a.first != b.first) return a.first > b.first;
    return a.second < b.second;
  });
  Want w{std::vector<int32_t>(size_t(c.k), -1), std::vector<float>(size_t(c.k), -INFINITY)};
  for (size_t j = 0; j < std::min(all.size(), size_t(c.k)); ++j) w.top[j] = all[j].second, w.score[j] = all[j].first;
  return w;
}

void check(const Case& c, const std::vector<float>& hu, const std::vector<float>& hi, const std::vector<int32_t>& users,
           const Csr* mask) {
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    if (!cpu::find_kernel(isa)) continue;
    cpu::set_micro_kernel(cpu::find_kernel(isa));
    for (const Device& dev : with_isa(isa)) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
      DeviceCtx ctx(dev);
      std::vector<int32_t> top(size_t(c.n * c.k), -9);
      std::vector<float> score(size_t(c.n * c.k), 77.0f);
      dev.ops->score_topk(ctx, top.data(), score.data(), cmat(hu, c.U, c.d), users.data(), c.n, cmat(hi, c.I, c.d),
                          mask, c.k);
      for (int64_t r = 0; r < c.n; ++r) {
        const Want w = ranking(c, hu, users[size_t(r)], hi, mask);
        for (int64_t j = 0; j < c.k; ++j) {
          ASSERT_EQ(top[size_t(r * c.k + j)], w.top[size_t(j)]) << "user " << r << " rank " << j;
          const float got = score[size_t(r * c.k + j)], want = w.score[size_t(j)];
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << got << " " << want;
        }
      }
    }
  }
  cpu::set_micro_kernel(nullptr);
}

struct Data {
  std::vector<float> hu, hi;
  std::vector<int32_t> users;
  TestCsr mask;
};
Data data(const Case& c) {
  Draw g;
  Data x{g.floats(c.U * c.d), g.floats(c.I * c.d), {}, skewed_csr(g, c.U, c.I, c.mask)};
  for (int64_t j = 0; j < c.n; ++j) x.users.push_back(g.below(int32_t(c.U)));  // users may repeat
  return x;
}

TEST(ScoreTopk, EqualsASort) {
  for (const Case& c : kCases) {
    const Data x = data(c);
    const Csr mask = x.mask.view();
    check(c, x.hu, x.hi, x.users, c.mask ? &mask : nullptr);
  }
}

TEST(ScoreTopk, TiesGoToTheLowerItem) {  // items in few groups of identical rows, more equals than k
  for (const int k : {50, 400}) {        // the longer lists are sorted by digits
    const Case c{"ties", 20, 700, 8, 20, k, 60};
    Data x = data(c);
    for (int64_t i = 0; i < c.I; ++i) std::copy_n(x.hi.begin() + i % 3 * c.d, c.d, x.hi.begin() + i * c.d);
    std::fill_n(x.hu.begin(), c.d, 0.0f);  // all scores 0, some of them -0
    const Csr mask = x.mask.view();
    check(c, x.hu, x.hi, x.users, &mask);
  }
}

TEST(ScoreTopk, RisingScoresReplaceTheWholeListAgainAndAgain) {
  const Case c{"rising", 7, 2000, 1, 7, 13, 0};
  Data x = data(c);
  for (int64_t i = 0; i < c.I; ++i) x.hi[size_t(i)] = float(i);
  for (int64_t u = 0; u < c.U; ++u) x.hu[size_t(u)] = u % 2 ? -1.0f : 1.0f;
  check(c, x.hu, x.hi, x.users, nullptr);
}

TEST(ScoreTopk, NanComesLastAndInfinitiesInOrder) {
  const Case c{"nan and inf", 12, 500, 4, 12, 300, 20};
  for (int nans : {0, 1, 230, 480, 500}) {  // none; fewer and more than leave k clean items; then nothing clean at all
    Data x = data(c);
    for (int64_t i = 0; i < c.I; ++i) {
      if (i * 7 % 500 < nans)
        x.hi[size_t(i * c.d)] = NAN;
      else if (i % 11 == 0)
        x.hi[size_t(i * c.d)] = i % 2 ? INFINITY : -INFINITY;
    }
    for (int64_t j = 0; j < c.d; ++j) x.hu[size_t(3 * c.d + j)] = NAN;  // a user without a single clean score
    const Csr mask = x.mask.view();
    check(c, x.hu, x.hi, x.users, &mask);
    Case beyond = c;  // behind the last item -1 follows, also where that item's score is -inf or NaN
    beyond.k = 510;
    check(beyond, x.hu, x.hi, x.users, &mask);
  }
}

TEST(ScoreTopk, AUserListedTwiceGetsTheSameListTwice) {
  const Case c{"repeated users", 3, 400, 37, 100, 9, 150};
  Data x = data(c);
  for (size_t j = 0; j < x.users.size(); ++j) x.users[j] = int32_t(j % 7 == 3 ? 1 : 2);
  const Csr mask = x.mask.view();
  check(c, x.hu, x.hi, x.users, &mask);
}

// What a device's cuts of users must not show: against the CPU's lists, for a sort of each would take longer than both.
void expect_as_cpu(const Case& c) {
  const Data x = data(c);
  const Csr mask = x.mask.view();
  std::vector<int32_t> want;
  std::vector<float> want_score;
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> top(size_t(c.n * c.k), -9);
    std::vector<float> score(size_t(c.n * c.k), 77.0f);
    dev.ops->score_topk(ctx, top.data(), score.data(), cmat(x.hu, c.U, c.d), x.users.data(), c.n, cmat(x.hi, c.I, c.d),
                        &mask, c.k);
    if (want.empty()) want = top, want_score = score;
    EXPECT_TRUE(top == want);
    EXPECT_TRUE(score == want_score);
  }
}
TEST(SlowScoreTopk, MoreUsersThanFitAtOnceByLists) { expect_as_cpu({"lists", 50, 10240, 1, 790, 512, 100}); }
TEST(ScoreTopk, MoreUsersThanFitAtOnceSorted) { expect_as_cpu({"sorted", 50, 40000, 2, 60, 600, 3000}); }

TEST(ScoreTopk, RowsNeedNoAlignment) {
  const Case c{"shifted by a float", 30, 200, 16, 30, 20, 40};
  Data x = data(c);
  const Csr mask = x.mask.view();
  for (int hu_by : {0, 1})
    for (int hi_by : {0, 3}) {
      std::vector<float> hu = x.hu, hi = x.hi;
      hu.insert(hu.begin(), size_t(hu_by), NAN), hi.insert(hi.begin(), size_t(hi_by), NAN);
      SameBits same;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(dev.name);
        DeviceCtx ctx(dev);
        std::vector<int32_t> top(size_t(c.n * c.k), -9);
        std::vector<float> score(size_t(c.n * c.k), 77.0f);
        dev.ops->score_topk(ctx, top.data(), score.data(), {hu.data() + hu_by, c.U, c.d}, x.users.data(), c.n,
                            {hi.data() + hi_by, c.I, c.d}, &mask, c.k);
        EXPECT_TRUE(same(dev, "score", score));
        for (int64_t r = 0; r < c.n; ++r) {
          const Want w = ranking(c, x.hu, x.users[size_t(r)], x.hi, &mask);
          for (int64_t j = 0; j < c.k; ++j)
            ASSERT_EQ(top[size_t(r * c.k + j)], w.top[size_t(j)]) << "user " << r << " rank " << j;
        }
      }
    }
}

TEST(ScoreTopk, MasksEveryItem) {
  const Case c{"all masked", 2, 70, 8, 2, 5, 0};
  Data x = data(c);
  TestCsr all;
  all.cols = c.I, all.rows = 2;
  for (int u = 0; u < 2; ++u) {
    std::vector<std::pair<int32_t, float>> row;
    for (int32_t i = 0; i < c.I; ++i)
      if (u == 0 || i != 42) row.emplace_back(i, 1.0f);
    all.push(row);
  }
  const Csr mask = all.view();
  check(c, x.hu, x.hi, {0, 1}, &mask);
}

}  // namespace
}  // namespace ccdrec::test::topk_test
