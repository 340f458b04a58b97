#include "kernels/gemm.h"

#include "kernels/cpu/fast/microkernel.h"
#include "tests/support.h"

namespace ccdrec::test::gemm_test {
namespace {

struct Case {
  const char* name;
  int64_t m, k, n;
};
const Case kCases[] = {{"no rows", 0, 5, 7},
                       {"no columns", 5, 7, 0},
                       {"k = 0", 5, 0, 7},
                       {"one element", 1, 1, 1},
                       {"a row", 1, 300, 37},
                       {"a column", 37, 300, 1},
                       {"one micro-tile", 6, 64, 16},
                       {"one past every edge", 97, 257, 257},
                       {"odd", 53, 37, 41},
                       {"three blocks of k", 20, 700, 33},
                       {"blocks of k, odd all round", 37, 300, 5},
                       {"a block and one term", 5, 257, 300},
                       {"exactly two blocks", 64, 512, 37},
                       {"long and thin", 300, 1, 1},
                       {"outer product", 64, 1, 300},
                       {"two tiles of columns", 13, 37, 300},
                       {"estimator", 500, 64, 64},
                       {"estimator gradient", 64, 900, 64},
                       {"strips of several chunks", 1633, 260, 35},
                       {"strips with one thread, blocks with more", 150, 1300, 17}};

// With a_rk stored (m,k) or (k,m), b_kn stored (k,n) or (n,k).
std::vector<Ref> product(const Case& c, const std::vector<float>& a, bool ta, const std::vector<float>& b, bool tb,
                         const std::vector<float>* c0) {
  std::vector<Ref> y(size_t(c.m * c.n));
  for (int64_t r = 0; r < c.m; ++r)
    for (int64_t j = 0; j < c.n; ++j) {
      Ref& y_rj = y[size_t(r * c.n + j)];
      if (c0) y_rj.add((*c0)[size_t(r * c.n + j)]);
      for (int64_t t = 0; t < c.k; ++t)
        y_rj.add(double(a[size_t(ta ? t * c.m + r : r * c.k + t)]) * b[size_t(tb ? j * c.k + t : t * c.n + j)]);
    }
  return y;
}

TEST(Gemm, MatchesDoubleReferenceWithEqualBitsOnEveryPathAndThreadCount) {
  for (const Case& c : kCases)
    for (int flags = 0; flags < 8; ++flags) {
      const bool ta = flags & 1, tb = flags & 2, accumulate = flags & 4;
      Draw g;
      const auto a = g.floats(c.m * c.k), b = g.floats(c.k * c.n), c0 = g.floats(c.m * c.n);
      const auto want = product(c, a, ta, b, tb, accumulate ? &c0 : nullptr);
      SameBits same;
      for (const char* isa : {"portable", "avx2", "avx512"}) {
        const cpu::MicroKernel* kernel = cpu::find_kernel(isa);
        if (!kernel) continue;
        cpu::set_micro_kernel(kernel);
        EXPECT_STREQ(cpu::gemm_isa(), isa);
        // On a GPU this is the library's product: the emulator's thread orders have no part in it.
        for (const Device& dev : isa == std::string("portable") ? fast_devices() : cpu_devices()) {
          SCOPED_TRACE(std::string(c.name) + " on " + dev.name + " with " + isa + (ta ? ", A^T" : "") +
                       (tb ? ", B^T" : "") + (accumulate ? ", +=" : ""));
          DeviceCtx ctx(dev);
          const size_t canary = 40;
          std::vector<float> y = accumulate ? c0 : std::vector<float>(c0.size(), NAN);
          y.resize(y.size() + canary, 123.0f);
          dev.ops->gemm(ctx, {y.data(), c.m, c.n}, {a.data(), ta ? c.k : c.m, ta ? c.m : c.k}, ta,
                        {b.data(), tb ? c.n : c.k, tb ? c.k : c.n}, tb, accumulate);
          EXPECT_EQ(std::vector<float>(y.end() - canary, y.end()), std::vector<float>(canary, 123.0f))
              << "wrote past the end";
          EXPECT_TRUE(close(y, want, 1e-6));
          EXPECT_TRUE(same(dev, "y", y));
        }
      }
      cpu::set_micro_kernel(nullptr);
    }
}

// The order of summation is part of the CPU's contract: chains of 256 terms, block sums added in order.
TEST(Gemm, SumsAsTheContractSays) {
  const Case cases[] = {{"one block more than two", 7, 600, 19},
                        {"strips with one thread, blocks with more", 150, 1300, 19}};
  for (const auto& [name, m, k, n] : cases)
    for (bool trans : {false, true}) {
      Draw g;
      const auto a = g.floats(m * k), b = g.floats(k * n), c0 = g.floats(m * n);
      std::vector<float> want = c0;
      for (int64_t r = 0; r < m; ++r)
        for (int64_t j = 0; j < n; ++j)
          for (int64_t k0 = 0; k0 < k; k0 += 256) {
            float sum = 0;
            for (int64_t t = k0; t < std::min(k, k0 + 256); ++t)
              sum = std::fma(a[size_t(trans ? t * m + r : r * k + t)], b[size_t(t * n + j)], sum);
            want[size_t(r * n + j)] += sum;
          }
      for (int threads : {1, 2}) {
        SCOPED_TRACE(std::string(name) + (trans ? ", A^T, " : ", ") + std::to_string(threads) + " threads");
        std::vector<float> y = c0;
        Ctx ctx(threads);
        cpu::gemm(ctx, mat(y, m, n), cmat(a, trans ? k : m, trans ? m : k), trans, cmat(b, k, n), false, true);
        EXPECT_EQ(y, want);
      }
    }
}

TEST(Gemm, RowsBesideANanStayClean) {  // edges are computed with borrowed rows; nothing of them may show
  const int64_t m = 13, k = 9, n = 21;
  Draw g;
  auto a = g.floats(m * k), b = g.floats(k * n);
  for (int64_t t = 0; t < k; ++t) a[size_t(12 * k + t)] = NAN;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> y(size_t(m * n));
    dev.ops->gemm(ctx, mat(y, m, n), cmat(a, m, k), false, cmat(b, k, n), false, false);
    for (int64_t i = 0; i < m * n; ++i) EXPECT_EQ(std::isnan(y[size_t(i)]), i >= 12 * n) << i;
  }
}

TEST(Gemm, RefusesShapesThatDoNotFit) {
  std::vector<float> v(100);
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    EXPECT_THROW(dev.ops->gemm(ctx, mat(v, 2, 3), cmat(v, 2, 4), false, cmat(v, 5, 3), false, false), std::logic_error);
    EXPECT_THROW(dev.ops->gemm(ctx, mat(v, 3, 2), cmat(v, 2, 4), false, cmat(v, 4, 3), false, false), std::logic_error);
  }
}

// The paths that a processor lacks are left out above; here that shows in the report.
class GemmPath : public ::testing::TestWithParam<const char*> {};
TEST_P(GemmPath, GivesTheBitsOfThePortableOne) {
  if (!cpu::find_kernel(GetParam()))
    GTEST_SKIP() << "this processor has no " << GetParam() << ": no test in this run covers that path";
  const int64_t m = 41, k = 613, n = 77;
  Draw g;
  const auto a = g.floats(m * k), b = g.floats(k * n);
  std::vector<float> y[2];
  const char* isa[2] = {"portable", GetParam()};
  for (int i = 0; i < 2; ++i) {
    cpu::set_micro_kernel(cpu::find_kernel(isa[i]));
    EXPECT_STREQ(cpu::gemm_isa(), isa[i]);
    y[i].assign(size_t(m * n), NAN);
    Ctx ctx(2);
    cpu::gemm(ctx, mat(y[i], m, n), cmat(a, m, k), false, cmat(b, k, n), false, false);
  }
  cpu::set_micro_kernel(nullptr);
  EXPECT_EQ(y[0], y[1]);
}
INSTANTIATE_TEST_SUITE_P(Isa, GemmPath, ::testing::Values("avx2", "avx512"),
                         [](const auto& path) { return std::string(path.param); });

TEST(Gemm, UnknownPathIsNotFound) { EXPECT_EQ(cpu::find_kernel("sse9"), nullptr); }

}  // namespace
}  // namespace ccdrec::test::gemm_test
