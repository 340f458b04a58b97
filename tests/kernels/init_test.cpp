#include "kernels/init.h"

#include "tests/kernels/chi_square.h"

namespace ccdrec::test::init_test {
namespace {

TEST(Init, ElementsAreAddressedByRowAndColumn) {
  for (const auto& [rows, cols] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 64}, {1, 1}, {5, 37}, {16, 64}, {257, 4}, {300, 64}})
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(cols) + " on " + dev.name);
      DeviceCtx ctx(dev);
      const Stream s{3, Use::init, 0, 17};
      std::vector<float> uniform(size_t(rows * cols), NAN), normal(size_t(rows * cols), NAN);
      dev.ops->init_uniform(ctx, mat(uniform, rows, cols), 0.25f, s);
      dev.ops->init_normal(ctx, mat(normal, rows, cols), 0.1f, s);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) {
          const Draw4 x = draw(s, uint32_t(r), uint32_t(c / 4));
          float n[4];
          normal_pair(x.v[0], x.v[1], n[0], n[1]);
          normal_pair(x.v[2], x.v[3], n[2], n[3]);
          ASSERT_EQ(uniform[size_t(r * cols + c)], 0.25f * (2.0f * uniform01(x.v[c % 4]) - 1.0f)) << r << "," << c;
          ASSERT_EQ(normal[size_t(r * cols + c)], 0.1f * n[c % 4]) << r << "," << c;
        }
    }
}

TEST(Init, LateStreamsAreReadOnTheDevice) {
  for (const Device& dev : devices()) {
    if (!dev.ops->set_late) continue;
    DeviceCtx ctx(dev);
    dev.ops->set_late(ctx, Late{3, 41, 0, 0});
    std::vector<float> now(7 * 9), late(7 * 9);
    dev.ops->init_normal(ctx, mat(now, 7, 9), 1.0f, Stream{1, Use::init, 3, 41});
    dev.ops->init_normal(ctx, mat(late, 7, 9), 1.0f, Stream{1, Use::init, kLateEpoch, kLateStep});
    EXPECT_EQ(now, late) << dev.name;
  }
}

TEST(Init, DistributionsAndStreams) {
  constexpr int64_t R = 2000, D = 64, kBins = 32;
  Ctx ctx(2);
  std::vector<float> a(R * D), b(R * D), n(R * D);
  cpu::init_uniform(ctx, mat(a, R, D), 0.02f, Stream{1, Use::init, 0, 0});
  cpu::init_uniform(ctx, mat(b, R, D), 0.02f, Stream{1, Use::init, 0, 1});  // another tensor
  cpu::init_normal(ctx, mat(n, R, D), 0.3f, Stream{1, Use::init, 0, 2});
  std::vector<int64_t> in_a(kBins), in_n(kBins);
  double product = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_LE(std::fabs(a[i]), 0.02f);
    ++in_a[std::min<size_t>(kBins - 1, size_t((double(a[i]) / 0.02 + 1) / 2 * kBins))];
    ++in_n[std::min<size_t>(kBins - 1, size_t(kBins * 0.5 * std::erfc(-n[i] / 0.3 / std::sqrt(2.0))))];
    product += double(a[i]) * b[i] / (0.02 * 0.02);
  }
  EXPECT_TRUE(uniform_counts(in_a));
  EXPECT_TRUE(uniform_counts(in_n));
  EXPECT_LE(std::fabs(product), 4.5 * std::sqrt(double(a.size())) / 3);
}

}  // namespace
}  // namespace ccdrec::test::init_test
