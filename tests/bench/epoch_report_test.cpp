#include "bench/epoch_report.h"

#include <gtest/gtest.h>

namespace ccdrec::test {
namespace {
using namespace bench;

Timing seconds(double s) { return {s, s, s, 0, 0, 0}; }

// CCDRec on a GPU: an epoch of 100 ms of which 12 are no training steps.
Report on_gpu(double epoch) {
  Report r;
  r.gpu = "a chip", r.precision = "fp32", r.with_targets = true;
  CaseResult c;
  c.name = "CCDRec", c.setting = "B 512, T 20", c.steps = 232, c.epochs = 5;
  c.phases = {
      {"prune", seconds(2e-3)}, {"forward", seconds(1)}, {"reverse", seconds(10e-3)}, {"epoch", seconds(epoch)}};
  r.cases = {c};
  return r;
}

TEST(EpochReport, TargetsAreOfBabyInWholeEpochs) {
  EXPECT_TRUE(targets_apply("baby", 0, "cpu", "fp32"));
  EXPECT_TRUE(targets_apply("baby", 0, "cuda", "fp32"));
  EXPECT_FALSE(targets_apply("baby", 0, "cuda", "tf32"));
  EXPECT_FALSE(targets_apply("baby", 200, "cuda", "fp32"));
  EXPECT_FALSE(targets_apply("elec", 0, "cuda", "fp32"));
  EXPECT_FALSE(targets_apply("elec", 0, "cpu", "fp32"));
}

TEST(EpochReport, AGpusTargetIsOfTheTrainingSteps) {
  const std::string met = report_markdown(on_gpu(90e-3)), stretch = report_markdown(on_gpu(71e-3)),
                    missed = report_markdown(on_gpu(93e-3));
  EXPECT_NE(met.find("| 80 ms | 60 ms | 78 ms | met |"), std::string::npos) << met;
  EXPECT_NE(stretch.find("| 80 ms | 60 ms | 59 ms | stretch met |"), std::string::npos) << stretch;
  EXPECT_NE(missed.find("| 80 ms | 60 ms | 81 ms | **missed** |"), std::string::npos) << missed;
  EXPECT_NE(met.find("set for an H200"), std::string::npos);
  EXPECT_EQ(report_json(on_gpu(90e-3))["targets"].size(), 1u);
}

TEST(EpochReport, WithoutTargetsNothingIsJudged) {
  Report r = on_gpu(90e-3);
  r.with_targets = false;
  EXPECT_EQ(report_markdown(r).find("Targets"), std::string::npos);
  EXPECT_TRUE(targets(r).empty());
  r.with_targets = true, r.cases[0].name = "CCDRec own pool";
  EXPECT_NE(report_markdown(r).find("| not measured |  |"), std::string::npos);
}

TEST(EpochReport, TheCpuHasTargetsOfItsOwn) {
  Report r = on_gpu(9);
  r.gpu.clear();
  const std::string s = report_markdown(r);
  EXPECT_NE(s.find("| CCDRec epoch, B 512, T 20 | 10 s | 7 s | 9 s | met |"), std::string::npos) << s;
  EXPECT_EQ(s.find("training steps of an epoch"), std::string::npos);
}

TEST(EpochReport, TheWorkOfAPhaseIsShownInTurnAndItsLargestPartBeside) {
  Report r;
  r.ceilings = {10, 100, 1, 50, 50};  // GB/s, GFLOP/s, G roots a second
  CaseResult c;
  c.name = "CCDRec", c.phases = {{"epoch", {5.6, 5, 6, 30e9, 20e9, 0.5e9}}};  // 0.3 s, 2 s, 0.5 s
  r.cases = {c};
  const std::string s = report_markdown(r);
  EXPECT_NE(s.find("| epoch | 5.600 | 5.000 | 6.000 | 2.800 | 2.0 | 2.000 | 30.0 | 20.00 | 0.50 |"), std::string::npos)
      << s;
  EXPECT_EQ(s.find("floor"), std::string::npos);
  const nlohmann::json phase = report_json(r)["cases"][0]["phases"][0];
  EXPECT_DOUBLE_EQ(phase["in_turn_s"], 2.8);
  EXPECT_DOUBLE_EQ(phase["largest_s"], 2);
}

}  // namespace
}  // namespace ccdrec::test
