#include "tests/kernels/estimator_ref.h"

namespace ccdrec::test::reverse_test {
namespace {

struct Case {
  const char* name;
  int64_t n;
  int M, T;
  int64_t d;
};
const Case cases[] = {{"no items", 0, 2, 20, 64},      {"one item", 1, 2, 20, 64},
                      {"T = 1", 5, 2, 1, 64},          {"T = 2", 5, 1, 2, 8},
                      {"T = 3", 50, 3, 3, 12},         {"T = 5", 49, 2, 5, 4},
                      {"as released", 101, 2, 20, 64}, {"d no multiple of eight", 30, 1, 20, 38},
                      {"T = 40", 10, 2, 40, 16},       {"a full block", 32, 2, 4, 64},
                      {"one more", 33, 2, 4, 64},      {"eight modalities", 20, 8, 4, 16},
                      {"d = 6", 31, 1, 4, 6}};
const Case wide[] = {
    {"d = 128", 9, 2, 4, 128}, {"d = 132", 5, 1, 3, 132}, {"d = 260", 3, 2, 2, 260}, {"eight, d = 128", 3, 8, 1, 128}};

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
  // After the first `taken` steps the others leave e as it is, to the bit: 0 x0 + 1 e + 0 z. So the last pool shows any
  // state of the chain.
  std::vector<std::vector<float>> run(const Device& dev, uint32_t seed, uint32_t epoch, unsigned wanted = 15,
                                      uint32_t late = 0, int taken = kAll) const {
    std::vector<std::vector<float>> pool(4, std::vector<float>(size_t(c.n * c.d), NAN));
    Mat pools[4];
    for (unsigned p = 0; p < 4; ++p) {
      if (wanted >> p & 1) pools[p] = mat(pool[p], c.n, c.d);
    }
    CMat hs[kMaxModalities];
    for (int m = 0; m < c.M; ++m) hs[m] = cmat(h[size_t(m)], c.n, c.d);
    HostSchedule of = host;
    for (int t = 1; t <= c.T - taken; ++t)
      of.a[size_t(t - 1)] = 0, of.b[size_t(t - 1)] = 1, of.sigma[size_t(t - 1)] = 0;
    const Schedule s{c.T, of.sqrt_abar.data(), of.sqrt_1m_abar.data(), of.a.data(), of.b.data(), of.sigma.data()};
    DeviceCtx ctx(dev);
    if (dev.ops->set_late) dev.ops->set_late(ctx, Late{late, 0, 0, 0});
    dev.ops->reverse_process(ctx, pools, CMat{q.data() + shift, c.n, c.d}, hs, c.M, cmat(tau, c.T, c.d),
                             {cmat(wq, c.d, c.d), cmat(wk, c.d, c.d), cmat(wv, c.d, c.d)}, s, seed, epoch);
    return pool;
  }
  static constexpr int kAll = 1 << 30;
};

// The chain of spec 3.6 in double, a step of an item at a time, with the same addressed normals.
struct Chain {
  const Problem& p;
  uint32_t seed, epoch;
  size_t d = size_t(p.c.d);
  EstimatorRef f{size_t(p.c.M + 2), d, doubles(p.wq), doubles(p.wk), doubles(p.wv)};

  Vec normals(Use use, int t, int64_t item) const {
    return normals_of(Stream{seed, use, epoch, uint32_t(t)}, item, (d + 3) / 4);
  }
  std::vector<Ref> start(int64_t i) const {
    const Vec z = normals(Use::reverse_start, p.c.T, i);
    const double abar = p.host.abar.back();
    std::vector<Ref> e(d);
    for (size_t j = 0; j < d; ++j)
      e[j].add(std::sqrt(abar) * p.q[size_t(i) * d + j]), e[j].add(std::sqrt(1 - abar) * z[j]);
    return e;
  }
  EstimatorRef::Item estimate(const Vec& e, int t, int64_t i) const {
    Vec token = e;
    for (const auto& h_m : p.h) token.insert(token.end(), h_m.begin() + i * p.c.d, h_m.begin() + (i + 1) * p.c.d);
    token.insert(token.end(), p.tau.begin() + (t - 1) * p.c.d, p.tau.begin() + t * p.c.d);
    return f.forward(token);
  }
  // e_{t-1} of e_t. Mass of x0: the terms (w_c x_ck) W_v[k,j], all tokens c and columns k.
  std::vector<Ref> step(const Vec& e, int t, int64_t i) const { return step(estimate(e, t, i), e, t, i); }
  std::vector<Ref> step(const EstimatorRef::Item& y, const Vec& e, int t, int64_t i) const {
    const Vec z = normals(Use::reverse_noise, t, i);
    const double a = p.host.a[size_t(t - 1)], b = p.host.b[size_t(t - 1)],
                 sigma = t > 1 ? p.host.sigma[size_t(t - 1)] : 0;
    const size_t K = f.K;
    std::vector<Ref> next(d);
    for (size_t k = 0; k < d; ++k) {
      double terms = 0;
      for (size_t r = 0; r < K; ++r) {
        for (size_t c = 0; c < K; ++c) terms += y.a[r * K + c] / double(K) * std::fabs(y.x[c * d + k]);
      }
      for (size_t j = 0; j < d; ++j) next[j].mass += std::fabs(a) * terms * std::fabs(f.wv[k * d + j]);
    }
    for (size_t j = 0; j < d; ++j) {
      next[j].value = a * y.out[j];
      next[j].add(b * e[j]), next[j].add(sigma * z[j]);
    }
    return next;
  }
  // F (d,d) = d e_{t-1} / d e_t = A J + B 1: what the step makes of an error it is given. x0 = s W_v with s = sum_c w_c
  // x_c, w_c = mean_r a_rc, depends on e by x_0 alone, of which a score (r,c) has the derivative [r = 0] W_q k_c + [c =
  // 0] W_k q_r, over sqrt(d).
  Vec derivative(const EstimatorRef::Item& y, int t) const {
    const size_t K = f.K;
    const double a = p.host.a[size_t(t - 1)], b = p.host.b[size_t(t - 1)];
    const Vec of_q = times(y.k, f.wq, K, d, d, true), of_k = times(y.q, f.wk, K, d, d, true);  // rows W_q k_c, W_k q_r
    Vec dw(K * d, 0.0);                                                                        // row c: of w_c
    for (size_t r = 0; r < K; ++r) {
      const auto of_score = [&](size_t c, size_t j) {
        return ((r == 0 ? of_q[c * d + j] : 0) + (c == 0 ? of_k[r * d + j] : 0)) / std::sqrt(double(d));
      };
      for (size_t j = 0; j < d; ++j) {
        double mean = 0;
        for (size_t c = 0; c < K; ++c) mean += y.a[r * K + c] * of_score(c, j);
        for (size_t c = 0; c < K; ++c) dw[c * d + j] += y.a[r * K + c] * (of_score(c, j) - mean) / double(K);
      }
    }
    double w_0 = 0;
    for (size_t r = 0; r < K; ++r) w_0 += y.a[r * K] / double(K);
    Vec of_s(d * d, 0.0);  // d s_k / d x_0j, at [j,k]
    for (size_t j = 0; j < d; ++j) {
      for (size_t k = 0; k < d; ++k) {
        for (size_t c = 0; c < K; ++c) of_s[j * d + k] += dw[c * d + j] * y.x[c * d + k];
      }
      of_s[j * d + j] += w_0;
    }
    const Vec of_x = times(of_s, f.wv, d, d, d);  // d x0_i / d x_0j, at [j,i]
    Vec F(d * d);
    for (size_t i = 0; i < d; ++i) {
      double mean = 0, along = 0;
      for (size_t j = 0; j < d; ++j) mean += of_x[j * d + i] / double(d), along += of_x[j * d + i] * y.x[j] / double(d);
      for (size_t j = 0; j < d; ++j)
        F[i * d + j] = a * y.rstd[0] * (of_x[j * d + i] - mean - y.x[j] * along) + (i == j ? b : 0.0);
    }
    return F;
  }
};

Vec values(const std::vector<Ref>& x) {
  Vec v;
  for (const Ref& r : x) v.push_back(r.value);
  return v;
}
Vec row_of(const std::vector<float>& x, int64_t i, int64_t d) {
  return Vec(x.begin() + i * d, x.begin() + (i + 1) * d);
}

constexpr double kStep = 1e-6;  // of its mass: what a step may be off

// Every step of all items, from the state that the device itself was in before it: nothing that an earlier step did is
// in the comparison. And the pools of the whole chain are these states.
void check_steps(const Case& c, bool noise_form, const Device& dev) {
  SCOPED_TRACE(std::string(c.name) + (noise_form ? ", noise form" : "") + " on " + dev.name);
  const Problem p(c, noise_form);
  const Chain chain{p, 11, 3};
  const auto pools = p.run(dev, 11, 3);
  const int at[] = {c.T / 4, c.T / 2, 3 * c.T / 4, c.T};
  std::vector<float> before;
  for (int taken = 0; taken <= c.T; ++taken) {
    const std::vector<float> now = p.run(dev, 11, 3, 0b1000, 0, taken)[3];
    for (size_t k = 0; k < 4; ++k) {
      if (taken == at[k]) { EXPECT_EQ(now, pools[k]) << "pool " << k; }
    }
    std::vector<Ref> want;
    for (int64_t i = 0; i < c.n; ++i) {
      const std::vector<Ref> row = taken == 0 ? chain.start(i) : chain.step(row_of(before, i, c.d), c.T - taken + 1, i);
      want.insert(want.end(), row.begin(), row.end());
    }
    EXPECT_TRUE(close(now, want, kStep)) << "after " << taken << " steps of " << c.T;
    before = now;
  }
}

// The snapshots of spec 4 of one item. A step that is off by kStep of its mass m disturbs all later states: by the
// derivative of the steps between. Roundings of different elements and steps know nothing of one another, so their
// squares add up: V_{t-1} = F V_t F^T + diag(m^2), starting with that of e_T, and an element may be off by kStep
// sqrt(V_jj).
struct Snapshot {
  Vec value, sd;
};
std::vector<Snapshot> snapshots(const Chain& chain, int64_t i) {
  const size_t d = chain.d;
  const int T = chain.p.c.T;
  std::vector<Snapshot> pool(4);
  Vec e, V(d * d, 0.0);
  for (int done = 0; done <= T; ++done) {
    const int t = T - done + 1;
    std::vector<Ref> now;
    if (done == 0) {
      now = chain.start(i);
    } else {
      const EstimatorRef::Item y = chain.estimate(e, t, i);
      const Vec F = chain.derivative(y, t);
      now = chain.step(y, e, t, i);
      V = times(times(F, V, d, d, d), F, d, d, d, true);
    }
    e = values(now);
    for (size_t j = 0; j < d; ++j) V[j * d + j] += now[j].mass * now[j].mass;
    const int at[] = {T / 4, T / 2, 3 * T / 4, T};
    for (size_t k = 0; k < 4; ++k) {
      if (done != at[k]) continue;
      pool[k].value = e;
      for (size_t j = 0; j < d; ++j) pool[k].sd.push_back(std::sqrt(V[j * d + j]));
    }
  }
  return pool;
}

// Of wide rows the first and the last item: a derivative costs d/4 times a step.
void check_chain(const Case& c, bool noise_form, const std::vector<Device>& devs) {
  const Problem p(c, noise_form);
  const Chain chain{p, 11, 3};
  std::map<int64_t, std::vector<Snapshot>> want;
  for (int64_t i = 0; i < c.n; ++i) {
    if (c.d <= 16 || i == 0 || i == c.n - 1) want[i] = snapshots(chain, i);
  }
  SameBits same;
  for (const Device& dev : devs) {
    SCOPED_TRACE(std::string(c.name) + (noise_form ? ", noise form" : "") + " on " + dev.name);
    const auto got = p.run(dev, 11, 3);
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_TRUE(same(dev, "pool " + std::to_string(k), got[k]));
      for (const auto& [i, pools] : want) {
        std::vector<Ref> row;
        for (size_t j = 0; j < chain.d; ++j) row.push_back({pools[k].value[j], pools[k].sd[j]});
        EXPECT_TRUE(close(got[k].data() + i * c.d, row, kStep)) << "pool " << k << ", item " << i;
      }
    }
  }
}

TEST(SlowReverse, EveryStepMatchesDoubleFromTheSameState) {
  for (const Device& dev : one_of_each_family()) {
    const auto check = [&](Case c, bool noise_form) {
      // the emulator: two warps, a few items short of a third; whole chains have all items of a case
      c.n = std::min<int64_t>(c.n, dev.family == "simt" ? 19 : 37);
      check_steps(c, noise_form, dev);
    };
    for (const Case& c : cases) check(c, false);
    for (const Case& c : wide) check(c, false);
    check({"noise form", 19, 2, 20, 8}, true);  // another table of coefficients, nothing else
  }
}

// The limit of a whole chain is made of derivatives: they are those of the reference's backward.
TEST(Reverse, TheDerivativeOfAStepIsTheReferences) {
  const Problem p(cases[4]);
  const Chain chain{p, 11, 3};
  const Vec e = values(chain.start(0));
  for (int t = 1; t <= p.c.T; ++t) {
    const EstimatorRef::Item y = chain.estimate(e, t, 0);
    const Vec F = chain.derivative(y, t);
    for (size_t i = 0; i < chain.d; ++i) {
      Vec unit(chain.d, 0.0);
      unit[i] = 1;
      EstimatorRef back = chain.f;
      const Vec J_i = back.backward(y, unit);
      for (size_t j = 0; j < chain.d; ++j)
        ASSERT_NEAR(F[i * chain.d + j],
                    p.host.a[size_t(t - 1)] * J_i[j] + (i == j ? double(p.host.b[size_t(t - 1)]) : 0), 1e-12)
            << i << " " << j;
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
}  // namespace ccdrec::test::reverse_test
