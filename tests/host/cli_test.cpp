// The commands from end to end, without a process: exit codes, sentences, files.
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "data/npy.h"
#include "data/text.h"
#include "host/files/run_folder.h"
#include "tests/host/command.h"

namespace ccdrec::test {
namespace {

TEST(Cli, HelpIsWorthReadingAndMistakesExitWithTwo) {
  for (const char* command :
       {"synth", "train", "evaluate", "recommend", "export", "info", "check", "compare", "case", "step"}) {
    const Result r = run({command, "--help"});
    EXPECT_EQ(r.code, 0) << command;
    EXPECT_TRUE(has(run({"--help"}).out, command));
    EXPECT_GT(r.out.size(), 100u) << command;
  }
  struct Case {
    std::vector<std::string> words;
    const char* expected;
  };
  const Case cases[] = {
      {{"tarin"}, "ccdrec: 'tarin' is no command; did you mean 'train'? (see `ccdrec --help`)"},
      {{"stepp", "--in", "x"}, "'stepp' is no command; did you mean 'step'?"},
      {{"photosynthesis"}, "'photosynthesis' is no command (see"},
      {{"--tarin"}, "ccdrec: "},
      {{"train", "--sed", "3"}, "--sed"},
      {{"train", "-d", "/no/such/folder"}, "no such data folder"},
      {{"train", "--set", "learning_rat=1"}, "did you mean 'learning_rate'?"},
      {{"train", "--set", "mu=3", "--print-config"}, "[0, 1]"},
      {{"train", "--seed", "x", "--print-config"}, "--seed"},
      {{"train", "--device", "tpu", "-d", data_folder()}, "auto | cpu | cuda"},
      {{"train", "--resume", "/no/such/run"}, "not a run folder"},
      {{"train", "-c", "/no/such.yaml"}, "cannot be opened"},
      {{"evaluate"}, "nothing to evaluate"},
      {{"evaluate", "/no/such/run"}, "not a run folder"},
      {{"recommend", "/no/such/run"}, "not a run folder"},
      {{"recommend", "x", "--top", "0"}, "--top"},
      {{"compare", "/no/such/run"}, "not a run folder"},
      {{"check", "/no/such/folder"}, "no such data folder"},
      {{"train", "--resume", "/no/such/run", "--record", "x"}, "leave --resume away"},
      {{"train", "-d", data_folder(), "--record", "x", "--set", "epochs=100000"}, "--set epochs=3"},
      {{"train", "-d", data_folder(), "--record", "/no/such/folder/run", "--set", "epochs=1"},
       "check that the folder exists"},
      {{"case", "-d", data_folder()}, "--epoch is required"},
      {{"case", "-d", data_folder(), "--epoch", "0", "--out", "/dev/null"}, "--step K"},
      {{"case", "-d", data_folder(), "--epoch", "0", "--out", "/dev/null", "--step", "0", "--reverse"}, "--reverse"},
      {{"case", "-m", "LightGCN", "-d", data_folder(), "--epoch", "0", "--out", "/dev/null", "--reverse"},
       "no diffusion"},
      {{"case", "-d", data_folder(), "--epoch", "0", "--out", "/dev/null", "--reverse", "--pass", "1"},
       "--pass is one of a step"},
      {{"case", "-m", "BPR", "-d", data_folder(), "--epoch", "0", "--out", "/dev/null", "--step", "0", "--pass", "1"},
       "a step has one pass, 0"},
      {{"step", "--in", "/no/such/case"}, "--print"},
      {{"case", "-d", data_folder(), "--epoch", "1000", "--step", "0", "--out", "/dev/null"},
       "the run has epochs 0 to 999"},
      {{"case", "-d", data_folder(), "--epoch", "0", "--step", "0", "--out", "/no/such/folder/case"},
       "check that the folder exists"},
      {{"case", "-d", "/no/such/folder", "--epoch", "0", "--step", "0", "--out", "/dev/null"}, "no such data folder"},
      {{"train", "-d", data_folder(), "--set", "dgd_tau=1"}, "dgd_tau = 1 is not a number in (-1, 1)"},
      {{"synth", "tinny", "--out", "x"}, "tiny"},
      {{"synth", "tiny", "--preset", "demo", "--out", "x"}, "tiny and --preset demo name two presets; give one"},
      {{"train", "-d", data_folder() + "/tiny.inter"},
       "tiny.inter: is a file, expected the folder that holds the .inter file and the features; give /"},
      {{"check", data_folder() + "/tiny.inter"}, "is a file, expected the folder"},
      {{"evaluate", "--recs", "x", "-d", data_folder() + "/tiny.inter"}, "is a file, expected the folder"},
      {{"train", "-d", data_folder(), "--set", "inter_file_name=absent.inter"}, "no absent.inter in it"},
      {{"check", data_folder(), "--set", "inter_file_name=absent.inter"}, "no absent.inter in it"},
      {{"case", "-d", data_folder(), "--epoch", "0", "--step", "0", "--out", "/dev/null", "--set",
        "inter_file_name=a.inter"},
       "no a.inter in it"},
      {{"train", "-d", data_folder(), "--set", "mu=[0.1, 0.2]", "--set", "hyper_parameters=[mu]"},
       "choose with, say, --set mu=0.1"},
      {{"case", "-d", data_folder(), "--epoch", "0", "--step", "0", "--out", "/dev/null", "--set", "mu=[0.1, 0.2]",
        "--set", "hyper_parameters=[mu]"},
       "choose with, say, --set mu=0.1"},
  };
  for (const Case& c : cases) {
    const Result r = run(c.words);
    EXPECT_EQ(r.code, 2) << c.words[0] << ": " << r.err;
    EXPECT_TRUE(has(r.err, c.expected)) << r.err;
    EXPECT_EQ(r.err.rfind("ccdrec: ", 0), 0u) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  }
  EXPECT_EQ(run({}).code, 2);
  EXPECT_TRUE(has(run({"--version"}).out, "ccdrec "));
}

// The parser's own checks answer with the largest double, in 309 digits, and take some numbers that are none.
TEST(Cli, NumbersOutOfRangeAreToldTheRangeInShort) {
  const std::vector<std::vector<std::string>> options = {
      {"recommend", "run", "--top"},
      {"recommend", "run", "-k"},
      {"recommend", "run", "--threads"},
      {"evaluate", "run", "--threads"},
      {"synth", "-o", "x", "--users"},
      {"synth", "-o", "x", "--items"},
      {"synth", "-o", "x", "--interactions"},
      {"synth", "-o", "x", "--seed"},
      {"step", "--in", "x", "--threads"},
      {"reverse", "--in", "x", "--threads"},
      {"case", "--out", "x", "--epoch"},
      {"case", "--out", "x", "--epoch", "0", "--step"},
      {"train", "--threads"},
      {"train", "--seed"},
      {"case", "--epoch", "0", "--step", "0", "--out", "x", "--threads"}};
  for (const std::vector<std::string>& option : options)
    for (const char* value : {"-1", "1e3", "2.5", "x", "", "0x10", "99999999999999999999"}) {
      std::vector<std::string> words = option;
      words.back() += "=" + std::string(value);
      if (option.back() == "-k") words.back() = "-k" + std::string(value);
      if (words.back() == "-k") continue;
      if (option[0] == "train" && !*value) continue;  // as if it were not given
      if (option[0] == "case" && option.back() == "--threads" && !*value) continue;
      const Result r = run(words);
      EXPECT_EQ(r.code, 2) << words.back();
      EXPECT_LT(r.err.size(), 160u) << r.err;
      EXPECT_TRUE(has(r.err, option.back() == "-k" ? "--top" : option.back())) << words.back() << ": " << r.err;
    }
  EXPECT_EQ(run({"recommend", "run", "-k", "0"}).err,
            "ccdrec: --top: '0' is no whole number from 1 to 2147483647 (see `ccdrec recommend --help`)\n");
  EXPECT_TRUE(has(run({"synth", "tiny", "--users", "0", "-o", "d"}).err,
                  "--users: '0' is no whole number from 1 to 2147483646"));
}

// What was read is in config.yaml: the same file is read again, and by every command.
TEST(Cli, ARunReadsTheFileOfInteractionsItWasTrainedOn) {
  const Folder dir;
  const std::string data = dir / "toys";
  ASSERT_EQ(run({"synth", "tiny", "--out", data, "--users", "60", "--items", "40", "--interactions", "600"}).code, 0);
  const std::string whole = read_text(data + "/toys.inter");
  size_t half = 0;
  for (int line = 0; line < 400; ++line) half = whole.find('\n', half) + 1;
  std::ofstream(data + "/toys-v4.inter") << whole.substr(0, half);
  const std::string file = dir / "toys.yaml";
  std::ofstream(file) << "USER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\ninter_file_name: 'toys-v4.inter'\n";
  const auto trained = [&](const std::string& name, std::vector<std::string> more) {
    std::vector<std::string> words = {"train", "-m",    "BPR",      "-d",        data,      "--threads",
                                      "1",     "--set", "epochs=1", "--run-dir", dir / name};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  const Result named = trained("run", {"-c", file});
  ASSERT_EQ(named.code, 0) << named.err;
  EXPECT_TRUE(has(named.out, "BPR on toys-v4: ")) << named.out;
  EXPECT_FALSE(has(named.err + named.out, "inter_file_name has no influence"));
  EXPECT_TRUE(has(read_text(dir / "run/config.yaml"), "inter_file_name: toys-v4.inter"));
  EXPECT_TRUE(has(run({"evaluate", dir / "run"}).out, "BPR on toys-v4: "));
  EXPECT_EQ(run({"recommend", dir / "run", "--user", "0"}).code, 0);
  EXPECT_TRUE(has(run({"train", "--resume", dir / "run", "--set", "epochs=2"}).out, "BPR on toys-v4: "));
  const Result plain = trained("plain", {});
  EXPECT_TRUE(has(plain.out, "BPR on toys: ")) << plain.out;
  EXPECT_FALSE(has(read_text(dir / "plain/config.yaml"), "inter_file_name"));
  const Result two = trained("two", {"-c", file, "--set", "dataset=toys"});
  EXPECT_EQ(two.code, 2);
  EXPECT_TRUE(has(two.err, "dataset = toys and inter_file_name = toys-v4.inter name two files")) << two.err;
  EXPECT_FALSE(std::filesystem::exists(dir / "two"));
  EXPECT_TRUE(has(run({"check", data, "--set", "inter_file_name=toys-v4.inter"}).out, "data set toys-v4 "));
}

// Nothing a user can name ends the program by a signal: one sentence, exit code 2.
TEST(Cli, OddPathsAreOneSentence) {
  const Folder dir;
  const std::string longest(300, 'n'), shut = dir / "shut";
  std::filesystem::create_directories(shut + "/run");
  std::ofstream(dir / "file") << "x";
  std::filesystem::create_symlink("round", dir / "about");
  std::filesystem::create_symlink("about", dir / "round");
  const std::vector<std::vector<std::string>> cases = {
      {"train", "-c", dir.path(), "--print-config"},
      {"train", "-c", dir / longest},
      {"train", "-d", longest},
      {"train", "-d", dir / "about"},
      {"train", "-d", data_folder(), "--run-dir", dir / longest},
      {"train", "-d", data_folder(), "--run-dir", dir / "file"},
      {"train", "-d", data_folder(), "--run-dir", (dir / "file") + "/sub"},
      {"train", "--resume", longest},
      {"train", "--resume", dir / "file"},
      {"train", "-d", data_folder(), "--set", "dataset=" + longest},
      {"check", longest},
      {"evaluate", longest},
      {"evaluate", "--recs", dir.path(), "-d", data_folder()},
      {"evaluate", "--recs", dir / longest, "-d", data_folder()},
      {"recommend", longest},
      {"export", longest, "--out", dir / "out"},
      {"compare", longest, dir / "file"},
      {"synth", "tiny", "--out", dir / longest},
      {"synth", "tiny", "--out", (dir / "file") + "/sub"},
  };
  for (const std::vector<std::string>& words : cases) {
    const Result r = run(words);
    EXPECT_EQ(r.code, 2) << words[0] << " " << words[1] << ": " << r.err;
    EXPECT_EQ(r.err.rfind("ccdrec: ", 0), 0u) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  }
  if (::geteuid() != 0) {  // root may enter anything
    std::filesystem::permissions(shut, std::filesystem::perms::none);
    EXPECT_TRUE(has(run({"evaluate", shut + "/run"}).err, "Permission denied"));
    std::filesystem::permissions(shut, std::filesystem::perms::owner_all);
  }
}

TEST(Cli, OptionsAreTextNotYaml) {
  for (const char* seed : {"1\"2", "1\" #", "[1]", "1\n2", "'1'"}) {
    const Result r = run({"train", "--seed", seed, "--print-config"});
    EXPECT_EQ(r.code, 2) << seed;
    EXPECT_TRUE(has(r.err, "--seed: seed = ")) << r.err;
  }
  EXPECT_TRUE(has(run({"train", "--set", "seed=\"1\"2", "--print-config"}).err, "after the end of the value"));
  EXPECT_EQ(run({"train", "--set", "seed=\"12\"", "--print-config"}).code, 0);
}

TEST(Cli, SynthReplacesNoDataSetUnasked) {
  const Folder dir;
  std::filesystem::create_directories(dir / "mine");
  std::ofstream((dir / "mine") + "/audio_feat.npy") << "mine";
  const std::vector<std::string> words = {"synth", "tiny",    "--out", dir / "mine",     "--users",
                                          "60",    "--items", "40",    "--interactions", "600"};
  const Result refused = run(words);
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(has(refused.err, "--force")) << refused.err;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "mine"), {}), 1);
  std::vector<std::string> forced = words;
  forced.push_back("--force");
  EXPECT_EQ(run(forced).code, 0);
  EXPECT_EQ(read_text((dir / "mine") + "/audio_feat.npy"), "mine") << "files of other names stay";
  EXPECT_EQ(run(words).code, 2) << "an .inter file";
}

TEST(Cli, CtrlCInSynthLeavesNothingBehind) {
  const Folder dir;
  const std::string folder = dir / "new/set";
  std::atomic<bool> ended = false;
  std::thread hand([&] {
    while (!ended && !std::filesystem::exists(folder)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (!ended) std::raise(SIGINT);
  });
  // seconds of work, a megabyte before the first key could be pressed
  const Result r = run({"synth", "baby", "--out", folder});
  ended = true;
  hand.join();
  EXPECT_EQ(r.code, 130) << r.err << r.out;
  EXPECT_TRUE(dir.names().empty()) << dir.names()[0];
}

TEST(Cli, PrintConfigShowsValueAndOrigin) {
  const Result r = run({"train", "-m", "FREEDOM", "--seed", "7", "--set", "dropout=0.9", "--print-config"});
  EXPECT_EQ(r.code, 0);
  std::istringstream lines(r.out);
  std::map<std::string, std::string> origin;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string key, value, rest;
    words >> key >> value, std::getline(words, rest);
    origin[key + "=" + value] =
        rest.substr(rest.find_first_not_of(' ') == std::string::npos ? 0 : rest.find_first_not_of(' '));
  }
  EXPECT_EQ(origin["model=FREEDOM"], "-m");
  EXPECT_EQ(origin["seed=7"], "--seed");
  EXPECT_EQ(origin["dropout=0.9"], "--set");
  EXPECT_EQ(origin["train_batch_size=2048"], "default of FREEDOM");
  EXPECT_EQ(origin["knn_k=10"], "built-in");
  EXPECT_TRUE(has(run({"train", "--help-keys"}).out, "lambda_dm"));
}

TEST(Cli, InfoAndCheck) {
  const Result info = run({"info"});
  EXPECT_EQ(info.code, 0);
  for (const char* part : {"version", "flags", "CUDA", "processor", "memory", "GFLOP/s a core", "device auto"})
    EXPECT_TRUE(has(info.out, part)) << part;
  const size_t rate = info.out.find(" GFLOP/s a core");
  EXPECT_GT(std::atof(info.out.substr(info.out.rfind(' ', rate - 1)).c_str()), 0.1) << info.out;
  const Result check = run({"check", data_folder()});
  EXPECT_EQ(check.code, 0) << check.err;
  EXPECT_TRUE(has(check.out, "usable"));
}

TEST(Cli, CheckReadsWhatIsThereAndSaysWhatItIgnores) {
  const Folder dir;
  std::filesystem::create_directories(dir / "bare");
  std::ofstream((dir / "bare") + "/bare.inter") << "who\titemID\tx_label\n0\t0\t0\n0\t1\t1\n1\t1\t0\n1\t0\t2\n";
  const Result r = run({"check", dir / "bare", "--set", "USER_ID_FIELD=who", "--set", "omega=0.3"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.err, "FREEDOM and CCDRec read item features")) << r.err;
  EXPECT_TRUE(has(r.err, "omega has no influence on check")) << r.err;
  EXPECT_FALSE(has(r.err, "USER_ID_FIELD has")) << r.err;
  EXPECT_TRUE(has(r.out, "usable, with 1 note\n")) << r.out;
  std::ofstream((dir / "bare") + "/image_feat.npy") << "no matrix";
  EXPECT_EQ(run({"check", dir / "bare", "--set", "USER_ID_FIELD=who"}).code, 2)
      << "features that are there are looked at";
}

TEST(Cli, TrainLeavesOneCompleteFolderThatEveryCommandReads) {
  const Folder dir;
  const std::string folder = dir / "run";
  const Result r = run(train_words(
      "CCDRec", folder,
      {"--set", "epochs=3", "--set", "topk=[2,5]", "--set", "valid_metric=Recall@5", "--set", "timesteps=4"}));
  ASSERT_EQ(r.code, 0) << r.err;
  for (const char* part : {"memory plan", "  total", "epoch 0 training [time: ", "s, train loss: ",
                           "epoch 2 evaluating [time: ", "s, valid_score: ", "best epoch", "run folder: "})
    EXPECT_TRUE(has(r.out, part)) << part;
  EXPECT_FALSE(has(r.out + r.err, "\x1b")) << "no terminal, no escape sequences";
  for (const char* file : {"config.yaml", "train.log", "metrics.jsonl", "best.safetensors", "last.safetensors",
                           "users.tsv", "items.tsv", "users.f32", "summary.json"})
    EXPECT_TRUE(std::filesystem::exists(folder + "/" + file)) << file;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 9);
  const auto summary = RunFolder::open(folder).summary();
  EXPECT_EQ(summary.at("stopped"), "max_epochs");
  EXPECT_EQ(run(train_words("CCDRec", folder)).code, 2) << "a run is not overwritten";

  // evaluate computes again what training reported, from the checkpoint alone.
  const Result e = run({"evaluate", folder, "--json"});
  ASSERT_EQ(e.code, 0) << e.err;
  const auto again = nlohmann::json::parse(e.out);
  EXPECT_EQ(again.at("test"), summary.at("best_test"));
  EXPECT_EQ(again.at("valid"), summary.at("best_valid"));
  EXPECT_TRUE(has(run({"evaluate", folder, "--topk", "3"}).out, "@3"));
  EXPECT_EQ(run({"evaluate", folder, "--topk", "3,x"}).code, 2);

  // recommend to all, and evaluate those lists as another program's: the same figures to rounding of equal sums.
  ASSERT_EQ(run({"recommend", folder, "-k", "5", "-o", dir / "lists.tsv"}).code, 0);
  const Result f = run({"evaluate", "--recs", dir / "lists.tsv", "-d", data_folder(), "--topk", "2,5", "--json"});
  ASSERT_EQ(f.code, 0) << f.err;
  EXPECT_EQ(nlohmann::json::parse(f.out).at("test"), summary.at("best_test"));

  const Result x = run({"export", folder, "--out", dir / "npy", "--all"});
  ASSERT_EQ(x.code, 0) << x.err;
  const NpyMatrix users((dir / "npy") + "/user_embeddings.npy");
  EXPECT_EQ(users.cols(), 8);
  EXPECT_EQ(users.rows(), summary.at("data").at("users").get<int64_t>());
  EXPECT_TRUE(std::filesystem::exists((dir / "npy") + "/user_embedding.weight.npy"));
  EXPECT_EQ(read_text((dir / "npy") + "/items.tsv"), read_text(folder + "/items.tsv"));
}

// A run made by hand, so that the right lists are known: user A has trained on i1, validates i2, tests i3.
struct HandMade {
  Folder dir;
  std::string folder = dir / "run";
  HandMade() {
    std::filesystem::create_directories(dir / "set");
    std::ofstream((dir / "set") + "/set.inter")
        << "userID\titemID\tx_label\nA\ti1\t0\nA\ti2\t1\nA\ti3\t2\nB\ti4\t0\nB\ti1\t2\n";
    const RunFolder run_folder = RunFolder::create(folder);
    LoadOptions options;
    options.need_features = false;
    const Dataset data = load_dataset(dir / "set", options);
    run_folder.write_ids(data);
    Config c = resolve_config({}, {{"model", "BPR", "test"}});
    c.settings.data_path = dir / "set";
    write_text(run_folder.path("config.yaml"), config_yaml(c));
    const float hu[] = {1, 1}, hi[] = {4, 3, 2, 1};  // everybody likes i1 best, then i2, ...
    write_safetensors(run_folder.path("best.safetensors"),
                      {{"final.user", "F32", {2, 1}, hu}, {"final.item", "F32", {4, 1}, hi}}, {});
  }
};

// The last step of an epoch, taken by `step`, leaves the state that training saves.
TEST(Cli, CaseAndStepTakeTheStepThatTrainingTakes) {
  const Folder dir;
  const std::vector<std::string> same = {
      "-m",    "CCDRec",           "-d",    data_folder(),         "--threads", "2",
      "--set", "embedding_size=8", "--set", "train_batch_size=64", "--set",     "epochs=1"};
  std::vector<std::string> words = {"case", "--epoch", "0", "--step", "7", "--out", dir / "case"};
  words.insert(words.end(), same.begin(), same.end());
  const Result made = run(words);
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(has(made.out, "epoch 0, step 7 of 8")) << made.out;
  ASSERT_EQ(run({"step", "--in", dir / "case", "--out", dir / "result"}).code, 0);
  words = {"train", "--run-dir", dir / "run"};
  words.insert(words.end(), same.begin(), same.end());
  ASSERT_EQ(run(words).code, 0);
  const TensorFile state = read_safetensors(dir / "run/last.safetensors"), result = read_safetensors(dir / "result");
  int compared = 0;
  for (const auto& [name, t] : result.tensors)
    if (name.rfind("new.", 0) == 0) {
      EXPECT_EQ(t.bytes, state.tensors.at(name.substr(4)).bytes) << name;
      ++compared;
    }
  EXPECT_EQ(compared, 11);
}

// The last of eight steps is a mirror batch: after its second pass training has what a run that ended with it would
// have.
TEST(Cli, CaseOfASecondPass) {
  const Folder dir;
  const std::vector<std::string> same = {
      "-m",    "LightGCN",         "-d",    data_folder(),         "--threads", "2",
      "--set", "embedding_size=8", "--set", "train_batch_size=64", "--set",     "epochs=1",
      "--set", "sampler=dns",      "--set", "use_mg=true",         "--set",     "beta=7"};
  const auto of = [&](std::vector<std::string> words) {
    words.insert(words.end(), same.begin(), same.end());
    return run(words);
  };
  const Result made = of({"case", "--epoch", "0", "--step", "7", "--pass", "1", "--out", dir / "case"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(has(made.out, "epoch 0, step 7 of 8, pass 1\n")) << made.out;
  ASSERT_EQ(run({"step", "--in", dir / "case", "--out", dir / "result"}).code, 0);
  ASSERT_EQ(of({"train", "--run-dir", dir / "run"}).code, 0);
  const TensorFile state = read_safetensors(dir / "run/last.safetensors"), result = read_safetensors(dir / "result");
  for (const std::string name : {"user_embedding.weight", "item_id_embedding.weight"})
    EXPECT_EQ(result.tensors.at("new." + name).bytes, state.tensors.at(name).bytes) << name;

  const Result none = of({"case", "--epoch", "0", "--step", "6", "--pass", "1", "--out", dir / "none"});
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(has(none.err, "--pass 1: this step has pass 0 alone; steps 0, 7, 14, .. have two (beta = 7)\n"))
      << none.err;
  EXPECT_EQ(std::count(none.err.begin(), none.err.end(), '\n'), 1) << none.err;
  EXPECT_FALSE(std::filesystem::exists(dir / "none"));
}

// A line of metrics.jsonl has them, unless they are not measured.
TEST(Cli, HardnessIsInTheLinesOfTheRun) {
  const Folder dir;
  for (const std::string rows : {"1024", "0"}) {
    const std::string folder = dir / rows;
    const Result r = run(train_words(
        "LightGCN", folder, {"--set", "epochs=2", "--set", "sampler=mixgcf", "--set", "negative_stats=" + rows}));
    ASSERT_EQ(r.code, 0) << r.err;
    const std::string metrics = read_text(folder + "/metrics.jsonl"), log = read_text(folder + "/train.log");
    EXPECT_EQ(has(metrics, "\"hardness\":"), rows != "0") << metrics;
    EXPECT_TRUE(has(metrics, "\"negatives\":\"mixgcf\"")) << metrics;
    EXPECT_TRUE(has(metrics, "\"bpr_hard\":")) << metrics;
    EXPECT_EQ(has(log, " held_out "), rows != "0");
    EXPECT_EQ(run({"evaluate", folder, "--threads", "2"}).code, 0);
    const nlohmann::json line = nlohmann::json::parse(metrics.substr(0, metrics.find('\n')));
    if (rows == "0") continue;
    std::set<std::string> names;
    for (const auto& [name, x] : line.at("hardness").items()) names.insert(name);
    EXPECT_EQ(names, (std::set<std::string>{"rows", "rank", "similarity", "score", "held_out"}));
  }
  expect_same_tensors(dir / "1024/last.safetensors", dir / "0/last.safetensors");
}

TEST(Cli, RecordIsWrittenWhenTheRunEnds) {
  const Folder dir;
  const Result r = run(train_words("CCDRec", dir / "run", {"--set", "epochs=2", "--record", dir / "record"}));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "record: at most ")) << r.out;
  const TensorFile record = read_safetensors(dir / "record"), state = read_safetensors(dir / "run/last.safetensors");
  EXPECT_EQ(record.metadata.at("format"), "ccdrec-run");
  EXPECT_EQ(record.tensors.at("final.item_id_embedding.weight").bytes,
            state.tensors.at("item_id_embedding.weight").bytes);
  EXPECT_TRUE(record.tensors.count("epoch.1.curricular"));
}

TEST(Cli, RecommendMasksSeenItemsByOption) {
  const HandMade h;
  const auto list = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"recommend", h.folder, "--user", "A"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  EXPECT_EQ(list({}).out, "userID\titemID\tscore\nA\ti2\t3\nA\ti3\t2\nA\ti4\t1\n");
  EXPECT_EQ(list({"--keep-seen", "-k", "1"}).out, "userID\titemID\tscore\nA\ti1\t4\n");
  EXPECT_EQ(list({"--mask-valid"}).out, "userID\titemID\tscore\nA\ti3\t2\nA\ti4\t1\n");
  EXPECT_EQ(list({"--mask-valid", "--mask-test"}).out, "userID\titemID\tscore\nA\ti4\t1\n");
  EXPECT_EQ(list({"-k", "1", "--format", "jsonl"}).out,
            "{\"user\":\"A\",\"items\":[{\"item\":\"i2\",\"score\":3.0}]}\n");
  EXPECT_EQ(list({"--user", "B", "-k", "1"}).out, "userID\titemID\tscore\nA\ti2\t3\nB\ti1\t4\n");
  EXPECT_EQ(list({"--format", "xml"}).code, 2);
  const Result unknown = list({"--user", "C"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(has(unknown.err, "user 'C' does not occur"));
  std::ofstream(h.dir / "who") << "B\r\n\nA\n";
  EXPECT_EQ(run({"recommend", h.folder, "--users-file", h.dir / "who", "-k", "1"}).out,
            "userID\titemID\tscore\nB\ti1\t4\nA\ti2\t3\n");
  EXPECT_EQ(run({"recommend", h.folder, "-k", "1"}).out, "userID\titemID\tscore\nA\ti2\t3\nB\ti1\t4\n");
}

TEST(Cli, EvaluateByHandAndWithValidationMasked) {
  const HandMade h;
  const auto test_recall = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"evaluate", h.folder, "--topk", "1", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Result r = run(words);
    EXPECT_EQ(r.code, 0) << r.err;
    return nlohmann::json::parse(r.out).at("test").at("recall@1").get<double>();
  };
  EXPECT_EQ(test_recall({}), 0.5);                // A: i2 leads and is a miss; B: i1 is the hit
  EXPECT_EQ(test_recall({"--mask-valid"}), 1.0);  // i2 left out: i3 leads
}

TEST(Cli, AnotherDataSetOrADamagedCheckpointIsRefused) {
  const HandMade h;
  std::ofstream((h.dir / "set") + "/set.inter")
      << "userID\titemID\tx_label\nB\ti1\t0\nA\ti2\t1\nA\ti3\t0\nB\ti4\t0\nB\ti1\t2\n";  // ids in another order
  const Result r = run({"recommend", h.folder});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(has(r.err, "ids differ")) << r.err;

  const HandMade nan;
  const float hu[] = {1, std::nanf("")}, hi[] = {4, 3, 2, 1};
  write_safetensors(nan.folder + "/best.safetensors",
                    {{"final.user", "F32", {2, 1}, hu}, {"final.item", "F32", {4, 1}, hi}}, {});
  EXPECT_TRUE(has(run({"recommend", nan.folder}).err, "holds nan in row 1"));
  std::filesystem::resize_file(nan.folder + "/best.safetensors", 40);
  EXPECT_EQ(run({"evaluate", nan.folder}).code, 2);
  const HandMade moved;
  std::filesystem::remove_all(moved.dir / "set");
  EXPECT_TRUE(has(run({"evaluate", moved.folder}).err, "no longer there"));
}

TEST(Cli, WithoutValidationRowsTheLastModelIsKept) {
  const Folder dir;
  std::filesystem::create_directories(dir / "set");
  std::ifstream from(data_folder() + "/tiny.inter");
  std::ofstream to((dir / "set") + "/set.inter");
  for (std::string line; std::getline(from, line);)
    if (!line.ends_with("\t1")) to << line << '\n';
  to.close();
  const Result r = run({"train", "-m", "LightGCN", "-d", dir / "set", "--run-dir", dir / "run", "--set",
                        "embedding_size=8", "--set", "epochs=5", "--set", "stopping_step=1", "--set", "eval_step=2"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "note: no validation rows")) << r.out;
  EXPECT_FALSE(has(r.out, "best so far")) << r.out;
  const auto summary = RunFolder::open(dir / "run").summary();
  EXPECT_EQ(summary.at("stopped"), "max_epochs");
  EXPECT_EQ(summary.at("epochs_run"), 5);
  EXPECT_EQ(summary.at("best_epoch"), 4);
  const Result e = run({"evaluate", dir / "run", "--json"});
  ASSERT_EQ(e.code, 0) << e.err;
  EXPECT_EQ(nlohmann::json::parse(e.out).at("test"), summary.at("best_test"));
}

TEST(Cli, WhatTheItemGraphHasToSayIsShown) {
  const Folder dir;
  std::ofstream(dir / "file") << "x";
  const Result r =
      run(train_words("FREEDOM", dir / "run", {"--set", "epochs=1", "--set", "graph_cache=" + (dir / "file")}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "note: kNN lists could not be kept")) << r.out;
  EXPECT_TRUE(has(r.out, "note: item graph: weights image 0.1, text 0.9\n")) << r.out;
}

TEST(Cli, SaysWhoseSparseProductsAreUsed) {
  const Folder dir;
  const Result wrong = run(train_words("LightGCN", dir / "run", {"--set", "spmm=cusprase"}));
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(has(wrong.err, "spmm = cusprase is not one of auto | own | cusparse; did you mean cusparse?"))
      << wrong.err;
  EXPECT_FALSE(std::filesystem::exists(dir / "run"));
  const Result idle =
      run(train_words("BPR", dir / "bpr", {"--device", "cpu", "--set", "epochs=1", "--set", "spmm=cusparse"}));
  EXPECT_EQ(idle.code, 0) << idle.err;
  EXPECT_TRUE(has(idle.out + idle.err, "spmm has no influence on BPR")) << idle.out << idle.err;
  EXPECT_TRUE(has(run({"train", "--help-keys"}).out,
                  "choice auto | own | cusparse; default auto; LightGCN, MMGCN, SLMRec, BM3, FREEDOM, LATTICE, MCDRec, "
                  "CCDRec only"));
  EXPECT_TRUE(has(run({"info"}).out, gpu_info().built ? kSpmmRule : "no CUDA operations")) << run({"info"}).out;
  if (!gpu_info().usable) return;
  const Result r =
      run(train_words("LightGCN", dir / "gpu", {"--device", "cuda", "--set", "epochs=1", "--set", "spmm=cusparse"}));
  if (gpu_info().cusparse) {
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(has(r.out, "sparse products of whole graphs by cuSPARSE")) << r.out;
  } else {
    EXPECT_EQ(r.code, 2);
    EXPECT_TRUE(has(r.err, "spmm is cusparse, but this program was built without it")) << r.err;
    EXPECT_FALSE(std::filesystem::exists(dir / "gpu"));
  }
}

TEST(Cli, SaysWherePrecisionHasNoInfluence) {
  const Folder dir;
  const Result on_cpu =
      run(train_words("CCDRec", dir / "cpu", {"--device", "cpu", "--set", "epochs=1", "--set", "precision=tf32"}));
  EXPECT_EQ(on_cpu.code, 0) << on_cpu.err;
  EXPECT_TRUE(has(on_cpu.out + on_cpu.err, "precision = tf32 has no influence here: it concerns a GPU"))
      << on_cpu.out << on_cpu.err;
  const Result none = run(train_words("BPR", dir / "bpr", {"--set", "epochs=1", "--set", "precision=bf16"}));
  EXPECT_EQ(none.code, 0) << none.err;
  EXPECT_TRUE(has(none.out + none.err, "precision = bf16 has no influence here: this model has no large products"))
      << none.out << none.err;
  if (!gpu_info().usable) return;
  const Result on_gpu =
      run(train_words("CCDRec", dir / "gpu", {"--device", "cuda", "--set", "epochs=1", "--set", "precision=tf32"}));
  EXPECT_EQ(on_gpu.code, 0) << on_gpu.err;
  EXPECT_FALSE(has(on_gpu.out + on_gpu.err, "no influence")) << on_gpu.out << on_gpu.err;
  EXPECT_TRUE(has(on_gpu.out, "large products in tf32")) << on_gpu.out;
}

TEST(Cli, WhatCannotTrainIsRefusedBeforeTheFolderIsMade) {
  const Folder dir;
  if (gpu_info().usable) {  // a row wider than a warp's registers
    const Result r = run(train_words("CCDRec", dir / "run", {"--device", "cuda", "--set", "embedding_size=516"}));
    EXPECT_EQ(r.code, 2) << r.out;
    EXPECT_TRUE(has(r.err, "embedding_size is 516, expected at most 512 on a GPU with the estimator attention"))
        << r.err;
    EXPECT_FALSE(std::filesystem::exists(dir / "run"));
  }
  for (const char* set : {"mm_weights=[1.0]", "estimator_heads=3", "estimator_heads=32", "n_mm_layers=0",
                          "n_mm_layers=9", "n_ui_layers=9", "knn_k=41", "modalities=[audio]", "estimator_layers=5"}) {
    const Result r = run(train_words("CCDRec", dir / "run", {"--set", "estimator=transformer", "--set", set}));
    EXPECT_EQ(r.code, 2) << set << r.out;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    EXPECT_FALSE(std::filesystem::exists(dir / "run")) << set;
  }
}

TEST(Cli, DivergenceAndMemoryHaveTheirOwnCodes) {
  const Folder dir;
  const Result nan = run(train_words("BPR", dir / "nan", {"--set", "learning_rate=1e38"}));
  EXPECT_EQ(nan.code, 4) << nan.out;
  EXPECT_TRUE(has(nan.err, "diverged"));
  EXPECT_FALSE(std::filesystem::exists((dir / "nan") + "/last.safetensors"));
  const Result small = run(train_words("BPR", dir / "small", {"--set", "mem_limit_gb=1e-6"}));
  EXPECT_EQ(small.code, 2);
  EXPECT_TRUE(has(small.err, "mem_limit_gb = 1e-06 allows 1.0 kB")) << small.err;
  EXPECT_FALSE(std::filesystem::exists(dir / "small")) << "refused before anything was made";
  const Result plan = run(train_words("BPR", dir / "plan", {"--plan"}));
  EXPECT_EQ(plan.code, 0);
  EXPECT_TRUE(has(plan.out, "total"));
}

TEST(Cli, CompareGroupsBySeedAndMarksTheBest) {
  const Folder dir;
  const auto make = [&](const char* name, const char* model, const char* seed, double recall, const char* more) {
    const RunFolder folder = RunFolder::create(dir / name);
    std::vector<KeyValue> list = {{"model", model, "t"}, {"seed", seed, "t"}};
    if (*more) list.push_back(parse_assignment(more));
    const Config c = resolve_config({}, list);
    write_text(folder.path("config.yaml"), config_yaml(c));
    Dataset data;
    data.name = "set", data.interactions = "rows",
    data.checksum = *model == 'B'  ? "rows"
                    : *name == 'e' ? "other features"
                                   : "features";
    data.train = data.valid = data.test = {{0, 0}};
    TrainSummary s;
    s.best_epoch = 3, s.epochs_run = 24, s.train_seconds = 10, s.reason = StopReason::early;
    for (const char* key : {"recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20"})
      s.best_test[key] = recall, s.best_valid[key] = 1 - recall;
    folder.write_summary(c, data, s);
    return dir / name;
  };
  const std::vector<std::string> runs = {make("a", "BPR", "1", 0.01, ""), make("b", "BPR", "2", 0.03, ""),
                                         make("c", "CCDRec", "1", 0.05, ""),
                                         make("d", "CCDRec", "1", 0.04, "omega=0.5")};
  std::vector<std::string> words = {"compare"};
  words.insert(words.end(), runs.begin(), runs.end());
  const Result r = run(words);
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "0.0200 ± 0.0141")) << r.out;
  EXPECT_TRUE(has(r.out, "CCDRec(FREEDOM) omega=0.8")) << r.out;
  EXPECT_TRUE(has(r.out, "CCDRec(FREEDOM) omega=0.5")) << r.out;
  EXPECT_TRUE(has(r.out, "0.0500*")) << r.out;
  EXPECT_FALSE(has(r.out, "0.0400*")) << r.out;
  EXPECT_EQ(r.out.find("set, test metrics"), r.out.rfind("set, test metrics"))
      << "one table, whether a model reads features or not";
  const Result features = run({"compare", runs[2], make("e", "CCDRec", "2", 0.06, "")});
  EXPECT_TRUE(has(features.out, "CCDRec(FREEDOM) data=other features"))
      << "not one line's second seed: computed from other features\n"
      << features.out;
  words.push_back("--valid");
  EXPECT_TRUE(has(run(words).out, "0.9800 ± 0.0141*"));
  words.back() = "--markdown";
  EXPECT_TRUE(has(run(words).out, "| **0.0500** |"));
  words.back() = "--json";
  EXPECT_EQ(nlohmann::json::parse(run(words).out).size(), 3u);
  words.back() = data_folder();  // `compare runs/*` may meet other folders
  EXPECT_EQ(run(words).code, 0);
  words = {"compare", runs[0], runs[0]};
  EXPECT_TRUE(has(run(words).err, "repeats seed 1"));
}

}  // namespace
}  // namespace ccdrec::test
