#include "kernels/propagate.h"

#include "tests/kernels/graphs.h"

namespace ccdrec::test {
namespace {

struct Case {
  const char* name;
  int64_t U, I, longest, d;
  int layers, wanted;
};
const Case kCases[] = {{"no layers", 9, 7, 4, 64, 0, 5},           {"one layer", 30, 40, 12, 64, 1, 6},
                       {"two layers", 300, 200, 9, 64, 2, 10},     {"three layers, odd width", 60, 50, 10, 37, 3, 4},
                       {"isolated nodes", 20, 20, 0, 64, 2, 7},    {"nothing wanted", 20, 30, 6, 64, 2, 0},
                       {"everything wanted", 25, 25, 6, 64, 2, 50}};

// Layer-averaged propagation in double: (1/(L+1)) sum_l A^l E0. Masses follow the same recursion with absolute values.
std::vector<Ref> prop(const TestCsr& a, const std::vector<float>& e0, int64_t d, int layers) {
  std::vector<Ref> layer(e0.size()), sum;
  for (size_t i = 0; i < e0.size(); ++i) layer[i].add(e0[i]);
  sum = layer;
  for (int l = 0; l < layers; ++l) {
    std::vector<Ref> next(e0.size());
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e)
        for (int64_t j = 0; j < d; ++j) {
          const Ref& x = layer[size_t(a.col[size_t(e)] * d + j)];
          next[size_t(r * d + j)].value += double(a.val[size_t(e)]) * x.value;
          next[size_t(r * d + j)].mass += std::fabs(double(a.val[size_t(e)])) * x.mass;
        }
    layer = next;
    for (size_t i = 0; i < sum.size(); ++i) sum[i].value += layer[i].value, sum[i].mass += layer[i].mass;
  }
  for (Ref& s : sum) s.value /= layers + 1, s.mass /= layers + 1;
  return sum;
}

struct Lists {  // the memory behind a frontier
  std::vector<OwnedList> rows;
  std::vector<std::vector<uint8_t>> mask;
  Frontier f;
  Lists(int64_t N, int layers) {
    f.layers = layers;
    for (int l = 0; l <= layers; ++l) rows.emplace_back(N), mask.emplace_back(size_t(N), uint8_t(9));
    for (int l = 0; l <= layers; ++l) f.rows[l] = rows[size_t(l)].list(), f.mask[l] = mask[size_t(l)].data();
  }
};
struct Layers {
  std::vector<std::vector<float>> data;
  std::vector<Mat> view;
  Layers(int64_t N, int64_t d, int layers) : data(size_t(layers), std::vector<float>(size_t(N * d), NAN)) {
    for (auto& m : data) view.push_back({m.data(), N, d});
  }
};

std::vector<int32_t> some_nodes(Draw& g, int64_t N, int wanted) {
  std::set<int32_t> s;
  while (int(s.size()) < wanted) s.insert(g.below(int32_t(N)));
  return {s.begin(), s.end()};
}

TEST(Propagate, FrontierIsTheClosureOfTheSeed) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
    const auto seed = some_nodes(g, a.rows, c.wanted);
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Ctx ctx(dev.threads);
      Lists lists(a.rows, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, lists.f, c.layers ? a.view() : Csr{}, s.list());
      std::set<int32_t> want(seed.begin(), seed.end());
      for (int l = c.layers; l >= 0; --l) {
        EXPECT_EQ(lists.rows[size_t(l)].values(), std::vector<int32_t>(want.begin(), want.end())) << "layer " << l;
        for (int64_t r = 0; r < a.rows; ++r) ASSERT_EQ(lists.mask[size_t(l)][size_t(r)], want.count(int32_t(r))) << "layer " << l << " row " << r;
        for (int32_t r : std::vector<int32_t>(want.begin(), want.end()))
          for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e) want.insert(a.col[size_t(e)]);
      }
      Lists all(a.rows, c.layers);
      dev.ops->frontier(ctx, all.f, a.view(), RowList{nullptr, nullptr, a.rows});
      for (int l = 0; l <= c.layers; ++l) {
        EXPECT_EQ(all.f.rows[l].idx, nullptr);
        EXPECT_EQ(all.f.rows[l].n(), a.rows);
        EXPECT_EQ(all.f.mask[l], nullptr);
      }
    }
  }
}

TEST(Propagate, ListedRowsEqualTheFullComputationAndTheReference) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
    const int64_t N = a.rows, d = c.d;
    const auto seed = some_nodes(g, N, c.wanted);
    const auto e0 = g.floats(N * d), h0 = g.floats(N * d);
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Ctx ctx(dev.threads);
      Lists all(N, c.layers), some(N, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, all.f, a.view(), RowList{nullptr, nullptr, N});
      dev.ops->frontier(ctx, some.f, a.view(), s.list());
      std::vector<float> full(size_t(N * d), NAN), listed = h0, e0_listed = e0;
      for (int64_t r = 0; r < N; ++r)  // E0 is read on rows[0] only
        for (int64_t j = 0; !some.mask[0][size_t(r)] && j < d; ++j) e0_listed[size_t(r * d + j)] = NAN;
      Layers w1(N, d, c.layers), w2(N, d, c.layers);
      dev.ops->propagate(ctx, mat(full, N, d), w1.view.data(), a.view(), all.f, cmat(e0, N, d));
      dev.ops->propagate(ctx, mat(listed, N, d), w2.view.data(), a.view(), some.f, cmat(e0_listed, N, d));
      EXPECT_TRUE(close(full, prop(a, e0, d, c.layers), 1e-6));
      for (int64_t r = 0; r < N; ++r) {
        const bool in = std::binary_search(seed.begin(), seed.end(), int32_t(r));
        for (int64_t j = 0; j < d; ++j) ASSERT_EQ(listed[size_t(r * d + j)], in ? full[size_t(r * d + j)] : h0[size_t(r * d + j)]) << r << "," << j;
      }
    }
  }
}

TEST(Propagate, BackwardIsTheAdjointAndZeroOutsideItsRows) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
    const int64_t N = a.rows, d = c.d;
    const auto seed = some_nodes(g, N, c.wanted);
    const auto g0 = g.floats(N * d), out0 = g.floats(N * d);
    std::vector<float> g_zero(size_t(N * d)), g_nan(size_t(N * d), NAN);  // outside rows[L] the memory of G holds anything
    for (int32_t r : seed)
      for (int64_t j = 0; j < d; ++j) g_zero[size_t(r * d + j)] = g_nan[size_t(r * d + j)] = g0[size_t(r * d + j)];
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Ctx ctx(dev.threads);
      Lists all(N, c.layers), some(N, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, all.f, a.view(), RowList{nullptr, nullptr, N});
      dev.ops->frontier(ctx, some.f, a.view(), s.list());
      std::vector<float> full(size_t(N * d), NAN), listed = out0;
      Layers w1(N, d, c.layers), w2(N, d, c.layers);
      dev.ops->propagate_backward(ctx, mat(full, N, d), w1.view.data(), a.view(), all.f, cmat(g_zero, N, d));
      dev.ops->propagate_backward(ctx, mat(listed, N, d), w2.view.data(), a.view(), some.f, cmat(g_nan, N, d));
      EXPECT_TRUE(close(full, prop(a, g_zero, d, c.layers), 1e-6));
      for (int64_t r = 0; r < N; ++r)
        for (int64_t j = 0; j < d; ++j) {
          const size_t i = size_t(r * d + j);
          if (some.mask[0][size_t(r)]) {
            ASSERT_EQ(listed[i], full[i]) << r << "," << j;
          } else {
            ASSERT_EQ(full[i], 0.0f) << r << "," << j;
            ASSERT_EQ(listed[i], out0[i]) << r << "," << j;
          }
        }
      // <G, prop(E0)> = <prop^T(G), E0>
      const auto e0 = g.floats(N * d);
      std::vector<float> h(size_t(N * d), NAN);
      dev.ops->propagate(ctx, mat(h, N, d), w1.view.data(), a.view(), all.f, cmat(e0, N, d));
      double by_h = 0, by_e = 0, mass = 0;
      for (size_t i = 0; i < h.size(); ++i)
        by_h += double(g_zero[i]) * h[i], by_e += double(full[i]) * e0[i], mass += std::fabs(double(full[i]) * e0[i]);
      EXPECT_LE(std::fabs(by_h - by_e), 2e-6 * mass + 1e-30);
    }
  }
}

}  // namespace
}  // namespace ccdrec::test
