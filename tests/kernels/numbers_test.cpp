#include "kernels/numbers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/rng.h"

namespace ccdrec::test::numbers_test {
namespace {

TEST(Numbers, ExpIsAccurateAndKeepsNaN) {
  double worst = 0;
  for (int i = 0; i <= 400000; ++i) {
    const float x = float(-87.0 + 175.0 * i / 400000.0), y = portable_exp(x);
    worst = std::max(worst, std::fabs(double(y) / std::exp(double(x)) - 1));
  }
  EXPECT_LT(worst, 2e-7);
  EXPECT_EQ(portable_exp(0.0f), 1.0f);
  EXPECT_LT(portable_exp(-1e30f), 2e-38f);
  EXPECT_LT(portable_exp(-INFINITY), 2e-38f);
  EXPECT_TRUE(std::isnan(portable_exp(NAN)));
}

// |error| of log relative to max(|log|, 1), over every exponent that samplers use, both ends of [0,1) and random
// floats.
TEST(Numbers, LogIsWithinItsBound) {
  double worst = 0, at = 0;
  const auto check = [&](float x) {
    const double want = std::log(double(x)),
                 err = std::fabs(double(portable_log(x)) - want) / std::max(std::fabs(want), 1.0);
    if (!(err <= worst)) worst = err, at = x;
  };
  for (int e = -24; e < 32; ++e)
    for (int i = 0; i < 20000; ++i) check(std::ldexp(1.0f + float(i) / 20000.0f, e));
  for (int i = 1; i <= 200000; ++i)
    check(1.0f - float(i - 1) * 0x1p-24f), check(float(i) * 0x1p-24f), check(1.0f + float(i) * 0x1p-23f);
  for (uint32_t i = 0; i < 500000; ++i) check(1.0f - uniform01(draw(Stream{5, Use::test}, i).v[0]));
  EXPECT_LE(worst, 2e-7) << "at " << at;
  EXPECT_EQ(portable_log(1.0f), 0.0f);
}

// Near 1, where an exponential race is decided, log keeps its relative accuracy too, and never turns positive.
TEST(Numbers, LogNearOneIsRelativelyAccurate) {
  double worst = 0;
  for (int i = 1; i <= 1 << 20; ++i) {
    const float x = 1.0f - float(i) * 0x1p-24f;
    const double want = std::log(double(x));
    worst = std::max(worst, std::fabs(double(portable_log(x)) / want - 1));
  }
  EXPECT_LE(worst, 3e-7);
}

TEST(Numbers, SinCosIsWithinItsBound) {
  double worst = 0, at = 0;
  const auto check = [&](float x) {
    float s, c;
    portable_sincos_2pi(x, s, c);
    const double turn = 2 * M_PI * double(x),
                 err = std::max(std::fabs(s - std::sin(turn)), std::fabs(c - std::cos(turn)));
    if (!(err <= worst)) worst = err, at = x;
  };
  for (int i = 0; i < 1 << 20; ++i) check(float(i) * 0x1p-20f);
  for (int i = 0; i < 100000; ++i) check(1.0f - float(i + 1) * 0x1p-24f), check(float(i) * 0x1p-24f);
  for (int k = 1; k < 8; ++k)
    for (int i = -1000; i < 1000; ++i) check(float(k) / 8.0f + float(i) * 0x1p-24f);
  for (uint32_t i = 0; i < 500000; ++i) check(uniform01(draw(Stream{6, Use::test}, i).v[0]));
  EXPECT_LE(worst, 2e-7) << "at " << at;
}

TEST(Numbers, PhiIsWithinItsBound) {
  double worst = 0, worst_density = 0;
  for (int i = -130000; i <= 130000; ++i) {
    const float u = float(i) * 1e-4f;
    float cdf, pdf;
    normal_cdf(u, cdf, pdf);
    worst = std::max(worst, std::fabs(double(cdf) - 0.5 * std::erfc(-double(u) / std::sqrt(2.0))));
    worst_density =
        std::max(worst_density, std::fabs(double(pdf) - std::exp(-0.5 * double(u) * double(u)) / std::sqrt(2 * M_PI)));
  }
  EXPECT_LT(worst, 4e-7);
  EXPECT_LT(worst_density, 1e-7);
}

// Every float in the order of its key, both zeros one, and back; what is no number lies below all of them.
TEST(Numbers, KeysOrderFloats) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kLeast = std::numeric_limits<float>::denorm_min(), kMost = std::numeric_limits<float>::max();
  const float ascending[] = {-kInf,  -kMost,    -1.5f, -1.0f, -0x1p-126f, -kLeast, 0.0f,
                             kLeast, 0x1p-126f, 1.0f,  1.5f,  kMost,      kInf};
  uint32_t below = kNanKey;
  for (const float x : ascending) {
    const uint32_t key = ordered_key(x);
    EXPECT_GT(key, below) << x;
    EXPECT_GT(signed_key(key), signed_key(below)) << x;
    EXPECT_EQ(unsigned_key(signed_key(key)), key) << x;
    EXPECT_EQ(key_value(key), x);
    below = key;
  }
  EXPECT_EQ(ordered_key(-0.0f), ordered_key(0.0f));
  EXPECT_EQ(ordered_key(kNan), kNanKey);
  EXPECT_EQ(ordered_key(-kNan), kNanKey);
  EXPECT_TRUE(std::isnan(key_value(kNanKey)) && std::isnan(key_value(kExcludedKey)));
  EXPECT_LT(kExcludedKey, kNanKey);
}

}  // namespace
}  // namespace ccdrec::test::numbers_test
