// Searches: what is tried, in which folders, and that a search that is killed ends as one that was not.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "data/error.h"
#include "data/text.h"
#include "host/experiments/grid.h"
#include "host/experiments/paper.h"
#include "host/experiments/planned_run.h"
#include "host/files/run_folder.h"
#include "host/systems/label.h"
#include "host/systems/registry.h"
#include "tests/host/command.h"
#include "tests/host/process.h"
#include "tests/temp_folder.h"

namespace ccdrec {
namespace {

using namespace test;
namespace fs = std::filesystem;

std::string refused(const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& e) { return e.what(); }
  return "";
}

// --- the list

TEST(Grid, IsTheProductWithTheLastKeyFastest) {
  const std::vector<Point> points = points_of(
      {parse_axis("mu=0.5, 0.8", "--grid"), parse_axis("learning_rate_scheduler=[0.96,50],[1,50]", "--grid")});
  std::vector<std::string> texts;
  for (const Point& p : points) texts.push_back(point_text(p));
  EXPECT_EQ(texts, (std::vector<std::string>{
                       "mu=0.5 learning_rate_scheduler=[0.96,50]", "mu=0.5 learning_rate_scheduler=[1,50]",
                       "mu=0.8 learning_rate_scheduler=[0.96,50]", "mu=0.8 learning_rate_scheduler=[1,50]"}));
  EXPECT_EQ(points_of({}).size(), 1u);
  EXPECT_TRUE(has(refused([] { parse_axis("mu", "--grid"); }), "--grid mu: expected key=a,b,c"));
  EXPECT_TRUE(has(refused([] { parse_axis("mu=1,,2", "--grid"); }), "a value is empty"));
  const GridAxis wide{"mu", std::vector<std::string>(1001, "1")};
  EXPECT_TRUE(has(refused([&] { points_of({wide, wide}); }), "more than 1,000,000 points"));
}

TEST(Grid, DrawsWithoutRepetitionAndALargerDrawKeepsTheSmaller) {
  std::set<size_t> smaller;
  for (const size_t n : {1, 5, 20, 49, 50, 80}) {
    const std::vector<size_t> places = drawn(50, n, 7);
    EXPECT_EQ(places.size(), std::min<size_t>(n, 50));
    EXPECT_TRUE(std::is_sorted(places.begin(), places.end()));
    const std::set<size_t> now(places.begin(), places.end());
    EXPECT_EQ(now.size(), places.size());
    EXPECT_TRUE(std::includes(now.begin(), now.end(), smaller.begin(), smaller.end()));
    smaller = now;
  }
  EXPECT_NE(drawn(50, 5, 7), drawn(50, 5, 8));
}

TEST(Grid, ShardsCoverTheListOnceAndSeedsAreDistinct) {
  for (int64_t n : {1, 3, 7}) {
    std::vector<int> times(10);
    for (int64_t i = 1; i <= n; ++i) {
      const Shard s = parse_shard(std::to_string(i) + "/" + std::to_string(n));
      for (size_t place = 0; place < times.size(); ++place) times[place] += s.has(place);
    }
    EXPECT_EQ(times, std::vector<int>(10, 1));
  }
  for (const char* text : {"0/3", "4/3", "1", "a/3", "1/", "1/3x"})
    EXPECT_TRUE(has(refused([&] { parse_shard(text); }), "expected i/n")) << text;
  EXPECT_EQ(parse_seeds("3,1,2"), (std::vector<std::string>{"3", "1", "2"}));
  for (const char* text : {"1,1", "", "x", "-1", "1,,2"}) EXPECT_NE(refused([&] { parse_seeds(text); }), "") << text;
}

TEST(Sweep, FoldersAreNamedByTheContentOfSettings) {
  const auto key = [](std::vector<std::string> sets, const std::string& model, const std::string& data = "c") {
    Dataset d;
    d.checksum = data, d.interactions = "i";
    return run_key(planned_run({model, "/d", "", "", {}, std::move(sets)}, "", {}, "1").settings(), d);
  };
  const std::string base = key({}, "FREEDOM");
  EXPECT_EQ(base.size(), 12u);
  EXPECT_EQ(key({"dropout=0.8"}, "FREEDOM"), base) << "the model's own value, spelled out";
  EXPECT_EQ(key({"threads=7", "seed=4"}, "FREEDOM"), base) << "no number depends on them, or the name has it";
  EXPECT_EQ(key({"mu=0.9"}, "FREEDOM"), base) << "no setting of this model";
  EXPECT_NE(key({"dropout=0.7"}, "FREEDOM"), base);
  EXPECT_NE(key({"epochs=7"}, "FREEDOM"), base);
  EXPECT_NE(key({"topk=[10,20]"}, "FREEDOM"), base);
  EXPECT_NE(key({}, "FREEDOM", "other features"), base);
  EXPECT_EQ(key({}, "BPR", "other features"), key({}, "BPR")) << "it reads none";
}

// The lines are those of the paper, each with at most four points of the small search, and each can be resolved.
TEST(Reproduce, EveryLineOfEveryTableIsARunThatCanBe) {
  for (const std::string& name : paper_tables())
    for (const std::string set : {"", "sports"}) {
      const PaperTable t = paper_table(name, set);
      std::set<std::string> labels;
      for (const PaperLine& line : t.lines) {
        SCOPED_TRACE(name + " " + set + " " + line.label);
        EXPECT_TRUE(labels.insert(line.label).second);
        EXPECT_TRUE(line.over.empty() || labels.count(line.over)) << "compared with a line above it";
        EXPECT_LE(points_of(line.small).size(), 4u);
        std::vector<std::string> sets = line.released;
        sets.insert(sets.end(), line.sets.begin(), line.sets.end());
        for (const auto* axes : {&line.small, &line.paper})
          for (const GridAxis& axis : *axes)
            for (const std::string& value : axis.values) {
              const PlannedRun run =
                  planned_run({line.model, "/d", "", "", {}, sets}, "", {{axis.key, value, "--grid"}}, "1");
              EXPECT_EQ(run.config.origin.at(axis.key), "--grid");
              for (const std::string& note : run.config.notes) EXPECT_FALSE(has(note, "no influence")) << note;
            }
        const Settings s = planned_run({line.model, "/d", "", "", {}, sets}, "", {}, "1").settings();
        if (name != "sensitivity") { EXPECT_EQ(line.label, label_of(s)); }
        if (outline_of(s).searches && name != "sensitivity") { EXPECT_EQ(s.dtau, set == "sports" ? 10 : 5); }
      }
      EXPECT_GE(labels.size(), 8u);
    }
  EXPECT_DOUBLE_EQ(published("baby", "CCDRec(FREEDOM)", "recall@10"), 0.0679);
  EXPECT_DOUBLE_EQ(published("clothing", "MG+RealHNS", "ndcg@10"), 0.0352);
  EXPECT_TRUE(std::isnan(published("sports", "FREEDOM+DNS", "recall@10")));
  EXPECT_TRUE(std::isnan(published("baby", "FREEDOM+DNS", "recall@5")));
  EXPECT_TRUE(has(refused([] { paper_table("table4", ""); }), "'table4' is no table, expected table2"));
}

// --- the program

const std::vector<std::string> kSmall = {"--set", "embedding_size=8", "--set", "train_batch_size=64", "--threads", "1"};

std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}
std::vector<std::string> sweep_words(const std::string& model, const std::string& out,
                                     const std::vector<std::string>& more) {
  return with(with({"sweep", "-m", model, "-d", data_folder(), "-o", out}, kSmall), more);
}

// sweep.jsonl without seconds.
std::vector<nlohmann::json> lines_of(const std::string& out) {
  std::vector<nlohmann::json> lines;
  std::ifstream in(out + "/sweep.jsonl");
  for (std::string line; std::getline(in, line);) {
    lines.push_back(nlohmann::json::parse(line));
    lines.back().erase("train_seconds"), lines.back().erase("eval_seconds");
  }
  return lines;
}

TEST(Sweep, TrainsAGridOverSeedsAndChoosesByValidation) {
  const Folder dir;
  const std::string out = dir / "s", yaml = dir / "BPR.yaml";
  write_text(yaml,
             "reg_weight: [0.1, 5]\nlearning_rate: [0.001, 0.01]\nhyper_parameters: [reg_weight, learning_rate]\n");
  const std::vector<std::string> words = sweep_words(
      "BPR", out,
      {"-c", yaml, "--grid", "learning_rate=0.01,1e38", "--seeds", "1,2", "--set", "epochs=4", "--jobs", "2"});
  const Ended first = ended(words);
  ASSERT_EQ(first.code, 0) << first.err << first.out;
  const std::vector<nlohmann::json> lines = lines_of(out);
  ASSERT_EQ(lines.size(), 8u);
  std::map<std::string, double> valid, test;
  int diverged = 0;
  for (size_t k = 0; k < lines.size(); ++k) {
    const nlohmann::json& j = lines[k];
    EXPECT_EQ(j["trial"], k / 2);
    EXPECT_EQ(j["seed"], k % 2 + 1);
    if (j["status"] == "diverged") {
      ++diverged;
      EXPECT_EQ(j["set"]["learning_rate"], "1e38");
      continue;
    }
    EXPECT_EQ(j["status"], "max_epochs");
    const std::string point = j["set"].dump();
    valid[point] += j["best_valid"]["recall@20"].get<double>();
    test[point] += j["best_test"]["recall@20"].get<double>();
  }
  EXPECT_EQ(diverged, 4) << "listed, and the others went on";
  const auto most = [](const std::map<std::string, double>& of) {
    return nlohmann::json::parse(std::max_element(of.begin(), of.end(), [](const auto& a, const auto& b) {
                                   return a.second < b.second;
                                 })->first);
  };
  const std::string winner = most(valid)["reg_weight"];
  EXPECT_TRUE(has(first.out, "chosen by validation Recall@20: reg_weight=" + winner + " learning_rate=0.01"))
      << first.out;
  EXPECT_TRUE(has(first.out, "not for a report): reg_weight=" + most(test)["reg_weight"].get<std::string>()));
  EXPECT_EQ(resolve_config({out + "/best.yaml"}, {}).settings.reg_weight, std::stod(winner));

  // Again: nothing is trained. And a larger grid into the same folder trains what is new.
  const auto written = fs::last_write_time(out + "/" + lines[0]["run"].get<std::string>() + "/summary.json");
  EXPECT_TRUE(has(ended(with(words, {"--set", "mem_limit_gb=1e-6"})).out, "chosen by validation"))
      << "nothing is to be trained";
  const Ended all = ended(sweep_words("BPR", dir / "d", {"--grid", "learning_rate=1e38,2e38", "--set", "epochs=4"}));
  EXPECT_EQ(all.code, 4) << all.err;
  const Ended again = ended(words);
  EXPECT_EQ(again.code, 0);
  EXPECT_TRUE(has(again.err, "8 of 8 runs are there already")) << again.err;
  EXPECT_EQ(fs::last_write_time(out + "/" + lines[0]["run"].get<std::string>() + "/summary.json"), written);
  EXPECT_EQ(lines_of(out), lines);

  // Shards of a fresh folder merge to the same list.
  const std::string parts = dir / "parts";
  std::vector<std::string> of_parts = words;
  *std::find(of_parts.begin(), of_parts.end(), out) = parts;
  EXPECT_EQ(ended(with(of_parts, {"--shard", "1/2"})).code, 0);
  EXPECT_EQ(lines_of(parts).size(), 4u);
  EXPECT_EQ(ended(with(of_parts, {"--shard", "2/2"})).code, 0)
      << "not all of the list diverged, though all of this part";
  EXPECT_EQ(lines_of(parts), lines);
}

TEST(Sweep, SaysWhatItCannotDo) {
  const Folder dir;
  const auto sentence = [&](const std::vector<std::string>& more) {
    const Result r = run(sweep_words("BPR", dir / "s", more));
    EXPECT_EQ(r.code, 2);
    EXPECT_FALSE(fs::exists(dir / "s"));
    return r.err;
  };
  EXPECT_TRUE(has(sentence({"--grid", "reg_weight=0.1,-1"}), "reg_weight = -1 is not"));
  EXPECT_TRUE(has(sentence({"--grid", "regweight=0.1"}), "did you mean 'reg_weight'?"));
  EXPECT_TRUE(has(sentence({"--grid", "model=BPR,FREEDOM"}), "a sweep is of one model"));
  EXPECT_TRUE(has(sentence({"--grid", "seed=1,2"}), "--seeds 1,2,3"));
  EXPECT_TRUE(has(sentence({"--seed", "1"}), "--seeds"));
  EXPECT_TRUE(has(sentence({"--halving", "--shard", "1/2"}), "leave --shard away"));
  EXPECT_TRUE(has(sentence({"--format", "xls"}), "xls"));
  EXPECT_TRUE(has(sentence({"--grid", "threads=1,2"}), "no result depends on it"));
  EXPECT_TRUE(has(sentence({"--grid", "epochs=2,9", "--halving"}), "leave them out of the grid"));
  EXPECT_TRUE(has(sentence({"--set", "save_last=false"}), "leave it on"));
  EXPECT_EQ(run(sweep_words("BPR", dir / "dry", {"--dry-run", "--set", "epochs=1"})).code, 0);
  EXPECT_TRUE(has(run({"reproduce", "table2", "-d", data_folder(), "--only", "FREEDOM,CCD"}).err,
                  "--only CCD: no line of table2"));
  EXPECT_TRUE(has(run({"reproduce", "cost", "-d", data_folder(), "--search", "small"}).err, "searches nothing"));
  EXPECT_TRUE(has(run({"reproduce", "table5", "-d", data_folder()}).err, "'table5' is no table"));
}

// A point left behind has a ninth or a third of the epochs, and the winner's run is that of an unbroken training.
TEST(Sweep, HalvingContinuesRunsAndTheWinnerIsTheUnbrokenRun) {
  const Folder dir;
  const std::string out = dir / "s";
  const Ended e = ended(sweep_words("LightGCN", out,
                                    {"--grid", "learning_rate=0.0001,0.001,0.003,0.01,0.02,0.03,0.1", "--halving",
                                     "--set", "epochs=18", "--set", "stopping_step=100"}));
  ASSERT_EQ(e.code, 0) << e.err;
  std::map<int, int> epochs;
  std::string best;
  for (const nlohmann::json& j : lines_of(out)) {
    ++epochs[j["epochs_run"].get<int>()];
    if (j["epochs_run"] == 18) best = j["run"];
  }
  EXPECT_EQ(epochs, (std::map<int, int>{{2, 4}, {6, 2}, {18, 1}}));
  const std::string whole = dir / "whole";
  ASSERT_EQ(run({"train", "-c", out + "/best.yaml", "--run-dir", whole}).code, 0);
  expect_same_tensors(out + "/" + best + "/best.safetensors", whole + "/best.safetensors");
}

// Asked to stop, it lets its runs save and ends with 130; the same command goes on. Threads are shared out.
TEST(Sweep, CtrlCSavesAndTheSameCommandGoesOn) {
  const Folder dir;
  const std::string out = dir / "s";
  const std::vector<std::string> words = sweep_words(
      "LightGCN", out, {"--set", "epochs=400", "--set", "stopping_step=1000", "--jobs", "2", "--seeds", "1,2"});
  Process p(words);
  const auto trains = [&] {
    for (const auto& entry : fs::recursive_directory_iterator(out))
      if (entry.path().filename() == "metrics.jsonl" && fs::file_size(entry) > 0) return true;
    return false;
  };
  while (!fs::exists(out) || !trains()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  p.signal(SIGINT);
  ASSERT_EQ(p.wait(), 130);
  int saved = 0;
  for (const auto& entry : fs::directory_iterator(out)) {
    if (!entry.is_directory()) continue;
    saved += fs::exists(entry.path() / "last.safetensors");
    if (!fs::exists(entry.path() / "metrics.jsonl")) continue;  // stopped before it had said all
    const std::string log = read_text((entry.path() / "train.log").string());
    EXPECT_TRUE(has(log, "with 1 thread")) << log;
  }
  EXPECT_GE(saved, 1);
  EXPECT_EQ(ended(words).code, 0);
  EXPECT_EQ(lines_of(out).size(), 2u);
}

// Killed again and again, with all its runs, until it is through: the same list as one that was never stopped.
TEST(SlowSweep, KilledThirtyTimesItEndsTheSame) {
  const Folder dir;
  const auto words = [&](const std::string& out) {
    return sweep_words("FREEDOM", out,
                       {"--grid", "reg_weight=0,0.01", "--grid", "dropout=0.2,0.5", "--set", "epochs=1000", "--set",
                        "stopping_step=2000", "--set", "save_every=3", "--jobs", "2"});
  };
  const std::string whole = dir / "whole", broken = dir / "broken";
  ASSERT_EQ(ended(words(whole)).code, 0);
  std::mt19937 chance(5);
  int kills = 0;
  while (kills < 30) {
    Process p(words(broken));
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + chance() % 60));
    if (p.ended()) break;  // through: no more to kill
    p.signal(SIGKILL), p.wait();
    ++kills;
  }
  EXPECT_GE(kills, 15) << "or it is too fast to be killed";
  ASSERT_EQ(ended(words(broken)).code, 0);
  EXPECT_EQ(lines_of(broken), lines_of(whole));
}

// The estimate beside what a run of that many epochs then took.
TEST(SlowSweep, ADryRunTellsTheTime) {
  const Folder dir;
  const Result made = run({"synth", "demo", "--out", dir / "demo"});
  ASSERT_EQ(made.code, 0);
  double told = 0, took = 0;
  // A machine that is busy for a moment spoils either: three tries.
  for (int tries = 0; tries < 3; ++tries) {
    const std::vector<std::string> words = {
        "sweep", "-m", "FREEDOM", "-d", dir / "demo", "--set", "epochs=8", "-o", dir / ("s" + std::to_string(tries))};
    const Result dry = run(with(words, {"--dry-run"}));
    ASSERT_EQ(dry.code, 0) << dry.err;
    const size_t at = dry.out.find("1 runs, at most ");
    ASSERT_NE(at, std::string::npos) << dry.out;
    told = std::stod(dry.out.substr(at + 16));
    ASSERT_EQ(ended(words).code, 0);
    const nlohmann::json j = [&] {
      std::ifstream in(dir / ("s" + std::to_string(tries)) + "/sweep.jsonl");
      std::string line;
      std::getline(in, line);
      return nlohmann::json::parse(line);
    }();
    took = j["train_seconds"].get<double>() + j["eval_seconds"].get<double>();
    if (told < 2 * took && took < 2 * told) return;
  }
  ADD_FAILURE() << "told " << told << " s, took " << took << " s";
}

TEST(Reproduce, TablesShareRunsAndAFileOfResultsTakesTheirPlace) {
  const Folder dir;
  const std::string out = dir / "r", results = dir / "results.json";
  const auto words = [&](const std::string& table, const std::string& only, const std::string& to) {
    return with(with({"reproduce", table, "-d", data_folder(), "--seeds", "1,2", "-o", to, "--only", only}, kSmall),
                {"--set", "epochs=3", "--results", results, "--format", "json"});
  };
  const Ended two = ended(words("table2", "FREEDOM,CCDRec(FREEDOM)", out));
  ASSERT_EQ(two.code, 0) << two.err;
  const auto table = nlohmann::json::parse(two.out);
  ASSERT_EQ(table["rows"].size(), 3u) << "two systems and the gain";
  const double freedom = table["rows"][0]["R@10"]["value"], ccdrec = table["rows"][1]["R@10"]["value"];
  char gain[16];
  std::snprintf(gain, sizeof gain, "%+.1f", 100 * (ccdrec / freedom - 1));
  EXPECT_EQ(table["rows"][2]["R@10"], gain);
  EXPECT_TRUE(has(table["notes"].dump(), "CCDRec(FREEDOM) against FREEDOM, R@10")) << table["notes"];
  const auto kept = nlohmann::json::parse(read_text(results));
  ASSERT_EQ(kept["runs"].size(), 4u);
  EXPECT_EQ(kept["runs"][0]["label"], "FREEDOM");
  EXPECT_EQ(kept["tests"].size(), 1u);

  // Without the folders: nothing is trained, and the table is the same.
  const std::string elsewhere = dir / "elsewhere";
  const Ended again = ended(words("table2", "FREEDOM,CCDRec(FREEDOM)", elsewhere));
  EXPECT_EQ(again.code, 0);
  EXPECT_EQ(again.out, two.out);
  EXPECT_TRUE(fs::is_empty(elsewhere));
  const Ended three = ended(words("table3", "FREEDOM,FREEDOM+DNS,CCDRec(FREEDOM)", elsewhere));
  EXPECT_EQ(three.code, 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(elsewhere), {}), 2) << "the sampler's two seeds alone";
  EXPECT_EQ(nlohmann::json::parse(read_text(results))["runs"].size(), 6u);

  // A file that is named later takes what is over.
  const std::string later = dir / "later.json";
  EXPECT_EQ(
      ended({"reproduce", "table2", "-d", data_folder(), "--seeds", "1,2", "-o", out, "--only", "FREEDOM", "--set",
             "embedding_size=8", "--set", "train_batch_size=64", "--set", "epochs=3", "--results", later})
          .code,
      0);
  EXPECT_EQ(nlohmann::json::parse(read_text(later))["runs"].size(), 2u);

  write_text(results, "{\"format\": \"other\"}");
  EXPECT_TRUE(has(ended(words("table2", "FREEDOM", out)).err, "no file of results of this program"));
}

}  // namespace
}  // namespace ccdrec
