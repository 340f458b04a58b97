// Small text files, words and paths.
#include "data/text.h"

#include <sys/stat.h>
#include <zlib.h>

#include <thread>

#include "data/dataset.h"
#include "data/path.h"
#include "tests/data/folder.h"

namespace ccdrec::test::text_test {
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

TEST(Text, WhatIsShownIsHarmless) {
  struct Case {
    std::string text, shown;
  };
  const Case cases[] = {{"plain", "plain"},
                        {"\x1b[31mred\x07", "?[31mred?"},
                        {"tab\tnew\nline\x7f", "tab?new?line?"},
                        {"Stra\xC3\x9F"
                         "e \xF0\x9F\x8E\xB5",
                         "Stra\xC3\x9F"
                         "e \xF0\x9F\x8E\xB5"},
                        {"C1 \xC2\x9B"
                         "31m",
                         "C1 ?31m"},  // CSI as one character
                        {"raw C1 \x9B"
                         "31m",
                         "raw C1 ?31m"},  // and as a byte
                        {"Latin-1 \xE9t\xE9", "Latin-1 ?t?"},
                        {"cut \xE2\x82", "cut ??"},
                        {"overlong \xC0\xAF", "overlong ??"},
                        {"surrogate \xED\xA0\x80", "surrogate ???"},
                        {"beyond \xF4\x90\x80\x80", "beyond ????"},
                        {"turned \xE2\x80\xAE"
                         "cod.exe",
                         "turned ?cod.exe"},
                        {std::string("nul\0", 4), "nul?"}};
  for (const Case& c : cases) {
    EXPECT_EQ(printable(c.text), c.shown);
    EXPECT_EQ(shown(c.text), c.shown);
    EXPECT_STREQ(UserError(c.text).what(), c.shown.c_str());
  }
  std::string umlauts, forty;
  for (int n = 0; n < 50; ++n) umlauts += "\xC3\xA4", forty += n < 40 ? "\xC3\xA4" : "";
  EXPECT_EQ(shown(umlauts), forty + "...") << "cut between characters";
  EXPECT_EQ(shown(forty), forty);
  EXPECT_TRUE(valid_utf8("") && valid_utf8("plain text of more than eight") && valid_utf8(umlauts));
  for (const char* bad : {"\xC3", "a\xFF", "\xC0\xAF", "\xED\xA0\x80", "0123456789\x80"})
    EXPECT_FALSE(valid_utf8(bad)) << bad;
  EXPECT_EQ(listed(std::vector<std::string>{"a", "b\x1b", "c", "d", "e"}), "a, b?, c, d, e");
  EXPECT_EQ(listed(std::vector<std::string>{"a", "b", "c", "d", "e", "f", "g"}), "a, b, c, d, e and 2 more");
  EXPECT_EQ(shell_word("runs/a-b_1.2"), "runs/a-b_1.2");
  EXPECT_EQ(shell_word("it's $(x)"), "'it'\\''s $(x)'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST(Text, FieldsOfALine) {
  using Words = std::vector<std::string_view>;
  struct Case {
    const char* line;
    char separator;
    Words fields;
  };
  const Case cases[] = {{"a\tb\t\tc", '\t', {"a", "b", "", "c"}},
                        {"", '\t', {""}},
                        {"a\t", '\t', {"a", ""}},
                        {" a \t\"b\"", '\t', {" a ", "b"}},
                        {"\"5\tx\t12\"", '\t', {"\"5", "x", "12\""}},  // inches, not quotes around a tab
                        {"a, b ,,\"c, d\" ,e", ',', {"a", "b", "", "c, d", "e"}},
                        {"\"a \"\"b\"\", c\",d,", ',', {"a \"\"b\"\", c", "d", ""}},
                        {"\"open,b", ',', {"\"open", "b"}},
                        {"\"a\" b,c", ',', {"\"a\" b", "c"}},
                        {"a;b,c", ';', {"a", "b,c"}}};
  for (const Case& c : cases) EXPECT_EQ(split_fields(c.line, c.separator), c.fields) << c.line;
}

TEST(Path, AnswersOrSaysWhyItCannot) {
  const Folder dir;
  dir.write("file", "x");
  EXPECT_TRUE(path_exists(dir / "file"));
  EXPECT_FALSE(is_folder(dir / "file"));
  EXPECT_TRUE(is_folder(dir.path()));
  EXPECT_FALSE(path_exists(dir / "absent"));
  EXPECT_FALSE(path_exists(dir / "file/below")) << "nothing lies below a file";
  EXPECT_TRUE(
      says(refusal([&] { path_exists(dir / std::string(300, 'n')); }), {"nnn: cannot be looked at", "too long"}));
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
}  // namespace ccdrec::test::text_test
