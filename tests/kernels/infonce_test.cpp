#include "kernels/infonce.h"

#include <algorithm>

#include "kernels/cpu/fast/microkernel.h"
#include "tests/support.h"

namespace ccdrec::test::infonce_test {
namespace {

struct Case {
  const char* name;
  int64_t B, k;
  float tau;
  float scale = 1;  // of the entries
  bool duplicates = false;
};
const Case kCases[] = {{"one row", 1, 2, 0.2f},
                       {"two rows", 2, 2, 0.2f},
                       {"width one", 9, 1, 0.5f},
                       {"a tile and one", 33, 2, 0.1f},
                       {"coarse width", 33, 32, 0.1f},
                       {"full width", 33, 64, 0.2f},
                       {"odd width", 50, 37, 1},
                       {"wide", 20, 300, 2},
                       {"many rows, narrow", 300, 2, 0.2f},
                       {"many rows, coarse", 300, 32, 0.1f},
                       {"many rows", 300, 64, 0.2f},
                       {"duplicates", 64, 16, 0.2f, 1, true},
                       {"several strips", 1100, 8, 0.5f},
                       {"logits of ten thousand", 40, 64, 0.1f, 8},
                       {"tiny rows", 40, 8, 0.2f, 1e-20f}};

struct Inputs {
  std::vector<float> x, y;
  explicit Inputs(const Case& c) {
    Draw g;
    x = g.floats(c.B * c.k, -c.scale, c.scale), y = g.floats(c.B * c.k, -c.scale, c.scale);
    if (!c.duplicates) return;
    for (auto* rows : {&x, &y})
      for (int64_t b = 0; b < c.B; ++b)  // every third row is the first
        if (b % 3 == 0) std::copy_n(rows->begin(), c.k, rows->begin() + b * c.k);
  }
};

// By the definition, in double: loss, and the gradients with the mass of their terms. tau as the float it is.
struct Reference {
  double loss = 0;
  std::vector<Ref> d_x, d_y;
  Reference(const Case& c, const Inputs& in, double weight) : d_x(in.x.size()), d_y(in.y.size()) {
    const auto B = size_t(c.B), k = size_t(c.k);
    const double tau = double(c.tau), scale = weight / (tau * double(c.B));
    for (size_t b = 0; b < B; ++b) {
      std::vector<double> s(B);
      double mass = 0;  // of the row's largest dot product: what its rounding moves every logit by
      for (size_t j = 0; j < B; ++j) {
        double of = 0;
        for (size_t i = 0; i < k; ++i) {
          const double term = double(in.x[b * k + i]) * double(in.y[j * k + i]) / tau;
          s[j] += term, of += std::fabs(term);
        }
        mass = std::max(mass, of);
      }
      const double top = *std::max_element(s.begin(), s.end());
      double sum = 0;
      for (const double v : s) sum += std::exp(v - top);
      loss += weight / double(B) * (top + std::log(sum) - s[b]);
      for (size_t j = 0; j < B; ++j) {
        const double pi = std::exp(s[j] - top) / sum, g = scale * (pi - (j == b ? 1 : 0));
        for (size_t i = 0; i < k; ++i) {
          const double to_x = g * in.y[j * k + i], to_y = g * in.x[b * k + i];
          d_x[b * k + i].add(to_x), d_y[j * k + i].add(to_y);
          // a logit that is off by mass eps moves its share by as much, relative to it
          d_x[b * k + i].mass += scale * pi * (1 + mass) * std::fabs(in.y[j * k + i]);
          d_y[j * k + i].mass += scale * pi * (1 + mass) * std::fabs(in.x[b * k + i]);
        }
      }
    }
  }
};

TEST(InfoNce, LossAndGradientsMatchDoubleReference) {
  const float weight = 0.7f;
  for (const Case& c : kCases) {
    const Inputs in(c);
    const Reference want(c, in, double(weight));
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      Cell<double> loss = 1.5;
      std::vector<float> d_x(in.x.size(), 9), d_y(in.y.size(), 9);  // written, not added to
      dev.ops->infonce(ctx, &loss, mat(d_x, c.B, c.k), mat(d_y, c.B, c.k), cmat(in.x, c.B, c.k), cmat(in.y, c.B, c.k),
                       c.tau, weight);
      EXPECT_NEAR(double(loss) - 1.5, want.loss, 2e-6 * (1 + std::fabs(want.loss)));
      EXPECT_TRUE(close(d_x, want.d_x, 2e-6));
      EXPECT_TRUE(close(d_y, want.d_y, 2e-6));
      EXPECT_TRUE(same(dev, "loss", double(loss)) && same(dev, "d_x", d_x) && same(dev, "d_y", d_y));
    }
  }
}

TEST(InfoNce, EveryPathOfTheProcessorHasTheSameBits) {
  for (const Case& c : kCases) {
    const Inputs in(c);
    SameBits same;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      if (!cpu::find_kernel(isa)) continue;
      cpu::set_micro_kernel(cpu::find_kernel(isa));
      for (const Device& dev : cpu_devices()) {
        DeviceCtx ctx(dev);
        Cell<double> loss;
        std::vector<float> d_x(in.x.size()), d_y(in.y.size());
        cpu::infonce(ctx, &loss, mat(d_x, c.B, c.k), mat(d_y, c.B, c.k), cmat(in.x, c.B, c.k), cmat(in.y, c.B, c.k),
                     c.tau, 1);
        EXPECT_TRUE(same(dev, "loss", double(loss)) && same(dev, "d_x", d_x) && same(dev, "d_y", d_y))
            << c.name << ", " << isa;
      }
      cpu::set_micro_kernel(nullptr);
    }
  }
}

// Of the loss itself, which is added up in double.
TEST(InfoNce, GradientsAreFiniteDifferences) {
  const Case c = {"", 7, 5, 0.4f};
  Inputs in(c);
  const auto loss_of = [&](std::vector<float>& at, size_t i, float shift) {
    const float before = at[i];
    at[i] = before + shift;
    const double moved = double(at[i]) - double(before);
    const double loss = Reference(c, in, 1).loss;
    at[i] = before;
    return std::pair(loss, moved);
  };
  for (const Device& dev : one_of_each_family()) {
    DeviceCtx ctx(dev);
    Cell<double> loss;
    std::vector<float> d_x(in.x.size()), d_y(in.y.size());
    dev.ops->infonce(ctx, &loss, mat(d_x, c.B, c.k), mat(d_y, c.B, c.k), cmat(in.x, c.B, c.k), cmat(in.y, c.B, c.k),
                     c.tau, 1);
    for (const auto& [at, got] : {std::pair(&in.x, &d_x), {&in.y, &d_y}})
      for (size_t i = 0; i < at->size(); ++i) {
        const auto [up, a] = loss_of(*at, i, 1e-4f);
        const auto [down, b] = loss_of(*at, i, -1e-4f);
        EXPECT_NEAR((*got)[i], (up - down) / (a - b), 2e-6) << dev.name << ", element " << i;
      }
  }
}

// What is off the diagonal far above or far below: neither overflows, and a row that is its own only match has no
// gradient left.
TEST(InfoNce, LargeLogits) {
  const int64_t B = 3, k = 2;
  const std::vector<float> x = {100, 0, 0, 100, -100, 0}, y = {10, 0, 0, 10, 10, 0};  // logits of 10,000 at tau 0.1
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    Cell<double> loss;
    std::vector<float> d_x(6), d_y(6);
    dev.ops->infonce(ctx, &loss, mat(d_x, B, k), mat(d_y, B, k), cmat(x, B, k), cmat(y, B, k), 0.1f, 1);
    // row 0 ties with column 2: log 2; row 1 is its own; row 2's own logit is 10,000 below that of column 1
    EXPECT_NEAR(double(loss), (std::log(2.0) + 0 + 10000) / 3, 0.01);
    for (const float v : d_x) EXPECT_TRUE(std::isfinite(v));
    for (const float v : d_y) EXPECT_TRUE(std::isfinite(v));
    const double want[2] = {-10 / 0.3, 10 / 0.3};
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_NEAR(d_x[2 + i], 0, 1e-30);
      EXPECT_NEAR(d_x[4 + i], want[i], 1e-4);
    }
  }
}

// The sum of a row of (Pi - Id) is 0: what shifts all of Y shifts no loss.
TEST(InfoNce, AShiftOfEveryRowOfYHasNoGradient) {
  const Case c = {"", 90, 16, 0.2f};
  const Inputs in(c);
  for (const Device& dev : one_of_each_family()) {
    DeviceCtx ctx(dev);
    Cell<double> loss;
    std::vector<float> d_x(in.x.size()), d_y(in.y.size());
    dev.ops->infonce(ctx, &loss, mat(d_x, c.B, c.k), mat(d_y, c.B, c.k), cmat(in.x, c.B, c.k), cmat(in.y, c.B, c.k),
                     c.tau, 1);
    for (int64_t i = 0; i < c.k; ++i) {
      double sum = 0, mass = 0;
      for (int64_t b = 0; b < c.B; ++b) sum += d_y[size_t(b * c.k + i)], mass += std::fabs(d_y[size_t(b * c.k + i)]);
      EXPECT_NEAR(sum, 0, 1e-6 * mass) << dev.name;
    }
  }
}

TEST(InfoNce, ScratchIsAsPlanned) {
  for (const Case& c : kCases)
    for (const Device& dev : one_of_each_family()) {
      DeviceCtx ctx(dev);
      const Inputs in(c);
      Cell<double> loss;
      std::vector<float> d_x(in.x.size()), d_y(in.y.size());
      dev.ops->infonce(ctx, &loss, mat(d_x, c.B, c.k), mat(d_y, c.B, c.k), cmat(in.x, c.B, c.k), cmat(in.y, c.B, c.k),
                       c.tau, 1);
      ScratchPlan plan;
      plan.threads = dev.threads;
      dev.ops->infonce_scratch(plan, c.B, c.k);
      const ScratchPlan asked = ctx.get().asked();
      for (int k = 0; k < kScratchSlots; ++k)
        EXPECT_GE(plan.slot[k], asked.slot[k]) << c.name << ", slot " << k << " on " << dev.name;
    }
}

TEST(InfoNce, WrongShapesAreRefused) {
  std::vector<float> x(6), y(8), d(6);
  for (const Device& dev : one_of_each_family()) {
    DeviceCtx ctx(dev);
    Cell<double> loss;
    EXPECT_THROW(dev.ops->infonce(ctx, &loss, mat(d, 3, 2), mat(d, 3, 2), cmat(x, 3, 2), cmat(y, 4, 2), 0.1f, 1),
                 std::logic_error);
    EXPECT_THROW(dev.ops->infonce(ctx, &loss, mat(d, 3, 2), mat(d, 3, 2), cmat(x, 3, 2), cmat(x, 3, 2), 0, 1),
                 std::logic_error);
  }
}

}  // namespace
}  // namespace ccdrec::test::infonce_test
