#include "kernels/activation.h"

#include "tests/support.h"

namespace ccdrec::test::activation_test {
namespace {

struct Case {
  const char* name;
  int64_t rows, cols;
  Slopes slopes;
};
const Case kCases[] = {{"nothing", 0, 5, {}},
                       {"one number", 1, 1, {}},
                       {"odd sizes", 7, 13, {}},
                       {"a block and one", 257, 1, Slopes::share_of(3)},
                       {"half", 33, 64, Slopes::share_of(2)},
                       {"the identity", 4, 9, {1, 1}},
                       {"large", 300, 70, {}}};

// Elements of either sign, zeros of either sign among them.
std::vector<float> inputs(Draw& draws, int64_t n) {
  std::vector<float> x = draws.floats(n);
  for (size_t k = 0; k < x.size(); k += 11) x[k] = k % 2 ? -0.0f : 0.0f;
  return x;
}

double slope_at(double x, const Slopes& s) { return double(x > 0 ? s.up : s.down); }

TEST(LeakyRelu, ForwardAndBackwardMatchDoubleReferenceAndFiniteDifferences) {
  for (const Case& c : kCases) {
    Draw draws;
    const int64_t n = c.rows * c.cols;
    const std::vector<float> x = inputs(draws, n), plus = draws.floats(n), g = draws.floats(n);
    std::vector<Ref> want(static_cast<size_t>(n)), want_sum(want), want_g(want);
    for (size_t k = 0; k < want.size(); ++k) {
      const double slope = slope_at(x[k], c.slopes);
      want[k].add(slope * x[k]), want_g[k].add(slope * g[k]);
      want_sum[k].add(slope * x[k]), want_sum[k].add(plus[k]);
      if (std::fabs(x[k]) < 1e-3f) continue;  // a difference would step over the kink
      const double h = 1e-4, up = double(x[k]) + h, down = double(x[k]) - h;
      ASSERT_NEAR((slope_at(up, c.slopes) * up - slope_at(down, c.slopes) * down) / (2 * h) * g[k], want_g[k].value,
                  1e-9);
    }
    std::vector<float> all_y, all_sum, all_g;  // every device has the bits of the first
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      const CMat x_m = cmat(x, c.rows, c.cols), plus_m = cmat(plus, c.rows, c.cols), g_m = cmat(g, c.rows, c.cols);
      std::vector<float> y(x.size(), NAN), sum(y), in_place = x, onto = plus, g_x(y), by_input(y), by_sum(y),
                                                   g_here = g;
      const auto m = [&](std::vector<float>& v) { return mat(v, c.rows, c.cols); };
      dev.ops->leaky_relu(ctx, m(y), x_m, {}, c.slopes);
      dev.ops->leaky_relu(ctx, m(in_place), m(in_place), {}, c.slopes);
      dev.ops->leaky_relu(ctx, m(sum), x_m, plus_m, c.slopes);
      dev.ops->leaky_relu(ctx, m(onto), x_m, m(onto), c.slopes);
      dev.ops->leaky_relu_backward(ctx, m(g_x), g_m, m(y), {}, c.slopes);
      dev.ops->leaky_relu_backward(ctx, m(by_input), g_m, x_m, {}, c.slopes);
      dev.ops->leaky_relu_backward(ctx, m(by_sum), g_m, m(sum), plus_m, c.slopes);
      dev.ops->leaky_relu_backward(ctx, m(g_here), m(g_here), m(y), {}, c.slopes);
      EXPECT_TRUE(close(y, want, 1e-7));
      EXPECT_TRUE(close(sum, want_sum, 2e-7));
      EXPECT_TRUE(close(g_x, want_g, 1e-7));
      EXPECT_EQ(in_place, y);
      EXPECT_EQ(onto, sum);
      EXPECT_EQ(by_input, g_x);
      EXPECT_EQ(by_sum, g_x);
      EXPECT_EQ(g_here, g_x);
      if (all_y.empty()) all_y = y, all_sum = sum, all_g = g_x;
      EXPECT_EQ(y, all_y);
      EXPECT_EQ(sum, all_sum);
      EXPECT_EQ(g_x, all_g);
    }
  }
}

// Of an input that is lost in the sum the sign is a rounding: it counts as not above 0.
TEST(LeakyRelu, AnInputThatTheSumSwallowsHasTheSlopeBelow) {
  const std::vector<float> x = {1e-9f, -1e-9f, 1e-9f}, plus = {1, 1, 0}, g = {1, 1, 1};
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> y(3), g_x(3);
    dev.ops->leaky_relu(ctx, mat(y, 1, 3), cmat(x, 1, 3), cmat(plus, 1, 3), {});
    dev.ops->leaky_relu_backward(ctx, mat(g_x, 1, 3), cmat(g, 1, 3), cmat(y, 1, 3), cmat(plus, 1, 3), {});
    EXPECT_EQ(g_x, (std::vector<float>{kLeakySlope, kLeakySlope, 1}));
  }
}

TEST(LeakyRelu, ANanStays) {
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    const std::vector<float> x = {NAN, -1}, plus = {1, NAN};
    std::vector<float> y(2), sum(2);
    dev.ops->leaky_relu(ctx, mat(y, 1, 2), cmat(x, 1, 2), {}, {});
    dev.ops->leaky_relu(ctx, mat(sum, 1, 2), cmat(x, 1, 2), cmat(plus, 1, 2), {});
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(sum[0]) && std::isnan(sum[1])) << dev.name;
  }
}

}  // namespace
}  // namespace ccdrec::test::activation_test
