#include "bench/callgrind.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/error.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {
namespace {

bench::Counts read(const std::string& text) {
  const Folder dir;
  std::ofstream(dir / "out") << text;
  return bench::read_callgrind(dir / "out");
}

TEST(Callgrind, AnOperationCostsWhatTheCallsFromOutsideCostCalleesIncluded) {
  const bench::Counts c = read(
      "events: Ir\n"
      "fn=ccdrec::Backbone::update(ccdrec::AdamSchedule const&, long)\n"
      "0 5\n"
      "cfn=ccdrec::cpu::adam_rows(ccdrec::Ctx&, ccdrec::Table const&)\n"
      "calls=2 0\n"
      "0 700\n"
      "cfn=ccdrec::Backbone::user_table()\n"
      "calls=1 0\n"
      "0 40\n\n"
      "fn=ccdrec::Modalities::update()\n"
      "cfn=ccdrec::cpu::adam_rows(ccdrec::Ctx&, ccdrec::Table const&)\n"
      "calls=1 0\n"
      "0 1000\n\n"
      "fn=ccdrec::cpu::adam_rows(ccdrec::Ctx&, ccdrec::Table const&)\n"
      "0 100\n"
      "cfn=GOMP_parallel\n"
      "calls=3 0\n"
      "0 1600\n\n"
      "fn=GOMP_parallel\n"
      "cfn=ccdrec::cpu::adam_rows(ccdrec::Ctx&, ccdrec::Table const&) [clone ._omp_fn.0]\n"
      "calls=3 0\n"
      "0 1590\n\n"
      "fn=ccdrec::cpu::project(ccdrec::Ctx&)\n"
      "cfn=ccdrec::cpu::gemm(ccdrec::Ctx&)\n"
      "calls=3 0\n"
      "0 8\n\n"
      "totals: 1755\n");
  EXPECT_EQ(c.total, 1755);
  EXPECT_EQ(c.operations, (std::map<std::string, int64_t>{{"adam_rows", 1700}}));
}

TEST(Callgrind, AFileWithoutTotalsIsRefused) { EXPECT_THROW(read("fn=main\n0 5\n"), UserError); }

}  // namespace
}  // namespace ccdrec::test
