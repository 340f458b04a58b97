#include "kernels/views.h"

#include <algorithm>

#include "tests/support.h"

namespace ccdrec::test::views_test {
namespace {

struct Case {
  const char* name;
  int64_t B, d;
  float weight, scale;
};
const Case kCases[] = {
    {"no rows", 0, 64, 1, 1},    {"one number", 1, 1, 2, 1},      {"width below eight", 9, 5, 0.7f, 1},
    {"odd width", 33, 37, 1, 1}, {"a block", 32, 16, 1, 1},       {"more than a chunk", 600, 64, 2, 0.3f},
    {"wide", 7, 1029, 1, 1},     {"tiny rows", 20, 12, 1, 1e-6f}, {"huge rows", 20, 12, 1, 1e17f}};

enum class Kept { every, some, none };

std::vector<uint16_t> mask_of(const Case& c, Kept kept, Draw& g) {
  std::vector<uint16_t> bits(size_t(c.B * mask_words(c.d)));
  for (uint16_t& w : bits)
    w = kept == Kept::none ? uint16_t(0) : kept == Kept::every ? uint16_t(0xffff) : uint16_t(g.bits());
  return bits;
}

// Row b of X as the mask leaves it.
std::vector<double> masked_row(const std::vector<float>& x, const std::vector<uint16_t>& bits, const Case& c,
                               int64_t b) {
  std::vector<double> row;
  for (int64_t j = 0; j < c.d; ++j)
    row.push_back(bits.empty() || kept_by(bits.data() + b * mask_words(c.d), j) ? double(x[size_t(b * c.d + j)]) : 0.0);
  return row;
}

struct Products {
  double oo = 0, xx = 0, ox = 0, size = 0;
};
Products products_of(const std::vector<double>& o, const std::vector<double>& x) {
  Products p;
  for (size_t j = 0; j < o.size(); ++j)
    p.oo += o[j] * o[j], p.xx += x[j] * x[j], p.ox += o[j] * x[j], p.size += std::fabs(o[j] * x[j]);
  return p;
}
double floored(double squares) { return std::max(std::sqrt(squares), 1e-8); }
double cosine(const std::vector<double>& o, const std::vector<double>& x) {
  const Products p = products_of(o, x);
  return p.ox / (floored(p.oo) * floored(p.xx));
}

struct Inputs {
  std::vector<float> o, x, before;
  std::vector<uint16_t> bits;  // empty: no mask
};

struct Wanted {
  double loss = 0;
  std::vector<Ref> d_o;
};
Wanted reference(const Case& c, const Inputs& in, bool accumulate) {
  Wanted w;
  w.d_o.resize(in.o.size());
  const double share = double(c.weight) / double(c.B);
  for (int64_t b = 0; b < c.B; ++b) {
    const std::vector<double> o(in.o.begin() + b * c.d, in.o.begin() + (b + 1) * c.d),
        x = masked_row(in.x, in.bits, c, b);
    const Products p = products_of(o, x);
    const double n_o = floored(p.oo), n_x = floored(p.xx), cos = p.ox / (n_o * n_x);
    w.loss += share * (1 - cos);
    for (int64_t j = 0; j < c.d; ++j) {
      Ref& r = w.d_o[size_t(b * c.d + j)];
      if (accumulate) r.add(in.before[size_t(b * c.d + j)]);
      r.add(-share * x[size_t(j)] / (n_o * n_x));
      if (std::sqrt(p.oo) >= 1e-8) r.add(share * cos * o[size_t(j)] / (n_o * n_o));
    }
  }
  return w;
}

// The loss of a row as its column `at` is moved, by central differences.
void expect_slopes(const Case& c, const Inputs& in, const std::vector<float>& d_o) {
  const double share = double(c.weight) / double(c.B);
  for (int64_t b = 0; b < c.B; b += 1 + c.B / 8) {
    const std::vector<double> o(in.o.begin() + b * c.d, in.o.begin() + (b + 1) * c.d),
        x = masked_row(in.x, in.bits, c, b);
    const double norm = floored(products_of(o, o).oo), h = 1e-4 * norm;
    for (int64_t j = 0; j < c.d; j += 1 + c.d / 16) {
      std::vector<double> up = o, down = o;
      up[size_t(j)] += h, down[size_t(j)] -= h;
      const double slope = -share * (cosine(up, x) - cosine(down, x)) / (2 * h);
      EXPECT_NEAR(double(d_o[size_t(b * c.d + j)]), slope, 3e-7 * share / norm)
          << c.name << ", row " << b << ", column " << j;
    }
  }
}

TEST(CosineLoss, LossAndGradientMatchDoubleReferenceAndFiniteDifferences) {
  for (const Case& c : kCases)
    for (const int masks : {-1, 0, 1, 2}) {
      Draw g;
      Inputs in{
          g.floats(c.B * c.d, -c.scale, c.scale), g.floats(c.B * c.d, -c.scale, c.scale), g.floats(c.B * c.d), {}};
      if (masks >= 0) in.bits = mask_of(c, Kept(masks), g);
      const uint16_t* const bits = in.bits.empty() ? nullptr : in.bits.data();
      const Wanted want = reference(c, in, false), added = reference(c, in, true);
      std::vector<float> first, first_sum;
      SameBits same;
      for (const Device& dev : devices()) {
        SCOPED_TRACE(std::string(c.name) + ", masks " + std::to_string(masks) + " on " + dev.name);
        DeviceCtx ctx(dev);
        std::vector<float> d_o(in.o.size(), NAN), sum = in.before;
        Cell<double> loss = 2.5, again = 0;
        dev.ops->cosine_loss(ctx, &loss, mat(d_o, c.B, c.d), cmat(in.o, c.B, c.d), cmat(in.x, c.B, c.d), bits, c.weight,
                             false);
        dev.ops->cosine_loss(ctx, &again, mat(sum, c.B, c.d), cmat(in.o, c.B, c.d), cmat(in.x, c.B, c.d), bits,
                             c.weight, true);
        EXPECT_NEAR(loss, 2.5 + want.loss, 1e-12 * (1 + want.loss));
        EXPECT_NEAR(again, want.loss, 1e-12 * (1 + want.loss));
        EXPECT_TRUE(close(d_o, want.d_o, 1e-7));
        EXPECT_TRUE(close(sum, added.d_o, 2e-7));
        if (first.empty()) first = d_o, first_sum = sum;
        EXPECT_EQ(d_o, first);  // on every device
        EXPECT_EQ(sum, first_sum);
        EXPECT_TRUE(same(dev, "loss", double(loss)));
      }
      expect_slopes(c, in, first);
    }
}

TEST(CosineLoss, AMaskOfOnesIsNoMask) {
  const Case c{"", 37, 21, 1, 1};
  Draw g;
  const auto o = g.floats(c.B * c.d), x = g.floats(c.B * c.d);
  const std::vector<uint16_t> ones = mask_of(c, Kept::every, g);
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> with(o.size(), NAN), without(o.size(), NAN);
    Cell<double> a = 0, b = 0;
    dev.ops->cosine_loss(ctx, &a, mat(with, c.B, c.d), cmat(o, c.B, c.d), cmat(x, c.B, c.d), ones.data(), 1, false);
    dev.ops->cosine_loss(ctx, &b, mat(without, c.B, c.d), cmat(o, c.B, c.d), cmat(x, c.B, c.d), nullptr, 1, false);
    EXPECT_EQ(with, without) << dev.name;
    EXPECT_EQ(double(a), double(b)) << dev.name;
  }
}

// Rows of zeros, and shorter than the floor: divided by it, and the norm of o is a constant.
TEST(CosineLoss, RowsAtTheFloor) {
  const std::vector<float> o = {0, 0, 0, 3e-9f, 0, -4e-9f, 1, 2, 2, 0, 0, 0}, x = {3, 0, 4, 3, 0, 4, 0, 0, 0, 0, 0, 0};
  // 1 - c: 1; 1 - (3 * 3 - 4 * 4) / 5 * 0.1; 1; 1
  const double c1 = (9e-9 - 16e-9) / (5 * 1e-8);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> d_o(12, NAN);
    Cell<double> loss = 0;
    dev.ops->cosine_loss(ctx, &loss, mat(d_o, 4, 3), cmat(o, 4, 3), cmat(x, 4, 3), nullptr, 1, false);
    EXPECT_NEAR(loss, (4 - c1) / 4, 1e-7);
    const double far = -0.25 / 1e-8;
    const double want[] = {far * 0.6, 0, far * 0.8, far * 0.6, 0, far * 0.8, 0, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(d_o[i], want[i], 1e-6 * std::fabs(want[i])) << i;
  }
}

TEST(CosineLoss, ANanStays) {
  for (const Device& dev : devices())
    for (const bool in_o : {false, true}) {
      DeviceCtx ctx(dev);
      std::vector<float> o = {1, 2}, x = {2, 1}, d_o(2, 0);
      (in_o ? o : x)[0] = NAN;
      Cell<double> loss = 0;
      dev.ops->cosine_loss(ctx, &loss, mat(d_o, 1, 2), cmat(o, 1, 2), cmat(x, 1, 2), nullptr, 1, false);
      EXPECT_TRUE(std::isnan(loss) && std::isnan(d_o[0])) << dev.name;
    }
}

TEST(FrobeniusReg, LossAndGradientMatchDoubleReferenceAndFiniteDifferences) {
  for (const Case& c : kCases) {
    Draw g;
    const auto x = g.floats(c.B * c.d, -c.scale, c.scale), before = g.floats(c.B * c.d);
    double squares = 0;
    for (const float v : x) squares += double(v) * v;
    const double norm = std::sqrt(squares), loss_wanted = double(c.weight) * norm;
    std::vector<Ref> want(x.size()), added(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      want[i].add(double(c.weight) * x[i] / norm);
      added[i].add(before[i]), added[i].add(double(c.weight) * x[i] / norm);
    }
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> grad(x.size(), NAN), sum = before;
      Cell<double> loss = -1, again = 0;
      dev.ops->frobenius_reg(ctx, &loss, mat(grad, c.B, c.d), cmat(x, c.B, c.d), c.weight, false);
      dev.ops->frobenius_reg(ctx, &again, mat(sum, c.B, c.d), cmat(x, c.B, c.d), c.weight, true);
      EXPECT_NEAR(loss, -1 + loss_wanted, 1e-12 * (1 + loss_wanted));
      EXPECT_NEAR(again, loss_wanted, 1e-12 * loss_wanted);
      EXPECT_TRUE(close(grad, want, 2e-7));
      EXPECT_TRUE(close(sum, added, 2e-7));
      for (size_t i = 0; i < x.size(); i += 1 + x.size() / 40) {
        const double h = 1e-3 * norm, rest = squares - double(x[i]) * x[i];
        const auto at = [&](double v) { return double(c.weight) * std::sqrt(rest + v * v); };
        EXPECT_NEAR(grad[i], (at(x[i] + h) - at(x[i] - h)) / (2 * h), 2e-6 * c.weight) << i;
      }
      EXPECT_TRUE(same(dev, "loss", double(loss)));
      EXPECT_TRUE(same(dev, "gradient", grad));
      EXPECT_TRUE(same(dev, "sum", sum));
    }
  }
}

TEST(FrobeniusReg, ATableOfZerosHasNoGradient) {
  const std::vector<float> zeros(15, 0.0f);
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> grad(15, NAN), sum(15, 3.0f);
    Cell<double> loss = 1;
    dev.ops->frobenius_reg(ctx, &loss, mat(grad, 5, 3), cmat(zeros, 5, 3), 2, false);
    dev.ops->frobenius_reg(ctx, &loss, mat(sum, 5, 3), cmat(zeros, 5, 3), 2, true);
    EXPECT_EQ(double(loss), 1) << dev.name;
    EXPECT_EQ(grad, std::vector<float>(15, 0.0f)) << dev.name;
    EXPECT_EQ(sum, std::vector<float>(15, 3.0f)) << dev.name;
  }
}

// Without a weight the gradient is written all the same, as zeros.
TEST(FrobeniusReg, WithoutAWeightZerosAreWritten) {
  Draw g;
  const auto x = g.floats(40);
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> grad(40, NAN);
    Cell<double> loss = 1;
    dev.ops->frobenius_reg(ctx, &loss, mat(grad, 5, 8), cmat(x, 5, 8), 0, false);
    EXPECT_EQ(double(loss), 1) << dev.name;
    for (const float v : grad) EXPECT_EQ(v, 0) << dev.name;
  }
}

TEST(FrobeniusReg, RowsOffTheirAlignment) {
  Draw g;
  const int64_t R = 33, d = 64;
  const auto x = g.floats(R * d + 1);
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> grad(x.size(), 7.0f), on(size_t(R * d));
    const std::vector<float> aligned(x.begin() + 1, x.end());
    Cell<double> loss = 0, again = 0;
    dev.ops->frobenius_reg(ctx, &loss, {grad.data() + 1, R, d}, {x.data() + 1, R, d}, 1, false);
    dev.ops->frobenius_reg(ctx, &again, mat(on, R, d), cmat(aligned, R, d), 1, false);
    EXPECT_EQ(grad[0], 7) << dev.name;
    EXPECT_EQ(std::vector<float>(grad.begin() + 1, grad.end()), on) << dev.name;
    EXPECT_EQ(double(loss), double(again)) << dev.name;
  }
}

}  // namespace
}  // namespace ccdrec::test::views_test
