#include "tests/kernels/estimator_ref.h"

namespace ccdrec::test {
namespace {

struct Case {
  const char* name;
  int64_t n;
  int M, T;
  int64_t d;
};
const Case cases[] = {
    {"no items", 0, 2, 20, 64}, {"one item", 1, 2, 20, 64},     {"T = 1", 5, 2, 1, 64},          {"T = 2", 5, 1, 2, 8},
    {"T = 3", 50, 3, 3, 12},    {"T = 5", 49, 2, 5, 4},         {"as released", 101, 2, 20, 64}, {"d no multiple of eight", 30, 1, 20, 38},
    {"T = 40", 10, 2, 40, 16},  {"a full block", 32, 2, 4, 64}, {"one more", 33, 2, 4, 64},      {"eight modalities", 20, 8, 4, 16},
    {"d = 6", 31, 1, 4, 6}};
const Case wide[] = {{"d = 128", 9, 2, 4, 128}, {"d = 132", 5, 1, 3, 132}, {"d = 260", 3, 2, 2, 260}, {"eight, d = 128", 3, 8, 1, 128}};

struct Problem {
  Case c;
  std::vector<float> q, tau, wq, wk, wv;
  std::vector<std::vector<float>> h;
  HostSchedule host;
  int64_t shift = 0;  // floats before the first of q

  explicit Problem(const Case& c_, bool noise_form = false) : c(c_), host(make_schedule("linear", c.T, noise_form)) {
    Draw g;
    q = g.floats(c.n * c.d, -0.3f, 0.3f);
    tau = time_embedding(c.T, c.d);
    const float xavier = std::sqrt(3.0f / float(c.d));
    wq = g.floats(c.d * c.d, -xavier, xavier);
    wk = g.floats(c.d * c.d, -xavier, xavier);
    wv = g.floats(c.d * c.d, -xavier, xavier);
    for (int m = 0; m < c.M; ++m) h.push_back(g.floats(c.n * c.d));
  }
  std::vector<std::vector<float>> run(const Device& dev, uint32_t seed, uint32_t epoch, unsigned wanted = 15, uint32_t late = 0) const {
    std::vector<std::vector<float>> pool(4, std::vector<float>(size_t(c.n * c.d), NAN));
    Mat pools[4];
    for (unsigned p = 0; p < 4; ++p) {
      if (wanted >> p & 1) pools[p] = mat(pool[p], c.n, c.d);
    }
    CMat hs[kMaxModalities];
    for (int m = 0; m < c.M; ++m) hs[m] = cmat(h[size_t(m)], c.n, c.d);
    const Schedule s{c.T, host.sqrt_abar.data(), host.sqrt_1m_abar.data(), host.a.data(), host.b.data(), host.sigma.data()};
    DeviceCtx ctx(dev);
    if (dev.ops->set_late) dev.ops->set_late(ctx, Late{late, 0, 0, 0});
    dev.ops->reverse_process(ctx, pools, CMat{q.data() + shift, c.n, c.d}, hs, c.M, cmat(tau, c.T, c.d),
                             {cmat(wq, c.d, c.d), cmat(wk, c.d, c.d), cmat(wv, c.d, c.d)}, s, seed, epoch);
    return pool;
  }
  // The chain of spec 3.6 in double, item by item, with the same addressed normals; snapshots of spec 4.
  std::vector<Vec> reference(uint32_t seed, uint32_t epoch) const {
    const size_t d = size_t(c.d);
    const EstimatorRef f{size_t(c.M + 2), d, doubles(wq), doubles(wk), doubles(wv)};
    std::vector<Vec> pool(4);
    auto normals = [&](Use use, int t, int64_t item) {
      Vec z;
      for (uint32_t s = 0; s < (d + 3) / 4; ++s) {
        const Draw4 v = draw(Stream{seed, use, epoch, uint32_t(t)}, uint32_t(item), s);
        float n[4];
        normal_pair(v.v[0], v.v[1], n[0], n[1]);
        normal_pair(v.v[2], v.v[3], n[2], n[3]);
        z.insert(z.end(), n, n + 4);
      }
      return z;
    };
    for (int64_t i = 0; i < c.n; ++i) {
      const Vec z_start = normals(Use::reverse_start, c.T, i);
      const double abar_T = host.abar.back();
      Vec e(d);
      for (size_t j = 0; j < d; ++j) e[j] = std::sqrt(abar_T) * q[size_t(i) * d + j] + std::sqrt(1 - abar_T) * z_start[j];
      for (int done = 0; done <= c.T; ++done) {
        if (done > 0) {
          const int t = c.T - done + 1;
          Vec token = e;
          for (const auto& h_m : h) token.insert(token.end(), h_m.begin() + i * c.d, h_m.begin() + (i + 1) * c.d);
          token.insert(token.end(), tau.begin() + (t - 1) * c.d, tau.begin() + t * c.d);
          const Vec x0 = f.forward(token).out, z = normals(Use::reverse_noise, t, i);
          const double a = host.a[size_t(t - 1)], b = host.b[size_t(t - 1)], sigma = t > 1 ? host.sigma[size_t(t - 1)] : 0;
          for (size_t j = 0; j < d; ++j) e[j] = a * x0[j] + b * e[j] + sigma * z[j];
        }
        const int at[] = {c.T / 4, c.T / 2, 3 * c.T / 4, c.T};
        for (size_t p = 0; p < 4; ++p) {
          if (done == at[p]) pool[p].insert(pool[p].end(), e.begin(), e.end());
        }
      }
    }
    return pool;
  }
};

void check_chain(const Case& c, bool noise_form, const std::vector<Device>& devs) {
  const Problem p(c, noise_form);
  const std::vector<Vec> want = p.reference(11, 3);
  SameBits same;
  for (const Device& dev : devs) {
    SCOPED_TRACE(std::string(c.name) + (noise_form ? ", noise form" : "") + " on " + dev.name);
    const auto got = p.run(dev, 11, 3);
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_TRUE(close(got[k], by_scale(want[k]), 2e-5)) << "pool " << k;
      EXPECT_TRUE(same(dev, "pool " + std::to_string(k), got[k]));
    }
  }
}

TEST(Reverse, MatchesDoubleChainWithTheSameNormals) {
  for (const Case& c : cases) check_chain(c, false, devices());
  for (const Case& c : cases) check_chain(c, true, fast_devices());  // another table of coefficients, nothing else
  for (const Case& c : wide) check_chain(c, false, fast_devices());
  check_chain({"more than four warps a block", more_than_a_wave(fast_devices()), 1, 2, 4}, false, fast_devices());
}

TEST(Reverse, EmptyPools) {
  const Problem p(cases[9]);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    const auto want = p.run(dev, 5, 1), some = p.run(dev, 5, 1, 0b1010);
    EXPECT_EQ(some[1], want[1]);
    EXPECT_EQ(some[3], want[3]);
    EXPECT_TRUE(std::isnan(some[0][0]) && std::isnan(some[2][0]));
  }
}

TEST(Reverse, AnItemsChainDoesNotDependOnItsNeighbours) {
  const Problem all(cases[6]);
  Problem few = all;
  few.c.n = 7;
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    const auto want = all.run(dev, 5, 1), got = few.run(dev, 5, 1);
    for (size_t k = 0; k < 4; ++k) {
      for (int64_t i = 0; i < 7 * few.c.d; ++i) ASSERT_EQ(got[k][size_t(i)], want[k][size_t(i)]) << k << " " << i;
    }
  }
}

TEST(Reverse, UnalignedRows) {
  const Case c{"unaligned", 11, 1, 4, 8};
  const Problem p(c);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Problem moved = p;
    moved.q.insert(moved.q.begin(), 0.0f);
    moved.shift = 1;
    EXPECT_EQ(moved.run(dev, 5, 1), p.run(dev, 5, 1));
  }
}

TEST(Reverse, LateEpoch) {
  const Problem p(cases[9]);
  for (const Device& dev : devices()) {
    if (dev.family == "cpu") continue;
    SCOPED_TRACE(dev.name);
    EXPECT_EQ(p.run(dev, 5, kLateEpoch, 15, 17), p.run(dev, 5, 17));
  }
}

TEST(Reverse, SeedAndEpochChangeTheDraws) {
  const Problem p(cases[9]);
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    const auto want = p.run(dev, 5, 1);
    EXPECT_NE(p.run(dev, 6, 1)[0], want[0]);
    EXPECT_NE(p.run(dev, 5, 2)[0], want[0]);
  }
}

}  // namespace
}  // namespace ccdrec::test
