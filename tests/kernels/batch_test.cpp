#include "kernels/batch.h"

#include "tests/kernels/graphs.h"

namespace ccdrec::test::batch_test {
namespace {

const int64_t kSizes[] = {0, 1, 5, 37, 255, 256, 257, 1000};

TEST(Batch, TakeFollowsTheOrderFromItsFirstEntry) {
  for (const int64_t n : kSizes)
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(n) + " on " + dev.name);
      Draw g;
      DeviceCtx ctx(dev);
      const int64_t first = 11;
      std::vector<int32_t> table(50), order(size_t(first + n + 3), 0), out(size_t(n + 2), -9);
      for (int32_t& x : table) x = g.below(1 << 30);
      for (int32_t& x : order) x = g.below(50);  // with repetitions
      dev.ops->take(ctx, out.data(), table.data(), order.data(), first, n);
      for (int64_t j = 0; j < n; ++j) EXPECT_EQ(out[size_t(j)], table[size_t(order[size_t(first + j)])]) << j;
      EXPECT_EQ(out[size_t(n)], -9) << "wrote past the end";
      if (dev.family == "cpu") continue;
      dev.ops->set_late(ctx, Late{3, 2, first - 1, 9});  // the first entry as a recorded step names it
      std::vector<int32_t> late(size_t(n + 2), -9);
      dev.ops->take(ctx, late.data(), table.data(), order.data(), kLateFirst + 1, n);
      EXPECT_EQ(late, out);
    }
}

TEST(Batch, OffsetIdsAlsoInPlace) {
  for (const int64_t n : kSizes)
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(n) + " on " + dev.name);
      Draw g;
      DeviceCtx ctx(dev);
      std::vector<int32_t> in(size_t(n + 1), 0), out(size_t(n + 2), -9);
      for (int32_t& x : in) x = g.below(1 << 20);
      dev.ops->offset_ids(ctx, out.data(), in.data(), n, 19445);
      for (int64_t j = 0; j < n; ++j) EXPECT_EQ(out[size_t(j)], in[size_t(j)] + 19445) << j;
      EXPECT_EQ(out[size_t(n)], -9) << "wrote past the end";
      const int32_t behind = in.back();
      dev.ops->offset_ids(ctx, in.data(), in.data(), n, 19445);
      EXPECT_TRUE(std::equal(out.begin(), out.begin() + n, in.begin()));
      EXPECT_EQ(in.back(), behind);
    }
}

struct Case {
  const char* name;
  int64_t slots, groups, d;
};
const Case kCases[] = {{"no slots", 0, 0, 8},
                       {"one of each", 1, 1, 1},
                       {"odd width", 23, 9, 37},
                       {"all in one group", 40, 1, 64},
                       {"each its own group", 30, 30, 5},
                       {"many", 700, 90, 64},
                       {"a block of groups", 50, 8, 64},
                       {"a block and a group", 50, 9, 130},
                       {"a popular group", 2000, 2, 4}};

TEST(Batch, ExpandRowsGivesEverySlotTheRowOfItsGroup) {
  for (const Case& c : kCases)
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Draw g;
      DeviceCtx ctx(dev);
      std::vector<std::vector<int32_t>> member(static_cast<size_t>(c.groups));
      for (int32_t s = 0; s < c.slots; ++s)
        member[s < c.groups ? size_t(s) : size_t(g.below(int32_t(c.groups)))].push_back(s);
      std::vector<int32_t> ptr = {0}, slot;
      for (const auto& m : member) slot.insert(slot.end(), m.begin(), m.end()), ptr.push_back(int32_t(slot.size()));
      Cell<int64_t> n = c.groups;
      const int64_t capacity = c.groups + 3;
      ptr.resize(size_t(capacity + 1), 1 << 30);  // beyond the groups in use: nothing to be read
      Groups groups;
      groups.rows = {nullptr, &n, capacity}, groups.ptr = ptr.data(), groups.slot = slot.data();
      const auto x = g.floats(capacity * c.d);
      std::vector<float> y(size_t((c.slots + 1) * c.d), NAN);
      std::fill(y.end() - c.d, y.end(), 99.0f);
      dev.ops->expand_rows(ctx, mat(y, c.slots, c.d), cmat(x, capacity, c.d), groups);
      for (int64_t j = 0; j < c.groups; ++j)
        for (const int32_t s : member[size_t(j)])
          for (int64_t k = 0; k < c.d; ++k) EXPECT_EQ(y[size_t(s * c.d + k)], x[size_t(j * c.d + k)]) << "slot " << s;
      EXPECT_TRUE(std::all_of(y.end() - c.d, y.end(), [](float v) { return v == 99.0f; })) << "wrote past the end";
    }
}

TEST(Batch, ExpandRowsIsTheAdjointOfSegmentSum) {  // <dX, sum of slots> == <expanded dX, slots>
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Draw g;
    DeviceCtx ctx(dev);
    const int64_t slots = 60, R = 17, d = 37;
    std::vector<int32_t> id, list(size_t(slots), 0), ptr(size_t(slots + 1), 0), slot(size_t(slots), 0);
    for (int64_t s = 0; s < slots; ++s) id.push_back(g.below(int32_t(R)));
    Cell<int64_t> n = 0;
    Groups groups;
    groups.rows = {list.data(), &n, slots}, groups.ptr = ptr.data(), groups.slot = slot.data();
    dev.ops->group(ctx, groups, id.data(), slots, R);
    ASSERT_GT(n, 1);
    const auto y = g.floats(slots * d), dx = g.floats(slots * d);
    std::vector<float> sum(size_t(slots * d)), dy(size_t(slots * d), NAN);
    dev.ops->segment_sum(ctx, mat(sum, slots, d), cmat(y, slots, d), groups, false, false);
    dev.ops->expand_rows(ctx, mat(dy, slots, d), cmat(dx, slots, d), groups);
    double left = 0, right = 0;
    for (int64_t i = 0; i < n * d; ++i) left += double(dx[size_t(i)]) * sum[size_t(i)];
    for (int64_t i = 0; i < slots * d; ++i) right += double(dy[size_t(i)]) * y[size_t(i)];
    EXPECT_NEAR(left, right, 1e-4);
  }
}

TEST(Batch, AddRowsAddsListedRowsAndNoOthers) {
  for (const Case& c : kCases)
    for (const bool all : {false, true})
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + (all ? ", all rows" : ""));
        Draw g;
        DeviceCtx ctx(dev);
        const int64_t R = c.slots, y_first = 4, below = 2;
        const auto x = g.floats(R * c.d), y0 = g.floats((y_first + R + below) * c.d);
        auto y = y0, want = y0;
        std::vector<int32_t> listed;
        for (int32_t r = 0; r < R; ++r) {
          if (!all && g.below(3)) continue;
          listed.push_back(r);
          for (int64_t k = 0; k < c.d; ++k) want[size_t((y_first + r) * c.d + k)] += x[size_t(r * c.d + k)];
        }
        OwnedList rows(listed);
        dev.ops->add_rows(ctx, mat(y, y_first + R + below, c.d), cmat(x, R, c.d),
                          all ? RowList{nullptr, nullptr, R} : rows.list(), y_first);
        EXPECT_EQ(y, want);
      }
}

TEST(Batch, RefusesWidthsThatDiffer) {
  std::vector<float> v(100);
  int32_t ptr[2] = {0, 0};
  Groups groups;
  groups.rows = {nullptr, nullptr, 0}, groups.ptr = ptr;
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    EXPECT_THROW(dev.ops->expand_rows(ctx, mat(v, 2, 3), cmat(v, 2, 4), groups), std::logic_error);
    EXPECT_THROW(dev.ops->add_rows(ctx, mat(v, 2, 3), cmat(v, 2, 4), {nullptr, nullptr, 2}, 0), std::logic_error);
  }
}

}  // namespace
}  // namespace ccdrec::test::batch_test
