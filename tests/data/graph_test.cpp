#include "data/graph.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <set>

#include "tests/data/folder.h"
#include "tests/support.h"

namespace ccdrec::test::graph_test {
namespace {

struct Case {
  const char* name;
  int users, items, pairs;
  bool repeated;
};
const Case cases[] = {{"no pairs", 3, 2, 0, false},        {"one of each", 1, 1, 1, false},
                      {"one user", 1, 30, 12, true},       {"one item", 30, 1, 12, true},
                      {"small, repeated", 7, 5, 60, true}, {"cold rows", 400, 300, 90, false},
                      {"denser", 120, 80, 3000, true}};

std::vector<Pair> random_pairs(Draw& g, const Case& c) {
  std::vector<Pair> v;
  for (int e = 0; e < c.pairs; ++e) {
    const int32_t i = g.below(c.items);
    v.push_back({g.below(c.users), c.repeated ? std::min(i, g.below(c.items)) : i});  // low items are popular
  }
  return v;
}

std::vector<double> dense_pairs(const std::vector<Pair>& pairs, int users, int items) {
  std::vector<double> r(size_t(users * items), 0.0);
  for (const Pair& p : pairs) r[size_t(p.user * items + p.item)] = 1;  // duplicates count once
  return r;
}

void expect_well_formed(const HostCsr& a) {
  ASSERT_EQ(a.row_ptr.size(), size_t(a.rows) + 1);
  ASSERT_EQ(a.row_ptr.front(), 0);
  ASSERT_EQ(a.row_ptr.back(), a.nnz());
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e) {
      ASSERT_TRUE(a.col[size_t(e)] >= 0 && a.col[size_t(e)] < a.cols);
      ASSERT_TRUE(e == a.row_ptr[size_t(r)] || a.col[size_t(e) - 1] < a.col[size_t(e)]) << "row " << r;
    }
}

// Every element of the sparse matrix against a dense reference, zeros included.
void expect_dense(const HostCsr& a, const std::vector<double>& want, double tol) {
  std::vector<double> got(want.size(), 0.0);
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e)
      got[size_t(r * a.cols + a.col[size_t(e)])] += a.val.empty() ? 1.0 : double(a.val[size_t(e)]);
  for (size_t e = 0; e < want.size(); ++e)
    ASSERT_TRUE(std::fabs(got[e] - want[e]) <= tol * std::fabs(want[e]))
        << "element " << e << ": " << got[e] << " for " << want[e];
}

TEST(Graph, PairsAndUserItemGraphMatchDenseReference) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Draw g;
    const std::vector<Pair> pairs = random_pairs(g, c);
    const std::vector<double> r = dense_pairs(pairs, c.users, c.items);
    const HostCsr train = pairs_by_user(pairs, c.users, c.items);
    expect_well_formed(train);
    expect_dense(train, r, 0);
    EXPECT_TRUE(train.val.empty());

    const int N = c.users + c.items;
    std::vector<double> degree(size_t(N), 0.0), a(size_t(N * N), 0.0);
    for (int u = 0; u < c.users; ++u)
      for (int i = 0; i < c.items; ++i)
        degree[size_t(u)] += r[size_t(u * c.items + i)], degree[size_t(c.users + i)] += r[size_t(u * c.items + i)];
    for (int u = 0; u < c.users; ++u)
      for (int i = 0; i < c.items; ++i)
        if (r[size_t(u * c.items + i)] > 0)
          a[size_t(u * N + c.users + i)] = a[size_t((c.users + i) * N + u)] =
              1 / std::sqrt((degree[size_t(u)] + 1e-7) * (degree[size_t(c.users + i)] + 1e-7));
    const HostCsr graph = user_item_graph(train);
    expect_well_formed(graph);
    // half a unit in the last place of a float, and the order of two roundings in double
    expect_dense(graph, a, 1.2e-7);

    const std::vector<float> w = edge_weights(train);
    ASSERT_EQ(w.size(), size_t(train.nnz()));
    for (int64_t u = 0; u < train.rows; ++u)
      for (int64_t e = train.row_ptr[size_t(u)]; e < train.row_ptr[size_t(u) + 1]; ++e)
        EXPECT_EQ(w[size_t(e)], graph.val[size_t(e)]);  // users come first: the same order
  }
}

// Row x: 1/(deg_x + 1) at each neighbour, duplicates counted once, and at x itself; without self loops 1/deg_x at each
// neighbour, and nothing where there is none.
TEST(Graph, TheMeanGraphAveragesNeighboursWithOrWithoutTheNodeItself) {
  for (const Case& c : cases)
    for (const bool self_loops : {true, false}) {
      SCOPED_TRACE(std::string(c.name) + (self_loops ? ", self loops" : ""));
      Draw g(3);
      const std::vector<Pair> pairs = random_pairs(g, c);
      const HostCsr train = pairs_by_user(pairs, c.users, c.items), a = mean_graph(train, self_loops);
      expect_well_formed(a);
      const std::vector<double> r = dense_pairs(pairs, c.users, c.items);
      const int64_t N = c.users + c.items;
      ASSERT_EQ(a.rows, N);
      ASSERT_EQ(a.cols, N);
      EXPECT_EQ(a.nnz(), 2 * train.nnz() + (self_loops ? N : 0));
      const auto edge = [&](int64_t x, int64_t y) {
        if (x == y) return self_loops ? 1.0 : 0.0;
        if ((x < c.users) == (y < c.users)) return 0.0;
        return r[size_t(std::min(x, y) * c.items + std::max(x, y) - c.users)];
      };
      for (int64_t x = 0; x < N; ++x) {
        double degree = 0;
        for (int64_t y = 0; y < N; ++y) degree += edge(x, y);
        std::vector<double> row(size_t(N), 0.0);
        for (int64_t e = a.row_ptr[size_t(x)]; e < a.row_ptr[size_t(x) + 1]; ++e)
          row[size_t(a.col[size_t(e)])] = double(a.val[size_t(e)]);
        for (int64_t y = 0; y < N; ++y)
          ASSERT_NEAR(row[size_t(y)], edge(x, y) / std::max(degree, 1.0), 1e-7) << x << " " << y;
      }
    }
}

TEST(Graph, TransposeIsTheAdjoint) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Draw g;
    HostCsr a = pairs_by_user(random_pairs(g, c), c.users, c.items);
    const HostCsr pattern = transpose(a);
    EXPECT_TRUE(pattern.val.empty());
    a.val = g.floats(a.nnz());
    const HostCsr t = transpose(a), back = transpose(t);
    expect_well_formed(t);
    EXPECT_EQ(t.col, pattern.col);
    EXPECT_EQ(back.row_ptr, a.row_ptr);
    EXPECT_EQ(back.col, a.col);
    EXPECT_EQ(back.val, a.val);
    const auto x = g.floats(a.cols), y = g.floats(a.rows);
    // left . (m right)
    const auto form = [](const HostCsr& m, const std::vector<float>& left, const std::vector<float>& right) {
      double s = 0;
      for (int64_t r = 0; r < m.rows; ++r)
        for (int64_t e = m.row_ptr[size_t(r)]; e < m.row_ptr[size_t(r) + 1]; ++e)
          s += double(left[size_t(r)]) * double(m.val[size_t(e)]) * double(right[size_t(m.col[size_t(e)])]);
      return s;
    };
    EXPECT_NEAR(form(a, y, x), form(t, x, y), 1e-12 * double(a.nnz() + 1));
  }
}

TEST(Graph, ItemGraphAddsModalities) {
  struct Item {
    const char* name;
    int items, k;
    std::vector<float> weight;
  };
  const Item item_cases[] = {{"one item", 1, 1, {1.0f}},
                             {"one modality", 9, 3, {1.0f}},
                             {"two", 30, 4, {0.1f, 0.9f}},
                             {"three, all neighbours", 5, 5, {0.2f, 0.3f, 0.5f}},
                             {"two, k 10", 200, 10, {0.1f, 0.9f}}};
  for (const Item& c : item_cases) {
    SCOPED_TRACE(c.name);
    Draw g;
    std::vector<std::vector<int32_t>> knn;
    std::vector<double> want(size_t(c.items * c.items), 0.0);
    for (float weight : c.weight) {
      std::vector<int32_t> lists;
      for (int i = 0; i < c.items; ++i) {
        std::set<int32_t> row{i};  // itself first, as knn_cosine gives it
        lists.push_back(i);
        while (int(row.size()) < c.k)
          if (const int32_t j = g.below(c.items); row.insert(j).second) lists.push_back(j);
        for (int32_t j : row) want[size_t(i * c.items + j)] += double(weight) / std::sqrt((c.k + 1e-7) * (c.k + 1e-7));
      }
      knn.push_back(lists);
    }
    const HostCsr s = item_graph(knn, c.weight, c.items, c.k);
    expect_well_formed(s);
    expect_dense(s, want, 1.2e-7);
    EXPECT_LE(s.nnz(), int64_t(c.weight.size()) * c.items * c.k);
  }
  EXPECT_THROW(item_graph({{0, 5}}, {1.0f}, 2, 1), std::logic_error);
  EXPECT_THROW(item_graph({{0, 1}}, {1.0f, 1.0f}, 2, 1), std::logic_error);
}

// ----- knn_lists, with a naive operation in place of the real one

int calls = 0;

void naive_knn(Ctx&, int32_t* idx, int64_t* tied_rows, CMat x, int64_t k, bool centre, uint32_t seed) {
  ++calls;
  std::vector<double> mean(size_t(x.cols), 0.0);
  for (int64_t i = 0; centre && i < x.rows; ++i)
    for (int64_t j = 0; j < x.cols; ++j) mean[size_t(j)] += double(x.row(i)[j]) / double(x.rows);
  const auto cosine = [&](int64_t a, int64_t b) {
    double dot = 0, na = 0, nb = 0;
    for (int64_t j = 0; j < x.cols; ++j) {
      const double p = double(x.row(a)[j]) - mean[size_t(j)], q = double(x.row(b)[j]) - mean[size_t(j)];
      dot += p * q, na += p * p, nb += q * q;
    }
    return dot / std::max(std::sqrt(na * nb), 1e-24);
  };
  for (int64_t i = 0; i < x.rows; ++i) {
    std::vector<std::pair<double, int32_t>> all;
    for (int64_t j = 0; j < x.rows; ++j) all.push_back({i == j ? -9 : -cosine(i, j), int32_t(j)});
    std::sort(all.begin(), all.end());
    for (int64_t e = 0; e < k; ++e) idx[i * k + e] = all[size_t(e)].second;
  }
  *tied_rows = seed;  // something to see pass through
}

Ops stub_ops() {
  Ops t;
  t.knn_cosine = &naive_knn;
  t.alloc = [](Ctx&, size_t bytes) { return std::calloc(1, bytes); };
  t.free = [](Ctx&, void* p) { std::free(p); };
  t.upload = [](Ctx&, void* d, const void* h, size_t bytes) { std::memcpy(d, h, bytes); };
  t.download = [](Ctx&, void* h, const void* d, size_t bytes) { std::memcpy(h, d, bytes); };
  return t;
}

TEST(KnnLists, AreKeptUnderWhatTheyDependOn) {
  const Folder dir;
  Draw g;
  const Ops ops = stub_ops();
  Ctx ctx(2);
  auto v = g.floats(40 * 6);
  dir.write("text_feat.npy", npy_floats(v, 40, 6));
  const Feature f{"text", NpyMatrix(dir / "text_feat.npy")};
  const std::string cache = dir / "deep/cache";
  std::vector<int32_t> want(40 * 5);
  int64_t tied = 0;
  naive_knn(ctx, want.data(), &tied, {v.data(), 40, 6}, 5, false, 3);

  calls = 0;
  const KnnResult none = knn_lists(ctx, ops, f, 5, false, 3, "");
  EXPECT_EQ(none.idx, want);
  const KnnResult first = knn_lists(ctx, ops, f, 5, false, 3, cache);
  EXPECT_EQ(calls, 2);
  EXPECT_FALSE(first.from_cache);
  EXPECT_EQ(first.note, "");
  const KnnResult second = knn_lists(ctx, ops, f, 5, false, 3, cache);
  EXPECT_EQ(calls, 2);
  EXPECT_TRUE(second.from_cache);
  EXPECT_EQ(second.idx, want);
  EXPECT_EQ(second.tied_rows, 3);

  // Another k, centre, seed or feature byte: another file, never the old lists.
  knn_lists(ctx, ops, f, 4, false, 3, cache);
  knn_lists(ctx, ops, f, 5, true, 3, cache);
  knn_lists(ctx, ops, f, 5, false, 4, cache);
  EXPECT_EQ(calls, 5);
  v[239] += 1;
  dir.write("b_feat.npy", npy_floats(v, 40, 6));
  knn_lists(ctx, ops, {"text", NpyMatrix(dir / "b_feat.npy")}, 5, false, 3, cache);
  EXPECT_EQ(calls, 6);
  dir.write("c_feat.npy", npy_floats(v, 60, 4));  // same bytes, other shape
  knn_lists(ctx, ops, {"text", NpyMatrix(dir / "c_feat.npy")}, 5, false, 3, cache);
  EXPECT_EQ(calls, 7);

  for (int64_t k : {int64_t(0), int64_t(41)})
    EXPECT_TRUE(says(refusal([&] { knn_lists(ctx, ops, f, k, false, 3, cache); }), {"knn_k", "1 to 40"}));
}

TEST(KnnLists, DamagedFilesAreRebuilt) {
  const Folder dir;
  Draw g;
  const Ops ops = stub_ops();
  Ctx ctx(1);
  dir.write("text_feat.npy", npy_floats(g.floats(20 * 3), 20, 3));
  const Feature f{"text", NpyMatrix(dir / "text_feat.npy")};
  std::filesystem::create_directory(dir / "cache");
  const std::vector<int32_t> want = knn_lists(ctx, ops, f, 4, true, 1, dir / "cache").idx;
  const std::string name = "cache/" + std::filesystem::directory_iterator(dir / "cache")->path().filename().string(),
                    good = dir.read(name);
  calls = 0;
  int expected = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bytes = good;
    if (round % 3 == 0) bytes.resize(size_t(g.below(int32_t(bytes.size()))));
    if (round % 3 == 1) bytes[size_t(g.below(int32_t(bytes.size())))] ^= char(1 << g.below(8));
    if (round % 3 == 2) bytes += "x";
    dir.write(name, bytes);
    const KnnResult r = knn_lists(ctx, ops, f, 4, true, 1, dir / "cache");
    ASSERT_EQ(calls, ++expected) << "round " << round;
    ASSERT_EQ(r.idx, want);
    ASSERT_EQ(dir.read(name), good);  // replaced
  }
  dir.write("a_file", "in the way");
  const KnnResult r = knn_lists(ctx, ops, f, 4, true, 1, dir / "a_file");
  EXPECT_EQ(r.idx, want);
  EXPECT_NE(r.note.find("could not be kept"), std::string::npos);
}

}  // namespace
}  // namespace ccdrec::test::graph_test
