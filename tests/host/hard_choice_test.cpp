// tests/golden/hard_choice.safetensors: what an independent program chooses as hard negatives, and its shares of
// popularity (bench/pytorch/golden_hard.py). Its scores are exact in float and double: equal scores are equal in both.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "host/base/safetensors.h"
#include "kernels/hard.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

struct HardChoice : ::testing::Test {
  TensorFile file = read_safetensors(std::string(CCDREC_SOURCE_DIR) + "/tests/golden/hard_choice.safetensors");
  const int64_t B = at("choice.h.users").shape[0], d = at("choice.h.users").shape[1], I = at("choice.layers").shape[1],
                L1 = at("choice.layers").shape[0];
  std::vector<std::vector<int32_t>> has;  // by user

  HardChoice() : has(size_t(at("popularity.share").shape[0])) {
    const TensorData& pairs = at("train.index");
    for (int64_t e = 0; e < pairs.shape[1]; ++e) has[size_t(pairs.i32()[e])].push_back(pairs.i32()[pairs.shape[1] + e]);
  }
  const TensorData& at(const std::string& name) const { return file.tensors.at(name); }
  LayerTables tables(const std::string& name) const {
    const TensorData& t = at(name);
    LayerTables v;
    v.n = int(t.shape[0]);
    for (int l = 0; l < v.n; ++l) v.layer[l] = {t.f32() + l * I * d, I, d};
    return v;
  }
  double score(const LayerTables& v, int l, int64_t b, int32_t i) const {
    double sum = 0;
    for (int64_t j = 0; j < d; ++j) sum += double(at("choice.h.users").f32()[b * d + j]) * double(v.layer[l].row(i)[j]);
    return sum;
  }
  // Of so many draws that each of `items` is among them; a row stands for its user, who has the items `owned`.
  std::vector<int32_t> chosen(const Device& dev, const LayerTables& v, int64_t b, const std::vector<int32_t>& items,
                              const std::vector<int32_t>& owned) const {
    DeviceCtx ctx(dev);
    const std::vector<int64_t> row_ptr = {0, int64_t(owned.size())};
    const std::vector<int32_t> user = {0};
    const std::vector<float> h_u(at("choice.h.users").f32() + b * d, at("choice.h.users").f32() + (b + 1) * d);
    std::vector<float> floats;  // the tables in memory that a device reaches
    for (int l = 0; l < v.n; ++l) floats.insert(floats.end(), v.layer[l].p, v.layer[l].p + I * d);
    LayerTables here = v;
    for (int l = 0; l < v.n; ++l) here.layer[l].p = floats.data() + l * I * d;
    std::vector<int32_t> out(size_t(v.n), -1);
    dev.ops->hardest_negative(ctx, out.data(), cmat(h_u, 1, d), user.data(), 1, b, here,
                              {1, I, row_ptr.data(), owned.data(), nullptr}, items.data(), int64_t(items.size()), 512,
                              1, Stream{1, Use::hard}, Stream{1, Use::hard_rank});
    return out;
  }
};

TEST_F(HardChoice, OfTheGivenCandidatesIsTheWinner) {
  for (const std::string of : {"choice", "pooled"}) {
    const LayerTables v = tables(of == "choice" ? "choice.layers" : "pooled.table");
    const int64_t N = at("choice.candidates").shape[1];
    for (const Device& dev : fast_devices())
      for (int64_t b = 0; b < B; ++b) {
        const std::vector<int32_t> given(at("choice.candidates").i32() + b * N,
                                         at("choice.candidates").i32() + (b + 1) * N);
        const auto got = chosen(dev, v, b, given, {});
        for (int l = 0; l < v.n; ++l) {
          const int32_t want = at(of + ".items").i32()[l * B + b];
          EXPECT_NE(std::find(given.begin(), given.end(), got[size_t(l)]), given.end());
          EXPECT_EQ(score(v, l, b, got[size_t(l)]), score(v, l, b, want))
              << of << ", row " << b << ", table " << l << " on " << dev.name;
        }
      }
  }
}

TEST_F(HardChoice, OfAllAdmissibleItemsIsTheBest) {
  const LayerTables v = tables("choice.layers");
  std::set<int32_t> occurring;
  for (const auto& row : has) occurring.insert(row.begin(), row.end());
  for (const Device& dev : fast_devices())
    for (int64_t b = 0; b < B; ++b) {
      const auto got = chosen(dev, v, b, {occurring.begin(), occurring.end()}, has[size_t(at("batch.users").i32()[b])]);
      for (int l = 0; l < v.n; ++l) {
        const int64_t row = (l * B + b) * I;
        std::set<int32_t> best;  // those that score as the first does
        for (int64_t k = 0; k < I && at("all.order").i32()[row + k] >= 0; ++k)
          if (at("all.score").f32()[row + k] == at("all.score").f32()[row]) best.insert(at("all.order").i32()[row + k]);
        EXPECT_EQ(best.count(got[size_t(l)]), 1u)
            << "row " << b << ", table " << l << ": " << got[size_t(l)] << " on " << dev.name;
      }
    }
}

TEST_F(HardChoice, SharesOfPopularityAgree) {
  std::vector<int32_t> items(static_cast<size_t>(I));
  std::iota(items.begin(), items.end(), 0);
  const std::vector<int64_t> counts(at("popularity.count").i32(), at("popularity.count").i32() + I);
  const auto columns = popular_columns(items, counts, std::stod(file.metadata.at("power")));
  for (size_t u = 0; u < has.size(); ++u) {
    std::vector<double> share(static_cast<size_t>(I));
    double sum = 0;
    for (const PopularColumn& c : columns)
      if (!std::binary_search(has[u].begin(), has[u].end(), c.item)) sum += share[size_t(c.item)] = double(c.share);
    for (int64_t i = 0; i < I; ++i) {
      double want;
      std::memcpy(&want, at("popularity.share").bytes.data() + (int64_t(u) * I + i) * 8, sizeof want);
      EXPECT_NEAR(share[size_t(i)] / sum, want, 1e-6) << "user " << u << ", item " << i;
    }
  }
}

}  // namespace
}  // namespace ccdrec::test
