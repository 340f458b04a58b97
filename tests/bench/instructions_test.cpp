#include "bench/instructions.h"

#include <gtest/gtest.h>

#include "data/error.h"

namespace ccdrec::test {
namespace {
using bench::CountedLine;
using bench::Counts;
using nlohmann::json;
using Sentences = std::vector<std::string>;

const std::string kHere = "GNU 12.2.0, glibc 2.36";

json reference() {
  return {{"toolchain", kHere},
          {"BPR", {{"epoch", {100000, 200000}}, {"adam_rows", {60000, 120000}}, {"all else", {40000, 80000}}}}};
}
std::vector<CountedLine> lines() {
  return {{"BPR", "epoch", 100000, 200000}, {"BPR", "adam_rows", 60000, 120000}, {"BPR", "all else", 40000, 80000}};
}
Sentences wrong(const std::vector<CountedLine>& now, const json& of = reference(),
                const std::string& toolchain = kHere) {
  return bench::judge(now, of, toolchain).wrong;
}
Sentences with_adam_rows(int64_t x1, int64_t x2) {
  std::vector<CountedLine> now = lines();
  now[1].x1 = x1, now[1].x2 = x2;
  return wrong(now);
}

TEST(Instructions, TheReferencesOwnCountsAreRight) { EXPECT_EQ(wrong(lines()), Sentences()); }

TEST(Instructions, ACountAboveTheAllowanceFailsAndNamesItsLine) {
  const Sentences too_many = {
      "BPR, adam_rows: 4.0 % more instructions than the reference; at most 3 % are let through"};
  EXPECT_EQ(with_adam_rows(60000, 124800), too_many);
  EXPECT_EQ(with_adam_rows(62400, 120000), too_many);  // of either size
  EXPECT_EQ(with_adam_rows(62400, 122000), too_many);
}

TEST(Instructions, ACountBelowTheAllowancePasses) {
  EXPECT_EQ(with_adam_rows(60000, 123000), Sentences());
  EXPECT_EQ(with_adam_rows(59000, 118000), Sentences());
}

TEST(Instructions, TheEdgeOfTheAllowancePassesAndOneMoreFails) {
  EXPECT_EQ(with_adam_rows(61800, 123600), Sentences());  // 3 % to the instruction
  EXPECT_EQ(with_adam_rows(61800, 123601),
            Sentences{"BPR, adam_rows: 3.0 % more instructions than the reference; at most 3 % are let through"});
  EXPECT_EQ(with_adam_rows(58200, 116400), Sentences());
  EXPECT_EQ(
      with_adam_rows(58199, 116400),
      Sentences{
          "BPR, adam_rows: 3.0 % fewer instructions than the reference; keep the gain: make instructions UPDATE=1"});
}

TEST(Instructions, ABetterCountSaysThatTheReferenceIsToBeRenewed) {
  EXPECT_EQ(
      with_adam_rows(54000, 108000),
      Sentences{
          "BPR, adam_rows: 10.0 % fewer instructions than the reference; keep the gain: make instructions UPDATE=1"});
}

TEST(Instructions, AGainAtOneSizeDoesNotExcuseTheOther) {
  EXPECT_EQ(with_adam_rows(64800, 108000),
            Sentences{"BPR, adam_rows: 8.0 % more instructions than the reference; at most 3 % are let through"});
}

TEST(Instructions, ANewLineIsReported) {
  std::vector<CountedLine> now = lines();
  now.push_back({"BPR", "spmm", 2000, 4000});
  EXPECT_EQ(wrong(now), Sentences{"BPR, spmm: the reference has no such line; make instructions UPDATE=1"});
  now = lines();
  now.push_back({"FREEDOM", "epoch", 10, 20});
  EXPECT_EQ(wrong(now), Sentences{"FREEDOM, epoch: the reference has no such line; make instructions UPDATE=1"});
}

TEST(Instructions, AMissingLineIsReported) {
  std::vector<CountedLine> now = lines();
  now.erase(now.begin() + 1);
  EXPECT_EQ(wrong(now),
            Sentences{"BPR, adam_rows: is in the reference and was not called; make instructions UPDATE=1"});
}

TEST(Instructions, WhatGrowsFasterThanTheDataFailsWhateverTheReferenceSays) {
  json of = reference();
  of["BPR"]["adam_rows"] = {50000, 105001};
  std::vector<CountedLine> now = lines();
  now[1].x1 = 50000, now[1].x2 = 105001;
  const Sentences steep = {
      "BPR, adam_rows: 2.100 times the instructions for twice the data, expected at most 2.1: something is not linear"};
  EXPECT_EQ(wrong(now, of), steep);
  EXPECT_EQ(wrong(now, json::object()), steep);
  now[1].x2 = 105000;
  EXPECT_EQ(wrong(now, of), Sentences());
}

// Four times for twice the items, and an epoch that is linear but for it.
TEST(Instructions, ASearchOfAllPairsMayTakeTheSquare) {
  std::vector<CountedLine> now = {
      {"LATTICE", "epoch", 100000, 224000}, {"LATTICE", "knn_cosine", 10000, 40000}, {"LATTICE", "bpr", 90000, 184000}};
  EXPECT_EQ(wrong(now, json::object()), Sentences());
  now[0].x2 = 230000;
  ASSERT_EQ(wrong(now, json::object()).size(), 1u);
  EXPECT_NE(wrong(now, json::object())[0].find("LATTICE, epoch: 2.111 times the instructions"), std::string::npos);
  now[0].x2 = 224000, now[1].x2 = 43000;
  ASSERT_EQ(wrong(now, json::object()).size(), 1u);
  EXPECT_NE(wrong(now, json::object())[0].find("knn_cosine: 4.300 times"), std::string::npos);
}

TEST(Instructions, CountsOfAnotherToolchainAreShownAndNotJudged) {
  std::vector<CountedLine> now = lines();
  now[1].x2 = 124800;
  now.push_back({"BPR", "spmm", 2000, 4000});
  const bench::Verdict v = bench::judge(now, reference(), "GNU 13.1.0, glibc 2.36");
  EXPECT_EQ(v.wrong, Sentences());
  EXPECT_NE(v.table.find("+4.00 %  <--"), std::string::npos) << v.table;
  EXPECT_NE(v.table.find("Counted with GNU 13.1.0, glibc 2.36, the reference with GNU 12.2.0, glibc 2.36"),
            std::string::npos)
      << v.table;
  EXPECT_EQ(bench::judge(lines(), reference(), kHere).table.find("<--"), std::string::npos);
}

TEST(Instructions, ACountOfNothingHasNoShare) {
  json of = reference();
  of["BPR"]["spmm"] = {0, 0};
  std::vector<CountedLine> now = lines();
  now.push_back({"BPR", "spmm", 0, 0});
  EXPECT_EQ(wrong(now, of), Sentences());
  now.back().x1 = now.back().x2 = 1;
  EXPECT_EQ(wrong(now, of).size(), 1u);
}

// An operation is a line from 1 % of the epoch on, and stays one while the reference has it.
TEST(Instructions, LinesAreTheEpochItsLargerOperationsAndTheRest) {
  const Counts x1 = {1000, {{"gemm", 600}, {"bpr", 10}, {"diffuse", 4}}},
               x2 = {2000, {{"gemm", 1200}, {"bpr", 20}, {"diffuse", 19}, {"align", 30}}};
  const auto said = [&](const json& of) {
    std::string s;
    for (const CountedLine& l : bench::lines_of("CCDRec", x1, x2, of))
      s += l.what + " " + std::to_string(l.x1) + " " + std::to_string(l.x2) + "; ";
    return s;
  };
  EXPECT_EQ(said(json::object()), "epoch 1000 2000; gemm 600 1200; align 0 30; bpr 10 20; all else 390 750; ");
  EXPECT_EQ(said({{"CCDRec", {{"diffuse", {5, 20}}}}}),
            "epoch 1000 2000; gemm 600 1200; align 0 30; bpr 10 20; diffuse 4 19; all else 386 731; ");
}

TEST(Instructions, AReferenceIsReadAsItIsWritten) {
  const json j = bench::as_reference(lines(), kHere);
  EXPECT_EQ(j, reference());
  EXPECT_EQ(bench::parse_reference(j.dump(1), "file"), j);
}

TEST(Instructions, AReferenceThatIsNoneIsOneSentence) {
  const auto refused = [](const std::string& text) -> std::string {
    try {
      bench::parse_reference(text, "file");
    } catch (const UserError& e) { return e.what(); }
    return "taken";
  };
  const std::string end = "; write it anew with make instructions UPDATE=1";
  EXPECT_EQ(refused("[1]"), "file: no \"toolchain\"" + end);
  EXPECT_EQ(refused(R"({"toolchain": 7})"), "file: no \"toolchain\"" + end);
  EXPECT_EQ(refused(R"({"toolchain": "x", "BPR": 3})"), "file: \"BPR\" has no lines" + end);
  EXPECT_EQ(refused(R"({"toolchain": "x", "BPR": {"epoch": [1]}})"),
            "file: \"BPR\", \"epoch\" are not two counts" + end);
  EXPECT_EQ(refused(R"({"toolchain": "x", "BPR": {"epoch": [1, null]}})"),
            "file: \"BPR\", \"epoch\" are not two counts" + end);
  EXPECT_EQ(refused("{").find("file is no JSON ("), 0u);
}

}  // namespace
}  // namespace ccdrec::test
