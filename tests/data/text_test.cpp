// Small text files, words and paths.
#include "data/text.h"

#include <sys/stat.h>
#include <zlib.h>

#include <thread>

#include "data/dataset.h"
#include "data/path.h"
#include "tests/data/folder.h"

namespace ccdrec::test {
namespace {

TEST(Text, APipeIsReadToItsEnd) {  // as in `ccdrec train -c <(generate settings)`: it announces no size
  const Folder dir;
  const std::string pipe = dir / "pipe", text(10000, 'x');
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] { dir.write("pipe", text); });
  EXPECT_EQ(read_text(pipe), text);
  writer.join();
  EXPECT_EQ(read_text(dir.write("empty", "")), "");
  EXPECT_EQ(read_text(dir.write("file", text)), text);
}

TEST(Text, Words) {
  EXPECT_EQ(thousands(0), "0");
  EXPECT_EQ(thousands(999), "999");
  EXPECT_EQ(thousands(160792), "160,792");
  EXPECT_EQ(thousands(-1234567), "-1,234,567");
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("epohcs", "epochs"), 1u);
  EXPECT_EQ(edit_distance("abcd", "badc"), 2u);
  EXPECT_EQ(edit_distance("ab", "bca"), 3u);
}

TEST(Text, HintsAreNear) {  // two edits, and a third of the word
  EXPECT_EQ(nearest("epoch", {"epochs", "dtau"}), "epochs");
  EXPECT_EQ(nearest("MU", {"mu", "dtau"}), "mu");
  EXPECT_EQ(nearest("nu", {"mu"}), "");
  EXPECT_EQ(nearest("nul", {"mu", "null"}), "null");
  EXPECT_EQ(nearest("lernin_rate", {"learning_rate"}), "learning_rate");
  EXPECT_EQ(nearest("learn_rate", {"learning_rate"}), "") << "three edits";
  EXPECT_EQ(nearest("linae", {"linear"}), "") << "two edits are more than a third of five letters";
  EXPECT_EQ(nearest("linaer", {"cosine", "linear"}), "linear");
  EXPECT_EQ(nearest("", {"mu"}), "");
}

TEST(Text, AFileThatIsTooLongIsNotRead) {
  const Folder dir;
  EXPECT_EQ(read_text(dir.write("ten", "0123456789"), 10), "0123456789");
  EXPECT_TRUE(says(refusal([&] { read_text(dir / "ten", 9); }), {dir / "ten", "more than 9 bytes"}));
  EXPECT_TRUE(says(refusal([&] { read_text("/dev/zero", 100000); }), {"/dev/zero", "more than 100,000 bytes"}));
  const gzFile z = gzopen((dir / "zeros.gz").c_str(), "wb");
  const std::string zeros(1 << 20, '\0');
  for (int i = 0; i < 8; ++i) gzwrite(z, zeros.data(), unsigned(zeros.size()));
  gzclose(z);
  EXPECT_TRUE(says(refusal([&] { read_text(dir / "zeros.gz", 100); }), {"zeros.gz", "more than 100 bytes"}));
  EXPECT_EQ(read_text(dir / "zeros.gz").size(), size_t(8) << 20);
}

TEST(Path, AnswersOrSaysWhyItCannot) {
  const Folder dir;
  dir.write("file", "x");
  EXPECT_TRUE(path_exists(dir / "file"));
  EXPECT_FALSE(is_folder(dir / "file"));
  EXPECT_TRUE(is_folder(dir.path()));
  EXPECT_FALSE(path_exists(dir / "absent"));
  EXPECT_FALSE(path_exists(dir / "file/below")) << "nothing lies below a file";
  EXPECT_TRUE(says(refusal([&] { path_exists(dir / std::string(300, 'n')); }), {"nnn: cannot be looked at", "too long"}));
  std::filesystem::create_symlink("round", dir / "round");
  EXPECT_TRUE(says(refusal([&] { is_folder(dir / "round"); }), {"round: cannot be looked at"}));
  EXPECT_EQ(absolute_path("/a/./b/../c//"), "/a/c");
  EXPECT_EQ(absolute_path("/"), "/");
}

TEST(Path, WhatCountsAsADataSet) {
  const Folder dir;
  EXPECT_FALSE(holds_data_set(dir.path()));
  EXPECT_FALSE(holds_data_set(dir / "absent"));
  dir.write("notes.txt", "x");
  EXPECT_FALSE(holds_data_set(dir.path()));
  dir.write("a.inter.gz", "x");
  EXPECT_TRUE(holds_data_set(dir.path()));
  EXPECT_FALSE(has_features(dir.path()));
  dir.write("audio_feat.npy", "x");
  EXPECT_TRUE(has_features(dir.path()));
}

}  // namespace
}  // namespace ccdrec::test
