#include "bench/growth.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"

namespace ccdrec::test {
namespace {
using namespace bench;

// One model measured in one series, with time ~ x^time, the counted work ~ x^needed and memory ~ x^memory.
GrowthReport grown(const Series& s, double time, double needed, double memory) {
  GrowthReport r;
  r.threads = 2, measured_here(r);
  r.ceilings = {10, 100, 1, 50, 50};
  for (const int scale : s.scales) {
    Point p;
    p.model = "FREEDOM", p.size = size_of(s, p.model, scale), p.steps = p.timed = 1;
    for (const char* phase : {"prune", "sample", "forward", "backward", "optimiser", "reverse", "epoch"})
      p.seconds[phase] = 0.1 * std::pow(scale, time);
    p.flop = 1e9 * std::pow(scale, needed), p.peak_mb = 100 * std::pow(scale, memory);
    r.points.push_back(p);
  }
  return r;
}

const Series& series(const std::string& name) {
  for (const Series& s : all_series())
    if (s.name == name) return s;
  throw std::logic_error(name);
}

TEST(Growth, TimeThatGrowsFasterThanTheDataIsReported) {
  EXPECT_TRUE(too_steep(grown(series("data"), 1.04, 1, 1)).empty());
  const auto steep = too_steep(grown(series("data"), 1.07, 1.07, 1));  // here no excuse counts
  ASSERT_EQ(steep.size(), 1u);
  EXPECT_NE(steep[0].find("time grows with exponent 1.07 in interactions, at most 1.05"), std::string::npos)
      << steep[0];
  EXPECT_NE(growth_markdown(grown(series("data"), 1.07, 1.07, 1)).find("**Missed:**\n\n- " + steep[0]),
            std::string::npos);
  EXPECT_EQ(growth_markdown(grown(series("data"), 1.04, 1, 1)).find("Missed"), std::string::npos);
}

TEST(Growth, WithThePublishedBatchTheLimitIsWhatTheModelNeeds) {
  EXPECT_TRUE(too_steep(grown(series("fixed-batch"), 1.73, 1.7, 1)).empty());
  EXPECT_EQ(too_steep(grown(series("fixed-batch"), 1.77, 1.7, 1)).size(), 1u);
  EXPECT_EQ(too_steep(grown(series("items"), 1.07, 0.4, 1)).size(), 1u);
}

TEST(Growth, MemoryIsJudgedInEverySeries) {
  for (const Series& s : all_series()) EXPECT_EQ(too_steep(grown(s, 1, 1, 1.06)).size(), 1u) << s.name;
}

TEST(Growth, ANonFiniteTimeIsReported) { EXPECT_FALSE(too_steep(grown(series("data"), NAN, 1, 1)).empty()); }

TEST(Growth, RandomRowsAreShownBesideWhatIsMadeOfThem) {
  GrowthReport r = grown(series("data"), 1.2, 1, 1);
  // a report of a program that did not measure them
  EXPECT_EQ(growth_markdown(r).find("random rows alone"), std::string::npos);
  for (const int scale : series("data").scales) r.row_ns.push_back(5 * std::pow(scale, 0.25));
  EXPECT_NE(growth_markdown(r).find("| random rows alone | 1.25 |"), std::string::npos) << growth_markdown(r);
  EXPECT_EQ(growth_markdown(growth_from_json(growth_json(r))), growth_markdown(r));
  EXPECT_EQ(too_steep(r).size(), 1u);  // shown, not an excuse
}

TEST(Growth, PointsThatMetTheCoresApartAreNamed) {
  GrowthReport r = grown(series("data"), 1, 1, 1);
  EXPECT_EQ(growth_markdown(r).find("line of cache"), std::string::npos);  // not measured
  for (Point& p : r.points) p.core_ns = 35;
  r.points[1].core_ns = 69;
  EXPECT_EQ(growth_markdown(r).find("line of cache"), std::string::npos);
  r.points[1].core_ns = 165;
  EXPECT_NE(growth_markdown(r).find("FREEDOM: a line of cache took 35, 165, 35, 35 ns"), std::string::npos)
      << growth_markdown(r);
  EXPECT_EQ(growth_markdown(growth_from_json(growth_json(r))), growth_markdown(r));
}

TEST(Growth, AReportSurvivesItsFile) {
  const GrowthReport r = grown(series("items"), 1, 1, 1), back = growth_from_json(growth_json(r));
  ASSERT_EQ(back.points.size(), r.points.size());
  EXPECT_EQ(growth_svg(back), growth_svg(r));
  GrowthReport elsewhere = r;
  elsewhere.machine["cpu"] = "another processor";  // not the one that shows the report
  EXPECT_NE(growth_markdown(growth_from_json(growth_json(elsewhere))).find("Machine: another processor"),
            std::string::npos);
  EXPECT_TRUE(back.find("FREEDOM", size_of(series("items"), "FREEDOM", 4)));
}

TEST(Growth, TheWorkIsShownInTurnAndItsLargestPartBeside) {
  GrowthReport r = grown(series("data"), 1, 1, 1);  // 10 GB/s, 100 GFLOP/s, 1 G/s
  for (Point& p : r.points) p.flop = 30e9, p.bytes = 20e9, p.roots = 0.5e9;
  EXPECT_NE(growth_markdown(r).find(" | 2.80 | 2.00 | "), std::string::npos) << growth_markdown(r);
  EXPECT_EQ(growth_markdown(r).find("floor"), std::string::npos);
}

TEST(Growth, AFileThatIsNoReportIsOneSentenceWithItsName) {
  nlohmann::json report = growth_json(grown(series("data"), 1, 1, 1)), renamed = report,
                 nothing = nlohmann::json::array();
  report["machine"].erase("cpu"), renamed["points"][0]["flop"] = "many";
  for (const std::string& text :
       {std::string(), std::string("{\"points\": ["), report.dump(), renamed.dump(), nothing.dump()}) {
    try {
      growth_from_text(text, "some/growth.json");
      ADD_FAILURE() << text;
    } catch (const UserError& e) {
      const std::string sentence = e.what();
      EXPECT_TRUE(sentence.starts_with("some/growth.json: ")) << sentence;
      EXPECT_NE(sentence.find("--fresh"), std::string::npos) << sentence;
      EXPECT_EQ(sentence.find("json.exception"), std::string::npos) << sentence;
    }
  }
  EXPECT_THROW(point_from_text("{}", "--point"), UserError);
}

TEST(Growth, PointsOfAnotherProgramOrMachineOrOfOtherThreadsDoNotBelongToAReport) {
  const GrowthReport here = grown(series("data"), 1, 1, 1);
  EXPECT_EQ(stranger(here, here, 0), "");
  EXPECT_EQ(stranger(here, here, 2), "");
  EXPECT_EQ(stranger(here, here, 1), "with 2 threads, and these are 1");
  for (const char* key : {"commit", "compiler", "flags"}) {
    GrowthReport was = here;
    was.build[key] = "another";
    EXPECT_TRUE(stranger(was, here, 0).starts_with(std::string("with ") + key + " another, and this is ")) << key;
    was.build.erase(key);
    EXPECT_NE(stranger(was, here, 0), "") << key;
  }
  GrowthReport was = here;
  was.machine["cpu"] = "another processor";
  EXPECT_TRUE(stranger(was, here, 0).starts_with("with the processor another processor, and this is "));
}

}  // namespace
}  // namespace ccdrec::test
