#include "kernels/knn.h"

#include <set>
#include <tuple>

#include "kernels/cpu/fast/microkernel.h"
#include "tests/support.h"

namespace ccdrec::test::knn_test {
namespace {

struct Case {
  const char* name;
  int64_t I, F, k;
  bool centre;
};
const Case kCases[] = {{"one row", 1, 5, 1, false},
                       {"itself only", 9, 4, 1, false},
                       {"k is I", 12, 37, 12, false},
                       {"one past a tile", 97, 257, 10, false},
                       {"centred", 150, 64, 10, true},
                       {"two blocks of candidates", 600, 20, 7, true},
                       {"three blocks of F", 40, 700, 5, false},
                       {"one feature", 30, 1, 4, false},
                       {"no features", 35, 0, 3, false},
                       {"lists longer than a warp", 150, 9, 70, false},
                       {"whole order", 99, 12, 99, true},
                       {"a tile exactly", 64, 256, 33, false}};

std::vector<double> cosines(const Case& c, std::vector<float> x) {
  std::vector<double> y(x.begin(), x.end()), sim(size_t(c.I * c.I));
  for (int64_t f = 0; c.centre && f < c.F; ++f) {
    double mean = 0;
    for (int64_t i = 0; i < c.I; ++i) mean += y[size_t(i * c.F + f)] / double(c.I);
    for (int64_t i = 0; i < c.I; ++i) y[size_t(i * c.F + f)] -= mean;
  }
  auto dot = [&](int64_t i, int64_t j) {
    double s = 0;
    for (int64_t f = 0; f < c.F; ++f) s += y[size_t(i * c.F + f)] * y[size_t(j * c.F + f)];
    return s;
  };
  for (int64_t i = 0; i < c.I; ++i)
    for (int64_t j = 0; j < c.I; ++j)
      sim[size_t(i * c.I + j)] =
          dot(i, j) / (std::max(std::sqrt(dot(i, i)), 1e-12) * std::max(std::sqrt(dot(j, j)), 1e-12));
  return sim;
}

TEST(Knn, MatchesDoubleReference) {
  for (const Case& c : kCases) {
    Draw g;
    const auto x = g.floats(c.I * c.F, -1, 2);
    const auto sim = cosines(c, x);
    std::vector<int32_t> first;
    int64_t first_tied = -1;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : isa != std::string("portable") ? cpu_devices()
                               : c.I > 500                    ? fast_devices()
                                                              : devices()) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
        DeviceCtx ctx(dev);
        std::vector<int32_t> idx(size_t(c.I * c.k), -9);
        Cell<int64_t> tied(-1);
        dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, c.I, c.F), c.k, c.centre, 3);
        if (c.F > 1) { EXPECT_EQ(tied, 0); }
        for (int64_t i = 0; i < c.I; ++i) {
          const int32_t* row = &idx[size_t(i * c.k)];
          ASSERT_EQ(row[0], i);
          ASSERT_EQ(std::set<int32_t>(row, row + c.k).size(), size_t(c.k)) << "row " << i << " repeats an id";
          std::vector<double> others;
          for (int64_t j = 0; j < c.I; ++j)
            if (j != i) others.push_back(sim[size_t(i * c.I + j)]);
          std::sort(others.rbegin(), others.rend());
          for (int64_t j = 1; j < c.k; ++j) {
            ASSERT_TRUE(row[j] >= 0 && row[j] < c.I);
            ASSERT_LE(std::fabs(sim[size_t(i * c.I + row[j])] - others[size_t(j - 1)]), 1e-6)
                << "row " << i << " place " << j;
          }
        }
        // every device sums in the same order: the lists are the same on all
        if (first.empty()) first = idx, first_tied = tied;
        EXPECT_EQ(idx, first);
        EXPECT_EQ(tied, first_tied);
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

// More rows than similarities are kept at a time on any device, many of them equal.
TEST(SlowKnn, ListsGrowFromStripToStrip) {
  const int64_t I = 4200, F = 2, k = 4;
  Draw g;
  std::vector<float> x = g.floats(I * F);
  for (int64_t i = 0; i < I; i += 2) std::copy_n(x.begin() + (i * 1237 + 5) % 300 * F, F, x.begin() + i * F);
  std::vector<int32_t> first;
  int64_t first_tied = -1;
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> idx(size_t(I * k), -9);
    Cell<int64_t> tied(-1);
    dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, I, F), k, false, 3);
    if (first.empty()) first = idx, first_tied = tied;
    EXPECT_EQ(idx, first);
    EXPECT_EQ(tied, first_tied);
    EXPECT_GT(tied, I / 10);
  }
}

uint32_t tie_hash(uint32_t seed, int64_t row, int64_t candidate) {
  return draw(Stream{seed, Use::knn_tie}, uint32_t(row), uint32_t(candidate)).v[0];
}

// Brands of identical rows, scattered over tiles and blocks of candidates: within a brand the hash alone decides, and
// rows are tied where it cut.
void ties_by_hash(const int64_t I, const int64_t brands, const std::vector<Device>& on) {
  const int64_t F = 19, k = 6;
  Draw g;
  const auto brand = g.floats(brands * F);
  std::vector<int64_t> of;
  std::vector<float> x;
  for (int64_t i = 0; i < I; ++i) {
    of.push_back(i < 4 ? i : 4 + i % (brands - 4));  // brands 0..3 have one row
    x.insert(x.end(), brand.begin() + of.back() * F, brand.begin() + (of.back() + 1) * F);
  }
  for (const Device& dev : on) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> idx(size_t(I * k)), again(size_t(I * k));
    Cell<int64_t> tied(-1);
    dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, I, F), k, false, 5);
    EXPECT_EQ(tied, I);  // also for a lonely row: its neighbours are one whole brand, of at least 7 rows
    for (int64_t i = 0; i < I; ++i) {
      const int32_t* row = &idx[size_t(i * k)];
      const int64_t b = of[size_t(row[1])];
      if (i >= 4) { ASSERT_EQ(b, of[size_t(i)]) << i; }
      if (b < 4) continue;  // a lonely row whose nearest is lonely
      std::vector<std::pair<uint32_t, int32_t>> want;
      for (int64_t j = 4; j < I; ++j)
        if (j != i && of[size_t(j)] == b) want.emplace_back(tie_hash(5, i, j), int32_t(j));
      std::sort(want.begin(), want.end());
      for (int64_t j = 1; j < k; ++j) ASSERT_EQ(row[j], want[size_t(j - 1)].second) << "row " << i << " place " << j;
    }
    dev.ops->knn_cosine(ctx, again.data(), &tied, cmat(x, I, F), k, false, 6);
    EXPECT_NE(idx, again) << "the seed decides ties";
  }
}
TEST(Knn, ExactTiesAreDecidedByTheHash) {
  ties_by_hash(1100, 40, fast_devices());
  ties_by_hash(210, 16, devices());
}

// Brands of 1 to 12 identical rows, zero rows among them, in several blocks of candidates: the whole list against a
// sort of double similarities, where only places whose similarity another brand shares to rounding are left open.
void duplicates_against_a_sort(const int64_t I, const std::vector<Device>& on) {
  for (const bool centre : {false, true}) {
    const Case c{"duplicates", I, 23, 8, centre};
    Draw g;
    std::vector<float> x;
    for (int64_t left = 0; int64_t(x.size()) < c.I * c.F; --left) {
      static std::vector<float> brand;
      if (left == 0)
        left = 1 + g.below(12), brand = g.below(40) == 0 ? std::vector<float>(size_t(c.F), 0.0f) : g.floats(c.F, -1, 2);
      x.insert(x.end(), brand.begin(), brand.end());
    }
    std::vector<float> shuffled(x.size());  // brands scattered: 613 is coprime to I
    for (int64_t i = 0; i < c.I; ++i) std::copy_n(x.begin() + i * 613 % c.I * c.F, c.F, shuffled.begin() + i * c.F);
    const auto sim = cosines(c, shuffled);
    std::vector<std::vector<int32_t>> want;
    std::vector<std::vector<bool>> sure;
    int64_t tied_least = 0, tied_most = 0;
    for (int64_t i = 0; i < c.I; ++i) {
      struct Other {
        double sim;
        uint32_t hash;
        int32_t id;
      };
      std::vector<Other> others;
      for (int32_t j = 0; j < c.I; ++j)
        if (j != i) others.push_back({sim[size_t(i * c.I + j)], tie_hash(5, i, j), j});
      std::sort(others.begin(), others.end(), [](const Other& a, const Other& b) {
        return std::tie(b.sim, a.hash, a.id) < std::tie(a.sim, b.hash, b.id);
      });
      want.push_back({int32_t(i)}), sure.push_back({true});
      // j and j+1
      const auto near = [&](size_t j) {
        return others[j].sim != others[j + 1].sim && others[j].sim - others[j + 1].sim < 1e-6;
      };
      for (size_t j = 0; j + 1 < size_t(c.k); ++j) {
        size_t from = j, to = j;  // the brand at place j
        while (from > 0 && others[from - 1].sim == others[j].sim) --from;
        while (to + 2 < others.size() && others[to + 1].sim == others[j].sim) ++to;
        want.back().push_back(others[j].id), sure.back().push_back(!(from > 0 && near(from - 1)) && !near(to));
      }
      tied_least += others[size_t(c.k - 2)].sim == others[size_t(c.k - 1)].sim;
      tied_most += others[size_t(c.k - 2)].sim - others[size_t(c.k - 1)].sim < 1e-6;
    }
    EXPECT_GT(tied_least, c.I / 10);
    EXPECT_LT(tied_most, c.I * 9 / 10);
    std::vector<int32_t> first;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : isa == std::string("portable") ? on : cpu_devices()) {
        SCOPED_TRACE(std::string(centre ? "centred on " : "on ") + dev.name + " with " + isa);
        DeviceCtx ctx(dev);
        std::vector<int32_t> idx(size_t(c.I * c.k));
        Cell<int64_t> tied(-1);
        dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(shuffled, c.I, c.F), c.k, centre, 5);
        EXPECT_GE(tied, tied_least);
        EXPECT_LE(tied, tied_most);
        for (int64_t i = 0; i < c.I; ++i)
          for (int64_t j = 0; j < c.k; ++j) {
            if (!sure[size_t(i)][size_t(j)]) continue;
            ASSERT_EQ(idx[size_t(i * c.k + j)], want[size_t(i)][size_t(j)]) << "row " << i << " place " << j;
          }
        if (first.empty()) first = idx;
        EXPECT_EQ(idx, first);
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}
TEST(Knn, ListsWithDuplicatesEqualABruteForceSort) {
  duplicates_against_a_sort(1061, fast_devices());
  duplicates_against_a_sort(331, devices());
}

TEST(Knn, RowsAllAlikeAreZeroWhenCentred) {  // every similarity is 0 exactly, every order the hash's
  const int64_t I = 530, F = 37, k = 4;
  Draw g;
  const auto row = g.floats(F);
  std::vector<float> x;
  for (int64_t i = 0; i < I; ++i) x.insert(x.end(), row.begin(), row.end());
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> idx(size_t(I * k));
    Cell<int64_t> tied(-1);
    dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, I, F), k, true, 9);
    EXPECT_EQ(tied, I);
    for (int64_t i = 0; i < I; i += 37) {
      std::vector<std::pair<uint32_t, int32_t>> want;
      for (int64_t j = 0; j < I; ++j)
        if (j != i) want.emplace_back(tie_hash(9, i, j), int32_t(j));
      std::sort(want.begin(), want.end());
      for (int64_t j = 1; j < k; ++j) ASSERT_EQ(idx[size_t(i * k + j)], want[size_t(j - 1)].second) << "row " << i;
    }
  }
}

TEST(Knn, RowsOfZerosAreNeighboursOfNobodyInParticular) {
  const int64_t I = 50, F = 8, k = 5;
  Draw g;
  auto x = g.floats(I * F, 0.1f, 1);  // all similarities positive
  for (int64_t i : {7, 31}) std::fill_n(x.begin() + i * F, F, 0.0f);
  std::vector<std::pair<uint32_t, int32_t>> want;
  for (int64_t j = 0; j < I; ++j)
    if (j != 7) want.emplace_back(tie_hash(1, 7, j), int32_t(j));
  std::sort(want.begin(), want.end());
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> idx(size_t(I * k));
    Cell<int64_t> tied(-1);
    dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, I, F), k, false, 1);
    EXPECT_EQ(tied, 2);
    for (int64_t i = 0; i < I; ++i) {
      const int32_t* row = &idx[size_t(i * k)];
      EXPECT_EQ(row[0], i);
      for (int64_t j = 1; i != 7 && i != 31 && j < k; ++j) { EXPECT_TRUE(row[j] != 7 && row[j] != 31); }
    }
    for (int64_t j = 1; j < k; ++j) EXPECT_EQ(idx[size_t(7 * k + j)], want[size_t(j - 1)].second);
  }
}

// A seed found by search: among 70 equal rows, the hashes at places 6 and 7 of row 33 are the same 32 bits.
TEST(Knn, EqualHashesGoToTheLowerId) {
  const int64_t I = 70, k = 9, row = 33;
  const uint32_t seed = 223083;
  const std::vector<float> x(size_t(I * 4));
  std::vector<std::pair<uint32_t, int32_t>> want;
  for (int64_t j = 0; j < I; ++j)
    if (j != row) want.emplace_back(tie_hash(seed, row, j), int32_t(j));
  std::sort(want.begin(), want.end());
  ASSERT_EQ(want[5].first, want[6].first);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> idx(size_t(I * k));
    Cell<int64_t> tied(-1);
    dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, I, 4), k, false, seed);
    EXPECT_EQ(tied, I);
    for (int64_t j = 1; j < k; ++j) EXPECT_EQ(idx[size_t(row * k + j)], want[size_t(j - 1)].second) << "place " << j;
  }
}

TEST(Knn, NanRowsComeLast) {
  const int64_t I = 20, F = 3, k = 18;
  Draw g;
  auto x = g.floats(I * F);
  x[5 * F] = NAN;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<int32_t> idx(size_t(I * k));
    Cell<int64_t> tied(-1);
    dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, I, F), k, false, 1);
    for (int64_t i = 0; i < I; ++i) {
      EXPECT_EQ(std::set<int32_t>(&idx[size_t(i * k)], &idx[size_t(i * k)] + k).size(), size_t(k));
      for (int64_t j = 1; i != 5 && j < k; ++j) EXPECT_NE(idx[size_t(i * k + j)], 5);
    }
  }
}

TEST(Knn, RefusesMoreNeighboursThanRows) {
  std::vector<float> x(12);
  std::vector<int32_t> idx(100);
  Cell<int64_t> tied;
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    EXPECT_THROW(dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, 4, 3), 5, false, 1), std::logic_error);
    EXPECT_THROW(dev.ops->knn_cosine(ctx, idx.data(), &tied, cmat(x, 4, 3), 0, false, 1), std::logic_error);
  }
}

}  // namespace
}  // namespace ccdrec::test::knn_test
