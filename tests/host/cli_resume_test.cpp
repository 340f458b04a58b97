// Runs that are stopped, killed and taken up again: what is on the disk then, and that a resumed run equals an unbroken one bit for bit.
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "data/text.h"
#include "host/cli/interrupt.h"
#include "host/run_folder.h"
#include "tests/host/command.h"

namespace ccdrec::test {
namespace {

TEST(Cli, ResumeEqualsNeverHavingStopped) {
  const Folder dir;
  for (const char* model : {"BPR", "CCDRec"}) {
    const std::string whole = dir / (std::string(model) + "-whole"), parts = dir / (std::string(model) + "-parts");
    ASSERT_EQ(run(train_words(model, whole, {"--set", "epochs=5"})).code, 0);
    ASSERT_EQ(run(train_words(model, parts, {"--set", "epochs=2"})).code, 0);
    std::ofstream(parts + "/metrics.jsonl", std::ios::app) << "{\"epoch\": 2, \"half a li";
    const Result r = run({"train", "--resume", parts, "--set", "epochs=5", "--threads", "1"});
    ASSERT_EQ(r.code, 0) << r.err;
    expect_same_tensors(whole + "/last.safetensors", parts + "/last.safetensors");
    expect_same_tensors(whole + "/best.safetensors", parts + "/best.safetensors");
    std::istringstream a(read_text(whole + "/metrics.jsonl")), b(read_text(parts + "/metrics.jsonl"));
    int n = 0;
    for (std::string x, y; std::getline(a, x); ++n) {
      ASSERT_TRUE(std::getline(b, y));
      auto jx = nlohmann::json::parse(x), jy = nlohmann::json::parse(y);
      jx.erase("seconds"), jy.erase("seconds");
      EXPECT_EQ(jx, jy);
    }
    EXPECT_EQ(n, 5);
    EXPECT_EQ(run({"train", "--resume", parts, "--set", "learning_rate=1"}).code, 2);
    EXPECT_EQ(run({"train", "--resume", parts, "-c", "x.yaml"}).code, 2);
  }
}

TEST(Cli, ResumeOfAFinishedRunDoesNothingAndFewerEpochsAreRefused) {
  const Folder dir;
  const std::string folder = dir / "run";
  ASSERT_EQ(run(train_words("LightGCN", folder, {"--set", "epochs=3"})).code, 0);
  const std::string yaml = read_text(folder + "/config.yaml"), summary = read_text(folder + "/summary.json");
  const Result fewer = run({"train", "--resume", folder, "--set", "epochs=2"});
  EXPECT_EQ(fewer.code, 2);
  EXPECT_TRUE(has(fewer.err, "epochs is 2, but ")) << fewer.err;
  EXPECT_EQ(std::count(fewer.err.begin(), fewer.err.end(), '\n'), 1) << fewer.err;
  for (int again = 0; again < 2; ++again) {
    const Result r = run({"train", "--resume", folder});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out.rfind("nothing to do: ", 0), 0u) << r.out;
  }
  EXPECT_EQ(read_text(folder + "/summary.json"), summary);
  EXPECT_EQ(read_text(folder + "/config.yaml"), yaml);
  EXPECT_TRUE(has(yaml, "# -m\n")) << "origins are those of the first command";
  // What changed is written anew, the rest keeps saying where it came from.
  ASSERT_EQ(run({"train", "--resume", folder, "--set", "epochs=4"}).code, 0);
  const std::string changed = read_text(folder + "/config.yaml");
  std::istringstream a(yaml), b(changed);
  std::string x, y;
  int differ = 0;
  while (std::getline(a, x) && std::getline(b, y))
    if (x != y) {
      ++differ;
      EXPECT_EQ(y.rfind("epochs: 4 ", 0), 0u) << y;
    }
  EXPECT_EQ(differ, 1);

  // Stopped early: not one epoch more at every call.
  const std::string early = dir / "early";
  ASSERT_EQ(run(train_words("BPR", early, {"--set", "epochs=500", "--set", "stopping_step=0"})).code, 0);
  ASSERT_EQ(RunFolder::open(early).summary().at("stopped"), "early");
  const std::string metrics = read_text(early + "/metrics.jsonl");
  EXPECT_TRUE(has(run({"train", "--resume", early}).out, "it stopped early"));
  std::filesystem::remove(early + "/summary.json");  // killed before the last line was written
  EXPECT_EQ(run({"train", "--resume", early}).code, 0);
  EXPECT_EQ(RunFolder::open(early).summary().at("stopped"), "early");
  EXPECT_EQ(read_text(early + "/metrics.jsonl"), metrics);
}

// kill -9 at any time: the folder can be used again, and in the end holds what an unbroken run leaves.
TEST(Cli, AKilledRunIsNotLockedOut) {
  const Folder dir;
  const std::string whole = dir / "whole", killed = dir / "killed";
  ASSERT_EQ(run(train_words("LightGCN", whole, {"--set", "epochs=4"})).code, 0);
  const auto remains = [&](const std::vector<std::string>& lost) {
    std::filesystem::remove_all(killed);
    std::filesystem::copy(whole, killed);
    for (const std::string& file : lost) std::filesystem::remove(killed + "/" + file);
  };
  remains({"last.safetensors", "summary.json"});  // in the first epochs: a best model, no state
  EXPECT_TRUE(has(run(train_words("LightGCN", killed)).err, "continue it with --resume")) << "nothing is overwritten";
  const Result r = run({"train", "--resume", killed});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "begins again at epoch 0")) << r.out;
  expect_same_tensors(whole + "/last.safetensors", killed + "/last.safetensors");
  expect_same_tensors(whole + "/best.safetensors", killed + "/best.safetensors");
  const std::string metrics = read_text(killed + "/metrics.jsonl");
  EXPECT_EQ(std::count(metrics.begin(), metrics.end(), '\n'), 4);

  remains({"last.safetensors", "summary.json", "best.safetensors"});  // before the end of the first epoch: nothing to lose
  const Result anew = run(train_words("LightGCN", killed, {"--set", "epochs=2"}));
  ASSERT_EQ(anew.code, 0) << anew.err;
  EXPECT_TRUE(has(anew.out, "takes its place")) << anew.out;
  EXPECT_EQ(RunFolder::open(killed).summary().at("epochs_run"), 2);

  remains({"last.safetensors"});  // finished with save_last off
  EXPECT_TRUE(has(run({"train", "--resume", killed}).err, "no last.safetensors"));

  const RunLock other(RunFolder::open(whole));
  EXPECT_TRUE(has(run({"train", "--resume", whole, "--set", "epochs=9"}).err, "another program is training"));
}

// The best model was saved after the last state, then the program was killed: until the run is there again, no best file disagrees with the summary.
TEST(Cli, ABestModelAheadOfTheStateIsDropped) {
  const Folder dir;
  const std::string folder = dir / "run";
  ASSERT_EQ(run(train_words("LightGCN", folder, {"--set", "epochs=1", "--set", "eval_step=1"})).code, 0);
  std::filesystem::copy(folder + "/last.safetensors", dir / "state");
  ASSERT_EQ(run({"train", "--resume", folder, "--set", "epochs=30"}).code, 0);
  const int best = RunFolder::open(folder).summary().at("best_epoch");
  ASSERT_GT(best, 1);
  const std::string saved = dir.read("run/best.safetensors");
  std::filesystem::rename(dir / "state", folder + "/last.safetensors");
  std::filesystem::remove(folder + "/summary.json");
  const Result r = run({"train", "--resume", folder, "--set", "epochs=" + std::to_string(best)});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "best.safetensors was of epoch " + std::to_string(best))) << r.out;
  const int now = RunFolder::open(folder).summary().at("best_epoch");
  EXPECT_LT(now, best);
  if (const Result e = run({"evaluate", folder, "--json"}); e.code == 0)  // the file is there again, of the summary's epoch
    EXPECT_EQ(nlohmann::json::parse(e.out).at("valid"), RunFolder::open(folder).summary().at("best_valid"));
  else
    EXPECT_TRUE(has(e.err, "no best.safetensors")) << e.err;
  ASSERT_EQ(run({"train", "--resume", folder, "--set", "epochs=30"}).code, 0);
  EXPECT_EQ(RunFolder::open(folder).summary().at("best_epoch"), best);
  dir.write("before", saved);
  expect_same_tensors(dir / "before", folder + "/best.safetensors");
}

// The other two ways to be asked to stop, and a terminal that closes under nohup.
TEST(Interrupt, HangupAndTerminationAskToStopUnlessIgnored) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    const cli::InterruptGuard guard;
    EXPECT_FALSE(cli::InterruptGuard::asked());
    std::raise(signal);
    EXPECT_TRUE(cli::InterruptGuard::asked()) << signal;
  }
  const auto before = std::signal(SIGHUP, SIG_IGN);
  {
    const cli::InterruptGuard guard;
    std::raise(SIGHUP);
    EXPECT_FALSE(cli::InterruptGuard::asked());
  }
  std::signal(SIGHUP, before);
}

TEST(Cli, CtrlCSavesTheStateAndEndsWith130) {
  const Folder dir;
  const std::string folder = dir / "run";
  std::atomic<bool> ended = false;
  std::thread hand([&] {  // presses Ctrl-C once an epoch has been reported
    for (int i = 0; i < 3000 && !ended && !std::filesystem::exists(folder + "/metrics.jsonl"); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (std::filesystem::exists(folder + "/metrics.jsonl") && !ended) std::raise(SIGINT);
  });
  const Result r = run(train_words("LightGCN", folder, {"--set", "epochs=1000000", "--set", "stopping_step=1000000", "--set", "eval_step=1000000"}));
  ended = true;
  hand.join();
  EXPECT_EQ(r.code, 130) << r.err;
  EXPECT_TRUE(has(r.out, "continue with: ccdrec train --resume " + folder)) << r.out;
  EXPECT_EQ(RunFolder::open(folder).summary().at("stopped"), "interrupted");
  const int done = RunFolder::open(folder).summary().at("epochs_run");
  EXPECT_EQ(run({"train", "--resume", folder, "--set", "epochs=" + std::to_string(done + 2)}).code, 0);
  EXPECT_EQ(RunFolder::open(folder).summary().at("epochs_run"), done + 2);
}

}  // namespace
}  // namespace ccdrec::test
