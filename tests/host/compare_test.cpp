// ccdrec compare: labels, lines tested against one of them, lists and groups, every format.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/text.h"
#include "host/files/run_folder.h"
#include "host/files/user_values.h"
#include "host/report/group_tests.h"
#include "host/systems/label.h"
#include "tests/host/command.h"

namespace ccdrec::test {
namespace {

using nlohmann::json;

TEST(Label, SaysOfWhichPartsASystemIs) {
  struct Labelled {
    std::vector<const char*> settings;
    const char *label, *note = "";
  };
  const Labelled cases[] = {
      {{"model=FREEDOM"}, "FREEDOM"},
      {{"model=FREEDOM", "sampler=dns"}, "FREEDOM+DNS"},
      {{"model=FREEDOM", "use_mg=true"}, "MG"},
      {{"model=FREEDOM", "use_mg=true", "sampler=mixgcf"}, "MG+MixGCF"},
      {{"model=LATTICE", "use_mg=true", "sampler=realhns"}, "MG(LATTICE)+RealHNS"},
      {{"model=BPR", "sampler=popularity"}, "BPR+Popularity"},
      {{"model=CCDRec"}, "CCDRec(FREEDOM)"},
      {{"backbone=LATTICE"}, "CCDRec(LATTICE)"},
      {{"use_mg=true"}, "CCDRec(MG)"},
      {{"use_mg=true", "backbone=LATTICE"}, "CCDRec(MG(LATTICE))"},
      {{"ndi=false", "cns=false"}, "FREEDOM+DMA"},
      {{"cns=false"}, "FREEDOM+DMA+NDI"},
      {{"ndi=false", "cns=false", "sampler=dns"}, "FREEDOM+DMA+DNS"},
      {{"dma=false", "backbone=LATTICE"}, "LATTICE+NDI+CNS"},
      {{"dma=false", "ndi=false", "cns=false"}, "CCDRec(FREEDOM) without modules"},
      {{"model=MCDRec"}, "MCDRec"},
      {{"backbone=MCDRec"}, "CCDRec(MCDRec)", "DGD graph, attention"},
      {{"backbone=MCDRec", "estimator=unet"}, "CCDRec(MCDRec)", "DGD graph, unet"},
      {{"backbone=MCDRec", "dgd=off"}, "CCDRec(MCDRec)", "graph without DGD, attention"},
  };
  for (const Labelled& c : cases) {
    std::vector<KeyValue> words;
    for (const char* word : c.settings) words.push_back(parse_assignment(word));
    const Settings s = resolve_config({}, words).settings;
    EXPECT_EQ(label_of(s), c.label);
    EXPECT_EQ(label_note(s), c.note) << c.label;
  }
}

// Run folders as training leaves them, with the figures that a test wants.
struct MadeRuns {
  Folder dir;
  std::vector<std::string> dirs;
  std::string interactions = "rows";
  int32_t first_user = 0;

  struct Of {
    const char* model = "BPR";
    int seed = 1;
    double test = 0.1, valid = 0.1;
    std::vector<float> users = {};  // recall@20 of each, both splits; empty: none kept
    std::vector<const char*> more = {};
  };
  // Recall and NDCG are the same at every k.
  std::string add(const Of& of) {
    const RunFolder folder = RunFolder::create(dir / ("run" + std::to_string(dirs.size())));
    std::vector<KeyValue> words = {{"model", of.model, "t"}, {"seed", std::to_string(of.seed), "t"}};
    for (const char* word : of.more) words.push_back(parse_assignment(word));
    const Config c = resolve_config({}, words);
    write_text(folder.path("config.yaml"), config_yaml(c));
    Dataset data;
    data.name = "set", data.interactions = interactions, data.checksum = "features";
    data.train = data.valid = data.test = {{0, 0}};
    TrainSummary s;
    s.best_epoch = 3, s.epochs_run = 24, s.train_seconds = 10, s.reason = StopReason::early;
    for (const char* key : {"recall@5", "recall@20", "ndcg@20", "mrr@20"})
      s.best_test[key] = of.test, s.best_valid[key] = of.valid;
    folder.write_summary(c, data, s);
    if (!of.users.empty()) keep_users(folder, of.users);
    dirs.push_back(folder.dir());
    return folder.dir();
  }
  void keep_users(const RunFolder& folder, const std::vector<float>& recall) const {
    UserValues v;
    v.best_epoch = 3, v.columns = {"user", "train_rows", "recall@20"};
    v.valid = v.test = int64_t(recall.size());
    for (int split = 0; split < 2; ++split)
      for (size_t k = 0; k < recall.size(); ++k) {  // in an order of its own, as no two .inter files need have the same
        const size_t u = (3 * k + dirs.size()) % recall.size();
        for (const float x : {float(first_user + int(u)), 5.0f, split == 0 ? recall[u] / 2 : recall[u]})
          v.values.push_back(x);
      }
    write_user_values(folder, v);
    change_summary(folder.dir(), [&](auto& j) { j["users"] = user_values_json(v); });
  }
  template <class F>
  static void change_summary(const std::string& run_dir, F change) {
    const RunFolder folder = RunFolder::open(run_dir);
    auto j = nlohmann::ordered_json::parse(read_text(folder.path("summary.json")));
    change(j);
    write_text(folder.path("summary.json"), j.dump());
  }
  Result compare(const std::vector<std::string>& more) const {
    std::vector<std::string> words = {"compare"};
    words.insert(words.end(), dirs.begin(), dirs.end());
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  }
  json tests_of(const std::string& name, const std::vector<std::string>& more) const {
    std::vector<std::string> words = {"--tests", "--json", "--metrics", "recall@20"};
    words.insert(words.end(), more.begin(), more.end());
    const Result r = compare(words);
    EXPECT_EQ(r.code, 0) << r.err;
    for (const json& line : json::parse(r.out))
      if (line.at("name") == name) return line.at("tests");
    ADD_FAILURE() << name << " is no line of\n" << r.out;
    return {};
  }
};

const std::vector<float> kBpr = {0, 0.5f, 0.25f, 1, 0, 0.75f, 0, 0.5f},
                         kLight = {0.5f, 0.5f, 0.5f, 1, 0, 1, 0.25f, 0.5f},
                         kLight2 = {0.25f, 0.5f, 0.25f, 1, 0.25f, 1, 0, 1};

TEST(Compare, TestsUsersAgainstTheBestLineByValidation) {
  MadeRuns runs;
  runs.add({.model = "BPR", .test = 0.2, .valid = 0.3, .users = kBpr});
  runs.add({.model = "LightGCN", .seed = 2, .test = 0.5, .valid = 0.1, .users = kLight2});
  runs.add({.model = "LightGCN", .seed = 1, .test = 0.3, .valid = 0.2, .users = kLight});
  runs.add({.model = "FREEDOM", .test = 0.1, .valid = 0.25, .users = kLight2});
  EXPECT_EQ(runs.tests_of("BPR", {}), json::array()) << "best by validation, though not by test: the others' yardstick";
  const json light = runs.tests_of("LightGCN", {})[0], freedom = runs.tests_of("FREEDOM", {})[0];
  EXPECT_EQ(light.at("against"), "BPR");
  EXPECT_NEAR(light.at("difference").get<double>(), 0.2, 1e-12);
  EXPECT_NEAR(light.at("percent").get<double>(), 100, 1e-9);
  std::vector<double> bpr(kBpr.begin(), kBpr.end()), both;
  for (size_t u = 0; u < 8; ++u) both.push_back((double(kLight[u]) + double(kLight2[u])) / 2);
  const PairedTest want = paired_test(both, bpr);
  const json& users = light.at("users");
  EXPECT_EQ(users.at("n"), 8);
  EXPECT_EQ(users.at("difference"), want.difference);
  EXPECT_EQ(users.at("interval"), (json{want.low, want.high}));
  EXPECT_EQ(users.at("p_t"), want.p_t);
  EXPECT_EQ(users.at("p_wilcoxon"), want.p_wilcoxon);
  EXPECT_EQ(users.at("effect"), want.effect);
  const std::vector<double> corrected =
      holm(std::vector<double>{want.p_t, freedom.at("users").at("p_t").get<double>()});
  EXPECT_EQ(users.at("p_t_holm"), corrected[0]) << "over the two lines";
  EXPECT_EQ(freedom.at("users").at("p_t_holm"), corrected[1]);
  // The other split, and the other line.
  const json valid = runs.tests_of("BPR", {"--valid", "--against", "LightGCN"})[0];
  EXPECT_NEAR(valid.at("users").at("difference").get<double>(), -want.difference / 2, 1e-12);
  const Result text = runs.compare({"--tests"});
  EXPECT_TRUE(has(text.out, "set, test recall@20 against BPR (0.2000; best by validation recall@20)")) << text.out;
  EXPECT_TRUE(has(text.out, "over 8 users")) << text.out;
  EXPECT_TRUE(has(text.out, "no test over users of LightGCN, FREEDOM: ndcg@20 is kept of no user")) << text.out;
  EXPECT_EQ(text.err, "");
  // As other commands ask for it.
  const auto groups = group_runs(runs.dirs, {});
  EXPECT_EQ(test_over_users(groups[1], groups[0], "recall@20", false).test->p_t, want.p_t);
  EXPECT_FALSE(test_over_users(groups[1], groups[0], "map@20", false).test);
}

TEST(Compare, SeedsHaveAPValueFromSixOn) {
  MadeRuns runs;
  for (int seed = 1; seed <= 6; ++seed) {
    runs.add({.model = "BPR", .seed = seed, .test = 0.2 + 0.01 * seed, .valid = 0.5});
    if (seed < 6) runs.add({.model = "LightGCN", .seed = seed, .test = 0.25 + 0.012 * seed * seed});
    runs.add({.model = "FREEDOM", .seed = seed, .test = 0.21 + 0.011 * (seed + seed % 2)});
  }
  const Result r = runs.compare({"--tests", "--metrics", "recall@20"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.out, "5 of 6 seeds\n")) << r.out;
  std::vector<double> a, b;
  for (int seed = 1; seed <= 6; ++seed) a.push_back(0.21 + 0.011 * (seed + seed % 2)), b.push_back(0.2 + 0.01 * seed);
  const json seeds = runs.tests_of("FREEDOM", {})[0].at("seeds");
  EXPECT_EQ(seeds.at("common"), 6);
  EXPECT_EQ(seeds.at("p"), paired_p_of_seeds(a, b));
  EXPECT_TRUE(runs.tests_of("LightGCN", {})[0].at("seeds").at("p").is_null());
}

TEST(Compare, SaysWhereUsersCannotBeTested) {
  MadeRuns runs;
  runs.add({.model = "BPR", .valid = 0.5, .users = kBpr});
  runs.add({.model = "LightGCN"});
  runs.first_user = 3;
  runs.add({.model = "FREEDOM", .users = kBpr});
  runs.interactions = "other rows";
  runs.add({.model = "LATTICE", .users = kBpr});
  const Result r = runs.compare({"--tests", "--metrics", "Recall@20"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err, "note: " + runs.dirs[1] +
                       " has no values of users; `ccdrec evaluate RUN --keep` adds them where there is a "
                       "best.safetensors\n" +
                       "note: set (0 users, 0 items, 1 training rows, checksum other rows) has one line, so there is "
                       "nothing to test it against\n");
  EXPECT_TRUE(has(r.out, "no test over users of LightGCN: " + runs.dirs[1] + " has no values of users\n")) << r.out;
  EXPECT_TRUE(has(r.out, "no test over users of FREEDOM: the users differ, so the splits do\n")) << r.out;
  const auto groups = group_runs(runs.dirs, {.note = [](const std::string&) {}, .check = {}});
  EXPECT_EQ(test_over_users(groups[0], groups[3], "recall@20", false).why_not, "the interactions differ");
  EXPECT_EQ(runs.compare({"--tests", "--against", "LightGCN"}).code, 0) << "it is in one of the two sets";
  write_text(runs.dirs[0] + "/users.f32", "short");
  const Result damaged = runs.compare({"--tests"});
  EXPECT_EQ(damaged.code, 2);
  EXPECT_TRUE(has(damaged.err, "users.f32: 5 bytes, expected 16 rows of 3 float32 values")) << damaged.err;
  write_text(runs.dirs[0] + "/users.f32", std::string(16 * 3 * 4, '\xff'));
  EXPECT_TRUE(has(runs.compare({"--tests"}).err, "users.f32: row 0 has user = ")) << "NaNs are no numbers of users";
}

TEST(Compare, TheOtherLineIsNamedByLabelNameOrFolder) {
  MadeRuns runs;
  runs.add({.model = "BPR", .valid = 0.5});
  runs.add({.model = "LightGCN", .more = {"n_ui_layers=1"}});
  runs.add({.model = "LightGCN", .more = {"n_ui_layers=2"}});
  const std::string bpr = "against BPR (0.1000)", two_layers = "against LightGCN n_ui_layers=2 (0.1000)";
  for (const auto& [against, title] : {std::pair<std::string, std::string>{"BPR", bpr},
                                       {"LightGCN n_ui_layers=2", two_layers},
                                       {runs.dirs[2], two_layers},
                                       {runs.dirs[2] + "/", two_layers}})
    EXPECT_TRUE(has(runs.compare({"--tests", "--against", against}).out, title)) << against;
  const std::vector<std::pair<std::vector<std::string>, std::string>> refused = {
      {{"--tests", "--against", "LightGCN"}, "--against LightGCN: 2 lines have this label; name one in full"},
      {{"--tests", "--against", "SLMRec"},
       "--against SLMRec: no line and none of the runs; the lines are BPR, LightGCN"},
      {{"--tests", "--metrics", "recall@7"}, "no run has 'recall@7'; they have "},
      {{"--against", "BPR"}, "--tests"},
      {{"--metrics", "recall@5"}, "--tests"},
      {{"--format", "html"}, "a table has no format 'html', expected text, markdown, latex, csv or json"},
      {{"--format", "csv", "--json"}, "--json"},
  };
  for (const auto& [words, part] : refused) {
    const Result r = runs.compare(words);
    EXPECT_EQ(r.code, 2) << r.out;
    EXPECT_TRUE(has(r.err, part)) << r.err;
  }
  runs.add({.model = "FREEDOM", .more = {"valid_metric=NDCG@20"}});
  const Result r = runs.compare({"--tests"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(has(r.err,
                  "set: BPR was stopped by recall@20 and FREEDOM by ndcg@20, so no line is best by validation; "
                  "name one with --against"))
      << r.err;
}

TEST(Compare, ShowsListsAndGroups) {
  MadeRuns runs;
  const std::string kept = runs.add({.model = "BPR", .test = 0.25});
  const std::string seed2 = runs.add({.model = "BPR", .seed = 2, .test = 0.75});
  const std::string bare = runs.add({.model = "FREEDOM", .test = 0.3});
  double coverage = 0.5;
  for (const std::string& dir : {kept, seed2}) {
    MadeRuns::change_summary(dir, [&](auto& j) {
      j["lists"] = {{"coverage@20", coverage}, {"arp@20", 12.5}, {"ild_image@20", 0.75}, {"ild_text@20", nullptr}};
      const json bin = {{"items", 24}, {"rows", 9}, {"users", 7}, {"train_rows", {1, 3}}, {"recall@20", coverage / 2}};
      const json none = {{"users", 0}, {"train_rows", {4, 4}}};
      j["groups"] = {{"popularity", {bin}}, {"activity", {none}}};
    });
    coverage = 0.75;
  }
  const Result r = runs.compare({"--lists", "--groups", "--markdown"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(
      has(r.out, "| run | seeds | MRR | Hit | coverage | Gini | ARP | tail | novelty | ILD image | ILD text |\n"));
  EXPECT_TRUE(has(r.out,
                  "| BPR | 2 | **0.5000 ± 0.3536** | - | 0.6250 ± 0.1768 | - | 12.50 ± 0.00 | - | - | "
                  "0.7500 ± 0.0000 | - |\n"
                  "| FREEDOM | 1 | 0.3000 | - | - | - | - | - | - | - | - |\n"))
      << r.out;
  EXPECT_TRUE(has(r.out,
                  "| run | seeds | 1: 1-3 rows |\n|---|---:|---:|\n| BPR | 2 | **0.3125 ± 0.0884** |\n"
                  "| FREEDOM | 1 | - |\n\n1: 24 items, 9 test rows of 7 users\n"))
      << r.out;
  EXPECT_TRUE(has(r.out, "| run | seeds | 1: 4-4 rows |\n|---|---:|---:|\n| BPR | 2 | - |\n")) << r.out;
  EXPECT_EQ(r.err, "note: " + bare +
                       " has no figures of lists and groups; `ccdrec evaluate RUN --keep` adds them where there is a "
                       "best.safetensors\n");
  const json line = json::parse(runs.compare({"--json"}).out)[0];
  EXPECT_EQ(line.at("runs"), (json{kept, seed2}));
  EXPECT_EQ(line.at("values").at("mrr@20"), (json{0.25, 0.75}));
  EXPECT_EQ(line.at("lists").at("coverage@20"), (json{0.5, 0.75}));
  EXPECT_EQ(line.at("lists").at("ild_text@20"), (json{nullptr, nullptr}));
  EXPECT_EQ(line.at("groups").at("popularity")[0].at("recall@20"), (json{0.25, 0.375}));
  EXPECT_EQ(line.at("groups").at("popularity")[0].at("train_rows"), (json{1, 3}));
  MadeRuns::change_summary(kept, [](auto& j) { j["groups"]["activity"][0].erase("users"); });
  EXPECT_EQ(runs.compare({"--groups"}).code, 2) << "damaged";
}

TEST(Compare, HasEveryFormat) {
  MadeRuns runs;
  runs.add({.model = "BPR", .seed = 2, .test = 0.375});
  runs.add({.model = "BPR", .seed = 1, .test = 0.125});
  runs.add({.model = "CCDRec", .test = 0.5, .more = {"backbone=MCDRec"}});
  const Result text = runs.compare({"--format", "text"}), plain = runs.compare({});
  EXPECT_EQ(text.out, plain.out);
  EXPECT_TRUE(has(plain.out, "standard deviation over seeds; * = best\n")) << plain.out;
  EXPECT_TRUE(has(plain.out, "\nCCDRec(MCDRec): DGD graph, attention\n")) << plain.out;
  EXPECT_TRUE(has(runs.compare({"--format", "latex"}).out,
                  "BPR & 2 & 0.2500 $\\pm$ 0.1768 & - & 0.2500 $\\pm$ 0.1768 & - & - & 0.2500 $\\pm$ 0.1768 & 3 & 24 & "
                  "10.0 \\\\\nCCDRec(MCDRec) & 1 & \\textbf{0.5000} &"));
  EXPECT_EQ(runs.compare({"--format", "csv"}).out,
            "run,seeds,R@5,R@5 sd,R@10,R@20,R@20 sd,N@5,N@10,N@20,N@20 sd,best epoch,epochs,seconds\n"
            "BPR,2,0.25,0.1767766952966369,,0.25,0.1767766952966369,,,0.25,0.1767766952966369,3,24,10\n"
            "CCDRec(MCDRec),1,0.5,,,0.5,,,,0.5,,3,24,10\n");
  EXPECT_TRUE(runs.compare({"--format", "csv", "--lists"}).out.starts_with("# set, test metrics"));
  EXPECT_EQ(runs.compare({"--format", "markdown"}).out, runs.compare({"--markdown"}).out);
  const json lines = json::parse(runs.compare({"--format", "json"}).out);
  EXPECT_EQ(lines[0].at("seeds"), (json{1, 2}));
  EXPECT_EQ(lines[0].at("values").at("recall@5"), (json{0.125, 0.375})) << "in the order of the seeds";
  EXPECT_EQ(lines[1].at("note"), "DGD graph, attention");
}

}  // namespace
}  // namespace ccdrec::test
