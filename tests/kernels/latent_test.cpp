#include "kernels/latent.h"

#include <numeric>
#include <tuple>

#include "tests/kernels/graphs.h"

namespace ccdrec::test::latent_test {
namespace {

TEST(SoftmaxWeights, ForwardAndBackwardMatchDoubleReferenceAndFiniteDifferences) {
  const std::vector<std::vector<float>> thetas = {
      {0.5f}, {0.5f, 0.5f}, {-1, 2.5f, 0.25f}, {300, -300}, {1, 2, 3, 4, 5, 6, 7, 8}, {-1000, -1000.5f}};
  for (const auto& theta : thetas) {
    const int M = int(theta.size());
    Draw g;
    const auto g_w = g.floats(M), before = g.floats(M);
    const auto weight = [&](int m, int at, double shift) {
      double sum = 0, top = -1e9;
      for (int n = 0; n < M; ++n) top = std::max(top, double(theta[size_t(n)]));
      for (int n = 0; n < M; ++n) sum += std::exp(double(theta[size_t(n)]) - top + (n == at ? shift : 0));
      return std::exp(double(theta[size_t(m)]) - top + (m == at ? shift : 0)) / sum;
    };
    std::vector<float> first_w, first_g;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::to_string(M) + " weights on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> w(size_t(M), NAN), g_theta = before, from_zero(size_t(M), 0.0f);
      dev.ops->softmax_weights(ctx, w.data(), theta.data(), M);
      dev.ops->softmax_weights_backward(ctx, g_theta.data(), w.data(), g_w.data(), M);
      dev.ops->softmax_weights_backward(ctx, from_zero.data(), w.data(), g_w.data(), M);
      for (int m = 0; m < M; ++m) {
        const double want = weight(m, -1, 0);
        EXPECT_NEAR(w[size_t(m)], want, 4e-7 * want + 1e-35) << m;
        double up = 0, down = 0;
        for (int n = 0; n < M; ++n)
          up += g_w[size_t(n)] * weight(n, m, 1e-5), down += g_w[size_t(n)] * weight(n, m, -1e-5);
        EXPECT_NEAR(from_zero[size_t(m)], (up - down) / 2e-5, 1e-6) << m;
        EXPECT_EQ(g_theta[size_t(m)], before[size_t(m)] + from_zero[size_t(m)]) << m;
      }
      EXPECT_NEAR(std::accumulate(from_zero.begin(), from_zero.end(), 0.0), 0, 3e-7);
      if (first_w.empty()) first_w = w, first_g = g_theta;
      EXPECT_EQ(w, first_w);
      EXPECT_EQ(g_theta, first_g);
    }
  }
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    const std::vector<float> theta = {1, NAN};
    std::vector<float> w = {0, 0};
    dev.ops->softmax_weights(ctx, w.data(), theta.data(), 2);
    EXPECT_TRUE(std::isnan(w[0]) && std::isnan(w[1])) << dev.name;
  }
}

struct Case {
  const char* name;
  int64_t I, k;
  int M;
  int32_t empty;  // every so many rows have c_i < 0; 0: none
};
const Case kCases[] = {{"no rows", 0, 3, 2, 0},
                       {"one row that names itself", 1, 1, 1, 0},
                       {"one modality", 20, 4, 1, 0},
                       {"two, ten neighbours", 70, 10, 2, 0},
                       {"rows without a scale", 40, 3, 2, 5},
                       {"eight modalities", 33, 3, 8, 7},
                       {"several chunks", 530, 5, 2, 0}};

// Lists as knn gives them: a row first in its own list; lower rows are popular, so the modalities' lists overlap.
struct Problem {
  const Case c;
  std::vector<std::vector<float>> K, O, gamma, frozen_gamma;
  std::vector<std::vector<int32_t>> idx, frozen_idx;
  std::vector<float> w;
  float lambda = 0.9f;

  explicit Problem(const Case& given) : c(given) {
    Draw g;
    const auto list = [&] {
      std::vector<int32_t> v;
      for (int64_t i = 0; i < c.I; ++i)
        for (int64_t e = 0; e < c.k; ++e) {
          const double u = g.uniform(0, 1);
          v.push_back(e == 0 ? int32_t(i) : std::min(int32_t(u * u * double(c.I)), int32_t(c.I - 1)));
        }
      return v;
    };
    for (int m = 0; m < c.M; ++m) {
      K.push_back(g.floats(c.I * c.k, 0.3f, 1)), O.push_back(g.floats(c.I * c.k, -0.2f, 1));
      gamma.push_back(g.floats(c.I * c.k)), frozen_gamma.push_back(g.floats(c.I * c.k));
      idx.push_back(list()), frozen_idx.push_back(list());
      w.push_back(g.uniform(0.2f, 0.8f));
      for (int64_t s = 0; s < c.I * c.k; ++s)
        if (c.empty && s / c.k % c.empty == 0) K.back()[size_t(s)] *= -1;
    }
  }
  LatentLists lists() const {
    LatentLists in;
    in.M = c.M;
    for (size_t m = 0; m < size_t(c.M); ++m) {
      in.learned[m] = cmat(K[m], c.I, c.k), in.frozen[m] = cmat(O[m], c.I, c.k);
      in.idx[m] = idx[m].data(), in.frozen_idx[m] = frozen_idx[m].data();
    }
    return in;
  }
  size_t width() const { return size_t(2 * c.M * c.k); }
};

// S in double, in the order of the lists.
std::vector<double> latent_ref(const Problem& p, const std::vector<std::vector<double>>& K,
                               const std::vector<double>& w) {
  const size_t I = size_t(p.c.I), k = size_t(p.c.k), M = size_t(p.c.M);
  std::vector<double> s(I, 0.0), out(I * p.width(), 0.0);
  for (size_t i = 0; i < I; ++i) {
    double c = 0;
    for (size_t m = 0; m < M; ++m)
      for (size_t e = 0; e < k; ++e) c += w[m] * K[m][i * k + e];
    s[i] = c <= 0 ? 0 : 1 / std::sqrt(c);
  }
  for (size_t i = 0; i < I; ++i)
    for (size_t m = 0; m < M; ++m)
      for (size_t e = 0; e < k; ++e) {
        const size_t slot = i * k + e, at = i * p.width() + m * k + e;
        out[at] = (1 - double(p.lambda)) * w[m] * s[i] * K[m][slot] * s[size_t(p.idx[m][slot])];
        out[at + M * k] = double(p.lambda) * w[m] * double(p.O[m][slot]);
      }
  return out;
}
std::vector<std::vector<double>> in_double(const std::vector<std::vector<float>>& v) {
  std::vector<std::vector<double>> d;
  for (const auto& x : v) d.emplace_back(x.begin(), x.end());
  return d;
}

TEST(LatentGraph, MatchesDoubleReferenceWithTheSameBitsOnBothDevices) {
  for (const Case& c : kCases) {
    const Problem p(c);
    const auto want = latent_ref(p, in_double(p.K), {p.w.begin(), p.w.end()});
    std::vector<float> first;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> val(want.size(), NAN), s(size_t(c.I), NAN);
      std::vector<int32_t> col(want.size(), -7);
      Cell<int64_t> empty = -3;
      dev.ops->latent_graph(ctx, mat(val, c.I, int64_t(p.width())), col.data(), s.data(), &empty, p.lists(), p.w.data(),
                            p.lambda);
      EXPECT_EQ(empty, c.empty ? (c.I + c.empty - 1) / c.empty : 0);
      for (size_t at = 0; at < want.size(); ++at) {
        const size_t i = at / p.width(), list = at % p.width() / size_t(c.k), e = at % size_t(c.k);
        const bool frozen = list >= size_t(c.M);
        const size_t m = list % size_t(c.M), slot = i * size_t(c.k) + e;
        ASSERT_EQ(col[at], (frozen ? p.frozen_idx : p.idx)[m][slot]) << at;
        ASSERT_NEAR(val[at], want[at], 3e-7 * std::fabs(want[at])) << at;
      }
      if (first.empty()) first = val;
      EXPECT_EQ(val, first);

      // The Laplacian does not change with the scale of C: here by a power of four, to the bit.
      Problem four = p;
      for (auto& K : four.K)
        for (float& x : K) x *= 4;
      std::vector<float> again(val.size(), NAN), half(s.size(), NAN);
      dev.ops->latent_graph(ctx, mat(again, c.I, int64_t(p.width())), col.data(), half.data(), &empty, four.lists(),
                            p.w.data(), p.lambda);
      EXPECT_EQ(again, val);
      for (size_t i = 0; i < s.size(); ++i) ASSERT_EQ(2 * half[i], s[i]) << i;
    }
  }
}

TEST(LatentGraph, BackwardMatchesFiniteDifferences) {
  for (const Case& c : kCases) {
    const Problem p(c);
    const size_t entries = size_t(c.I * c.k), M = size_t(c.M);
    const auto K = in_double(p.K);
    const std::vector<double> w(p.w.begin(), p.w.end());
    const auto loss = [&](const std::vector<std::vector<double>>& k_at, const std::vector<double>& w_at) {
      const auto S = latent_ref(p, k_at, w_at);
      double sum = 0;
      for (size_t m = 0; m < M; ++m)
        for (size_t slot = 0; slot < entries; ++slot) {
          const size_t at = slot / size_t(c.k) * p.width() + m * size_t(c.k) + slot % size_t(c.k);
          sum += p.gamma[m][slot] * S[at] + p.frozen_gamma[m][slot] * S[at + M * size_t(c.k)];
        }
      return sum;
    };
    const double h = 2e-5;
    std::vector<double> want_w;
    std::vector<std::tuple<size_t, size_t, double>> want_k;
    for (size_t m = 0; m < M; ++m) {
      auto up = w, down = w;
      up[m] += h, down[m] -= h;
      want_w.push_back((loss(K, up) - loss(K, down)) / (2 * h));
      for (size_t slot = 0; slot < entries; slot += 1 + entries / 60) {
        auto more = K, less = K;
        more[m][slot] += h, less[m][slot] -= h;
        want_k.emplace_back(m, slot, (loss(more, w) - loss(less, w)) / (2 * h));
      }
    }
    double size = 0.01;  // one row that names itself: S is constant, its gradient rounding alone
    for (const auto& [m, slot, slope] : want_k) size = std::max(size, std::fabs(slope));
    std::vector<std::vector<float>> first;
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      DeviceCtx ctx(dev);
      std::vector<float> val(size_t(c.I) * p.width()), s(size_t(c.I)), g_w(M, NAN);
      std::vector<int32_t> col(val.size());
      Cell<int64_t> empty;
      dev.ops->latent_graph(ctx, mat(val, c.I, int64_t(p.width())), col.data(), s.data(), &empty, p.lists(), p.w.data(),
                            p.lambda);
      std::vector<std::vector<float>> g_k(M, std::vector<float>(entries, NAN));
      std::vector<OwnedGroups> groups(M, OwnedGroups(c.I * c.k));
      LatentGradients to;
      for (size_t m = 0; m < M; ++m) {
        groups[m].g = {groups[m].rows.list(), groups[m].ptr.data(), groups[m].slot.data()};
        dev.ops->group(ctx, groups[m].g, p.idx[m].data(), c.I * c.k, c.I);
        to.gamma[m] = cmat(p.gamma[m], c.I, c.k), to.frozen_gamma[m] = cmat(p.frozen_gamma[m], c.I, c.k);
        to.g_k[m] = mat(g_k[m], c.I, c.k), to.by_target[m] = groups[m].g;
      }
      dev.ops->latent_graph_backward(ctx, g_w.data(), to, p.lists(), p.w.data(), s.data(), p.lambda);
      for (const auto& [m, slot, slope] : want_k)
        EXPECT_NEAR(g_k[m][slot], slope, 2e-6 * (size + std::fabs(slope))) << m << " " << slot;
      for (size_t m = 0; m < M; ++m) {
        EXPECT_NEAR(g_w[m], want_w[m], 2e-6 * (1 + std::fabs(want_w[m]))) << m;
        for (size_t slot = 0; slot < entries; ++slot) {
          ASSERT_FALSE(std::isnan(g_k[m][slot])) << slot;
          const bool unscaled = c.empty && slot / size_t(c.k) % size_t(c.empty) == 0;
          ASSERT_TRUE(!unscaled || g_k[m][slot] == 0) << slot;
        }
      }
      if (first.empty()) first = g_k;
      EXPECT_EQ(g_k, first);
      EXPECT_TRUE(same(dev, "g_w", g_w));
      ScratchPlan plan;
      plan.threads = dev.threads;
      dev.ops->latent_graph_backward_scratch(plan, c.I, c.k, c.M);
      dev.ops->group_scratch(plan, c.I * c.k);
      for (int k = 0; k < 8; ++k) EXPECT_LE(ctx.get().asked().slot[k], plan.slot[k]) << k;
    }
  }
}

TEST(LatentGraph, ASumOfZeroOrBarelyBelowHasNoScale) {
  Problem p({"", 3, 2, 1, 0});
  p.K[0] = {1, -1, 1e-3f, -2e-3f, 1, 1};
  p.idx[0] = {0, 2, 1, 2, 2, 0};
  p.w = {1};
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> val(12, NAN), s(3, NAN);
    std::vector<int32_t> col(12);
    Cell<int64_t> empty = 9;
    dev.ops->latent_graph(ctx, mat(val, 3, 4), col.data(), s.data(), &empty, p.lists(), p.w.data(), p.lambda);
    EXPECT_EQ(empty, 2);
    EXPECT_EQ(s, (std::vector<float>{0, 0, float(1 / std::sqrt(2.0))}));
    for (const size_t at : {0, 1, 4, 5, 9}) EXPECT_EQ(val[at], 0.0f) << at;
    EXPECT_NEAR(val[8], (1 - double(p.lambda)) / 2, 1e-8);
  }
}

TEST(LatentGraph, ANanStays) {
  Problem p({"", 3, 1, 1, 0});
  p.K[0][1] = NAN;
  for (const Device& dev : devices()) {
    DeviceCtx ctx(dev);
    std::vector<float> val(6, 0), s(3, 0);
    std::vector<int32_t> col(6);
    Cell<int64_t> empty;
    dev.ops->latent_graph(ctx, mat(val, 3, 2), col.data(), s.data(), &empty, p.lists(), p.w.data(), p.lambda);
    EXPECT_TRUE(std::isnan(s[1]) && std::isnan(val[2])) << dev.name;
    EXPECT_EQ(empty, 0);
  }
}

}  // namespace
}  // namespace ccdrec::test::latent_test
