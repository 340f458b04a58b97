// The run folder: what is written, what is replaced whole, what a resumed run drops.
#include "host/files/run_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "data/error.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/base/progress.h"
#include "tests/host/tiny_data.h"

namespace ccdrec {
namespace {

using test::Folder;

EpochReport epoch(int n, double recall) {
  EpochReport e;
  e.epoch = n, e.steps = 3, e.loss = 1.0 / 3.0, e.losses = {{"bpr", 0.1}}, e.seconds = {{"train", 0.25}},
  e.evaluated = true;
  e.valid = {{"recall@20", recall}}, e.test = {{"recall@20", recall / 2}}, e.negatives = "T/4";
  return e;
}

TEST(RunFolder, MetricsKeepFullPrecisionAndResumeDropsWhatWillRunAgain) {
  const Folder dir;
  const RunFolder folder = RunFolder::create(dir / "run");
  for (int n = 0; n < 5; ++n) folder.append_epoch(epoch(n, 0.1 + 1e-15 * n));
  std::ofstream(folder.path("metrics.jsonl"), std::ios::app) << R"({"epoch": 5, "lo)";  // the machine lost power here
  folder.truncate_epochs(3);
  std::istringstream lines(read_text(folder.path("metrics.jsonl")));
  int n = 0;
  for (std::string line; std::getline(lines, line); ++n) {
    const auto j = nlohmann::json::parse(line);
    EXPECT_EQ(j.at("epoch"), n);
    EXPECT_EQ(j.at("valid").at("recall@20").get<double>(), 0.1 + 1e-15 * n);
    EXPECT_EQ(j.at("loss").get<double>(), 1.0 / 3.0);
    EXPECT_EQ(j.at("negatives"), "T/4");
  }
  EXPECT_EQ(n, 3);
  EpochReport nan = epoch(3, 0.1);
  nan.loss = NAN;
  folder.append_epoch(nan);
  folder.truncate_epochs(4);
  EXPECT_NE(read_text(folder.path("metrics.jsonl")).find("\"loss\":null"), std::string::npos);
}

TEST(RunFolder, HoldsOneRunOnly) {
  const Folder dir;
  EXPECT_THROW(RunFolder::open(dir / "run"), UserError);
  const RunFolder folder = RunFolder::create(dir / "run");
  EXPECT_NO_THROW(folder.check_new()) << "empty";
  write_text(folder.path("best.safetensors"), "x");
  EXPECT_THROW(folder.check_new(), UserError) << "not empty, and no run";
  const auto config = [&](const std::string& run_dir) {
    return config_yaml(
        resolve_config({}, {{"model", "BPR", "test"}, {"seed", "7", "test"}, {"run_dir", run_dir, "test"}}));
  };
  write_text(folder.path("config.yaml"), config(dir / "run"));
  EXPECT_THROW(folder.check_new(), UserError);
  EXPECT_EQ(RunFolder::open((dir / "run") + "/").config().settings.seed, 7u);
  EXPECT_EQ(RunFolder::open((dir / "run") + "//").dir(), dir / "run");
  write_text(dir / "file", "x");
  EXPECT_THROW(RunFolder::create(dir / "file"), UserError);
  EXPECT_THROW(read_text(dir.path()), UserError);
  folder.remove("best.safetensors");
  EXPECT_NO_THROW(folder.check_new()) << "killed before it left anything but its settings";
  EXPECT_NO_THROW(folder.check_begun());
  write_text(folder.path("config.yaml"), config("runs/another"));
  EXPECT_THROW(folder.check_new(), UserError) << "settings copied from another run";
  EXPECT_THROW(folder.check_begun(), UserError);
}

TEST(RunFolder, ANameThatTheProgramChoosesIsFree) {
  const Folder dir;
  const std::string name = dir / "runs/BPR-tiny-999-20250131-142501";
  EXPECT_EQ(RunFolder::create_free(name).dir(), name);
  EXPECT_EQ(RunFolder::create_free(name).dir(), name + "-2");
  write_text(name + "-3", "a file");
  std::vector<std::thread> starts;
  std::vector<std::string> got(8);
  for (std::string& g : got) starts.emplace_back([&] { g = RunFolder::create_free(name).dir(); });
  for (std::thread& t : starts) t.join();
  std::sort(got.begin(), got.end());
  EXPECT_EQ(std::unique(got.begin(), got.end()), got.end());
  EXPECT_EQ(got.front(), name + "-10");
  EXPECT_THROW(RunFolder::create_free(name + "-3/sub"), UserError);
}

TEST(RunFolder, OneProgramAtATimeTrainsInIt) {
  const Folder dir;
  const RunFolder folder = RunFolder::create(dir / "run");
  {
    const RunLock lock(folder);
    EXPECT_THROW(RunLock second(folder), UserError);
  }
  EXPECT_NO_THROW(RunLock third(folder));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "run"), {}), 0) << "it leaves no file";
}

TEST(RunFolder, IdsAndSummary) {
  const Folder dir;
  const RunFolder folder = RunFolder::create(dir / "run");
  Dataset data;
  data.name = "x", data.folder = "/x", data.interactions = "rows", data.checksum = "abc", data.n_users = 2,
  data.n_items = 3;
  data.users = IdMap::of({"A 1", "ü"}), data.items = IdMap::dense_of(3);
  folder.write_ids(data);
  EXPECT_EQ(read_text(folder.path("users.tsv")), "0\tA 1\n1\tü\n");
  EXPECT_EQ(folder.ids("items.tsv"), (std::vector<std::string>{"0", "1", "2"}));
  write_text(folder.path("users.tsv"), "0\tA\n2\tB\n");
  EXPECT_THROW(folder.ids("users.tsv"), UserError);

  TrainSummary s;
  s.best_epoch = 4, s.epochs_run = 9, s.best_score = 0.0123, s.best_test = {{"recall@20", 0.1 + 0.2}},
  s.reason = StopReason::early;
  folder.write_summary(resolve_config({}, {}), data, s);
  const auto j = folder.summary();
  EXPECT_EQ(j.at("best_test").at("recall@20").get<double>(), 0.1 + 0.2);
  EXPECT_EQ(j.at("stopped"), "early");
  EXPECT_EQ(j.at("data").at("checksum"), "abc");
  EXPECT_EQ(j.at("data").at("interactions"), "rows");
  write_text(folder.path("summary.json"), "[1]");
  EXPECT_THROW(folder.summary(), UserError);
}

TEST(Progress, BarFitsItsWidthAndTellsTheTimeLeft) {
  const std::string half = render_bar(3, 116, 232, 2.0, "loss 0.4120", 80);
  EXPECT_NE(half.find("116/232  2.0 s left  loss 0.4120"), std::string::npos) << half;
  size_t full = 0, open = 0;
  for (size_t at = 0; (at = half.find("█", at)) != std::string::npos; at += 3) ++full;
  for (size_t at = 0; (at = half.find("░", at)) != std::string::npos; at += 3) ++open;
  EXPECT_EQ(full, open);
  EXPECT_LT(full + open + 50, 80u + 10);
  EXPECT_EQ(render_bar(0, 0, 0, 0, "", 15), "epoch 0    0/0");  // too narrow for a bar, nothing to divide by
  for (int width = 0; width < 120; ++width) {
    const std::string bar = render_bar(12, 116, 232, 2.0, "loss 0.4120  best Recall@20 0.0912", width);
    const auto columns = std::count_if(bar.begin(), bar.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; });
    EXPECT_LT(columns, std::max(width, 1)) << "it would wrap: " << bar;
    EXPECT_EQ(std::string("epoch 12").rfind(bar.substr(0, 8), 0), 0u) << bar;
  }
  EXPECT_EQ(describe_seconds(59.96), "60.0 s");
  EXPECT_EQ(describe_seconds(250), "4 min 10 s");
  EXPECT_EQ(describe_seconds(7500), "2 h 05 min");
  EXPECT_EQ(describe_seconds(NAN), "?");
}

TEST(Progress, ABarNeedsATerminalThatCanBeDrawnOn) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0) GTEST_SKIP() << "no pseudo-terminals here";
  const int file = ::open("/dev/null", O_WRONLY);
  const char* const was = std::getenv("TERM");
  const std::string before = was ? was : "";
  for (const auto& [kind, can] : {std::pair{"xterm-256color", true}, {"dumb", false}, {"", false}}) {
    ::setenv("TERM", kind, 1);
    EXPECT_EQ(draws(terminal), can) << kind;
    EXPECT_FALSE(draws(file)) << kind;
  }
  ::unsetenv("TERM");
  EXPECT_FALSE(draws(terminal));
  if (was) ::setenv("TERM", before.c_str(), 1);
  ::close(terminal), ::close(file);
}

TEST(Progress, NobodyWatchingMeansPlainLines) {
  const Folder dir;
  std::ostringstream out, screen;
  {
    Progress p(out, screen, false);
    p.log_to(dir / "train.log", false);
    for (int s = 1; s <= 10; ++s) p.step(0, s, 10);
    p.line("epoch 0 training");
    p.log_only("detail");
    p.line("of \x1b[31m a file");
  }
  EXPECT_EQ(out.str(), "epoch 0 training\nof ?[31m a file\n");
  EXPECT_EQ(screen.str(), "");
  const std::string log = read_text(dir / "train.log");
  EXPECT_NE(log.find("  epoch 0 training\n"), std::string::npos);
  EXPECT_NE(log.find("  detail\n"), std::string::npos);
  EXPECT_NE(log.find("  of ?[31m a file\n"), std::string::npos);
  EXPECT_EQ(log.find('\x1b'), std::string::npos);
}

TEST(Machine, NumbersAsPeopleReadThem) {
  EXPECT_EQ(describe_bytes(310'200'000), "310.2 MB");
  EXPECT_EQ(describe_bytes(999), "999 B");
  // Pages of files that were read count as taken, and are given back when memory is asked for.
  const Folder group;
  group.write("memory.current", "1000000\n");
  EXPECT_EQ(used_by_group(group.path()), 1000000u);
  group.write("memory.stat", "anon 300000\nfile 700000\nactive_file 50000\ninactive_file 650000\nslab 7\n");
  EXPECT_EQ(used_by_group(group.path()), 350000u);
  EXPECT_EQ(used_by_group(group / "absent"), 0u);
  const Machine m = this_machine();
  EXPECT_GT(m.available_bytes, 0u);
  EXPECT_LE(m.available_bytes, m.memory_bytes);
  EXPECT_GE(m.cores, 1);
}

}  // namespace
}  // namespace ccdrec
