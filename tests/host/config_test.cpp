// Configuration: precedence, origins, ranges, unknown keys, MMRec's files, and reading back what a run writes.
#include "host/config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "data/error.h"
#include "host/ccdrec/cns.h"
#include "tests/host/tiny_data.h"

namespace ccdrec {
namespace {

using test::Folder;

std::string file_with(const Folder& dir, const std::string& name, const std::string& text) {
  std::ofstream(dir / name) << text;
  return dir / name;
}

std::string sentence(const std::function<void()>& f) {
  try {
    f();
  } catch (const UserError& e) { return e.what(); }
  return "(no error)";
}

Config of(const std::vector<std::string>& assignments, const std::vector<std::string>& files = {}) {
  std::vector<KeyValue> list;
  for (const std::string& a : assignments) list.push_back(parse_assignment(a));
  return resolve_config(files, list);
}

TEST(Config, LaterLayersWinAndEachValueKnowsItsOrigin) {
  const Folder dir;
  const std::string a = file_with(dir, "a.yaml", "model: CCDRec\nlearning_rate: 0.002\nomega: 0.5\nmu: 0.3\n"),
                    b = file_with(dir, "b.yaml", "\nomega: 0.7\n");
  const Config c = of({"mu=0.8"}, {a, b});
  EXPECT_EQ(c.settings.timesteps, 20);
  EXPECT_EQ(c.origin.at("timesteps"), "built-in");
  EXPECT_EQ(c.settings.train_batch_size, 512);
  EXPECT_EQ(c.origin.at("train_batch_size"), "default of CCDRec");
  EXPECT_DOUBLE_EQ(c.settings.learning_rate, 0.002);
  EXPECT_EQ(c.origin.at("learning_rate"), a + ":2");
  EXPECT_DOUBLE_EQ(c.settings.omega, 0.7);
  EXPECT_EQ(c.origin.at("omega"), b + ":2");
  EXPECT_DOUBLE_EQ(c.settings.mu, 0.8);
  EXPECT_EQ(c.origin.at("mu"), "--set");
  const std::string shown = print_config(c);
  EXPECT_NE(shown.find(b + ":2"), std::string::npos);
  EXPECT_NE(shown.find("default of CCDRec"), std::string::npos);
}

TEST(Config, DefaultsBelongToTheModelWhoeverNamesIt) {
  const Folder dir;
  EXPECT_DOUBLE_EQ(of({"model=BPR"}).settings.reg_weight, 0.1);
  EXPECT_DOUBLE_EQ(of({"model=LightGCN"}).settings.reg_weight, 1e-4);
  EXPECT_EQ(of({"model=FREEDOM"}).settings.train_batch_size, 2048);
  const Config c = of({}, {file_with(dir, "m.yaml", "model: [CCDRec]\n")});
  EXPECT_EQ(c.settings.train_batch_size, 512);
  EXPECT_DOUBLE_EQ(c.settings.learning_rate, 5e-4);
  EXPECT_EQ(of({"model=freedom"}).settings.model, "FREEDOM");  // spelled as MMRec's users spell
  EXPECT_EQ(of({"model=BPR"}, {file_with(dir, "n.yaml", "model: FREEDOM\nreg_weight: 0.5\n")}).settings.reg_weight, 0.5);
}

TEST(Config, NumbersAsYamlWritersWriteThem) {
  struct Case {
    const char* text;
    double value;
  };
  for (const Case& c : {Case{"1e-05", 1e-5},
                        {"1e-5", 1e-5},
                        {"1E-4", 1e-4},
                        {"0.00001", 1e-5},
                        {"+0.5", 0.5},
                        {".5", 0.5},
                        {"[1e-03]", 1e-3},
                        {"\"0.25\"", 0.25},
                        {"7", 7}})
    EXPECT_DOUBLE_EQ(of({std::string("model=FREEDOM"), std::string("reg_weight=") + c.text}).settings.reg_weight, c.value) << c.text;
  EXPECT_EQ(of({"seed=[999]"}).settings.seed, 999u);
  EXPECT_EQ(of({"seed=4294967295"}).settings.seed, 4294967295u);
  EXPECT_EQ(of({"topk=[20, 5, 10]"}).settings.topk, (std::vector<int>{5, 10, 20}));
  EXPECT_EQ(of({"topk=20"}).settings.topk, (std::vector<int>{20}));
  EXPECT_EQ(of({"topk=[2147483647, 20]"}).settings.topk, (std::vector<int>{20, 2147483647}));
  for (const char* yes : {"true", "True", "yes", "on", "1"}) EXPECT_TRUE(of({std::string("knn_center=") + yes}).settings.knn_center);
}

TEST(Config, ValuesOutOfRangeNameKeyValueAndExpectation) {
  struct Case {
    const char *assignment, *expected;
  };
  const Case cases[] = {{"mu=2", "a number in [0, 1]"},
                        {"mu=nan", "a number in [0, 1]"},
                        {"mu=inf", "a number"},
                        {"mu=0.5x", "a number"},
                        {"mu=", "(empty)"},
                        {"dropout=1", "[0, 1)"},
                        {"learning_rate=0", "> 0"},
                        {"learning_rate=-1", "> 0"},
                        {"candidate_ratio=0", "(0, 1]"},
                        {"epochs=0", ">= 1"},
                        {"epochs=2.5", "an integer"},
                        {"epochs=99999999999", "an integer"},
                        {"seed=-1", "0 .. 4294967295"},
                        {"seed=4294967296", "0 .. 4294967295"},
                        {"dma=maybe", "true or false"},
                        {"noise_schedule=linaer", "did you mean linear?"},
                        {"topk=[]", "a list of integers"},
                        {"topk=[0]", "a list of integers"},
                        {"topk=[20, 2147483648]", "a list of integers"},
                        {"valid_metric=Recal@20", "Recall, NDCG"},
                        {"valid_metric=Recall@7", "needs 7 among topk"},
                        {"mm_weights=[0.5, 0.4]", "sum to 1"},
                        {"embedding_size=7", "even width"},
                        {"metrics=[Recall, AUC]", "Recall, NDCG"},
                        {"learner=sgd", "Adam"},
                        {"weight_decay=0.01", "no weight decay"},
                        {"model=CCDRek", "did you mean CCDRec?"},
                        {"topk={a: 1}", "mapping"},
                        {"mu=[", "not valid YAML"}};
  for (const Case& c : cases) {
    const std::string got = sentence([&] { of({c.assignment}); });
    EXPECT_NE(got.find(c.expected), std::string::npos) << c.assignment << ": " << got;
    EXPECT_NE(got.find(std::string(c.assignment).substr(0, std::string(c.assignment).find('='))), std::string::npos) << got;
  }
}

TEST(Config, UnknownKeysNameTheNearest) {
  const Folder dir;
  EXPECT_NE(sentence([&] { of({"learing_rate=1"}); }).find("did you mean 'learning_rate'?"), std::string::npos);
  EXPECT_NE(sentence([&] { of({"lambda=1"}); }).find("did you mean 'lambda_dm'?"), std::string::npos);
  EXPECT_NE(sentence([&] { of({"zzzzzzzzzzzzzzzzzzzzzzzz=1"}); }).find("--help-keys"), std::string::npos);
  const std::string file = file_with(dir, "a.yaml", "model: BPR\n\nembeding_size: 64\n");
  EXPECT_EQ(sentence([&] { of({}, {file}); }), file + ":3: unknown key 'embeding_size'; did you mean 'embedding_size'?");
  EXPECT_NE(sentence([&] { of({"novalue"}); }).find("key=value"), std::string::npos);
  EXPECT_NE(sentence([&] { of({"hyper_parameters=[dropuot]"}); }).find("did you mean 'dropout'?"), std::string::npos);
}

TEST(Config, FilesThatAreNoConfigurationAreRefusedWithTheirLine) {
  const Folder dir;
  EXPECT_NE(sentence([&] { of({}, {dir / "absent.yaml"}); }).find("cannot be opened"), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "list.yaml", "- a\n- b\n")}); }).find("key: value"), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "twice.yaml", "mu: 0.1\nmu: 0.2\n")}); }).find("twice.yaml:2"), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "broken.yaml", "mu: 0.1\ntopk: [1, 2\n")}); }).find("not valid YAML"), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "deep.yaml", "topk: [[1], [2]]\n")}); }).find("nested"), std::string::npos);
  EXPECT_EQ(of({}, {file_with(dir, "empty.yaml", "")}).settings.model, "CCDRec");
  EXPECT_NE(sentence([&] { of({}, {dir.path()}); }).find("is a directory"), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "two.yaml", "mu: 0.1\n---\nomega: 0.2\n")}); }).find("two.yaml:3: not valid YAML"),
            std::string::npos)
      << "a second document would be ignored";
}

TEST(Config, PublishedFreedomFileNeedsOneChoicePerGrid) {
  const Folder dir;
  const std::string file = file_with(
      dir, "FREEDOM.yaml",
      "model: FREEDOM\nembedding_size: 64\nfeat_embed_dim: 64\nweight_size: [64, 64]\n\nlambda_coeff: 0.9\nreg_weight: [0.0, 1e-05, 1e-04, 1e-03]\n\n"
      "n_mm_layers: 1\nn_ui_layers: 2\nknn_k: 10\n\nmm_image_weight: 0.1\ndropout: [0.8, 0.9]\n\nhyper_parameters: [\"dropout\", \"reg_weight\"]\n"
      "eval_batch_size: 4096\nmetrics: [\"Recall\", \"NDCG\"]\nuse_gpu: True\ngpu_id: 0\n");
  const std::string refused = sentence([&] { of({}, {file}); });
  EXPECT_NE(refused.find("dropout holds 2 values [0.8, 0.9]"), std::string::npos) << refused;
  EXPECT_NE(refused.find("--set dropout="), std::string::npos);
  const Config c = of({"dropout=0.9", "reg_weight=1e-03"}, {file});  // choosing overrides the grid
  EXPECT_DOUBLE_EQ(c.settings.dropout, 0.9);
  EXPECT_DOUBLE_EQ(c.settings.reg_weight, 1e-3);
  for (const char* key : {"eval_batch_size", "metrics", "use_gpu", "gpu_id", "hyper_parameters", "lambda_coeff", "weight_size", "feat_embed_dim"}) {
    bool noted = false;
    for (const std::string& note : c.notes) noted |= note.find(std::string(": ") + key + " has no influence") != std::string::npos;
    EXPECT_TRUE(noted) << key << " was accepted in silence";
  }
}

TEST(Config, KeysOfOtherModelsAreNotedNotSilent) {
  const Config c = of({"model=BPR", "omega=0.7"});
  ASSERT_EQ(c.notes.size(), 1u);
  EXPECT_EQ(c.notes[0], "--set: omega has no influence on BPR");
  EXPECT_TRUE(of({"model=CCDRec", "omega=0.7"}).notes.empty());
}

// Keys of the model that other settings switch off: named with the reason, and only when a value was asked for that is not taken anyway.
TEST(Config, KeysThatOtherSettingsSwitchOffAreNoted) {
  struct Case {
    std::vector<std::string> set;
    const char *key, *why;
  };
  const Case cases[] = {{{"backbone=LightGCN", "dropout=0.5"}, "dropout", "FREEDOM prunes"},
                        {{"backbone=LightGCN", "knn_k=5"}, "knn_k", "FREEDOM"},
                        {{"backbone=LightGCN", "reg_weight=0.1"}, "reg_weight", "FREEDOM"},
                        {{"backbone=BPR", "n_ui_layers=3"}, "n_ui_layers", "propagates nothing"},
                        {{"cns=false", "kappa=0.2"}, "kappa", "cns is off"},
                        {{"cns=false", "candidate_ratio=0.2"}, "candidate_ratio", "cns is off"},
                        {{"cns=false", "dtau=7"}, "dtau", "cns is off"},
                        {{"ndi=false", "tau_end=7"}, "tau_end", "ndi is off"},
                        {{"ndi_negative=index"}, "ndi_negative", "ndi without cns"},
                        {{"dma=false", "mu=0.7"}, "mu", "dma is off"},
                        {{"dma=false", "ndi=false", "lambda_dm=2"}, "lambda_dm", "no diffusion"},
                        {{"ndi=false", "cns=false", "omega=0.5"}, "omega", "no curricular negatives"},
                        {{"estimator_layers=2"}, "estimator_layers", "attention"},
                        {{"estimator_heads=2"}, "estimator_heads", "attention"},
                        {{"mm_image_weight=0.3", "mm_weights=[0.5, 0.5]"}, "mm_image_weight", "mm_weights overrides"},
                        {{"model=FREEDOM", "train_features=false"}, "train_features", "item graph alone"},
                        {{"device=cpu", "spmm=cusparse"}, "spmm", "concerns a GPU"},
                        {{"backbone=BPR", "spmm=cusparse"}, "spmm", "propagates nothing"},
                        {{"save_last=false", "save_every=3"}, "save_every", "save_last is off"}};
  for (const Case& c : cases) {
    const Config got = of(c.set);
    ASSERT_EQ(got.notes.size(), 1u) << c.key;
    EXPECT_EQ(got.notes[0].rfind(std::string("--set: ") + c.key + " = ", 0), 0u) << got.notes[0];
    EXPECT_NE(got.notes[0].find(c.why), std::string::npos) << got.notes[0];
  }
  EXPECT_TRUE(of({"cns=false", "kappa=0.1", "dtau=5"}).notes.empty()) << "the values they have anyway";
  EXPECT_TRUE(of({"ndi_negative=index", "cns=false"}).notes.empty());
  EXPECT_TRUE(of({"device=cpu", "spmm=own"}).notes.empty());
  EXPECT_TRUE(of({"spmm=cusparse"}).notes.empty());
  EXPECT_TRUE(of({"model=FREEDOM", "reg_weight=0.1", "train_features=false"}).notes.empty());
  EXPECT_TRUE(of({"estimator=transformer", "estimator_heads=2", "estimator_layers=2"}).notes.empty());
}

// One table of ranges: files, the command line, the reference and settings made in a program are held to the same.
TEST(Config, RangesAreThoseThatAreEnforced) {
  const std::string text = key_reference();
  const auto line_of = [&](const std::string& key) {
    const size_t at = text.find("  " + key + " "), next = text.find('\n', at) + 1;
    return text.substr(next, text.find('\n', next) - next);
  };
  EXPECT_NE(line_of("n_ui_layers").find("integer 0 .. 8;"), std::string::npos) << line_of("n_ui_layers");
  EXPECT_NE(line_of("n_mm_layers").find("integer 1 .. 8;"), std::string::npos) << line_of("n_mm_layers");
  EXPECT_NE(line_of("estimator_heads").find("integer 1 .. 16;"), std::string::npos) << line_of("estimator_heads");
  Settings s;
  EXPECT_NO_THROW(check_ranges(s));
  s.n_mm_layers = 0;
  EXPECT_EQ(sentence([&] { check_ranges(s); }), "settings: n_mm_layers = 0 is not an integer 1 .. 8");
  s.model = "BPR";
  EXPECT_NO_THROW(check_ranges(s)) << "not a key of this model";
  s.n_neg = 0;
  EXPECT_NE(sentence([&] { check_ranges(s); }).find("n_neg = 0"), std::string::npos);
}

TEST(Config, LayersOfLightGcn) {
  EXPECT_EQ(of({"model=LightGCN", "n_layers=3"}).settings.n_ui_layers, 3);
  EXPECT_NE(sentence([&] { of({"model=FREEDOM", "n_layers=3"}); }).find("LightGCN's key"), std::string::npos);
  EXPECT_NE(sentence([&] { of({"model=LightGCN", "n_layers=3", "n_ui_layers=2"}); }).find("same setting"), std::string::npos);
}

TEST(Config, WhatARunWritesReadsBackTheSame) {
  const Folder dir;
  for (const char* model : {"BPR", "LightGCN", "FREEDOM", "CCDRec"}) {
    Config c = of({std::string("model=") + model, "learning_rate=0.1234567890123456789", "seed=4000000000", "topk=[3,20]", "run_dir=true"});
    c.settings.dataset = "a: b # c", c.settings.data_path = "/x y/ü\"z";
    c.settings.mm_weights = {0.25, 0.75};
    c.settings.modalities = {"image", "null"};
    const std::string text = config_yaml(c);
    const Config back = of({}, {file_with(dir, "config.yaml", text)});
    EXPECT_EQ(config_values(back.settings), config_values(c.settings)) << text;
    EXPECT_EQ(back.settings.learning_rate, c.settings.learning_rate);
    EXPECT_EQ(back.settings.data_path, c.settings.data_path);
    EXPECT_TRUE(back.notes.empty());
    EXPECT_EQ(text.find("omega") != std::string::npos, std::string(model) == "CCDRec");
  }
}

TEST(Config, ARunThatGoesOnKeepsTheLinesThatStillHold) {
  const Folder dir;
  const std::string first = config_yaml(of({"model=BPR", "epochs=7"}));
  Config c = of({"epochs=9"}, {file_with(dir, "config.yaml", first)});
  const std::string second = config_yaml(c, first);
  EXPECT_EQ(config_yaml(of({}, {dir / "config.yaml"}), first), first);
  EXPECT_NE(second.find("epochs: 9 "), std::string::npos);
  EXPECT_NE(second.find("# default of BPR\n"), std::string::npos);
  EXPECT_EQ(second.find("config.yaml:"), std::string::npos) << second;
}

TEST(Config, OnlyHarmlessKeysChangeOnResume) {
  EXPECT_NO_THROW(check_resumable({{"epochs", "5", "--set"}, {"threads", "1", "--threads"}}));
  EXPECT_NE(sentence([] { check_resumable({{"learning_rate", "1", "--set"}}); }).find("cannot change when a run continues"), std::string::npos);
  EXPECT_NE(sentence([] { check_resumable({{"seed", "1", "--seed"}}); }).find("seed"), std::string::npos);
  EXPECT_NE(sentence([] { check_resumable({{"epohcs", "1", "--set"}}); }).find("did you mean 'epochs'?"), std::string::npos);
}

TEST(Config, EveryShippedFileResolvesWithoutNotes) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(CCDREC_SOURCE_DIR) + "/configs")) {
    SCOPED_TRACE(entry.path().string());
    const Config c = of({}, {entry.path().string()});
    EXPECT_TRUE(c.notes.empty());
    ++files;
  }
  EXPECT_GE(files, 4);
}

// The stages of the released runs, and those of the paper's formula (one epoch earlier), which the built-in settings follow.
TEST(Config, ShippedCurriculaHaveTheReleasedStages) {
  const auto stages = [](const Settings& s) {  // where each pool begins
    std::vector<int> first;
    for (int epoch = 0; epoch <= 100; ++epoch)
      if (epoch == 0 || pool_of_epoch(s, epoch) != pool_of_epoch(s, epoch - 1)) first.push_back(epoch);
    return first;
  };
  const auto shipped = [&](const char* name) { return stages(of({}, {std::string(CCDREC_SOURCE_DIR) + "/configs/" + name}).settings); };
  EXPECT_EQ(shipped("ccdrec.yaml"), (std::vector<int>{0, 1, 6, 11, 16, 31}));
  EXPECT_EQ(shipped("ccdrec-sports.yaml"), (std::vector<int>{0, 1, 6, 16, 26, 76}));
  EXPECT_EQ(stages(of({}).settings), (std::vector<int>{0, 1, 5, 10, 15, 31}));
}

TEST(Config, ReferenceNamesEveryKeyAndItsDefaults) {
  const std::string text = key_reference();
  for (const auto& [key, value] : config_values(Settings{})) EXPECT_NE(text.find("  " + key + " "), std::string::npos) << key;
  EXPECT_NE(text.find("default 2048, CCDRec 512"), std::string::npos);
  EXPECT_NE(text.find("eval_batch_size"), std::string::npos);
}

TEST(Config, NearestIsEditDistance) {
  EXPECT_EQ(nearest("epoch", {"epochs", "dtau"}), "epochs");
  EXPECT_EQ(nearest("MU", {"mu", "dtau"}), "mu");
  EXPECT_EQ(nearest("completely_else", {"mu", "dtau"}), "");
}

}  // namespace
}  // namespace ccdrec
