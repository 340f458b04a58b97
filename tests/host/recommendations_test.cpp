// Lists in and out: another program's lists against metrics worked out by hand, our lists read back, seen items masked.
#include "host/files/recommendations.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "data/error.h"
#include "tests/host/tiny_data.h"

namespace ccdrec {
namespace {

using test::Folder;

// Two users, five items, raw ids; u1 has held-out {a, c, e} in test, u2 has {b}.
Dataset small() {
  Dataset d;
  d.name = "small", d.folder = "small", d.n_users = 3, d.n_items = 6;
  d.users = IdMap::of({"u1", "u2", "u3"}), d.items = IdMap::of({"a", "b", "c", "d", "e", "f"});
  d.train = {{0, 5}, {1, 5}, {2, 5}};
  d.test = {{0, 0}, {0, 2}, {0, 4}, {1, 1}};
  return d;
}

std::string put(const Folder& dir, const std::string& text) {
  std::ofstream(dir / "recs", std::ios::binary) << text;
  return dir / "recs";
}
std::string sentence(const Folder& dir, const std::string& text) {
  try {
    read_recommendations(put(dir, text), small());
  } catch (const UserError& e) { return e.what(); }
  return "(no error)";
}
Metrics test_metrics(const Folder& dir, const std::string& text, int64_t* missing) {
  return foreign_metrics(read_recommendations(put(dir, text), small()), held_out(small().test), {2, 5}, missing);
}

// u1: hits at ranks 1 and 3 of 3 held-out items; u2: its only item at rank 2. By hand (the first user is the worked
// example of the protocol):
//   Recall@5 (2/3 + 1)/2   Precision@5 (2/5 + 1/5)/2   NDCG@5 (0.70392 + 1/log2(3))/2   MAP@5 (0.55556 + 0.5)/2   MAP@2
//                          (1/2 + 1/2)/2
void expect_by_hand(const Metrics& m) {
  const double ideal3 = 1 + 1 / std::log2(3.0) + 0.5;
  EXPECT_NEAR(m.at("recall@5"), (2.0 / 3 + 1) / 2, 1e-12);
  EXPECT_NEAR(m.at("precision@5"), 0.3, 1e-12);
  EXPECT_NEAR(m.at("ndcg@5"), (1.5 / ideal3 + 1 / std::log2(3.0)) / 2, 1e-12);
  EXPECT_NEAR(m.at("map@5"), ((1 + 2.0 / 3) / 3 + 0.5) / 2, 1e-12);
  EXPECT_NEAR(m.at("map@2"), 0.5, 1e-12);
}

TEST(Recommendations, ForeignListsAgainstMetricsByHand) {
  const Folder dir;
  const std::string by_order = "u1\ta\nu1\td\nu2\td\nu1\tc\nu2\tb\n";
  const std::string by_score = "user\titem\tscore\nu2\tb\t0.25\nu1\tc\t1e-3\nu1\ta\t7\nu2\td\t0.5\nu1\td\t+2\n";
  const std::string windows = "u1\ta\r\nu1\td\r\nu1\tc\r\n\r\nu2\td\r\nu2\tb";
  const std::string json =
      "{\"user\":\"u1\",\"items\":[{\"item\":\"a\",\"score\":3},{\"item\":\"d\",\"score\":2},{\"item\":\"c\",\"score\":"
      "1}]}\n"
      "{\"user\":\"u2\",\"items\":[{\"item\":\"b\",\"score\":-2},{\"item\":\"d\",\"score\":-1}]}\n";
  const std::string plain_json =
      "{\"user\":\"u1\",\"items\":[\"a\",\"d\",\"c\"]}\n{\"user\":\"u2\",\"items\":[\"d\",\"b\"]}\n";
  for (const std::string& text : {by_order, by_score, windows, json, plain_json}) {
    SCOPED_TRACE(text);
    int64_t missing = -1;
    expect_by_hand(test_metrics(dir, text, &missing));
    EXPECT_EQ(missing, 0);
  }
  EXPECT_EQ(read_recommendations(put(dir, by_score), small()).ranked_by, "score");
  EXPECT_EQ(read_recommendations(put(dir, by_order), small()).ranked_by, "order in the file");
}

// Every form holds the lists of expect_by_hand; by place each would be read as others, or not at all.
TEST(Recommendations, HeadingsAreHonouredInAnyOrder) {
  const Folder dir;
  struct Case {
    const char *name, *text, *ranked_by;
  };
  const Case cases[] = {
      {"ranks", "user\titem\trank\nu1\ta\t1\nu1\td\t2\nu1\tc\t3\nu2\td\t1\nu2\tb\t2\n", "rank"},
      {"ranks from 0, another order", "Rank,Item_ID,User_ID\n2,c,u1\n0,a,u1\n1,d,u1\n1,b,u2\n0,d,u2\n", "rank"},
      {"a rank beside a score",
       "user\titem\tscore\trank\nu1\tc\t9\t3\nu1\ta\t1\t1\nu1\td\t5\t2\nu2\tb\t1\t2\nu2\td\t0\t1\n", "rank"},
      {"RecBole", "user_id:token\titem_id:token\tscore:float\nu1\tc\t1\nu1\ta\t3\nu1\td\t2\nu2\td\t2\nu2\tb\t1\n",
       "score"},
      {"items first", "item;user;prediction\nc;u1;0.1\na;u1;0.3\nd;u1;0.2\nd;u2;0.2\nb;u2;0.1\n", "score"},
      {"items first, no score", "itemID\tuserID\na\tu1\nd\tu1\nc\tu1\nd\tu2\nb\tu2\n", "order in the file"},
      {"row numbers of pandas",
       ",userID,itemID,score,split\n0,u1,c,1,x\n1,u1,a,3,x\n2,u1,d,2,x\n3,u2,d,2,x\n4,u2,b,1,x\n", "score"},
      {"saved by pandas twice", "Unnamed: 0\tuser\titem\n0\tu1\ta\n1\tu1\td\n2\tu1\tc\n3\tu2\td\n4\tu2\tb\n",
       "order in the file"},
      {"quotes",
       "\"user\",\"item\",\"score\"\n\"u1\",\"c\",1\n\"u1\",\"a\",3\n\"u1\",\"d\",2\n\"u2\",\"d\",2\n\"u2\",\"b\",1\n",
       "score"},
      {"our own for other fields", "who\twhat\tscore\nu1\tc\t1\nu1\ta\t3\nu1\td\t2\nu2\td\t2\nu2\tb\t1\n", "score"},
      {"commas, no heading", "u1,c,1.5\nu1,a,3\nu1,d,2\nu2,d,2\nu2,b,1\n", "score"},
      {"MMRec", "id\ttop_0\ttop_1\ttop_2\nu1\ta\td\tc\nu2\td\tb\n", "order in the file"},
      {"MMRec, columns turned round", "id\ttop_2\ttop_1\ttop_0\nu1\tc\td\ta\nu2\t\tb\td\n", "order in the file"},
      {"a data frame", ",0,1,2\nu1,a,d,c\nu2,d,b,\n", "order in the file"},
      {"a data frame with row numbers", ",user_id,item_1,item_2,item_3\n0,u1,a,d,c\n1,u2,d,b,\n", "order in the file"},
      {"wide, no heading", "u1\ta\td\tc\nu2\td\tb\n", "order in the file"},
      {"ranks in JSON",
       "{\"user\":\"u1\",\"items\":[{\"item\":\"c\",\"rank\":3},{\"item\":\"a\",\"rank\":1},{\"item\":\"d\",\"rank\":2}"
       "]}\n"
       "{\"user\":\"u2\",\"items\":[{\"item\":\"b\",\"rank\":2},{\"item\":\"d\",\"rank\":1}]}\n",
       "rank"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    int64_t missing = -1;
    expect_by_hand(test_metrics(dir, c.text, &missing));
    const ForeignLists lists = read_recommendations(put(dir, c.text), small());
    EXPECT_EQ(lists.ranked_by, c.ranked_by);
    EXPECT_EQ(lists.rows, 5);
    EXPECT_TRUE(lists.warnings.empty());
  }
  const ForeignLists fields = read_recommendations(put(dir, "what\twho\nc\tu1\na\tu1\n"), small(), "who", "what");
  EXPECT_EQ(fields.of_user[0], (std::vector<int32_t>{2, 0}));
}

// With an id mapping MMRec's numbers are rows, and no raw ids.
TEST(Recommendations, WideListsOfRowNumbers) {
  const Folder dir;
  const ForeignLists rows = read_recommendations(put(dir, "id\ttop_0\ttop_1\n1\t3\t1\n0\t0\t5\n"), small());
  EXPECT_EQ(rows.of_user, (std::vector<std::vector<int32_t>>{{0, 5}, {3, 1}, {}}));
  EXPECT_NE(rows.warnings.at(0).find("row numbers"), std::string::npos);
  EXPECT_NE(sentence(dir, "id\ttop_0\ttop_1\n1\t3\t6\n").find("names no user"), std::string::npos)
      << "item 6 is none of six";
  Dataset dense = small();
  dense.users = IdMap::dense_of(3), dense.items = IdMap::dense_of(6);
  const ForeignLists plain = read_recommendations(put(dir, "1\t3\t1\t4\n0\t0\t5\t2\n"), dense);
  EXPECT_EQ(plain.of_user, (std::vector<std::vector<int32_t>>{{0, 5, 2}, {3, 1, 4}, {}}));
}

TEST(Recommendations, WhatIsAmbiguousIsRefused) {
  const Folder dir;
  struct Case {
    const char *name, *text, *expected;
  };
  const Case cases[] = {
      {"ranks", "u1\ta\t1\nu1\tb\t2\nu2\ta\t1\n",
       "may be a rank, or a score; write a heading line such as userID TAB itemID TAB rank"},
      {"ranks in no order", "u1,a,2\nu1,b,0\nu1,c,1\n",
       "may be a rank, or a score; write a heading line such as userID,itemID,rank"},
      {"ranks of a filtered list", "u1\ta\t1\nu1\tb\t4\nu2\tb\t2\nu2\ta\t3\n", "may be a rank"},
      {"two columns of scores", "user\titem\trating\tprediction\nu1\ta\t1\t2\n",
       "'rating' and 'prediction' are both columns of scores"},
      {"two columns of users", "user\tuser_id\titem\nu1\tu1\ta\n", "both columns of users"},
      {"a column that may be anything", "user\titem\tdistance\nu1\ta\t1\n",
       "column 'distance' may be a score, a rank or neither"},
      {"no users", "item\tscore\na\t1\n", "recs:1: no column of users among item, score"},
      {"no items", "user\tthing\tscore\nu1\ta\t1\n", "recs:1: no column of items"},
      {"an unknown heading", "Nutzer\tArtikel\nu1\ta\n", "'Nutzer' is no user and 'Artikel' no item"},
      {"four columns", "u1\ta\t0.5\t17\nu1\tb\t0.4\t17\n", "recs:1: 4 columns without a heading, and '0.5' is no item"},
      {"a user twice", "id\ttop_0\ttop_1\nu1\ta\tb\nu1\tc\td\n", "recs:3: user 'u1' has a list already"},
      {"a rank twice", "user\titem\trank\nu1\ta\t1\nu1\tb\t1\n", "recs:3: rank 1 stands twice"},
      {"no rank", "user\titem\trank\nu1\ta\t1\nu1\tb\t\n", "1 of 2 rows have a rank"},
      {"a rank that is none", "user\titem\trank\nu1\ta\tfirst\n", "recs:2: the rank 'first' is not a number"},
      {"a column too many", "user,item,score\nu1,a,1,5\n", "recs:2: has 4 columns and the heading 3"},
      {"a longer line", "u1\ta\nu1\tb\t1\t2\n", "recs:2: has 4 columns, but the first line 2"},
      {"an escape sequence", "u1\ta\t\x1b[31m\n", "the score '?[31m' is not"},
  };
  for (const Case& c : cases)
    EXPECT_NE(sentence(dir, c.text).find(c.expected), std::string::npos) << c.name << " -> " << sentence(dir, c.text);
  Dataset dense = small();
  dense.users = IdMap::dense_of(3), dense.items = IdMap::dense_of(6);
  try {
    read_recommendations(put(dir, "0\t5\t2\n1\t0\t3\n"), dense);
    ADD_FAILURE() << "may be lists of two items";
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("may be an item, or a score"), std::string::npos) << e.what();
  }
}

TEST(Recommendations, EqualScoresKeepTheOrderOfTheFile) {
  const Folder dir;
  const ForeignLists lists = read_recommendations(put(dir, "u1\tb\t1\nu1\ta\t1\nu1\tc\t2\n"), small());
  EXPECT_EQ(lists.of_user[0], (std::vector<int32_t>{2, 1, 0}));
}

TEST(Recommendations, UsersWithoutAListCountWithZeroAndUnknownItemsKeepTheirRank) {
  const Folder dir;
  int64_t missing = 0;
  const Metrics m = test_metrics(dir, "u1\tnew thing\nu1\ta\nstranger\ta\n", &missing);
  EXPECT_EQ(missing, 1);
  EXPECT_NEAR(m.at("recall@5"), (1.0 / 3) / 2, 1e-12);
  EXPECT_NEAR(m.at("map@2"), (0.5 / 2) / 2, 1e-12);
  const ForeignLists lists = read_recommendations(put(dir, "u1\tnew thing\nu1\ta\nu1\tf\nstranger\ta\n"), small());
  ASSERT_EQ(lists.warnings.size(), 3u);
  EXPECT_NE(lists.warnings[0].find("'stranger'"), std::string::npos);
  EXPECT_NE(lists.warnings[1].find("'new thing'"), std::string::npos);
  EXPECT_NE(lists.warnings[2].find("training items"), std::string::npos);
}

TEST(Recommendations, BadFilesNameTheLine) {
  const Folder dir;
  struct Case {
    const char *text, *expected;
  };
  const Case cases[] = {
      {"u1 a\n", "recs:1: expected `user TAB item"},
      {"u1\ta\t1\nu1\tb\tx\n", "recs:2: the score 'x'"},
      {"u1\ta\t1\nu1\tb\n", "1 of 2 rows have a score"},
      {"u1\ta\nu2\tb\nu1\ta\n", "recs:3: item 'a' stands twice"},
      {"x\ty\nz\tw\n", "'x' is no user and 'y' no item"},
      {"x\ty\t1\nz\tw\t2\n", "names no user of small; are the ids raw ids of this data set, such as 'u1'?"},
      {"", "names no user"},
      {"u1\ta\tnan\n", "not a number"},
      {"{\"user\": \"u1\"}\n", "recs:1: not a recommendation line"},
      {"{\"user\": [], \"items\": []}\n", "neither text"},
      {"{\"user\":\"u1\",\"items\":[{}]}\n", "no item"},
      {"{oops\n", "recs:1"},
      {"{\"user\":\"u1\",\"items\":[{\"item\":\"a\",\"score\":\"1\"}]}\n", "score is not a number"}};
  for (const Case& c : cases)
    EXPECT_NE(sentence(dir, c.text).find(c.expected), std::string::npos) << c.text << " -> " << sentence(dir, c.text);
  EXPECT_THROW(read_recommendations(dir / "absent", small()), UserError);
  EXPECT_THROW(read_recommendations(dir.path(), small()), UserError);
}

TEST(Recommendations, ModelListsMaskWhatTheMaskHoldsAndReadBack) {
  const Folder dir;
  const Dataset data = small();
  const std::vector<float> hu = {1, 0, 0, 1, -1, 0}, hi = {0.1f, 6, 5, 5, 4, 4, 3, 3, 2, 2, 9, 9};
  for (const int threads : {1, 3}) {
    Ctx ctx(threads);
    const HostCsr seen = pairs_by_user(data.train, 3, 6), none = pairs_by_user({}, 3, 6);
    std::vector<std::vector<int32_t>> lists;
    std::string tsv, json;
    const auto keep = [&](int32_t user, const int32_t* items, const float* scores, int64_t n) {
      lists.emplace_back(items, items + n);
      tsv += tsv_rows(data.users.raw(user), data.items, items, scores, n);
      json += json_row(data.users.raw(user), data.items, items, scores, n);
    };
    recommend(ctx, cpu_ops(), {hu.data(), 3, 2}, {hi.data(), 6, 2}, seen, {1, 0, 2}, 3, keep);
    // item 5 would lead the first two lists
    EXPECT_EQ(lists, (std::vector<std::vector<int32_t>>{{0, 1, 2}, {1, 2, 3}, {0, 4, 3}}));
    EXPECT_EQ(tsv.substr(0, tsv.find('\n')), "u2\ta\t6");
    EXPECT_NE(tsv.find("u3\ta\t-0.1\n"), std::string::npos);
    EXPECT_NE(json.find(R"({"item":"a","score":-0.1})"), std::string::npos) << json;
    for (const std::string& text : {tsv, json}) {
      const ForeignLists back = read_recommendations(put(dir, text), data);
      EXPECT_EQ(back.of_user, (std::vector<std::vector<int32_t>>{{1, 2, 3}, {0, 1, 2}, {0, 4, 3}}));
    }
    lists.clear();
    recommend(ctx, cpu_ops(), {hu.data(), 3, 2}, {hi.data(), 6, 2}, none, {1}, 1, keep);
    EXPECT_EQ(lists[0], (std::vector<int32_t>{5}));
    lists.clear();
    recommend(ctx, cpu_ops(), {hu.data(), 3, 2}, {hi.data(), 6, 2}, seen, {0}, 9, keep);  // longer than what is left
    EXPECT_EQ(lists[0].size(), 5u);
    lists.clear();
    recommend(ctx, cpu_ops(), {hu.data(), 3, 2}, {hi.data(), 6, 2}, seen, {}, 9, keep);
    EXPECT_TRUE(lists.empty());
  }
}

}  // namespace
}  // namespace ccdrec
