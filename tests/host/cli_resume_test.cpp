// Runs that are stopped, killed and taken up again: what is on the disk then, and that a resumed run equals an unbroken
// one bit for bit.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "data/text.h"
#include "host/cli/interrupt.h"
#include "host/files/run_folder.h"
#include "host/training/checkpoint.h"
#include "tests/host/command.h"
#include "tests/host/process.h"

namespace ccdrec::test {
namespace {

TEST(Cli, ResumeEqualsNeverHavingStopped) {
  const Folder dir;
  struct Resumed {
    const char *name, *model;
    std::vector<std::string> more;
  };
  const Resumed all[] = {
      {"BPR", "BPR", {}},
      {"CCDRec", "CCDRec", {}},
      {"MG+DNS", "LightGCN", {"--set", "use_mg=true", "--set", "sampler=dns", "--set", "n_candidates=8"}},
      {"MixGCF", "FREEDOM", {"--set", "sampler=mixgcf", "--set", "omega=0.7"}},
      {"LATTICE", "LATTICE", {}},
      {"BM3", "BM3", {}},
      {"SLMRec", "SLMRec", {}},
      {"MMGCN", "MMGCN", {}},
      {"MCDRec", "MCDRec", {"--set", "timesteps=3", "--set", "estimator=attention"}},
      {"DGD", "CCDRec", {"--set", "backbone=MCDRec"}},
      {"RealHNS", "LightGCN", {"--set", "sampler=realhns", "--set", "realhns_start=1"}}};
  for (const Resumed& m : all) {
    const std::string whole = dir / (std::string(m.name) + "-whole"), parts = dir / (std::string(m.name) + "-parts");
    const auto trained = [&](const std::string& folder, const char* epochs) {
      std::vector<std::string> more = m.more;
      more.insert(more.end(), {"--set", epochs});
      return run(train_words(m.model, folder, more)).code;
    };
    ASSERT_EQ(trained(whole, "epochs=5"), 0);
    ASSERT_EQ(trained(parts, "epochs=2"), 0);
    std::ofstream(parts + "/metrics.jsonl", std::ios::app) << "{\"epoch\": 2, \"half a li";
    const Result r = run({"train", "--resume", parts, "--set", "epochs=5", "--threads", "1"});
    ASSERT_EQ(r.code, 0) << r.err;
    expect_same_tensors(whole + "/last.safetensors", parts + "/last.safetensors");
    expect_same_tensors(whole + "/best.safetensors", parts + "/best.safetensors");
    EXPECT_TRUE(read_text(whole + "/users.f32") == read_text(parts + "/users.f32"));
    const auto end = RunFolder::open(whole).summary(), resumed_end = RunFolder::open(parts).summary();
    for (const char* key : {"users", "lists", "groups"}) EXPECT_EQ(end.at(key), resumed_end.at(key)) << m.name;
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
  const std::string whole = dir / "whole/run", killed = dir / "killed/run";
  ASSERT_EQ(run(train_words("LightGCN", whole, {"--set", "epochs=4"})).code, 0);
  const auto remains = [&](const std::vector<std::string>& lost) {
    std::filesystem::remove_all(killed);
    std::filesystem::create_directories(dir / "killed");
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

  // before the end of the first epoch: nothing to lose
  remains({"last.safetensors", "summary.json", "best.safetensors"});
  const Result anew = run(train_words("LightGCN", killed, {"--set", "epochs=2"}));
  ASSERT_EQ(anew.code, 0) << anew.err;
  EXPECT_TRUE(has(anew.out, "takes its place")) << anew.out;
  EXPECT_EQ(RunFolder::open(killed).summary().at("epochs_run"), 2);

  remains({"last.safetensors"});  // finished with save_last off
  EXPECT_TRUE(has(run({"train", "--resume", killed}).err, "no last.safetensors"));

  const RunLock other(RunFolder::open(whole));
  std::ofstream(whole + "/last.safetensors") << "half a state, as it seems to one who reads it before the lock is free";
  EXPECT_TRUE(has(run({"train", "--resume", whole, "--set", "epochs=9"}).err, "another program is training"));
}

nlohmann::json without_seconds(nlohmann::json j) {
  for (const char* key : {"seconds", "train_seconds", "eval_seconds"}) j.erase(key);
  return j;
}
std::vector<nlohmann::json> epochs_of(const std::string& folder) {
  std::vector<nlohmann::json> epochs;
  std::istringstream lines(read_text(folder + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) epochs.push_back(without_seconds(nlohmann::json::parse(line)));
  return epochs;
}
// The epochs at which best.safetensors was replaced.
std::vector<int> improved(const std::string& folder) {
  std::vector<int> at;
  for (const nlohmann::json& e : epochs_of(folder))
    if (e.value("improved", false)) at.push_back(e.at("epoch"));
  return at;
}
void expect_same_run(const std::string& a, const std::string& b) {
  expect_same_tensors(a + "/last.safetensors", b + "/last.safetensors");
  expect_same_tensors(a + "/best.safetensors", b + "/best.safetensors");
  EXPECT_EQ(epochs_of(a), epochs_of(b));
  EXPECT_EQ(without_seconds(RunFolder::open(a).summary()), without_seconds(RunFolder::open(b).summary()));
  EXPECT_TRUE(read_text(a + "/users.f32") == read_text(b + "/users.f32"));
  EXPECT_FALSE(std::filesystem::exists(b + "/best-of-last.safetensors"));
}

// What a kill leaves between two writes, made of the files that runs of different length leave.
class KilledRun : public ::testing::Test {
 protected:
  std::string trained(const std::string& name, int epochs, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--set", "epochs=" + std::to_string(epochs)});
    const Result r = run(train_words("LightGCN", (dir / name) + "/run", more));
    EXPECT_EQ(r.code, 0) << r.err;
    return (dir / name) + "/run";
  }
  static void put(const std::string& from, const std::string& file, const std::string& to, const std::string& as = "") {
    std::filesystem::copy_file(from + "/" + file, to + "/" + (as.empty() ? file : as),
                               std::filesystem::copy_options::overwrite_existing);
  }
  Result resume(int epochs) { return run({"train", "--resume", killed, "--set", "epochs=" + std::to_string(epochs)}); }
  int best() const { return best_epoch_of(killed + "/best.safetensors"); }

  const Folder dir;
  std::string killed;
};

TEST_F(KilledRun, TheBestModelOfTheStateIsKeptUntilABetterOneIsThere) {
  const std::string whole = trained("whole", 30);
  const std::vector<int> at = improved(whole);
  ASSERT_GE(at.size(), 3u);
  const int first = at[0], later = at.back(), stop = first + 1;
  ASSERT_GT(later, stop);
  const std::string ahead = trained("ahead", later + 1);  // its best is of `later`
  killed = trained("killed", stop);                       // its best is of `first`
  const std::string before = (dir / "before") + "/run";
  std::filesystem::create_directories(dir / "before");
  std::filesystem::copy(killed, before);
  const auto back = [&](const char* best_of_last) {
    std::filesystem::remove_all(killed);
    std::filesystem::copy(before, killed);
    std::filesystem::remove(killed + "/summary.json");
    put(ahead, "best.safetensors", killed);
    if (best_of_last) put(before, "best.safetensors", killed, best_of_last);
  };
  // Killed after a better model was written, before the state was: the state's own comes back, also where the run ends
  // before the better one comes.
  back("best-of-last.safetensors");
  Result r = resume(stop);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(best(), first);
  expect_same_run(before, killed);
  const Result e = run({"evaluate", killed, "--json"});
  EXPECT_EQ(nlohmann::json::parse(e.out).at("valid"), RunFolder::open(killed).summary().at("best_valid"));
  back("best-of-last.safetensors");
  ASSERT_EQ(resume(30).code, 0);
  expect_same_run(whole, killed);
  // Killed after the state had caught up.
  back("best-of-last.safetensors");
  put(ahead, "last.safetensors", killed);
  put(ahead, "metrics.jsonl", killed);
  ASSERT_EQ(resume(30).code, 0);
  expect_same_run(whole, killed);
  // An earlier program kept nothing: the better model stays until the run has come to its epoch again, and a note says
  // so.
  back(nullptr);
  r = resume(stop);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(
      has(r.out, "best.safetensors is of epoch " + std::to_string(later) + ", not of epoch " + std::to_string(first)))
      << r.out;
  EXPECT_EQ(best(), later) << "nothing is deleted that is not replaced";
  ASSERT_EQ(resume(30).code, 0);
  expect_same_run(whole, killed);
}

TEST_F(KilledRun, AMissingBestModelIsSaidWhereNothingIsLeftToDo) {
  killed = trained("killed", 2);
  std::filesystem::remove(killed + "/best.safetensors");
  const Result r = resume(2);
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(has(r.out, "nothing to do")) << r.out;
  EXPECT_TRUE(has(r.err, "note: best.safetensors is not there")) << r.err;
}

// epochs=5, eval_step=7: evaluated at its end for its own sake. The longer run does not make that evaluation, and shows
// none.
TEST_F(KilledRun, TheEvaluationOfAShorterRunLeavesNoLine) {
  const std::string whole = trained("whole", 9, {"--set", "eval_step=7"});
  killed = trained("killed", 5, {"--set", "eval_step=7"});
  EXPECT_EQ(improved(killed), std::vector<int>{4});
  ASSERT_EQ(resume(9).code, 0);
  expect_same_run(whole, killed);
}

// The folder of a run that was killed before it had saved anything is begun again with other data and killed again: two
// sets have left their ids.
TEST_F(KilledRun, IdsAreThoseOfTheDataThatIsTrained) {
  killed = trained("killed", 2);
  const std::string users = read_text(killed + "/users.tsv"), items = read_text(killed + "/items.tsv");
  for (const char* file : {"last.safetensors", "best.safetensors", "summary.json"})
    std::filesystem::remove(killed + "/" + file);
  std::ofstream(killed + "/users.tsv") << "0\tanother\n";
  std::ofstream(killed + "/items.tsv") << "0\tanother\n";
  ASSERT_EQ(resume(2).code, 0);
  EXPECT_EQ(read_text(killed + "/users.tsv"), users);
  EXPECT_EQ(read_text(killed + "/items.tsv"), items);
}

// No state, but a model: what it was computed from is known, and other data is refused before anything changes.
TEST_F(KilledRun, ABestModelOfOtherDataIsRefused) {
  killed = trained("killed", 2);
  for (const char* file : {"last.safetensors", "summary.json"}) std::filesystem::remove(killed + "/" + file);
  const std::string ids = read_text(killed + "/users.tsv"), log = read_text(killed + "/metrics.jsonl");
  ASSERT_EQ(run({"synth", "tiny", "--out", dir / "other", "--users", "60", "--items", "40", "--interactions", "600",
                 "--seed", "4"})
                .code,
            0);
  const Result r = run({"train", "--resume", killed, "-d", dir / "other"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(has(r.err, "best.safetensors: the data folder has changed since this run")) << r.err;
  EXPECT_EQ(read_text(killed + "/users.tsv"), ids);
  EXPECT_EQ(read_text(killed + "/metrics.jsonl"), log);
}

TEST_F(KilledRun, LeftOverTemporaryFilesGo) {
  killed = trained("killed", 2);
  const pid_t gone = [] {  // the number of a process that has ended
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
    return child;
  }();
  const std::string dead = std::to_string(gone), alive = std::to_string(::getppid());
  const auto name = [&](const std::string& file) { return killed + "/" + file; };
  for (const std::string& file :
       {"best.safetensors.tmp-" + dead, "last.safetensors.tmp-" + dead + "-2", "last.safetensors.tmp-" + alive,
        "notes.tmp-" + dead, "best.safetensors.tmp-" + dead + "x"})
    std::ofstream(name(file)) << "half";
  ASSERT_EQ(resume(3).code, 0);
  EXPECT_FALSE(std::filesystem::exists(name("best.safetensors.tmp-" + dead)));
  EXPECT_FALSE(std::filesystem::exists(name("last.safetensors.tmp-" + dead + "-2")));
  EXPECT_TRUE(std::filesystem::exists(name("last.safetensors.tmp-" + alive))) << "its process lives";
  EXPECT_TRUE(std::filesystem::exists(name("notes.tmp-" + dead))) << "no file of a run";
  EXPECT_TRUE(std::filesystem::exists(name("best.safetensors.tmp-" + dead + "x")));
}

TEST_F(KilledRun, SettingsThatDifferAreNamedWithBothValues) {
  killed = trained("killed", 2);
  const Result given =
      run({"train", "--resume", killed, "--set", "learning_rate=0.25", "--set", "epochs=3", "--seed", "5"});
  EXPECT_EQ(given.code, 2);
  EXPECT_TRUE(
      has(given.err, "run: learning_rate is 0.001 and would be 0.25, seed is 999 and would be 5; that cannot change"))
      << given.err;
  std::string yaml = read_text(killed + "/config.yaml");
  const auto change = [&](const std::string& from, const std::string& to) {
    const size_t at = yaml.find("\n" + from);
    ASSERT_NE(at, std::string::npos) << from;
    yaml.replace(at + 1, from.size(), to);
  };
  change("learning_rate: 0.001", "learning_rate: 0.25");
  change("n_ui_layers: 2", "n_ui_layers: 3");
  write_text(killed + "/config.yaml", yaml);
  for (const char* file : {"last.safetensors", "best.safetensors"}) {
    const Result r = resume(3);
    EXPECT_EQ(r.code, 2);
    EXPECT_TRUE(
        has(r.err, "learning_rate = 0.001 there and 0.25 in this run, n_ui_layers = 2 there and 3 in this run;"))
        << file << ": " << r.err;
    EXPECT_FALSE(has(r.err, "embedding_size")) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    std::filesystem::remove(killed + "/summary.json");
    std::filesystem::remove(killed + "/last.safetensors");  // the second time the model alone is left
  }
}

// Hard negatives and Mirror Gradient decide the course of a run: a state says which it had, one of before them that it
// had none.
TEST_F(KilledRun, AnotherSamplerIsNamed) {
  killed = trained("killed", 2);
  const Result given =
      run({"train", "--resume", killed, "--set", "sampler=dns", "--set", "use_mg=true", "--set", "epochs=3"});
  EXPECT_EQ(given.code, 2);
  EXPECT_TRUE(has(given.err, "sampler is none and would be dns")) << given.err;
  EXPECT_TRUE(has(given.err, "use_mg is false and would be true")) << given.err;
  const std::string yaml = read_text(killed + "/config.yaml");
  write_text(killed + "/config.yaml", yaml + "sampler: dns\ntop_m: 2\nomega: 0.8\nuse_mg: true\nbeta: 4\n");
  const Result r = resume(3);
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(has(r.err,
                  "use_mg = false there and true in this run, beta = 3 there and 4 in this run, sampler = none there "
                  "and dns in this run, "
                  "top_m = 1 there and 2 in this run;"))
      << r.err;
}

// Every number of a state, each wrong in every way that was found to train wrongly or to end as a fault.
TEST_F(KilledRun, NumbersOfAStateAreChecked) {
  killed = trained("killed", 3);
  const std::string path = killed + "/last.safetensors";
  const TensorFile good = read_safetensors(path);
  const auto written = [&](const std::map<std::string, std::string>& metadata) {
    std::vector<TensorView> views;
    for (const auto& [name, t] : good.tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
    write_safetensors(path, views, metadata);
  };
  const auto refused = [&](const std::string& key, const std::string& value) {
    const Result r = resume(5);
    EXPECT_EQ(r.code, 2) << key << " = " << value << ": " << r.out << r.err;
    EXPECT_TRUE(has(r.err, "last.safetensors") && has(r.err, key)) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  };
  for (const char* key : {"epoch", "next_step", "failures", "t"})
    for (const char* value : {"-1", "-3", "-2147483648", "2147483647", "4294967296", "1000000", "4611686018427387904",
                              "99999999999999999999", "3abc", "", " 3", "+3", "0x3", "3.0", "1e3", "nan", "\x1b[31m"}) {
      auto metadata = good.metadata;
      metadata[key] = value;
      written(metadata);
      refused(key, value);
    }
  for (const char* value : {"0", "1", "2", "-5"}) {  // t: what epoch and step make it
    auto metadata = good.metadata;
    metadata["t"] = value;
    written(metadata);
    refused("t", value);
  }
  const auto summary = nlohmann::json::parse(good.metadata.at("summary"));
  for (const auto& [key, unused] : summary.items())
    for (const char* value : {"1e300", "-1e300", "-2", "3000000000", "18446744073709551615", "\"2\"", "null", "[1]",
                              "{\"recall@20\":1e300}", "true"}) {
      auto changed = summary;
      changed[key] = nlohmann::json::parse(value);
      auto metadata = good.metadata;
      metadata["summary"] = changed.dump();
      if (key.ends_with("_seconds") && changed[key] == 3000000000) continue;  // a century, and no number to fear
      written(metadata);
      refused("summary", key + " " + value);
    }
  auto twice = good.metadata;
  twice["summary"].insert(1, "\"best_epoch\":0,");
  written(twice);
  refused("summary", "best_epoch twice");
  written(good.metadata);
  EXPECT_EQ(resume(5).code, 0);
}

TEST_F(KilledRun, NumbersOfASummaryAreChecked) {
  killed = trained("killed", 2);
  const nlohmann::json good = RunFolder::open(killed).summary();
  for (const auto& [key, value] : {std::pair{"epochs_run", "1e300"},
                                   {"epochs_run", "-1"},
                                   {"best_epoch", "4294967296"},
                                   {"best_epoch", "\"1\""},
                                   {"stopped", "3"}}) {
    auto changed = good;
    changed[key] = nlohmann::json::parse(value);
    write_text(killed + "/summary.json", changed.dump());
    for (const Result& r : {resume(2), run({"compare", killed})}) {
      EXPECT_EQ(r.code, 2) << key << value << r.out;
      EXPECT_TRUE(has(r.err, std::string("summary.json: ") + key)) << r.err;
    }
  }
}

TEST(Cli, AFolderThatHoldsNoRunIsLeftAlone) {
  const Folder dir;
  std::filesystem::create_directories(dir / "mine");
  dir.write("mine/items.tsv", "0\tprecious\n");
  const auto refused = [&](const std::vector<std::string>& words, const std::string& sentence) {
    const Result r = run(words);
    EXPECT_EQ(r.code, 2) << r.out;
    EXPECT_TRUE(has(r.err, sentence)) << r.err;
  };
  refused(train_words("LightGCN", dir / "mine"),
          "mine: is not empty and holds no run of this program (it has items.tsv)");
  dir.write("mine/config.yaml", "model: LightGCN\nepochs: 2\n");  // settings, as -c takes them
  refused(train_words("LightGCN", dir / "mine"), "mine: is not empty and holds no run");
  refused({"train", "--resume", dir / "mine", "-d", data_folder()}, "mine: no run has begun in it");
  EXPECT_EQ(dir.read("mine/items.tsv"), "0\tprecious\n");
  EXPECT_EQ(dir.read("mine/config.yaml"), "model: LightGCN\nepochs: 2\n");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "mine"), {}), 2);
  std::filesystem::create_directories(dir / "empty");
  EXPECT_EQ(run(train_words("LightGCN", dir / "empty", {"--set", "epochs=1"})).code, 0);
}

TEST(Cli, AFileOverTheSizeLimitIsASentence) {
  const Folder dir;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  data_folder();
  const rlimit small{8192, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Result r = run(train_words("LightGCN", dir / "run", {"--set", "epochs=1"}));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(has(r.err, "best.safetensors: cannot be written (File too large)")) << r.err;
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
  const Result r = run(train_words(
      "LightGCN", folder, {"--set", "epochs=1000000", "--set", "stopping_step=1000000", "--set", "eval_step=1000000"}));
  ended = true;
  hand.join();
  EXPECT_EQ(r.code, 130) << r.err;
  EXPECT_TRUE(has(r.out, "continue with: ccdrec train --resume " + folder)) << r.out;
  EXPECT_EQ(RunFolder::open(folder).summary().at("stopped"), "interrupted");
  const int done = RunFolder::open(folder).summary().at("epochs_run");
  EXPECT_EQ(run({"train", "--resume", folder, "--set", "epochs=" + std::to_string(done + 2)}).code, 0);
  EXPECT_EQ(RunFolder::open(folder).summary().at("epochs_run"), done + 2);
}

// ccdrec train | head: the reader leaves before the first epoch, or while the training goes on.
TEST(Cli, AReaderThatLeavesIsAnInterruption) {
  for (const std::string until : {"training", "epoch 0 training"}) {
    SCOPED_TRACE(until);
    const Folder dir;
    int out[2], err[2];
    ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(err, O_CLOEXEC), 0);
    const std::string folder = dir / "run";
    Process p(train_words("LightGCN", folder, {"--set", "epochs=1000000", "--set", "stopping_step=1000000"}), out[1],
              err[1]);
    ::close(out[1]), ::close(err[1]);
    std::string text;
    char byte = 0;
    while (text.find(until) == std::string::npos) {
      ASSERT_EQ(::read(out[0], &byte, 1), 1) << text;
      text += byte;
    }
    ::close(out[0]);
    std::string said;
    while (::read(err[0], &byte, 1) == 1) said += byte;
    ::close(err[0]);
    EXPECT_EQ(p.wait(), 130);
    EXPECT_TRUE(
        has(said,
            "the program that read the output has ended; state saved; continue with: ccdrec train --resume " + folder))
        << said;
    const int done = RunFolder::open(folder).summary().at("epochs_run");
    EXPECT_EQ(run({"train", "--resume", folder, "--set", "epochs=" + std::to_string(done + 2)}).code, 0);
  }
}

// What evaluate and recommend find after a kill: a whole model that gives the metrics it was saved with. And what a
// resume needs: the model of the state's best epoch.
void expect_usable(const std::string& folder, const Settings& s) {
  const std::string best = folder + "/best.safetensors", last = folder + "/last.safetensors";
  if (std::filesystem::exists(last))
    if (const int want = saved_run(last, s).saved_best; want >= 0) {
      EXPECT_TRUE(best_epoch_of(best) == want || best_epoch_of(folder + "/best-of-last.safetensors") == want)
          << "the best model of epoch " << want;
    }
  if (!std::filesystem::exists(best)) return;
  const std::vector<std::string> none;
  const auto saved = nlohmann::json::parse(read_safetensors(best, &none).metadata.at("summary"));
  const Result r = run({"evaluate", folder, "--json", "--threads", "1"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(nlohmann::json::parse(r.out).at("valid"), saved.at("best_valid"));
}

// A hundred kills: at any time, and while a checkpoint is being written; now and then Ctrl-C leaves a state in the
// middle of an epoch. `epochs` grows from run to run. What comes of it in the end is what a run gives that was never
// stopped.
TEST(SlowResume, AHundredKillsLeaveWhatAnUnbrokenRunLeaves) {
  constexpr int kEpochs = 48, kKills = 34;
  const Folder dir;
  std::mt19937 chance(7);
  const auto below = [&](unsigned n) { return int(chance() % n); };
  int kills = 0, in_writes = 0;
  for (const int save_every : {0, 1, 3}) {
    SCOPED_TRACE("save_every " + std::to_string(save_every));
    const std::string each = "save_every=" + std::to_string(save_every);
    const auto words = [&](const std::string& folder, int epochs) {
      std::vector<std::string> w = train_words("LightGCN", folder, {"--set", each, "--set", "stopping_step=1000"});
      w.insert(w.end(), {"--set", "epochs=" + std::to_string(epochs), "--set", "learning_rate=0.0003", "--set",
                         "valid_metric=Recall@5"});
      return w;
    };
    const std::string whole = (dir / "whole") + std::to_string(save_every) + "/run";
    const Result unbroken = run(words(whole, kEpochs));
    ASSERT_EQ(unbroken.code, 0) << unbroken.err;
    ASSERT_GE(improved(whole).size(), 12u) << "the best model is replaced again and again";
    Settings s = RunFolder::open(whole).config().settings;
    for (int killed = 0, round = 0; killed < kKills; ++round) {
      const std::string folder = fmt::format("{}/{}-{}/run", dir.path(), save_every, round);
      const auto resumed = [&](int epochs) {
        return std::filesystem::exists(folder + "/config.yaml")
                   ? std::vector<std::string>{"train", "--resume", folder, "--set", "epochs=" + std::to_string(epochs)}
                   : words(folder, epochs);
      };
      int epochs = 4 + below(6);
      for (int attempts = 0; epochs < kEpochs && killed < kKills && attempts < 60; ++attempts) {
        Process p(resumed(epochs));
        const std::string suffix = ".tmp-" + std::to_string(p.pid());
        const char* const files[] = {"best.safetensors", "last.safetensors", "metrics.jsonl"};
        const int kind = below(6);  // 0 1 2: when that file is being written; else at any time
        const std::string watched = kind < 3    ? folder + "/" + files[kind] + suffix
                                    : kind == 3 ? folder + "/best-of-last.safetensors"
                                                : "";
        const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(below(120000));
        bool seen = false;
        while (!p.ended() && !seen && std::chrono::steady_clock::now() < end) {
          seen = !watched.empty() && ::access(watched.c_str(), F_OK) == 0;
          if (!seen) std::this_thread::sleep_for(std::chrono::microseconds(watched.empty() ? 500 : 20));
        }
        p.signal(below(8) == 0 ? SIGTERM : SIGKILL);
        const int code = p.wait();
        ASSERT_TRUE(code == 0 || code == 130 || code == -SIGKILL || code == -SIGTERM) << code;
        if (code == -SIGKILL) ++killed, ++kills, in_writes += seen;
        s.epochs = epochs;
        if (std::filesystem::exists(folder)) expect_usable(folder, s);
        if (HasFatalFailure()) return;
        if (code == 0) epochs = std::min(kEpochs, epochs + 1 + below(5));
      }
      const Result r = run(resumed(kEpochs));
      ASSERT_EQ(r.code, 0) << r.err;
      expect_same_run(whole, folder);
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        EXPECT_EQ(entry.path().filename().string().find(".tmp-"), std::string::npos) << entry.path();
      if (HasFailure()) return;
    }
  }
  EXPECT_GE(kills, 100);
  RecordProperty("kills_in_writes", in_writes);
}

}  // namespace
}  // namespace ccdrec::test
