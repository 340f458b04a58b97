// Run folders that commit 7c47670 left (tests/runs, made by make.sh there): later programs evaluate, recommend, export,
// compare and resume them to the bits that the program of that commit came to.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/sha256.h"
#include "data/text.h"
#include "tests/host/command.h"

namespace ccdrec::test {
namespace {

using nlohmann::json;
const std::string kRuns = std::string(CCDREC_SOURCE_DIR) + "/tests/runs";
constexpr const char* kNames[] = {"bpr-finished", "freedom-killed", "ccdrec-stopped"};

std::string expected(const std::string& file) { return read_text(kRuns + "/expected/" + file); }
const std::string kData = kRuns + "/tiny";

// A copy that may be written to.
std::string copy_of(const std::string& name, const Folder& dir) {
  std::filesystem::copy(kRuns + "/" + name, dir / name, std::filesystem::copy_options::recursive);
  return dir / name;
}

// All that was there is there still, with the same values; later programs may say more.
void expect_holds(const json& want, const json& got, const std::string& where) {
  if (!want.is_object()) {
    EXPECT_EQ(want, got) << where;
    return;
  }
  for (const auto& [key, value] : want.items()) {
    // Every model named four terms of its loss then, those it does not have as 0.
    if (where.ends_with(".losses") && value == 0.0 && !got.contains(key)) continue;
    ASSERT_TRUE(got.is_object() && got.contains(key)) << where << "." << key;
    expect_holds(value, got[key], where + "." + key);
  }
}

TEST(OldRuns, AreEvaluatedToTheSameNumbers) {
  for (const std::string name : kNames) {
    const Result r = run({"evaluate", kRuns + "/" + name, "-d", kData, "--json", "--threads", "2"});
    ASSERT_EQ(r.code, 0) << name << r.err;
    json want = json::parse(expected(name + ".evaluate.json"));
    want.erase("run");  // the folder as it was named
    expect_holds(want, json::parse(r.out), name);
  }
}

TEST(OldRuns, RecommendTheSameItemsWithTheSameScores) {
  for (const std::string name : kNames) {
    const Result r = run({"recommend", kRuns + "/" + name, "-d", kData, "--top", "3", "--threads", "2"});
    ASSERT_EQ(r.code, 0) << name << r.err;
    EXPECT_EQ(r.out, expected(name + ".recommend.tsv")) << name;
  }
}

// "FILE TENSOR SHA256" lines of the file beside the run, those of `file` alone: tensor -> digest.
std::map<std::string, std::string> digests(const std::string& name, const std::string& file) {
  std::map<std::string, std::string> out;
  std::istringstream lines(expected(name + ".sha256"));
  for (std::string f, tensor, digest; lines >> f >> tensor >> digest;)
    if (f == file) out[tensor] = digest;
  return out;
}

TEST(OldRuns, ExportTheSameFiles) {
  for (const std::string name : kNames) {
    const Folder dir;
    const Result r = run({"export", kRuns + "/" + name, "-o", dir / "out"});
    ASSERT_EQ(r.code, 0) << name << r.err;
    const auto want = digests(name, "export");
    ASSERT_EQ(want.size(), 2u);
    for (const auto& [file, digest] : want) {
      const std::string bytes = dir.read("out/" + file);
      EXPECT_EQ(sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()}), digest) << name << " " << file;
    }
  }
}

void expect_resumed(const std::string& name, const std::string& folder) {
  for (const std::string file : {"best", "last"}) {
    const auto tensors = read_safetensors(folder + "/" + file + ".safetensors").tensors;
    const auto want = digests(name, file);
    ASSERT_GT(want.size(), 2u);
    for (const auto& [tensor, digest] : want) {
      ASSERT_TRUE(tensors.count(tensor)) << name << " " << file << " " << tensor;
      std::vector<unsigned char> bytes = tensors.at(tensor).bytes;
      // four terms in every model then; the epoch is over, and all are 0
      if (tensor == "state.losses") bytes.resize(4 * sizeof(double));
      EXPECT_EQ(sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()}), digest)
          << name << " " << file << " " << tensor;
    }
  }
  std::istringstream want(expected(name + "-resumed.metrics.jsonl")), got(read_text(folder + "/metrics.jsonl"));
  int epochs = 0;
  for (std::string w, g; std::getline(want, w); ++epochs) {
    ASSERT_TRUE(std::getline(got, g)) << name;
    expect_holds(json::parse(w), json::parse(g), name + " epoch " + std::to_string(epochs));
  }
  EXPECT_EQ(epochs, 10);
  expect_holds(json::parse(expected(name + "-resumed.summary.json")), json::parse(read_text(folder + "/summary.json")),
               name + " summary");
}

void expect_compared(const std::vector<std::string>& words, const std::string& file) {
  const Result r = run(words);
  ASSERT_EQ(r.code, 0) << r.err;
  json want = json::parse(expected(file));
  const json got = json::parse(r.out);
  ASSERT_EQ(want.size(), got.size());
  for (size_t k = 0; k < want.size(); ++k) {
    want[k]["values"].erase("seconds");
    for (const char* name : {"name", "data"}) want[k].erase(name);  // to tell lines and sets apart by; they may change
    expect_holds(want[k], got[k], file + " line " + std::to_string(k));
  }
}

// As make.sh did it: the stopped runs resumed to ten epochs, then compared beside the finished one.
TEST(OldRuns, ResumeToTheSameBitsAndAreCompared) {
  const Folder dir;
  for (const std::string name : kNames) {
    const std::string folder = copy_of(name, dir);
    const Result r = run({"train", "--resume", folder, "-d", kData, "--threads", "2", "--set", "epochs=10"});
    ASSERT_EQ(r.code, 0) << name << r.err;
    expect_resumed(name, folder);
  }
  std::vector<std::string> words = {"compare", kRuns + "/bpr-finished", dir / "freedom-killed", dir / "ccdrec-stopped",
                                    "--json"};
  expect_compared(words, "compare.json");
  words.push_back("--valid");
  expect_compared(words, "compare-valid.json");
}

}  // namespace
}  // namespace ccdrec::test
