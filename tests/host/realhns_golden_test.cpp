// tests/golden/realhns_choice.safetensors: RealHNS by an independent program (bench/pytorch/golden_epoch.py). No two of
// its scores, and no cosine and threshold, are closer than float tells apart: every choice is the same in float.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "data/graph.h"
#include "host/base/safetensors.h"
#include "host/samplers/realhns.h"
#include "kernels/filtered.h"
#include "kernels/sample.h"
#include "tests/support.h"

namespace ccdrec::test {
namespace {

struct RealHnsGolden : ::testing::Test {
  const TensorFile file = read_safetensors(std::string(CCDREC_SOURCE_DIR) + "/tests/golden/realhns_choice.safetensors");
  const int64_t U = at("h.users").shape[0], I = at("h.items").shape[0], d = at("h.items").shape[1],
                N = at("places").shape[0];
  const std::vector<float> h_u = all<float>("h.users"), h_i = all<float>("h.items");
  const std::vector<int32_t> table = all<int32_t>("table");

  const TensorData& at(const std::string& name) const { return file.tensors.at(name); }
  template <class T>
  std::vector<T> all(const std::string& name) const {
    std::vector<T> v(at(name).bytes.size() / sizeof(T));
    std::memcpy(v.data(), at(name).bytes.data(), at(name).bytes.size());
    return v;
  }
  // The same candidates in another order: the table has them best first.
  std::vector<int32_t> reordered_table(uint32_t step) const {
    std::vector<int32_t> columns(size_t(N), 0), v;
    Ctx ctx(1);
    cpu::shuffle(ctx, columns.data(), N, Stream{1, Use::test, 0, step});
    for (int64_t u = 0; u < U; ++u)
      for (const int32_t c : columns) v.push_back(table[size_t(u * N + c)]);
    return v;
  }
};

TEST_F(RealHnsGolden, TheTableHoldsThePlacesOfEachUsersRanking) {
  const auto train = all<int32_t>("train.index"), places = all<int32_t>("places");
  const size_t nnz = train.size() / 2;
  const std::set<int32_t> distinct(train.begin() + int64_t(nnz), train.end());
  const std::vector<int32_t> occurring(distinct.begin(), distinct.end());
  const auto n_occurring = int64_t(occurring.size());
  ASSERT_LT(n_occurring, I) << "an item without a training row is no candidate";
  std::vector<float> rows;
  for (const int32_t i : occurring) rows.insert(rows.end(), h_i.begin() + i * d, h_i.begin() + (i + 1) * d);
  std::vector<Pair> pairs;  // by positions in `occurring`
  for (size_t e = 0; e < nnz; ++e) {
    const auto item = std::lower_bound(occurring.begin(), occurring.end(), train[nnz + e]);
    pairs.push_back({train[e], int32_t(item - occurring.begin())});
  }
  const HostCsr seen = pairs_by_user(pairs, int32_t(U), int32_t(n_occurring));
  std::vector<int32_t> users;
  for (int32_t u = 0; u < U; ++u) users.push_back(u);

  const int64_t listed = places.back() + 1;
  for (const Device& dev : fast_devices()) {
    DeviceCtx ctx(dev);
    std::vector<int32_t> lists(size_t(U * listed), -7), got(size_t(U * N), -7);
    std::vector<float> scores(size_t(U * listed));
    const Csr mask = seen.view();
    dev.ops->score_topk(ctx, lists.data(), scores.data(), cmat(h_u, U, d), users.data(), U, cmat(rows, n_occurring, d),
                        &mask, listed);
    dev.ops->pick_columns(ctx, got.data(), lists.data(), U, listed, places.data(), N, occurring.data());
    EXPECT_EQ(got, table) << dev.name;
  }
}

// Of the `top` best that are left, the one of the drawn rank; each comes up in so many steps.
TEST_F(RealHnsGolden, TheChoiceIsTheDrawnOneOfTheBestLeft) {
  constexpr uint32_t kSteps = 50;
  constexpr int64_t kFirstRow = 11;
  const auto users = all<int32_t>("batch.users"), positives = all<int32_t>("batch.positives");
  const auto otherwise = all<int32_t>("otherwise"), order = all<int32_t>("order");
  const auto ranks = all<int32_t>("ranks"), items = all<int32_t>("items");
  const auto thetas = all<float>("theta");
  const size_t B = users.size();
  const int64_t top = std::stoll(file.metadata.at("top"));
  for (const Device& dev : fast_devices())
    for (size_t k = 0; k < thetas.size(); ++k) {
      SCOPED_TRACE("theta " + std::to_string(thetas[k]) + " on " + dev.name);
      std::vector<std::vector<int32_t>> best(B);  // that may be drawn, by row
      for (size_t b = 0; b < B; ++b)
        for (int64_t rank = 0; rank < top; ++rank)
          if (const int32_t item = order[(k * B + b) * size_t(N) + size_t(rank)]; item >= 0) best[b].push_back(item);
      DeviceCtx ctx(dev);
      Cell<float> theta = thetas[k], q = 1;
      std::vector<int64_t> counts(2);
      std::vector<std::set<int32_t>> came_up(B);
      for (uint32_t step = 0; step < kSteps; ++step) {
        const auto candidates = reordered_table(step);
        FilterProblem p;
        p.h_u = cmat(h_u, U, d), p.h_i = cmat(h_i, I, d), p.users = users.data(), p.positives = positives.data();
        p.batch = int64_t(B), p.first_row = kFirstRow, p.table = candidates.data(), p.n_candidates = N, p.top = top;
        p.theta = &theta, p.q = &q;
        p.active = {5, Use::filter_active, 3, step}, p.rank = {5, Use::filter_rank, 3, step};
        std::vector<int32_t> out = otherwise;
        dev.ops->filtered_negative(ctx, out.data(), counts.data(), p);
        for (size_t b = 0; b < B; ++b) {
          const uint32_t x = draw(p.rank, uint32_t(kFirstRow) + uint32_t(b)).v[0];
          const uint32_t rank = best[b].empty() ? 0 : below(x, uint32_t(best[b].size()));
          EXPECT_EQ(out[b], best[b].empty() ? otherwise[b] : best[b][rank]) << "row " << b << ", step " << step;
          if (int32_t(rank) == ranks[k * B + b]) { EXPECT_EQ(out[b], items[k * B + b]) << "row " << b; }
          came_up[b].insert(out[b]);
        }
      }
      int64_t stayed = 0;  // rows of a step
      for (size_t b = 0; b < B; ++b) {
        stayed += best[b].empty();
        if (best[b].empty()) best[b] = {otherwise[b]};
        EXPECT_EQ(came_up[b], std::set<int32_t>(best[b].begin(), best[b].end())) << "row " << b;
      }
      EXPECT_EQ(counts, (std::vector<int64_t>{kSteps * int64_t(B), kSteps * stayed}));
    }
}

// The operation begins with the rows that a shuffle puts first: those are to be the file's initial ones.
TEST_F(RealHnsGolden, TheCohesionOfClustersAgrees) {
  const auto rows = all<float>("cluster.items");
  const auto initial = all<int32_t>("cluster.initial");
  const int64_t n = at("cluster.items").shape[0], width = at("cluster.items").shape[1];
  std::vector<int32_t> in_turn = initial;
  for (int32_t i = 0; i < n; ++i)
    if (std::find(initial.begin(), initial.end(), i) == initial.end()) in_turn.push_back(i);
  for (const uint32_t epoch : {0u, 1u, 2u}) {
    const Stream s{5, Use::centres, epoch};
    std::vector<int32_t> order(static_cast<size_t>(n));
    Ctx one(1);
    cpu::shuffle(one, order.data(), n, s);
    std::vector<float> h(rows.size());
    for (size_t k = 0; k < in_turn.size(); ++k)
      std::copy_n(rows.begin() + in_turn[k] * width, width, h.begin() + order[k] * width);
    for (const Device& dev : fast_devices()) {
      DeviceCtx ctx(dev);
      Cell<float> theta = -1.0f;
      dev.ops->cohesion(ctx, &theta, cmat(h, n, width), int(initial.size()), 1, s);
      EXPECT_NEAR(theta, all<double>("cohesion").at(0), 5e-7) << "epoch " << epoch << " on " << dev.name;
    }
  }
}

TEST_F(RealHnsGolden, SharesAndThresholdsOfTheEpochsAgree) {
  constexpr int kStart = 5;                            // of the file
  const auto epochs = all<int32_t>("schedule.epoch");  // from 1
  const auto share = all<double>("schedule.share"), threshold = all<double>("schedule.threshold");
  for (size_t e = 0; e < epochs.size(); ++e) {
    EXPECT_FLOAT_EQ(RealHns::active_share(epochs[e] - 1, kStart), float(share[e])) << "epoch " << epochs[e];
    EXPECT_FLOAT_EQ(RealHns::theta_share(epochs[e] - 1, kStart), float(threshold[e])) << "epoch " << epochs[e];
  }
}

}  // namespace
}  // namespace ccdrec::test
