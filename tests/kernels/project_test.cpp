#include "kernels/project.h"

#include <numeric>

#include "kernels/cpu/microkernel.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test {
namespace {

struct Case {
  const char* name;
  int64_t R, F, d, n, capacity;  // n < 0: the identity list over all rows
};
const Case kCases[] = {{"no rows listed", 9, 12, 8, 0, 4},
                       {"one row of one", 1, 1, 1, 1, 1},
                       {"one term", 40, 1, 5, 37, 37},
                       {"one column", 40, 300, 1, 5, 6},
                       {"odd widths", 40, 37, 19, 23, 30},
                       {"all rows", 30, 70, 64, -1, 30},
                       {"two blocks of F", 60, 300, 64, 31, 60},
                       {"two blocks of rows", 500, 90, 37, 300, 310},
                       {"wider than a tile", 30, 50, 270, 20, 20}};

struct Inputs {
  std::vector<float> x, w, b, dy;
  std::vector<int32_t> rows;
};
Inputs inputs(const Case& c) {
  Draw g;
  Inputs in{g.floats(c.R * c.F), g.floats(c.F * c.d), g.floats(c.d), g.floats(c.capacity * c.d), {}};
  for (int32_t r = 0; r < c.R; ++r) in.rows.push_back(r);
  if (c.n >= 0) {
    for (int64_t r = 0; r < c.n; ++r) std::swap(in.rows[size_t(r)], in.rows[size_t(r + g.below(int32_t(c.R - r)))]);
    in.rows.resize(size_t(c.n));
    std::sort(in.rows.begin(), in.rows.end());
  }
  return in;
}
RowList list(const Case& c, Inputs& in, int64_t& count) {
  count = int64_t(in.rows.size());
  if (c.n < 0) return {nullptr, nullptr, c.R};
  in.rows.resize(size_t(c.capacity), -7);
  return {in.rows.data(), &count, c.capacity};
}

TEST(Project, ForwardMatchesDoubleReference) {
  for (const Case& c : kCases) {
    Inputs in = inputs(c);
    int64_t n;
    const RowList rows = list(c, in, n);
    std::vector<Ref> want(size_t(n * c.d));
    for (int64_t j = 0; j < n; ++j)
      for (int64_t o = 0; o < c.d; ++o) {
        Ref& y = want[size_t(j * c.d + o)];
        y.add(in.b[size_t(o)]);
        for (int64_t f = 0; f < c.F; ++f) y.add(double(in.x[size_t(rows.at(j) * c.F + f)]) * in.w[size_t(f * c.d + o)]);
      }
    std::vector<float> first;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
        Ctx ctx(dev.threads);
        std::vector<float> y(size_t(c.capacity * c.d), 99.0f);
        std::fill_n(y.begin(), n * c.d, NAN);
        dev.ops->project(ctx, mat(y, c.capacity, c.d), cmat(in.x, c.R, c.F), rows, cmat(in.w, c.F, c.d), cmat(in.b, 1, c.d));
        EXPECT_TRUE(close(y, want, 1e-6));
        for (size_t i = size_t(n * c.d); i < y.size(); ++i) EXPECT_EQ(y[i], 99.0f) << "row beyond the list was written";
        if (first.empty()) first = y;
        EXPECT_EQ(y, first);
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

TEST(Project, BackwardMatchesDoubleReference) {
  for (const Case& c : kCases) {
    Inputs in = inputs(c);
    int64_t n;
    const RowList rows = list(c, in, n);
    Draw g{1000000};
    const auto dw0 = g.floats(c.F * c.d), db0 = g.floats(c.d);
    std::vector<Ref> want_w(dw0.size()), want_b(db0.size()), want_x(size_t(n * c.F));
    for (size_t i = 0; i < dw0.size(); ++i) want_w[i].add(dw0[i]);
    for (size_t i = 0; i < db0.size(); ++i) want_b[i].add(db0[i]);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t o = 0; o < c.d; ++o) {
        const double dy = in.dy[size_t(j * c.d + o)];
        want_b[size_t(o)].add(dy);
        for (int64_t f = 0; f < c.F; ++f) {
          want_w[size_t(f * c.d + o)].add(dy * in.x[size_t(rows.at(j) * c.F + f)]);
          want_x[size_t(j * c.F + f)].add(dy * in.w[size_t(f * c.d + o)]);
        }
      }
    std::vector<float> first_w, first_b, first_x;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
        Ctx ctx(dev.threads);
        std::vector<float> dw = dw0, db = db0, dx(size_t(c.capacity * c.F), 99.0f), dw_only = dw0, db_only = db0;
        std::fill_n(dx.begin(), n * c.F, NAN);
        const CMat x = cmat(in.x, c.R, c.F), w = cmat(in.w, c.F, c.d), dy = cmat(in.dy, c.capacity, c.d);
        dev.ops->project_backward(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), mat(dx, c.capacity, c.F), dy, x, rows, w);
        dev.ops->project_backward(ctx, mat(dw_only, c.F, c.d), mat(db_only, 1, c.d), {}, dy, x, rows, w);
        EXPECT_TRUE(close(dw, want_w, 1e-6));
        EXPECT_TRUE(close(db, want_b, 1e-6));
        EXPECT_TRUE(close(dx, want_x, 1e-6));
        for (size_t i = size_t(n * c.F); i < dx.size(); ++i) EXPECT_EQ(dx[i], 99.0f) << "row beyond the list was written";
        EXPECT_EQ(dw_only, dw);
        EXPECT_EQ(db_only, db);
        if (first_w.empty()) first_w = dw, first_b = db, first_x = dx;
        EXPECT_EQ(dw, first_w);
        EXPECT_EQ(db, first_b);
        EXPECT_EQ(dx, first_x);
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

// X W + b is linear in each of its parts: <dY, X W> + <dY, b> from the forward pass against the gradients of the backward pass.
TEST(Project, BackwardIsTheAdjointOfForward) {
  const Case c{"", 70, 300, 37, 41, 50};
  Inputs in = inputs(c);
  int64_t n;
  const RowList rows = list(c, in, n);
  Ctx ctx(2);
  std::vector<float> y(size_t(c.capacity * c.d)), dw(size_t(c.F * c.d)), db(size_t(c.d)), dx(size_t(c.capacity * c.F));
  cpu::project(ctx, mat(y, c.capacity, c.d), cmat(in.x, c.R, c.F), rows, cmat(in.w, c.F, c.d), cmat(in.b, 1, c.d));
  cpu::project_backward(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), mat(dx, c.capacity, c.F), cmat(in.dy, c.capacity, c.d), cmat(in.x, c.R, c.F), rows,
                        cmat(in.w, c.F, c.d));
  double forward = 0, by_w = 0, by_b = 0, by_x = 0, mass = 0;
  for (int64_t i = 0; i < n * c.d; ++i)
    forward += double(y[size_t(i)]) * in.dy[size_t(i)], mass += std::fabs(double(y[size_t(i)]) * in.dy[size_t(i)]);
  for (size_t i = 0; i < dw.size(); ++i) by_w += double(dw[i]) * in.w[i];
  for (size_t i = 0; i < db.size(); ++i) by_b += double(db[i]) * in.b[i];
  for (int64_t j = 0; j < n; ++j)
    for (int64_t f = 0; f < c.F; ++f) by_x += double(dx[size_t(j * c.F + f)]) * in.x[size_t(rows.at(j) * c.F + f)];
  EXPECT_NEAR(by_w + by_b, forward, 1e-5 * mass);
  EXPECT_NEAR(by_x + by_b, forward, 1e-5 * mass);
}

// An item's row must not depend on who else is in the list: evaluation projects all items, training a few.
TEST(Project, RowsDoNotDependOnTheList) {
  const Case c{"", 100, 300, 64, -1, 100};
  const Inputs in = inputs(c);
  Ctx ctx(2);
  std::vector<float> all(size_t(c.R * c.d)), some(size_t(3 * c.d));
  std::vector<int32_t> idx = {4, 50, 99};
  cpu::project(ctx, mat(all, c.R, c.d), cmat(in.x, c.R, c.F), {nullptr, nullptr, c.R}, cmat(in.w, c.F, c.d), cmat(in.b, 1, c.d));
  cpu::project(ctx, mat(some, 3, c.d), cmat(in.x, c.R, c.F), {idx.data(), nullptr, 3}, cmat(in.w, c.F, c.d), cmat(in.b, 1, c.d));
  for (size_t j = 0; j < 3; ++j)
    for (int64_t o = 0; o < c.d; ++o) EXPECT_EQ(some[j * size_t(c.d) + size_t(o)], all[size_t(idx[j] * c.d + o)]);
}

}  // namespace
}  // namespace ccdrec::test
