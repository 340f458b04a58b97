#include "kernels/rng.h"

#include "tests/kernels/chi_square.h"

namespace ccdrec::test::rng_test {
namespace {

// Known answers of Philox4x32-10 published with Random123 (kat_vectors).
TEST(Rng, PhiloxMatchesItsPublishedAnswers) {
  const auto same = [](Draw4 x, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    return x.v[0] == a && x.v[1] == b && x.v[2] == c && x.v[3] == d;
  };
  const uint32_t ones = 0xffffffffu;
  EXPECT_TRUE(same(draw(Stream{0, Use(0), 0, 0}, 0, 0), 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  EXPECT_TRUE(
      same(draw(Stream{ones, Use(ones), ones, ones}, ones, ones), 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0: counter = (row, sub, step, epoch), key = (seed,
  // use)
  EXPECT_TRUE(same(draw(Stream{0xa4093822u, Use(0x299f31d0u), 0x03707344u, 0x13198a2eu}, 0x243f6a88u, 0x85a308d3u),
                   0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

// What a device draws, seen through the one operation that hands its integers on as they are: all but the last of 32
// bits.
TEST(Rng, EveryDeviceDrawsTheSameIntegers) {
  constexpr int64_t B = 600;
  constexpr uint32_t kMost = 0x7fffffffu;
  const std::vector<int64_t> row_ptr(2, 0);  // one user without items
  const std::vector<int32_t> users(B, 0);
  for (const Stream& s : {Stream{0, Use(0), 0, 0}, Stream{1, Use::ndi_item, 2, 3},
                          Stream{0xffffffffu, Use(0xffffffffu), 0xffffffefu, 0xffffffefu}})
    for (const Device& dev : devices()) {
      DeviceCtx ctx(dev);
      std::vector<int32_t> out(B, -1);
      dev.ops->unseen_items(ctx, out.data(), users.data(), B, Csr{1, int64_t(kMost), row_ptr.data(), nullptr, nullptr},
                            int64_t(kMost), s);
      for (uint32_t b = 0; b < B; ++b)
        ASSERT_EQ(uint32_t(out[b]), below(draw(s, b).v[0], kMost)) << "row " << b << " on " << dev.name;
    }
}

TEST(Rng, UniformAndBelowStayInRange) {
  EXPECT_EQ(uniform01(0), 0.0f);
  EXPECT_LT(uniform01(0xffffffffu), 1.0f);
  EXPECT_EQ(below(0xffffffffu, 7), 6u);
  EXPECT_EQ(below(0, 7), 0u);
  EXPECT_EQ(below(0xffffffffu, 0x7fffffffu), 0x7ffffffeu);
  for (uint32_t n : {1u, 2u, 7u, 100u}) {
    std::vector<int64_t> seen(n);
    for (uint32_t i = 0; i < 100000; ++i) ++seen[below(draw(Stream{11, Use::test, 1}, i, n).v[i % 4], n)];
    EXPECT_TRUE(uniform_counts(seen)) << n;
  }
}

TEST(Rng, NormalsHaveTheRightMomentsAndShape) {
  constexpr int kPairs = 200000, kBins = 40;
  double m[5] = {}, cross = 0;
  std::vector<int64_t> seen(kBins);
  for (uint32_t i = 0; i < kPairs; ++i) {
    const Draw4 x = draw(Stream{7, Use::noise}, i);
    float n[2];
    normal_pair(x.v[0], x.v[1], n[0], n[1]);
    ASSERT_TRUE(std::isfinite(n[0]) && std::isfinite(n[1]));
    cross += double(n[0]) * n[1];
    for (float v : n) {
      double power = 1;
      for (int k = 1; k <= 4; ++k) m[k] += power *= v;
      // the normal's own quantiles: bins of equal weight
      ++seen[std::min<size_t>(kBins - 1, size_t(kBins * 0.5 * std::erfc(-v / std::sqrt(2.0))))];
    }
  }
  const double n = 2 * kPairs, sd = 1 / std::sqrt(n);
  EXPECT_NEAR(m[1] / n, 0, 4.5 * sd);
  EXPECT_NEAR(m[2] / n, 1, 4.5 * sd * std::sqrt(2.0));
  EXPECT_NEAR(m[3] / n, 0, 4.5 * sd * std::sqrt(15.0));
  EXPECT_NEAR(m[4] / n, 3, 4.5 * sd * std::sqrt(96.0));
  EXPECT_NEAR(cross / kPairs, 0, 4.5 / std::sqrt(double(kPairs)));
  EXPECT_TRUE(uniform_counts(seen));
  float a, b;  // the farthest draws: u = 0 is the centre, the largest u the end of the tail
  normal_pair(0, 0, a, b);
  EXPECT_EQ(a, 0.0f);
  normal_pair(0xffffffffu, 0, a, b);
  EXPECT_NEAR(a, std::sqrt(2 * 24 * std::log(2.0)), 1e-5);
}

}  // namespace
}  // namespace ccdrec::test::rng_test
