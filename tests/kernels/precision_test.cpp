// The switch tf32 | bf16 of a GPU's large products: what it does to them, and that fp32 is untouched by it. On the
// emulator the stand-in for cuBLAS rounds the factors; on a GPU the library does.
#include "kernels/precision.h"

#include <algorithm>

#include "tests/support.h"

namespace ccdrec::test::precision_test {
namespace {

constexpr int64_t m = 33, n = 64;

struct Operands {
  int64_t k;
  std::vector<float> a, b;
  explicit Operands(int64_t terms) : k(terms) {
    Draw g;
    a = g.floats(m * k), b = g.floats(k * n);
  }
  std::vector<Ref> exact() const {
    std::vector<Ref> y(size_t(m * n));
    for (int64_t r = 0; r < m; ++r)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t t = 0; t < k; ++t) y[size_t(r * n + j)].add(double(a[size_t(r * k + t)]) * b[size_t(t * n + j)]);
    return y;
  }
};

std::vector<float> on_gpu(const Operands& o, const char* precision) {
  Ctx ctx(1);
  open_gpu(ctx, precision);
  const Ops& ops = *gpu_ops();
  const auto bytes = [](int64_t k) { return size_t(k) * sizeof(float); };
  const DeviceBlock a(ctx, ops, bytes(m * o.k)), b(ctx, ops, bytes(o.k * n)), c(ctx, ops, bytes(m * n));
  ops.upload(ctx, a.p, o.a.data(), a.bytes), ops.upload(ctx, b.p, o.b.data(), b.bytes);
  const auto at = [](const DeviceBlock& x) { return static_cast<float*>(x.p); };
  ops.gemm(ctx, {at(c), m, n}, {at(a), m, o.k}, false, {at(b), o.k, n}, false, false);
  std::vector<float> got(size_t(m * n));
  ops.download(ctx, got.data(), c.p, c.bytes);
  return got;
}

double largest_error(const std::vector<float>& got, const std::vector<Ref>& want) {
  double worst = 0;
  for (size_t e = 0; e < want.size(); ++e)
    worst = std::max(worst, std::fabs(double(got[e]) - want[e].value) / want[e].mass);
  return worst;
}

TEST(Precision, ProductsAreOffByNoMoreThanTheirMantissasSay) {
  if (!gpu_info().usable) GTEST_SKIP() << gpu_info().why;
  for (const int64_t k : {1, 64, 1000}) {
    SCOPED_TRACE(k);
    const Operands o(k);
    const auto want = o.exact();
    const auto fp32 = on_gpu(o, "fp32"), tf32 = on_gpu(o, "tf32"), bf16 = on_gpu(o, "bf16");
    EXPECT_TRUE(close(fp32, want, product_error("fp32", k)));
    EXPECT_TRUE(close(tf32, want, product_error("tf32", k)));
    EXPECT_TRUE(close(bf16, want, product_error("bf16", k)));
    // a library is free to compute more exactly than it was asked to; bench_parity says whether it did
    if (!gpu_info().emulated) continue;
    EXPECT_GT(largest_error(tf32, want), 16 * largest_error(fp32, want));
    EXPECT_GT(largest_error(bf16, want), 3 * largest_error(tf32, want));
  }
}

// Factors that have no more bits than TF32 keeps: the product is that of FP32, bit for bit; one more bit is lost, to
// the even neighbour.
TEST(Precision, OnlyWhatStandsBehindTheMantissaIsLost) {
  if (!gpu_info().emulated) GTEST_SKIP() << "how a GPU rounds is its own affair";
  Operands o(64);
  for (std::vector<float>* v : {&o.a, &o.b})
    for (float& x : *v) x = std::ldexp(std::nearbyint(std::ldexp(x, 10)), -10);
  EXPECT_EQ(on_gpu(o, "tf32"), on_gpu(o, "fp32"));
  EXPECT_NE(on_gpu(o, "bf16"), on_gpu(o, "fp32"));
  Operands one(1);
  for (float& x : one.b) x = 1;
  const auto kept = [&](const char* precision, float x) {
    for (float& y : one.a) y = x;
    return on_gpu(one, precision)[0];
  };
  EXPECT_EQ(kept("tf32", 1 + 0x1p-10f), 1 + 0x1p-10f);
  EXPECT_EQ(kept("tf32", 1 + 0x1p-11f), 1);
  EXPECT_EQ(kept("tf32", 1 + 0x3p-11f), 1 + 0x1p-9f);
  EXPECT_EQ(kept("bf16", 1 + 0x1p-7f), 1 + 0x1p-7f);
  EXPECT_EQ(kept("bf16", 1 + 0x1p-8f), 1);
  EXPECT_EQ(kept("bf16", -3.0f - 0x1p-8f), -3);
  EXPECT_EQ(kept("fp32", 1 + 0x1p-23f), 1 + 0x1p-23f);
}

// FP32 on the emulator is what it was before there was a switch: one fma a term, ascending.
TEST(Precision, Fp32IsOneFmaATerm) {
  if (!gpu_info().emulated) GTEST_SKIP() << "a library has its own order";
  Operands o(300);
  for (std::vector<float>* v : {&o.a, &o.b})
    for (float& x : *v) x /= 3;  // all bits of the mantissa in use
  std::vector<float> want(size_t(m * n), 0.0f);
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t t = 0; t < o.k; ++t)
        want[size_t(r * n + j)] = std::fma(o.a[size_t(r * o.k + t)], o.b[size_t(t * n + j)], want[size_t(r * n + j)]);
  EXPECT_EQ(on_gpu(o, "fp32"), want);
}

}  // namespace
}  // namespace ccdrec::test::precision_test
