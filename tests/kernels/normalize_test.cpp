#include "kernels/normalize.h"

#include "tests/kernels/graphs.h"

namespace ccdrec::test::normalize_test {
namespace {

struct Case {
  const char* name;
  int64_t R, d;
  int every;  // listed: rows 0, every, 2 every, ..; 0: all, by the identity; -1: none
  float scale;
};
const Case kCases[] = {{"no rows", 0, 5, 0, 1},          {"no listed rows", 7, 8, -1, 1},
                       {"one number", 1, 1, 0, 1},       {"width below eight", 9, 5, 2, 1},
                       {"odd width", 33, 37, 3, 1},      {"a block and one", 33, 64, 0, 1},
                       {"a block's list", 96, 64, 3, 1}, {"tiny rows", 20, 16, 0, 1e-9f},
                       {"huge rows", 20, 16, 2, 1e18f},  {"wide", 6, 4099, 0, 0.01f}};

std::vector<int32_t> listed(const Case& c) {
  std::vector<int32_t> rows;
  for (int64_t r = 0; r < c.R && c.every >= 0; r += std::max(c.every, 1)) rows.push_back(int32_t(r));
  return rows;
}

// y_j = x_j / |x| in double, with x_at moved by `shift`.
double normalized(const float* x, int64_t d, int64_t j, int64_t at, double shift) {
  double squares = 0;
  for (int64_t c = 0; c < d; ++c) {
    const double v = double(x[c]) + (c == at ? shift : 0);
    squares += v * v;
  }
  return (double(x[j]) + (j == at ? shift : 0)) / std::sqrt(squares);
}

TEST(NormalizeRows, ForwardAndBackwardMatchDoubleReferenceAndFiniteDifferences) {
  for (const Case& c : kCases) {
    Draw draws;
    const int64_t d = c.d;
    const auto x = draws.floats(c.R * d, -c.scale, c.scale), g = draws.floats(c.R * d);
    const auto before = draws.floats(c.R * d, -1 / c.scale, 1 / c.scale);
    const std::vector<int32_t> rows = listed(c);
    std::vector<Ref> want_y(x.size()), want_g(x.size()), want_sum(x.size()), want_inv(size_t(c.R));
    for (size_t i = 0; i < x.size(); ++i) want_y[i].add(-3), want_g[i].add(-3), want_sum[i].add(before[i]);
    for (auto& v : want_inv) v.add(-3);
    for (const int32_t r : rows) {
      const float *const x_r = x.data() + r * d, *const g_r = g.data() + r * d;
      double squares = 0, along = 0, size = 0;
      for (int64_t j = 0; j < d; ++j) squares += double(x_r[j]) * x_r[j];
      const double norm = std::sqrt(squares);
      want_inv[size_t(r)] = {};
      want_inv[size_t(r)].add(1 / norm);
      for (int64_t j = 0; j < d; ++j) along += x_r[j] / norm * g_r[j], size += std::fabs(x_r[j] / norm * g_r[j]);
      for (int64_t j = 0; j < d; ++j) {
        const size_t i = size_t(r * d + j);
        want_y[i] = want_g[i] = {};
        want_y[i].add(x_r[j] / norm);
        for (Ref* w : {&want_g[i], &want_sum[i]}) {
          w->add(g_r[j] / norm), w->add(-along * x_r[j] / norm / norm);
          w->mass += size * std::fabs(x_r[j]) / norm / norm;
        }
      }
    }
    std::vector<float> all_y, all_g, all_sum;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      OwnedList list(rows);
      const RowList at = c.every == 0 ? RowList{nullptr, nullptr, c.R} : list.list();
      std::vector<float> y(x.size(), -3), inv(size_t(c.R), -3), g_x(x.size(), -3), sum = before, in_place = x,
                                                                                   inv2(inv);
      dev.ops->normalize_rows(ctx, mat(y, c.R, d), inv.data(), cmat(x, c.R, d), at);
      dev.ops->normalize_rows(ctx, mat(in_place, c.R, d), inv2.data(), cmat(in_place, c.R, d), at);
      dev.ops->normalize_rows_backward(ctx, mat(g_x, c.R, d), cmat(g, c.R, d), cmat(y, c.R, d), inv.data(), at, false);
      dev.ops->normalize_rows_backward(ctx, mat(sum, c.R, d), cmat(g, c.R, d), cmat(y, c.R, d), inv.data(), at, true);
      EXPECT_TRUE(close(y, want_y, 2e-7));
      EXPECT_TRUE(close(inv, want_inv, 1e-7));
      EXPECT_TRUE(close(g_x, want_g, 4e-7));
      EXPECT_TRUE(close(sum, want_sum, 4e-7));
      for (const int32_t r : rows)
        for (int64_t j = r * d; j < (r + 1) * d; ++j) ASSERT_EQ(in_place[size_t(j)], y[size_t(j)]);
      EXPECT_EQ(inv2, inv);
      if (all_y.empty()) all_y = y, all_g = g_x, all_sum = sum;
      EXPECT_EQ(y, all_y);  // on every device
      EXPECT_EQ(g_x, all_g);
      EXPECT_EQ(sum, all_sum);
    }
    for (const int32_t r : rows) {  // d/dx of sum_j g_j y_j, beside the reference of above
      if (d > 64) break;
      for (int64_t at = 0; at < d; ++at) {
        const double h = 1e-4 * double(c.scale);
        double up = 0, down = 0, size = 0;
        for (int64_t j = 0; j < d; ++j) {
          const float *const x_r = x.data() + r * d, *const g_r = g.data() + r * d;
          up += g_r[j] * normalized(x_r, d, j, at, h), down += g_r[j] * normalized(x_r, d, j, at, -h);
          size += std::fabs(g_r[j]);
        }
        const size_t i = size_t(r * d + at);
        ASSERT_NEAR((up - down) / (2 * h) * c.scale, double(all_g[i]) * c.scale,
                    1e-5 * (size + want_g[i].mass * c.scale))
            << c.name << " row " << r << " column " << at;
      }
    }
  }
}

TEST(NormalizeRows, ARowAtTheFloorIsDividedByItAndCountsAsConstant) {
  const std::vector<float> x = {0, 0, 0, 3e-13f, 0, -4e-13f, 3, 0, 4}, g = {1, 2, 3, 1, 2, 3, 1, 2, 3};
  for (const Device& dev : devices())
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(dev.name);
      DeviceCtx ctx(dev);
      const RowList all{nullptr, nullptr, 3};
      std::vector<float> y(9, NAN), inv(3, NAN), g_x(9, accumulate ? 5.0f : NAN);
      dev.ops->normalize_rows(ctx, mat(y, 3, 3), inv.data(), cmat(x, 3, 3), all);
      dev.ops->normalize_rows_backward(ctx, mat(g_x, 3, 3), cmat(g, 3, 3), cmat(y, 3, 3), inv.data(), all, accumulate);
      const float want[] = {0, 0, 0, 0.3f, 0, -0.4f, 0.6f, 0, 0.8f};
      for (size_t i = 0; i < 9; ++i) EXPECT_NEAR(y[i], want[i], 1e-7) << i;
      EXPECT_EQ(inv[0], kInverseAtFloor);
      EXPECT_EQ(inv[1], kInverseAtFloor);
      for (size_t i = 0; i < 6; ++i) EXPECT_EQ(g_x[i], accumulate ? 5.0f : 0.0f) << i;
      EXPECT_NEAR(g_x[7], (accumulate ? 5 : 0) + 2.0 / 5, 1e-6);
    }
}

TEST(NormalizeRows, ANanStays) {
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    const std::vector<float> x = {1, NAN};
    std::vector<float> y(2, 0), inv(1, 0);
    dev.ops->normalize_rows(ctx, mat(y, 1, 2), inv.data(), cmat(x, 1, 2), {nullptr, nullptr, 1});
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]) && std::isnan(inv[0])) << dev.name;
  }
}

}  // namespace
}  // namespace ccdrec::test::normalize_test
