// Random sparse matrices for the tests: skewed row lengths, and the symmetric two-sided graph of propagation.
#pragma once
#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "tests/support.h"

namespace ccdrec::test {

struct TestCsr {
  int64_t rows = 0, cols = 0;
  std::vector<int64_t> row_ptr{0};
  std::vector<int32_t> col;
  std::vector<float> val;
  Csr view() const { return {rows, cols, row_ptr.data(), col.data(), val.data(), nnz()}; }
  int64_t nnz() const { return int64_t(col.size()); }

  TestCsr transposed() const {
    std::vector<std::vector<std::pair<int32_t, float>>> by_col(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t e = row_ptr[size_t(r)]; e < row_ptr[size_t(r) + 1]; ++e)
        by_col[size_t(col[size_t(e)])].emplace_back(int32_t(r), val[size_t(e)]);
    TestCsr t;
    t.rows = cols, t.cols = rows;
    for (const auto& row : by_col) t.push(row);
    return t;
  }
  void push(const std::vector<std::pair<int32_t, float>>& row) {
    for (const auto& [c, w] : row) col.push_back(c), val.push_back(w);
    row_ptr.push_back(int64_t(col.size()));
  }
};

// Row r has about longest/(1+r) edges at distinct columns, every fifth row none: a popular head and a tail, as in the
// data.
inline TestCsr skewed_csr(Draw& g, int64_t rows, int64_t cols, int64_t longest) {
  TestCsr a;
  a.rows = rows, a.cols = cols;
  for (int64_t r = 0; r < rows; ++r) {
    std::set<int32_t> columns;
    const int64_t n = cols == 0 || longest == 0 || r % 5 == 4 ? 0 : std::min(cols, 1 + (longest - 1) / (1 + r));
    if (n == cols) {
      for (int64_t c = 0; c < cols; ++c) columns.insert(int32_t(c));
    }
    while (int64_t(columns.size()) < n) columns.insert(g.below(int32_t(cols)));
    std::vector<std::pair<int32_t, float>> row;
    for (int32_t c : columns) row.emplace_back(c, g.uniform());
    a.push(row);
  }
  return a;
}

// The symmetric (U+I, U+I) matrix of a random two-sided graph with edges (u, i).
inline TestCsr two_sided(Draw& g, const TestCsr& user_item) {
  const int64_t U = user_item.rows, N = U + user_item.cols;
  std::vector<std::vector<std::pair<int32_t, float>>> row(static_cast<size_t>(N));
  for (int64_t u = 0; u < U; ++u)
    for (int64_t e = user_item.row_ptr[size_t(u)]; e < user_item.row_ptr[size_t(u) + 1]; ++e) {
      const int32_t i = int32_t(U) + user_item.col[size_t(e)];
      const float w = g.uniform(0.1f, 1);
      row[size_t(u)].emplace_back(i, w), row[size_t(i)].emplace_back(int32_t(u), w);
    }
  TestCsr a;
  a.rows = a.cols = N;
  for (const auto& r : row) a.push(r);
  return a;
}

// A list with its own memory and count, as models hold them.
struct OwnedList {
  std::vector<int32_t> idx;
  Cell<int64_t> count = 0;
  explicit OwnedList(int64_t capacity) : idx(size_t(std::max<int64_t>(capacity, 1)), -7) {}
  explicit OwnedList(std::vector<int32_t> v) : idx(std::move(v)), count(int64_t(idx.size())) {
    idx.resize(std::max<size_t>(idx.size(), 1));
  }
  RowList list() { return {idx.data(), &count, int64_t(idx.size())}; }
  std::vector<int32_t> values() const { return {idx.begin(), idx.begin() + count}; }
};

struct OwnedGroups {
  OwnedList rows;
  std::vector<int32_t> ptr, slot;
  Groups g;
  explicit OwnedGroups(int64_t n) : OwnedGroups(n, n) {}
  OwnedGroups(int64_t n, int64_t capacity) : rows(capacity), ptr(size_t(capacity + 1), -7), slot(size_t(n), -7) {
    g = {rows.list(), ptr.data(), slot.data()};
    g.rows.capacity = capacity;
  }
};

}  // namespace ccdrec::test
