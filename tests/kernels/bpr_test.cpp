#include "kernels/bpr.h"

#include <algorithm>

#include "tests/kernels/graphs.h"

namespace ccdrec::test::bpr_test {
namespace {

struct Case {
  const char* name;
  int64_t B, d;
  float weight;
  double scale;
};
const Case kCases[] = {{"no rows", 0, 64, 1, 1},
                       {"one row", 1, 64, 0.8f, 1},
                       {"odd width", 5, 37, 0.2f, 1},
                       {"a batch", 600, 64, 0.8f, 0.5},
                       {"large margins", 300, 64, 1, 20},
                       {"tiny rows", 40, 8, 1, 1e-3},
                       {"a block but one of sixteen lanes a row", 15, 64, 1, 1},
                       {"a block", 16, 64, 1, 1},
                       {"a block and one", 17, 64, 1, 1},
                       {"a block but one of single lanes", 255, 1, 1, 1},
                       {"a block of single lanes", 256, 4, 1, 1},
                       {"a block and one of single lanes", 257, 1, 1, 1},
                       {"more than a warp of fours", 9, 300, 1, 0.3},
                       {"more than four warps of ones", 9, 131, 1, 0.3}};

double margin(const std::vector<double>& u, const std::vector<double>& p, const std::vector<double>& x, int64_t b,
              int64_t d) {
  double sum = 0;
  for (int64_t j = 0; j < d; ++j) sum += u[size_t(b * d + j)] * (p[size_t(b * d + j)] - x[size_t(b * d + j)]);
  return sum;
}
double loss_of(double m, bool with_eps) {  // as the spec writes it
  if (with_eps) return -std::log(1e-10 + 1 / (1 + std::exp(-m)));
  return std::max(-m, 0.0) + std::log1p(std::exp(-std::fabs(m)));
}

TEST(Bpr, LossAndGradientMatchFiniteDifferences) {
  for (const Case& c : kCases)
    for (bool with_eps : {false, true}) {
      Draw g;
      const float s = float(c.scale);
      const auto u = g.floats(c.B * c.d, -s, s), p = g.floats(c.B * c.d, -s, s), x = g.floats(c.B * c.d, -s, s);
      const auto du0 = g.floats(c.B * c.d), dp0 = g.floats(c.B * c.d), dx0 = g.floats(c.B * c.d);
      const std::vector<double> U(u.begin(), u.end()), P(p.begin(), p.end()), X(x.begin(), x.end());
      double want = 0;
      for (int64_t b = 0; b < c.B; ++b)
        want += double(c.weight) / double(c.B) * loss_of(margin(U, P, X, b, c.d), with_eps);
      SameBits same;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + (with_eps ? ", eps" : ", stable") + " on " + dev.name);
        DeviceCtx ctx(dev);
        std::vector<float> du = du0, dp = dp0, dx(du0.size(), NAN), du2 = du0, dp2 = dp0;
        Cell<double> loss = 3.5, loss2 = 0, loss3 = 0;
        const CMat hu = cmat(u, c.B, c.d), hp = cmat(p, c.B, c.d), hx = cmat(x, c.B, c.d);
        dev.ops->bpr(ctx, &loss, {mat(du, c.B, c.d), mat(dp, c.B, c.d), mat(dx, c.B, c.d)}, hu, hp, hx, c.weight,
                     with_eps);
        dev.ops->bpr(ctx, &loss2, {mat(du2, c.B, c.d), mat(dp2, c.B, c.d), {}}, hu, hp, hx, c.weight, with_eps);
        // Written where nothing was before: as added to zero.
        std::vector<float> du3(du0.size(), NAN), dp3(du0.size(), 0.0f), dx3(du0.size(), NAN), du4(du0.size(), 0.0f),
            dp4(du0.size(), NAN);
        dev.ops->bpr(ctx, &loss3, {mat(du3, c.B, c.d), mat(dp3, c.B, c.d), mat(dx3, c.B, c.d), false, true}, hu, hp, hx,
                     c.weight, with_eps);
        dev.ops->bpr(ctx, &loss3, {mat(du4, c.B, c.d), mat(dp4, c.B, c.d), {}, true, false}, hu, hp, hx, c.weight,
                     with_eps);
        EXPECT_EQ(du3, du4);
        EXPECT_EQ(dp3, dp4);
        EXPECT_EQ(dx3, dx);
        EXPECT_NEAR(loss, 3.5 + want, 1e-12 * (1 + std::fabs(want)));
        EXPECT_EQ(du, du2);  // a constant h_x changes nothing else
        EXPECT_EQ(dp, dp2);
        // Central differences of one row's loss in each direction; a row only depends on itself.
        std::vector<Ref> want_du(du.size()), want_dp(dp.size()), want_dx(dx.size());
        for (int64_t b = 0; b < c.B; ++b) {
          const double m = margin(U, P, X, b, c.d), h = 1e-4;
          const double slope =
              (loss_of(m + h, with_eps) - loss_of(m - h, with_eps)) / (2 * h) * double(c.weight) / double(c.B);
          for (int64_t j = 0; j < c.d; ++j) {
            const size_t i = size_t(b * c.d + j);
            want_du[i].add(du0[i]), want_du[i].add(slope * P[i]), want_du[i].add(-slope * X[i]);
            want_dp[i].add(dp0[i]), want_dp[i].add(slope * U[i]);
            want_dx[i].add(dx0[i]), want_dx[i].add(-slope * U[i]);
          }
        }
        EXPECT_TRUE(close(du, want_du, 4e-7));
        EXPECT_TRUE(close(dp, want_dp, 4e-7));
        for (size_t i = 0; i < dx.size(); ++i) dx[i] += dx0[i];  // beside which the error of a difference is nothing
        EXPECT_TRUE(close(dx, want_dx, 4e-7));
        EXPECT_TRUE(same(dev, "d_u", du));
        EXPECT_TRUE(same(dev, "loss", double(loss)));
      }
    }
}

// Rows that start at odd places: even widths are not always read four at a time. More rows than one block adds up the
// losses of.
TEST(Bpr, RowsOffTheirAlignmentAndManyBlocks) {
  for (const auto& size : std::vector<std::pair<int64_t, int64_t>>{{33, 64}, {4200, 36}}) {
    const int64_t B = size.first, d = size.second;
    Draw g;
    std::vector<std::vector<float>> at;  // u, p, x and their gradients, each behind one float
    for (int k = 0; k < 6; ++k) at.push_back(g.floats(B * d + 1));
    double want = 0;
    for (int64_t b = 0; b < B; ++b) {
      double m = 0;
      for (int64_t j = 1; j <= d; ++j)
        m += double(at[0][size_t(b * d + j)]) * (double(at[1][size_t(b * d + j)]) - at[2][size_t(b * d + j)]);
      want += double(0.7f) / double(B) * loss_of(m, false);
    }
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      Cell<double> loss = 0, aligned_loss = 0;
      auto off = at;
      std::vector<std::vector<float>> on;
      for (const auto& v : at) on.emplace_back(v.begin() + 1, v.end());
      const auto run = [&](std::vector<std::vector<float>>& v, int64_t skip, double* to) {
        std::vector<Mat> m;
        for (auto& x : v) m.push_back({x.data() + skip, B, d});
        dev.ops->bpr(ctx, to, {m[3], m[4], m[5]}, m[0], m[1], m[2], 0.7f, false);
      };
      run(off, 1, &loss);
      run(on, 0, &aligned_loss);
      EXPECT_NEAR(loss, want, 1e-12 * want);
      EXPECT_NEAR(aligned_loss, want, 1e-12 * want);
      for (size_t k = 0; k < 6; ++k) {
        EXPECT_EQ(off[k][0], at[k][0]);
        for (size_t i = 0; i < on[k].size(); ++i)
          ASSERT_NEAR(off[k][i + 1], on[k][i], 1.2e-7 * (1 + std::fabs(on[k][i]))) << k << " " << i;
      }
      EXPECT_TRUE(same(dev, "loss", double(loss)));
      EXPECT_TRUE(same(dev, "aligned loss", double(aligned_loss)));
      EXPECT_TRUE(same(dev, "d_x", off[5]));
    }
  }
}

// Gradients alone, from zero: beside random starting values a relative error of a small gradient would drown.
TEST(Bpr, SmallGradientsKeepTheirRelativeAccuracy) {
  for (const Device& dev : devices())
    for (bool with_eps : {false, true})
      for (double m : {-30.0, -8.0, -1.0, 0.0, 1e-3, 1.0, 8.0, 30.0, 80.0}) {
        SCOPED_TRACE(std::to_string(m) + " on " + dev.name);
        DeviceCtx ctx(dev);
        const std::vector<float> u = {1}, p = {float(m)}, x = {0};
        std::vector<float> du = {0}, dp = {0}, dx = {0};
        Cell<double> loss = 0;
        dev.ops->bpr(ctx, &loss, {mat(du, 1, 1), mat(dp, 1, 1), mat(dx, 1, 1)}, cmat(u, 1, 1), cmat(p, 1, 1),
                     cmat(x, 1, 1), 1.0f, with_eps);
        const double mf = p[0], sig = 1 / (1 + std::exp(-mf)), rest = 1 / (1 + std::exp(mf));
        const double want = with_eps ? -sig * rest / (1e-10 + sig) : -rest;
        EXPECT_NEAR(dp[0], want, 2e-7 * std::fabs(want));
        EXPECT_NEAR(dx[0], -want, 2e-7 * std::fabs(want));
        EXPECT_NEAR(loss, with_eps ? -std::log(1e-10 + sig) : std::max(-mf, 0.0) + std::log1p(std::exp(-std::fabs(mf))),
                    1e-14 + 1e-13 * std::fabs(mf));
      }
}

TEST(Bpr, FarApartIsFiniteAndANanIsNot) {
  for (const Device& dev : devices())
    for (float m : {-1e4f, 1e4f}) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> u = {1}, p = {m}, x = {0}, du = {0}, dp = {0}, dx = {0};
      Cell<double> loss = 0;
      dev.ops->bpr(ctx, &loss, {mat(du, 1, 1), mat(dp, 1, 1), mat(dx, 1, 1)}, cmat(u, 1, 1), cmat(p, 1, 1),
                   cmat(x, 1, 1), 1, false);
      EXPECT_EQ(loss, m < 0 ? 1e4 : 0.0);
      EXPECT_EQ(dp[0], m < 0 ? -1.0f : 0.0f);
      p[0] = NAN;
      dev.ops->bpr(ctx, &loss, {mat(du, 1, 1), mat(dp, 1, 1), mat(dx, 1, 1)}, cmat(u, 1, 1), cmat(p, 1, 1),
                   cmat(x, 1, 1), 1, false);
      EXPECT_TRUE(std::isnan(loss));
    }
}

// Slots [users | positives | negatives ..] of a table's rows: norms of the blocks, and rows named by several slots get
// the sum of their gradients.
TEST(NormReg, LossAndGradientMatchFiniteDifferences) {
  struct Shape {
    int64_t B, R, d;
    int n_neg;
  };
  for (const Shape& z : std::vector<Shape>{{0, 5, 64, 1},
                                           {1, 1, 1, 1},
                                           {7, 9, 37, 1},
                                           {31, 40, 33, 2},
                                           {32, 500, 32, 0},
                                           {41, 3, 25, 3},
                                           {700, 900, 64, 1}}) {
    const int blocks = 2 + z.n_neg;
    const int64_t n = z.B * blocks, size = z.R * z.d;
    Draw g;
    const auto x = g.floats(size), g0 = g.floats(size);
    std::vector<int32_t> ids;
    for (int64_t s = 0; s < n; ++s) ids.push_back(g.below(int32_t(z.R)));
    const float reg = 0.7f;
    const auto value = [&](size_t at, double shift) {
      double sum = 0;
      for (int k = 0; k < blocks; ++k) {
        double squares = 0;
        for (int64_t b = 0; b < z.B; ++b)
          for (int64_t j = 0; j < z.d; ++j) {
            const size_t i = size_t(ids[size_t(k * z.B + b)] * z.d + j);
            const double v = x[i] + (i == at ? shift : 0);
            squares += v * v;
          }
        sum += double(reg) / double(z.B) / (k < 2 ? 1 : z.n_neg) * std::sqrt(squares);
      }
      return z.B ? sum : 0;
    };
    const double want = value(size_t(-1), 0);
    std::vector<std::pair<size_t, double>> slopes;
    for (size_t i = 0; i < x.size(); i += 1 + x.size() / 50)
      slopes.emplace_back(i, (value(i, 1e-4) - value(i, -1e-4)) / 2e-4);
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(z.B) + " rows a block, width " + std::to_string(z.d) + " on " + dev.name);
      DeviceCtx ctx(dev);
      OwnedGroups slots(n);
      dev.ops->group(ctx, slots.g, ids.data(), n, z.R);
      std::vector<float> grad = g0, from_zero(x.size(), 0.0f);
      Cell<double> loss = -2, again = 0;
      dev.ops->norm_reg(ctx, &loss, mat(grad, z.R, z.d), cmat(x, z.R, z.d), slots.g, ids.data(), z.B, z.n_neg, reg);
      dev.ops->norm_reg(ctx, &again, mat(from_zero, z.R, z.d), cmat(x, z.R, z.d), slots.g, ids.data(), z.B, z.n_neg,
                        reg);
      EXPECT_NEAR(loss, -2 + want, 1e-7 * want);  // reg / n_neg is a float
      EXPECT_NEAR(-2 + again, loss, 1e-12);
      for (const auto& [i, slope] : slopes) {
        EXPECT_NEAR(from_zero[i], slope, 3e-6 * std::fabs(slope) + 1e-8) << i;  // a row of R = 3 sums over fifty slots
        EXPECT_NEAR(grad[i], g0[i] + from_zero[i], 1e-7 * (std::fabs(g0[i]) + std::fabs(from_zero[i]))) << i;
      }
      for (size_t i = 0; i < x.size(); ++i) {
        const bool named = std::find(ids.begin(), ids.end(), int32_t(int64_t(i) / z.d)) != ids.end();
        ASSERT_EQ(grad[i] == g0[i], !named || from_zero[i] == 0 || g0[i] + from_zero[i] == g0[i]) << i;
      }
      EXPECT_TRUE(same(dev, "loss", double(loss)));
      EXPECT_TRUE(same(dev, "gradient", grad));
    }
  }
}

TEST(NormReg, AFurtherBlockHasNoShare) {
  const int64_t B = 37, R = 50, d = 24, blocks = 4;
  Draw g;
  const auto x = g.floats(R * d), g0 = g.floats(R * d);
  std::vector<int32_t> ids;
  // some rows in the further block alone
  for (int64_t s = 0; s < (blocks + 1) * B; ++s) ids.push_back(g.below(int32_t(s < blocks * B ? R - 5 : R)));
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> grad[2] = {g0, g0};
    Cell<double> loss[2] = {0, 0};
    for (const int64_t more : {0, 1}) {
      OwnedGroups slots((blocks + 1) * B);
      dev.ops->group(ctx, slots.g, ids.data(), (blocks + more) * B, R);
      dev.ops->norm_reg(ctx, &loss[more], mat(grad[more], R, d), cmat(x, R, d), slots.g, ids.data(), B, 2, 0.3f);
    }
    EXPECT_EQ(double(loss[0]), double(loss[1]));
    EXPECT_EQ(grad[0], grad[1]);
    EXPECT_NE(grad[0], g0);
  }
}

TEST(NormReg, ABlockOfZeroRowsIsNothing) {
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    const std::vector<float> x = {0, 0, 0, 0, 3, 4, 0, 0};  // row 0: users and negatives; row 1: positives
    const std::vector<int32_t> ids = {0, 0, 1, 1, 0, 0};
    OwnedGroups slots(6);
    dev.ops->group(ctx, slots.g, ids.data(), 6, 2);
    std::vector<float> grad(8, 2.0f);
    Cell<double> loss = 1;
    dev.ops->norm_reg(ctx, &loss, mat(grad, 2, 4), cmat(x, 2, 4), slots.g, ids.data(), 2, 1, 2);
    EXPECT_NEAR(loss, 1.0 + std::sqrt(50.0), 1e-12);
    const float one = float(1 / std::sqrt(50.0));
    for (int j = 0; j < 8; ++j) EXPECT_NEAR(grad[size_t(j)], 2 + 2 * one * x[size_t(j)], 5e-7) << j;
  }
}

TEST(SquareReg, LossAndGradientMatchDoubleReferenceAndFiniteDifferences) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{0, 64}, {1, 1}, {7, 37}, {300, 64}, {517, 12}, {3, 1025}};
  for (const auto& [R, d] : shapes) {
    Draw g;
    const auto x = g.floats(R * d), before = g.floats(R * d);
    const float weight = 0.3f;
    const auto value = [&](size_t at, double shift) {
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double v = double(x[i]) + (i == at ? shift : 0);
        sum += double(weight) / 2 * v * v;
      }
      return sum;
    };
    const double want = value(size_t(-1), 0);
    std::vector<Ref> want_d(x.size());
    for (size_t i = 0; i < x.size(); ++i) want_d[i].add(before[i]), want_d[i].add(double(weight) * x[i]);
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(R) + " x " + std::to_string(d) + " on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> grad = before, from_zero(x.size(), 0.0f);
      Cell<double> loss = -1.5, constant = 0, again = 0;
      dev.ops->square_reg(ctx, &loss, mat(grad, R, d), cmat(x, R, d), weight);
      dev.ops->square_reg(ctx, &constant, {}, cmat(x, R, d), weight);
      dev.ops->square_reg(ctx, &again, mat(from_zero, R, d), cmat(x, R, d), weight);
      EXPECT_NEAR(loss, -1.5 + want, 1e-12 * (1 + want));
      EXPECT_EQ(double(constant), double(again));
      EXPECT_NEAR(constant, want, 1e-12 * (1 + want));
      EXPECT_TRUE(close(grad, want_d, 1e-7));
      for (size_t i = 0; i < x.size(); i += 1 + x.size() / 50)
        EXPECT_NEAR(from_zero[i], (value(i, 1e-3) - value(i, -1e-3)) / 2e-3, 3e-8 * (1 + want)) << i;
      EXPECT_TRUE(same(dev, "loss", double(loss)));
      EXPECT_TRUE(same(dev, "gradient", grad));
    }
  }
}

}  // namespace
}  // namespace ccdrec::test::bpr_test
