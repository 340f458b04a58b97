#include "kernels/bpr.h"

#include "tests/support.h"

namespace ccdrec::test {
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

double margin(const std::vector<double>& u, const std::vector<double>& p, const std::vector<double>& x, int64_t b, int64_t d) {
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
      for (int64_t b = 0; b < c.B; ++b) want += double(c.weight) / double(c.B) * loss_of(margin(U, P, X, b, c.d), with_eps);
      SameBits same;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + (with_eps ? ", eps" : ", stable") + " on " + dev.name);
        DeviceCtx ctx(dev);
        std::vector<float> du = du0, dp = dp0, dx = dx0, du2 = du0, dp2 = dp0;
        Cell<double> loss = 3.5, loss2 = 0;
        dev.ops->bpr(ctx, &loss, mat(du, c.B, c.d), mat(dp, c.B, c.d), mat(dx, c.B, c.d), cmat(u, c.B, c.d), cmat(p, c.B, c.d), cmat(x, c.B, c.d),
                     c.weight, with_eps);
        dev.ops->bpr(ctx, &loss2, mat(du2, c.B, c.d), mat(dp2, c.B, c.d), Mat{}, cmat(u, c.B, c.d), cmat(p, c.B, c.d), cmat(x, c.B, c.d), c.weight,
                     with_eps);
        EXPECT_NEAR(loss, 3.5 + want, 1e-12 * (1 + std::fabs(want)));
        EXPECT_EQ(du, du2);  // a constant h_x changes nothing else
        EXPECT_EQ(dp, dp2);
        // Central differences of one row's loss in each direction; a row only depends on itself.
        std::vector<Ref> want_du(du.size()), want_dp(dp.size()), want_dx(dx.size());
        for (int64_t b = 0; b < c.B; ++b) {
          const double m = margin(U, P, X, b, c.d), h = 1e-4;
          const double slope = (loss_of(m + h, with_eps) - loss_of(m - h, with_eps)) / (2 * h) * double(c.weight) / double(c.B);
          for (int64_t j = 0; j < c.d; ++j) {
            const size_t i = size_t(b * c.d + j);
            want_du[i].add(du0[i]), want_du[i].add(slope * P[i]), want_du[i].add(-slope * X[i]);
            want_dp[i].add(dp0[i]), want_dp[i].add(slope * U[i]);
            want_dx[i].add(dx0[i]), want_dx[i].add(-slope * U[i]);
          }
        }
        EXPECT_TRUE(close(du, want_du, 4e-7));
        EXPECT_TRUE(close(dp, want_dp, 4e-7));
        EXPECT_TRUE(close(dx, want_dx, 4e-7));
        EXPECT_TRUE(same(dev, "d_u", du));
        EXPECT_TRUE(same(dev, "loss", double(loss)));
      }
    }
}

// Rows that start at odd places: even widths are not always read four at a time. More rows than one block adds up the losses of.
TEST(Bpr, RowsOffTheirAlignmentAndManyBlocks) {
  for (const auto& [B, d] : std::vector<std::pair<int64_t, int64_t>>{{33, 64}, {4200, 36}}) {
    Draw g;
    std::vector<std::vector<float>> at;  // u, p, x and their gradients, each behind one float
    for (int k = 0; k < 6; ++k) at.push_back(g.floats(B * d + 1));
    double want = 0;
    for (int64_t b = 0; b < B; ++b) {
      double m = 0;
      for (int64_t j = 1; j <= d; ++j) m += double(at[0][size_t(b * d + j)]) * (double(at[1][size_t(b * d + j)]) - at[2][size_t(b * d + j)]);
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
        dev.ops->bpr(ctx, to, m[3], m[4], m[5], m[0], m[1], m[2], 0.7f, false);
      };
      run(off, 1, &loss);
      run(on, 0, &aligned_loss);
      EXPECT_NEAR(loss, want, 1e-12 * want);
      EXPECT_NEAR(aligned_loss, want, 1e-12 * want);
      for (size_t k = 0; k < 6; ++k) {
        EXPECT_EQ(off[k][0], at[k][0]);
        for (size_t i = 0; i < on[k].size(); ++i) ASSERT_NEAR(off[k][i + 1], on[k][i], 1.2e-7 * (1 + std::fabs(on[k][i]))) << k << " " << i;
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
        dev.ops->bpr(ctx, &loss, mat(du, 1, 1), mat(dp, 1, 1), mat(dx, 1, 1), cmat(u, 1, 1), cmat(p, 1, 1), cmat(x, 1, 1), 1.0f, with_eps);
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
      dev.ops->bpr(ctx, &loss, mat(du, 1, 1), mat(dp, 1, 1), mat(dx, 1, 1), cmat(u, 1, 1), cmat(p, 1, 1), cmat(x, 1, 1), 1, false);
      EXPECT_EQ(loss, m < 0 ? 1e4 : 0.0);
      EXPECT_EQ(dp[0], m < 0 ? -1.0f : 0.0f);
      p[0] = NAN;
      dev.ops->bpr(ctx, &loss, mat(du, 1, 1), mat(dp, 1, 1), mat(dx, 1, 1), cmat(u, 1, 1), cmat(p, 1, 1), cmat(x, 1, 1), 1, false);
      EXPECT_TRUE(std::isnan(loss));
    }
}

TEST(Fro, NormAndGradientMatchFiniteDifferences) {
  for (const auto& [n, d] : std::vector<std::pair<int64_t, int64_t>>{{0, 64}, {1, 1}, {7, 37}, {31, 33}, {32, 32}, {41, 25}, {700, 64}, {8300, 64}}) {
    Draw g;
    const auto x = g.floats(n * d), d0 = g.floats(n * d);
    const float reg = 0.7f;
    const int64_t denom = 512;
    const auto value = [&](size_t at, double shift) {
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) sum += (x[i] + (i == at ? shift : 0)) * (x[i] + (i == at ? shift : 0));
      return double(reg) * std::sqrt(sum) / double(denom);
    };
    const double want = value(size_t(-1), 0), norm = want * double(denom) / double(reg);
    std::vector<std::pair<size_t, double>> slopes;
    for (size_t i = 0; i < x.size(); i += 1 + x.size() / 50) slopes.emplace_back(i, (value(i, 1e-4) - value(i, -1e-4)) / 2e-4);
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(n) + " rows on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> grad = d0;
      Cell<double> loss = -2;
      dev.ops->fro(ctx, &loss, mat(grad, n, d), cmat(x, n, d), reg, denom);
      EXPECT_NEAR(loss, -2 + want, 1e-12);
      for (const auto& [i, slope] : slopes) EXPECT_NEAR(grad[i], d0[i] + slope, 1e-7 * std::fabs(d0[i]) + 1e-7) << i;
      EXPECT_TRUE(same(dev, "loss", double(loss)));
      std::vector<float> from_zero(x.size(), 0.0f);  // the gradient alone, to its own accuracy
      dev.ops->fro(ctx, &loss, mat(from_zero, n, d), cmat(x, n, d), reg, denom);
      for (size_t i = 0; i < x.size(); ++i)
        ASSERT_NEAR(from_zero[i], double(reg) / (double(denom) * norm) * x[i], 2e-7 * std::fabs(from_zero[i]) + 1e-30);
    }
  }
}

TEST(Fro, OfZeroRowsIsNothing) {
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> zero(8, 0.0f), grad(8, 2.0f);
    Cell<double> loss = 1;
    dev.ops->fro(ctx, &loss, mat(grad, 2, 4), cmat(zero, 2, 4), 1, 2);
    EXPECT_EQ(loss, 1.0);
    EXPECT_EQ(grad, std::vector<float>(8, 2.0f));
  }
}

}  // namespace
}  // namespace ccdrec::test
