#include "kernels/adam.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/fast/microkernel.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::adam_test {
namespace {

std::vector<AdamCoef> coefficients(double lr, int64_t steps, AdamHyper h = {}) {
  std::vector<AdamCoef> c;
  for (int64_t t = 1; t <= steps; ++t) c.push_back(adam_coef(lr, h, t));
  return c;
}
AdamSchedule schedule(const std::vector<AdamCoef>& c, AdamHyper h = {}, float gradient = 1) {
  return {c.data(), int64_t(c.size()), h, gradient};
}

struct Reached {  // the steps of a table's rows
  std::vector<int32_t> value, moments;
  explicit Reached(int64_t R, int32_t step = 0) : value(size_t(R), step), moments(size_t(R), step) {}
  bool operator==(const Reached&) const = default;
  Table table(Mat p, Mat m, Mat v) { return {p, m, v, value.data(), moments.data()}; }
};

TEST(Adam, GoldenThreeSteps) {  // lr 1e-3, theta = 1, gradients 0.3, 0, -0.1: spec 12
  const auto coef = coefficients(1e-3, 3);
  std::vector<float> g = {0.3f, 0, -0.1f};
  const double want[3] = {0.9990000000, 0.9983299418, 0.9980408065};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    Cell<float> p = 1, m = 0, v = 0;
    for (int64_t t = 1; t <= 3; ++t) {
      dev.ops->adam(ctx, {&p, 1, 1}, {&m, 1, 1}, {&v, 1, 1}, {&g[size_t(t - 1)], 1, 1}, schedule(coef), t);
      EXPECT_NEAR(float(p), want[t - 1], 1.2e-7) << t;
    }
  }
}

TEST(Adam, GoldenThreeStepsWithWeightDecay) {  // the same with 1e-4: spec 12
  const auto coef = coefficients(1e-3, 3);
  AdamHyper h;
  h.weight_decay = 1e-4f;
  std::vector<float> g = {0.3f, 0, -0.1f};
  const double want[3] = {0.9990000000, 0.9983296940, 0.9980400692};
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    Cell<float> p = 1, m = 0, v = 0;
    for (int64_t t = 1; t <= 3; ++t) {
      dev.ops->adam(ctx, {&p, 1, 1}, {&m, 1, 1}, {&v, 1, 1}, {&g[size_t(t - 1)], 1, 1}, schedule(coef, h), t);
      EXPECT_NEAR(float(p), want[t - 1], 1.2e-7) << t;
    }
  }
}

// What the gradients of steps 1, 2, .. are multiplied by, in turn.
const std::vector<std::vector<float>> kFactors = {{1}, {-0.2f}, {0}, {1, -0.2f, 1, 1}, {1, 0}};
float factor_of(const std::vector<float>& factors, int64_t t) { return factors[size_t(t - 1) % factors.size()]; }

// Dense, and by rows of which each is listed: then every step has a gradient.
TEST(Adam, MatchesDoubleReference) {
  const int64_t rows = 37, cols = 211, steps = 30;
  const double lr = 0.05;
  const auto coef = coefficients(lr, steps);
  for (size_t f = 0; f < kFactors.size(); ++f) {
    Draw g;
    const auto p0 = g.floats(rows * cols);
    std::vector<std::vector<float>> grad;
    for (int64_t t = 0; t < steps; ++t) grad.push_back(g.floats(rows * cols));
    std::vector<double> p(p0.begin(), p0.end()), m(p.size()), v(p.size());
    for (int64_t t = 1; t <= steps; ++t)
      for (size_t i = 0; i < p.size(); ++i) {
        const double gi = double(factor_of(kFactors[f], t)) * grad[size_t(t - 1)][i];
        m[i] = 0.9 * m[i] + 0.1 * gi;
        v[i] = 0.999 * v[i] + 0.001 * gi * gi;
        p[i] -= lr / (1 - std::pow(0.9, double(t))) * m[i] /
                (std::sqrt(v[i]) / std::sqrt(1 - std::pow(0.999, double(t))) + 1e-8);
      }
    SameBits same;
    for (const Device& dev : devices())
      for (const bool by_rows : {false, true}) {
        SCOPED_TRACE(std::string(by_rows ? "by rows" : "dense") + ", factors " + std::to_string(f) + ", on " +
                     dev.name);
        DeviceCtx ctx(dev);
        std::vector<float> pf = p0, mf(p.size()), vf(p.size());
        Reached at(rows);
        const Table table = at.table(mat(pf, rows, cols), mat(mf, rows, cols), mat(vf, rows, cols));
        for (int64_t t = 1; t <= steps; ++t) {
          const AdamSchedule s = schedule(coef, {}, factor_of(kFactors[f], t));
          const CMat g_t = cmat(grad[size_t(t - 1)], rows, cols);
          if (by_rows)
            dev.ops->adam_rows(ctx, table, {nullptr, nullptr, rows}, g_t, true, s, t);
          else
            dev.ops->adam(ctx, table.value, table.m, table.v, g_t, s, t);
        }
        for (size_t i = 0; i < p.size(); ++i) {
          ASSERT_LE(std::fabs(pf[i] - p[i]), 2e-6 * (std::fabs(p[i]) + lr * double(steps))) << i;  // !(<=) fails on NaN
          ASSERT_LE(std::fabs(mf[i] - m[i]), 1e-6) << i;
          ASSERT_LE(std::fabs(vf[i] - v[i]), 2e-5 * v[i]) << i;  // 1 - 0.999f is 1.3e-5 from 0.001
        }
        EXPECT_TRUE(same(dev, "p", pf));
      }
  }
}

// The decay enters beside the gradient, whose factor does not touch it; without a gradient it is all there is. The same
// bits on every device and by every path of the processor.
TEST(Adam, WeightDecayMatchesDoubleReference) {
  const int64_t n = 1083, steps = 12;
  const double lr = 0.05;
  AdamHyper h;
  h.weight_decay = 0.3f;
  const double decay = double(h.weight_decay);
  const auto coef = coefficients(lr, steps);
  for (size_t f = 0; f < kFactors.size(); ++f) {
    Draw draws;
    const auto p0 = draws.floats(n);
    const auto grad = draws.floats(n * steps);
    const auto has_gradient = [](int64_t t) { return t % 4 != 3; };
    std::vector<double> p(p0.begin(), p0.end()), m(p.size()), v(p.size());
    for (int64_t t = 1; t <= steps; ++t)
      for (size_t i = 0; i < p.size(); ++i) {
        const double g = has_gradient(t) ? double(factor_of(kFactors[f], t)) * grad[size_t((t - 1) * n) + i] : 0;
        const double gi = g + decay * p[i];
        m[i] = 0.9 * m[i] + 0.1 * gi;
        v[i] = 0.999 * v[i] + 0.001 * gi * gi;
        p[i] -= lr / (1 - std::pow(0.9, double(t))) * m[i] /
                (std::sqrt(v[i]) / std::sqrt(1 - std::pow(0.999, double(t))) + 1e-8);
      }
    SameBits same;
    const auto run = [&](Device dev, const std::string& by) {
      SCOPED_TRACE("factors " + std::to_string(f) + ", on " + dev.name + by);
      DeviceCtx ctx(dev);
      std::vector<float> pf = p0, mf(p.size()), vf(p.size());
      for (int64_t t = 1; t <= steps; ++t)
        dev.ops->adam(ctx, mat(pf, 1, n), mat(mf, 1, n), mat(vf, 1, n),
                      has_gradient(t) ? CMat(grad.data() + (t - 1) * n, 1, n) : CMat(),
                      schedule(coef, h, factor_of(kFactors[f], t)), t);
      for (size_t i = 0; i < p.size(); ++i) {
        ASSERT_LE(std::fabs(pf[i] - p[i]), 1e-5 * (std::fabs(p[i]) + lr * double(steps))) << i;
        ASSERT_LE(std::fabs(mf[i] - m[i]), 1e-6) << i;
      }
      dev.family = "all";
      EXPECT_TRUE(same(dev, "p", pf) && same(dev, "m", mf) && same(dev, "v", vf));
    };
    for (const Device& dev : devices()) run(dev, "");
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      run(cpu_devices()[0], std::string(", ") + isa);
      cpu::set_micro_kernel(nullptr);
    }
  }
}

TEST(Adam, RowsOnDemandRefuseWeightDecay) {
  const auto coef = coefficients(0.1, 3);
  AdamHyper h;
  h.weight_decay = 1e-4f;
  const AdamSchedule s = schedule(coef, h);
  for (const Device& dev : one_of_each_family()) {
    DeviceCtx ctx(dev);
    const int64_t R = 2, F = 3, d = 4;
    std::vector<float> p(static_cast<size_t>(R * F)), w(static_cast<size_t>(F * d)), b(static_cast<size_t>(d));
    std::vector<float> m = p, v = p, g = p, dw = w, db = b, y(static_cast<size_t>(R * d));
    Reached at(R);
    const Table table = at.table(mat(p, R, F), mat(m, R, F), mat(v, R, F));
    const RowList all{nullptr, nullptr, R};
    EXPECT_THROW(dev.ops->adam_rows(ctx, table, all, cmat(g, R, F), true, s, 1), std::logic_error);
    EXPECT_THROW(dev.ops->adam_catch_up(ctx, table, all, s, 1), std::logic_error);
    EXPECT_THROW(dev.ops->adam_flush(ctx, table, s, 1), std::logic_error);
    EXPECT_THROW(dev.ops->catch_up_project(ctx, mat(y, R, d), table, all, cmat(w, F, d), cmat(b, 1, d), s, 1),
                 std::logic_error);
    EXPECT_THROW(dev.ops->project_backward_step(ctx, mat(dw, F, d), mat(db, 1, d), cmat(y, R, d), table, all,
                                                cmat(w, F, d), s, 1),
                 std::logic_error);
  }
}

// A factor of 1 is no factor: trainings keep their bits.
TEST(Adam, AFactorOfOneKeepsEveryBit) {
  for (const AdamHyper h : {AdamHyper{}, AdamHyper{0.5f, 0.9f, 0}, AdamHyper{0.1f, 0.99f, 0}}) {
    const AdamRest rest = adam_rest({nullptr, 0, h});
    EXPECT_EQ(rest.m, float(1.0 - double(h.beta1)));
    EXPECT_EQ(rest.v, float(1.0 - double(h.beta2)));
  }
}

// Arrays at any address and of any length, with a gradient and without: the same bits on every device, and nothing
// beyond the end.
TEST(Adam, AnyAddressAndAnyLength) {
  const int64_t steps = 6;
  constexpr float kBeyond = 7;
  const auto coef = coefficients(0.02, steps);
  for (const int64_t n : {1, 3, 4, 5, 1023, 1024, 2051})
    for (const int64_t shift : {0, 1, 2}) {
      Draw g;
      const auto p0 = g.floats(n), g0 = g.floats(n + 1);
      SameBits same;
      for (Device dev : devices()) {
        SCOPED_TRACE(std::to_string(n) + " elements, shifted by " + std::to_string(shift) + ", on " + dev.name);
        DeviceCtx ctx(dev);
        // m and the gradient stay where they are: one address decides for all
        std::vector<float> p(size_t(n + 4), kBeyond), m = p, v = p, grad = p;
        std::copy(p0.begin(), p0.end(), p.begin() + shift);
        std::fill_n(m.begin(), n, 0.0f), std::fill_n(v.begin() + shift, n, 0.0f);
        for (int64_t t = 1; t <= steps; ++t) {
          for (int64_t k = 0; k < n; ++k) grad[size_t(k)] = (k + t) % 3 == 0 ? 0.0f : g0[size_t(k)] * float(t);
          const CMat no_gradient;  // which finds some elements at rest
          dev.ops->adam(ctx, {p.data() + shift, 1, n}, {m.data(), 1, n}, {v.data() + shift, 1, n},
                        t % 3 == 2 ? no_gradient : cmat(grad, 1, n), schedule(coef), t);
        }
        for (const auto* a : {&p, &v})
          for (size_t k = 0; k < a->size(); ++k) {
            const bool inside = int64_t(k) >= shift && int64_t(k) < shift + n;
            ASSERT_TRUE(inside || (*a)[k] == kBeyond) << k;
          }
        for (size_t k = size_t(n); k < m.size(); ++k) ASSERT_EQ(m[k], kBeyond) << k;
        dev.family = "all";
        EXPECT_TRUE(same(dev, "p", std::vector<float>(p.begin() + shift, p.begin() + shift + n)));
        EXPECT_TRUE(same(dev, "v", std::vector<float>(v.begin() + shift, v.begin() + shift + n)));
        EXPECT_TRUE(same(dev, "m", std::vector<float>(m.begin(), m.begin() + n)));
      }
    }
}

// Every path of the processor takes the steps of this loop, bit for bit: sqrt and / as IEEE 754 has them, whatever they
// are made of.
void step_by_definition(std::vector<float>& p, std::vector<float>& m, std::vector<float>& v,
                        const std::vector<float>& g, AdamCoef c, AdamHyper h, float gradient = 1) {
  const float rest1 = float((1.0 - double(h.beta1)) * gradient),
              rest2 = float((1.0 - double(h.beta2)) * gradient * gradient);
  for (size_t i = 0; i < p.size(); ++i) {
    m[i] = std::fma(h.beta1, m[i], rest1 * g[i]);
    v[i] = std::fma(h.beta2, v[i], rest2 * g[i] * g[i]);
    p[i] = p[i] - c.c1 * m[i] / std::fma(std::sqrt(v[i]), c.c2, h.eps);
  }
}
// in bits, but that one NaN is as good as another
size_t first_difference(const std::vector<float>& a, const std::vector<float>& b) {
  size_t i = 0;
  while (i < a.size() &&
         (std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i]) || (std::isnan(a[i]) && std::isnan(b[i]))))
    ++i;
  return i;
}
struct WithKernel {
  explicit WithKernel(const char* name) { cpu::set_micro_kernel(cpu::find_kernel(name)); }
  ~WithKernel() { cpu::set_micro_kernel(nullptr); }
};

// Betas of 1 leave m = 1 and v alone; then p = -1 / (sqrt(v) - 1), from which the root can be told to its last bit. All
// of [1,4), which is every mantissa with an even and an odd exponent, and some of every other binade, denormals
// included.
TEST(Adam, SquareRootOfEveryMantissa) {
  const uint32_t stride = sanitized() ? 61 : 1;
  const AdamHyper h{1.0f, 1.0f, -1.0f};
  const std::vector<AdamCoef> coef(2, AdamCoef{1.0f, 1.0f});
  const auto check = [&](uint32_t first, uint32_t last, uint32_t step) {
    std::vector<float> v;
    for (uint64_t b = first; b < last; b += step) {
      const auto word = uint32_t(b);
      v.push_back(0);
      std::memcpy(&v.back(), &word, sizeof word);
    }
    const std::vector<float> zero(v.size()), ones(v.size(), 1.0f);
    std::vector<float> want = zero, m = ones, v_want = v;
    step_by_definition(want, m, v_want, zero, coef[0], h);
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      const WithKernel only(isa);
      Ctx ctx(2);
      std::vector<float> p = zero, m1 = ones, v1 = v;
      const auto n = int64_t(v.size());
      cpu::adam(ctx, mat(p, 1, n), mat(m1, 1, n), mat(v1, 1, n), {}, {coef.data(), 2, h}, 1);
      const size_t at = first_difference(p, want);
      ASSERT_EQ(at, p.size()) << isa << ": v = " << v[at] << ", p = " << p[at] << ", expected " << want[at];
    }
  };
  for (uint32_t first = 0x3f800000; first < 0x40800000; first += 1u << 20) check(first, first + (1u << 20), stride);
  check(0, 0x7f800001, 4099 * stride);
}

// The way to the root depends on v; the result must not: moments at both ends of the exponent, underflowing, infinite
// and NaN among ordinary ones.
TEST(AdamRows, EveryProcessorPathTakesTheSameSteps) {
  const int64_t R = 40, cols = 53, steps = 12;
  const auto coef = coefficients(0.01, steps);
  const float scales[] = {0.0f, -0.0f, 1e-38f, 1e-30f, 1e-22f, 3e-14f, 1e-13f, 1e-8f,   1e-3f,
                          1.0f, 1e3f,  1e15f,  1e18f,  1e19f,  1e20f,  3e38f,  INFINITY};
  Draw g;
  std::vector<float> p0 = g.floats(R * cols), m0(p0.size()), v0(p0.size());
  std::vector<std::vector<float>> grad(static_cast<size_t>(steps), std::vector<float>(p0.size()));
  // most rows keep to one scale, so that whole vectors are fit or not; some mix them
  for (auto& step : grad)
    for (size_t i = 0; i < step.size(); ++i)
      step[i] = g.uniform() * scales[size_t(int64_t(i) / cols % 4 == 3 ? g.below(17) : int64_t(i) / cols * 17 / R)];
  const auto factor = [](int64_t t) { return t == 6 ? -0.2f : 1.0f; };
  const auto dense = [&](std::vector<float>& p, std::vector<float>& m, std::vector<float>& v, int64_t t) {
    const std::vector<float> zero(p.size());
    step_by_definition(p, m, v, t % 5 == 1 ? grad[size_t(t - 1)] : zero, coef[size_t(t - 1)], AdamHyper{}, factor(t));
  };
  std::vector<float> want = p0, m_want = m0, v_want = v0;
  for (int64_t t = 1; t <= steps; ++t) dense(want, m_want, v_want, t);
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    if (!cpu::find_kernel(isa)) continue;
    SCOPED_TRACE(isa);
    const WithKernel only(isa);
    Ctx ctx(2);
    std::vector<float> p = p0, m = m0, v = v0;
    Reached at(R);
    const Table table = at.table(mat(p, R, cols), mat(m, R, cols), mat(v, R, cols));
    std::vector<int32_t> parted[5];  // few enough at a time for their values to wait
    for (int32_t r = 0; r < R; ++r) parted[r % 5].push_back(r);
    for (const int64_t t : {1, 6, 11})
      for (const std::vector<int32_t>& part : parted) {
        OwnedList some(part);
        cpu::adam_rows(ctx, table, some.list(), cmat(grad[size_t(t - 1)], R, cols), true, schedule(coef, {}, factor(t)),
                       t);
        EXPECT_EQ(at.value[size_t(part[0])], t - 1);
      }
    cpu::adam_flush(ctx, table, schedule(coef), steps);
    EXPECT_EQ(first_difference(v, v_want), v.size());
    EXPECT_EQ(first_difference(m, m_want), m.size());
    const size_t differs = first_difference(p, want);
    EXPECT_EQ(differs, p.size()) << "row " << int64_t(differs) / cols;
  }
}

// A beta2 under which v leaves, within one replay, the range where the root made of fma is exact; m stays, so that
// every root counts.
TEST(AdamRows, AFastDecayingSquareKeepsTheBits) {
  const int64_t R = 3, cols = 40, steps = 800;
  const AdamHyper h{1.0f, 0.9f, 1e-30f};
  const std::vector<AdamCoef> coef(static_cast<size_t>(steps), AdamCoef{1e-3f, 1.0f});
  Draw g;
  const std::vector<float> p0 = g.floats(R * cols), m0 = g.floats(R * cols), v0 = g.floats(R * cols, 0, 1),
                           zero(p0.size());
  std::vector<float> want = p0, m_want = m0, v_want = v0;
  for (int64_t t = 1; t <= steps; ++t) step_by_definition(want, m_want, v_want, zero, coef[0], h);
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    if (!cpu::find_kernel(isa)) continue;
    SCOPED_TRACE(isa);
    const WithKernel only(isa);
    Ctx ctx(1);
    std::vector<float> p = p0, m = m0, v = v0;
    Reached at(R);
    cpu::adam_flush(ctx, at.table(mat(p, R, cols), mat(m, R, cols), mat(v, R, cols)), schedule(coef, h), steps);
    EXPECT_EQ(first_difference(v, v_want), v.size());
    EXPECT_EQ(first_difference(m, m_want), m.size());
    EXPECT_EQ(first_difference(p, want), p.size());
  }
}

struct RowCase {
  const char* name;
  int64_t R, cols;
  int every;  // a row gets a gradient in about one step of `every`
  bool by_row;
};
const RowCase kRows[] = {{"one row", 1, 1, 2, false},     {"odd width", 11, 37, 3, false},
                         {"by row", 23, 64, 4, true},     {"wide, seldom", 7, 4096, 9, false},
                         {"never", 5, 16, 1 << 20, true}, {"always", 9, 24, 1, false}};

// On demand gives the bits of the dense form, whenever rows are brought up to date and flushed. The factor is the
// gradient's: replays read none.
TEST(AdamRows, ReplayEqualsDenseBitForBit) {
  const int64_t steps = 40;
  const auto coef = coefficients(0.01, steps);
  const AdamSchedule replays = schedule(coef, {}, NAN);
  for (const RowCase& c : kRows)
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Draw g;
      DeviceCtx ctx(dev);
      const auto size = size_t(c.R * c.cols);
      std::vector<float> dense = g.floats(c.R * c.cols), dm(size), dv(size), value = dense, m(size), v(size);
      Reached at(c.R);
      const Table table = at.table(mat(value, c.R, c.cols), mat(m, c.R, c.cols), mat(v, c.R, c.cols));
      for (int64_t t = 1; t <= steps; ++t) {
        const AdamSchedule s = schedule(coef, {}, t % 4 == 2 ? -0.2f : 1.0f);
        std::vector<int32_t> touched;
        for (int32_t r = 0; r < c.R; ++r)
          if (g.below(c.every) == 0) touched.push_back(r);
        const int64_t n = int64_t(touched.size());
        std::vector<float> full(size), by_list(size_t((n + 2) * c.cols), NAN);
        for (int64_t j = 0; j < n; ++j)
          for (int64_t k = 0; k < c.cols; ++k)
            full[size_t(touched[size_t(j)] * c.cols + k)] = by_list[size_t(j * c.cols + k)] =
                k % 5 == 2 ? 0 : g.uniform();
        dev.ops->adam(ctx, mat(dense, c.R, c.cols), mat(dm, c.R, c.cols), mat(dv, c.R, c.cols), cmat(full, c.R, c.cols),
                      s, t);
        if (t % 3 == 0) {  // read before the step: rows as after step t-1
          OwnedList early(touched);
          dev.ops->adam_catch_up(ctx, table, early.list(), replays, t - 1);
          for (int32_t r : touched) EXPECT_GE(at.value[size_t(r)], t - 1);
        }
        OwnedList rows(touched);
        dev.ops->adam_rows(ctx, table, rows.list(), c.by_row ? cmat(full, c.R, c.cols) : cmat(by_list, n + 2, c.cols),
                           c.by_row, s, t);
        for (int32_t r : touched) {
          EXPECT_EQ(at.moments[size_t(r)], t);
          EXPECT_EQ(at.value[size_t(r)], moves_at_once(n, c.R) ? t : t - 1);
        }
        if (t % 2 == 0) continue;  // the values wait for the next gradient, or the flush
        dev.ops->adam_catch_up(ctx, table, rows.list(), replays, t);
        for (int32_t r : touched)
          for (int64_t k = 0; k < c.cols; ++k)
            ASSERT_EQ(value[size_t(r * c.cols + k)], dense[size_t(r * c.cols + k)]) << "step " << t << " row " << r;
        if (t % 17 == 0 || t == steps) {
          dev.ops->adam_flush(ctx, table, replays, t);
          dev.ops->adam_flush(ctx, table, replays, t);  // again: nothing left to do
          EXPECT_EQ(value, dense);
          EXPECT_EQ(m, dm);
          EXPECT_EQ(v, dv);
          EXPECT_EQ(at, Reached(c.R, int32_t(t)));
        }
      }
    }
}

std::vector<uint32_t> bits(const std::vector<float>& v) {  // == would take -0 for 0
  std::vector<uint32_t> b(v.size());
  std::memcpy(b.data(), v.data(), v.size() * sizeof(float));
  return b;
}

// However seldom a table is flushed, value, m and v end as if every step had been dense. Gradients span 60 powers of
// ten: v underflows to zero under a living m, m becomes denormal, and -0 is among them.
TEST(AdamRows, FlushedEveryStepEverySeventhOrOnceAtTheEnd) {
  const int64_t R = 13, steps = 60;
  const auto coef = coefficients(0.003, steps);
  const AdamSchedule s = schedule(coef);
  for (const int64_t cols : {1, 5, 37, 64, 100, 131})
    for (const int64_t every : {int64_t(1), int64_t(7), steps})
      for (const bool by_row : {false, true})
        for (const Device& dev : devices()) {
          SCOPED_TRACE("width " + std::to_string(cols) + ", flushed every " + std::to_string(every) + " on " +
                       dev.name + (by_row ? ", by row" : ""));
          Draw g;
          DeviceCtx ctx(dev);
          std::vector<float> dense = g.floats(R * cols), dm(dense.size()), dv(dense.size()), value = dense,
                             m(dense.size()), v(dense.size());
          Reached at(R);
          const auto start = dense;
          for (int64_t t = 1; t <= steps; ++t) {
            std::vector<int32_t> touched;
            for (int32_t r = 1; r < R; ++r)  // row 0: never. Row 1: in the first steps only. Row R-1: almost always
              if (r == 1 ? t <= 2 : g.below(r == R - 1 ? 8 : 16) < (r == R - 1 ? 7 : 2)) touched.push_back(r);
            std::vector<float> full(size_t(R * cols)), by_list(touched.size() * size_t(cols));
            for (size_t j = 0; j < touched.size(); ++j)
              for (int64_t k = 0; k < cols; ++k) {
                const int kind = g.below(6);
                const float x = kind == 0 ? -0.0f
                                          : g.uniform() * (kind == 1   ? 1e-30f
                                                           : kind == 2 ? 1e-10f
                                                           : kind == 3 ? 1e3f
                                                                       : 1.0f);
                full[size_t(touched[j] * cols + k)] = by_list[j * size_t(cols) + size_t(k)] = x;
              }
            const int64_t n = int64_t(touched.size());
            dev.ops->adam(ctx, mat(dense, R, cols), mat(dm, R, cols), mat(dv, R, cols), cmat(full, R, cols), s, t);
            OwnedList rows(touched);
            const Table table = at.table(mat(value, R, cols), mat(m, R, cols), mat(v, R, cols));
            if (n)
              dev.ops->adam_rows(ctx, table, rows.list(), by_row ? cmat(full, R, cols) : cmat(by_list, n, cols), by_row,
                                 s, t);
            if (t % every == 0 || t == steps) {
              dev.ops->adam_flush(ctx, table, s, t);
              ASSERT_EQ(bits(value), bits(dense)) << "step " << t;
              ASSERT_EQ(bits(m), bits(dm)) << "step " << t;
              ASSERT_EQ(bits(v), bits(dv)) << "step " << t;
            }
          }
          EXPECT_TRUE(std::equal(start.begin(), start.begin() + cols, dense.begin()))
              << "a row without gradients moved";
          EXPECT_EQ(at, Reached(R, int32_t(steps)));
        }
}

// m can vanish while v lives: v must go on decaying. And a row with one living element is no row at rest.
TEST(AdamRows, RestsOnlyWhereBothMomentsAreZero) {
  const auto coef = coefficients(0.01, 5);
  std::vector<float> p = {1, 2, 3, 4}, m(4), v = {0, 0.5f, 0, 0}, p0 = p;
  Reached at(2);
  Ctx ctx(1);
  cpu::adam_flush(ctx, at.table(mat(p, 2, 2), mat(m, 2, 2), mat(v, 2, 2)), schedule(coef), 5);
  EXPECT_EQ(p, p0);
  EXPECT_NEAR(v[1], 0.5 * std::pow(0.999, 5), 1e-7);
  EXPECT_EQ(at, Reached(2, 5));
}

// A value that is ahead of the step stays where it is, and the moments join it.
TEST(AdamRows, AFlushTakesNoValueBack) {
  const auto coef = coefficients(0.01, 6);
  for (const int64_t cols : {5, 600})
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(cols) + " columns on " + dev.name);
      DeviceCtx ctx(dev);
      const auto size = size_t(2 * cols);
      std::vector<float> p(size, 2), m(size, 1), v(size, 1);
      Reached at(2, 3);
      at.value = {5, 3};
      dev.ops->adam_flush(ctx, at.table(mat(p, 2, cols), mat(m, 2, cols), mat(v, 2, cols)), schedule(coef), 4);
      EXPECT_EQ(at.value, (std::vector<int32_t>{5, 4}));
      EXPECT_EQ(at.moments, (std::vector<int32_t>{5, 4}));
      EXPECT_EQ(p[0], 2);
      EXPECT_EQ(m[0], 0.9f * (0.9f * 1.0f));
      EXPECT_NE(p[size_t(cols)], 2);
      EXPECT_EQ(m[size_t(cols)], 0.9f);
    }
}

TEST(AdamRows, ListedRowsOnly) {
  const auto coef = coefficients(0.01, 4);
  const int64_t R = 6, cols = 10;
  Draw g;
  std::vector<float> p = g.floats(R * cols), m = g.floats(R * cols), v = g.floats(R * cols, 0, 1);
  const auto p0 = p, m0 = m, v0 = v;
  Reached at(R, 1);
  OwnedList rows({1, 4});
  Ctx ctx(2);
  cpu::adam_catch_up(ctx, at.table(mat(p, R, cols), mat(m, R, cols), mat(v, R, cols)), rows.list(), schedule(coef), 4);
  EXPECT_EQ(at.value, (std::vector<int32_t>{1, 4, 1, 1, 4, 1}));
  EXPECT_EQ(at.moments, std::vector<int32_t>(size_t(R), 1));
  for (int64_t i = 0; i < R * cols; ++i) EXPECT_EQ(p[size_t(i)] != p0[size_t(i)], i / cols == 1 || i / cols == 4) << i;
  EXPECT_EQ(m, m0);
  EXPECT_EQ(v, v0);
}

TEST(AdamRows, RefusesAGradientForAPastStep) {
  const auto coef = coefficients(0.01, 4);
  std::vector<float> p(4), m(4), v(4), g(4, 1);
  Reached at(2, 3);
  Ctx ctx(1);
  const Table table = at.table(mat(p, 2, 2), mat(m, 2, 2), mat(v, 2, 2));
  EXPECT_THROW(cpu::adam_rows(ctx, table, {nullptr, nullptr, 2}, cmat(g, 2, 2), false, schedule(coef), 3),
               std::logic_error);
  EXPECT_THROW(cpu::adam_rows(ctx, table, {nullptr, nullptr, 2}, cmat(g, 2, 2), false, schedule(coef), 5),
               std::logic_error);
  at.value = {2, 2};  // the moments have the step already: its gradient came before
  EXPECT_THROW(cpu::adam_rows(ctx, table, {nullptr, nullptr, 2}, cmat(g, 2, 2), false, schedule(coef), 3),
               std::logic_error);
  EXPECT_EQ(p, std::vector<float>(4));
}

}  // namespace
}  // namespace ccdrec::test::adam_test
