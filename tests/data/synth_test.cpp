#include "data/synth.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "data/dataset.h"
#include "data/graph.h"
#include "tests/data/folder.h"
#include "tests/support.h"

namespace ccdrec::test::synth_test {
namespace {

struct World {
  Dataset d;
  HostCsr by_item;                    // all splits: the users of each item
  std::vector<int64_t> users, items;  // degrees
};

World make(const Folder& dir, const SynthParams& p) {
  write_synth(dir.path(), p);
  LoadOptions o;
  o.need_features = !p.modalities.empty();
  World w{load_dataset(dir.path(), o), {}, {}, {}};
  std::vector<Pair> all = w.d.train;
  all.insert(all.end(), w.d.valid.begin(), w.d.valid.end());
  all.insert(all.end(), w.d.test.begin(), w.d.test.end());
  const HostCsr by_user = pairs_by_user(all, w.d.n_users, w.d.n_items);
  w.by_item = transpose(by_user);
  const auto degrees = [](const HostCsr& a) {
    std::vector<int64_t> n;
    for (int64_t r = 0; r < a.rows; ++r) n.push_back(a.row_ptr[size_t(r) + 1] - a.row_ptr[size_t(r)]);
    return n;
  };
  w.users = degrees(by_user), w.items = degrees(w.by_item);
  EXPECT_EQ(by_user.nnz(), int64_t(all.size())) << "a pair twice";
  return w;
}

int64_t quantile(std::vector<int64_t> v, double q) {
  std::sort(v.begin(), v.end());
  return v[size_t(q * double(v.size() - 1))];
}
double gini(std::vector<int64_t> v) {
  std::sort(v.begin(), v.end());
  double g = 0, s = 0;
  for (size_t i = 0; i < v.size(); ++i)
    g += double(v[i]) * (2.0 * double(i + 1) - double(v.size()) - 1), s += double(v[i]);
  return g / (s * double(v.size()));
}

bool co_consumed(const World& w, int64_t i, int64_t j) {
  int64_t a = w.by_item.row_ptr[size_t(i)], b = w.by_item.row_ptr[size_t(j)];
  const int64_t a_end = w.by_item.row_ptr[size_t(i) + 1], b_end = w.by_item.row_ptr[size_t(j) + 1];
  while (a < a_end && b < b_end) {
    const int32_t x = w.by_item.col[size_t(a)], y = w.by_item.col[size_t(b)];
    if (x == y) return true;
    (x < y ? a : b)++;
  }
  return false;
}

// Ten nearest of each of `sample` items by centred cosine.
std::map<int64_t, std::vector<int64_t>> neighbours(const Feature& f, Draw& g, int sample) {
  const int64_t I = f.matrix.rows(), F = f.matrix.cols();
  std::vector<float> x(size_t(I * F));
  f.matrix.read_rows(x.data(), 0, I);
  std::vector<float> mean(size_t(F), 0.0f);
  for (int64_t e = 0; e < I * F; ++e) mean[size_t(e % F)] += x[size_t(e)] / float(I);
  for (int64_t i = 0; i < I; ++i) {
    float n = 0;
    for (int64_t j = 0; j < F; ++j)
      x[size_t(i * F + j)] -= mean[size_t(j)], n += x[size_t(i * F + j)] * x[size_t(i * F + j)];
    for (int64_t j = 0; j < F; ++j) x[size_t(i * F + j)] /= std::sqrt(n);
  }
  std::map<int64_t, std::vector<int64_t>> out;
  std::vector<std::pair<float, int64_t>> order(size_t(I), {0.0f, 0});
  for (int s = 0; s < sample; ++s) {
    const int64_t i = g.below(int32_t(I));
    for (int64_t j = 0; j < I; ++j)
      order[size_t(j)] = {
          i == j ? 9.0f : -std::inner_product(&x[size_t(i * F)], &x[size_t(i * F)] + F, &x[size_t(j * F)], 0.0f), j};
    std::partial_sort(order.begin(), order.begin() + 10, order.end());
    for (int k = 0; k < 10; ++k) out[i].push_back(order[size_t(k)].second);
  }
  return out;
}

// How much more often are feature neighbours taken by one user than random pairs?
double lift(const World& w, const Feature& f) {
  Draw g;
  double near = 0, pairs = 0, random = 0;
  for (const auto& [i, list] : neighbours(f, g, 300))
    for (int64_t j : list) near += co_consumed(w, i, j), ++pairs;
  const int rounds = 60000;
  for (int r = 0; r < rounds; ++r) {
    const int32_t i = g.below(int32_t(w.d.n_items)), j = g.below(int32_t(w.d.n_items));
    random += i != j && co_consumed(w, i, j);
  }
  return near / pairs / (random / rounds);
}

TEST(Synth, CountsAndSplitsAreExact) {
  for (const char* name : {"tiny", "demo"}) {
    SCOPED_TRACE(name);
    const Folder dir;
    const SynthParams p = synth_preset(name);
    const World w = make(dir, p);
    std::vector<std::string> files{p.name + ".inter", "image_feat.npy", "text_feat.npy"};
    std::sort(files.begin(), files.end());
    EXPECT_EQ(dir.names(), files);
    EXPECT_EQ(w.d.n_users, p.users);
    EXPECT_EQ(w.d.n_items, p.items);
    EXPECT_EQ(int64_t(w.d.train.size() + w.d.valid.size() + w.d.test.size()), p.interactions);
    EXPECT_TRUE(w.d.warnings.empty()) << w.d.warnings[0];
    std::vector<int64_t> valid(size_t(p.users), 0), test(size_t(p.users), 0);
    for (const Pair& e : w.d.valid) ++valid[size_t(e.user)];
    for (const Pair& e : w.d.test) ++test[size_t(e.user)];
    for (size_t u = 0; u < size_t(p.users); ++u) {
      const int64_t n = w.users[u], held = n < 10 ? 2 : n / 5;
      ASSERT_GE(n, 5);
      ASSERT_EQ(valid[u], held / 2) << "user " << u << " with " << n;
      ASSERT_EQ(test[u], held - held / 2) << "user " << u << " with " << n;
    }
    EXPECT_GE(*std::min_element(w.items.begin(), w.items.end()), 1);
    EXPECT_LE(std::count_if(w.items.begin(), w.items.end(), [](int64_t n) { return n < 5; }), 3);
    ASSERT_EQ(w.d.features.size(), 2u);
    EXPECT_EQ(w.d.features[0].matrix.cols(), p.modalities[0].width);
  }
}

TEST(Synth, OneSeedOneDataSet) {
  const Folder dir;
  SynthParams p = synth_preset("tiny");
  p.items = 5000, p.interactions = 30000, p.users = 3000;  // beyond kRaceAll: pools
  p.modalities[0].width = 9;                               // no multiple of four
  std::vector<std::string> first;
  for (int threads : {1, 3}) {
    omp_set_num_threads(threads);
    write_synth(dir / "a", p);
    std::vector<std::string> files;
    for (const char* f : {"a/tiny.inter", "a/image_feat.npy", "a/text_feat.npy"}) files.push_back(dir.read(f));
    if (threads == 1) first = files;
    EXPECT_TRUE(files == first);
  }
  omp_set_num_threads(omp_get_num_procs());
  p.seed += 1;
  write_synth(dir / "b", p);
  EXPECT_NE(dir.read("b/tiny.inter"), first[0]);
  EXPECT_NE(dir.read("b/text_feat.npy"), first[2]);
}

TEST(SlowSynth, BabyHasTheMeasuredTails) {
  const Folder dir;
  SynthParams p = synth_preset("baby");
  p.modalities = {{"text", 96, p.modalities[1].signal, false}};
  const World w = make(dir, p);
  EXPECT_EQ(int64_t(w.d.train.size() + w.d.valid.size() + w.d.test.size()), 160792);
  // measured: users 5 5 6 9 17 31, items 5 7 11 23 78 184 at 5, 25, 50, 75, 95, 99 %
  struct Want {
    double q;
    int64_t user, item;
  };
  for (const Want& q :
       {Want{.05, 5, 5}, Want{.25, 5, 7}, Want{.5, 6, 11}, Want{.75, 9, 23}, Want{.95, 17, 78}, Want{.99, 31, 184}}) {
    EXPECT_NEAR(double(quantile(w.users, q.q)), double(q.user), 0.1 * double(q.user) + 0.5) << q.q;
    EXPECT_NEAR(double(quantile(w.items, q.q)), double(q.item), 0.1 * double(q.item) + 0.5) << q.q;
  }
  EXPECT_NEAR(gini(w.users), .263, .03);
  EXPECT_NEAR(gini(w.items), .549, .03);
  const double near = lift(w, w.d.features[0]);
  EXPECT_GT(near, 4);
  EXPECT_LT(near, 16);

  // Popularity cannot be read off the neighbours: R^2 of log degree on the neighbours' mean log degree.
  Draw g;
  double n = 0, sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
  for (const auto& [i, list] : neighbours(w.d.features[0], g, 500)) {
    double x = 0;
    for (int64_t j : list) x += std::log(double(w.items[size_t(j)])) / 10;
    const double y = std::log(double(w.items[size_t(i)]));
    ++n, sx += x, sy += y, sxx += x * x, syy += y * y, sxy += x * y;
  }
  const double cov = sxy / n - sx / n * sy / n;
  EXPECT_LT(cov * cov / ((sxx / n - sx / n * sx / n) * (syy / n - sy / n * sy / n)), .05);
}

TEST(Synth, FeaturesCarryTasteOnlyWhereUsersFollowIt) {
  const Folder with, without;
  SynthParams p = synth_preset("demo");
  const World w = make(with, p);
  for (const Feature& f : w.d.features) EXPECT_GT(lift(w, f), 2.5) << f.name;  // random pairs: 13 %, so 7.6 at most
  p.taste_strength = 0;
  const World random = make(without, p);
  for (const Feature& f : random.d.features) EXPECT_NEAR(lift(random, f), 1.0, .25) << f.name;

  const NpyMatrix& image = w.d.features[0].matrix;
  std::vector<float> x(size_t(image.rows() * image.cols()));
  image.read_rows(x.data(), 0, image.rows());
  double energy = 0, common = 0;
  for (int64_t j = 0; j < image.cols(); ++j) {
    double mean = 0;
    for (int64_t i = 0; i < image.rows(); ++i) {
      const double v = double(x[size_t(i * image.cols() + j)]);
      ASSERT_GE(v, 0);
      energy += v * v, mean += v / double(image.rows());
    }
    common += mean * mean * double(image.rows());
  }
  EXPECT_NEAR(common / energy, .85, .04);
}

TEST(Synth, OddSizesStillComeOutExactly) {
  struct Case {
    int64_t users, items, interactions, least;
  };
  for (const Case& c : {Case{4, 6, 12, 3}, Case{2, 9, 10, 5}, Case{50, 20, 300, 5}, Case{3, 500, 500, 5},
                        Case{300, 5000, 5200, 5}, Case{40, 30, 400, 10}}) {
    SCOPED_TRACE(testing::Message() << c.users << " users, " << c.items << " items, " << c.interactions);
    SynthParams p = synth_preset("tiny");
    p.users = c.users, p.items = c.items, p.interactions = c.interactions, p.min_per_user = c.least;
    p.modalities.clear();
    const Folder dir;
    const World w = make(dir, p);
    EXPECT_EQ(w.d.n_users, c.users);
    EXPECT_LE(w.d.n_items, c.items);
    EXPECT_EQ(std::accumulate(w.users.begin(), w.users.end(), int64_t(0)), c.interactions);
    EXPECT_GE(*std::min_element(w.users.begin(), w.users.end()), c.least);
  }
}

TEST(Synth, RefusalsLeaveNothingBehind) {
  EXPECT_EQ(synth_presets(), (std::vector<std::string>{"tiny", "demo", "baby", "sports", "clothing", "elec"}));
  EXPECT_TRUE(
      says(refusal([] { synth_preset("clothnig"); }), {"'clothnig'", "did you mean clothing?", "tiny, demo, baby"}));
  EXPECT_EQ(refusal([] { synth_preset("shoes"); }),
            "'shoes' is no preset of the generator (presets: tiny, demo, baby, sports, clothing, elec)");
  EXPECT_EQ(synth_preset("elec").interactions, 1689188);
  const Folder dir;
  const SynthParams good = synth_preset("tiny");
  struct Case {
    const char* says;
    void (*spoil)(SynthParams&);
  };
  const Case cases[] = {
      {"interactions is 999, expected 1000 to 12000 with 200 users (of 5 to 60 items each) and 120 items, or at most "
       "199 users",
       [](SynthParams& p) { p.interactions = 999; }},
      {"expected 1000 to 12000 with 200 users (of 5 to 60 items each) and 120 items, or at least 1666667 users",
       [](SynthParams& p) { p.interactions = 100000000; }},
      {"interactions is 4294967297", [](SynthParams& p) { p.interactions = 4294967297; }},
      {"items is 4, expected 5 to", [](SynthParams& p) { p.items = 4; }},
      {"users is 2000000000, expected 1 to 429496729", [](SynthParams& p) { p.users = 2000000000; }},
      {"2 users of at most 60 items each cannot own all of 121 items; expected at least 3 users",
       [](SynthParams& p) { p.users = 2, p.items = 121; }},
      {"min_per_user", [](SynthParams& p) { p.min_per_user = 2; }},
      {"users is 0, expected 1 to", [](SynthParams& p) { p.users = 0; }},
      {"expected 2001 to 200000 with 200 users", [](SynthParams& p) { p.items = 2001; }},
      {"taste_dims", [](SynthParams& p) { p.taste_dims = 1; }},
      {"taste_strength", [](SynthParams& p) { p.taste_strength = NAN; }},
      {"item_log_sd", [](SynthParams& p) { p.item_log_sd = -1; }},
      {"width 0", [](SynthParams& p) { p.modalities[0].width = 0; }},
      {"signal 2", [](SynthParams& p) { p.modalities[0].signal = 2; }},
      {"no file name", [](SynthParams& p) { p.name = "../x"; }},
      {"no file name", [](SynthParams& p) { p.modalities[1].name = ""; }},
  };
  for (const Case& c : cases) {
    SynthParams p = good;
    c.spoil(p);
    EXPECT_TRUE(says(refusal([&] { write_synth(dir / "new", p); }), {"synth: ", c.says}));
  }
  EXPECT_TRUE(dir.names().empty());
  dir.write("file", "x");
  EXPECT_TRUE(says(refusal([&] { write_synth(dir / "file/sub", good); }), {"cannot be created"}));
  std::filesystem::create_directories(dir / "taken/text_feat.npy");
  EXPECT_TRUE(says(refusal([&] { write_synth(dir / "taken", good); }), {"text_feat.npy", "cannot be put in place"}));
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"file", "taken"}));
  for (const auto& e : std::filesystem::directory_iterator(dir / "taken"))
    EXPECT_EQ(e.path().filename(), "text_feat.npy");
}

// Whatever sizes are asked for: they are written as they are, or the sentence names a range that is then written.
TEST(Synth, SizesFitOrTheSentenceSaysWhatDoes) {
  const Folder dir;
  SynthParams p = synth_preset("tiny");
  p.modalities.clear();
  int fit = 0, refused = 0;
  for (const int64_t users : {1, 2, 3, 5})
    for (const int64_t items : {4, 5, 6, 9, 10, 11, 20})
      for (const int64_t interactions : {1, 5, 11, 24, 25, 26, 50, 1000}) {
        p.users = users, p.items = items, p.interactions = interactions;
        SCOPED_TRACE(fmt::format("{} users, {} items, {} interactions", users, items, interactions));
        std::string said;
        try {
          write_synth(dir.path(), p);
        } catch (const UserError& e) { said = e.what(); }
        ++(said.empty() ? fit : refused);
        const size_t at = said.find("interactions is ");
        if (at != std::string::npos) {
          long long least = 0, most = 0;
          ASSERT_EQ(std::sscanf(said.c_str() + said.find("expected"), "expected %lld to %lld", &least, &most), 2)
              << said;
          ASSERT_LE(least, most) << said;
          for (const long long n : {least, most}) {
            p.interactions = n;
            EXPECT_NO_THROW(write_synth(dir.path(), p)) << said;
          }
        } else if (!said.empty()) {
          EXPECT_TRUE(said.find("items is 4") != std::string::npos || said.find("cannot own all") != std::string::npos)
              << said;
        }
      }
  EXPECT_GE(fit, 12);
  EXPECT_GT(refused, 20);
}

TEST(Synth, StoppedAnywhereItLeavesNothingBehind) {
  const Folder dir;
  const SynthParams p = synth_preset("tiny");
  int asked = 0;
  write_synth(dir / "whole", p, [&] { return ++asked, false; });
  ASSERT_GT(asked, 200);  // once a user, and in the features
  for (const int at : {1, 100, asked}) {
    int n = 0;
    EXPECT_THROW(write_synth(dir / "deep/new", p, [&] { return ++n == at; }), SynthStopped) << at;
    EXPECT_EQ(dir.names(), (std::vector<std::string>{"whole"})) << at;
    EXPECT_THROW(write_synth(dir / "whole", p, [&] { return n++ >= at; }), SynthStopped);
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "whole"), {}), 3)
      << "a folder that was there stays as it was";
}

}  // namespace
}  // namespace ccdrec::test::synth_test
