#include "docs/adding/row_norms.h"

#include <cmath>

#include "tests/support.h"
#if defined(CCDREC_TEST_SIMT)
#include "docs/adding/row_norms.cu"  // an operation of the catalogue is compiled with the others
#endif

namespace ccdrec::test {
namespace {

// An operation of the catalogue is called as dev.ops->row_norms, and the emulator lets it read vectors of the test.
void row_norms_of(const Device& dev, Ctx& ctx, float* out, CMat x, RowList rows) {
#if defined(CCDREC_TEST_SIMT)
  if (dev.family != "cpu") {
    simt::host_heap_allowed() = true;
    cuda::row_norms(ctx, out, x, rows);
    simt::host_heap_allowed() = false;
    return;
  }
#endif
  cpu::row_norms(ctx, out, x, rows);
}

TEST(RowNorms, AreThoseOfTheListedRows) {
  for (const auto& [R, d, n] :
       std::vector<std::array<int64_t, 3>>{{5, 1, 0}, {1, 1, 1}, {40, 37, 13}, {300, 64, 300}, {7, 130, 5}}) {
    Draw g;
    const auto x = g.floats(R * d);
    std::vector<int32_t> listed(static_cast<size_t>(R));
    for (int64_t j = 0; j < n; ++j) listed[size_t(j)] = int32_t(j * R / n);
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(n) + " of " + std::to_string(R) + "x" + std::to_string(d) + " on " + dev.name);
      DeviceCtx ctx(dev);
      Cell<int64_t> count = n;
      std::vector<float> out(size_t(R), -1.0f);
      row_norms_of(dev, ctx, out.data(), cmat(x, R, d), RowList{listed.data(), &count, R});
      for (int64_t j = 0; j < R; ++j) {
        double squares = 0;
        for (int64_t c = 0; c < d; ++c) squares += std::pow(double(x[size_t(listed[size_t(j)] * d + c)]), 2);
        if (j < n)
          ASSERT_NEAR(out[size_t(j)], std::sqrt(squares), 1e-7 * std::sqrt(squares));
        else
          ASSERT_EQ(out[size_t(j)], -1.0f) << "no row of the list";
      }
      EXPECT_TRUE(same(dev, "norms", out));
    }
  }
}

}  // namespace
}  // namespace ccdrec::test
