#include "kernels/denoise.h"

#include "tests/kernels/graphs.h"

namespace ccdrec::test::denoise_test {
namespace {

struct Case {
  const char* name;
  int64_t U, I, longest, d;
};
const Case kCases[] = {{"no edges", 4, 3, 0, 8},      {"no users", 0, 3, 0, 8},
                       {"one number", 1, 1, 1, 1},    {"width below eight", 20, 15, 9, 5},
                       {"odd width", 33, 40, 21, 37}, {"width of the data", 130, 90, 60, 64},
                       {"wide", 7, 9, 6, 515}};

struct Pairs {
  std::vector<int32_t> user, item;
  int64_t U, I;
  explicit Pairs(const TestCsr& a) : item(a.col), U(a.rows), I(a.cols) {
    for (int64_t u = 0; u < U; ++u)
      user.insert(user.end(), size_t(a.row_ptr[size_t(u) + 1] - a.row_ptr[size_t(u)]), int32_t(u));
  }
  EdgeList list() const { return {user.data(), item.data(), nullptr, int64_t(user.size()), U, I}; }
};

double cosine(const float* a, const float* b, int64_t d) {
  double dot = 0, aa = 0, bb = 0;
  for (int64_t j = 0; j < d; ++j) dot += double(a[j]) * b[j], aa += double(a[j]) * a[j], bb += double(b[j]) * b[j];
  return aa == 0 || bb == 0 ? 0 : dot / std::sqrt(aa * bb);
}

TEST(EdgeCosines, WeighEveryEdgeWithTheSameBitsOnEveryDevice) {
  for (const Case& c : kCases)
    for (const float tau : {0.0f, 0.3f, -0.8f, 0.999f}) {
      Draw g;
      const Pairs pairs(skewed_csr(g, c.U, c.I, c.longest));
      std::vector<float> p = g.floats(c.U * c.d), x = g.floats(c.I * c.d);
      for (int64_t u = 0; u < c.U; u += 5) std::fill_n(p.begin() + u * c.d, c.d, 0.0f);
      for (int64_t i = 2; i < c.I; i += 7) std::fill_n(x.begin() + i * c.d, c.d, -0.0f);
      for (int64_t j = 0; j < c.d && c.U > 1 && c.I > 1;
           ++j)  // a row along another one, at the ends of what a float holds
        x[size_t(c.d + j)] = p[size_t(c.d + j)] * 1e-30f, p[size_t(c.d + j)] *= 1e30f;
      std::vector<float> first;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + ", tau " + std::to_string(tau) + ", on " + dev.name);
        DeviceCtx ctx(dev);
        std::vector<float> a(pairs.user.size(), NAN);
        dev.ops->edge_cosines(ctx, a.data(), pairs.list(), cmat(p, c.U, c.d), cmat(x, c.I, c.d), tau);
        for (size_t e = 0; e < a.size(); ++e) {
          const double want =
              1 + double(tau) * cosine(&p[size_t(pairs.user[e] * c.d)], &x[size_t(pairs.item[e] * c.d)], c.d);
          ASSERT_NEAR(a[e], want, 1e-7) << "edge " << e;
          if (tau == 0) { ASSERT_EQ(a[e], 1.0f); }
        }
        if (first.empty()) first = a;
        EXPECT_EQ(a, first);
      }
    }
}

TEST(EdgeCosines, StayPositiveAndLetWhatIsNoNumberThrough) {
  // Users: along the item, against it, no number, zero, beyond what a float holds.
  const std::vector<float> p = {1, 2, -1, -2, NAN, 0, 0, 0, INFINITY, 0}, x = {2, 4};
  const std::vector<int32_t> user = {0, 1, 2, 3, 4}, item(5, 0);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> a(5, -1);
    dev.ops->edge_cosines(ctx, a.data(), {user.data(), item.data(), nullptr, 5, 5, 1}, cmat(p, 5, 2), cmat(x, 1, 2),
                          1.5f);
    EXPECT_EQ(a[0], 2.5f);
    EXPECT_EQ(a[1], 1e-7f) << "the floor";
    EXPECT_TRUE(std::isnan(a[2]));
    EXPECT_EQ(a[3], 1.0f);
    EXPECT_TRUE(std::isnan(a[4]));
    EXPECT_THROW(dev.ops->edge_cosines(ctx, a.data(), {user.data(), item.data(), nullptr, 5, 4, 1}, cmat(p, 5, 2),
                                       cmat(x, 1, 2), 1.5f),
                 std::logic_error);
    EXPECT_THROW(dev.ops->edge_cosines(ctx, a.data(), {user.data(), item.data(), nullptr, 5, 5, 1}, cmat(p, 5, 2),
                                       cmat(x, 2, 1), 1.5f),
                 std::logic_error);
  }
}

}  // namespace
}  // namespace ccdrec::test::denoise_test
