// What evaluate, recommend, export and compare make of a run folder whose files, or whose data, are no longer those of
// the run.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/text.h"
#include "host/files/run_folder.h"
#include "host/training/checkpoint.h"
#include "tests/host/command.h"

namespace ccdrec::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;
using Words = std::vector<std::string>;

Words lines_of(const std::string& text) {
  Words all;
  Lines lines(text);
  for (std::string_view line; lines.next(line);) all.emplace_back(line);
  return all;
}
void write_lines(const std::string& path, const Words& lines) {
  std::ofstream out(path);
  for (const std::string& line : lines) out << line << '\n';
}

// A file of tensors as it was, with other metadata.
void change_metadata(const std::string& path, const std::function<void(std::map<std::string, std::string>&)>& change) {
  TensorFile file = read_safetensors(path);
  change(file.metadata);
  std::vector<TensorView> views;
  for (const auto& [name, t] : file.tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
  write_safetensors(path, views, file.metadata);
}

// A trained run with a data folder of its own, both free to be changed.
struct Trained {
  Folder dir;
  std::string data = dir / "set", inter = data + "/tiny.inter", folder = dir / "run";
  explicit Trained(const std::string& model = "BPR", Words more = {}) {
    fs::copy(data_folder(), data);
    Words words = {
        "train", "-m",      model, "-d", data, "--run-dir", folder, "--threads", "2", "--set", "embedding_size=8",
        "--set", "epochs=3"};
    words.insert(words.end(), more.begin(), more.end());
    const Result r = run(words);
    EXPECT_EQ(r.code, 0) << r.err;
  }
  void forget(const char* key) const {  // as a program that did not write it
    for (const char* file : {"/best.safetensors", "/last.safetensors"})
      change_metadata(folder + file, [&](auto& meta) { meta.erase(key); });
  }
  // The last training row and the first test row change sides: same ids in the same order, another split.
  void change_split() const {
    Words rows = lines_of(read_text(inter));
    const auto ends = [](char split) { return [split](const std::string& row) { return row.back() == split; }; };
    const auto train = std::find_if(rows.rbegin(), rows.rend(), ends('0'));
    const auto test = std::find_if(rows.begin(), rows.end(), ends('2'));
    train->back() = '2', test->back() = '0';
    write_lines(inter, rows);
  }
  void drop_a_row() const {
    Words rows = lines_of(read_text(inter));
    rows.pop_back();
    write_lines(inter, rows);
  }
  void add_mapping() const {  // the ids stay what they were
    std::ofstream out(data + "/i_id_mapping.csv");
    out << "itemID\titemID\n";
    for (const std::string& line : lines_of(read_text(folder + "/items.tsv"))) out << line << '\n';
  }
};

void expect_refused(const Words& words, const std::string& part) {
  const Result r = run(words);
  EXPECT_EQ(r.code, 2) << words[0] << r.out;
  EXPECT_TRUE(has(r.err, part)) << words[0] << ": " << r.err;
  EXPECT_TRUE(r.err.ends_with("\n") && r.err.rfind("ccdrec: ") == r.err.rfind("\n", r.err.size() - 2) + 1)
      << "one sentence: " << r.err;
  EXPECT_EQ(r.out, "") << words[0];
}

TEST(ReadingRuns, OtherInteractionsAreRefused) {
  struct Change {
    const char* name;
    void (Trained::*make)() const;
  };
  for (const Change& change :
       {Change{"split", &Trained::change_split}, {"rows", &Trained::drop_a_row}, {"mapping", &Trained::add_mapping}}) {
    SCOPED_TRACE(change.name);
    const Trained t;
    ASSERT_EQ(run({"recommend", t.folder, "-k", "3", "-o", t.dir / "lists.tsv"}).code, 0);
    (t.*change.make)();
    const std::string why = "its interactions are not those the run was trained with";
    expect_refused({"evaluate", t.folder}, why);
    expect_refused({"recommend", t.folder}, why);
    expect_refused({"evaluate", t.folder, "--recs", t.dir / "lists.tsv"}, why);
    const Result resumed = run({"train", "--resume", t.folder, "--set", "epochs=4"});
    EXPECT_EQ(resumed.code, 2);
    EXPECT_TRUE(has(resumed.err, "the data folder has changed since this run")) << resumed.err;
    EXPECT_EQ(run({"evaluate", t.folder, "-d", data_folder()}).code, 0) << "the same rows elsewhere";
  }
}

TEST(ReadingRuns, OtherDataSaysInEveryLineThatItIsNotComparable) {
  const Trained t;
  t.change_split();
  for (const Words& words :
       {Words{"evaluate", t.folder}, Words{"recommend", t.folder, "-k", "2", "--format", "jsonl"}}) {
    Words all = words;
    all.push_back("--other-data");
    const Result r = run(all);
    ASSERT_EQ(r.code, 0) << r.err;
    const Words lines = lines_of(r.out);
    EXPECT_GT(lines.size(), 5u);
    for (const std::string& line : lines) EXPECT_TRUE(has(line, "not comparable")) << line;
    EXPECT_TRUE(has(r.err, "not comparable")) << r.err;
  }
  const Result e = run({"evaluate", t.folder, "--other-data", "--json"});
  EXPECT_EQ(json::parse(e.out).at("comparable"), false);
  EXPECT_EQ(json::parse(e.out).at("note"), "not comparable");

  // Lists stay readable: a column, or fields, more.
  const Result tsv = run({"recommend", t.folder, "-k", "2", "--other-data", "-o", t.dir / "lists.tsv"});
  EXPECT_TRUE(has(tsv.err, ", not comparable")) << tsv.err;
  const Words rows = lines_of(read_text(t.dir / "lists.tsv"));
  EXPECT_EQ(rows[0], "userID\titemID\tscore\tnote");
  for (size_t k = 1; k < rows.size(); ++k) EXPECT_TRUE(rows[k].ends_with("\tnot comparable")) << rows[k];
  ASSERT_EQ(
      run({"recommend", t.folder, "-k", "2", "--other-data", "--format", "jsonl", "-o", t.dir / "lists.jsonl"}).code,
      0);
  EXPECT_EQ(json::parse(lines_of(read_text(t.dir / "lists.jsonl"))[0]).at("comparable"), false);
  const Result a = run({"evaluate", "--recs", t.dir / "lists.tsv", "-d", t.data, "--json"}),
               b = run({"evaluate", t.folder, "--other-data", "--recs", t.dir / "lists.jsonl", "--json"});
  ASSERT_EQ(a.code, 0) << a.err;
  ASSERT_EQ(b.code, 0) << b.err;
  EXPECT_EQ(json::parse(a.out).at("test"), json::parse(b.out).at("test"));
  EXPECT_EQ(json::parse(b.out).at("note"), "not comparable");

  EXPECT_EQ(run({"evaluate", "--recs", t.dir / "lists.tsv", "-d", t.data, "--other-data"}).code, 2)
      << "there is no run to differ from";
  const Result same = run({"evaluate", t.folder, "-d", data_folder(), "--other-data"});
  EXPECT_FALSE(has(same.out + same.err, "not comparable")) << "the run's own rows after all";
}

TEST(ReadingRuns, OlderRunsTellByTheirSummaryOrByWhatTheyWereComputedFrom) {
  for (const auto& [model, reads_features] : {std::pair("BPR", false), std::pair("FREEDOM", true)}) {
    SCOPED_TRACE(model);
    const Trained t(model);
    t.forget("interactions");
    EXPECT_EQ(run({"evaluate", t.folder}).code, 0);
    const std::string whole = read_text(t.inter);
    t.change_split();
    expect_refused({"evaluate", t.folder}, "its interactions are not those");
    fs::remove(t.folder + "/summary.json");  // killed
    expect_refused({"evaluate", t.folder},
                   reads_features ? "its interactions or features are not those" : "its interactions are not those");
    std::ofstream(t.inter) << whole;
    const Result r = run({"evaluate", t.folder});
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_FALSE(has(r.err, "nothing in it tells")) << r.err;
    for (const char* file : {"/image_feat.npy", "/text_feat.npy"}) fs::remove(t.data + file);
    const Result bare = run({"recommend", t.folder});
    EXPECT_EQ(bare.code, 0) << "features are not needed to recommend: " << bare.err;
    EXPECT_EQ(has(bare.err, "nothing in it tells which interactions"), reads_features) << bare.err;
  }
}

TEST(ReadingRuns, WhatContradictsTheCheckpointIsNamed) {
  const auto replace = [](const std::string& path, const std::string& from, const std::string& to) {
    std::string text = read_text(path);
    ASSERT_TRUE(has(text, from)) << path << ": " << from;
    write_text(path, text.replace(text.find(from), from.size(), to));
  };
  const auto everywhere = [](const Trained& t, const std::string& part) {
    for (const Words& words : {Words{"evaluate", t.folder}, Words{"recommend", t.folder}, Words{"compare", t.folder},
                               Words{"export", t.folder, "-o", t.dir / "out"}})
      expect_refused(words, part);
    EXPECT_FALSE(fs::exists(t.dir / "out"));
  };
  {
    const Trained t;
    replace(t.folder + "/config.yaml", "\nseed: 999", "\nseed: 998");
    everywhere(t, "/config.yaml: contradicts last.safetensors: seed = 999 there and 998 in this run");
  }
  {
    const Trained t;
    write_text(t.folder + "/config.yaml", "");
    everywhere(t, "contradicts last.safetensors: model = BPR there and CCDRec in this run, ");
  }
  {
    const Trained t;
    replace(t.folder + "/config.yaml", "inter_splitting_label: x_label", "inter_splitting_label: other");
    everywhere(t, "columns = userID, itemID, x_label there and userID, itemID, other in this run");
  }
  {
    const Trained t, other("BPR", {"--seed", "5"});
    fs::copy_file(other.folder + "/best.safetensors", t.folder + "/best.safetensors",
                  fs::copy_options::overwrite_existing);
    everywhere(t, "contradicts best.safetensors: seed = 5 there and 999 in this run");
  }
  {  // the same settings, another place in the same course
    const Trained t, other("BPR", {"--set", "learning_rate=0.05"});
    const std::string identity = run_identity(t.folder + "/best.safetensors").settings;
    fs::copy_file(other.folder + "/best.safetensors", t.folder + "/best.safetensors",
                  fs::copy_options::overwrite_existing);
    change_metadata(t.folder + "/best.safetensors", [&](auto& meta) { meta["settings"] = identity; });
    everywhere(t, "/summary.json: contradicts best.safetensors: ");
  }
  const auto in_summary = [&](const std::function<void(json&)>& change, const std::string& part) {
    const Trained t;
    json j = RunFolder::open(t.folder).summary();
    change(j);
    write_text(t.folder + "/summary.json", j.dump());
    everywhere(t, part);
  };
  in_summary([](json& j) { j["model"] = "CCDRec"; }, "contradicts config.yaml: model is CCDRec, not BPR");
  in_summary([](json& j) { j["seed"] = 1; }, "contradicts config.yaml: seed is 1, not 999");
  in_summary([](json& j) { j["best_epoch"] = 77; }, "contradicts best.safetensors: best_epoch is 77, not ");
  in_summary([](json& j) { j["best_test"]["recall@20"] = 0.99; },
             "contradicts best.safetensors: of best_test recall@20 is 0.99, not 0.");
  in_summary([](json& j) { j["best_valid"].erase("map@5"); }, "of best_valid map@5 is absent, not 0.");
  in_summary([](json& j) { j["data"]["interactions"] = "00"; },
             "contradicts best.safetensors: interactions are 00, not ");
  in_summary([](json& j) { j["data"]["checksum"] = "00"; }, "contradicts best.safetensors: data checksum is 00, not ");
  in_summary([](json& j) { j.erase("seed"); }, "written by another version, or damaged");
}

TEST(ReadingRuns, RunsThatSaveLittleAreComparedAllTheSame) {
  const Trained no_best("BPR", {"--set", "save_best=false"}),
      neither("BPR", {"--set", "save_best=false", "--set", "save_last=false"});
  for (const Trained* t : {&no_best, &neither}) {
    EXPECT_EQ(run({"compare", t->folder}).code, 0);
    EXPECT_EQ(run({"evaluate", t->folder}).code, 2);
  }
  // The state is the witness where there is no best model.
  json j = RunFolder::open(no_best.folder).summary();
  j["best_test"]["recall@20"] = 0.99;
  write_text(no_best.folder + "/summary.json", j.dump());
  expect_refused({"compare", no_best.folder}, "contradicts last.safetensors: of best_test recall@20 is 0.99");
  // A best model that a continued run no longer saves is left behind, and is no contradiction.
  const Trained t("BPR", {"--set", "valid_metric=NDCG@20", "--set", "learning_rate=0.01"});
  const Result r = run({"train", "--resume", t.folder, "--set", "epochs=40", "--set", "save_best=false"});
  ASSERT_EQ(r.code, 0) << r.err;
  ASSERT_GT(RunFolder::open(t.folder).summary().at("best_epoch").get<int>(), 2);
  EXPECT_EQ(run({"compare", t.folder}).code, 0);
}

TEST(ReadingRuns, ACheckpointWithoutMetadataIsNoted) {
  const Trained t;
  for (const char* file : {"/best.safetensors", "/last.safetensors"})
    change_metadata(t.folder + file, [](auto& meta) { meta.clear(); });
  const Result r = run({"evaluate", t.folder});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(has(r.err, "best.safetensors: does not say which run it is of")) << r.err;
}

TEST(ReadingRuns, AnAbsentSplitHasNoFigures) {
  const Trained whole;
  for (const char split : {'1', '2'}) {
    SCOPED_TRACE(split);
    const Folder dir;
    fs::create_directories(dir / "set");
    Words rows = lines_of(read_text(data_folder() + "/tiny.inter"));
    rows.erase(std::remove_if(rows.begin(), rows.end(), [&](const std::string& row) { return row.back() == split; }),
               rows.end());
    write_lines(dir / "set/set.inter", rows);
    const std::string name = split == '1' ? "valid" : "test", title = split == '1' ? "validation" : "test";
    const Result r =
        run({"train", "-m", "BPR", "-d", dir / "set", "--run-dir", dir / "run", "--set", "embedding_size=8", "--set",
             "epochs=3", "--set", "topk=[5]", "--set", "valid_metric=Recall@5"});
    ASSERT_EQ(r.code, 0) << r.err;
    for (const std::string& line : lines_of(r.out))
      EXPECT_EQ(line.starts_with(title + " "), line.ends_with(" -")) << line;
    const json summary = RunFolder::open(dir / "run").summary();
    EXPECT_TRUE(summary.at("best_" + name).is_null()) << summary;
    EXPECT_EQ(summary.at("best_score").is_null(), split == '1');
    EXPECT_FALSE(summary.at(split == '1' ? "best_test" : "best_valid").is_null());
    EXPECT_TRUE(json::parse(lines_of(read_text(dir / "run/metrics.jsonl"))[0]).at(name).is_null());

    const Result text = run({"evaluate", dir / "run", "--topk", "5"}), js = run({"evaluate", dir / "run", "--json"});
    ASSERT_EQ(text.code, 0) << text.err;
    EXPECT_TRUE(has(text.out, title + " Recall")) << text.out;
    for (const std::string& line : lines_of(text.out))
      EXPECT_EQ(line.starts_with(title + " "), line.ends_with(" -")) << line;
    EXPECT_TRUE(json::parse(js.out).at(name).is_null()) << js.out;
    ASSERT_EQ(run({"recommend", dir / "run", "-o", dir / "lists.tsv"}).code, 0);
    const Result lists = run({"evaluate", "--recs", dir / "lists.tsv", "-d", dir / "set", "--json"});
    EXPECT_TRUE(json::parse(lists.out).at(name).is_null()) << lists.out;

    Words words = {"compare", dir / "run", "--json"};
    if (split == '1') words.push_back("--valid");
    const Result compared = run(words);
    ASSERT_EQ(compared.code, 0) << compared.err;
    EXPECT_TRUE(json::parse(compared.out)[0].at("values").at("recall@5").is_null()) << compared.out;
    words[2] = "--markdown";
    EXPECT_TRUE(has(run(words).out, "| BPR | 1 | - |")) << run(words).out;

    // As earlier programs wrote it: zeros. They are not shown, and the continued run is rid of them.
    json zeros = summary;
    zeros["best_" + name] = {{"recall@5", 0.0}};
    write_text(dir / "run/summary.json", zeros.dump());
    EXPECT_TRUE(has(run(words).out, "| BPR | 1 | - |")) << run(words).out;
    change_metadata(dir / "run/last.safetensors", [&](auto& meta) {
      json j = json::parse(meta["summary"]);
      j["best_" + name] = {{"recall@5", 0.0}};
      meta["summary"] = j.dump();
    });
    ASSERT_EQ(run({"train", "--resume", dir / "run", "--set", "epochs=4"}).code, 0);
    EXPECT_TRUE(RunFolder::open(dir / "run").summary().at("best_" + name).is_null());
  }
}

TEST(ReadingRuns, ExportTakesNoFileNameThatLeadsElsewhere) {
  for (const char* name : {"../../x", "/tmp/ccdrec-x", "a/b", "..", ".hidden", "", "two\nlines", "\x1b[2J",
                           "user_embeddings", "item_embeddings"}) {
    SCOPED_TRACE(name);
    const Trained t;
    const std::string best = t.folder + "/best.safetensors";
    const TensorFile file = read_safetensors(best);
    std::vector<TensorView> views;
    for (const auto& [own, tensor] : file.tensors)
      views.push_back({own, tensor.dtype, tensor.shape, tensor.bytes.data()});
    const float x[] = {1, 2};
    views.push_back({name, "F32", {2}, x});
    write_safetensors(best, views, file.metadata);
    expect_refused({"export", t.folder, "-o", t.dir / "a/b/out", "--all"}, "cannot name a file of its own");
    EXPECT_FALSE(fs::exists(t.dir / "a"));
    const Result r = run({"export", t.folder, "-o", t.dir / "out"});
    EXPECT_EQ(r.code, 0) << "the embeddings alone: " << r.err;
  }
  EXPECT_FALSE(fs::exists("/tmp/ccdrec-x.npy"));
}

TEST(ReadingRuns, AMovedDataFolderIsNamedWithTheOptionThatHelps) {
  const Trained t;
  fs::rename(t.data, t.dir / "moved");
  for (const Words& words : {Words{"train", "--resume", t.folder, "--set", "epochs=4"}, Words{"evaluate", t.folder},
                             Words{"recommend", t.folder}})
    expect_refused(words, "/set: the data folder of this run is no longer there; name its new place with -d");
  const Result r = run({"train", "--resume", t.folder, "--set", "epochs=4", "-d", t.dir / "moved"});
  EXPECT_EQ(r.code, 0) << r.err;
}

TEST(ReadingRuns, TwoDataSetsOfOneNameAreToldApart) {
  const Trained a, b("BPR", {"--seed", "5"});
  const Result same = run({"compare", a.folder, b.folder});
  EXPECT_TRUE(same.out.starts_with("tiny, test metrics")) << same.out;
  fs::remove_all(b.folder);
  b.change_split();
  ASSERT_EQ(
      run({"train", "-m", "BPR", "-d", b.data, "--run-dir", b.folder, "--set", "embedding_size=8", "--set", "epochs=2"})
          .code,
      0);
  const json of_a = RunFolder::open(a.folder).summary().at("data"),
             of_b = RunFolder::open(b.folder).summary().at("data");
  const Result r = run({"compare", a.folder, b.folder}), js = run({"compare", a.folder, b.folder, "--json"});
  for (const json& data : {of_a, of_b})
    EXPECT_TRUE(has(r.out, "tiny (60 users, 40 items, " + data.at("train").dump() + " training rows, checksum " +
                               data.at("interactions").get<std::string>() + "), test metrics"))
        << r.out;
  const json lines = json::parse(js.out);
  EXPECT_NE(lines.at(0).at("data"), lines.at(1).at("data"));
  EXPECT_EQ(lines.at(0).at("interactions"), of_a.at("interactions"));
}

}  // namespace
}  // namespace ccdrec::test
