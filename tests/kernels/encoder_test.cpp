#include "kernels/encoder.h"

#include <functional>
#include <stdexcept>

#include "tests/kernels/estimator_ref.h"

namespace ccdrec::test::encoder_test {
namespace {

constexpr int kSteps = 6;

struct Case {
  const char* name;
  int64_t n;
  int M, layers, heads;
  int64_t d, inner, spare = 2;  // room beyond the n items
};
const Case cases[] = {{"no items", 0, 2, 1, 4, 64, 256},
                      {"one item", 1, 2, 1, 4, 8, 32},
                      {"two layers", 5, 1, 2, 2, 4, 16},
                      {"odd head", 3, 3, 1, 4, 12, 20},
                      {"one head", 7, 2, 1, 1, 10, 9},
                      {"as specified", 9, 2, 1, 4, 64, 256},
                      {"wider than two warps", 5, 1, 2, 5, 70, 131},
                      {"most modalities and heads", 3, 8, 1, 16, 16, 8},
                      {"256 rows, most of the room unused", 64, 2, 1, 2, 4, 5, 90},
                      {"257 rows and more", 86, 1, 1, 1, 6, 7}};

// Everything a call needs. What lies beyond the n items may not be used: it is NaN, or an address out of bounds.
struct Problem {
  Case c;
  int64_t K, cap;
  Cell<int64_t> count;
  std::vector<float> e_t, tau, room, e0;
  std::vector<std::vector<float>> h, tensor;  // tensor: 16 a layer
  std::vector<int32_t> t;

  explicit Problem(const Case& c_) : c(c_), K(c.M + 2), cap(c_.n + c_.spare), count(c_.n) {
    Draw g;
    const int64_t d = c.d, F = c.inner;
    const auto tokens = [&] {
      std::vector<float> v = g.floats(c.n * d);
      v.resize(size_t(cap * d), NAN);
      return v;
    };
    e_t = tokens();
    for (int m = 0; m < c.M; ++m) h.push_back(tokens());
    tau = time_embedding(kSteps, d);
    for (int64_t j = 0; j < cap; ++j) t.push_back(j < c.n ? g.below(kSteps) : 1 << 30);
    for (int l = 0; l < c.layers; ++l) {
      const int64_t size[] = {d, d, d * d, d, d * d, d, d * d, d, d * d, d, d, d, d * F, F, F * d, d};
      for (int i = 0; i < 16; ++i) {
        const bool scale = i == 0 || i == 10;
        tensor.push_back(scale         ? g.floats(size[i], 0.5f, 1.5f)
                         : size[i] > F ? g.floats(size[i], -2 / std::sqrt(float(d)), 2 / std::sqrt(float(d)))
                                       : g.floats(size[i], -0.3f, 0.3f));
      }
    }
    room.assign(size_t(encoder_saved_floats(cap, c.M, d, F, c.heads, c.layers)), NAN);
    e0.assign(size_t(cap * d), NAN);
  }
  static void set(CMat& v, const std::vector<float>& from, int64_t rows, int64_t cols) {
    v = {from.data(), rows, cols};
  }
  static void set(Mat& v, std::vector<float>& from, int64_t rows, int64_t cols) { v = {from.data(), rows, cols}; }
  template <class View, class Tensors>
  void views(EncoderLayer<View>* layer, Tensors& from) const {
    for (int l = 0; l < c.layers; ++l) {
      const auto to = tensors_of(layer[l]);
      for (size_t i = 0; i < 16; ++i) {
        const bool weight = i >= 2 && i % 2 == 0 && i != 10;
        const int64_t cols = i == 12 || i == 13 ? c.inner : c.d, rows = !weight ? 1 : i == 14 ? c.inner : c.d;
        set(*to[i], from[size_t(l) * 16 + i], rows, cols);
      }
    }
  }
  EncoderParams params() const {
    EncoderParams p;
    views(p.layer, tensor);
    p.layers = c.layers;
    p.heads = c.heads;
    return p;
  }
  EncoderSaved saved() { return encoder_saved(room.data(), cap, c.M, c.d, c.inner, c.heads, c.layers); }
  EstimatorTokens tokens() const {
    EstimatorTokens in;
    in.e_t = cmat(e_t, cap, c.d);
    for (int m = 0; m < c.M; ++m) in.h[m] = cmat(h[size_t(m)], cap, c.d);
    in.modalities = c.M;
    in.tau = cmat(tau, kSteps, c.d);
    in.t = t.data();
    return in;
  }
  RowList rows() { return {nullptr, &count, cap}; }
};

// The same in double, straight from the contract.
struct EncoderRef {
  size_t n, K, d, F, H, layers;
  std::vector<Vec> token;  // K of (n,d): e_t, modalities, time
  std::vector<Vec> tensor;

  explicit EncoderRef(const Problem& p)
      : n(size_t(p.c.n)),
        K(size_t(p.K)),
        d(size_t(p.c.d)),
        F(size_t(p.c.inner)),
        H(size_t(p.c.heads)),
        layers(size_t(p.c.layers)) {
    auto rows = [&](const std::vector<float>& from) { return Vec(from.begin(), from.begin() + int64_t(n * d)); };
    token.push_back(rows(p.e_t));
    for (const auto& h_m : p.h) token.push_back(rows(h_m));
    token.emplace_back();
    for (size_t j = 0; j < n; ++j)
      token.back().insert(token.back().end(), p.tau.begin() + p.t[j] * p.c.d, p.tau.begin() + (p.t[j] + 1) * p.c.d);
    for (const auto& from : p.tensor) tensor.push_back(doubles(from));
  }
  Vec norm(const Vec& z, const Vec& scale, const Vec& shift) const {
    Vec y(z.size());
    for (size_t r = 0; r < K; ++r) {
      double mean = 0, var = 0;
      for (size_t j = 0; j < d; ++j) mean += z[r * d + j] / double(d);
      for (size_t j = 0; j < d; ++j) var += (z[r * d + j] - mean) * (z[r * d + j] - mean) / double(d);
      for (size_t j = 0; j < d; ++j) y[r * d + j] = (z[r * d + j] - mean) / std::sqrt(var + 1e-5) * scale[j] + shift[j];
    }
    return y;
  }
  Vec linear(const Vec& x, const Vec& w, const Vec& b) const {
    Vec y = times(x, w, K, x.size() / K, b.size());
    for (size_t i = 0; i < y.size(); ++i) y[i] += b[i % b.size()];
    return y;
  }
  Vec item(Vec z) const {  // (K,d) -> (d)
    for (size_t l = 0; l < layers; ++l) {
      const Vec* p = &tensor[16 * l];
      const Vec n1 = norm(z, p[0], p[1]), q = linear(n1, p[2], p[3]), k = linear(n1, p[4], p[5]),
                v = linear(n1, p[6], p[7]);
      const size_t width = d / H;
      Vec o(K * d, 0.0);
      for (size_t h = 0; h < H; ++h) {
        for (size_t r = 0; r < K; ++r) {
          Vec a(K, 0.0);
          double sum = 0;
          for (size_t c = 0; c < K; ++c) {
            for (size_t j = h * width; j < (h + 1) * width; ++j) a[c] += q[r * d + j] * k[c * d + j];
            sum += a[c] = std::exp(a[c] / std::sqrt(double(width)));
          }
          for (size_t c = 0; c < K; ++c) {
            for (size_t j = h * width; j < (h + 1) * width; ++j) o[r * d + j] += a[c] / sum * v[c * d + j];
          }
        }
      }
      const Vec attended = linear(o, p[8], p[9]);
      for (size_t i = 0; i < z.size(); ++i) z[i] += attended[i];
      Vec u = linear(norm(z, p[10], p[11]), p[12], p[13]);
      for (double& x : u) x *= 0.5 * std::erfc(-x / std::sqrt(2.0));
      const Vec fed = linear(u, p[14], p[15]);
      for (size_t i = 0; i < z.size(); ++i) z[i] += fed[i];
    }
    Vec out(d, 0.0);
    for (size_t i = 0; i < z.size(); ++i) out[i % d] += z[i] / double(K);
    return out;
  }
  Vec forward() const {
    Vec out;
    for (size_t j = 0; j < n; ++j) {
      Vec z;
      for (const Vec& from : token)
        z.insert(z.end(), from.begin() + int64_t(j * d), from.begin() + int64_t((j + 1) * d));
      const Vec e0 = item(z);
      out.insert(out.end(), e0.begin(), e0.end());
    }
    return out;
  }
};

TEST(Encoder, ForwardMatchesDoubleReference) {
  for (const Case& c : cases) {
    const std::vector<Ref> want = by_scale(EncoderRef(Problem(c)).forward());
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
      Problem p(c);
      DeviceCtx ctx(dev);
      dev.ops->encoder_forward(ctx, mat(p.e0, p.cap, c.d), p.saved(), p.tokens(), p.params(), p.rows());
      EXPECT_TRUE(close(p.e0, want, 1e-6));
      EXPECT_TRUE(std::isnan(p.e0[size_t(c.n * c.d)])) << "row past the count written";
      EXPECT_TRUE(same(dev, "e0_hat", p.e0));
    }
  }
}

struct Gradients {
  std::vector<float> d_e;
  std::vector<std::vector<float>> d_h, tensor;
};

Gradients run_backward(const Device& dev, Problem& p, const std::vector<float>& d_out, Gradients g) {
  DeviceCtx ctx(dev);
  Mat d_h[kMaxModalities];
  for (int m = 0; m < p.c.M; ++m) d_h[m] = mat(g.d_h[size_t(m)], p.cap, p.c.d);
  EncoderGrads grads;
  p.views(grads.layer, g.tensor);
  dev.ops->encoder_forward(ctx, mat(p.e0, p.cap, p.c.d), p.saved(), p.tokens(), p.params(), p.rows());
  dev.ops->encoder_backward(ctx, mat(g.d_e, p.cap, p.c.d), d_h, grads, cmat(d_out, p.cap, p.c.d), p.tokens(), p.saved(),
                            p.params(), p.rows());
  return g;
}

// What the gradient of one input, listed in the order of `directions`, has to be along each of them.
struct Derivatives {
  std::vector<Vec> directions;  // empty: every element
  Vec want;
};

// Central differences of the double reference, random weights on the output: every element at small widths, three
// random directions otherwise.
TEST(Encoder, BackwardMatchesFiniteDifferences) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Problem at_rest(c);
    Draw g{4000};
    std::vector<float> d_out = g.floats(c.n * c.d);
    EncoderRef ref(at_rest);
    auto derivative = [&](Vec& at, const Vec& direction) {
      const Vec keep = at;
      const double h = 1e-5;
      double loss[2] = {};
      for (int side = 0; side < 2; ++side) {
        for (size_t i = 0; i < at.size(); ++i) at[i] = keep[i] + (side ? -h : h) * direction[i];
        const Vec out = ref.forward();
        for (size_t i = 0; i < out.size(); ++i) loss[side] += double(d_out[i]) * out[i];
      }
      at = keep;
      return (loss[0] - loss[1]) / (2 * h);
    };
    auto derivatives = [&](Vec& at) {
      Derivatives all;
      if (c.d < 16 && c.n < 16) {
        for (size_t i = 0; i < at.size(); ++i) {
          Vec one(at.size(), 0.0);
          one[i] = 1;
          all.want.push_back(derivative(at, one));
        }
      } else {
        for (int trial = 0; trial < 3; ++trial) {
          all.directions.push_back(doubles(g.floats(int64_t(at.size()))));
          all.want.push_back(derivative(at, all.directions.back()));
        }
      }
      return all;
    };
    std::vector<Derivatives> of_token, of_tensor;
    for (size_t m = 0; m < size_t(c.M + 1); ++m) of_token.push_back(derivatives(ref.token[m]));
    for (Vec& tensor : ref.tensor) of_tensor.push_back(derivatives(tensor));

    d_out.resize(size_t(at_rest.cap * c.d), NAN);
    const std::vector<float> unwritten(size_t(at_rest.cap * c.d), NAN);
    Gradients start{unwritten, std::vector(size_t(c.M), unwritten), {}};
    for (const auto& t : at_rest.tensor) start.tensor.push_back(g.floats(int64_t(t.size())));
    SameBits same;
    for (const Device& dev : devices()) {
      SCOPED_TRACE(dev.name);
      Problem p(c);
      const Gradients got = run_backward(dev, p, d_out, start);
      auto compare = [&](const std::string& what, const Derivatives& d, size_t size, const std::vector<float>& gradient,
                         const std::vector<float>& before) {
        SCOPED_TRACE(what);
        EXPECT_TRUE(same(dev, what, gradient));
        double top = 1e-2;  // b_k shifts all scores of a row alike: its gradient is nothing but rounding
        for (size_t i = 0; i < size; ++i) top = std::max(top, std::fabs(double(gradient[i])));
        if (d.directions.empty()) {
          for (size_t i = 0; i < size; ++i) {
            const double want = d.want[i] + (before.empty() ? 0 : before[i]);
            ASSERT_TRUE(std::fabs(gradient[i] - want) <= 2e-5 * top)
                << "element " << i << ": got " << gradient[i] << ", want " << want;
          }
        }
        for (size_t trial = 0; trial < d.directions.size(); ++trial) {
          double along = 0, mass = 1;  // 1: the rounding of the start values, all there is of b_k
          for (size_t i = 0; i < size; ++i) {
            const double term = (double(gradient[i]) - (before.empty() ? 0 : before[i])) * d.directions[trial][i];
            along += term;
            mass += std::fabs(term);
          }
          ASSERT_TRUE(std::fabs(along - d.want[trial]) <= 2e-5 * mass)
              << "direction " << trial << ": got " << along << ", want " << d.want[trial] << ", mass " << mass;
        }
      };
      const size_t items = size_t(c.n * c.d);
      compare("e_t", of_token[0], items, got.d_e, {});
      for (size_t m = 0; m < size_t(c.M); ++m)
        compare("h " + std::to_string(m), of_token[m + 1], items, got.d_h[m], {});
      for (size_t i = 0; i < got.tensor.size(); ++i)
        compare("tensor " + std::to_string(i), of_tensor[i], got.tensor[i].size(), got.tensor[i], start.tensor[i]);
      EXPECT_TRUE(std::isnan(got.d_e[items])) << "row past the count written";
      for (const auto& d_h : got.d_h) EXPECT_TRUE(std::isnan(d_h[items])) << "row past the count written";
    }
  }
}

// More items in use than a buffer has: the CPU throws, a device that cannot notes it, and stays in bounds.
TEST(Encoder, ListsLongerThanTheirRoom) {
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    Problem p({"", 12, 2, 1, 2, 4, 8, 0});
    DeviceCtx ctx(dev);
    std::vector<float> out(size_t(11 * p.c.d)), full(size_t(12 * p.c.d)), d_h0 = full, d_h1 = full;
    std::vector<std::vector<float>> d_tensor = p.tensor;
    EncoderGrads grads;
    p.views(grads.layer, d_tensor);
    const Mat d_h[2] = {mat(d_h0, 12, p.c.d), mat(d_h1, 12, p.c.d)};
    EstimatorTokens fewer = p.tokens();
    fewer.h[1].rows = 11;
    dev.ops->encoder_forward(ctx, mat(full, 12, p.c.d), p.saved(), p.tokens(), p.params(), p.rows());
    const std::function<void()> calls[] = {
        [&] { dev.ops->encoder_forward(ctx, mat(out, 11, p.c.d), p.saved(), p.tokens(), p.params(), p.rows()); },
        [&] { dev.ops->encoder_forward(ctx, mat(full, 12, p.c.d), p.saved(), fewer, p.params(), p.rows()); },
        [&] {
          dev.ops->encoder_backward(ctx, mat(out, 11, p.c.d), d_h, grads, cmat(full, 12, p.c.d), p.tokens(), p.saved(),
                                    p.params(), p.rows());
        }};
    for (const auto& call : calls) {
      if (!dev.ops->take_fault) {
        EXPECT_THROW(call(), std::logic_error);
        continue;
      }
      EXPECT_EQ(dev.ops->take_fault(ctx), 0);
      call();
      EXPECT_NE(dev.ops->take_fault(ctx), 0);
    }
  }
}

// The last items of a run over n, against the chain in double. Pools are the same with a late epoch.
void check_reverse(const Case& c, const Problem& p, int64_t compared, const std::vector<Device>& on) {
  const uint32_t seed = 3, epoch = 8;
  const int64_t n = c.n;
  const HostSchedule host = make_schedule("linear", kSteps, false);
  const Schedule s{kSteps,        host.sqrt_abar.data(), host.sqrt_1m_abar.data(),
                   host.a.data(), host.b.data(),         host.sigma.data()};
  const uint32_t groups = uint32_t((c.d + 3) / 4);
  const EncoderRef f(p);
  std::vector<Vec> want(4);
  for (int64_t i = n - std::min(n, compared); i < n; ++i) {
    auto normals = [&](Use use, int t) { return normals_of(Stream{seed, use, epoch, uint32_t(t)}, i, groups); };
    auto row = [&](const std::vector<float>& from, int64_t r) {
      return Vec(from.begin() + r * c.d, from.begin() + (r + 1) * c.d);
    };
    Vec e = row(p.e_t, i), z = normals(Use::reverse_start, kSteps);
    for (size_t j = 0; j < e.size(); ++j)
      e[j] = std::sqrt(host.abar.back()) * e[j] + std::sqrt(1 - host.abar.back()) * z[j];
    for (int done = 0; done <= kSteps; ++done) {
      const int t = kSteps - done + 1;
      if (done > 0) {
        Vec token = e;
        for (int m = 0; m <= c.M; ++m) {
          const Vec more = m < c.M ? row(p.h[size_t(m)], i) : row(p.tau, t - 1);
          token.insert(token.end(), more.begin(), more.end());
        }
        const Vec x0 = f.item(token);
        z = normals(Use::reverse_noise, t);
        for (size_t j = 0; j < e.size(); ++j)
          e[j] = host.a[size_t(t - 1)] * x0[j] + host.b[size_t(t - 1)] * e[j] + host.sigma[size_t(t - 1)] * z[j];
      }
      for (size_t k = 0; k < 4; ++k) {
        if (done == int(k + 1) * kSteps / 4) want[k].insert(want[k].end(), e.begin(), e.end());
      }
    }
  }
  CMat h[kMaxModalities];
  for (int m = 0; m < c.M; ++m) h[m] = cmat(p.h[size_t(m)], n, c.d);
  SameBits same;
  for (const Device& dev : on) {
    SCOPED_TRACE(std::to_string(n) + " items on " + dev.name);
    DeviceCtx ctx(dev);
    std::vector<std::vector<float>> pool(4, std::vector<float>(size_t(n * c.d), NAN)), late = pool;
    Mat pools[4];
    for (size_t k = 0; k < 4; ++k) pools[k] = mat(pool[k], n, c.d);
    dev.ops->encoder_reverse(ctx, pools, cmat(p.e_t, n, c.d), h, c.M, cmat(p.tau, kSteps, c.d), p.params(), s, seed,
                             epoch);
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_TRUE(close(pool[k].data() + (n * c.d - int64_t(want[k].size())), by_scale(want[k]), kSteps * 1e-6))
          << "pool " << k;
      EXPECT_TRUE(same(dev, "pool " + std::to_string(k), pool[k]));
    }
    if (!dev.ops->set_late || n > 100) continue;
    dev.ops->set_late(ctx, Late{epoch, 0, 0, 0});
    for (size_t k = 0; k < 4; ++k) pools[k] = k == 1 ? Mat{} : mat(late[k], n, c.d);
    dev.ops->encoder_reverse(ctx, pools, cmat(p.e_t, n, c.d), h, c.M, cmat(p.tau, kSteps, c.d), p.params(), s, seed,
                             kLateEpoch);
    for (size_t k : {0, 2, 3}) EXPECT_EQ(late[k], pool[k]) << "pool " << k;
    EXPECT_TRUE(std::isnan(late[1][0]));
  }
}

TEST(Encoder, ReverseMatchesDoubleChainWithTheSameNormals) {
  for (const Case& c : {Case{"small", 21, 2, 1, 4, 16, 64}, Case{"two layers", 33, 1, 2, 1, 6, 9}})
    check_reverse(c, Problem(c), c.n, devices());
}

TEST(Encoder, ReverseByTiles) {
  const Case many = {"more than a chunk of the CPU's", 515, 2, 1, 4, 16, 64};
  check_reverse(many, Problem(many), 21, cpu_devices());
}
TEST(SlowEncoder, ReverseByTilesOfBytes) {
  const Case wide = {"more than a tile of the GPU's, which is one of bytes", 70, 1, 1, 2, 4, 30000};
  Problem p(wide);
  for (float& w : p.tensor[14]) w *= 0.005f;  // W_2: sums of 30,000 terms stay beside what they are added to
  check_reverse(wide, p, 21, fast_devices());
}

}  // namespace
}  // namespace ccdrec::test::encoder_test
