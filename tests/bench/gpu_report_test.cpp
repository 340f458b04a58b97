#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "bench/gpu/noted.h"
#include "bench/gpu/report.h"

namespace ccdrec::test {
namespace {
using namespace bench;

Line line(double warm, double bytes, double flop) {
  Line l;
  l.op = "reverse_process", l.shape = "Baby", l.warm = l.least = l.cold = warm, l.bytes = bytes, l.flop = flop;
  return l;
}
const GpuCeilings kChip{1000, 10, 5};  // 1e12 bytes/s, 1e13 flop/s

TEST(GpuReport, TheFloorCountsTheNormals) {
  Line l = line(1, 1e9, 2e10);
  EXPECT_DOUBLE_EQ(floor_seconds(l, kChip), 2e-3);
  l.more = kOperationsOfNormal * 1e9;
  EXPECT_DOUBLE_EQ(floor_seconds(l, kChip), 8e-3);
  l.bytes = 1e10;
  EXPECT_DOUBLE_EQ(floor_seconds(l, kChip), 1e-2);
}

TEST(GpuReport, AShareIsBoundFromBelowTimeFromAbove) {
  const auto judged = [](Goal::Kind kind, double got, double target, double stretch = 0) {
    return std::string(verdict({kind, "", got, target, stretch}));
  };
  EXPECT_EQ(judged(Goal::share, 0.24, 0.25, 0.5), "**missed**");
  EXPECT_EQ(judged(Goal::share, 0.25, 0.25, 0.5), "met");
  EXPECT_EQ(judged(Goal::share, 0.5, 0.25, 0.5), "stretch met");
  EXPECT_EQ(judged(Goal::seconds, 0.6e-3, 0.5e-3), "**missed**");
  EXPECT_EQ(judged(Goal::seconds, 0.5e-3, 0.5e-3), "met");
  EXPECT_EQ(judged(Goal::times, 2.1, 2), "**missed**");
  EXPECT_EQ(judged(Goal::times, 1.2, 2, 1.5), "stretch met");
  EXPECT_EQ(judged(Goal::share, 0.9, 0), "");
  for (const Goal::Kind kind : {Goal::share, Goal::seconds, Goal::times})
    EXPECT_EQ(judged(kind, NAN, 1, 1), "**missed**");
}

TEST(GpuReport, EveryGoalHasItsRow) {
  GpuReport r;
  r.gpu = "a chip", r.ceilings = kChip;
  r.lines = {line(0.4e-3, 1e6, 2e9), line(1e-3, 1e6, 2e9)};
  r.lines[0].within_seconds(0.5e-3).within_floors(kChip);
  r.lines[1].more = 2e9;
  r.lines[1].within_floors(kChip, 2).at_least("copy", 0.6, 0.25, 0.5);
  const std::string s = gpu_report_markdown(r);
  for (const char* row :
       {"| reverse_process Baby | the clock (set for an H200) | 0.4 ms | at most 0.5 ms |  | met |",
        "| reverse_process Baby | its floor | 2.0 x |  |  |  |",
        "| reverse_process Baby | its floor, normals included | 2.5 x | at most 2.0 x |  | **missed** |",
        "| reverse_process Baby | copy | 60 % | at least 25 % | at least 50 % | stretch met |"})
    EXPECT_NE(s.find(row), std::string::npos) << row << "\n" << s;
  const nlohmann::json j = nlohmann::json::parse(gpu_report_json(r));
  EXPECT_EQ(j["operations"][0]["goals"][0]["kind"], "seconds");
  EXPECT_EQ(j["operations"][1]["goals"].size(), 2u);
  EXPECT_EQ(s.find("a test of the bench"), std::string::npos);
  r.scale = 0.5, r.failures = {"catalogue: something"};
  EXPECT_NE(gpu_report_markdown(r).find("a test of the bench"), std::string::npos);
  EXPECT_NE(gpu_report_markdown(r).find("**Failed:** catalogue: something"), std::string::npos);
}

TEST(Noted, ACallCountsOnlyWhileNoting) {
  const Ops& ops = noted_ops(cpu_ops());
  Ctx ctx(1);
  std::vector<float> y(4, 1.0f);
  noted() = {};
  ops.fill_zero(ctx, {y.data(), 2, 2});
  EXPECT_EQ(y, std::vector<float>(4, 0.0f));  // it is the operation itself that runs
  EXPECT_TRUE(noted().called.empty());
  noted().noting = true;
  ops.zero_rows(ctx, {y.data(), 2, 2}, {nullptr, nullptr, 2});
  EXPECT_EQ(noted().called, std::set<std::string>{"zero_rows"});
  noted() = {};
}

TEST(Noted, AnOperationLeftOutAndAnExcuseNotNeededAreFound) {
  std::set<std::string> called;
#define CCDREC_CALLED(name) called.insert(#name);
  CCDREC_OPS(CCDREC_CALLED)
#undef CCDREC_CALLED
  EXPECT_TRUE(gaps(called, {}).empty());
  called.erase("align"), called.erase("spmm");
  EXPECT_EQ(gaps(called, {}), (std::vector<std::string>{"align is neither measured nor excused (bench/gpu/noted.cpp)",
                                                        "spmm is neither measured nor excused (bench/gpu/noted.cpp)"}));
  EXPECT_EQ(gaps(called, {{"align", "a reason"}}).size(), 1u);
  EXPECT_EQ(gaps(called, {{"align", "a reason"}, {"spmm", "a reason"}}).size(), 0u);
  called.insert("align"), called.insert("spmm");
  EXPECT_EQ(gaps(called, {{"align", "a reason"}}),
            std::vector<std::string>{"align is excused without need (bench/gpu/noted.cpp)"});
  EXPECT_EQ(gaps(called, {{"no_such_operation", "a reason"}}).size(), 1u);
}

}  // namespace
}  // namespace ccdrec::test
