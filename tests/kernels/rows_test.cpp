#include "kernels/rows.h"

#include <map>

#include "tests/kernels/graphs.h"

namespace ccdrec::test {
namespace {

struct OwnedGroups {
  OwnedList rows;
  std::vector<int32_t> ptr, slot;
  Groups g;
  explicit OwnedGroups(int64_t n) : rows(n), ptr(size_t(n + 1), -7), slot(size_t(n), -7) { g = {rows.list(), ptr.data(), slot.data()}; }
};

struct Case {
  const char* name;
  int64_t n, limit;
};
const Case kCases[] = {
    {"no slots", 0, 5},          {"one slot", 1, 1},        {"all the same", 700, 1},     {"few ids", 900, 3}, {"as many as ids", 2000, 2000},
    {"twelve bits", 3000, 4000}, {"a batch", 10240, 53955}, {"wide ids", 500, 2000000000}};

std::vector<int32_t> draw_ids(Draw& g, const Case& c) {  // squared: low ids are popular; the last id always occurs
  std::vector<int32_t> ids(size_t(c.n), 0);
  for (auto& i : ids) {
    const float u = g.uniform(0, 1);
    i = std::min(int32_t(double(u) * u * double(c.limit)), int32_t(c.limit - 1));
  }
  if (c.n > 1) ids[size_t(c.n / 2)] = int32_t(c.limit - 1);
  return ids;
}

TEST(Rows, GroupIsAStableSortOfTheSlots) {
  for (const Case& c : kCases) {
    Draw g;
    const auto ids = draw_ids(g, c);
    std::map<int32_t, std::vector<int32_t>> want;
    for (int64_t s = 0; s < c.n; ++s) want[ids[size_t(s)]].push_back(int32_t(s));
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Ctx ctx(dev.threads);
      OwnedGroups got(c.n);
      dev.ops->group(ctx, got.g, ids.data(), c.n, c.limit);
      ASSERT_EQ(got.rows.count, int64_t(want.size()));
      EXPECT_EQ(got.ptr[0], 0);
      size_t j = 0;
      for (const auto& [id, slots] : want) {
        ASSERT_EQ(got.rows.idx[j], id);
        ASSERT_EQ(std::vector<int32_t>(got.slot.begin() + got.ptr[j], got.slot.begin() + got.ptr[j + 1]), slots);
        ++j;
      }
    }
  }
  Ctx ctx(1);
  OwnedGroups got(4);
  const int32_t outside[] = {0, 3}, negative[] = {-1};
  EXPECT_THROW(cpu::group(ctx, got.g, outside, 2, 3), std::logic_error);
  EXPECT_THROW(cpu::group(ctx, got.g, negative, 1, 3), std::logic_error);
}

TEST(Rows, GatherAndSegmentSumAreAdjoint) {
  for (const Case& c : kCases)
    for (int64_t d : {64, 37, 1}) {
      if (c.limit > 5000) continue;  // the sort is tested above; here only the sums matter
      Draw g;
      const auto ids = draw_ids(g, c);
      const auto x = g.floats(c.limit * d), dy = g.floats(c.n * d), base = g.floats(std::max(c.limit, c.n) * d);
      std::vector<float> first;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + ", d " + std::to_string(d));
        Ctx ctx(dev.threads);
        OwnedGroups got(c.n);
        dev.ops->group(ctx, got.g, ids.data(), c.n, c.limit);
        std::vector<float> y(size_t((c.n + 2) * d), NAN);
        dev.ops->gather_rows(ctx, mat(y, c.n + 2, d), cmat(x, c.limit, d), ids.data(), c.n);
        for (int64_t s = 0; s < c.n; ++s)
          for (int64_t j = 0; j < d; ++j) ASSERT_EQ(y[size_t(s * d + j)], x[size_t(ids[size_t(s)] * d + j)]);
        for (int64_t i = c.n * d; i < int64_t(y.size()); ++i) ASSERT_TRUE(std::isnan(y[size_t(i)]));

        std::vector<Ref> by_id(size_t(c.limit * d));
        std::vector<bool> named(static_cast<size_t>(c.limit));
        for (int64_t s = 0; s < c.n; ++s) {
          named[size_t(ids[size_t(s)])] = true;
          for (int64_t j = 0; j < d; ++j) by_id[size_t(ids[size_t(s)] * d + j)].add(dy[size_t(s * d + j)]);
        }
        for (bool by_row : {true, false})
          for (bool accumulate : {false, true}) {
            const int64_t rows = by_row ? c.limit : c.n;
            std::vector<float> out(base.begin(), base.begin() + rows * d);
            const std::vector<float> before = out;
            dev.ops->segment_sum(ctx, mat(out, rows, d), cmat(dy, c.n, d), got.g, by_row, accumulate);
            std::vector<Ref> want(out.size());
            for (size_t i = 0; i < out.size(); ++i) want[i] = {before[i], 0};  // rows that nothing names stay as they are, to the bit
            for (int64_t j = 0; j < got.rows.count; ++j)
              for (int64_t k = 0; k < d; ++k) {
                const int64_t id = got.rows.idx[size_t(j)];
                Ref r = by_id[size_t(id * d + k)];
                const size_t at = size_t((by_row ? id : j) * d + k);
                if (accumulate) r.add(before[at]);
                want[at] = r;
              }
            EXPECT_TRUE(close(out, want, 3e-6));
            if (by_row && accumulate) {
              if (first.empty()) first = out;
              EXPECT_EQ(out, first);
            }
          }
        first.clear();
      }
    }
}

TEST(Rows, SegmentSumAddsInSlotOrder) {
  const std::vector<float> x = {1e8f, 1.0f, -1e8f, 1.0f};
  const int32_t ids[] = {0, 0, 0, 0};
  for (const Device& dev : devices()) {
    Ctx ctx(dev.threads);
    OwnedGroups got(4);
    dev.ops->group(ctx, got.g, ids, 4, 1);
    std::vector<float> y = {NAN};
    dev.ops->segment_sum(ctx, mat(y, 1, 1), cmat(x, 4, 1), got.g, true, false);
    EXPECT_EQ(y[0], 1.0f);  // ((1e8 + 1) - 1e8) + 1
  }
}

TEST(Rows, SplitMergeCopyAndZero) {
  Draw g;
  for (int64_t U : {0, 1, 50, 300})
    for (int density : {0, 1, 3, 7}) {
      std::vector<int32_t> a, b, both;
      for (int32_t v = 0; v < 300; ++v) {
        const bool in_a = g.below(8) < density, in_b = g.below(8) < density;
        if (in_a) a.push_back(v);
        if (in_b) b.push_back(v);
        if (in_a || in_b) both.push_back(v);
      }
      for (const Device& dev : devices()) {
        Ctx ctx(dev.threads);
        OwnedList la(a), lb(b), out(300), users(300), items(300);
        dev.ops->merge_rows(ctx, out.list(), la.list(), lb.list());
        EXPECT_EQ(out.values(), both);
        dev.ops->split_rows(ctx, users.list(), items.list(), la.list(), U);
        std::vector<int32_t> joined = users.values();
        for (int32_t i : joined) EXPECT_LT(i, U);
        for (int32_t i : items.values()) joined.push_back(i + int32_t(U));
        EXPECT_EQ(joined, a);
        if (both.size() > 1) {
          OwnedList small(int64_t(both.size()) - 1);
          EXPECT_THROW(dev.ops->merge_rows(ctx, small.list(), la.list(), lb.list()), std::logic_error);
        }
        const auto x = g.floats(300 * 5), y0 = g.floats(300 * 5);
        std::vector<float> copied = y0, zeroed = y0, cleared = y0;
        dev.ops->copy_rows(ctx, mat(copied, 300, 5), cmat(x, 300, 5), la.list());
        dev.ops->zero_rows(ctx, mat(zeroed, 300, 5), la.list());
        dev.ops->fill_zero(ctx, mat(cleared, 300, 5));
        for (int32_t r = 0; r < 300; ++r)
          for (int j = 0; j < 5; ++j) {
            const size_t i = size_t(r * 5 + j);
            const bool in = std::binary_search(a.begin(), a.end(), r);
            ASSERT_EQ(copied[i], in ? x[i] : y0[i]);
            ASSERT_EQ(zeroed[i], in ? 0.0f : y0[i]);
            ASSERT_EQ(cleared[i], 0.0f);
          }
      }
    }
  Ctx ctx(2);  // the identity, as models use it for whole tables
  OwnedList users(7), items(5);
  cpu::split_rows(ctx, users.list(), items.list(), RowList{nullptr, nullptr, 12}, 7);
  EXPECT_EQ(users.values(), (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(items.values(), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  cpu::fill_zero(ctx, Mat{});
}

}  // namespace
}  // namespace ccdrec::test
