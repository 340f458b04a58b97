#include "bench/ceilings.h"

#include <gtest/gtest.h>
#include <omp.h>

namespace ccdrec::test {
namespace {

TEST(Ceilings, ALineNeedsSomeTimeFromCoreToCore) {
  if (omp_get_num_procs() < 2) GTEST_SKIP() << "one processor";
  for (const int threads : {2, 5}) {  // five: those that do not play wait, though there may be no processors for them
    const double ns = bench::core_to_core_ns(threads);
    EXPECT_GT(ns, 1) << threads;    // less than some cycles is no way
    EXPECT_LT(ns, 1e6) << threads;  // also not where others use the machine; NaN fails both
  }
}

TEST(Ceilings, OneThreadHasNoOtherCore) { EXPECT_EQ(bench::core_to_core_ns(1), 0); }

}  // namespace
}  // namespace ccdrec::test
