// Graphs as skewed as the data: every user 4 items or more, items of popularity ~ 1/(rank+20), numbered at random.
// Sizes of the Amazon sets.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/ops.h"

namespace ccdrec::bench {

struct Shape {
  int64_t U, I, E;
};
constexpr Shape kBaby{19445, 7050, 118551}, kSports{35598, 18357, 218409};

struct SkewedPairs {
  Shape shape;
  std::vector<int32_t> user, item;  // sorted by (user, item), distinct
  std::vector<int64_t> row_ptr{0};
  std::vector<float> weight;
  EdgeList edges() const { return {user.data(), item.data(), weight.data(), int64_t(user.size()), shape.U, shape.I}; }
  Csr train() const { return {shape.U, shape.I, row_ptr.data(), item.data(), nullptr}; }
};

inline SkewedPairs skewed_pairs(Shape s) {
  SkewedPairs p;
  p.shape = s;
  std::vector<double> upto(size_t(s.I) + 1, 0.0);
  for (int64_t i = 0; i < s.I; ++i) upto[size_t(i) + 1] = upto[size_t(i)] + 1.0 / double(i + 20);
  std::vector<int32_t> name(size_t(s.I), 0);
  std::iota(name.begin(), name.end(), 0);
  for (int64_t i = s.I - 1; i > 0; --i)
    std::swap(name[size_t(i)], name[below(draw(Stream{1, Use::test, 1}, uint32_t(i)).v[0], uint32_t(i + 1))]);
  const double spare = double(s.E) / double(s.U) - 3.0;  // mean of a geometric number of items beyond three
  std::vector<int64_t> du(size_t(s.U), 0), di(size_t(s.I), 0);
  for (int64_t u = 0; u < s.U; ++u) {
    const double x = uniform01(draw(Stream{1, Use::test, 2}, uint32_t(u)).v[0]);
    const int64_t n = std::min<int64_t>(s.I / 2, 3 + std::llround(-std::log(1 - x) * spare));
    std::vector<int32_t> row;
    for (uint32_t k = 0; int64_t(row.size()) < n; ++k) {
      const double at = upto.back() * double(draw(Stream{1, Use::test, 3}, uint32_t(u), k).v[0]) * 0x1p-32;
      const int32_t i = name[size_t(std::upper_bound(upto.begin(), upto.end(), at) - upto.begin() - 1)];
      if (std::find(row.begin(), row.end(), i) == row.end()) row.push_back(i);
    }
    std::sort(row.begin(), row.end());
    for (int32_t i : row) p.user.push_back(int32_t(u)), p.item.push_back(i), ++di[size_t(i)];
    du[size_t(u)] = n;
    p.row_ptr.push_back(int64_t(p.item.size()));
  }
  for (size_t e = 0; e < p.user.size(); ++e)
    p.weight.push_back(float(1 / std::sqrt(double(du[size_t(p.user[e])]) * double(di[size_t(p.item[e])]))));
  return p;
}

// The symmetric (U+I, U+I) graph of the pairs, pruned by rho (0: all of it).
struct UserItemGraph {
  std::vector<int64_t> row_ptr;
  std::vector<int32_t> col;
  std::vector<float> val;
  int64_t N;
  MutableCsr room;
  UserItemGraph(const SkewedPairs& p, double rho)
      : row_ptr(size_t(p.shape.U + p.shape.I + 1), 0),
        col(2 * p.user.size()),
        val(2 * p.user.size()),
        N(p.shape.U + p.shape.I) {
    room = {N, N, row_ptr.data(), col.data(), val.data(), int64_t(col.size())};
    Ctx ctx(1);
    cpu::prune(ctx, room, p.edges(), rho, Stream{1, Use::prune});
  }
  Csr view() const { return {N, N, row_ptr.data(), col.data(), val.data()}; }
  int64_t nnz() const { return row_ptr.back(); }
};

inline std::vector<float> random_floats(int64_t n) {
  std::vector<float> v(size_t(n), 0.0f);
  for (int64_t i = 0; i < n; ++i) v[size_t(i)] = 2 * uniform01(draw(Stream{1, Use::test, 4}, uint32_t(i)).v[0]) - 1;
  return v;
}
inline std::vector<int32_t> random_ids(int64_t n, int64_t limit, uint32_t which) {
  std::vector<int32_t> v(size_t(n), 0);
  for (int64_t i = 0; i < n; ++i)
    v[size_t(i)] = int32_t(below(draw(Stream{1, Use::test, 5, which}, uint32_t(i)).v[0], uint32_t(limit)));
  return v;
}
inline int threads() { return omp_get_max_threads(); }

}  // namespace ccdrec::bench
