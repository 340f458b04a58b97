#include "kernels/estimator.h"

#include "tests/kernels/estimator_ref.h"

namespace ccdrec::test::estimator_test {
namespace {

constexpr int kSteps = 20;
constexpr float kCanary = -7;  // in rows past the count, of outputs

struct Case {
  const char* name;
  int64_t n;
  int M;
  int64_t d;
  float scale;  // of the tokens: at 0.02 the LayerNorm's epsilon counts
};
const Case cases[] = {{"no items", 0, 2, 64, 1},
                      {"one item", 1, 2, 64, 1},
                      {"one modality", 33, 1, 64, 1},
                      {"as trained", 100, 2, 64, 0.02f},
                      {"d = 4", 35, 2, 4, 1},
                      {"three modalities", 37, 3, 64, 1},
                      {"d = 8", 5, 3, 8, 0.1f},
                      {"d no multiple of eight", 17, 2, 38, 1},
                      {"eight modalities", 9, 8, 20, 1},
                      {"a full block", 16, 2, 64, 1},
                      {"d = 5", 18, 1, 5, 1}};
const Case wide[] = {
    {"d = 128", 5, 2, 128, 1}, {"d = 132", 3, 3, 132, 1}, {"d = 260", 3, 1, 260, 1}, {"eight, d = 128", 3, 8, 128, 1}};

// Everything a call needs, on the host; capacity exceeds n by three rows that no operation may touch, inputs there are
// NaN.
struct Problem {
  Case c;
  int64_t K, cap;
  Cell<int64_t> count;
  std::vector<float> e_t, tau, wq, wk, wv, x, rstd, y, u, a, s, e0;
  std::vector<std::vector<float>> h;
  std::vector<int32_t> t;

  explicit Problem(const Case& c_) : c(c_), K(c.M + 2), cap(c.n + 3), count(c.n) {
    Draw g;
    const int64_t d = c.d;
    e_t = g.floats(cap * d, -c.scale, c.scale);
    for (int m = 0; m < c.M; ++m) h.push_back(g.floats(cap * d, -c.scale, c.scale));
    tau = d % 2 == 0 ? time_embedding(kSteps, d) : g.floats(kSteps * d);
    const float xavier = std::sqrt(3.0f / float(d));
    wq = g.floats(d * d, -xavier, xavier);
    wk = g.floats(d * d, -xavier, xavier);
    wv = g.floats(d * d, -xavier, xavier);
    for (int64_t j = 0; j < cap; ++j) t.push_back(j < c.n ? g.below(kSteps) : -(1 << 30));
    for (int64_t i = c.n * d; i < cap * d; ++i) {
      e_t[size_t(i)] = NAN;
      for (auto& h_m : h) h_m[size_t(i)] = NAN;
    }
    auto unwritten = [](int64_t n) { return std::vector<float>(size_t(n), NAN); };
    x = unwritten(cap * K * d), rstd = unwritten(cap * K), y = x, u = x, a = unwritten(cap * K * K),
    s = unwritten(cap * d), e0 = output();
  }
  std::vector<float> output() const {
    std::vector<float> v(size_t(cap * c.d), NAN);
    std::fill(v.begin() + c.n * c.d, v.end(), kCanary);
    return v;
  }
  EstimatorTokens tokens() const {
    EstimatorTokens in;
    in.e_t = cmat(e_t, cap, c.d);
    for (int m = 0; m < c.M; ++m) in.h[m] = cmat(h[size_t(m)], cap, c.d);
    in.modalities = c.M;
    in.tau = cmat(tau, kSteps, c.d);
    in.t = t.data();
    return in;
  }
  EstimatorSaved saved() {
    return {mat(x, cap * K, c.d), mat(rstd, cap * K, 1), mat(y, cap * K, c.d),
            mat(u, cap * K, c.d), mat(a, cap * K, K),    mat(s, cap, c.d)};
  }
  EstimatorParams params() const { return {cmat(wq, c.d, c.d), cmat(wk, c.d, c.d), cmat(wv, c.d, c.d)}; }
  RowList rows() { return {nullptr, &count, cap}; }
  Vec token(int64_t j) const {
    Vec v;
    auto append = [&](const std::vector<float>& from, int64_t row) {
      v.insert(v.end(), from.begin() + row * c.d, from.begin() + (row + 1) * c.d);
    };
    append(e_t, j);
    for (int m = 0; m < c.M; ++m) append(h[size_t(m)], j);
    append(tau, t[size_t(j)]);
    return v;
  }
  EstimatorRef ref() const { return {size_t(K), size_t(c.d), doubles(wq), doubles(wk), doubles(wv)}; }
};

void check_forward(const Case& c, const std::vector<Device>& devs) {
  SameBits same;
  const Problem fresh(c);
  const EstimatorRef ref = fresh.ref();
  std::vector<Ref> out, a, s, x;
  for (int64_t j = 0; j < c.n; ++j) {
    const EstimatorRef::Item f = ref.forward(fresh.token(j));
    for (const Ref& r : by_scale(f.out)) out.push_back(r);
    for (const Ref& r : by_scale(f.a)) a.push_back(r);
    for (const Ref& r : by_scale(f.s)) s.push_back(r);
    for (const Ref& r : by_scale(f.x)) x.push_back(r);
  }
  for (const Device& dev : devs) {
    SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
    Problem p = fresh;
    DeviceCtx ctx(dev);
    dev.ops->estimator_forward(ctx, mat(p.e0, p.cap, c.d), p.saved(), p.tokens(), p.params(), p.rows());
    EXPECT_TRUE(close(p.e0, out, 1e-6));
    EXPECT_TRUE(close(p.a, a, 1e-6));
    EXPECT_TRUE(close(p.s, s, 1e-6));
    EXPECT_TRUE(close(p.x, x, 1e-6));
    EXPECT_TRUE(same(dev, "e0_hat", p.e0) && same(dev, "a", p.a) && same(dev, "s", p.s) && same(dev, "x", p.x) &&
                same(dev, "y", p.y));
    for (int64_t i = c.n * c.d; i < p.cap * c.d; ++i)
      EXPECT_EQ(p.e0[size_t(i)], kCanary) << "row past the count written";
  }
}

TEST(Estimator, ForwardMatchesDoubleReference) {
  for (const Case& c : cases) check_forward(c, devices());
  for (const Case& c : wide) check_forward(c, fast_devices());
}

struct Gradients {
  std::vector<float> d_e, dwq, dwk, dwv;
  std::vector<std::vector<float>> d_h;
};

Gradients run_backward(const Device& dev, Problem& p, const std::vector<float>& d_out, const Gradients& start) {
  Gradients g = start;
  DeviceCtx ctx(dev);
  Mat d_h[kMaxModalities];
  for (int m = 0; m < p.c.M; ++m) d_h[m] = mat(g.d_h[size_t(m)], p.cap, p.c.d);
  const int64_t d = p.c.d;
  dev.ops->estimator_forward(ctx, mat(p.e0, p.cap, d), p.saved(), p.tokens(), p.params(), p.rows());
  dev.ops->estimator_backward(ctx, mat(g.d_e, p.cap, d), d_h, {mat(g.dwq, d, d), mat(g.dwk, d, d), mat(g.dwv, d, d)},
                              cmat(d_out, p.cap, d), p.tokens(), p.saved(), p.params(), p.rows());
  return g;
}

Gradients start_values(Draw& g, const Problem& p) {  // += from random values, = from NaN
  const std::vector<float> unwritten = p.output();
  return {unwritten, g.floats(p.c.d * p.c.d), g.floats(p.c.d * p.c.d), g.floats(p.c.d * p.c.d),
          std::vector(size_t(p.c.M), unwritten)};
}

void check_backward(const Case& c, const std::vector<Device>& devs) {
  SameBits same;
  Draw g{1000};
  const Problem fresh(c);
  const size_t d = size_t(c.d);
  std::vector<float> d_out = g.floats(fresh.cap * c.d);
  std::fill(d_out.begin() + c.n * c.d, d_out.end(), NAN);
  const Gradients start = start_values(g, fresh);
  EstimatorRef ref = fresh.ref();
  Vec d_e;
  std::vector<Vec> d_h(size_t(c.M));
  for (int64_t j = 0; j < c.n; ++j) {
    const Vec d_token =
        ref.backward(ref.forward(fresh.token(j)), Vec(d_out.begin() + j * c.d, d_out.begin() + (j + 1) * c.d));
    d_e.insert(d_e.end(), d_token.begin(), d_token.begin() + c.d);
    for (size_t m = 0; m < size_t(c.M); ++m)
      d_h[m].insert(d_h[m].end(), d_token.begin() + (m + 1) * d, d_token.begin() + (m + 2) * d);
  }
  for (size_t i = 0; i < d * d; ++i) ref.dwq[i] += start.dwq[i], ref.dwk[i] += start.dwk[i], ref.dwv[i] += start.dwv[i];
  for (const Device& dev : devs) {
    SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
    Problem p = fresh;
    const Gradients got = run_backward(dev, p, d_out, start);
    EXPECT_TRUE(close(got.d_e, by_scale(d_e), 1e-5));
    EXPECT_TRUE(close(got.dwq, by_scale(ref.dwq), 5e-6));
    EXPECT_TRUE(close(got.dwk, by_scale(ref.dwk), 5e-6));
    EXPECT_TRUE(close(got.dwv, by_scale(ref.dwv), 5e-6));
    EXPECT_TRUE(same(dev, "d_e_t", got.d_e) && same(dev, "dW_q", got.dwq) && same(dev, "dW_k", got.dwk) &&
                same(dev, "dW_v", got.dwv));
    for (size_t m = 0; m < size_t(c.M); ++m) {
      EXPECT_TRUE(close(got.d_h[m], by_scale(d_h[m]), 1e-5)) << "modality " << m;
      EXPECT_TRUE(same(dev, "d_h " + std::to_string(m), got.d_h[m]));
    }
    for (size_t i = size_t(c.n) * d; i < size_t(p.cap) * d; ++i) {
      EXPECT_EQ(got.d_e[i], kCanary) << "row past the count written";
      for (const auto& d_h_m : got.d_h) EXPECT_EQ(d_h_m[i], kCanary) << "row past the count written";
    }
    if (c.n == 0) { EXPECT_TRUE(got.dwq == start.dwq && got.dwk == start.dwk && got.dwv == start.dwv); }
  }
}

TEST(Estimator, BackwardMatchesDoubleReference) {
  for (const Case& c : cases) check_backward(c, devices());
  for (const Case& c : wide) check_backward(c, fast_devices());
  check_backward({"blocks take several tiles", more_than_a_wave(fast_devices()), 1, 4, 1}, fast_devices());
}

// Rows that do not start at a multiple of 16 bytes are read a float at a time, to the same bits.
TEST(Estimator, UnalignedRows) {
  const Case c{"unaligned", 19, 2, 8, 1};
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Problem p(c), moved(c);
    const auto shift = [](std::vector<float>& v) { v.insert(v.begin(), 0.0f); };
    shift(moved.e_t), shift(moved.h[0]), shift(moved.h[1]);
    EstimatorTokens in = moved.tokens();
    ++in.e_t.p, ++in.h[0].p, ++in.h[1].p;
    DeviceCtx ctx(dev);
    dev.ops->estimator_forward(ctx, mat(p.e0, p.cap, c.d), p.saved(), p.tokens(), p.params(), p.rows());
    dev.ops->estimator_forward(ctx, mat(moved.e0, p.cap, c.d), moved.saved(), in, moved.params(), moved.rows());
    SameBits same;
    EXPECT_TRUE(same(dev, "e0_hat", p.e0) && same(dev, "e0_hat", moved.e0));
    EXPECT_TRUE(same(dev, "y", p.y) && same(dev, "y", moved.y));
  }
}

TEST(Estimator, AWidthNoKernelIsMadeForThrows) {
  Problem p({"d = 516", 1, 1, 516, 1});
  for (const Device& dev : fast_devices()) {
    if (dev.family == "cpu") continue;
    DeviceCtx ctx(dev);
    EXPECT_THROW(dev.ops->estimator_forward(ctx, mat(p.e0, p.cap, 516), p.saved(), p.tokens(), p.params(), p.rows()),
                 std::logic_error);
  }
}

// The judge judged: its backward against central differences of its forward, with random weights on the output.
TEST(Estimator, ReferenceBackwardMatchesFiniteDifferences) {
  for (const Case& c : {Case{"small", 2, 2, 4, 1}, Case{"eps counts", 2, 1, 8, 0.01f}, Case{"three", 1, 3, 6, 0.3f}}) {
    SCOPED_TRACE(c.name);
    Problem p(c);
    Draw g{2000};
    const Vec weight = doubles(g.floats(c.d));
    EstimatorRef ref = p.ref();
    auto loss = [&](const Vec& token) {
      const Vec out = ref.forward(token).out;
      double sum = 0;
      for (size_t j = 0; j < out.size(); ++j) sum += weight[j] * out[j];
      return sum;
    };
    Vec token = p.token(0);
    const Vec d_token = ref.backward(ref.forward(token), weight);
    auto compare = [&](Vec& at, const Vec& gradient, double h) {
      const std::vector<Ref> want = by_scale(gradient);
      for (size_t i = 0; i < at.size(); ++i) {
        const double keep = at[i];
        at[i] = keep + h;
        const double up = loss(token);
        at[i] = keep - h;
        const double down = loss(token);
        at[i] = keep;
        EXPECT_NEAR((up - down) / (2 * h), want[i].value, 1e-6 * want[i].mass) << i;
      }
    };
    compare(token, d_token, 1e-5 * c.scale);
    compare(ref.wq, ref.dwq, 1e-5);
    compare(ref.wk, ref.dwk, 1e-5);
    compare(ref.wv, ref.dwv, 1e-5);
  }
}

TEST(Estimator, TimeEmbedding) {
  const int64_t d = 8;
  const std::vector<float> tau = time_embedding(5, d);
  ASSERT_EQ(tau.size(), size_t(5 * d));
  for (int64_t t = 0; t < 5; ++t) {
    const double w[] = {1, std::pow(10000.0, -1.0 / 3), std::pow(10000.0, -2.0 / 3), 1e-4};
    for (int64_t k = 0; k < 4; ++k) {
      EXPECT_NEAR(tau[size_t(t * d + k)], std::sin(double(t) * w[k]), 1e-7);
      EXPECT_NEAR(tau[size_t(t * d + 4 + k)], std::cos(double(t) * w[k]), 1e-7);
    }
  }
  EXPECT_THROW(time_embedding(5, 7), std::invalid_argument);
  EXPECT_THROW(time_embedding(5, 2), std::invalid_argument);
}

}  // namespace
}  // namespace ccdrec::test::estimator_test
