// The ranges a profiler is told of, against the page that lists them and, on the emulator, against what a run opens.
#include "kernels/ranges.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/text.h"
#include "host/base/device.h"
#include "tests/host/command.h"
#if defined(CCDREC_TEST_SIMT)
#include "tests/simt/ranges.h"
#endif

namespace ccdrec::test {
namespace {

struct Documented {
  std::string category;
  std::set<std::string> inside;  // names, "" for none
};

std::set<std::string> words_of(const std::string& cell) {
  std::set<std::string> words;
  for (size_t at = cell.find('`'); at != std::string::npos; at = cell.find('`', cell.find('`', at + 1) + 1))
    words.insert(cell.substr(at + 1, cell.find('`', at + 1) - at - 1));
  if (cell.find("none") != std::string::npos) words.insert("");
  return words;
}

// The rows of docs/profiling.md that begin with | `name` |.
std::map<std::string, Documented> documented() {
  std::map<std::string, Documented> list;
  std::istringstream page(read_text(CCDREC_SOURCE_DIR "/docs/profiling.md"));
  for (std::string line; std::getline(page, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    std::istringstream row(line);
    std::vector<std::string> cells;
    for (std::string cell; std::getline(row, cell, '|');) cells.push_back(cell);
    EXPECT_GE(cells.size(), 6u) << line;
    if (cells.size() < 6) continue;
    const std::string name = *words_of(cells[1]).begin();
    EXPECT_TRUE(list.emplace(name, Documented{*words_of(cells[2]).begin(), words_of(cells[3])}).second)
        << name << " twice";
  }
  return list;
}

TEST(Ranges, TheGuideListsThemAll) {
  std::map<std::string, std::string> guide, table;
  for (const auto& [name, d] : documented()) guide[name] = d.category;
  for (const RangeText& r : kRangeTexts) table[r.name] = r.category;
  EXPECT_EQ(guide, table);
}

TEST(Ranges, ACategoryHasOneNumber) {
  std::map<std::string, uint32_t> numbers;
  std::set<uint32_t> used;
  for (size_t k = 0; k < std::size(kRangeTexts); ++k) {
    const uint32_t n = category_number(RangeId(k));
    EXPECT_GE(n, 1u);
    if (numbers.emplace(kRangeTexts[k].category, n).second)
      EXPECT_TRUE(used.insert(n).second) << kRangeTexts[k].category;
    else
      EXPECT_EQ(numbers[kRangeTexts[k].category], n) << kRangeTexts[k].name;
  }
}

#if defined(CCDREC_TEST_SIMT)
std::string name_of(const simt::Ranges& r, int at) { return at < 0 ? "" : text_of(r.all[size_t(at)].id).name; }

std::map<std::string, std::set<std::string>> nesting(const simt::Ranges& r) {
  std::map<std::string, std::set<std::string>> inside;
  for (size_t k = 0; k < r.all.size(); ++k) inside[name_of(r, int(k))].insert(name_of(r, r.all[k].parent));
  return inside;
}

// A phase carries the number of the epoch or step it is in, a checkpoint that of the epoch to come.
void expect_payloads(const simt::Ranges& r, int64_t epochs) {
  int64_t epoch = -1, step = -1;
  for (size_t k = 0; k < r.all.size(); ++k) {
    const auto& [id, payload, parent, closed] = r.all[k];
    SCOPED_TRACE(name_of(r, int(k)) + " in " + name_of(r, parent) + ", number " + std::to_string(k));
    if (id == RangeId::epoch) {
      EXPECT_EQ(payload, ++epoch);
      step = -1;
    } else if (id == RangeId::step) {
      EXPECT_EQ(payload, ++step);
    } else if (id == RangeId::knn || id == RangeId::read || (id == RangeId::evaluation && parent < 0)) {
      EXPECT_EQ(payload, -1);
    } else if (id == RangeId::write) {
      EXPECT_EQ(payload, epoch + 1);
    } else {
      int at = parent;
      while (at >= 0 && r.all[size_t(at)].id != RangeId::step && r.all[size_t(at)].id != RangeId::epoch)
        at = r.all[size_t(at)].parent;
      EXPECT_EQ(payload, at >= 0 ? r.all[size_t(at)].payload : epochs - 1);
    }
  }
  EXPECT_EQ(epoch, epochs - 1);
}

// Random negatives, then a pool, then the model's own rows; direct, recorded and replayed steps; both checkpoints;
// ranked again from one of them.
TEST(Ranges, ARunOpensThoseOfTheGuideAndNoOthers) {
  const Folder dir;
  simt::RangeWatch watch;
  const Result trained = run(train_words("CCDRec", dir / "run",
                                         {"--device", "cuda", "--set", "epochs=4", "--set", "dtau=1", "--set",
                                          "first_stage=1", "--set", "tau_end=2", "--set", "knn_k=3"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  simt::Ranges& r = watch.kept;
  expect_payloads(r, 4);
  int64_t direct = 0, replayed = 0;
  std::set<int> with_phases;
  for (const auto& e : r.all) with_phases.insert(e.parent);
  for (size_t k = 0; k < r.all.size(); ++k)
    if (r.all[k].id == RangeId::step) ++(with_phases.count(int(k)) ? direct : replayed);
  EXPECT_GT(direct, 0);
  EXPECT_GT(replayed, 0) << "a replay has no phases";

  // The samplers' own.
  const Result hard =
      run(train_words("LightGCN", dir / "hard", {"--device", "cuda", "--set", "epochs=1", "--set", "sampler=dns"}));
  ASSERT_EQ(hard.code, 0) << hard.err;

  const size_t before = r.all.size();
  const Result evaluated = run({"evaluate", dir / "run", "--device", "cuda"});
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  ASSERT_EQ(r.all.size(), before + 2);
  EXPECT_EQ(r.all[before].id, RangeId::read);
  EXPECT_EQ(r.all[before + 1].id, RangeId::evaluation);

  std::map<std::string, std::set<std::string>> guide;
  for (const auto& [name, d] : documented()) guide[name] = d.inside;
  EXPECT_EQ(nesting(r), guide);
  EXPECT_TRUE(r.open.empty());
  EXPECT_EQ(r.closed_too_often, 0);
  for (const auto& e : r.all) EXPECT_TRUE(e.closed);

  // The log's phases are ranges of their names.
  std::istringstream lines(read_text(dir / "run/metrics.jsonl"));
  std::set<std::string> logged;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json epoch = nlohmann::json::parse(line);
    for (const auto& [phase, seconds] : epoch.at("seconds").items()) logged.insert(phase);
  }
  EXPECT_EQ(logged, (std::set<std::string>{"train", "prune", "sample", "forward", "backward", "optimiser", "hardness",
                                           "reverse", "evaluation"}));
  logged.erase("train");
  for (const std::string& phase : logged) EXPECT_TRUE(guide.count(phase)) << phase;
}

TEST(Ranges, ARunOnTheCpuOpensNone) {
  const Folder dir;
  simt::RangeWatch watch;
  EXPECT_EQ(run(train_words("BPR", dir / "run", {"--device", "cpu", "--set", "epochs=1"})).code, 0);
  EXPECT_TRUE(watch.kept.all.empty());
}
#endif

}  // namespace
}  // namespace ccdrec::test
