#include "data/dataset.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "data/stats.h"
#include "data/text.h"
#include "tests/data/folder.h"
#include "tests/support.h"

namespace ccdrec::test::dataset_test {
namespace {

const LoadOptions no_features = [] {
  LoadOptions o;
  o.need_features = false;
  return o;
}();

Dataset load_text(const Folder& dir, const std::string& inter) {
  dir.write("toy.inter", inter);
  return load_dataset(dir.path(), no_features);
}
std::vector<std::pair<int, int>> pairs(const std::vector<Pair>& v) {
  std::vector<std::pair<int, int>> out;
  for (const Pair& p : v) out.push_back({p.user, p.item});
  return out;
}
using Pairs = std::vector<std::pair<int, int>>;
bool warned(const Dataset& d, const std::string& part) {
  for (const std::string& w : d.warnings)
    if (w.find(part) != std::string::npos) return true;
  return false;
}

const std::string plain =
    "userID\titemID\trating\ttimestamp\tx_label\n"
    "0\t0\t5.0\t1\t0\n"
    "0\t1\t5.0\t2\t1\n"
    "0\t2\t1.0\t3\t2\n"
    "1\t2\t4.0\t4\t0\n"
    "1\t0\t4.0\t5\t0\n";

void expect_plain(const Dataset& d) {
  EXPECT_EQ(d.n_users, 2);
  EXPECT_EQ(d.n_items, 3);
  EXPECT_EQ(pairs(d.train), (Pairs{{0, 0}, {1, 2}, {1, 0}}));  // file order
  EXPECT_EQ(pairs(d.valid), (Pairs{{0, 1}}));
  EXPECT_EQ(pairs(d.test), (Pairs{{0, 2}}));
}

TEST(Dataset, ReadsTheSameRowsFromEveryUsualForm) {
  const auto replaced = [](std::string s, const std::string& from, const std::string& to) {
    for (size_t at = 0; (at = s.find(from, at)) != std::string::npos; at += to.size()) s.replace(at, from.size(), to);
    return s;
  };
  struct Case {
    const char* name;
    std::string text;
  };
  const Case cases[] = {
      {"MMRec", plain},
      {"CRLF", replaced(plain, "\n", "\r\n")},
      {"no newline at the end", plain.substr(0, plain.size() - 1)},
      {"blank lines", replaced(plain, "\n", "\n\n") + "\n\n"},
      {"byte order mark", "\xEF\xBB\xBF" + plain},
      {"typed header", replaced(plain, "userID\titemID\trating\ttimestamp\tx_label",
                                "user_id:token\titem_id:token\trating:float\ttimestamp:float\tx_label:float")},
      {"typed, MMRec's names", replaced(plain, "userID\titemID", "userID:token\titemID:token")},
      {"short names", replaced(plain, "userID\titemID", "user\titem")},
      {"other order, more columns",
       "x_label\tnote\titemID\tuserID\n0\ta\t0\t0\n1\t\t1\t0\n2\tx y\t2\t0\n0\t\t2\t1\tmore\n0\t\t0\t1\n"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Folder dir;
    const Dataset d = load_text(dir, c.text);
    expect_plain(d);
    EXPECT_TRUE(d.users.dense() && d.items.dense());
    EXPECT_TRUE(d.warnings.empty()) << d.warnings[0];
    EXPECT_EQ(d.name, "toy");
  }
}

TEST(Dataset, GzipAndFieldsOfAnyName) {
  const Folder dir;
  const gzFile f = gzopen((dir / "toy.inter.gz").c_str(), "wb");
  gzwrite(f, plain.data(), unsigned(plain.size()));
  gzclose(f);
  expect_plain(load_dataset(dir.path() + "/", no_features));  // with a slash at the end as well
  const std::string whole = dir.read("toy.inter.gz");
  dir.write("toy.inter.gz", whole.substr(0, whole.size() - 9));
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path(), no_features); }), {"toy.inter.gz", "gzip"}));

  LoadOptions o = no_features;
  o.user_field = "who", o.item_field = "what", o.label_field = "split", o.name = "other";
  dir.write("other.inter", "userID\twho\tsplit\twhat\n9\t0\t0\t0\n9\t0\t1\t1\n9\t0\t2\t2\n9\t1\t0\t2\n9\t1\t0\t0\n");
  expect_plain(load_dataset(dir.path(), o));
}

TEST(Dataset, NamesAreNumberedAndKept) {
  const Folder dir;
  const Dataset d = load_text(
      dir,
      "userID\titemID:token\tx_label\nann\t0005019281\t0\nann\tB00X\t1\nann\t7\t2\nbob\t7\t0\nbob\t0005019281\t0\n");
  expect_plain(d);
  EXPECT_EQ(d.users.raw(1), "bob");
  EXPECT_EQ(d.items.raw(0), "0005019281");
  EXPECT_EQ(d.items.find("7"), 2);
  EXPECT_EQ(d.items.find("5019281"), -1);
  EXPECT_EQ(d.users.find("eve"), -1);

  const Folder typed;  // one name among numbers makes a typed column names
  const Dataset t = load_text(
      typed, "user_id:token\titem_id:token\tx_label\n17\t900\t0\n17\t901\t1\n17\tx\t2\n-3\tx\t0\n-3\t900\t0\n");
  expect_plain(t);
  EXPECT_EQ(t.users.raw(0), "17");
  EXPECT_EQ(t.users.raw(1), "-3");
  EXPECT_EQ(t.items.raw(2), "x");

  const Folder sparse;  // large numbers under a typed header are names too
  const Dataset s =
      load_text(sparse,
                "user_id:token\titem_id:token\tx_"
                "label\n1000000\t0\t0\n1000000\t1\t1\n1000000\t2\t2\n2000000000\t2\t0\n2000000000\t0\t0\n");
  expect_plain(s);
  EXPECT_EQ(s.users.raw(1), "2000000000");
  EXPECT_TRUE(s.items.dense());
}

TEST(Dataset, MappingsNameTheRows) {
  const Folder dir;
  dir.write("u_id_mapping.csv", "user_id\tuserID\nA2X\t1\nA1X\t0\n");
  dir.write("i_id_mapping.csv", "asin\titemID\r\nB0\t0\r\nB1\t1\r\nB2\t2\r\nB3\t3\r\n");
  const Dataset d = load_text(dir, plain);
  EXPECT_EQ(d.n_items, 4);  // B3 was never bought: a row of features, a candidate
  EXPECT_EQ(pairs(d.train), (Pairs{{0, 0}, {1, 2}, {1, 0}}));
  EXPECT_EQ(d.users.raw(1), "A2X");
  EXPECT_EQ(d.items.find("B3"), 3);
  EXPECT_TRUE(warned(d, "1 of 4 items have no interactions (first: item B3)"));
  // the same rows by name
  const Dataset n =
      load_text(dir, "userID\titemID\tx_label\nA1X\tB0\t0\nA1X\tB1\t1\nA1X\tB2\t2\nA2X\tB2\t0\nA2X\tB0\t0\n");
  EXPECT_EQ(pairs(n.train), pairs(d.train));
  EXPECT_EQ(n.items.raw(3), "B3");

  struct Case {
    std::string inter, mapping;
    std::vector<std::string> says;
  };
  const std::string header = "userID\titemID\tx_label\n";
  const Case cases[] = {
      {header + "0\t4\t0\n",
       "asin\titemID\nB0\t0\nB1\t1\n",
       {"toy.inter", "line 2", "itemID is 4", "lists only 2 ids"}},
      {header + "0\tB9\t0\n",
       "asin\titemID\nB0\t0\n",
       {"toy.inter", "line 2", "'B9'", "is not in", "i_id_mapping.csv"}},
      {plain, "asin\titemID\nB0\t0\nB0\t1\n", {"i_id_mapping.csv", "line 3", "'B0'", "line 2"}},
      {plain, "asin\titemID\nB0\t0\nB1\t0\n", {"i_id_mapping.csv", "line 3", "index 0", "line 2"}},
      {plain, "asin\titemID\nB0\t0\nB1\t2\n", {"i_id_mapping.csv", "no line for index 1"}},
      {plain, "B0\tsome\n", {"i_id_mapping.csv", "lists no ids"}},
      {plain, "asin\titemID\n\t0\n", {"i_id_mapping.csv", "line 2", "raw id is empty"}},
      {plain, "asin\titemID\nB\xE9\t0\n", {"i_id_mapping.csv", "line 2", "'B?' is not UTF-8"}},
      {plain, "asin itemID\rB0 0\r", {"i_id_mapping.csv", "CR alone"}},
      {plain,
       "asin\ttitle\tnumber\nB0\tx\t0\n",
       {"i_id_mapping.csv", "line 1", "none of its 3 columns is called itemID", "asin, title, number"}},
      {plain, "7\t0\n8\t1\n9\t2\n", {"i_id_mapping.csv", "line 1", "expected a heading"}},
      {plain,
       "first\nB0\nB1\n",
       {"i_id_mapping.csv", "line 1", "'first' may be a heading or the first raw id", "write itemID"}},
      {plain, "asin\nB0\n\nB2\n", {"i_id_mapping.csv", "line 3", "raw id is empty"}},
      {plain, "asin\titemID\nB0\tzero\n", {"i_id_mapping.csv", "line 2", "index from 0"}},
      {plain, "asin\titemID\n", {"i_id_mapping.csv", "lists no ids"}},
      {plain, "asin\titemID\nB0\t2000000000\n", {"i_id_mapping.csv", "line 2", "index from 0"}},
  };
  for (const Case& c : cases) {
    dir.write("i_id_mapping.csv", c.mapping);
    EXPECT_TRUE(says(refusal([&] { load_text(dir, c.inter); }), c.says));
  }
}

TEST(Dataset, EveryBadInterHasItsSentence) {
  const std::string h = "userID\titemID\tx_label\n", ok = "0\t0\t0\n";
  struct Case {
    const char* name;
    std::string text;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"empty", "", {"is empty", "userID, itemID, x_label"}},
      {"blank lines only", "\n\n\n", {"is empty"}},
      {"header only", h, {"no interactions"}},
      {"no label column",
       "userID\titemID\trating\n0\t0\t1\n",
       {"no column 'x_label'", "userID, itemID, rating", "line 1"}},
      {"no item column", "userID\tasin\tx_label\n0\t0\t1\n", {"no column 'itemID'", "userID, asin, x_label"}},
      {"blanks", "userID  itemID x_label\n0 0 0\n", {"line 1", "separated by blanks, expected tabs", "sed -E"}},
      {"CR alone", "userID\titemID\tx_label\r0\t0\t0\r", {"lines end in CR alone", "tr '\\r' '\\n'"}},
      {"UTF-16", std::string("\xFF\xFEu\0s\0", 6), {"is UTF-16, expected UTF-8"}},
      {"a comma too many",
       "userID,itemID,title,x_label\n0,0,a,0\n0,1,a, b,0\n",
       {"line 3", "more columns than the 4 of the header", "quote"}},
      {"row names without a heading",
       "\"userID\"\t\"itemID\"\t\"x_label\"\n\"1\"\t0\t1\t0\n",
       {"line 2", "more columns than the 3"}},
      {"many columns", "a\tb\tc\td\te\tf\tg\n", {"a, b, c, d, e and 2 more"}},
      {"no split",
       "userID\titemID\trating\n0\t0\t1\n",
       {"no column 'x_label'", "a split has to be made", "0 (training), 1 (validation) or 2 (test)", "bench/resplit.py",
        "inter_splitting_label"}},
      {"no split, commas",
       "user_id,item_id,rating\n0,0,1\n",
       {"no column 'x_label'", "separated by commas", "a split has to be made"}},
      {"no header", ok + ok, {"no column 'userID'", "columns found"}},
      {"word among integers",
       h + ok + "0\tx\t0\n",
       {"line 3", "itemID is 'x'", "'0' on line 2", "integer from 0", "itemID:token"}},
      {"negative id", h + ok + "-1\t0\t0\n", {"line 3", "userID is '-1'", "integer from 0"}},
      {"negative id at once", h + "-1\t0\t0\n", {"line 2", "userID is '-1'"}},
      {"fraction", h + "1.5\t0\t0\n", {"line 2", "userID is '1.5'"}},
      {"beyond 31 bits", h + "2147483647\t0\t0\n", {"line 2", "2147483646"}},
      {"empty id", h + "\t0\t0\n", {"line 2", "userID is empty"}},
      {"empty id of a typed column",
       "user_id:token\titem_id:token\tx_label\n1\t1\t0\n\t2\t0\n",
       {"line 3", "user_id:token is empty"}},
      {"blanks for an id", h + " \t0\t0\n", {"line 2", "userID is empty"}},
      {"Latin-1", h + "0\tcaf\xE9\t0\n", {"line 2", "itemID 'caf?' is not UTF-8"}},
      {"Latin-1 later", h + ok + "0\t\xE9\t0\n", {"line 3", "itemID '?' is not UTF-8"}},
      {"empty name", h + "ann\tB\t0\nann\t\t0\n", {"line 3", "itemID is empty"}},
      {"gap", h + ok + "1500000\t0\t0\n", {"line 3", "userID is 1500000", "userID:token"}},
      {"label 3", h + ok + "0\t1\t3\n", {"line 3", "x_label is '3'", "0 (training), 1 (validation) or 2 (test)"}},
      {"label -1", h + "0\t1\t-1\n", {"line 2", "x_label is '-1'"}},
      {"label 0.0", h + "0\t1\t0.0\n", {"line 2", "x_label is '0.0'"}},
      {"label missing", h + "0\t1\t\n", {"line 2", "x_label is ''"}},
      {"short line", h + ok + "0\t1\n", {"line 3", "has 2 columns, expected 3"}},
      {"blank lines are counted", h + "\n\n0\tx\n", {"line 4"}},
      {"no training rows", h + "0\t0\t1\n0\t1\t2\n", {"no training rows", "label is 0"}},
      {"binary",
       std::string("\x7f"
                   "ELF\0\0\1\t\2\n\3",
                   11),
       {"no column 'userID'"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Folder dir;
    const std::string s = refusal([&] { load_text(dir, c.text); });
    EXPECT_TRUE(says(s, c.says));
    EXPECT_EQ(s.find(dir / "toy.inter"), 0u) << s;
    EXPECT_EQ(dir.names(), std::vector<std::string>{"toy.inter"});
  }
}

// What gives rows of features to other items: integers that are numbered by appearance because of a few among them, or
// of how they are written.
TEST(Dataset, IntegersAreNeverNumberedByAppearanceUnderAPlainHeader) {
  struct Case {
    const char* name;
    std::string ids;  // of the column, a line each
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"name, then integer", "B0 7 8", {"line 3", "is '7'", "'B0' on line 2"}},
      {"integer, then name", "7 8 B0", {"line 4", "is 'B0'", "'7' on line 2"}},
      {"name, then number", "B0 -7", {"line 3", "is '-7'", "'B0' on line 2"}},
      {"blanks around all", "0_ 5_ 3_", {"line 2", "is '0 '", "'5 ' on line 3", "blanks"}},
      {"blanks around one", "0 _5 3", {"line 3", "is ' 5'", "'0' on line 2"}},
      {"blanks around the only one", "0_", {"line 2", "is '0 '"}},
      {"blanks around the same", "0_ 0_", {"line 2", "is '0 '"}},
      {"a name among them", "0_ B 3", {"line 3", "is 'B'", "'0 ' on line 2"}},
      {"single quotes", "'4' '5'", {"line 2", "is ''4''", "''5'' on line 3", "quotes"}},
      {"floating point", "1.0 0.0", {"line 2", "is '1.0'", "'0.0' on line 3", "fraction"}},
      {"floating point among integers", "1 0.0", {"line 3", "is '0.0'", "'1' on line 2"}},
      {"zeros in front of all", "002 000 001", {"line 2", "is '002'", "zeros in front"}},
      {"zeros in front of some", "2 10 01", {"line 4", "is '01'", "'2' on line 2", "zeros in front"}},
      {"quoted", "\"7\" B0", {"line 3", "is 'B0'", "'7' on line 2"}},
  };
  for (const Case& c : cases)
    for (const bool users : {false, true}) {
      SCOPED_TRACE(c.name);
      const Folder dir;
      std::string text = "userID\titemID\tx_label\n", id;
      for (const char x : c.ids + " ") {
        if (x != ' ') {
          id += x == '_' ? ' ' : x;
          continue;
        }
        text += users ? id + "\t0\t0\n" : "0\t" + id + "\t0\n";
        id.clear();
      }
      std::vector<std::string> parts = c.says;
      parts.push_back(users ? "userID" : "itemID");
      parts.push_back((users ? "userID:token" : "itemID:token") + std::string(" in the header, which means names"));
      EXPECT_TRUE(says(refusal([&] { load_text(dir, text); }), parts));
    }
  // a heading that says so makes any of them names, but for one stray blank that would renumber all integers
  const Folder dir;
  EXPECT_EQ(load_text(dir, "userID\titemID:token\tx_label\n0\t0 \t0\n0\t5 \t0\n").items.raw(1), "5 ");
  EXPECT_EQ(load_text(dir, "userID\titemID:token\tx_label\n0\t002\t0\n0\t000\t0\n").items.raw(0), "002");
  EXPECT_TRUE(says(refusal([&] { load_text(dir, "userID\titemID:token\tx_label\n0\t1\t0\n0\t0 \t0\n"); }),
                   {"line 3", "'0 '", "'1' on line 2"}));
  // Names that look like numbers, too large to be places of rows; and quotes, which are no part of an integer.
  EXPECT_EQ(load_text(dir, "userID\titemID\tx_label\n0\t0108775015\t0\n0\t0110065001\t0\n").items.raw(1), "0110065001");
  EXPECT_TRUE(load_text(dir, "\"userID\"\t\"itemID\"\t\"x_label\"\n\"0\"\t\"1\"\t\"0\"\n").items.dense());
  dir.write("i_id_mapping.csv", "asin\titemID\n1599213249\t0\nB0\t1\n");  // a mapping says whose row it is
  for (const char* first : {"1599213249\t0\n0\tB0", "B0\t0\n0\t1599213249"})
    EXPECT_EQ(load_text(dir, std::string("userID\titemID\tx_label\n0\t") + first + "\t0\n").n_items, 2);
}

TEST(Dataset, SeparatorsAreRecognisedAndNoted) {
  const auto with = [](char separator, const std::string& around) {
    std::string s;
    for (const char c : plain)
      if (c == '\t')
        s += around.substr(0, around.size() / 2) + separator + around.substr(around.size() / 2);
      else
        s += c;
    return s;
  };
  struct Case {
    std::string text, note;
  };
  const Case cases[] = {
      {with(',', ""), "separated by commas"},
      {with(';', ""), "separated by semicolons"},
      {with(',', " "), "separated by commas"},
      {"\"userID\",\"itemID\",\"title\",\"x_label\"\n\"0\",\"0\",\"a, "
       "\"\"b\"\"\",0\n0,1,x,1\n0,2,,2\n1,2,\"\",0\n1,0,y,0\n",
       "separated by commas"},
      {",userID,itemID,x_label\n0,0,0,0\n1,0,1,1\n2,0,2,2\n3,1,2,0\n4,1,0,0\n", "separated by commas"}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    const Folder dir;
    const Dataset d = load_text(dir, c.text);
    expect_plain(d);
    ASSERT_EQ(d.warnings.size(), 1u);
    EXPECT_TRUE(warned(d, c.note));
  }
}

TEST(Dataset, MappingsOfEveryForm) {
  struct Case {
    const char *name, *mapping, *note;
  };
  const Case cases[] = {
      {"quotes", "\"asin\"\t\"itemID\"\n\"A\"\t\"0\"\n\"B\"\t\"1\"\n\"C\"\t\"2\"\n", ""},
      {"quoted ids alone", "asin\titemID\n\"A\"\t0\n\"B\"\t1\n\"C\"\t2\n", ""},
      {"commas", "asin,itemID\nA,0\nB,1\nC,2\n", ""},
      {"semicolons, other order", "itemID;asin\n2;C\n1;B\n0;A\n", ""},
      {"other order under other names", "number\tkey\n2\tC\n1\tB\n0\tA\n", ""},
      {"no heading", "A\t0\nB\t1\nC\t2\n", ""},
      {"no heading, other order", "0\tA\n1\tB\n2\tC\n", ""},
      {"in order", "asin\nA\nB\nC\n\n", ""},
      {"in order under the field's name", "itemID\r\nA\r\nB\r\nC\r\n", ""},
      {"row numbers of pandas", ",asin,itemID\n0,A,0\n1,B,1\n2,C,2\n", ""},
      {"more columns", "title\tasin\titemID\nx\tA\t0\ny\tB\t1\nx\tC\t2\n", "column 'asin'"},
      {"more columns, none usual", "itemID,name,title\n0,A,x\n1,B,\"y, z\"\n2,C,x\n", "column 'name'"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Folder dir;
    dir.write("i_id_mapping.csv", c.mapping);
    const Dataset d = load_text(dir, plain);
    ASSERT_EQ(d.n_items, 3);
    EXPECT_EQ(d.items.raw(0) + d.items.raw(1) + d.items.raw(2), "ABC");
    EXPECT_EQ(d.warnings.size(), *c.note ? 1u : 0u);
    EXPECT_TRUE(warned(d, c.note) || !*c.note);
  }
  const Folder dir;  // no heading and no name: digits tell an id
  dir.write("i_id_mapping.csv", "B0\nB1\nB2\n");
  EXPECT_EQ(load_text(dir, plain).items.raw(0), "B0");
}

TEST(Dataset, FoldersWithoutADataSet) {
  const Folder dir;
  const auto sentence = [&](const std::string& path, const std::string& name = "") {
    return refusal([&] {
      LoadOptions o = no_features;
      o.name = name;
      load_dataset(path, o);
    });
  };
  EXPECT_TRUE(says(sentence(dir / "none"), {"none", "no such folder"}));
  EXPECT_TRUE(says(sentence(dir.path()), {"no .inter file"}));
  dir.write("a.inter", plain);
  EXPECT_TRUE(says(sentence(dir / "a.inter"), {"is a file, expected the folder"}));
  dir.write("b.inter", plain);
  EXPECT_TRUE(says(sentence(dir.path()), {"several .inter files", "a, b"}));
  EXPECT_TRUE(says(sentence(dir.path(), "c"), {"no c.inter", "a, b"}));
  std::filesystem::create_directory(dir / "inner");
  std::ofstream(dir / "evil.inter") << plain;
  for (const std::string& name : {std::string("../evil"), dir / "evil"}) {
    const std::string path = sentence(dir / "inner", name);
    EXPECT_TRUE(
        says(path, {"dataset = ", "is a path, expected the name of an .inter file in ", "name the folder with -d"}));
  }
  std::filesystem::create_directory(dir / "c.inter");
  EXPECT_TRUE(says(sentence(dir.path(), "c"), {"c.inter", "is a directory"}));
  std::filesystem::create_directory(dir / "d");
  std::ofstream(dir / "d/d.inter") << plain;
  std::ofstream(dir / "d/e.inter") << plain;
  EXPECT_EQ(load_dataset(dir / "d", no_features).name, "d");  // the folder's own name wins
}

// MMRec's inter_file_name. `dataset` names the folder there, and a file here: only what can mean one file is read.
TEST(Dataset, AFileNamedIsTheFileRead) {
  const Folder parent;
  const std::string folder = parent / "toys";
  std::filesystem::create_directory(folder);
  const std::string two = "userID\titemID\tx_label\n0\t0\t0\n1\t1\t0\n", one = "userID\titemID\tx_label\n0\t0\t0\n";
  parent.write("toys/toys.inter", two);
  parent.write("toys/toys-v4.inter", one);
  const auto load = [&](const std::string& name, const std::string& file) {
    LoadOptions o = no_features;
    o.name = name, o.file = file;
    return load_dataset(folder, o);
  };
  EXPECT_EQ(load("", "").n_users, 2);
  for (const char* name : {"", "toys-v4"}) {
    const Dataset d = load(name, "toys-v4.inter");
    EXPECT_EQ(d.n_users, 1);
    EXPECT_EQ(d.name, "toys-v4");
  }
  EXPECT_EQ(load("toys", "toys.inter").n_users, 2);
  EXPECT_TRUE(says(refusal([&] { load("", "toys-v5.inter"); }),
                   {folder, "no toys-v5.inter in it", "inter_file_name", "toys, toys-v4"}));
  for (const char* name : {"toys", "games"})
    EXPECT_TRUE(says(refusal([&] { load(name, "toys-v4.inter"); }), {name, "toys-v4.inter", "two files", "leave one"}))
        << name;
  std::filesystem::remove(folder + "/toys.inter");  // now `toys` can only mean the folder
  EXPECT_EQ(load("toys", "toys-v4.inter").n_users, 1);
  EXPECT_TRUE(says(refusal([&] { load("games", "toys-v4.inter"); }), {"two files"}));
  std::filesystem::remove(folder + "/toys-v4.inter");
  EXPECT_TRUE(says(refusal([&] { load("", "toys-v4.inter"); }), {"no toys-v4.inter in it", "found: none"}));
  const gzFile z = gzopen((folder + "/toys-v4.inter.gz").c_str(), "wb");
  gzwrite(z, one.data(), unsigned(one.size()));
  gzclose(z);
  EXPECT_EQ(load("", "toys-v4.inter").n_users, 1);
  EXPECT_EQ(load("", "toys-v4.inter.gz").name, "toys-v4");
}

TEST(Dataset, WarningsAreCountedAndNamed) {
  const Folder dir;
  const Dataset d = load_text(dir,
                              // users 2 and 3 have no training row; user 1 and item 2 do not occur
                              "userID\titemID\tx_label\n0\t0\t0\n0\t0\t0\n0\t1\t0\n0\t1\t2\n"
                              "2\t1\t1\n2\t3\t2\n3\t1\t2\n");
  EXPECT_EQ(d.n_users, 4);
  EXPECT_EQ(d.n_items, 4);
  EXPECT_EQ(pairs(d.train), (Pairs{{0, 0}, {0, 0}, {0, 1}}));  // kept as training samples
  EXPECT_TRUE(d.valid.empty());
  EXPECT_EQ(pairs(d.test), (Pairs{{0, 1}}));
  EXPECT_TRUE(warned(d, "1 of 1 validation rows dropped: their 1 users have no training row (first: user 2)"));
  EXPECT_TRUE(warned(d, "2 of 3 test rows dropped: their 2 users"));
  EXPECT_TRUE(warned(d, "1 of 4 items have no interactions (first: item 2)"));
  EXPECT_TRUE(warned(d, "1 duplicated rows (first: user 0, item 0)"));
  EXPECT_TRUE(warned(d, "1 pairs stand in more than one split (first: user 0, item 1)"));
  const Folder one;
  EXPECT_TRUE(warned(load_text(one, "userID\titemID\tx_label\n0\t0\t0\n"), "no test rows"));
}

TEST(Dataset, FeaturesByNameImageFirst) {
  const Folder dir;
  dir.write("toy.inter", plain);
  dir.write("text_feat.npy", npy_floats({1, 2, 3, 4, 5, 6}, 3, 2));
  dir.write("audio_feat.npy", npy_floats({1, 0, 3}, 3, 1));
  dir.write("image_feat.npy", npy_floats({0, 0, 3, 4, 0, 0}, 3, 2));
  dir.write("other.npy", "no feature file");
  const Dataset d = load_dataset(dir.path());
  ASSERT_EQ(d.features.size(), 3u);
  EXPECT_EQ(d.features[0].name, "image");
  EXPECT_EQ(d.features[1].name, "audio");
  EXPECT_EQ(d.features[2].name, "text");
  EXPECT_TRUE(warned(d, "image: 2 of 3 feature rows are all zero (first: item 0)"));
  EXPECT_TRUE(warned(d, "audio: 1 of 3 feature rows are all zero (first: item 1)"));
  const std::string text = describe(d);
  for (const char* part : {"users 2, items 3, interactions 5", "training 3 (60.0 %)", "image_feat.npy: 3 x 2, <f4",
                           "zero rows 2", "cold items (no training row): 1 of 3", "2 warnings", "fingerprint"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;

  LoadOptions o;
  o.modalities = {"text"};
  EXPECT_EQ(load_dataset(dir.path(), o).features.size(), 1u);
  o.modalities = {"text", "video"};
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path(), o); }), {"no video_feat.npy", "image, audio, text"}));
}

TEST(Dataset, BadFeaturesAreRefused) {
  struct Case {
    const char* name;
    std::string bytes;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"item beyond the rows", npy_floats({1, 2}, 2, 1), {"has 2 rows", "toy.inter line 4 names item 2", "3 items"}},
      {"more rows than items", npy_floats({1, 2, 3, 4}, 4, 1), {"has 4 rows, expected 3", "i_id_mapping.csv"}},
      {"NaN", npy_floats({1, NAN, 3}, 3, 1), {"row 1, column 0", "nan"}},
      {"infinity", npy_floats({1, 2, INFINITY}, 3, 1), {"row 2, column 0", "inf"}},
      {"truncated", npy_floats({1, 2}, 3, 1), {"truncated"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Folder dir;
    dir.write("toy.inter", plain);
    dir.write("image_feat.npy", npy_floats({1, 2, 3}, 3, 1));
    dir.write("text_feat.npy", c.bytes);
    const std::string s = refusal([&] { load_dataset(dir.path()); });
    EXPECT_TRUE(says(s, c.says));
    EXPECT_EQ(s.find(dir / "text_feat.npy"), 0u) << s;
    // not opened: a model without features does not mind
    EXPECT_EQ(load_dataset(dir.path(), no_features).features.size(), 0u);
  }
  const Folder dir;
  dir.write("toy.inter", plain);
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path()); }), {"no *_feat.npy", "image_feat.npy"}));
  std::filesystem::create_directory(dir / "image_feat.npy");
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path()); }), {"image_feat.npy", "is a directory"}));
}

TEST(Dataset, FeaturesOfIdsThatBeginAtOne) {
  const Folder dir;
  dir.write("toy.inter", "userID\titemID\tx_label\n1\t1\t0\n1\t2\t1\n1\t3\t2\n");
  const auto with_rows = [&](size_t rows) {
    dir.write("text_feat.npy", npy_floats(std::vector<float>(rows, 1.0f), rows, 1));
    return load_dataset(dir.path());
  };
  EXPECT_TRUE(says(refusal([&] { with_rows(3); }),
                   {"text_feat.npy: has 3 rows", "1 to 3", "subtract 1", "put a row in front"}));
  EXPECT_TRUE(says(refusal([&] { with_rows(2); }), {"has 2 rows", "names item 3", "subtract 1"}));
  EXPECT_TRUE(says(refusal([&] { with_rows(5); }), {"has 5 rows, expected 4", "subtract 1"}));
  // a row in front, or one too many at the end
  EXPECT_TRUE(warned(with_rows(4), "no line names item 0, to which row 0 of the features belongs"));
  dir.write("toy.inter", plain);
  EXPECT_TRUE(with_rows(3).warnings.empty());
}

TEST(Dataset, NamesOfTablesAreNoModalities) {
  const std::string rows3 = npy_floats({1, 2, 3}, 3, 1), rows2 = npy_floats({1, 2}, 2, 1);
  for (const char* name : {"user", "item_id", "id", "adam", "adam.m.image", "adam.v.user", "final.user", "pool.0",
                           "state.losses", "a,b", "a\x1b[31m", "a\xFF"}) {
    SCOPED_TRACE(name);
    const Folder dir;
    dir.write("toy.inter", plain);
    dir.write("image_feat.npy", rows3);
    dir.write(std::string(name) + "_feat.npy", rows3);
    const std::string s = refusal([&] { load_dataset(dir.path()); });
    EXPECT_TRUE(says(s, {"_feat.npy: '", "choose another name and rename the file", "modalities"}));
    EXPECT_EQ(s.find('\x1b'), std::string::npos);
    LoadOptions o;
    o.modalities = {"image"};
    EXPECT_EQ(load_dataset(dir.path(), o).features.size(), 1u) << "not asked for, not minded";
  }
  const Folder dir;
  dir.write("toy.inter", plain);
  dir.write("user_feat.npy", rows2);
  EXPECT_FALSE(has_features(dir.path()));
  EXPECT_TRUE(holds_data_set(dir.path()));
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path()); }), {"no *_feat.npy of items"}));
  dir.write("text_feat.npy", rows3);
  dir.write("user_age_feat.npy", rows2);
  const Dataset d = load_dataset(dir.path());
  ASSERT_EQ(d.features.size(), 1u);
  EXPECT_EQ(d.features[0].name, "text");
  EXPECT_TRUE(warned(d, "user_feat.npy has a row for each of the 2 users") && warned(d, "user_age_feat.npy has a row"));
  LoadOptions o;
  o.modalities = {"user"};
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path(), o); }), {"'user' is the name of tables"}));
  for (const char* fine : {"image", "item", "clip.v1", "user_reviews", "adamant", "ton-\xC3\xA4"})
    EXPECT_EQ(unusable_modality(fine), "") << fine;
  EXPECT_NE(unusable_modality("../x"), "");
  EXPECT_NE(unusable_modality(""), "");
}

// Escape sequences of a foreign file reach neither a sentence nor a note nor the statistics, and long ids are cut.
TEST(Dataset, NothingThatATerminalObeysIsShown) {
  const Folder dir;
  const std::string evil =
                        "\x1b]0;x\x07\xC2\x9B"
                        "31m",
                    longer(100, 'n');
  const auto clean = [&](const std::string& s) {
    EXPECT_EQ(printable(s), s);
    EXPECT_EQ(s.find(longer), std::string::npos);
  };
  for (const std::string& id : {evil, longer}) {
    const std::string text = "userID\titemID\tx_label\n" + id + "\t" + id + "\t0\n" + id + "\t" + id + "\t0\n" + id +
                             "\t" + id + "\t1\nb\tc\t1\n";
    dir.write("toy.inter", text);
    dir.write("text_feat.npy", npy_floats({0, 1}, 2, 1));
    const Dataset d = load_dataset(dir.path());
    EXPECT_EQ(d.users.raw(0), id) << "the id itself is kept";
    EXPECT_GE(d.warnings.size(), 4u);
    for (const std::string& w : d.warnings) clean(w);
    std::string statistics = describe(d);
    std::replace(statistics.begin(), statistics.end(), '\n', ' ');
    clean(statistics);
    for (const std::string& bad :
         {text + id + "\tc\t" + id + "\n", "userID\t" + id + "\t" + id + "\n", text + "b\t1\t0\n"})
      clean(refusal([&] { load_text(dir, bad); }));
    dir.write("i_id_mapping.csv", "asin\titemID\n" + id + "\t0\n" + id + "\t1\n");
    clean(refusal([&] { load_dataset(dir.path(), no_features); }));
    dir.write("i_id_mapping.csv", "asin\titemID\nA\t" + id + "\n");
    clean(refusal([&] { load_dataset(dir.path(), no_features); }));
    std::filesystem::remove(dir / "i_id_mapping.csv");
  }
  dir.write(evil + ".inter", plain);
  clean(refusal([&] { load_dataset(dir.path(), no_features); }));
  std::filesystem::remove(dir / "toy.inter");
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path(), no_features); }),
                   {"its name holds characters that cannot be printed"}));
}

TEST(Dataset, TheLowestBadRowIsNamedOnManyTiles) {
  const Folder dir;
  const size_t items = 3000, width = 700;
  std::string inter = "userID\titemID\tx_label\n0\t2999\t0\n";
  dir.write("toy.inter", inter);
  std::vector<float> v(items * width, 1.0f);
  v[1234 * width + 5] = v[2800 * width] = NAN;
  dir.write("text_feat.npy", npy_floats(v, items, width));
  EXPECT_TRUE(says(refusal([&] { load_dataset(dir.path()); }), {"row 1234, column 5"}));
}

TEST(Dataset, TheFingerprintSeesEveryByte) {
  const Folder dir;
  dir.write("toy.inter", plain);
  std::vector<float> v(30000, 1.0f);
  dir.write("text_feat.npy", npy_floats(v, 3, 10000));
  const std::string base = load_dataset(dir.path()).checksum, rows = load_dataset(dir.path()).interactions;
  EXPECT_EQ(base.size(), 16u);
  EXPECT_EQ(base, load_dataset(dir.path()).checksum);
  v[12345] = 1.0000001f;
  dir.write("text_feat.npy", npy_floats(v, 3, 10000));
  EXPECT_NE(base, load_dataset(dir.path()).checksum);
  EXPECT_EQ(rows, load_dataset(dir.path()).interactions) << "of the rows alone";
  v[12345] = 1.0f;
  dir.write("text_feat.npy", npy_floats(v, 3, 10000));
  std::string other = plain;
  other[other.size() - 2] = '1';
  dir.write("toy.inter", other);
  EXPECT_NE(base, load_dataset(dir.path()).checksum);
  EXPECT_NE(rows, load_dataset(dir.path()).interactions);
}

TEST(Dataset, IdMapFindsOnlyWhatItGives) {
  const IdMap m = IdMap::dense_of(12);
  EXPECT_EQ(m.size(), 12);
  EXPECT_EQ(m.raw(11), "11");
  EXPECT_EQ(m.find("11"), 11);
  for (const char* no : {"12", "", "-1", "007", "1.0", " 1", "99999999999999999999", "x"})
    EXPECT_EQ(m.find(no), -1) << no;
  const IdMap n = IdMap::of({"b", "a", "007"});
  EXPECT_EQ(n.find("007"), 2);
  EXPECT_EQ(n.find("2"), -1);
}

TEST(Dataset, SurvivesDamage) {
  const Folder dir;
  Draw g;
  const std::string typed = "user_id:token\titem_id:token\tx_label\nann\tx\t0\nann\ty\t1\nbob\t17\t2\nbob\tx\t0\n";
  int read = 0, refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = g.below(2) ? plain : typed;
    for (int f = g.below(4); f > 0; --f) {
      char& c = text[size_t(g.below(int32_t(text.size())))];
      c = g.below(2) ? char(c ^ (1 << g.below(8))) : "0123456789\t\n\r-:x"[g.below(16)];
    }
    if (g.below(3) == 0) text.resize(size_t(g.below(int32_t(text.size() + 1))));
    try {
      const Dataset d = load_text(dir, text);
      for (const auto* split : {&d.train, &d.valid, &d.test})
        for (const Pair& p : *split)
          ASSERT_TRUE(p.user >= 0 && p.user < d.n_users && p.item >= 0 && p.item < d.n_items);
      ++read;
    } catch (const UserError&) { ++refused; }
  }
  EXPECT_GT(read, 300);
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace ccdrec::test::dataset_test
