// The commands without a process, and the data that their tests share.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "host/base/safetensors.h"
#include "host/cli/cli.h"
#include "tests/host/tiny_data.h"

namespace ccdrec::test {

// The program of this build, beside the tests.
inline std::string program() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "ccdrec").string();
}

struct Result {
  int code;
  std::string out, err;
};
inline Result run(const std::vector<std::string>& words) {
  std::vector<const char*> argv = {"ccdrec"};
  for (const std::string& w : words) argv.push_back(w.c_str());
  std::ostringstream out, err;
  const int code = cli::run_cli(int(argv.size()), argv.data(), out, err);
  return {code, out.str(), err.str()};
}
inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// One data set for all of them: 60 users, 40 items, two modalities.
inline const std::string& data_folder() {
  static const Folder dir;
  static const std::string folder = [] {
    const Result r = run({"synth", "tiny", "--out", dir / "tiny", "--users", "60", "--items", "40", "--interactions",
                          "600", "--seed", "3"});
    EXPECT_EQ(r.code, 0) << r.err;
    return dir / "tiny";
  }();
  return folder;
}
inline std::vector<std::string> train_words(const std::string& model, const std::string& run_dir,
                                            std::vector<std::string> more = {}) {
  std::vector<std::string> words = {"train",
                                    "-m",
                                    model,
                                    "-d",
                                    data_folder(),
                                    "--run-dir",
                                    run_dir,
                                    "--threads",
                                    "2",
                                    "--set",
                                    "embedding_size=8",
                                    "--set",
                                    "train_batch_size=64"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}
inline void expect_same_tensors(const std::string& a, const std::string& b) {
  const TensorFile x = read_safetensors(a), y = read_safetensors(b);
  ASSERT_EQ(x.tensors.size(), y.tensors.size());
  for (const auto& [name, t] : x.tensors) {
    ASSERT_TRUE(y.tensors.count(name)) << name;
    EXPECT_EQ(t.bytes, y.tensors.at(name).bytes) << name;
  }
}

}  // namespace ccdrec::test
