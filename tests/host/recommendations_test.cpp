// Lists in and out: another program's lists against metrics worked out by hand, our lists read back, seen items masked.
#include "host/recommendations.h"

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

// u1: hits at ranks 1 and 3 of 3 held-out items; u2: its only item at rank 2. By hand (the first user is the worked example of the protocol):
//   Recall@5 (2/3 + 1)/2   Precision@5 (2/5 + 1/5)/2   NDCG@5 (0.70392 + 1/log2(3))/2   MAP@5 (0.55556 + 0.5)/2   MAP@2 (1/2 + 1/2)/2
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
      "{\"user\":\"u1\",\"items\":[{\"item\":\"a\",\"score\":3},{\"item\":\"d\",\"score\":2},{\"item\":\"c\",\"score\":1}]}\n"
      "{\"user\":\"u2\",\"items\":[{\"item\":\"b\",\"score\":-2},{\"item\":\"d\",\"score\":-1}]}\n";
  const std::string plain_json = "{\"user\":\"u1\",\"items\":[\"a\",\"d\",\"c\"]}\n{\"user\":\"u2\",\"items\":[\"d\",\"b\"]}\n";
  for (const std::string& text : {by_order, by_score, windows, json, plain_json}) {
    SCOPED_TRACE(text);
    int64_t missing = -1;
    expect_by_hand(test_metrics(dir, text, &missing));
    EXPECT_EQ(missing, 0);
  }
  EXPECT_TRUE(read_recommendations(put(dir, by_score), small()).by_score);
  EXPECT_FALSE(read_recommendations(put(dir, by_order), small()).by_score);
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
  const Case cases[] = {{"u1 a\n", "recs:1: expected `user TAB item"},
                        {"u1\ta\t1\nu1\tb\tx\n", "recs:2: the score 'x'"},
                        {"u1\ta\t1\nu1\tb\n", "1 of 2 rows have a score"},
                        {"u1\ta\nu2\tb\nu1\ta\n", "recs:3: item 'a' stands twice"},
                        {"x\ty\nz\tw\n", "names no user"},
                        {"", "names no user"},
                        {"u1\ta\tnan\n", "not a number"},
                        {"{\"user\": \"u1\"}\n", "recs:1: not a recommendation line"},
                        {"{\"user\": [], \"items\": []}\n", "neither text"},
                        {"{\"user\":\"u1\",\"items\":[{}]}\n", "no item"},
                        {"{oops\n", "recs:1"},
                        {"{\"user\":\"u1\",\"items\":[{\"item\":\"a\",\"score\":\"1\"}]}\n", "score is not a number"}};
  for (const Case& c : cases) EXPECT_NE(sentence(dir, c.text).find(c.expected), std::string::npos) << c.text << " -> " << sentence(dir, c.text);
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
    EXPECT_EQ(lists, (std::vector<std::vector<int32_t>>{{0, 1, 2}, {1, 2, 3}, {0, 4, 3}}));  // item 5 would lead the first two lists
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
