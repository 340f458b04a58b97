#include "data/graph.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ccdrec {

namespace {
// the 1e-7 only keeps degree 0 finite (spec baselines 1.4)
double degree_root(int64_t degree) { return std::pow(double(degree) + 1e-7, -0.5); }

std::vector<int64_t> column_counts(const HostCsr& a) {
  std::vector<int64_t> n(size_t(a.cols), 0);
  for (int32_t c : a.col) ++n[size_t(c)];
  return n;
}
}  // namespace

HostCsr pairs_by_user(const std::vector<Pair>& pairs, int64_t n_users, int64_t n_items) {
  HostCsr a;
  a.rows = n_users;
  a.cols = n_items;
  std::vector<int64_t> start(size_t(n_users) + 1, 0);
  for (const Pair& p : pairs) {
    CHECK_THAT(p.user >= 0 && p.user < n_users && p.item >= 0 && p.item < n_items);
    ++start[size_t(p.user) + 1];
  }
  for (size_t u = 0; u < size_t(n_users); ++u) start[u + 1] += start[u];
  std::vector<int32_t> item(pairs.size(), 0);
  std::vector<int64_t> at(start.begin(), start.end() - 1);
  for (const Pair& p : pairs) item[size_t(at[size_t(p.user)]++)] = p.item;
  a.row_ptr.resize(size_t(n_users) + 1, 0);
  a.col.reserve(pairs.size());
  for (size_t u = 0; u < size_t(n_users); ++u) {
    const auto first = item.begin() + start[u], last = item.begin() + start[u + 1];
    std::sort(first, last);
    a.col.insert(a.col.end(), first, std::unique(first, last));  // a pair bought twice is one edge
    a.row_ptr[u + 1] = int64_t(a.col.size());
  }
  return a;
}

HostCsr transpose(const HostCsr& a) {
  HostCsr t;
  t.rows = a.cols;
  t.cols = a.rows;
  t.row_ptr.assign(size_t(t.rows) + 1, 0);
  const std::vector<int64_t> n = column_counts(a);
  for (size_t c = 0; c < n.size(); ++c) t.row_ptr[c + 1] = t.row_ptr[c] + n[c];
  t.col.resize(a.col.size());
  t.val.resize(a.val.size());
  std::vector<int64_t> at(t.row_ptr.begin(), t.row_ptr.end() - 1);
  for (int64_t r = 0; r < a.rows; ++r)  // rows ascend, so columns of the transpose do
    for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e) {
      const size_t to = size_t(at[size_t(a.col[size_t(e)])]++);
      t.col[to] = int32_t(r);
      if (!a.val.empty()) t.val[to] = a.val[size_t(e)];
    }
  return t;
}

HostCsr user_item_graph(const HostCsr& train) {
  const int64_t U = train.rows, I = train.cols;
  const HostCsr by_item = transpose(train);
  HostCsr g;
  g.rows = g.cols = U + I;  // nodes: users 0..U-1, then items
  g.row_ptr.assign(size_t(U + I) + 1, 0);
  g.col.resize(2 * train.col.size());
  g.val.resize(2 * train.col.size());
  std::vector<double> root(size_t(U + I), 0.0);
  for (int64_t u = 0; u < U; ++u)
    root[size_t(u)] = degree_root(train.row_ptr[size_t(u) + 1] - train.row_ptr[size_t(u)]);
  for (int64_t i = 0; i < I; ++i)
    root[size_t(U + i)] = degree_root(by_item.row_ptr[size_t(i) + 1] - by_item.row_ptr[size_t(i)]);
  int64_t at = 0;
  const auto rows_of = [&](const HostCsr& half, int64_t row0, int64_t col0) {
    for (int64_t r = 0; r < half.rows; ++r) {
      for (int64_t e = half.row_ptr[size_t(r)]; e < half.row_ptr[size_t(r) + 1]; ++e, ++at) {
        const int64_t c = col0 + half.col[size_t(e)];
        g.col[size_t(at)] = int32_t(c);
        g.val[size_t(at)] = float(root[size_t(row0 + r)] * root[size_t(c)]);
      }
      g.row_ptr[size_t(row0 + r) + 1] = at;
    }
  };
  rows_of(train, 0, U);
  rows_of(by_item, U, 0);
  return g;
}

HostCsr mean_graph(const HostCsr& train, bool self_loops) {
  const int64_t U = train.rows, I = train.cols;
  const HostCsr by_item = transpose(train);
  HostCsr g;
  g.rows = g.cols = U + I;
  g.row_ptr.assign(1, 0);
  const auto row = [&](const HostCsr& half, int64_t r, int64_t self, int64_t col0) {
    const int64_t first = half.row_ptr[size_t(r)], end = half.row_ptr[size_t(r) + 1];
    const auto self_here = [&] { g.col.push_back(int32_t(self)); };
    if (self_loops && self < col0) self_here();
    for (int64_t e = first; e < end; ++e) g.col.push_back(int32_t(col0 + half.col[size_t(e)]));
    if (self_loops && self >= col0) self_here();
    g.val.resize(g.col.size(), float(1.0 / double(end - first + (self_loops ? 1 : 0))));
    g.row_ptr.push_back(int64_t(g.col.size()));
  };
  for (int64_t u = 0; u < U; ++u) row(train, u, u, U);
  for (int64_t i = 0; i < I; ++i) row(by_item, i, U + i, 0);
  return g;
}

std::vector<float> edge_weights(const HostCsr& train) {
  const std::vector<int64_t> items = column_counts(train);
  std::vector<float> w(train.col.size(), 0.0f);
  for (int64_t u = 0; u < train.rows; ++u) {
    const double root = degree_root(train.row_ptr[size_t(u) + 1] - train.row_ptr[size_t(u)]);
    for (int64_t e = train.row_ptr[size_t(u)]; e < train.row_ptr[size_t(u) + 1]; ++e)
      w[size_t(e)] = float(root * degree_root(items[size_t(train.col[size_t(e)])]));
  }
  return w;
}

HostCsr item_graph(const std::vector<std::vector<int32_t>>& knn, const std::vector<float>& weight, int64_t n_items,
                   int64_t k) {
  CHECK_THAT(knn.size() == weight.size());
  const double value = 1.0 / std::sqrt((double(k) + 1e-7) * (double(k) + 1e-7));
  HostCsr s;
  s.rows = s.cols = n_items;
  s.row_ptr.assign(size_t(n_items) + 1, 0);
  for (const auto& lists : knn) CHECK_THAT(int64_t(lists.size()) == n_items * k);
  std::vector<std::pair<int32_t, double>> row;
  for (int64_t i = 0; i < n_items; ++i) {
    row.clear();
    for (size_t m = 0; m < knn.size(); ++m)
      for (int64_t j = 0; j < k; ++j) {
        const int32_t c = knn[m][size_t(i * k + j)];
        CHECK_THAT(c >= 0 && c < n_items);
        row.push_back({c, double(weight[m]) * value});
      }
    std::stable_sort(row.begin(), row.end(),
                     // equal columns stay in the order of modalities
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t e = 0; e < row.size();) {
      double sum = 0;
      const int32_t c = row[e].first;
      for (; e < row.size() && row[e].first == c; ++e) sum += row[e].second;
      s.col.push_back(c);
      s.val.push_back(float(sum));
    }
    s.row_ptr[size_t(i) + 1] = int64_t(s.col.size());
  }
  return s;
}

}  // namespace ccdrec
