#include "kernels/propagate.h"

#include <fmt/format.h>

#include "tests/kernels/graphs.h"

namespace ccdrec::test::propagate_test {
namespace {

struct Case {
  const char* name;
  int64_t U, I, longest, d;
  int layers, wanted;
};
const Case kCases[] = {{"no layers", 9, 7, 4, 64, 0, 5},
                       {"one layer", 30, 40, 12, 64, 1, 6},
                       {"two layers", 300, 200, 9, 64, 2, 10},
                       {"three layers, odd width", 60, 50, 10, 37, 3, 4},
                       {"isolated nodes", 20, 20, 0, 64, 2, 7},
                       {"nothing wanted", 20, 30, 6, 64, 2, 0},
                       {"half wanted", 300, 200, 9, 64, 2, 250},
                       {"everything wanted", 25, 25, 6, 64, 2, 50},
                       {"a popular node", 3, 700, 700, 8, 2, 3},
                       {"a node of thousands", 4, 3000, 3000, 65, 2, 3},
                       {"as many layers as there may be", 30, 20, 5, 4, 8, 2}};

// Hundreds of terms of one sign: roundings add up.
double tolerance(const Case& c) { return c.longest > 256 ? 4e-6 : 1e-6; }

// y += A x, masses with absolute values.
void add_product(std::vector<Ref>& y, const TestCsr& a, const std::vector<Ref>& x, int64_t d) {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e)
      for (int64_t j = 0; j < d; ++j) {
        const Ref& from = x[size_t(a.col[size_t(e)] * d + j)];
        y[size_t(r * d + j)].value += double(a.val[size_t(e)]) * from.value;
        y[size_t(r * d + j)].mass += std::fabs(double(a.val[size_t(e)])) * from.mass;
      }
}

// Layer-averaged propagation in double: (1/(L+1)) sum_l A^l E0. Masses follow the same recursion with absolute values.
std::vector<Ref> prop(const TestCsr& a, const std::vector<float>& e0, int64_t d, int layers) {
  std::vector<Ref> layer(e0.size()), sum;
  for (size_t i = 0; i < e0.size(); ++i) layer[i].add(e0[i]);
  sum = layer;
  for (int l = 0; l < layers; ++l) {
    std::vector<Ref> next(e0.size());
    add_product(next, a, layer, d);
    layer = next;
    for (size_t i = 0; i < sum.size(); ++i) sum[i].value += layer[i].value, sum[i].mass += layer[i].mass;
  }
  for (Ref& s : sum) s.value /= layers + 1, s.mass /= layers + 1;
  return sum;
}

// A that differs from its transpose: in values alone, or in what is linked to what as well.
struct OneWay {
  const char* name;
  TestCsr a, a_t;
};
std::vector<OneWay> one_way(Draw& g, const Case& c) {
  TestCsr values = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
  for (float& w : values.val) w = g.uniform();
  const TestCsr links = skewed_csr(g, c.U + c.I, c.U + c.I, c.longest);
  return {{"other values each way", values, values.transposed()}, {"other links each way", links, links.transposed()}};
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
  if (wanted > 0) s.insert(0);  // of the popular ones, where there are any
  while (int(s.size()) < wanted) s.insert(g.below(int32_t(N)));
  return {s.begin(), s.end()};
}

// symmetric, as the interactions are, and one way, as nearest neighbours are
std::vector<std::pair<Case, bool>> cases_of_both_kinds() {
  std::vector<std::pair<Case, bool>> both;
  for (const Case& c : kCases) both.emplace_back(c, true), both.emplace_back(c, false);
  return both;
}

TEST(Propagate, FrontierIsTheClosureOfTheSeed) {
  for (const auto& [c, symmetric] : cases_of_both_kinds()) {
    Draw g;
    const int64_t N = c.U + c.I;
    const TestCsr a = symmetric ? two_sided(g, skewed_csr(g, c.U, c.I, c.longest)) : skewed_csr(g, N, N, c.longest),
                  a_t = a.transposed();
    const auto seed = some_nodes(g, N, c.wanted);
    for (const Device& dev : devices()) {
      SCOPED_TRACE(fmt::format("{}, {} on {}", c.name, symmetric ? "symmetric" : "one way", dev.name));
      DeviceCtx ctx(dev);
      Lists lists(a.rows, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, lists.f, c.layers ? a.view() : Csr{}, c.layers ? a_t.view() : Csr{}, s.list());
      std::set<int32_t> want(seed.begin(), seed.end());
      for (int l = c.layers; l >= 0; --l) {
        EXPECT_EQ(lists.rows[size_t(l)].values(), std::vector<int32_t>(want.begin(), want.end())) << "layer " << l;
        for (int64_t r = 0; r < a.rows; ++r)
          ASSERT_EQ(lists.mask[size_t(l)][size_t(r)], want.count(int32_t(r))) << "layer " << l << " row " << r;
        for (int32_t r : std::vector<int32_t>(want.begin(), want.end()))
          for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e) want.insert(a.col[size_t(e)]);
      }
      Lists all(a.rows, c.layers);
      dev.ops->frontier(ctx, all.f, a.view(), a_t.view(), RowList{nullptr, nullptr, a.rows});
      for (int l = 0; l <= c.layers; ++l) {
        EXPECT_EQ(all.f.rows[l].idx, nullptr);
        EXPECT_EQ(all.f.rows[l].n(), a.rows);
        EXPECT_EQ(all.f.mask[l], nullptr);
      }
    }
  }
}

// What only many nodes show: masks of more than one block, and their ends; a seed list with room to spare; masks at any
// address.
TEST(Propagate, FrontierOfManyNodes) {
  for (const int64_t N : {16383, 16384, 16385, 40007})
    for (const int64_t shift : {0, 3}) {
      Draw g;
      const TestCsr a = two_sided(g, skewed_csr(g, N / 2, N - N / 2, 200));
      std::set<int32_t> want;
      for (int k = 0; k < 300; ++k) want.insert(g.below(int32_t(N)));
      want.insert({0, 14, 15, 16, 17, int32_t(N - 1)});
      OwnedList seed(900);
      std::copy(want.begin(), want.end(), seed.idx.begin());
      *&seed.count = int64_t(want.size());
      const std::set<int32_t> given = want;
      for (const int32_t r : given)
        for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e) want.insert(a.col[size_t(e)]);
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::to_string(N) + " nodes on " + dev.name);
        DeviceCtx ctx(dev);
        Lists lists(N, 1);
        std::vector<std::vector<uint8_t>> mask(2, std::vector<uint8_t>(size_t(N + shift + 1), uint8_t(9)));
        for (int l = 0; l < 2; ++l) lists.f.mask[l] = mask[size_t(l)].data() + shift;
        dev.ops->frontier(ctx, lists.f, a.view(), a.view(), seed.list());
        EXPECT_EQ(lists.rows[1].values(), std::vector<int32_t>(given.begin(), given.end()));
        EXPECT_EQ(lists.rows[0].values(), std::vector<int32_t>(want.begin(), want.end()));
        for (int l = 0; l < 2; ++l) {
          const std::set<int32_t>& in = l ? given : want;
          for (int64_t r = 0; r < N; ++r) ASSERT_EQ(lists.f.mask[l][r], in.count(int32_t(r))) << r;
          EXPECT_EQ(mask[size_t(l)].back(), 9) << "wrote past the end";
        }
      }
    }
}

TEST(Propagate, FrontierRefusesListsThatAreTooShort) {
  Draw g;
  const TestCsr a = two_sided(g, skewed_csr(g, 20, 20, 10));
  for (const Device& dev : devices())
    for (const int narrow : {0, 1}) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      Lists lists(a.rows, 1);
      lists.f.rows[narrow].capacity = 2;
      OwnedList seed(std::vector<int32_t>{0, 1, 25});
      if (dev.family == "cpu") {
        EXPECT_THROW(dev.ops->frontier(ctx, lists.f, a.view(), a.view(), seed.list()), std::logic_error);
        continue;
      }
      dev.ops->frontier(ctx, lists.f, a.view(), a.view(), seed.list());
      EXPECT_NE(dev.ops->take_fault(ctx), 0);
      EXPECT_EQ(lists.rows[size_t(narrow)].count, 2);
      EXPECT_EQ(lists.rows[size_t(narrow)].idx[2], -7) << "wrote past the end";
    }
}

TEST(Propagate, SeedMayBeTheListItself) {
  Draw g;
  const TestCsr a = two_sided(g, skewed_csr(g, 20, 20, 10));
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    Lists lists(a.rows, 1);
    lists.rows[1].idx[0] = 3, lists.rows[1].idx[1] = 39;
    *&lists.rows[1].count = 2;
    dev.ops->frontier(ctx, lists.f, a.view(), a.view(), lists.rows[1].list());
    EXPECT_EQ(lists.rows[1].values(), (std::vector<int32_t>{3, 39}));
    EXPECT_EQ(lists.mask[1][3] + lists.mask[1][39], 2);
    EXPECT_EQ(std::count(lists.mask[1].begin(), lists.mask[1].end(), 0), a.rows - 2);
  }
}

// More listed rows than one grid of the CUDA operations covers: blocks take turns.
TEST(Propagate, MoreListedRowsThanBlocks) {
  Draw g;
  const int64_t N = 4096 * 8 + 900, d = 1;
  TestCsr a;
  a.rows = a.cols = N;
  for (int64_t r = 0; r < N; ++r) a.push({{int32_t(N - 1 - r), 0.5f}});  // symmetric
  std::vector<int32_t> nodes(static_cast<size_t>(N));
  for (int64_t r = 0; r < N; ++r) nodes[size_t(r)] = int32_t(r);
  const auto e0 = g.floats(N * d);
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    Lists lists(N, 1);
    OwnedList seed(nodes);
    dev.ops->frontier(ctx, lists.f, a.view(), a.view(), seed.list());
    EXPECT_EQ(lists.rows[0].values(), nodes);
    std::vector<float> h(size_t(N), NAN), back(size_t(N), NAN);
    Layers w(N, d, 1);
    dev.ops->propagate(ctx, mat(h, N, d), w.view.data(), a.view(), lists.f, cmat(e0, N, d));
    dev.ops->propagate_backward(ctx, mat(back, N, d), w.view.data(), a.view(), lists.f, cmat(e0, N, d));
    EXPECT_TRUE(close(h, prop(a, e0, d, 1), 1e-6));
    EXPECT_TRUE(close(back, prop(a, e0, d, 1), 1e-6));
  }
}

TEST(Propagate, ListedRowsEqualTheFullComputationAndTheReference) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
    const int64_t N = a.rows, d = c.d;
    const auto seed = some_nodes(g, N, c.wanted);
    const auto e0 = g.floats(N * d), h0 = g.floats(N * d);
    SameBits same;
    for (Device dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      ctx.get().spmm = SpmmBy::own;
      Lists all(N, c.layers), some(N, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, all.f, a.view(), a.view(), RowList{nullptr, nullptr, N});
      dev.ops->frontier(ctx, some.f, a.view(), a.view(), s.list());
      std::vector<float> full(size_t(N * d), NAN), listed = h0, e0_listed = e0;
      for (int64_t r = 0; r < N; ++r)  // E0 is read on rows[0] only
        for (int64_t j = 0; !some.mask[0][size_t(r)] && j < d; ++j) e0_listed[size_t(r * d + j)] = NAN;
      Layers w1(N, d, c.layers), w2(N, d, c.layers);
      dev.ops->propagate(ctx, mat(full, N, d), w1.view.data(), a.view(), all.f, cmat(e0, N, d));
      dev.ops->propagate(ctx, mat(listed, N, d), w2.view.data(), a.view(), some.f, cmat(e0_listed, N, d));
      if (c.layers > 0) {  // the last layer need not be stored
        std::vector<float> lean = h0;
        Layers w3(N, d, c.layers);
        w3.view.back() = {};
        dev.ops->propagate(ctx, mat(lean, N, d), w3.view.data(), a.view(), some.f, cmat(e0_listed, N, d));
        EXPECT_EQ(lean, listed);
      }
      EXPECT_TRUE(close(full, prop(a, e0, d, c.layers), tolerance(c)));
      if (c.longest <= 256) dev.family = "all";  // on a GPU longer rows are summed in chunks
      EXPECT_TRUE(same(dev, "full", full));
      EXPECT_TRUE(same(dev, "listed", listed));
      for (int l = 0; l < c.layers; ++l) EXPECT_TRUE(same(dev, "layer " + std::to_string(l + 1), w2.data[size_t(l)]));
      for (int64_t r = 0; r < N; ++r) {
        const bool in = std::binary_search(seed.begin(), seed.end(), int32_t(r));
        for (int64_t j = 0; j < d; ++j)
          ASSERT_EQ(listed[size_t(r * d + j)], in ? full[size_t(r * d + j)] : h0[size_t(r * d + j)]) << r << "," << j;
      }
    }
  }
}

// All rows by cuSPARSE, layer by layer: within rounding. Listed rows have the same bits as without it.
TEST(Propagate, OfAllRowsByCusparse) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
    const int64_t N = a.rows, d = c.d;
    const auto seed = some_nodes(g, N, c.wanted);
    const auto e0 = g.floats(N * d), h0 = g.floats(N * d);
    SameBits same;
    for (const Device& dev : devices()) {
      if (dev.family == "cpu" || !gpu_info().cusparse) continue;
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      Lists all(N, c.layers), some(N, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, all.f, a.view(), a.view(), RowList{nullptr, nullptr, N});
      dev.ops->frontier(ctx, some.f, a.view(), a.view(), s.list());
      std::vector<float> full(size_t(N * d), NAN), own = h0, listed = h0;
      Layers w1(N, d, c.layers), w2(N, d, c.layers), w3(N, d, c.layers);
      ctx.get().spmm = SpmmBy::cusparse;
      dev.ops->propagate(ctx, mat(full, N, d), w1.view.data(), a.view(), all.f, cmat(e0, N, d));
      dev.ops->propagate(ctx, mat(listed, N, d), w2.view.data(), a.view(), some.f, cmat(e0, N, d));
      ctx.get().spmm = SpmmBy::own;
      dev.ops->propagate(ctx, mat(own, N, d), w3.view.data(), a.view(), some.f, cmat(e0, N, d));
      EXPECT_TRUE(close(full, prop(a, e0, d, c.layers), tolerance(c)));
      EXPECT_TRUE(same(dev, "full", full));
      EXPECT_EQ(listed, own);
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
    // outside rows[L] the memory of G holds anything
    std::vector<float> g_zero(size_t(N * d)), g_nan(size_t(N * d), NAN);
    for (int32_t r : seed)
      for (int64_t j = 0; j < d; ++j) g_zero[size_t(r * d + j)] = g_nan[size_t(r * d + j)] = g0[size_t(r * d + j)];
    SameBits same;
    for (Device dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      Lists all(N, c.layers), some(N, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, all.f, a.view(), a.view(), RowList{nullptr, nullptr, N});
      dev.ops->frontier(ctx, some.f, a.view(), a.view(), s.list());
      std::vector<float> full(size_t(N * d), NAN), listed = out0;
      Layers w1(N, d, c.layers), w2(N, d, c.layers);
      dev.ops->propagate_backward(ctx, mat(full, N, d), w1.view.data(), a.view(), all.f, cmat(g_zero, N, d));
      dev.ops->propagate_backward(ctx, mat(listed, N, d), w2.view.data(), a.view(), some.f, cmat(g_nan, N, d));
      EXPECT_TRUE(close(full, prop(a, g_zero, d, c.layers), tolerance(c)));
      if (c.longest <= 256) dev.family = "all";
      EXPECT_TRUE(same(dev, "full", full));
      EXPECT_TRUE(same(dev, "listed", listed));
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

// prop^T takes A^T: <G, prop(E0)> = <prop^T(G), E0> with a matrix that is not symmetric.
TEST(Propagate, BackwardOfAMatrixThatIsNotSymmetric) {
  for (const Case& c : kCases) {
    Draw g;
    for (const OneWay& way : one_way(g, c)) {
      const int64_t N = way.a.rows, d = c.d;
      const auto seed = some_nodes(g, N, c.wanted);
      const auto e0 = g.floats(N * d), out0 = g.floats(N * d);
      std::vector<float> g_zero(size_t(N * d)), g_nan(size_t(N * d), NAN);
      for (int32_t r : seed)
        for (int64_t j = 0; j < d; ++j) g_zero[size_t(r * d + j)] = g_nan[size_t(r * d + j)] = g.uniform();
      const std::vector<Ref> want = prop(way.a_t, g_zero, d, c.layers), h = prop(way.a, e0, d, c.layers);
      for (const Device& dev : fast_devices()) {
        SCOPED_TRACE(fmt::format("{}, {}, on {}", c.name, way.name, dev.name));
        DeviceCtx ctx(dev);
        Lists some(N, c.layers);
        OwnedList s(seed);
        dev.ops->frontier(ctx, some.f, way.a.view(), way.a_t.view(), s.list());
        std::vector<float> got = out0;
        Layers w(N, d, c.layers);
        dev.ops->propagate_backward(ctx, mat(got, N, d), w.view.data(), way.a_t.view(), some.f, cmat(g_nan, N, d));
        double by_h = 0, by_e = 0, mass = 0;
        for (int64_t r = 0; r < N; ++r)
          for (int64_t j = 0; j < d; ++j) {
            const size_t i = size_t(r * d + j);
            if (!some.mask[0][size_t(r)]) {
              ASSERT_EQ(want[i].mass, 0) << r;
              ASSERT_EQ(got[i], out0[i]) << r;
              got[i] = 0;
            }
            by_h += double(g_zero[i]) * h[i].value, by_e += double(got[i]) * e0[i],
                mass += std::fabs(double(g_zero[i])) * h[i].mass;
          }
        EXPECT_TRUE(close(got, want, tolerance(c)));
        EXPECT_LE(std::fabs(by_h - by_e), 1e-6 * mass + 1e-30);
      }
    }
  }
}

// Gradients of H and of every layer: drawn in the rows listed, `elsewhere` in all others.
struct LayerGradients {
  std::vector<float> g;
  std::vector<std::vector<float>> layer;
  CMat h;
  std::vector<CMat> view;
  LayerGradients(Draw& draw, const std::vector<int32_t>& rows, int64_t N, int64_t d, int layers, float elsewhere)
      : g(size_t(N * d), elsewhere), layer(size_t(layers) + 1, g) {
    for (const int32_t r : rows)
      for (int64_t j = 0; j < d; ++j) {
        g[size_t(r * d + j)] = draw.uniform();
        for (auto& l : layer) l[size_t(r * d + j)] = draw.uniform();
      }
    h = cmat(g, N, d);
    for (const auto& l : layer) view.push_back(cmat(l, N, d));
  }
};

// Z_L = G_L + G/(L+1), Z_l = G_l + G/(L+1) + A^T Z_(l+1) in double. Empty views are zero.
std::vector<Ref> back_by_layer(const TestCsr& a_t, CMat g, const std::vector<CMat>& g_layer, size_t size, int64_t d) {
  std::vector<Ref> z(size);
  for (size_t l = g_layer.size(); l-- > 0;) {
    std::vector<Ref> below(size);
    for (size_t i = 0; i < size; ++i) {
      if (g_layer[l]) below[i].add(g_layer[l].p[i]);
      if (g) below[i].add(double(g.p[i]) / double(g_layer.size()));
    }
    add_product(below, a_t, z, d);
    z = below;
  }
  return z;
}

TEST(Propagate, BackwardByLayerMatchesTheReference) {
  for (const Case& c : kCases) {
    Draw g;
    for (const OneWay& way : one_way(g, c)) {
      const int64_t N = way.a.rows, d = c.d;
      const auto seed = some_nodes(g, N, c.wanted);
      const auto e0 = g.floats(N * d), out0 = g.floats(N * d);
      Draw twice = g;
      const LayerGradients zero(g, seed, N, d, c.layers, 0), nan(twice, seed, N, d, c.layers, NAN);
      const std::vector<Ref> want = back_by_layer(way.a_t, zero.h, zero.view, out0.size(), d);
      // <G, H> + sum_l <G_l, E_l>, of E_l = A^l E_0 in double
      double forward = 0, mass = 0;
      std::vector<Ref> e(e0.size());
      for (size_t i = 0; i < e.size(); ++i) e[i].add(e0[i]);
      for (const auto& g_l : zero.layer) {
        for (size_t i = 0; i < e.size(); ++i) {
          const double both = g_l[i] + double(zero.g[i]) / double(c.layers + 1);
          forward += both * e[i].value, mass += std::fabs(both) * e[i].mass;
        }
        std::vector<Ref> next(e.size());
        add_product(next, way.a, e, d);
        e = next;
      }
      SameBits same;
      for (Device dev : fast_devices()) {
        SCOPED_TRACE(fmt::format("{}, {}, on {}", c.name, way.name, dev.name));
        DeviceCtx ctx(dev);
        Lists all(N, c.layers), some(N, c.layers);
        OwnedList s(seed);
        dev.ops->frontier(ctx, all.f, way.a.view(), way.a_t.view(), RowList{nullptr, nullptr, N});
        dev.ops->frontier(ctx, some.f, way.a.view(), way.a_t.view(), s.list());
        std::vector<float> full(out0.size(), NAN), listed = out0;
        Layers w1(N, d, c.layers), w2(N, d, c.layers);
        dev.ops->propagate_backward_layers(ctx, mat(full, N, d), w1.view.data(), way.a_t.view(), all.f, zero.h,
                                           zero.view.data());
        dev.ops->propagate_backward_layers(ctx, mat(listed, N, d), w2.view.data(), way.a_t.view(), some.f, nan.h,
                                           nan.view.data());
        EXPECT_TRUE(close(full, want, tolerance(c)));
        if (c.longest <= 256) dev.family = "all";  // on a GPU longer rows are summed in chunks
        EXPECT_TRUE(same(dev, "full", full));
        EXPECT_TRUE(same(dev, "listed", listed));
        double back = 0;
        for (int64_t r = 0; r < N; ++r)
          for (int64_t j = 0; j < d; ++j) {
            const size_t i = size_t(r * d + j);
            back += double(full[i]) * e0[i];
            if (some.mask[0][size_t(r)]) {
              ASSERT_EQ(listed[i], full[i]) << r << "," << j;
            } else {
              ASSERT_EQ(full[i], 0.0f) << r << "," << j;
              ASSERT_EQ(listed[i], out0[i]) << r << "," << j;
            }
          }
        EXPECT_LE(std::fabs(forward - back), 1e-6 * mass + 1e-30);

        // Each gradient where its layer's result goes.
        std::vector<float> in_place = out0;
        Layers w3(N, d, c.layers);
        std::vector<CMat> there = {cmat(in_place, N, d)};
        for (size_t l = 1; l < nan.layer.size(); ++l) {
          std::copy(nan.layer[l].begin(), nan.layer[l].end(), w3.data[l - 1].begin());
          there.push_back(w3.view[l - 1]);
        }
        for (const int32_t r : seed) std::copy_n(nan.layer[0].begin() + r * d, d, in_place.begin() + r * d);
        dev.ops->propagate_backward_layers(ctx, mat(in_place, N, d), w3.view.data(), way.a_t.view(), some.f, nan.h,
                                           there.data());
        EXPECT_EQ(in_place, listed);
      }
    }
  }
}

// Gradients without memory are zero; without any of layers it is propagate_backward to rounding.
TEST(Propagate, BackwardByLayerOfFewGradients) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = two_sided(g, skewed_csr(g, c.U, c.I, c.longest));
    const int64_t N = a.rows, d = c.d;
    const auto seed = some_nodes(g, N, c.wanted);
    const LayerGradients given(g, seed, N, d, c.layers, 0);
    const std::vector<float> zero(size_t(N * d));
    for (const Device& dev : one_of_each_family()) {
      SCOPED_TRACE(fmt::format("{} on {}", c.name, dev.name));
      DeviceCtx ctx(dev);
      Lists some(N, c.layers);
      OwnedList s(seed);
      dev.ops->frontier(ctx, some.f, a.view(), a.view(), s.list());
      Layers w(N, d, c.layers);
      const auto back = [&](CMat h, const std::vector<CMat>& layers) {
        std::vector<float> out = zero;
        dev.ops->propagate_backward_layers(ctx, mat(out, N, d), w.view.data(), a.view(), some.f, h, layers.data());
        return out;
      };
      const size_t n = size_t(c.layers) + 1;
      const std::vector<CMat> none(n), zeros(n, cmat(zero, N, d));
      std::vector<float> whole = zero;
      dev.ops->propagate_backward(ctx, mat(whole, N, d), w.view.data(), a.view(), some.f, given.h);
      const auto of_h = back(given.h, none);
      EXPECT_EQ(of_h, back(given.h, zeros));
      const auto want = back_by_layer(a, given.h, none, zero.size(), d);
      for (size_t i = 0; i < whole.size(); ++i)
        ASSERT_LE(std::fabs(of_h[i] - whole[i]), 2 * tolerance(c) * want[i].mass) << i;
      EXPECT_EQ(back({}, none), zero);
      for (size_t l = 0; l < n; ++l) {
        std::vector<CMat> one(n);
        one[l] = given.view[l];
        EXPECT_TRUE(close(back({}, one), back_by_layer(a, {}, one, zero.size(), d), tolerance(c))) << "layer " << l;
      }
    }
  }
}

// A recorded one reads what lies in memory when it is replayed: other gradients, another list.
TEST(Propagate, BackwardByLayerRecordedIsTheDirectOne) {
  const Case c{"", 60, 50, 10, 37, 2, 9};
  Draw g;
  const OneWay way = one_way(g, c)[1];
  const int64_t N = way.a.rows, d = c.d;
  bool recorded_any = false;
  for (const Device& dev : devices()) {
    if (!dev.ops->record) continue;
    recorded_any = true;
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    Lists some(N, c.layers);
    OwnedList s(N);
    std::vector<int32_t> seed = some_nodes(g, N, c.wanted);
    LayerGradients given(g, seed, N, d, c.layers, NAN);
    Layers w(N, d, c.layers);
    std::vector<float> out(size_t(N * d));
    const auto call = [&] {
      dev.ops->frontier(ctx, some.f, way.a.view(), way.a_t.view(), s.list());
      dev.ops->propagate_backward_layers(ctx, mat(out, N, d), w.view.data(), way.a_t.view(), some.f, given.h,
                                         given.view.data());
    };
    const auto lay = [&] { std::copy(seed.begin(), seed.end(), s.idx.begin()), *& s.count = int64_t(seed.size()); };
    lay();
    call();
    dev.ops->wait(ctx);
    void* const recorded = dev.ops->record(ctx, call);
    for (const int wanted : {9, 30, 1}) {
      seed = some_nodes(g, N, wanted);
      const LayerGradients others(g, seed, N, d, c.layers, NAN);
      std::copy(others.g.begin(), others.g.end(), given.g.begin());
      for (size_t l = 0; l < others.layer.size(); ++l)
        std::copy(others.layer[l].begin(), others.layer[l].end(), given.layer[l].begin());
      lay();
      std::fill(out.begin(), out.end(), 7.0f);
      dev.ops->replay(ctx, recorded);
      dev.ops->wait(ctx);
      const auto replayed = out;
      std::fill(out.begin(), out.end(), 7.0f);
      call();
      dev.ops->wait(ctx);
      EXPECT_EQ(replayed, out);
      EXPECT_NE(replayed[size_t(seed[0] * d)], 7.0f);
    }
    dev.ops->forget(ctx, recorded);
  }
  if (!recorded_any) GTEST_SKIP() << "no device records here";
}

}  // namespace
}  // namespace ccdrec::test::propagate_test
