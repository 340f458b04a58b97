#include "kernels/rows.h"

#include <iterator>
#include <map>
#include <utility>

#include "tests/kernels/graphs.h"

namespace ccdrec::test::rows_test {
namespace {

bool on_cpu(const Device& dev) { return dev.family == "cpu"; }
int32_t fault(DeviceCtx& ctx) { return gpu_ops()->take_fault(ctx); }  // of the CUDA operations: what the CPU throws for

struct Case {
  const char* name;
  int64_t n, limit;
};
const Case kCases[] = {{"no slots", 0, 5},
                       {"one slot", 1, 1},
                       {"all the same", 700, 1},
                       {"few ids", 900, 3},
                       {"a popular id", 2600, 2},
                       {"as many as ids", 2000, 2000},
                       {"twelve bits", 3000, 4000},
                       {"a batch", 6144, 53955},
                       {"wide ids", 500, 2000000000},
                       {"just under a block's slots", 63, 40},
                       {"a block's slots", 64, 40},
                       {"just over a block's slots", 65, 40},
                       {"a tile of keys", 1024, 900},
                       {"a tile and a slot", 1025, 900},
                       {"a block's keys and a slot", 4097, 100000},
                       {"the fewest that are sorted", 12289, 262144},  // 2^18
                       {"one bit more", 12291, 262145},
                       {"sorted, few ids", 20000, 2},
                       {"sorted, wide ids", 13000, 2000000000}};

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
      DeviceCtx ctx(dev);
      OwnedGroups got(c.n, c.n + 41);
      dev.ops->group(ctx, got.g, ids.data(), c.n, c.limit);
      ASSERT_EQ(got.rows.count, int64_t(want.size()));
      EXPECT_EQ(got.ptr[0], 0);
      size_t j = 0;
      for (const auto& [id, slots] : want) {
        ASSERT_EQ(got.rows.idx[j], id);
        ASSERT_EQ(std::vector<int32_t>(got.slot.begin() + got.ptr[j], got.slot.begin() + got.ptr[j + 1]), slots);
        ++j;
      }
      EXPECT_EQ(got.ptr[j], c.n);
    }
  }
}

TEST(Rows, TheMostSlotsThatAreCounted) {  // of the CUDA operation: beyond, it sorts
  Draw g;
  const Case c{"", 12288, 53955};
  const auto ids = draw_ids(g, c);
  OwnedGroups want(c.n);
  Ctx host(1);
  cpu::group(host, want.g, ids.data(), c.n, c.limit);
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    OwnedGroups got(c.n);
    dev.ops->group(ctx, got.g, ids.data(), c.n, c.limit);
    EXPECT_EQ(got.rows.values(), want.rows.values());
    EXPECT_EQ(got.slot, want.slot);
    EXPECT_EQ(got.ptr, want.ptr);
  }
}

TEST(Rows, GroupRefusesWhatDoesNotFit) {
  std::vector<int32_t> ids(13000, 4);
  for (int32_t k = 0; k < 13000; ++k) ids[size_t(k)] = k % 5;
  for (const int64_t n : {40, 13000})  // counted and sorted
    for (const int32_t outside : {-1, 5, INT32_MIN, INT32_MAX})
      for (const Device& dev : devices()) {
        SCOPED_TRACE(dev.name);
        DeviceCtx ctx(dev);
        auto bad = ids;
        bad[17] = outside;
        OwnedGroups got(n), narrow(n, 4), none(n);
        EXPECT_THROW(dev.ops->group(ctx, none.g, ids.data(), n, 0), std::logic_error);
        if (on_cpu(dev)) {
          EXPECT_THROW(dev.ops->group(ctx, got.g, bad.data(), n, 5), std::logic_error);
          EXPECT_THROW(dev.ops->group(ctx, narrow.g, ids.data(), n, 5), std::logic_error);
          continue;
        }
        dev.ops->group(ctx, got.g, bad.data(), n, 5);
        EXPECT_NE(fault(ctx), 0);
        EXPECT_EQ(got.rows.values(), (std::vector<int32_t>{0, 1, 2, 3, 4}));  // still inside all bounds
        EXPECT_EQ(got.ptr[5], n);
        dev.ops->group(ctx, narrow.g, ids.data(), n, 5);
        EXPECT_NE(fault(ctx), 0);
        EXPECT_EQ(narrow.rows.values(), (std::vector<int32_t>{0, 1, 2, 3}));
        EXPECT_EQ(narrow.ptr[4], n / 5 * 4);
        dev.ops->group(ctx, got.g, ids.data(), n, 5);
        EXPECT_EQ(fault(ctx), 0);
      }
}

TEST(Rows, GatherAndSegmentSumAreAdjoint) {
  for (const Case& c : kCases)
    for (int64_t d : {64, 37, 1, 130}) {
      if (c.limit > 5000 || c.n > 5000) continue;  // the sort is tested above; here only the sums matter
      if (d != 64 && c.n > 1000) continue;
      Draw g;
      const auto ids = draw_ids(g, c);
      const auto x = g.floats(c.limit * d), dy = g.floats(c.n * d), base = g.floats(std::max(c.limit, c.n) * d);
      SameBits same;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + ", d " + std::to_string(d));
        DeviceCtx ctx(dev);
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
            // rows that nothing names stay as they are, to the bit
            for (size_t i = 0; i < out.size(); ++i) want[i] = {before[i], 0};
            for (int64_t j = 0; j < got.rows.count; ++j)
              for (int64_t k = 0; k < d; ++k) {
                const int64_t id = got.rows.idx[size_t(j)];
                Ref r = by_id[size_t(id * d + k)];
                const size_t at = size_t((by_row ? id : j) * d + k);
                if (accumulate) r.add(before[at]);
                want[at] = r;
              }
            EXPECT_TRUE(close(out, want, 3e-6));
            EXPECT_TRUE(same(dev, std::string("out") + (by_row ? " by row" : "") + (accumulate ? " +=" : ""), out));
          }
      }
    }
}

TEST(Rows, SegmentSumAddsInSlotOrder) {
  const std::vector<float> x = {1e8f, 1.0f, -1e8f, 1.0f};
  const std::vector<int32_t> ids = {0, 0, 0, 0};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    OwnedGroups got(4);
    dev.ops->group(ctx, got.g, ids.data(), 4, 1);
    std::vector<float> y = {NAN};
    dev.ops->segment_sum(ctx, mat(y, 1, 1), cmat(x, 4, 1), got.g, true, false);
    EXPECT_EQ(y[0], 1.0f);  // ((1e8 + 1) - 1e8) + 1
  }
}

TEST(Rows, ShortGroupsHaveTheSameBitsOnAllDevices) {  // up to 128 slots are added one by one, also on a GPU
  Draw g;
  for (const int64_t d : {64, 33}) {
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < 20; ++id) ids.insert(ids.end(), id == 7 ? 128 : id == 13 ? 127 : size_t(1 + id % 5), id);
    for (size_t k = ids.size(); k > 1; --k) std::swap(ids[k - 1], ids[size_t(g.below(int32_t(k)))]);
    const int64_t n = int64_t(ids.size());
    auto x = g.floats(n * d), y0 = g.floats(20 * d);
    for (int64_t k = 0; k < n * d; k += 3) x[size_t(k)] = -0.0f;
    SameBits same;
    for (Device dev : devices()) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      dev.family = "all";
      OwnedGroups got(n);
      dev.ops->group(ctx, got.g, ids.data(), n, 20);
      std::vector<float> sum(size_t(20 * d), NAN), more = y0;
      dev.ops->segment_sum(ctx, mat(sum, 20, d), cmat(x, n, d), got.g, true, false);
      dev.ops->segment_sum(ctx, mat(more, 20, d), cmat(x, n, d), got.g, true, true);
      EXPECT_TRUE(same(dev, "sum", sum));
      EXPECT_TRUE(same(dev, "more", more));
    }
  }
}

TEST(Rows, LongGroupsAtTheEdgesOfTheirChunks) {
  Draw g;
  for (const int64_t d : {64, 3})
    for (const int32_t longest : {128, 129, 256, 1024, 1025, 2049}) {
      std::vector<int32_t> ids = {0, 2, 2, 3};  // the long group among short ones of its block
      ids.insert(ids.end(), size_t(longest), 1);
      const int64_t n = int64_t(ids.size());
      const auto x = g.floats(n * d);
      std::vector<Ref> want(size_t(4 * d));
      for (int64_t s = 0; s < n; ++s)
        for (int64_t k = 0; k < d; ++k) want[size_t(ids[size_t(s)] * d + k)].add(x[size_t(s * d + k)]);
      SameBits same;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::to_string(longest) + " on " + dev.name);
        DeviceCtx ctx(dev);
        OwnedGroups got(n);
        dev.ops->group(ctx, got.g, ids.data(), n, 4);
        std::vector<float> y(size_t(4 * d), NAN);
        dev.ops->segment_sum(ctx, mat(y, 4, d), cmat(x, n, d), got.g, false, false);
        EXPECT_TRUE(close(y, want, 3e-6));
        EXPECT_TRUE(same(dev, "y", y));
      }
    }
}

TEST(Rows, SegmentSumKnowsTheRowsOfItsOutput) {
  const std::vector<int32_t> ids = {0, 1, 2};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    OwnedGroups got(3);
    dev.ops->group(ctx, got.g, ids.data(), 3, 3);
    std::vector<float> x = {1, 2, 3}, y = {NAN, NAN};
    if (on_cpu(dev)) {
      EXPECT_THROW(dev.ops->segment_sum(ctx, mat(y, 2, 1), cmat(x, 3, 1), got.g, false, false), std::logic_error);
      continue;
    }
    dev.ops->segment_sum(ctx, mat(y, 2, 1), cmat(x, 3, 1), got.g, false, false);
    EXPECT_NE(fault(ctx), 0);
    EXPECT_EQ(y, (std::vector<float>{1, 2}));
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
        DeviceCtx ctx(dev);
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
          if (on_cpu(dev)) {
            EXPECT_THROW(dev.ops->merge_rows(ctx, small.list(), la.list(), lb.list()), std::logic_error);
          } else {
            dev.ops->merge_rows(ctx, small.list(), la.list(), lb.list());
            EXPECT_NE(fault(ctx), 0);
            EXPECT_EQ(small.values(), std::vector<int32_t>(both.begin(), both.end() - 1));
          }
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
}

// Ascending distinct values below `limit`, about n of them, in a list with room to spare.
OwnedList some_list(Draw& g, int64_t n, int64_t limit, int64_t spare) {
  std::vector<int32_t> v;
  for (int32_t r = 0; r < limit && n > 0; ++r)
    if (int64_t(v.size()) < n && (limit - r <= n - int64_t(v.size()) || g.below(int32_t(limit)) < n)) v.push_back(r);
  OwnedList list(int64_t(v.size()) + spare);
  std::copy(v.begin(), v.end(), list.idx.begin());
  *&list.count = int64_t(v.size());
  return list;
}

TEST(Rows, SplitAtTheEdgesOfBlocksAndOfTheSearch) {
  for (const int64_t n : {0, 1, 2, 31, 32, 33, 255, 256, 257, 1000, 1025, 3000})
    for (const Device& dev : devices()) {
      Draw g;
      OwnedList nodes = some_list(g, n, 3 * n, 300);
      const std::vector<int32_t> v = nodes.values();
      for (const int64_t at : {int64_t(0), int64_t(1), n / 3, n - 1, n}) {
        const int64_t U = at < 0 ? 0 : at < n ? int64_t(v[size_t(at)]) : 3 * n;  // cut = at
        SCOPED_TRACE(std::to_string(n) + " cut at " + std::to_string(U) + " on " + dev.name);
        DeviceCtx ctx(dev);
        OwnedList users(n), items(n);
        dev.ops->split_rows(ctx, users.list(), items.list(), nodes.list(), U);
        std::vector<int32_t> below, above;
        for (const int32_t r : v) (r < U ? below : above).push_back(r < U ? r : int32_t(r - U));
        EXPECT_EQ(users.values(), below);
        EXPECT_EQ(items.values(), above);
      }
    }
}

TEST(Rows, SplitOfTheIdentityAndIntoTooLittle) {  // the identity, as models use it for whole tables
  for (const Device& dev : devices())
    for (const int64_t U : {0, 7, 12, 20}) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      OwnedList users(12), items(12);
      dev.ops->split_rows(ctx, users.list(), items.list(), RowList{nullptr, nullptr, 12}, U);
      std::vector<int32_t> below, above;
      for (int32_t r = 0; r < 12; ++r) (r < U ? below : above).push_back(r < U ? r : int32_t(r - U));
      EXPECT_EQ(users.values(), below);
      EXPECT_EQ(items.values(), above);
      OwnedList few(5);
      for (const bool first : {true, false}) {
        const RowList a = first ? few.list() : users.list(), b = first ? items.list() : few.list();
        if ((first ? below : above).size() <= 5) continue;
        if (on_cpu(dev)) {
          EXPECT_THROW(dev.ops->split_rows(ctx, a, b, RowList{nullptr, nullptr, 12}, U), std::logic_error);
        } else {
          dev.ops->split_rows(ctx, a, b, RowList{nullptr, nullptr, 12}, U);
          EXPECT_NE(fault(ctx), 0);
          EXPECT_EQ(few.count, 5);
        }
      }
    }
}

TEST(Rows, MergeOfListsOfManyBlocks) {
  struct Sizes {
    int64_t a, b, limit;
  };
  for (const Sizes c :
       {Sizes{0, 0, 1}, {5000, 0, 9000}, {0, 4096, 4096}, {3000, 3000, 3500}, {4096, 1, 5000}, {2500, 2600, 60000}})
    for (const Device& dev : devices()) {
      SCOPED_TRACE(dev.name);
      Draw g;
      DeviceCtx ctx(dev);
      OwnedList a = some_list(g, c.a, c.limit, 70), b = some_list(g, c.b, c.limit, 300), out(c.a + c.b + 100);
      std::vector<int32_t> want, va = a.values(), vb = b.values();
      std::set_union(va.begin(), va.end(), vb.begin(), vb.end(), std::back_inserter(want));
      dev.ops->merge_rows(ctx, out.list(), a.list(), b.list());
      EXPECT_EQ(out.values(), want);
      EXPECT_EQ(out.idx[want.size()], -7) << "wrote past the end";
      OwnedList with_all(c.a + 200);  // with the identity
      want.resize(200);
      for (int32_t r = 0; r < 200; ++r) want[size_t(r)] = r;
      for (const int32_t r : va)
        if (r >= 200) want.push_back(r);
      dev.ops->merge_rows(ctx, with_all.list(), RowList{nullptr, nullptr, 200}, a.list());
      EXPECT_EQ(with_all.values(), want);
    }
}

// Widths that move by fours and by ones, addresses that are no multiple of 16 bytes, lists at the edges of their tiles.
TEST(Rows, RowsMoveWholeWhateverTheirAlignment) {
  for (const int64_t d : {1, 4, 31, 64, 132})
    for (const int64_t n : {0, 1, 31, 32, 33, 65})
      for (const int64_t shift : {0, 1})
        for (const Device& dev : devices()) {
          SCOPED_TRACE(std::to_string(n) + " rows of " + std::to_string(d) + ", " + std::to_string(shift) + " on " +
                       dev.name);
          Draw g;
          DeviceCtx ctx(dev);
          const int64_t R = 2 * n + 3;
          OwnedList rows = some_list(g, n, R, 40);
          std::vector<int32_t> ids(size_t(n), 0);
          for (auto& i : ids) i = g.below(int32_t(R));
          const auto x = g.floats(R * d + shift), y0 = g.floats(R * d + shift);
          auto gathered = y0, copied = y0, zeroed = y0, all = y0, want_gathered = y0, want_copied = y0,
               want_zeroed = y0;
          const auto view = [&](std::vector<float>& v) { return Mat{v.data() + shift, R, d}; };
          const CMat from{x.data() + shift, R, d};
          for (int64_t j = 0; j < n; ++j)
            for (int64_t c = 0; c < d; ++c) {
              want_gathered[size_t(shift + j * d + c)] = from.row(ids[size_t(j)])[c];
              const size_t at = size_t(shift + rows.idx[size_t(j)] * d + c);
              want_copied[at] = x[at], want_zeroed[at] = 0;
            }
          dev.ops->gather_rows(ctx, view(gathered), from, ids.data(), n);
          dev.ops->copy_rows(ctx, view(copied), from, rows.list());
          dev.ops->zero_rows(ctx, view(zeroed), rows.list());
          EXPECT_EQ(gathered, want_gathered);
          EXPECT_EQ(copied, want_copied);
          EXPECT_EQ(zeroed, want_zeroed);
          dev.ops->copy_rows(ctx, view(all), from, RowList{nullptr, nullptr, R});
          EXPECT_TRUE(std::equal(all.begin() + shift, all.end(), x.begin() + shift));
          dev.ops->zero_rows(ctx, view(all), RowList{nullptr, nullptr, R - 1});
          EXPECT_TRUE(std::all_of(all.begin() + shift, all.end() - d, [](float v) { return v == 0; }));
          EXPECT_TRUE(std::equal(all.end() - d, all.end(), x.end() - d));
        }
}

TEST(Rows, MoreTilesThanBlocks) {
  const int64_t R = 4096 * 32 + 33;
  std::vector<float> x(static_cast<size_t>(R));
  for (int64_t r = 0; r < R; ++r) x[size_t(r)] = float(r);
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> y(size_t(R), -1.0f);
    dev.ops->copy_rows(ctx, mat(y, R, 1), cmat(x, R, 1), RowList{nullptr, nullptr, R - 1});
    EXPECT_TRUE(std::equal(y.begin(), y.end() - 1, x.begin()));
    EXPECT_EQ(y.back(), -1.0f);
  }
}

TEST(Rows, RefusesShapesThatDoNotFit) {
  std::vector<float> v(100);
  OwnedGroups g(2);
  const int32_t ids[] = {0, 1};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    EXPECT_THROW(dev.ops->gather_rows(ctx, mat(v, 2, 3), cmat(v, 2, 4), ids, 2), std::logic_error);
    EXPECT_THROW(dev.ops->gather_rows(ctx, mat(v, 1, 3), cmat(v, 2, 3), ids, 2), std::logic_error);
    EXPECT_THROW(dev.ops->copy_rows(ctx, mat(v, 2, 3), cmat(v, 2, 4), g.g.rows), std::logic_error);
    EXPECT_THROW(dev.ops->segment_sum(ctx, mat(v, 2, 3), cmat(v, 2, 4), g.g, true, false), std::logic_error);
    dev.ops->fill_zero(ctx, Mat{});
  }
}

}  // namespace
}  // namespace ccdrec::test::rows_test
