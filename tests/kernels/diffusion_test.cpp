#include "kernels/diffusion.h"

#include <algorithm>
#include <functional>
#include <numbers>
#include <stdexcept>

#include "tests/support.h"

namespace ccdrec::test::diffusion_test {
namespace {

// --- schedule --------------------------------------------------------------------------------------------------------

TEST(Schedule, LinearWithTwentySteps) {
  const HostSchedule s = make_schedule("linear", 20, false);
  EXPECT_EQ(s.beta.front(), 1e-4);
  EXPECT_NEAR(s.beta[1], 1e-4 + 0.0199 / 19, 1e-15);
  EXPECT_NEAR(s.beta.back(), 2e-2, 1e-15);
  EXPECT_NEAR(s.abar.back(), 0.816777, 1e-6);  // "full noise" is far from pure noise
}

TEST(Schedule, BetasOfTheOtherKinds) {
  const double pi = std::numbers::pi;
  const HostSchedule cosine = make_schedule("cosine", 5, false);
  auto g = [&](int t) { return std::pow(std::cos((t / 5.0 + 0.008) / 1.008 * pi / 2), 2); };
  // unclipped: the product telescopes
  for (int t = 1; t < 5; ++t) EXPECT_NEAR(cosine.abar[size_t(t - 1)], g(t) / g(0), 1e-12) << t;
  EXPECT_EQ(cosine.beta[4], 0.9999);
  EXPECT_EQ(make_schedule("cosine", 1000, false).beta[0], 1e-4);  // 4.1e-5 before the clip

  const HostSchedule exponential = make_schedule("exponential", 5, false);
  double exponent = 0;
  for (int t = 1; t <= 5; ++t) {
    exponent += 0.1 / 5 + (1 + (t - 1) * 2.5) * 9.9 / 50;
    EXPECT_NEAR(exponential.abar[size_t(t - 1)], std::exp(-exponent), 1e-12) << t;
  }
  EXPECT_NEAR(make_schedule("exponential", 1, false).beta[0], 1 - std::exp(-0.1 - 4.95), 1e-12);

  const HostSchedule root = make_schedule("sqrt", 5, false);
  for (int t = 1; t < 5; ++t) EXPECT_NEAR(root.abar[size_t(t - 1)], (1 - std::sqrt(t / 5.0 + 1e-4)) / 0.99, 1e-12) << t;
  EXPECT_EQ(root.beta[4], 0.999);
}

TEST(Schedule, CoefficientsOfAllKinds) {
  for (const char* kind : {"linear", "cosine", "exponential", "sqrt"}) {
    for (int T : {1, 2, 5, 20, 100}) {
      SCOPED_TRACE(std::string(kind) + ", T = " + std::to_string(T));
      const HostSchedule p = make_schedule(kind, T, false), noise = make_schedule(kind, T, true);
      ASSERT_EQ(p.a.size(), size_t(T));
      EXPECT_EQ(p.a[0], 1.0f);
      EXPECT_EQ(p.b[0], 0.0f);
      EXPECT_EQ(p.sigma[0], 0.0f);
      for (size_t i = 0; i < size_t(T); ++i) {
        const double beta = p.beta[i], abar = p.abar[i], before = i ? p.abar[i - 1] : 1;
        ASSERT_GT(beta, 0);
        ASSERT_LT(beta, 1);
        EXPECT_NEAR(abar, before * (1 - beta), 1e-15);
        EXPECT_NEAR(double(p.sqrt_abar[i]) * p.sqrt_abar[i] + double(p.sqrt_1m_abar[i]) * p.sqrt_1m_abar[i], 1, 3e-7);
        EXPECT_NEAR(p.sqrt_abar[i], std::sqrt(abar), 1e-7);
        // The posterior's mean has the right signal and its variance adds up: A + B sqrt(abar_t) = sqrt(abar_{t-1}),
        // B^2 (1 - abar_t) + sigma^2 = 1 - abar_{t-1}.
        EXPECT_NEAR(p.a[i] + p.b[i] * std::sqrt(abar), std::sqrt(before), 3e-7);
        EXPECT_NEAR(double(p.b[i]) * p.b[i] * (1 - abar) + double(p.sigma[i]) * p.sigma[i], 1 - before, 3e-7);
        // The noise form takes the same step when eps = (e_t - sqrt(abar) x0) / sqrt(1 - abar): per unit of eps and of
        // e_t.
        EXPECT_NEAR(noise.b[i] * std::sqrt(1 - beta), 1, 3e-7);
        EXPECT_NEAR(-noise.a[i] * std::sqrt(1 - beta) * std::sqrt(1 - abar) / beta, 1, 3e-7);
        EXPECT_EQ(noise.sigma[i], p.sigma[i]);
      }
    }
  }
}

TEST(Schedule, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(make_schedule("quadratic", 20, false), std::invalid_argument);
  EXPECT_THROW(make_schedule("linear", 0, false), std::invalid_argument);
}

Device anywhere(Device dev) {  // for SameBits: what is elementwise or drawn has the same bits on all devices
  dev.family = "any";
  return dev;
}

// --- draws -----------------------------------------------------------------------------------------------------------

TEST(Timesteps, MirroredRule) {
  for (int64_t n : {0, 1, 2, 3, 10, 11, 255, 256, 257, 1000}) {
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(n) + " rows on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<int32_t> t(size_t(n + 2), -7), plain = t;
      Cell<int64_t> count = n;
      dev.ops->draw_timesteps(ctx, t.data(), {nullptr, &count, n + 2}, 20, true, Stream{9, Use::timestep, 1, 4});
      dev.ops->draw_timesteps(ctx, plain.data(), {nullptr, &count, n + 2}, 20, false, Stream{9, Use::timestep, 1, 4});
      const int64_t h = n / 2 + 1;
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_TRUE(t[size_t(j)] >= 0 && t[size_t(j)] < 20);
        EXPECT_EQ(t[size_t(j)], j < h ? plain[size_t(j)] : 19 - t[size_t(j - h)]);
      }
      EXPECT_EQ(t[size_t(n)], -7);
    }
  }
}

// Every step has its mirror image among the others, but for one of an odd number and two of an even one (spec mcdrec
// 11).
TEST(Timesteps, MirroredTheyAreSymmetric) {
  for (const int64_t n : {1, 2, 7, 8, 500, 501})
    for (const int steps : {5, 20})
      for (const Device& dev : one_of_each_family()) {
        SCOPED_TRACE(std::to_string(n) + " of " + std::to_string(steps) + " on " + dev.name);
        DeviceCtx ctx(dev);
        std::vector<int32_t> t(static_cast<size_t>(n));
        dev.ops->draw_timesteps(ctx, t.data(), {nullptr, nullptr, n}, steps, true, Stream{9, Use::timestep, 1, 4});
        std::vector<int64_t> count(static_cast<size_t>(steps));
        for (const int32_t x : t) ++count[size_t(x)];
        int64_t without = 0;
        for (int x = 0; x < steps; ++x)
          without += std::max<int64_t>(0, count[size_t(x)] - count[size_t(steps - 1 - x)]);
        EXPECT_LE(without, n % 2 ? 1 : 2);
      }
}

TEST(Timesteps, Uniform) {
  const int64_t n = 40000;
  for (bool mirrored : {false, true}) {
    SameBits same;
    for (const Device& dev : devices()) {
      std::vector<int32_t> t(n);
      DeviceCtx ctx(dev);
      dev.ops->draw_timesteps(ctx, t.data(), {nullptr, nullptr, n}, 20, mirrored, Stream{test_seed(), Use::timestep});
      std::vector<double> count(20);
      for (int32_t v : t) count[size_t(v)] += 1;
      double chi2 = 0;
      for (double c : count) chi2 += (c - n / 20.0) * (c - n / 20.0) / (n / 20.0);
      // one in a thousand: 19 degrees of freedom; mirrored, nine, every deviation twice
      EXPECT_LT(chi2, mirrored ? 2 * 27.9 : 43.8);
      EXPECT_TRUE(same(anywhere(dev), "t", t));
    }
  }
}

TEST(Normals, AreTheAddressedPairs) {
  for (int64_t d : {1, 4, 37, 63, 64, 130, 132, 260}) {
    for (const Device& dev : devices()) {
      SCOPED_TRACE("d = " + std::to_string(d) + " on " + dev.name);
      std::vector<int32_t> items = {0, 3, 4, 70000, 2000000000};
      Cell<int64_t> count = 5;
      std::vector<float> eps(size_t(6 * d), -99.0f);
      const Stream stream{0xdeadbeefu, Use::noise, 0x80000001u, 0xfffffff0u};
      DeviceCtx ctx(dev);
      dev.ops->draw_normals(ctx, mat(eps, 6, d), {items.data(), &count, 6}, stream);
      for (int64_t j = 0; j < 5; ++j) {
        for (int64_t c = 0; c < d; ++c) {
          const Draw4 v = draw(stream, uint32_t(items[size_t(j)]), uint32_t(c / 4));
          float n[4];
          normal_pair(v.v[0], v.v[1], n[0], n[1]);
          normal_pair(v.v[2], v.v[3], n[2], n[3]);
          ASSERT_EQ(eps[size_t(j * d + c)], n[c % 4]) << j << "," << c;
        }
      }
      EXPECT_EQ(eps[size_t(5 * d)], -99.0f);
    }
  }
}

TEST(Normals, Distribution) {
  const int64_t n = 2000, d = 64;
  SameBits same;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    std::vector<float> eps(size_t(n * d));
    DeviceCtx ctx(dev);
    dev.ops->draw_normals(ctx, mat(eps, n, d), {nullptr, nullptr, n}, Stream{test_seed(), Use::noise});
    EXPECT_TRUE(same(anywhere(dev), "eps", eps));
    std::sort(eps.begin(), eps.end());
    double worst = 0;  // Kolmogorov-Smirnov
    for (size_t i = 0; i < eps.size(); ++i) {
      const double phi = 0.5 * std::erfc(-double(eps[i]) / std::numbers::sqrt2);
      worst = std::max({worst, std::fabs(phi - double(i) / double(eps.size())),
                        std::fabs(phi - double(i + 1) / double(eps.size()))});
    }
    EXPECT_LT(worst * std::sqrt(double(eps.size())), 1.95);  // one in a thousand
  }
}

TEST(Draws, LateEpochAndStep) {
  const int64_t n = 300, d = 10;
  for (const Device& dev : devices()) {
    if (!dev.ops->set_late) continue;
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    dev.ops->set_late(ctx, Late{5, 70, 0, 0});
    std::vector<int32_t> t[2] = {std::vector<int32_t>(size_t(n)), std::vector<int32_t>(size_t(n))};
    std::vector<float> eps[2] = {std::vector<float>(size_t(n * d)), std::vector<float>(size_t(n * d))};
    for (int late : {0, 1}) {
      const uint32_t epoch = late ? kLateEpoch : 5, step = late ? kLateStep : 70;
      dev.ops->draw_timesteps(ctx, t[late].data(), {nullptr, nullptr, n}, 20, true,
                              Stream{3, Use::timestep, epoch, step});
      dev.ops->draw_normals(ctx, mat(eps[late], n, d), {nullptr, nullptr, n}, Stream{3, Use::noise, epoch, step});
    }
    EXPECT_EQ(t[0], t[1]);
    EXPECT_EQ(eps[0], eps[1]);
  }
}

// --- forward process, fusion, alignment ------------------------------------------------------------------------------

struct Batch {  // n of I items, rows distinct and ascending, one item heavy
  int64_t I, d, n, cap;
  std::vector<int32_t> items, ptr, slot, t;
  std::vector<float> q, hhat, eps, e0;
  Cell<int64_t> count;
  int64_t terms;
  HostSchedule host = make_schedule("linear", 20, false);

  Batch(int64_t I_, int64_t d_, int64_t n_, int64_t spare = 2) : I(I_), d(d_), n(n_), cap(n_ + spare), count(n_) {
    Draw g;
    ptr = {0};
    for (int64_t j = 0; j < n; ++j) {
      items.push_back(int32_t(j * I / std::max<int64_t>(n, 1)));
      ptr.push_back(ptr.back() + (j == 1 ? 300 : 1 + g.below(3)));
      t.push_back(g.below(20));
    }
    items.resize(size_t(cap));
    terms = ptr.back();
    q = g.floats(I * d), hhat = g.floats(I * d), eps = g.floats(cap * d), e0 = g.floats(cap * d);
  }
  RowList rows() { return {items.data(), &count, cap}; }
  Groups groups() { return {rows(), ptr.data(), slot.data()}; }
  Schedule schedule() const {
    return {20, host.sqrt_abar.data(), host.sqrt_1m_abar.data(), host.a.data(), host.b.data(), host.sigma.data()};
  }
  double m(int64_t j) const { return ptr[size_t(j + 1)] - ptr[size_t(j)]; }
};

struct Shape {
  const char* name;
  int64_t I, d, n, spare = 2;  // room beyond the n rows
};
const Shape shapes[] = {{"no rows", 5, 64, 0},
                        {"one row", 1, 64, 1},
                        {"odd width", 40, 37, 11},
                        {"every item", 9, 4, 9},
                        {"more than a chunk", 3000, 16, 700},
                        {"blocks but one, most of the room unused", 90, 64, 31, 500},
                        {"full blocks", 90, 64, 32},
                        {"full blocks and one", 90, 64, 33},
                        {"a lane a row, full block", 300, 4, 256},
                        {"a lane a row, full block and one", 300, 1, 257},
                        {"more than a warp of fours", 20, 260, 9},
                        {"more than two warps of ones", 20, 70, 9}};

TEST(Diffusion, ForwardProcessAndItsGradient) {
  for (const Shape& c : shapes) {
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Batch b(c.I, c.d, c.n, c.spare);
      Draw g{5000};
      DeviceCtx ctx(dev);
      std::vector<float> e_t(size_t(b.cap * b.d), NAN);
      const std::vector<float> d_e = g.floats(b.cap * b.d), start = g.floats(b.I * b.d);
      std::vector<float> d_q = start;
      dev.ops->diffuse(ctx, mat(e_t, b.cap, b.d), cmat(b.q, b.I, b.d), cmat(b.eps, b.cap, b.d), b.t.data(), b.rows(),
                       b.schedule());
      dev.ops->diffuse_backward(ctx, mat(d_q, b.I, b.d), cmat(d_e, b.cap, b.d), b.t.data(), b.rows(), b.schedule());
      std::vector<Ref> want(size_t(b.n * b.d)), want_q(size_t(b.I * b.d));
      for (size_t i = 0; i < want_q.size(); ++i) want_q[i].add(start[i]);
      for (int64_t j = 0; j < b.n; ++j) {
        const double abar = b.host.abar[size_t(b.t[size_t(j)])];
        for (int64_t k = 0; k < b.d; ++k) {
          const size_t at = size_t(j * b.d + k), item = size_t(b.items[size_t(j)] * b.d + k);
          want[at].add(std::sqrt(abar) * b.q[item]);
          want[at].add(std::sqrt(1 - abar) * b.eps[at]);
          want_q[item].add(std::sqrt(abar) * d_e[at]);
        }
      }
      EXPECT_TRUE(close(e_t, want, 3e-7));
      EXPECT_TRUE(close(d_q, want_q, 3e-7));
      EXPECT_TRUE(same(anywhere(dev), "e_t", e_t));
      EXPECT_TRUE(same(anywhere(dev), "d_q", d_q));
      EXPECT_TRUE(std::isnan(e_t[size_t(b.n * b.d)]));
    }
  }
}

// Fusion and alignment as one function of (Q, Hhat, e0_hat): F = lambda L_dm + <g_ego, fused>, its gradients those of
// `align`.
TEST(Diffusion, FuseAndAlign) {
  const float lambda = 0.7f, mu = 0.3f;
  for (const Shape& c : shapes) {
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Batch b(c.I, c.d, c.n, c.spare);
      Draw g{6000};
      DeviceCtx ctx(dev);
      const std::vector<float> g_ego = g.floats(b.I * b.d, -0.05f, 0.05f), start_q = g.floats(b.I * b.d),
                               start_ego = g.floats(b.I * b.d);
      std::vector<float> ego = start_ego, d_e0(size_t(b.cap * b.d), NAN), d_q = start_q, g_hhat = g_ego;
      Cell<double> loss = 2.5;
      dev.ops->fuse(ctx, mat(ego, b.I, b.d), cmat(b.hhat, b.I, b.d), cmat(b.e0, b.cap, b.d), b.rows(), mu);
      dev.ops->align(ctx, &loss, mat(d_e0, b.cap, b.d), mat(d_q, b.I, b.d), mat(g_hhat, b.I, b.d), cmat(b.q, b.I, b.d),
                     cmat(b.e0, b.cap, b.d), b.groups(), lambda, b.terms, mu);

      std::vector<Ref> want_ego(size_t(b.I * b.d)), want_q = want_ego, want_h = want_ego, want_e0(size_t(b.n * b.d));
      std::vector<bool> fused(size_t(b.I), false);
      double want_loss = 2.5;
      auto square = [](double x) { return x * x; };
      for (size_t i = 0; i < want_q.size(); ++i) want_q[i].add(start_q[i]);
      for (int64_t j = 0; j < b.n; ++j) {
        fused[size_t(b.items[size_t(j)])] = true;
        for (int64_t k = 0; k < b.d; ++k) {
          const size_t at = size_t(j * b.d + k), item = size_t(b.items[size_t(j)] * b.d + k);
          want_ego[item].add((1 - mu) * double(b.hhat[item]));
          want_ego[item].add(mu * double(b.e0[at]));
          // Central differences of F: it is quadratic, so any step is exact.
          auto F = [&](double q, double h, double e0) {
            return lambda * b.m(j) * square(q - e0) / (double(b.terms) * double(b.d)) +
                   g_ego[item] * ((1 - mu) * h + mu * e0);
          };
          const double q = b.q[item], h = b.hhat[item], e0 = b.e0[at],
                       of_loss = 2 * lambda * b.m(j) * (std::fabs(q) + std::fabs(e0)) / double(b.terms * b.d);
          want_loss += lambda * b.m(j) * square(q - e0) / (double(b.terms) * double(b.d));
          want_q[item].add((F(q + 1, h, e0) - F(q - 1, h, e0)) / 2);
          want_h[item].add((F(q, h + 1, e0) - F(q, h - 1, e0)) / 2);
          want_e0[at] = {(F(q, h, e0 + 1) - F(q, h, e0 - 1)) / 2, of_loss + std::fabs(mu * g_ego[item])};
        }
      }
      for (int64_t i = 0; i < b.I * b.d; ++i) {
        if (!fused[size_t(i / b.d)])
          want_ego[size_t(i)].add(start_ego[size_t(i)]), want_h[size_t(i)].add(g_ego[size_t(i)]);
      }
      EXPECT_TRUE(close(ego, want_ego, 3e-7));
      EXPECT_TRUE(close(d_q, want_q, 5e-7));
      EXPECT_TRUE(close(g_hhat, want_h, 3e-7));
      EXPECT_TRUE(close(d_e0, want_e0, 5e-7));
      EXPECT_NEAR(loss, want_loss, 3e-7 * want_loss);
      EXPECT_TRUE(same(dev, "loss", double(loss)));
      EXPECT_TRUE(same(anywhere(dev), "ego", ego));
      EXPECT_TRUE(same(anywhere(dev), "d_q", d_q));
      EXPECT_TRUE(same(anywhere(dev), "d_hhat", g_hhat));
      EXPECT_TRUE(same(anywhere(dev), "d_e0_hat", d_e0));
      EXPECT_TRUE(std::isnan(d_e0[size_t(b.n * b.d)]));
    }
  }
}

TEST(Diffusion, LossOfManyRowsHasTheSameBits) {
  SameBits same;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Batch b(6000, 37, 2500, 700);  // more than 256 blocks of rows
    DeviceCtx ctx(dev);
    std::vector<float> d_e0(size_t(b.cap * b.d)), d_q(size_t(b.I * b.d)), g_ego(size_t(b.I * b.d));
    Cell<double> loss = 0;
    dev.ops->align(ctx, &loss, mat(d_e0, b.cap, b.d), mat(d_q, b.I, b.d), mat(g_ego, b.I, b.d), cmat(b.q, b.I, b.d),
                   cmat(b.e0, b.cap, b.d), b.groups(), 1, b.terms, 0.5f);
    double want = 0;
    for (int64_t j = 0; j < b.n; ++j)
      for (int64_t k = 0; k < b.d; ++k)
        want +=
            b.m(j) * std::pow(double(b.q[size_t(b.items[size_t(j)] * b.d + k)]) - double(b.e0[size_t(j * b.d + k)]), 2);
    want /= double(b.terms) * double(b.d);
    EXPECT_NEAR(loss, want, 1e-7 * want);  // differences are rounded to float
    EXPECT_TRUE(same(dev, "loss", double(loss)));
  }
}

// Rows at odd places, as the CPU: no four columns at a time.
TEST(Diffusion, RowsOffTheirAlignment) {
  SameBits same;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Batch b(60, 8, 40);
    Draw g{7000};
    DeviceCtx ctx(dev);
    std::vector<std::vector<float>> v;
    for (int64_t rows : {b.cap, b.cap, b.cap, b.I, b.I, b.I}) v.push_back(g.floats(rows * b.d + 1));
    const auto at = [&](size_t k) { return Mat{v[k].data() + 1, k < 3 ? b.cap : b.I, b.d}; };
    dev.ops->draw_normals(ctx, at(0), b.rows(), Stream{1, Use::noise});
    dev.ops->diffuse(ctx, at(1), at(3), at(0), b.t.data(), b.rows(), b.schedule());
    dev.ops->fuse(ctx, at(4), at(4), at(1), b.rows(), 0.3f);  // in place
    Cell<double> loss = 0;
    dev.ops->align(ctx, &loss, at(2), at(4), at(5), at(3), at(1), b.groups(), 0.7f, b.terms, 0.3f);
    dev.ops->diffuse_backward(ctx, at(4), at(2), b.t.data(), b.rows(), b.schedule());
    for (const auto& x : v) EXPECT_TRUE(same(anywhere(dev), std::to_string(&x - v.data()), x));
    EXPECT_TRUE(same(dev, "loss", double(loss)));
  }
}

// More rows in use than a buffer has: the CPU throws, a device that cannot notes it, and stays in bounds.
TEST(Diffusion, ListsLongerThanTheirRoom) {
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Batch b(60, 8, 40, 0);
    DeviceCtx ctx(dev);
    const int64_t small = b.n - 1;
    std::vector<float> out(size_t(small * b.d)), d_q(size_t(b.I * b.d)), g_ego = d_q;
    const Mat room = mat(out, small, b.d), dq = mat(d_q, b.I, b.d), ge = mat(g_ego, b.I, b.d);
    const CMat q = cmat(b.q, b.I, b.d), full = cmat(b.eps, b.cap, b.d), e0 = cmat(b.e0, b.cap, b.d);
    Cell<double> loss = 0;
    const std::function<void()> calls[] = {
        [&] {
          dev.ops->draw_normals(ctx, room, b.rows(), Stream{1, Use::noise});
        },
        [&] { dev.ops->diffuse(ctx, room, q, full, b.t.data(), b.rows(), b.schedule()); },
        [&] { dev.ops->diffuse_backward(ctx, dq, room, b.t.data(), b.rows(), b.schedule()); },
        [&] { dev.ops->fuse(ctx, ge, q, room, b.rows(), 0.5f); },
        [&] { dev.ops->align(ctx, &loss, room, dq, ge, q, e0, b.groups(), 1, b.terms, 0.5f); }};
    for (const auto& call : calls) {
      if (!dev.ops->take_fault) {
        EXPECT_THROW(call(), std::logic_error);
        continue;
      }
      call();
      EXPECT_NE(dev.ops->take_fault(ctx), 0) << &call - calls;
    }
  }
}

}  // namespace
}  // namespace ccdrec::test::diffusion_test
