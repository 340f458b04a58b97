#include "kernels/cpu/fast/microkernel.h"
#include "kernels/sample.h"
#include "tests/kernels/chi_square.h"
#include "tests/kernels/graphs.h"

namespace ccdrec::test::similar_negative_test {
namespace {

struct Problem {  // one call: pool (I,d), B rows, C sorted candidates, the users' training rows
  int64_t I, d, k_top;
  std::vector<float> pool;
  std::vector<int32_t> positives, users, cand, fallback;
  TestCsr train;
  bool cosine = false;

  std::vector<int32_t> run(const Device& dev, Stream s, int32_t* nan_flag, const Late* late = nullptr) const {
    DeviceCtx ctx(dev);
    if (late) dev.ops->set_late(ctx, *late);
    std::vector<int32_t> out(positives.size(), -1);
    dev.ops->similar_negative(ctx, out.data(), nan_flag, cmat(pool, I, d), positives.data(), users.data(),
                              int64_t(users.size()), cand.data(), int64_t(cand.size()), train.view(), k_top, cosine,
                              fallback.data(), s);
    return out;
  }

  // Positions of the row's admissible candidates, best first: one fma chain per similarity, so that ties and order are
  // the contract's own.
  std::vector<int64_t> ranked(size_t b) const {
    std::vector<std::pair<float, int64_t>> order;
    const auto first = train.col.begin() + train.row_ptr[size_t(users[b])],
               last = train.col.begin() + train.row_ptr[size_t(users[b]) + 1];
    for (size_t c = 0; c < cand.size(); ++c) {
      if (std::binary_search(first, last, cand[c])) continue;
      float sim = 0, norm = 0;
      for (int64_t j = 0; j < d; ++j) {
        const float x = pool[size_t(cand[c] * d + j)];
        sim = std::fma(pool[size_t(positives[b] * d + j)], x, sim), norm = std::fma(x, x, norm);
      }
      if (cosine) sim *= 1.0f / std::max(std::sqrt(norm), 1e-12f);
      order.emplace_back(-sim, int64_t(c));
    }
    std::sort(order.begin(), order.end());
    std::vector<int64_t> position;
    for (const auto& [sim, c] : order) position.push_back(c);
    return position;
  }
  int32_t want(size_t b, Stream s) const {
    const auto order = ranked(b);
    if (order.empty()) return fallback[b];
    const int64_t most = std::min(k_top, int64_t(order.size()));
    return cand[size_t(order[size_t(int64_t((uint64_t(draw(s, uint32_t(b)).v[0]) * uint64_t(most)) >> 32))])];
  }
};

Problem random_problem(Draw& g, int64_t I, int64_t d, int64_t U, int64_t longest, int64_t B, int64_t C, int64_t k_top) {
  Problem p{I, d, k_top, g.floats(I * d), {}, {}, {}, {}, skewed_csr(g, U, I, longest)};
  for (int64_t b = 0; b < B; ++b) {
    p.positives.push_back(g.below(int32_t(I))), p.users.push_back(g.below(int32_t(U)));
    p.fallback.push_back(1000000 + int32_t(b));
  }
  for (int64_t c = 0; c < C; ++c) p.cand.push_back(g.below(int32_t(I)));
  std::sort(p.cand.begin(), p.cand.end());
  return p;
}

void expect_wanted(const Problem& p, Stream s, const std::string& name, const std::vector<Device>& on) {
  std::vector<int32_t> want;
  for (size_t b = 0; b < p.users.size(); ++b) want.push_back(p.want(b, s));
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    if (!cpu::find_kernel(isa)) continue;
    cpu::set_micro_kernel(cpu::find_kernel(isa));
    for (const Device& dev : isa == std::string("portable") ? on : cpu_devices()) {
      SCOPED_TRACE(name + (p.cosine ? ", cosine" : ", dot") + " on " + dev.name + " with " + isa);
      Cell<int32_t> nan_flag = 0;
      EXPECT_EQ(p.run(dev, s, &nan_flag), want);
      EXPECT_EQ(nan_flag, 0);
    }
  }
  cpu::set_micro_kernel(nullptr);
}

struct Case {
  const char* name;
  int64_t I, d, U, longest, B, C, k_top;
};
const Case kCases[] = {{"no rows", 20, 64, 3, 5, 0, 4, 2},
                       {"one of each", 9, 64, 1, 0, 1, 1, 1},
                       {"kappa edge, one candidate", 50, 64, 5, 30, 13, 1, 1},
                       {"odd width", 80, 37, 9, 20, 17, 40, 6},
                       {"narrow", 60, 1, 9, 20, 25, 33, 33},
                       {"k beyond C", 60, 64, 9, 50, 30, 16, 1000},
                       {"many duplicates", 12, 64, 9, 8, 50, 300, 40},
                       {"few admissible", 40, 64, 6, 39, 40, 60, 30},
                       {"a row short of a block of the GPU", 600, 15, 9, 60, 7, 511, 40},
                       {"a block", 600, 16, 9, 60, 8, 512, 40},
                       {"a row beyond", 600, 33, 9, 60, 9, 513, 513},
                       {"a batch", 7050, 64, 50, 200, 512, 705, 70}};

// More candidates than the GPU keeps in shared memory: there a sample brackets the rank first.
const Case kLargeCases[] = {{"the last that is not sampled", 5000, 4, 9, 500, 3, 4096, 400},
                            {"one more", 5000, 4, 9, 500, 3, 4097, 400},
                            {"two tiles of rows", 6000, 20, 20, 300, 66, 5000, 500},
                            {"k beyond C", 6000, 17, 9, 5999, 17, 4500, 1000000},
                            {"the best only", 6000, 8, 9, 900, 9, 4900, 1},
                            {"many copies", 40, 5, 9, 38, 20, 4700, 900},
                            {"the last that a small chip keeps", 1200, 4, 9, 100, 9, 992, 90},
                            {"one more than a small chip keeps", 1200, 4, 9, 100, 9, 993, 90}};

TEST(SimilarNegative, PicksTheDrawnRank) {
  for (const Case& c : kCases)
    for (bool cosine : {false, true}) {
      Draw g;
      Problem p = random_problem(g, c.I, c.d, c.U, c.longest, c.B, c.C, c.k_top);
      p.cosine = cosine;
      expect_wanted(p, Stream{7, Use::cns_rank, 3, 9}, c.name, devices());
    }
}

TEST(SimilarNegative, PicksTheDrawnRankAmongThousands) {
  for (const Case& c : kLargeCases) {
    Draw g;
    Problem p = random_problem(g, c.I, c.d, c.U, c.longest, c.B, c.C, c.k_top);
    p.cosine = c.d % 2;
    expect_wanted(p, Stream{7, Use::cns_rank, 3, 9}, c.name, c.B > 20 ? fast_devices() : devices());
  }
}

TEST(SimilarNegative, PicksTheDrawnRankAmongAHundredThousand) {
  Draw g;
  for (const int64_t k_top : {10000, 100000}) {
    const Problem p = random_problem(g, 100000, 1, 5, 900, 2, 100000, k_top);
    expect_wanted(p, Stream{7, Use::cns_rank, 3, 9}, "k " + std::to_string(k_top), fast_devices());
  }
}

// What a sample of the candidates says is wrong in every row here: periods of four (and of five) between two widely
// different similarities.
TEST(SimilarNegative, ASampleMayMislead) {
  for (int phase = 0; phase < 5; ++phase) {
    Draw g;
    Problem p = random_problem(g, 4800, 3, 5, 300, 9, 4800, phase % 2 ? 4000 : 1000);
    for (int64_t i = 0; i < p.I; ++i) {
      p.cand[size_t(i)] = int32_t(i);
      if (i % 4 == phase || (phase == 4 && i % 5)) p.pool[size_t(3 * i)] += 100;
    }
    for (size_t b = 0; b < p.positives.size(); ++b) p.positives[b] = int32_t(phase + 4 * int(b));
    p.cosine = phase == 1;
    expect_wanted(p, Stream{5, Use::cns_rank, 0, uint32_t(phase)}, "phase " + std::to_string(phase), devices());
  }
}

TEST(SimilarNegative, AllEqualAmongThousands) {
  Draw g;
  Problem p = random_problem(g, 5000, 4, 5, 4990, 10, 4600, 3000);
  std::fill(p.pool.begin(), p.pool.end(), 0.5f);
  expect_wanted(p, Stream{5, Use::cns_rank}, "all equal", devices());
  for (int64_t i = 0; i < p.I; ++i) p.pool[size_t(4 * i)] = i % 3 ? INFINITY : -INFINITY;
  expect_wanted(p, Stream{5, Use::cns_rank}, "two values", fast_devices());
}

// Recorded steps name epoch and step by stand-ins.
TEST(SimilarNegative, LateEpochAndStep) {
  for (int64_t C : {60, 4200}) {
    Draw g;
    const Problem p = random_problem(g, 5000, 6, 5, 200, 10, C, 40);
    for (const Device& dev : fast_devices()) {
      if (dev.family == "cpu") continue;
      Cell<int32_t> nan_flag = 0;
      const auto want = p.run(dev, Stream{7, Use::cns_rank, 3, 9}, &nan_flag);
      Late late;
      late.epoch = 3, late.step = 9;
      EXPECT_EQ(p.run(dev, Stream{7, Use::cns_rank, kLateEpoch, kLateStep}, &nan_flag, &late), want)
          << C << " on " << dev.name;
    }
  }
}

TEST(SimilarNegative, RanksAreUniformAndExcludedItemsNeverDrawn) {
  Draw g;
  Problem p = random_problem(g, 60, 64, 2, 20, 20000, 50, 12);
  std::fill(p.positives.begin(), p.positives.end(), 5);  // every row the same problem: only its rank differs
  std::fill(p.users.begin(), p.users.end(), 0);
  const auto order = p.ranked(0);
  ASSERT_GT(order.size(), 12u);
  ASSERT_LT(order.size(), 50u);  // some are excluded
  std::vector<double> share(60);
  for (size_t r = 0; r < 12; ++r) share[size_t(p.cand[size_t(order[r])])] += 1.0 / 12;  // drawn twice: twice the chance
  std::vector<int64_t> seen(60);
  Cell<int32_t> nan_flag = 0;
  for (uint32_t step = 0; step < 5; ++step)
    for (int32_t i : p.run(cpu_devices()[1], Stream{1, Use::cns_rank, 0, step}, &nan_flag)) ++seen.at(size_t(i));
  EXPECT_TRUE(counts_fit(seen, share));
}

TEST(SimilarNegative, FewerAdmissibleThanKAreAllEquallyLikely) {
  Draw g;
  Problem p = random_problem(g, 30, 64, 1, 0, 20000, 40, 20);
  std::vector<std::pair<int32_t, float>> most;
  for (int32_t i = 0; i < 30; ++i)
    if (i % 4) most.emplace_back(i, 1.0f);
  p.train = TestCsr{};
  p.train.cols = 30, p.train.rows = 1, p.train.push(most);
  const auto order = p.ranked(0);
  ASSERT_GT(order.size(), 1u);
  ASSERT_LT(order.size(), 20u);
  std::vector<double> share(30);
  for (int64_t c : order) share[size_t(p.cand[size_t(c)])] += 1.0 / double(order.size());
  std::vector<int64_t> seen(30);
  Cell<int32_t> nan_flag = 0;
  for (int32_t i : p.run(cpu_devices()[0], Stream{2, Use::cns_rank}, &nan_flag)) ++seen.at(size_t(i));
  EXPECT_TRUE(counts_fit(seen, share));
}

TEST(SimilarNegative, NothingAdmissibleTakesTheFallback) {
  Draw g;
  Problem p = random_problem(g, 30, 64, 2, 30, 9, 25, 4);
  ASSERT_EQ(p.train.row_ptr[1], 30);  // user 0 has every item
  Cell<int32_t> nan_flag = 0;
  for (const Device& dev : devices()) {
    const auto out = p.run(dev, Stream{2, Use::cns_rank}, &nan_flag);
    for (size_t b = 0; b < out.size(); ++b) EXPECT_EQ(out[b] == p.fallback[b], p.users[b] == 0) << b;
  }
  p.cand.clear();
  for (const Device& dev : devices()) EXPECT_EQ(p.run(dev, Stream{}, &nan_flag), p.fallback) << dev.name;
}

TEST(SimilarNegative, NothingAdmissibleAmongThousandsTakesTheFallback) {
  Draw g;
  const Problem p = random_problem(g, 30, 4, 2, 30, 9, 4500, 4);
  Cell<int32_t> nan_flag = 0;
  for (const Device& dev : devices()) {
    const auto out = p.run(dev, Stream{2, Use::cns_rank}, &nan_flag);
    for (size_t b = 0; b < out.size(); ++b)
      EXPECT_EQ(out[b] == p.fallback[b], p.users[b] == 0) << b << " on " << dev.name;
  }
}

// Exact ties at every rank and infinities: similarity descending, then position.
TEST(SimilarNegative, TiesGoByPosition) {
  Draw g;
  Problem p = random_problem(g, 200, 2, 1, 0, 400, 150, 120);
  const float values[] = {-0.0f, 0.0f, 1, 1, -1, 2, INFINITY, -INFINITY};
  for (int64_t i = 0; i < 200; ++i) p.pool[size_t(2 * i)] = values[i % 8], p.pool[size_t(2 * i + 1)] = 0;
  for (auto& i : p.positives) i = 2;  // similarity = the candidate's first value
  p.pool[4] = 1, p.pool[5] = 1;
  const Stream s{4, Use::cns_rank};
  for (const Device& dev : devices()) {
    Cell<int32_t> nan_flag = 0;
    const auto out = p.run(dev, s, &nan_flag);
    for (size_t b = 0; b < out.size(); ++b) ASSERT_EQ(out[b], p.want(b, s)) << b << " on " << dev.name;
    EXPECT_EQ(nan_flag, 0);
  }
}

// Products too small for a float round to zeros of either sign: all equal.
TEST(SimilarNegative, AZeroHasNoSign) {
  Draw g;
  Problem p = random_problem(g, 200, 1, 1, 0, 400, 150, 120);
  for (size_t i = 0; i < 200; ++i) p.pool[i] = i % 3 ? 1e-30f : -1e-30f;
  const Stream s{4, Use::cns_rank};
  Cell<int32_t> nan_flag = 0;
  for (const Device& dev : devices()) {
    const auto out = p.run(dev, s, &nan_flag);
    for (size_t b = 0; b < out.size(); ++b)
      ASSERT_EQ(out[b], p.cand[below(draw(s, uint32_t(b)).v[0], 120)]) << b << " on " << dev.name;
  }
}

TEST(SimilarNegative, ANanIsReportedAndSortsLast) {
  for (const bool cosine : {false, true})
    for (const int64_t C : {90, 4300}) {
      Draw g;
      Problem p = random_problem(g, C == 90 ? 300 : 6000, 20, 4, 10, 24, C, 9);
      p.cosine = cosine;
      const Stream s{4, Use::cns_rank};
      for (const Device& dev : C == 90 ? devices() : fast_devices()) {
        SCOPED_TRACE(dev.name + ", " + std::to_string(C) + " candidates");
        Problem q = p;
        Cell<int32_t> nan_flag = 0;
        q.run(dev, s, &nan_flag);
        EXPECT_EQ(nan_flag, 0);
        q.pool[size_t(q.cand[33] * 20 + 19)] = NAN;
        const auto out = q.run(dev, s, &nan_flag);
        EXPECT_EQ(nan_flag, 1);
        for (size_t b = 0; b < out.size(); ++b) EXPECT_TRUE(q.positives[b] == q.cand[33] || out[b] != q.cand[33]) << b;
      }
    }
}

// Also where the pair itself is excluded or nothing is admissible, and where the drawn rank is that of a NaN.
TEST(SimilarNegative, NansEverywhere) {
  for (const int64_t C : {50, 4200}) {
    Draw g;
    Problem p = random_problem(g, 30, 4, 2, 30, 9, C, C);
    std::fill(p.users.begin(), p.users.end(), 0);  // has every item
    p.pool[size_t(p.cand[7] * 4)] = NAN;
    Problem all = random_problem(g, 5000, 4, 3, 30, 9, C, C);
    for (int64_t i = 0; i < all.I; i += 2) all.pool[size_t(4 * i + 1)] = NAN;
    const Stream s{4, Use::cns_rank};
    for (const Device& dev : C == 50 ? devices() : fast_devices()) {
      SCOPED_TRACE(dev.name + ", " + std::to_string(C) + " candidates");
      Cell<int32_t> nan_flag = 0;
      EXPECT_EQ(p.run(dev, s, &nan_flag), p.fallback);
      EXPECT_EQ(nan_flag, 1);
      Cell<int32_t> again = 0;
      EXPECT_EQ(all.run(dev, s, &again), all.run(cpu_devices()[0], s, &again));
      EXPECT_EQ(again, 1);
    }
  }
}

}  // namespace
}  // namespace ccdrec::test::similar_negative_test
