// Configuration: precedence, origins, ranges, unknown keys, MMRec's files, and reading back what a run writes.
#include "host/files/config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "data/error.h"
#include "data/text.h"
#include "host/ccdrec/cns.h"
#include "host/systems/keys.h"
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
  EXPECT_EQ(of({"model=BPR"}, {file_with(dir, "n.yaml", "model: FREEDOM\nreg_weight: 0.5\n")}).settings.reg_weight,
            0.5);
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
    EXPECT_DOUBLE_EQ(of({std::string("model=FREEDOM"), std::string("reg_weight=") + c.text}).settings.reg_weight,
                     c.value)
        << c.text;
  EXPECT_EQ(of({"seed=[999]"}).settings.seed, 999u);
  EXPECT_EQ(of({"seed=4294967295"}).settings.seed, 4294967295u);
  EXPECT_EQ(of({"topk=[20, 5, 10]"}).settings.topk, (std::vector<int>{5, 10, 20}));
  EXPECT_EQ(of({"topk=20"}).settings.topk, (std::vector<int>{20}));
  EXPECT_EQ(of({"topk=[2147483647, 20]"}).settings.topk, (std::vector<int>{20, 2147483647}));
  for (const char* yes : {"true", "True", "yes", "on", "1"})
    EXPECT_TRUE(of({std::string("knn_center=") + yes}).settings.knn_center);
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
                        {"learning_rate=0", "a number > 0"},
                        {"learning_rate=-1", "> 0"},
                        {"candidate_ratio=0", "(0, 1]"},
                        {"epochs=0", ">= 1"},
                        {"epochs=2.5", "an integer"},
                        {"epochs=99999999999", "an integer 1 .. 2147483647"},
                        {"epochs=99999999999999999999", "an integer 1 .. 2147483647"},
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
                        {"beta=0", "an integer >= 1"},
                        {"beta=0.75", "an integer >= 1"},
                        {"alpha1=0", "a number > 0"},
                        {"alpha1=-1", "a number > 0"},
                        {"alpha2=-0.1", "a number >= 0"},
                        {"use_mg=2", "true or false"},
                        {"sampler=mixgfc", "did you mean mixgcf?"},
                        {"n_candidates=0", "an integer 1 .. 1024"},
                        {"n_candidates=1025", "an integer 1 .. 1024"},
                        {"top_m=0", "an integer 1 .. 1024"},
                        {"popularity_power=-1", "[0, 2]"},
                        {"realhns_p_min=-1", "[0, 100)"},
                        {"realhns_p_min=100", "[0, 100)"},
                        {"realhns_p_max=0", "(0, 100]"},
                        {"realhns_candidates=0", "an integer 1 .. 65536"},
                        {"realhns_candidates=65537", "an integer 1 .. 65536"},
                        {"realhns_clusters=4097", "an integer 1 .. 4096"},
                        {"realhns_start=-1", "an integer >= 0"},
                        {"realhns_top=0", "(0, 1]"},
                        {"realhns_top=1.01", "(0, 1]"},
                        {"negative_stats=-1", "an integer 0 .. 1048576"},
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
    EXPECT_NE(got.find(std::string(c.assignment).substr(0, std::string(c.assignment).find('='))), std::string::npos)
        << got;
  }
}

TEST(Config, UnknownKeysNameTheNearest) {
  const Folder dir;
  EXPECT_NE(sentence([&] { of({"learing_rate=1"}); }).find("did you mean 'learning_rate'?"), std::string::npos);
  EXPECT_NE(sentence([&] { of({"lambd_dm=1"}); }).find("did you mean 'lambda_dm'?"), std::string::npos);
  EXPECT_NE(
      sentence([&] { of({"contrast_share=1"}); }).find("unknown key 'contrast_share'; `ccdrec train --help-keys`"),
      std::string::npos)
      << "reg_weight is three edits away: no hint";
  EXPECT_NE(sentence([&] { of({"nu=1"}); }).find("--help-keys"), std::string::npos)
      << "a word of two letters has no neighbours";
  EXPECT_NE(sentence([&] { of({"zzzzzzzzzzzzzzzzzzzzzzzz=1"}); }).find("--help-keys"), std::string::npos);
  const std::string file = file_with(dir, "a.yaml", "model: BPR\n\nembeding_size: 64\n");
  EXPECT_EQ(sentence([&] { of({}, {file}); }),
            file + ":3: unknown key 'embeding_size'; did you mean 'embedding_size'?");
  EXPECT_NE(sentence([&] { of({"novalue"}); }).find("key=value"), std::string::npos);
  EXPECT_NE(sentence([&] { of({"hyper_parameters=[dropuot]"}); }).find("did you mean 'dropout'?"), std::string::npos);
}

TEST(Config, FilesThatAreNoConfigurationAreRefusedWithTheirLine) {
  const Folder dir;
  EXPECT_NE(sentence([&] { of({}, {dir / "absent.yaml"}); }).find("cannot be opened"), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "list.yaml", "- a\n- b\n")}); }).find("key: value"),
            std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "twice.yaml", "mu: 0.1\nmu: 0.2\n")}); }).find("twice.yaml:2"),
            std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "broken.yaml", "mu: 0.1\ntopk: [1, 2\n")}); }).find("not valid YAML"),
            std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "deep.yaml", "topk: [[1], [2]]\n")}); }).find("nested"),
            std::string::npos);
  EXPECT_EQ(of({}, {file_with(dir, "empty.yaml", "")}).settings.model, "CCDRec");
  EXPECT_NE(sentence([&] { of({}, {dir.path()}); }).find("is a directory"), std::string::npos);
  EXPECT_NE(sentence([&] {
              of({}, {file_with(dir, "two.yaml", "mu: 0.1\n---\nomega: 0.2\n")});
            }).find("two.yaml:2: not valid YAML"),
            std::string::npos)
      << "a second document would be ignored";
}

// The keys of MMRec's overall.yaml that no setting stands behind, with values of its kind; and files of a data set and
// of the three models.
const char* const kInert =
    "NEG_PREFIX: neg__\nTIME_FIELD: 'timestamp:float'\ncheckpoint_dir: saved\nend2end: False\neval_batch_size: "
    "4096\nfield_separator: \"\\t\"\n"
    "filter_out_cod_start_users: True\ngpu_id: 0\nhidden_dropout_prob: 0.1\nhidden_size: 4\nis_multimodal_model: "
    "True\nlayer_norm_eps: 1e-12\n"
    "learner: adam\nmax_img_size: 256\nmax_position_embeddings: 512\nmax_txt_len: "
    "32\nmetrics: [\"Recall\", "
    "\"MAP\"]\n"
    "pad_token_id: 0\nrecommend_topk: recommend_topk/\nreq_training: True\nsave_recommended_topk: "
    "True\ntraining_neg_sample_num: 1\n"
    "type_vocab_size: 2\nuse_full_sampling: False\nuse_gpu: True\nuse_neg_sampling: True\nuse_raw_features: "
    "False\nvocab_size: 30522\nweight_decay: "
    "0.0\n";
const char* const kOverall =
    "USER_ID_FIELD: 'user_id:token'\nITEM_ID_FIELD: 'item_id:token'\ndata_path: '../data/'\nembedding_size: "
    "64\nepochs: 1000\neval_step: 1\n"
    "hyper_parameters: [\"seed\"]\nseed: [999]\nstopping_step: 20\ntopk: [5, 10, 20, 50]\ntrain_batch_size: "
    "2048\nvalid_metric: Recall@20\n";
const char* const kDataFile =
    "USER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\ninter_file_name: 'toys.inter'\nvision_feature_file: "
    "'image_feat.npy'\n"
    "text_feature_file: 'text_feat.npy'\nuser_graph_dict_file: 'user_graph_dict.npy'\n";
const char* const kModelFiles[][2] = {
    {"BPR",
     "embedding_size: 64\nreg_weight: [2.0, 1e-01, 1e-05]\nis_multimodal_model: False\nhyper_parameters: "
     "[\"reg_weight\"]\n"},
    {"LightGCN",
     "embedding_size: 64\nn_layers: [1, 2]\nreg_weight: [1e-02, 1e-06]\nhyper_parameters: [\"n_layers\", "
     "\"reg_weight\"]\n"},
    {"BM3",
     "embedding_size: 64\nfeat_embed_dim: 64\nn_layers: [1, 2]\nreg_weight: [0.1, 0.01]\ndropout: [0.3, 0.5]\n"
     "cl_weight: 2.0\nuse_neg_sampling: False\nis_multimodal_model: True\n"
     "hyper_parameters: [\"n_layers\", \"reg_weight\", \"dropout\"]\n"},
    {"FREEDOM",
     "embedding_size: 64\nfeat_embed_dim: 64\nweight_size: [64, 64]\nlambda_coeff: 0.9\nreg_weight: [0.0, "
     "1e-05]\nn_mm_layers: 1\nn_ui_layers: 2\n"
     "knn_k: 10\nmm_image_weight: 0.1\ndropout: [0.8, 0.9]\nhyper_parameters: [\"dropout\", \"reg_weight\"]\n"},
    {"LATTICE",
     "cf_model: lightgcn\nembedding_size: 64\nfeat_embed_dim: 64\nhyper_parameters: [reg_weight, learning_rate]\n"
     "knn_k: 10\nlambda_coeff: 0.9\nlearning_rate: [0.0001, 0.0005, 0.001, 0.005]\n"
     "learning_rate_scheduler: [0.96, 50]\nmess_dropout: [0.1, 0.1]\nn_layers: 1\n"
     "reg_weight: [0.0, 1e-05, 1e-04, 1e-03]\nweight_size: [64, 64]\n"},
    {"MMGCN",
     "embedding_size: 64\nhyper_parameters: [reg_weight, learning_rate]\nlearning_rate: [0.0001, 0.0005, 0.001, "
     "0.005, 0.01]\n"
     "n_layers: 2\nreg_weight: [0, 1.0e-05, 0.0001, 0.001, 0.01, 0.1]\n"}};

std::vector<std::string> words_of(const std::string& list) {
  std::vector<std::string> out;
  std::istringstream in(list);
  for (std::string word; in >> word;) out.push_back(word.substr(0, word.find(',')));
  return out;
}

TEST(Config, FilesOfMmrecAreTakenAsTheyAre) {
  const Folder dir;
  const std::string overall = file_with(dir, "overall.yaml", std::string(kInert) + kOverall),
                    data = file_with(dir, "toys.yaml", kDataFile);
  for (const auto& [model, text] : kModelFiles) {
    SCOPED_TRACE(model);
    const std::vector<std::string> files = {overall, data, file_with(dir, std::string(model) + ".yaml", text)};
    const std::vector<KeyValue> of_model = {{"model", model, "-m"}};
    const Config c = resolve_config(files, of_model, Grids::shown);
    // One lists the keys without influence, one tells of the grids; before them one for each key of other models.
    const bool foreign = !outline_of(c.settings).learned_graph;  // which lambda_coeff is a key of
    std::string other;
    if (foreign && std::string(text).find("lambda_coeff") != std::string::npos) other = "lambda_coeff";
    const char* const layers = find_system(model)->n_layers;
    if (layers && !*layers) other = "n_layers";  // it is as deep as it is
    const size_t others = other.empty() ? 0 : 1;
    ASSERT_EQ(c.notes.size(), 2 + others);
    if (others) { EXPECT_NE(c.notes[0].find(other + " has no influence on "), std::string::npos) << c.notes[0]; }
    const std::string& inert = c.notes[others];
    const size_t end = inert.find(" have no influence here");
    ASSERT_NE(end, std::string::npos) << inert;
    const std::vector<std::string> listed = words_of(inert.substr(0, end));
    Lines lines(kInert);
    for (std::string_view line; lines.next(line);) {
      const std::string key(line.substr(0, line.find(':')));
      EXPECT_EQ(std::count(listed.begin(), listed.end(), key), 1) << key << " was taken in silence, or named twice";
      EXPECT_NE(key_reference().find("  " + key + " "), std::string::npos) << key << " has no reason in --help-keys";
    }
    EXPECT_EQ(std::count(listed.begin(), listed.end(), "hyper_parameters"), 0);
    EXPECT_EQ(c.settings.inter_file_name, "toys.inter");
    EXPECT_EQ(c.settings.user_id_field, "userID");
    const bool features = find_system(model)->has & kFeatures;
    EXPECT_EQ(c.settings.modalities,
              features ? (std::vector<std::string>{"image", "text"}) : std::vector<std::string>{});
    EXPECT_EQ(std::count(listed.begin(), listed.end(), "vision_feature_file"), features ? 0 : 1);

    // The grid is shown, and what would choose is named.
    const std::string shown = print_config(c), refused = sentence([&] { resolve_config(files, of_model); });
    std::vector<std::string> chosen = {std::string("model=") + model};
    for (const GridAxis& axis : c.grid) {
      const std::string &key = axis.key, values = axis.text();
      EXPECT_NE(shown.find("grid " + values), std::string::npos) << shown;
      const std::string written = key == "n_ui_layers" ? "n_layers" : key;
      EXPECT_NE(refused.find(" --set " + written + "="), std::string::npos) << refused;
      EXPECT_NE(refused.find(written + " = " + values), std::string::npos) << refused;
      chosen.push_back(written + "=" + (written == "n_layers" ? "2" : "0.01"));
    }
    const unsigned has = find_system(model)->has;
    EXPECT_EQ(c.grid.size(), has & kViews ? 3u : has & (kUserItemGraph | kMessages) ? 2u : 1u);
    EXPECT_EQ(refused, c.notes.back());
    const Config one = of(chosen, files);
    EXPECT_DOUBLE_EQ(one.settings.reg_weight, 0.01);
    EXPECT_TRUE(one.grid.empty());
    EXPECT_NE(one.notes[others].find("hyper_parameters"), std::string::npos) << "without a grid it says nothing";
  }
}

// SLMRec's, whose keys are its own, and whose grid runs over one that its program reads and uses nowhere.
TEST(Config, TheFileOfSlmRecIsTakenAsItIs) {
  const Folder dir;
  const std::string text =
      "recdim: 64\nlayer_num: 3\nssl_task: FAC\ntemp: 0.2\nssl_temp: [0.1, 0.2, 0.5, 1.0]\n"
      "ssl_alpha: [0.01, 0.05, 0.1, 0.5, 1.0]\nreg: [0.0001, 0.001, 0.01, 0.1]\nlearning_rate: [0.0001, 0.001]\n"
      "weight_decay: 0.0001\ndropout_rate: 0.1\nmm_fusion_mode: concat\nadj_type: pre\ninit: xavier\n"
      "hyper_parameters: [\"reg\", \"ssl_temp\", \"ssl_alpha\", \"learning_rate\"]\n";
  const std::vector<std::string> files = {file_with(dir, "overall.yaml", std::string(kInert) + kOverall),
                                          file_with(dir, "toys.yaml", kDataFile), file_with(dir, "SLMRec.yaml", text)};
  const Config grids = resolve_config(files, {{"model", "SLMRec", "-m"}}, Grids::shown);
  EXPECT_EQ(grids.grid.size(), 3u) << "without reg, which is no setting";
  EXPECT_NE(sentence([&] {
              resolve_config(files, {{"model", "SLMRec", "-m"}});
            }).find(" --set ssl_temp="),
            std::string::npos);
  const Config one = of({"model=SLMRec", "ssl_temp=0.5", "ssl_alpha=0.05", "learning_rate=0.001"}, files);
  const Settings& s = one.settings;
  EXPECT_EQ(s.embedding_size, 64);
  EXPECT_EQ(s.n_ui_layers, 3);
  EXPECT_EQ(s.n_neg, 0);
  EXPECT_EQ(s.temp, 0.2);
  EXPECT_EQ(s.ssl_temp, 0.5);
  EXPECT_EQ(s.ssl_alpha, 0.05);
  EXPECT_EQ(s.weight_decay, 1e-4);
  EXPECT_EQ(s.modalities, (std::vector<std::string>{"image", "text"}));
  std::string notes;
  for (const std::string& note : one.notes) notes += note + "\n";
  for (const char* key : {"reg", "dropout_rate", "mm_fusion_mode", "adj_type", "init", "ssl_task"}) {
    EXPECT_NE(notes.find(std::string(key) + ","), std::string::npos) << key << " was taken in silence: " << notes;
    EXPECT_NE(key_reference().find("  " + std::string(key) + " "), std::string::npos) << key;
  }
  EXPECT_NE(sentence([] { of({"model=SLMRec", "ssl_task=FD"}); }), "");
  // by themselves: what other tools settled on
  const Settings standard = of({"model=SLMRec"}).settings;
  EXPECT_EQ(standard.n_ui_layers, 3);
  EXPECT_EQ(standard.weight_decay, 1e-4);
  EXPECT_EQ(standard.ssl_alpha, 0.01);
  EXPECT_EQ(standard.n_neg, 0);
}

TEST(Config, OnlyNamedKeysHoldGridsAndEveryValueOfOneIsHeldToItsRange) {
  const auto shown = [](const std::vector<std::string>& assignments) {
    std::vector<KeyValue> list;
    for (const std::string& a : assignments) list.push_back(parse_assignment(a));
    return resolve_config({}, list, Grids::shown);
  };
  EXPECT_NE(sentence([&] { shown({"mu=[0.1, 0.2]"}); }).find("mu holds 2 values [0.1, 0.2]"), std::string::npos);
  const std::string range = sentence([&] { shown({"mu=[0.1, 2]", "hyper_parameters=[mu]"}); });
  EXPECT_NE(range.find("mu = [2] is not a number in [0, 1]"), std::string::npos) << range;
  const Config c = shown({"w=[3e-1, 0.40]", "topk=[20, 5]", "seed=[7]", "hyper_parameters=[mu, topk, seed]"});
  EXPECT_EQ(c.grid, (std::vector<GridAxis>{{"mu", {"0.3", "0.4"}}}));
  EXPECT_DOUBLE_EQ(c.settings.mu, 0.3);
  EXPECT_EQ(c.settings.topk, (std::vector<int>{5, 20}));
  EXPECT_EQ(c.settings.seed, 7u);
  EXPECT_NE(sentence([&] {
              shown({"hyper_parameters=[model]", "model=[BPR, FREEDOM]"});
            }).find("model holds 2 values"),
            std::string::npos);
}

TEST(Config, AKeyWithoutInfluenceAloneIsToldItsReason) {
  const Config c = of({"gpu_id=1"});
  ASSERT_EQ(c.notes.size(), 1u);
  EXPECT_EQ(c.notes[0], "--set: gpu_id has no influence here: --device decides");
}

TEST(Config, WhatOtherFilesAskForIsComparedAsNumbers) {
  for (const char* taken :
       {"weight_decay=0.00", "weight_decay=0e-5", "weight_decay=[0.0]", "training_neg_sample_num=1.0",
        "use_full_sampling=no", "use_full_sampling=0", "req_training=on", "clip_grad_norm=None",
        "clip_grad_norm=", "feat_embed_dim=64.0", "cf_model=LightGCN", "field_separator=\"\\t\"", "learner=Adam"})
    EXPECT_EQ(of({taken}).notes.size(), 1u) << taken;
  for (const char* refused :
       {"weight_decay=1e-9", "weight_decay=[0, 1e-4]", "training_neg_sample_num=2", "use_full_sampling=yes",
        "use_full_sampling=1", "feat_embed_dim=65", "cf_model=ngcf", "end2end=maybe"})
    EXPECT_NE(sentence([&] { of({refused}); }).find(" is not possible here: "), std::string::npos) << refused;
  for (const char* constant :
       {"learning_rate_scheduler=[1.0, 50]", "learning_rate_scheduler=[1.00, 10]", "learning_rate_scheduler=[1, 0.5]",
        "learning_rate_scheduler=1e0", "learning_rate_scheduler=[+1.0]", "learning_rate_scheduler="})
    EXPECT_EQ(of({constant}).settings.learning_rate_scheduler, (std::vector<double>{1, 50})) << constant;
  EXPECT_EQ(of({"learning_rate_scheduler=[0.96, 20]"}).settings.learning_rate_scheduler,
            (std::vector<double>{0.96, 20}));
  for (const char* nonsense :
       {"learning_rate_scheduler=[1.0, often]", "learning_rate_scheduler=[nan, 50]", "learning_rate_scheduler=constant",
        "learning_rate_scheduler=[50, 50]", "learning_rate_scheduler=[-1, 50]", "learning_rate_scheduler=[0.9, 0]",
        "learning_rate_scheduler=[0.9, 50, 1]"})
    EXPECT_NE(sentence([&] { of({nonsense}); }).find("is not [gamma, epochs]: a number in (0, 1]"), std::string::npos)
        << nonsense;
  EXPECT_EQ(of({"feat_embed_dim=32", "embedding_size=32"}).notes.size(), 1u);
}

TEST(Config, OtherNamesOfSettings) {
  const Folder dir;
  const Config c = of({"beta_sche=cosine", "w=0.3", "weight=0.6", "diff_weight=2", "sample_k=0.2", "lr=0.01",
                       "batch_size=100", "recdim=32"});
  EXPECT_EQ(c.settings.noise_schedule, "cosine");
  EXPECT_EQ((std::vector<double>{c.settings.mu, c.settings.omega, c.settings.lambda, c.settings.kappa,
                                 c.settings.learning_rate}),
            (std::vector<double>{0.3, 0.6, 2, 0.2, 0.01}));
  EXPECT_EQ(c.settings.train_batch_size, 100);
  EXPECT_EQ(c.settings.embedding_size, 32);
  EXPECT_EQ(c.origin.at("mu"), "--set (as w)");
  ASSERT_EQ(c.notes.size(), 1u);
  EXPECT_EQ(c.notes[0],
            "recdim is taken for embedding_size, sample_k for kappa, diff_weight for lambda_dm, lr for learning_rate, "
            "w for mu, beta_sche for "
            "noise_schedule, weight for omega, batch_size for train_batch_size");
  EXPECT_EQ(of({"device=gpu"}).settings.device, "cuda");
  EXPECT_EQ(of({"device=GPU"}).settings.device, "cuda");
  // A later file wins whatever name it uses; within one file two names of a setting contradict each other.
  const std::string file = file_with(dir, "a.yaml", "lr: 0.1\n");
  EXPECT_DOUBLE_EQ(of({"learning_rate=0.2"}, {file}).settings.learning_rate, 0.2);
  EXPECT_DOUBLE_EQ(of({"lr=0.3"}, {file_with(dir, "b.yaml", "learning_rate: 0.1\n")}).settings.learning_rate, 0.3);
  EXPECT_NE(sentence([&] {
              of({}, {file_with(dir, "c.yaml", "lr: 0.1\nlearning_rate: 0.2\n")});
            }).find("name the same setting"),
            std::string::npos);
  EXPECT_NE(sentence([&] { of({"w=7"}); }).find("--set: w = 7 is not a number in [0, 1]"), std::string::npos);
  EXPECT_NE(sentence([] {
              check_resumable({{"lr", "1", "--set"}});
            }).find("cannot change when a run continues"),
            std::string::npos);
}

TEST(Config, FeatureFilesAreModalities) {
  const std::vector<std::string> freedom = {"model=FREEDOM"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), freedom[0]);
    return of(more);
  };
  EXPECT_EQ(with({"vision_feature_file=image_feat.npy", "text_feature_file=text_feat.npy"}).settings.modalities,
            (std::vector<std::string>{"image", "text"}));
  EXPECT_TRUE(with({"vision_feature_file=image_feat.npy"}).notes.empty());
  EXPECT_EQ(with({"text_feature_file=title_feat.npy"}).settings.modalities, (std::vector<std::string>{"title"}));
  EXPECT_EQ(with({"text_feature_file=text_feat.npy", "modalities=[image]"}).settings.modalities,
            (std::vector<std::string>{"image"}));
  EXPECT_TRUE(of({"model=BPR", "text_feature_file=absent"}).settings.modalities.empty());
  for (const char* bad :
       {"vision_feature_file=v.npy", "vision_feature_file=../image_feat.npy", "text_feature_file=_feat.npy"})
    EXPECT_NE(sentence([&] { with({bad}); }).find("is not NAME_feat.npy"), std::string::npos) << bad;
  EXPECT_NE(sentence([&] {
              with({"vision_feature_file=a_feat.npy", "text_feature_file=a_feat.npy"});
            }).find("another file"),
            std::string::npos);
  // mm_image_weight is the first modality's: it may not come to weigh text.
  const std::string order = sentence([&] {
    with({"vision_feature_file=vision_feat.npy", "text_feature_file=text_feat.npy"});
  });
  EXPECT_NE(order.find("call the file image_feat.npy, or give mm_weights"), std::string::npos) << order;
  EXPECT_EQ(with({"vision_feature_file=vision_feat.npy", "text_feature_file=text_feat.npy", "mm_weights=[0.9, 0.1]"})
                .settings.modalities.size(),
            2u);
}

// The parser would read the first of these without end; what it would read as several documents is refused as well.
TEST(Config, EveryTextIsOneDocumentAndEnds) {
  const Folder dir;
  const auto refused = [&](const std::string& text) {
    SCOPED_TRACE(text);
    EXPECT_NE(sentence([&] { of({"mu=" + text}); }).find("--set: mu "), std::string::npos);
    EXPECT_NE(sentence([&] { of({}, {file_with(dir, "config.yaml", text)}); }).find("config.yaml"), std::string::npos);
  };
  for (const char* text : {",",
                           ",001",
                           ",10",
                           "\n\n ,,",
                           "# a comment\n,1",
                           "%YAML 1.2\n,",
                           "--- ,",
                           "---\n,\n",
                           "1\n---\n,",
                           "a: 1\n...\n,",
                           "[1],",
                           "{},",
                           "\"1\"2",
                           "\"1\",",
                           "]",
                           "}",
                           "[,",
                           "[1",
                           "{a",
                           "&a ,",
                           "!!str ,",
                           "*a",
                           "&a [*a]",
                           "? ,",
                           "- ,",
                           "\t,",
                           "'",

                           "@",
                           "`"})
    refused(text);
  refused("\xEF\xBB\xBF,");
  refused(std::string("\xFF\xFE,\0", 4));
  refused(std::string(2000, '['));
  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 30; ++i) laughs += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}]\n", i, i - 1);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "laughs.yaml", laughs)}); }).find("nested value"), std::string::npos);
  EXPECT_EQ(sentence([&] { of({"learning_rate=,001"}); }),
            "--set: learning_rate = ,001 is not valid YAML: a comma where a value should begin (the decimal sign is a "
            "point)");
  const std::string comma = file_with(dir, "comma.yaml", "# first\n,\n");
  EXPECT_EQ(sentence([&] { of({}, {comma}); }),
            comma + ":2: not valid YAML: a comma where a value should begin (the decimal sign is a point)");
  // More than any configuration holds is not read to its end.
  const std::string most = "65,536 bytes";
  EXPECT_NE(sentence([&] { of({}, {"/dev/zero"}); }).find(most), std::string::npos);
  EXPECT_NE(sentence([&] { of({}, {file_with(dir, "long.yaml", "mu: 0.1\n#" + std::string(70000, 'x'))}); }).find(most),
            std::string::npos);
  EXPECT_NE(sentence([&] { of({"mu=0.1 #" + std::string(70000, 'x')}); }).find(most), std::string::npos);
  EXPECT_DOUBLE_EQ(of({}, {file_with(dir, "fits.yaml", "mu: 0.1\n#" + std::string(60000, 'x'))}).settings.mu, 0.1);
  EXPECT_DOUBLE_EQ(of({}, {file_with(dir, "anchor.yaml", "---\nmu: &half 0.5\nomega: *half\n...\n")}).settings.omega,
                   0.5);
}

TEST(Config, NamesFromFilesReachNoTerminalAsTheyAre) {
  const Folder dir;
  const auto clean = [](const std::string& text) {
    return std::none_of(text.begin(), text.end(), [](unsigned char c) { return (c < 32 && c != '\n') || c == 127; }) &&
           text.find("\xC2\x9B") == std::string::npos;
  };
  for (const char* text : {"\"\\e[31mx\": 1\n", "mu: \"\\e[31m\"\n", "mu: {\"\\e\": 1}\n", "\"a\\e\": [[1]]\n",
                           "model: \"\\e[2J\"\n", "topk: [\"\\a\"]\n", "hyper_parameters: [\"\\e\"]\n",
                           "inter_file_name: \"\\e/\"\n", "weight_decay: \"\\e\"\n", "valid_metric: \"\\e@5\"\n"}) {
    const std::string said = sentence([&] { of({}, {file_with(dir, "a.yaml", text)}); });
    EXPECT_TRUE(clean(said)) << text;
    EXPECT_NE(said, "(no error)") << text;
  }
  const Config c = of({}, {file_with(dir, "b.yaml", "dataset: \"a\\e\\x7f\\u009b31m\"\n")});
  EXPECT_EQ(c.settings.dataset,
            "a\x1b\x7f\xC2\x9B"
            "31m");
  EXPECT_TRUE(clean(print_config(c)));
  EXPECT_TRUE(clean(config_yaml(c)));
  EXPECT_EQ(of({}, {file_with(dir, "c.yaml", config_yaml(c))}).settings.dataset, c.settings.dataset);
  EXPECT_NE(
      sentence([&] { of({}, {file_with(dir, "zero.yaml", "data_path: \"a\\0b\"\n")}); }).find("without zero bytes"),
      std::string::npos);
}

// config.yaml of a run that does not use the key is what it was before there was the key.
TEST(Config, TheFileOfInteractionsIsWrittenWhereItIsNamed) {
  const Folder dir;
  EXPECT_EQ(config_yaml(of({"model=BPR"})).find("inter_file_name"), std::string::npos);
  const Config c = of({"model=BPR", "inter_file_name=toys-v4.inter"});
  const std::string text = config_yaml(c);
  EXPECT_NE(text.find("inter_file_name: toys-v4.inter "), std::string::npos) << text;
  EXPECT_EQ(of({}, {file_with(dir, "config.yaml", text)}).settings.inter_file_name, "toys-v4.inter");
  for (const char* path : {"a/b.inter", "../b.inter", "..", "."})
    EXPECT_NE(sentence([&] { of({std::string("inter_file_name=") + path}); }).find("without a path"), std::string::npos)
        << path;
}

// Runs without them are written as they were before there were any.
TEST(Config, KeysThatCameLaterAreWrittenWhereTheyAreInUse) {
  const Folder dir;
  const std::vector<std::string> all = {"use_mg",
                                        "alpha1",
                                        "alpha2",
                                        "beta",
                                        "sampler",
                                        "n_candidates",
                                        "top_m",
                                        "popularity_power",
                                        "omega",
                                        "negative_stats",
                                        "realhns_p_min",
                                        "realhns_p_max",
                                        "realhns_candidates",
                                        "realhns_clusters",
                                        "realhns_start",
                                        "realhns_top",
                                        "dgd",
                                        "dgd_tau",
                                        "lambda_coeff",
                                        "learning_rate_scheduler",
                                        "mrd",
                                        "unet_dropout",
                                        "weight_decay",
                                        "temp",
                                        "ssl_temp",
                                        "ssl_alpha"};
  const auto written = [&](const std::vector<std::string>& set) {
    const std::string text = config_yaml(of(set));
    std::vector<std::string> keys;
    for (const std::string& key : all)
      if (text.find("\n" + key + ": ") != std::string::npos) keys.push_back(key);
    const Config back = of({}, {file_with(dir, "config.yaml", text)});
    EXPECT_EQ(config_values(back.settings), config_values(of(set).settings)) << text;
    EXPECT_TRUE(back.notes.empty());
    return keys;
  };
  using Keys = std::vector<std::string>;
  EXPECT_EQ(written({"model=LightGCN"}), Keys());
  EXPECT_EQ(written({"model=CCDRec"}), Keys{"omega"});
  EXPECT_EQ(written({"model=LightGCN", "sampler=dns"}), (Keys{"sampler", "n_candidates", "top_m", "omega"}));
  EXPECT_EQ(written({"model=BPR", "sampler=popularity"}), (Keys{"sampler", "popularity_power", "omega"}));
  EXPECT_EQ(written({"model=FREEDOM", "sampler=mixgcf", "n_candidates=8"}), (Keys{"sampler", "n_candidates", "omega"}));
  EXPECT_EQ(written({"model=LightGCN", "sampler=realhns", "realhns_top=0.2"}),
            (Keys{"sampler", "omega", "realhns_p_min", "realhns_p_max", "realhns_candidates", "realhns_clusters",
                  "realhns_start", "realhns_top"}));
  EXPECT_EQ(written({"ndi=false", "cns=false", "sampler=dns"}), (Keys{"sampler", "n_candidates", "top_m", "omega"}));
  EXPECT_EQ(written({"model=BPR", "use_mg=true"}), (Keys{"use_mg", "alpha1", "alpha2", "beta"}));
  EXPECT_EQ(written({"model=BPR", "negative_stats=0"}), Keys{"negative_stats"});
  EXPECT_EQ(written({"backbone=MCDRec"}), (Keys{"omega", "dgd", "dgd_tau"}));
  EXPECT_EQ(written({"model=LATTICE"}), (Keys{"lambda_coeff", "learning_rate_scheduler"}));
  EXPECT_EQ(written({"backbone=LATTICE"}), (Keys{"omega", "lambda_coeff", "learning_rate_scheduler"}));
  for (const char* lattice : {"model=LATTICE", "backbone=LATTICE"})  // a constant rate is not LATTICE's own
    EXPECT_EQ(written({lattice, "learning_rate_scheduler=[1, 50]"}).back(), "learning_rate_scheduler");
  EXPECT_EQ(written({"model=FREEDOM", "learning_rate_scheduler=[0.9, 50]"}), Keys{"learning_rate_scheduler"});
  EXPECT_EQ(written({"backbone=MCDRec", "dgd=off"}), (Keys{"omega", "dgd"}));
  EXPECT_EQ(written({"model=SLMRec"}), (Keys{"weight_decay", "temp", "ssl_temp", "ssl_alpha"}));
  EXPECT_EQ(written({"model=MCDRec"}), (Keys{"dgd", "dgd_tau", "mrd", "unet_dropout"}));
  EXPECT_EQ(written({"model=MCDRec", "estimator=attention"}), (Keys{"dgd", "dgd_tau", "mrd"}));
  EXPECT_EQ(written({"backbone=MCDRec", "estimator=unet"}), (Keys{"omega", "dgd", "dgd_tau", "unet_dropout"}));
}

// A run does not depend on what it does not read: it may be resumed from what config.yaml holds.
TEST(Config, ASettingWithoutInfluenceIsNotTaken) {
  for (const auto& [model, set] : std::map<std::string, std::string>{
           {"BM3", "knn_k=20"}, {"FREEDOM", "cl_weight=3"}, {"MMGCN", "n_layers=3"}, {"LightGCN", "temp=0.5"}}) {
    const Config with = of({"model=" + model, set}), without = of({"model=" + model});
    EXPECT_EQ(config_yaml(with), config_yaml(without)) << set;
    EXPECT_EQ(with.notes.size(), 1u) << set;
    for (const ConfigKey& k : config_keys()) EXPECT_EQ(k.get(with.settings), k.get(without.settings)) << set;
  }
}

TEST(Config, OmegaHasAnotherDefaultWithASampler) {
  const Config with = of({"model=LightGCN", "sampler=dns"});
  EXPECT_EQ(with.settings.omega, 0.5);
  EXPECT_EQ(with.origin.at("omega"), "default with a sampler");
  EXPECT_NE(config_yaml(with).find("omega: 0.5 "), std::string::npos);
  EXPECT_NE(print_config(with).find("default with a sampler"), std::string::npos);
  const Config fused = of({"ndi=false", "cns=false", "sampler=mixgcf"});
  EXPECT_EQ(fused.settings.omega, 0.5);
  const Config said = of({"model=LightGCN", "sampler=dns", "omega=0.9"});
  EXPECT_EQ(said.settings.omega, 0.9);
  EXPECT_EQ(said.origin.at("omega"), "--set");
  EXPECT_EQ(of({"model=LightGCN", "sampler=dns", "weight=0.7"}).settings.omega, 0.7) << "by its other name";
  EXPECT_EQ(of({"model=CCDRec"}).settings.omega, 0.8);
  EXPECT_EQ(of({"model=CCDRec", "sampler=none"}).settings.omega, 0.8);
}

TEST(Config, ASamplerBesideCurricularNegativesIsOneSentence) {
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{}, {"ndi=false"}, {"cns=false"}, {"dma=false"}}) {
    std::vector<std::string> set = {"model=CCDRec", "sampler=dns"};
    set.insert(set.end(), more.begin(), more.end());
    EXPECT_EQ(sentence([&] { of(set); }),
              "sampler = dns (--set): NDI and CNS give CCDRec its hard negatives; switch both off (ndi: false, cns: "
              "false), or leave it away");
  }
  EXPECT_EQ(of({"model=CCDRec", "ndi=false", "cns=false", "sampler=dns"}).settings.sampler, "dns");
  Settings s;
  s.sampler = "mixgcf";
  EXPECT_EQ(sentence([&] { check_ranges(s); }),
            "sampler = mixgcf (settings): NDI and CNS give CCDRec its hard negatives; switch both off (ndi: false, "
            "cns: false), or leave it away");
  s.ndi = s.cns = false;
  EXPECT_NO_THROW(check_ranges(s));
  s.beta = 0;
  EXPECT_EQ(sentence([&] { check_ranges(s); }), "settings: beta = 0 is not an integer >= 1");
  s.beta = 3, s.alpha1 = 0;
  EXPECT_NE(sentence([&] { check_ranges(s); }).find("settings: alpha1 = 0"), std::string::npos);
}

TEST(Config, ABandThatEndsBeforeItBeginsIsOneSentence) {
  EXPECT_EQ(
      sentence([&] {
        of({"model=BPR", "sampler=realhns", "realhns_p_min=20", "realhns_p_max=12.5"});
      }),
      "sampler = realhns (--set): realhns_p_min is 20 and realhns_p_max 12.5, expected the first below the second");
  EXPECT_NE(sentence([&] {
              of({"model=BPR", "sampler=realhns", "realhns_p_min=10"});
            }).find("below the second"),
            std::string::npos);
  EXPECT_EQ(of({"model=BPR", "sampler=realhns", "realhns_p_min=9.5"}).settings.realhns_p_min, 9.5);
  EXPECT_EQ(of({"model=BPR", "realhns_p_min=20"}).notes.size(), 1u) << "nothing reads it: a note";
}

TEST(Config, KeysOfOtherModelsAreNotedNotSilent) {
  const Config c = of({"model=BPR", "kappa=0.7"});
  ASSERT_EQ(c.notes.size(), 1u);
  EXPECT_EQ(c.notes[0], "--set: kappa has no influence on BPR");
  EXPECT_TRUE(of({"model=CCDRec", "kappa=0.7"}).notes.empty());
}

// Keys of the model that other settings switch off: named with the reason, and only when a value was asked for that is
// not taken anyway.
TEST(Config, KeysThatOtherSettingsSwitchOffAreNoted) {
  struct Case {
    std::vector<std::string> set;
    const char *key, *why;
  };
  const Case cases[] = {
      {{"backbone=LightGCN", "dropout=0.5"}, "dropout", "FREEDOM and MCDRec prune"},
      {{"dgd=direct"}, "dgd", "the backbone MCDRec"},
      {{"dgd_tau=0.2"}, "dgd_tau", "the backbone MCDRec"},
      {{"backbone=MCDRec", "dropout=0", "dgd=off"}, "dgd", "dropout is 0"},
      {{"backbone=MCDRec", "dgd=off", "dgd_tau=0.2"}, "dgd_tau", "dgd is off"},
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
      {{"ndi=false", "cns=false", "omega=0.5"}, "omega", "no hard negatives"},
      {{"model=LightGCN", "omega=0.5"}, "omega", "no hard negatives"},
      {{"model=LightGCN", "n_candidates=8"}, "n_candidates", "dns and mixgcf"},
      {{"model=LightGCN", "sampler=mixgcf", "top_m=8"}, "top_m", "sampler dns"},
      {{"model=LightGCN", "sampler=dns", "popularity_power=1"}, "popularity_power", "sampler popularity"},
      {{"model=LightGCN", "sampler=realhns", "n_candidates=8"}, "n_candidates", "dns and mixgcf"},
      {{"model=LightGCN", "sampler=dns", "realhns_start=0"}, "realhns_start", "sampler realhns"},
      {{"model=LightGCN", "realhns_candidates=8"}, "realhns_candidates", "sampler realhns"},
      {{"model=BPR", "alpha2=0.1"}, "alpha2", "use_mg is off"},
      {{"model=BPR", "beta=2"}, "beta", "use_mg is off"},
      {{"estimator_layers=2"}, "estimator_layers", "estimator transformer"},
      {{"estimator_heads=2"}, "estimator_heads", "estimator transformer"},
      {{"unet_dropout=0.2"}, "unet_dropout", "estimator unet"},
      {{"model=MCDRec", "mrd=false", "mu=0.3"}, "mu", "mrd is off"},
      {{"model=MCDRec", "mrd=false", "timesteps=5"}, "timesteps", "mrd is off, so there is no diffusion"},
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
  EXPECT_TRUE(
      of({"backbone=MCDRec", "dgd=direct", "dgd_tau=-0.5", "dropout=0.5", "knn_k=5", "reg_weight=0.1"}).notes.empty());
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

TEST(Config, KeysOfAModelHaveItsOwnMeaningsAndDefaults) {
  const std::string light = key_reference("lightgcn"), ccdrec = key_reference("CCDRec");
  EXPECT_NE(light.find("weight of the norm regulariser\n"), std::string::npos) << light;
  EXPECT_NE(light.find("number >= 0; default 0.0001\n"), std::string::npos) << light;
  EXPECT_NE(light.find("n_layers for n_ui_layers"), std::string::npos) << light;
  EXPECT_EQ(light.find("  dtau "), std::string::npos) << "CCDRec's";
  EXPECT_NE(ccdrec.find("  dtau "), std::string::npos);
  EXPECT_NE(ccdrec.find("BPR terms on mapped features"), std::string::npos);
  EXPECT_EQ(ccdrec.find("n_layers for"), std::string::npos);
  EXPECT_EQ(ccdrec.find(" only\n"), std::string::npos) << "whose keys they are is known";
  EXPECT_NE(sentence([] { key_reference("GCMC"); }).find("-m: model = GCMC is not one of BPR"), std::string::npos);
}

TEST(Config, LayersOfLightGcn) {
  EXPECT_EQ(of({"model=LightGCN", "n_layers=3"}).settings.n_ui_layers, 3);
  EXPECT_NE(sentence([&] {
              of({"model=FREEDOM", "n_layers=3"});
            }).find("a key of LightGCN, BM3 and LATTICE"),
            std::string::npos);
  const Settings lattice = of({"model=LATTICE", "n_layers=3"}).settings;
  EXPECT_EQ(lattice.n_mm_layers, 3);
  EXPECT_EQ(lattice.n_ui_layers, 2);
  EXPECT_NE(sentence([&] {
              of({"model=LightGCN", "n_layers=3", "n_ui_layers=2"});
            }).find("same setting"),
            std::string::npos);
}

TEST(Config, LayersOfMmgcnAreThree) {
  const Config c = of({"model=MMGCN", "n_layers=2"});
  ASSERT_EQ(c.notes.size(), 1u);
  EXPECT_EQ(c.notes[0], "--set: n_layers has no influence on MMGCN");
  const std::string help = key_reference("MMGCN");
  EXPECT_EQ(help.find("other names"), std::string::npos) << help;
  EXPECT_NE(help.find("mmgcn_latent"), std::string::npos);
  EXPECT_NE(help.find("a regulariser on what is not trained"), std::string::npos);
}

TEST(Config, WhatARunWritesReadsBackTheSame) {
  const Folder dir;
  for (const std::string& model : system_names()) {
    Config c = of({std::string("model=") + model, "learning_rate=0.1234567890123456789", "seed=4000000000",
                   "topk=[3,20]", "run_dir=true"});
    c.settings.dataset = "a: b # c", c.settings.data_path = "/x y/ü\"z";
    if (!outline_of(c.settings).learned_graph) c.settings.mm_weights = {0.25, 0.75};  // LATTICE would say it is idle
    c.settings.modalities = {"image", "null"};
    const std::string text = config_yaml(c);
    const Config back = of({}, {file_with(dir, "config.yaml", text)});
    EXPECT_EQ(config_values(back.settings), config_values(c.settings)) << text;
    EXPECT_EQ(back.settings.learning_rate, c.settings.learning_rate);
    EXPECT_EQ(back.settings.data_path, c.settings.data_path);
    EXPECT_TRUE(back.notes.empty());
    EXPECT_EQ(text.find("omega") != std::string::npos, (find_system(model)->has & kModules) != 0);
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
  EXPECT_NE(sentence([] {
              check_resumable({{"learning_rate", "1", "--set"}});
            }).find("cannot change when a run continues"),
            std::string::npos);
  EXPECT_NE(sentence([] { check_resumable({{"seed", "1", "--seed"}}); }).find("seed"), std::string::npos);
  EXPECT_NE(sentence([] {
              check_resumable({{"epohcs", "1", "--set"}});
            }).find("did you mean 'epochs'?"),
            std::string::npos);
}

TEST(Config, EveryShippedFileResolvesWithoutNotes) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(CCDREC_SOURCE_DIR) + "/configs")) {
    SCOPED_TRACE(entry.path().string());
    std::vector<std::string> list = {entry.path().string()};
    if (read_text(list[0]).find("\nmodel: ") == std::string::npos)  // it goes on top of a model's
      list.insert(list.begin(), std::string(CCDREC_SOURCE_DIR) + "/configs/freedom.yaml");
    const Config c = of({}, list);
    EXPECT_TRUE(c.notes.empty());
    ++files;
  }
  EXPECT_GE(files, 4);
}

// The stages of the released runs, and those of the paper's formula (one epoch earlier), which the built-in settings
// follow.
TEST(Config, ShippedCurriculaHaveTheReleasedStages) {
  const auto stages = [](const Settings& s) {  // where each pool begins
    std::vector<int> first;
    for (int epoch = 0; epoch <= 100; ++epoch)
      if (epoch == 0 || pool_of_epoch(s, epoch) != pool_of_epoch(s, epoch - 1)) first.push_back(epoch);
    return first;
  };
  const auto shipped = [&](const char* name) {
    return stages(of({}, {std::string(CCDREC_SOURCE_DIR) + "/configs/" + name}).settings);
  };
  EXPECT_EQ(shipped("ccdrec.yaml"), (std::vector<int>{0, 1, 6, 11, 16, 31}));
  EXPECT_EQ(shipped("ccdrec-sports.yaml"), (std::vector<int>{0, 1, 6, 16, 26, 76}));
  EXPECT_EQ(stages(of({}).settings), (std::vector<int>{0, 1, 5, 10, 15, 31}));
}

TEST(Config, ReferenceNamesEveryKeyAndItsDefaults) {
  const std::string text = key_reference();
  for (const auto& [key, value] : config_values(Settings{}))
    EXPECT_NE(text.find("  " + key + " "), std::string::npos) << key;
  EXPECT_NE(text.find("default 2048, CCDRec 512"), std::string::npos);
  EXPECT_NE(text.find("eval_batch_size"), std::string::npos);
  EXPECT_NE(text.find("  diff_weight            lambda_dm\n"), std::string::npos);
}

}  // namespace
}  // namespace ccdrec
