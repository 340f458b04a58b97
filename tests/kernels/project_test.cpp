#include "kernels/project.h"

#include <cstring>
#include <numeric>

#include "kernels/cpu/fast/microkernel.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::project_test {
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
                       {"wider than a tile", 30, 50, 270, 20, 20},
                       {"fours", 300, 128, 64, 255, 300},
                       {"fours, an odd width of features", 80, 37, 64, 65, 70},
                       {"fours, an odd width of output", 80, 132, 33, 64, 70},
                       {"a chunk of rows exactly", 280, 8, 4, 256, 280},
                       {"one past two chunks of rows", 700, 12, 40, 513, 700},
                       {"all rows, fours", 257, 516, 8, -1, 257},
                       {"capacity beyond all rows", 20, 16, 8, 20, 90},
                       {"blocks of listed rows", 1700, 150, 9, 1300, 1310}};

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
    // What is not listed shows in no result.
    for (int64_t r = 0; r < c.R; ++r)
      if (!std::binary_search(in.rows.begin(), in.rows.end(), int32_t(r)))
        std::fill_n(in.x.begin() + r * c.F, c.F, NAN);
    std::fill(in.dy.begin() + c.n * c.d, in.dy.end(), NAN);
  }
  return in;
}
RowList list(const Case& c, Inputs& in, Cell<int64_t>& count) {
  count = int64_t(in.rows.size());
  if (c.n < 0) return {nullptr, nullptr, c.R};
  in.rows.resize(size_t(c.capacity), -7);
  return {in.rows.data(), &count, c.capacity};
}

TEST(Project, ForwardMatchesDoubleReference) {
  for (const Case& c : kCases) {
    Inputs in = inputs(c);
    Cell<int64_t> count;
    const RowList rows = list(c, in, count);
    const int64_t n = count;
    std::vector<Ref> want(size_t(n * c.d));
    for (int64_t j = 0; j < n; ++j)
      for (int64_t o = 0; o < c.d; ++o) {
        Ref& y = want[size_t(j * c.d + o)];
        y.add(in.b[size_t(o)]);
        for (int64_t f = 0; f < c.F; ++f) y.add(double(in.x[size_t(rows.at(j) * c.F + f)]) * in.w[size_t(f * c.d + o)]);
      }
    SameBits same;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : with_isa(isa)) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
        DeviceCtx ctx(dev);
        std::vector<float> y(size_t(c.capacity * c.d), 99.0f);
        std::fill_n(y.begin(), n * c.d, NAN);
        dev.ops->project(ctx, mat(y, c.capacity, c.d), cmat(in.x, c.R, c.F), rows, cmat(in.w, c.F, c.d),
                         cmat(in.b, 1, c.d));
        EXPECT_TRUE(close(y, want, 1e-6));
        for (size_t i = size_t(n * c.d); i < y.size(); ++i) EXPECT_EQ(y[i], 99.0f) << "row beyond the list was written";
        EXPECT_TRUE(same(dev, "y", y));
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

TEST(Project, BackwardMatchesDoubleReference) {
  for (const Case& c : kCases) {
    Inputs in = inputs(c);
    Cell<int64_t> count;
    const RowList rows = list(c, in, count);
    const int64_t n = count;
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
    SameBits same;
    std::vector<float> first_db, first_dx;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : with_isa(isa)) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
        DeviceCtx ctx(dev);
        std::vector<float> dw = dw0, db = db0, dx(size_t(c.capacity * c.F), 99.0f), dw_only = dw0, db_only = db0;
        std::fill_n(dx.begin(), n * c.F, NAN);
        const CMat x = cmat(in.x, c.R, c.F), w = cmat(in.w, c.F, c.d), dy = cmat(in.dy, c.capacity, c.d);
        dev.ops->project_backward(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), mat(dx, c.capacity, c.F), dy, x, rows, w);
        dev.ops->project_backward(ctx, mat(dw_only, c.F, c.d), mat(db_only, 1, c.d), {}, dy, x, rows, w);
        EXPECT_TRUE(close(dw, want_w, 1e-6));
        EXPECT_TRUE(close(db, want_b, 1e-6));
        EXPECT_TRUE(close(dx, want_x, 1e-6));
        for (size_t i = size_t(n * c.F); i < dx.size(); ++i)
          EXPECT_EQ(dx[i], 99.0f) << "row beyond the list was written";
        EXPECT_EQ(dw_only, dw);
        EXPECT_EQ(db_only, db);
        EXPECT_TRUE(same(dev, "dw", dw));
        if (first_db.empty()) first_db = db, first_dx = dx;
        EXPECT_EQ(db, first_db) << "not the order of every device";
        EXPECT_EQ(dx, first_dx) << "not the order of every device";
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(float));
}

constexpr int64_t kSteps = 30;
AdamSchedule schedule(float gradient = 1) {
  static const std::vector<AdamCoef> coef = [] {
    std::vector<AdamCoef> c;
    for (int64_t t = 1; t <= kSteps; ++t) c.push_back(adam_coef(0.01, {}, t));
    return c;
  }();
  return {coef.data(), kSteps, {}, gradient};
}

// X as a table of a case: its rows are behind by different numbers of steps, and no row has reached the last. Some have
// had no gradient yet, some have moments out of the range of a root made of fma, some values are -0.
struct Waiting {
  std::vector<float> x, m, v;
  std::vector<int32_t> value_at, moments_at;
  Waiting(const Case& c, const Inputs& in, Draw g)
      : x(in.x),
        m(g.floats(c.R * c.F)),
        v(g.floats(c.R * c.F, 0, 1)),
        value_at(static_cast<size_t>(c.R)),
        moments_at(value_at) {
    for (size_t r = 0; r < value_at.size(); ++r) {
      value_at[r] = g.below(int32_t(kSteps));
      moments_at[r] = std::min(g.below(value_at[r] + 2), int32_t(kSteps) - 1);
      if (r % 5 == 1)
        std::fill_n(m.begin() + int64_t(r) * c.F, c.F, 0.0f), std::fill_n(v.begin() + int64_t(r) * c.F, c.F, 0.0f);
      if (r % 5 == 2) v[r * size_t(c.F)] = 1e-40f, m[r * size_t(c.F)] = -1e-40f;
      if (r % 3 == 1) x[r * size_t(c.F)] = -0.0f;
    }
  }
  Table table(const Case& c) {
    return {mat(x, c.R, c.F), mat(m, c.R, c.F), mat(v, c.R, c.F), value_at.data(), moments_at.data()};
  }
};
void expect_same_table(const Waiting& got, const Waiting& want) {
  EXPECT_TRUE(same_bits(got.x, want.x));
  EXPECT_TRUE(same_bits(got.m, want.m));
  EXPECT_TRUE(same_bits(got.v, want.v));
  EXPECT_EQ(got.value_at, want.value_at);
  EXPECT_EQ(got.moments_at, want.moments_at);
}

// One operation, and the two that it stands for: every bit of Y and of the listed rows. Rows that are not listed, or
// further than t, are left alone.
TEST(Project, CatchUpProjectIsCatchUpThenProject) {
  for (const Case& c : kCases) {
    Inputs in = inputs(c);
    Cell<int64_t> count;
    const RowList rows = list(c, in, count);
    const Waiting start(c, in, Draw{3000000});
    std::vector<float> first_x;
    for (const int64_t t : {int64_t(0), kSteps / 2, kSteps}) {
      first_x.clear();
      for (const char* isa : {"portable", "avx2", "avx512"}) {
        if (!cpu::find_kernel(isa)) continue;
        cpu::set_micro_kernel(cpu::find_kernel(isa));
        for (const Device& dev : with_isa(isa)) {
          SCOPED_TRACE(std::string(c.name) + " to step " + std::to_string(t) + " on " + dev.name + " with " + isa);
          DeviceCtx ctx(dev);
          Waiting want = start, got = start;
          std::vector<float> want_y(size_t(c.capacity * c.d), 99.0f), y = want_y;
          const CMat w = cmat(in.w, c.F, c.d), b = cmat(in.b, 1, c.d);
          const Table apart = want.table(c);
          dev.ops->adam_catch_up(ctx, apart, rows, schedule(), t);
          dev.ops->project(ctx, mat(want_y, c.capacity, c.d), apart.value, rows, w, b);
          dev.ops->catch_up_project(ctx, mat(y, c.capacity, c.d), got.table(c), rows, w, b, schedule(), t);
          EXPECT_TRUE(same_bits(y, want_y));
          expect_same_table(got, want);
          for (int64_t j = 0; j < count; ++j) EXPECT_GE(got.value_at[size_t(rows.at(j))], t);
          if (std::string(dev.name) != "cpu") continue;
          if (first_x.empty()) first_x = got.x;
          EXPECT_TRUE(same_bits(got.x, first_x)) << "not the bits of every path";
        }
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

// The step at once is the gradient, then the step: every bit of dW, db and the listed rows; the others are left alone.
TEST(Project, BackwardStepIsBackwardThenStep) {
  for (const Case& c : kCases) {
    Inputs in = inputs(c);
    Cell<int64_t> count;
    const RowList rows = list(c, in, count);
    Draw g{2000000};
    const auto dw0 = g.floats(c.F * c.d), db0 = g.floats(c.d);
    const Waiting start(c, in, g);
    std::vector<float> first_x;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : with_isa(isa)) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa);
        DeviceCtx ctx(dev);
        Waiting want = start, got = start;
        std::vector<float> want_dw = dw0, want_db = db0, dw = dw0, db = db0, dx(size_t(c.capacity * c.F));
        const CMat w = cmat(in.w, c.F, c.d), dy = cmat(in.dy, c.capacity, c.d);
        const Table apart = want.table(c);
        dev.ops->project_backward(ctx, mat(want_dw, c.F, c.d), mat(want_db, 1, c.d), mat(dx, c.capacity, c.F), dy,
                                  apart.value, rows, w);
        dev.ops->adam_rows(ctx, apart, rows, mat(dx, c.capacity, c.F), false, schedule(), kSteps);
        dev.ops->project_backward_step(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), dy, got.table(c), rows, w, schedule(),
                                       kSteps);
        EXPECT_TRUE(same_bits(dw, want_dw));
        EXPECT_TRUE(same_bits(db, want_db));
        expect_same_table(got, want);
        if (std::string(dev.name) != "cpu") continue;
        if (first_x.empty()) first_x = got.x;
        EXPECT_TRUE(same_bits(got.x, first_x)) << "not the bits of every path";
      }
    }
    cpu::set_micro_kernel(nullptr);
  }
}

// The moments after a step whose gradient is multiplied by a factor: of rows that move at once, and of rows that wait.
TEST(Project, BackwardStepTakesAMultipleOfTheGradient) {
  const Case cases[] = {{"most rows", 60, 300, 64, 31, 60}, {"few rows", 150, 70, 37, 20, 30}};
  for (const Case& c : cases)
    for (const float factor : {1.0f, -0.2f, 0.0f}) {
      Inputs in = inputs(c);
      Cell<int64_t> count;
      const RowList rows = list(c, in, count);
      Draw g{2000000};
      Waiting start(c, in, g);
      std::fill(start.value_at.begin(), start.value_at.end(), int32_t(kSteps) - 1), start.moments_at = start.value_at;
      std::vector<Ref> want_m, want_v;
      for (int64_t j = 0; j < count; ++j)
        for (int64_t f = 0; f < c.F; ++f) {
          Ref dx;
          for (int64_t o = 0; o < c.d; ++o) dx.add(double(in.dy[size_t(j * c.d + o)]) * in.w[size_t(f * c.d + o)]);
          const size_t at = size_t(rows.at(j) * c.F + f);
          want_m.push_back({0.9 * start.m[at] + 0.1 * factor * dx.value,
                            0.9 * std::fabs(start.m[at]) + 0.1 * std::fabs(factor) * dx.mass});
          want_v.push_back({0.999 * start.v[at] + 0.001 * factor * factor * dx.value * dx.value,
                            0.999 * start.v[at] + 0.001 * factor * factor * dx.mass * dx.mass});
        }
      for (const char* isa : {"portable", "avx2", "avx512"}) {
        if (!cpu::find_kernel(isa)) continue;
        cpu::set_micro_kernel(cpu::find_kernel(isa));
        for (const Device& dev : with_isa(isa)) {
          SCOPED_TRACE(std::string(c.name) + " times " + std::to_string(factor) + " on " + dev.name + " with " + isa);
          DeviceCtx ctx(dev);
          Waiting got = start;
          std::vector<float> dw(size_t(c.F * c.d)), db(size_t(c.d)), m, v;
          dev.ops->project_backward_step(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), cmat(in.dy, c.capacity, c.d),
                                         got.table(c), rows, cmat(in.w, c.F, c.d), schedule(factor), kSteps);
          for (int64_t j = 0; j < count; ++j) {
            const int64_t first = rows.at(j) * c.F;
            m.insert(m.end(), got.m.begin() + first, got.m.begin() + first + c.F);
            v.insert(v.end(), got.v.begin() + first, got.v.begin() + first + c.F);
            EXPECT_EQ(got.value_at[size_t(rows.at(j))], moves_at_once(count, c.R) ? kSteps : kSteps - 1);
          }
          EXPECT_TRUE(close(m, want_m, 1e-6));
          EXPECT_TRUE(close(v, want_v, 2e-5));  // 1 - 0.999f is 1.3e-5 from 0.001
        }
      }
      cpu::set_micro_kernel(nullptr);
    }
}

TEST(Project, BackwardStepRefusesAPastStep) {
  const AdamCoef coef[3] = {adam_coef(0.01, {}, 1), adam_coef(0.01, {}, 2), adam_coef(0.01, {}, 3)};
  std::vector<float> x(20, 1), m(20), v(20), dw(10), db(2), dy(8, 1), w(10, 1);
  std::vector<int32_t> value_at = {0, 0, 2, 0}, moments_at = {0, 0, 2, 1};
  Ctx ctx(1);
  const auto step = [&](int64_t t) {
    cpu::project_backward_step(ctx, mat(dw, 5, 2), mat(db, 1, 2), cmat(dy, 4, 2),
                               {mat(x, 4, 5), mat(m, 4, 5), mat(v, 4, 5), value_at.data(), moments_at.data()},
                               {nullptr, nullptr, 4}, cmat(w, 5, 2), {coef, 3, {}}, t);
  };
  EXPECT_THROW(step(2), std::logic_error);  // row 2 has it behind it
  EXPECT_THROW(step(4), std::logic_error);  // beyond the schedule
  EXPECT_EQ(x, std::vector<float>(20, 1));
  EXPECT_EQ(dw, std::vector<float>(10));
  EXPECT_EQ(value_at, (std::vector<int32_t>{0, 0, 2, 0}));
  EXPECT_EQ(moments_at, (std::vector<int32_t>{0, 0, 2, 1}));
  step(3);
  EXPECT_EQ(value_at, std::vector<int32_t>(4, 3));  // every row is listed: values move at once
  EXPECT_EQ(moments_at, std::vector<int32_t>(4, 3));
}

// X W + b is linear in each of its parts: <dY, X W> + <dY, b> from the forward pass against the gradients of the
// backward pass.
TEST(Project, BackwardIsTheAdjointOfForward) {
  const Case c{"", 70, 300, 37, 41, 50};
  Inputs in = inputs(c);
  Cell<int64_t> count;
  const RowList rows = list(c, in, count);
  const int64_t n = count;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> y(size_t(c.capacity * c.d)), dw(size_t(c.F * c.d)), db(size_t(c.d)),
        dx(size_t(c.capacity * c.F));
    dev.ops->project(ctx, mat(y, c.capacity, c.d), cmat(in.x, c.R, c.F), rows, cmat(in.w, c.F, c.d),
                     cmat(in.b, 1, c.d));
    dev.ops->project_backward(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), mat(dx, c.capacity, c.F),
                              cmat(in.dy, c.capacity, c.d), cmat(in.x, c.R, c.F), rows, cmat(in.w, c.F, c.d));
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
}

// An item's row must not depend on who else is in the list: evaluation projects all items, training a few. A library's
// product chooses its order of summation by the shape, so on a GPU that holds to rounding only.
TEST(Project, RowsDoNotDependOnTheList) {
  const Case c{"", 100, 300, 64, -1, 100};
  const Inputs in = inputs(c);
  std::vector<int32_t> idx = {4, 50, 99};
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> all(size_t(c.R * c.d)), some(size_t(3 * c.d)), those;
    dev.ops->project(ctx, mat(all, c.R, c.d), cmat(in.x, c.R, c.F), {nullptr, nullptr, c.R}, cmat(in.w, c.F, c.d),
                     cmat(in.b, 1, c.d));
    dev.ops->project(ctx, mat(some, 3, c.d), cmat(in.x, c.R, c.F), {idx.data(), nullptr, 3}, cmat(in.w, c.F, c.d),
                     cmat(in.b, 1, c.d));
    for (const int32_t r : idx) those.insert(those.end(), all.begin() + r * c.d, all.begin() + (r + 1) * c.d);
    if (dev.family == "cpu")
      EXPECT_EQ(some, those);
    else
      for (size_t e = 0; e < some.size(); ++e) EXPECT_NEAR(some[e], those[e], 1e-6 * double(c.F));  // |x|, |w| <= 1
  }
}

// The first rows of X by a count alone: what lies behind them shows nowhere.
TEST(Project, IdentityListWithACount) {
  const Case c{"", 300, 20, 12, -1, 300};
  Inputs in = inputs(c);
  const int64_t n = 261;
  Cell<int64_t> count(n);
  std::fill(in.x.begin() + n * c.F, in.x.end(), NAN);
  std::fill(in.dy.begin() + n * c.d, in.dy.end(), NAN);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    struct Result {
      std::vector<float> y, dw, db, dx;
    };
    const auto run = [&](RowList rows, int64_t capacity) {
      Result o{std::vector<float>(size_t(capacity * c.d), 99.0f), std::vector<float>(size_t(c.F * c.d)),
               std::vector<float>(size_t(c.d)), std::vector<float>(size_t(capacity * c.F), 99.0f)};
      const CMat x = cmat(in.x, c.R, c.F), w = cmat(in.w, c.F, c.d);
      dev.ops->project(ctx, mat(o.y, capacity, c.d), x, rows, w, cmat(in.b, 1, c.d));
      dev.ops->project_backward(ctx, mat(o.dw, c.F, c.d), mat(o.db, 1, c.d), mat(o.dx, capacity, c.F),
                                cmat(in.dy, capacity, c.d), x, rows, w);
      return o;
    };
    Result got = run({nullptr, &count, c.capacity}, c.capacity);
    const Result want = run({nullptr, nullptr, n}, n);
    for (size_t i = size_t(n * c.d); i < got.y.size(); ++i) EXPECT_EQ(got.y[i], 99.0f);
    for (size_t i = size_t(n * c.F); i < got.dx.size(); ++i) EXPECT_EQ(got.dx[i], 99.0f);
    got.y.resize(want.y.size()), got.dx.resize(want.dx.size());
    EXPECT_EQ(got.db, want.db);
    EXPECT_EQ(got.dx, want.dx);
    for (size_t e = 0; e < got.y.size(); ++e) EXPECT_NEAR(got.y[e], want.y[e], 1e-5);
    for (size_t e = 0; e < got.dw.size(); ++e) EXPECT_NEAR(got.dw[e], want.dw[e], 1e-6 * double(n));
  }
}

// A recorded step is replayed with other rows and another count.
TEST(Project, ReplayReadsTheCountOfTheMoment) {
  const Case c{"", 90, 24, 16, 70, 80};
  Inputs in = inputs(c);
  std::fill(in.dy.begin(), in.dy.end(), 0.5f);
  for (const Device& dev : devices()) {
    if (!dev.ops->record) continue;
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    Cell<int64_t> count;
    Inputs mine = in;
    const RowList rows = list(c, mine, count);
    const CMat x = cmat(mine.x, c.R, c.F), w = cmat(mine.w, c.F, c.d), b = cmat(mine.b, 1, c.d),
               dy = cmat(mine.dy, c.capacity, c.d);
    std::vector<float> y(size_t(c.capacity * c.d)), dw(size_t(c.F * c.d)), db(size_t(c.d)),
        dx(size_t(c.capacity * c.F));
    const auto step = [&] {
      dev.ops->project(ctx, mat(y, c.capacity, c.d), x, rows, w, b);
      dev.ops->project_backward(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), mat(dx, c.capacity, c.F), dy, x, rows, w);
    };
    step();  // takes the scratch memory
    void* recording = dev.ops->record(ctx, step);
    *&count = 3;
    std::copy_n(mine.rows.begin() + 67, 3, mine.rows.begin());
    for (auto* v : {&y, &dw, &db, &dx}) std::fill(v->begin(), v->end(), 0.0f);
    dev.ops->replay(ctx, recording);
    dev.ops->wait(ctx);
    dev.ops->forget(ctx, recording);
    std::vector<float> want_y(y.size()), want_dw(dw.size()), want_db(db.size()), want_dx(dx.size());
    Ctx on_cpu(1);
    cpu::project(on_cpu, mat(want_y, c.capacity, c.d), x, rows, w, b);
    cpu::project_backward(on_cpu, mat(want_dw, c.F, c.d), mat(want_db, 1, c.d), mat(want_dx, c.capacity, c.F), dy, x,
                          rows, w);
    EXPECT_EQ(db, want_db);
    EXPECT_EQ(dx, want_dx);
    for (size_t e = 0; e < y.size(); ++e) EXPECT_NEAR(y[e], want_y[e], 1e-5);
    for (size_t e = 0; e < dw.size(); ++e) EXPECT_NEAR(dw[e], want_dw[e], 1e-5);
  }
}

// A count beyond the memory: only the device can see it. Nothing is written outside.
TEST(Project, ACountBeyondTheRoomIsRefused) {
  const Case c{"", 12, 8, 4, 9, 9};
  Inputs in = inputs(c);
  Cell<int64_t> count;
  const RowList rows = list(c, in, count);
  const CMat x = cmat(in.x, c.R, c.F), w = cmat(in.w, c.F, c.d), b = cmat(in.b, 1, c.d);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> y(size_t(7 * c.d)), dw(size_t(c.F * c.d)), db(size_t(c.d)), dx(size_t(7 * c.F));
    const auto forward = [&] { dev.ops->project(ctx, mat(y, 7, c.d), x, rows, w, b); };
    const auto backward = [&] {
      dev.ops->project_backward(ctx, mat(dw, c.F, c.d), mat(db, 1, c.d), mat(dx, 7, c.F), cmat(in.dy, 9, c.d), x, rows,
                                w);
    };
    if (dev.family == "cpu") {
      EXPECT_THROW(forward(), std::logic_error);
      EXPECT_THROW(backward(), std::logic_error);
      continue;
    }
    forward();
    EXPECT_NE(dev.ops->take_fault(ctx), 0);
    backward();
    EXPECT_NE(dev.ops->take_fault(ctx), 0);
  }
}

}  // namespace
}  // namespace ccdrec::test::project_test
