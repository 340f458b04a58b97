#include "kernels/unet.h"

#include "kernels/cpu/fast/unet16.h"
#include "tests/kernels/unet_reference.h"

namespace ccdrec::test::unet_test {
namespace {

constexpr int kSteps = 5;
constexpr float kCanary = -7;  // in rows past the count, of outputs
constexpr int64_t d = kUnetWidth;

// Of the last levels' groups of two values. `initial`: as training begins, most of them far apart, where the norm is a
// sign. `small`: about sqrt(eps) apart, where it is smooth and all of its gradient counts.
enum class Pairs { initial, small };
struct Case {
  const char* name;
  int64_t n;
  int M;
  bool masked;
  int64_t spare = 3;  // rows beyond the count; 0: the count is the capacity
  bool listed = false;
  Pairs pairs = Pairs::initial;
};
const Case cases[] = {{"no items", 0, 2, false},
                      {"one item", 1, 2, false},
                      {"one modality, fifteen", 15, 1, true},
                      {"sixteen, no more room", 16, 2, true, 0},
                      {"seventeen, listed", 17, 2, false, 20, true},
                      {"small differences", 5, 2, true, 1, false, Pairs::small}};
const Case many[] = {{"thirty-five", 35, 2, true},
                     {"small differences, one modality", 33, 1, true, 0, true, Pairs::small}};

std::vector<std::vector<float>> parameters(Draw& g, Pairs pairs) {
  std::vector<std::vector<float>> tensor;
  for (int i = 0; i < kUnet.tensors; ++i) {
    const UnetTensor& t = kUnet.tensor[size_t(i)];
    const int64_t size = int64_t(t.rows) * t.cols;
    const float bound = t.fan_in ? 1 / std::sqrt(float(t.fan_in)) : 0.3f;
    tensor.push_back(t.role == UnetRole::gain ? g.floats(size, 0.5f, 1.5f) : g.floats(size, -bound, bound));
  }
  for (int i = 0; i < kUnet.layers && pairs == Pairs::small; ++i) {  // all that is added on one pixel
    const UnetLayer& l = kUnet.layer[size_t(i)];
    const auto less = [&](int at) {
      for (int k = l.first + at; k < l.first + at + 2; ++k) {
        for (float& v : tensor[size_t(k)]) v *= 1e-3f;
      }
    };
    if (l.kind == UnetKind::down && l.side == 2) less(0);
    if (l.kind == UnetKind::attention) less(4);
    if (l.kind == UnetKind::res && l.side == 1) less(2), less(4), less(8);
  }
  return tensor;
}

// Everything a call needs. What lies beyond the n items may not be used: it is NaN, or an address out of bounds.
struct Problem {
  Case c;
  int64_t cap;
  Cell<int64_t> count;
  std::vector<float> e_t, tau, saved, e0;
  std::vector<std::vector<float>> h, tensor;
  std::vector<int32_t> t, idx;
  std::vector<uint16_t> bits;

  explicit Problem(const Case& c_) : c(c_), cap(c_.n + c_.spare), count(c_.n) {
    Draw g;
    const auto token = [&](float scale) {
      std::vector<float> v = g.floats(c.n * d, -scale, scale);
      v.resize(size_t(cap * d), NAN);
      return v;
    };
    e_t = token(0.5f);
    for (int m = 0; m < c.M; ++m) h.push_back(token(1));
    tau = unet_time_embedding(kSteps);
    tensor = parameters(g, c.pairs);
    for (int64_t j = 0; j < cap; ++j) t.push_back(j < c.n ? g.below(kSteps) : 1 << 30);
    for (int64_t j = 0; j < cap; ++j) idx.push_back(j < c.n ? int32_t(3 * j + 1) : -1);
    for (int64_t w = 0; w < cap * kUnetMaskWords && c.masked; ++w)
      bits.push_back(uint16_t(g.bits() | g.bits()));  // three of four are kept
    saved.assign(size_t(unet_saved_floats(cap)), NAN);
    e0 = output();
  }
  std::vector<float> output() const {
    std::vector<float> v(size_t(cap * d), NAN);
    std::fill(v.begin() + c.n * d, v.end(), kCanary);
    return v;
  }
  EstimatorTokens tokens() const {
    EstimatorTokens in;
    in.e_t = cmat(e_t, cap, d);
    for (int m = 0; m < c.M; ++m) in.h[m] = cmat(h[size_t(m)], cap, d);
    in.modalities = c.M;
    in.tau = cmat(tau, kSteps, kUnetTimeIn);
    in.t = t.data();
    return in;
  }
  UnetParams params() const {
    UnetParams p{};
    for (size_t i = 0; i < tensor.size(); ++i) p.p[i] = tensor[i].data();
    return p;
  }
  UnetMask mask() const { return {c.masked ? bits.data() : nullptr, 0.75f}; }
  UnetSaved room() { return {saved.data(), cap}; }
  RowList rows() { return {c.listed ? idx.data() : nullptr, c.spare ? &count : nullptr, cap}; }

  static void append(Vec& v, const std::vector<float>& from, int64_t row, int64_t width) {
    v.insert(v.end(), from.begin() + row * width, from.begin() + (row + 1) * width);
  }
  Vec image(int64_t j) const { return image(Vec(e_t.begin() + j * d, e_t.begin() + (j + 1) * d), j); }
  Vec image(Vec v, int64_t j) const {  // noised ID, text, visual; modality 0 is the visual one
    c.M > 1 ? append(v, h[1], j, d) : v.resize(size_t(2 * d), 0.0);
    append(v, h[0], j, d);
    return v;
  }
  Vec time(int64_t step) const {
    Vec v;
    append(v, tau, step, kUnetTimeIn);
    return v;
  }
  Vec factors(int64_t j) const {
    Vec v;
    for (int64_t e = 0; e < kUnet.mask_elements && c.masked; ++e)
      v.push_back(kept_by(bits.data() + j * kUnetMaskWords, e) ? 1 / 0.75 : 0);
    return v;
  }
};

// Values with the distance that a float implementation may have from them, as masses for close(.., 1): four times what
// the reference moves when every one of its operations is disturbed by kNoise, of the value itself and of the values
// of its kind; `terms` of a long sum come on top.
constexpr double kNoise = 2.5e-7, kOfTerms = 1e-6;
constexpr int kNoisyRuns = 2;

std::vector<Ref> with_distance(const Vec& exact, const std::vector<Vec>& noisy, size_t kind, const Vec& terms = {}) {
  std::vector<Ref> want;
  for (size_t first = 0; first < exact.size(); first += kind) {
    const size_t n = std::min(kind, exact.size() - first);
    double squares = 0;
    for (size_t i = first; i < first + n; ++i) {
      double most = 0;
      for (const Vec& v : noisy) most = std::max(most, std::fabs(v[i] - exact[i]));
      squares += most * most / double(n);
      want.push_back({exact[i], 4 * most + (terms.empty() ? 0 : kOfTerms * terms[i])});
    }
    for (size_t i = first; i < first + n; ++i) want[i].mass += 4 * std::sqrt(squares);
  }
  return want;
}

struct Results {
  Vec e0;                           // (n,64)
  std::vector<Vec> d_image;         // by channel, (n,64)
  std::vector<Vec> d_p, d_p_terms;  // as kUnet.tensor
};
Results run_reference(const Problem& p, UnetReference& f, const std::vector<float>& d_out) {
  Results r;
  r.d_image.resize(3);
  f.forget();
  for (int64_t j = 0; j < p.c.n; ++j) {
    const UnetReference::Item item = f.forward(p.image(j), p.time(p.t[size_t(j)]), p.factors(j));
    r.e0.insert(r.e0.end(), item.e0.begin(), item.e0.end());
    if (d_out.empty()) continue;
    const Vec d_image = f.backward(item, Vec(d_out.begin() + j * d, d_out.begin() + (j + 1) * d));
    for (int64_t ch = 0; ch < 3; ++ch) {
      Vec& to = r.d_image[size_t(ch)];
      to.insert(to.end(), d_image.begin() + ch * d, d_image.begin() + (ch + 1) * d);
    }
  }
  r.d_p = f.g, r.d_p_terms = f.g_terms;
  return r;
}

struct Wanted {
  std::vector<Ref> e0;
  std::vector<std::vector<Ref>> d_image, d_p;
};
Wanted wanted(const Problem& p, const std::vector<float>& d_out = {},
              const std::vector<std::vector<float>>& start = {}) {
  UnetReference f(false, p.tensor);
  const Results exact = run_reference(p, f, d_out);
  std::vector<Results> noisy;
  f.noise = kNoise;
  for (int k = 0; k < kNoisyRuns; ++k) noisy.push_back(run_reference(p, f, d_out));
  const auto of_noisy = [&](const auto& part) {
    std::vector<Vec> v;
    for (const Results& r : noisy) v.push_back(part(r));
    return v;
  };
  Wanted w;
  w.e0 = with_distance(exact.e0, of_noisy([](const Results& r) { return r.e0; }), size_t(d));
  if (start.empty()) return w;
  for (size_t ch = 0; ch < 3; ++ch)
    w.d_image.push_back(
        with_distance(exact.d_image[ch], of_noisy([&](const Results& r) { return r.d_image[ch]; }), size_t(d)));
  for (size_t i = 0; i < exact.d_p.size(); ++i) {
    const Vec& value = exact.d_p[i];
    Vec terms = exact.d_p_terms[i];
    for (size_t e = 0; e < terms.size(); ++e) terms[e] += std::fabs(start[i][e]);
    w.d_p.push_back(with_distance(value, of_noisy([&](const Results& r) { return r.d_p[i]; }), value.size(), terms));
    for (size_t e = 0; e < terms.size(); ++e) w.d_p.back()[e].value += start[i][e];
  }
  return w;
}

std::string name_of(size_t tensor) { return std::string(kUnet.tensor[tensor].block) + "." + kUnet.tensor[tensor].part; }

TEST(Unet, TheTable) {
  std::vector<std::string> skips;
  std::string shapes;
  int channels = 3, side = 8, res = 0, on_one_pixel = 0;
  for (int i = 0; i < kUnet.layers; ++i) {
    const UnetLayer& l = kUnet.layer[size_t(i)];
    SCOPED_TRACE(i);
    if (l.skip_in) {
      EXPECT_EQ(skips.back(), std::to_string(l.skip_in) + "@" + std::to_string(side));
      skips.pop_back();
    }
    EXPECT_EQ(l.in, channels + l.skip_in);
    EXPECT_EQ(l.side, side);
    channels = l.out, side = l.side_out();
    res += l.kind == UnetKind::res;
    on_one_pixel += l.kind == UnetKind::res && side == 1 ? 2 : 0;
    if (l.pushes) skips.push_back(std::to_string(channels) + "@" + std::to_string(side));
    const std::string shape = std::to_string(channels) + "@" + std::to_string(side) + " ";
    if (!shapes.ends_with(" " + shape) && shapes != shape) shapes += shape;
  }
  EXPECT_TRUE(skips.empty());
  EXPECT_EQ(shapes, "8@8 8@4 16@4 16@2 16@1 16@2 16@4 16@8 8@8 1@8 ");
  EXPECT_EQ(res, 22);
  EXPECT_EQ(on_one_pixel, 14);
  EXPECT_EQ(kUnet.mask_elements, 5 * 8 * 64 + 5 * 16 * 16 + 5 * 16 * 4 + 7 * 16);
  EXPECT_EQ(kUnet.parameters, 100'881);
}

TEST(Unet, TheFullFormIsTheSameFunction) {
  for (const Pairs pairs : {Pairs::initial, Pairs::small}) {
    const Problem p({"", 3, 2, true, 0, false, pairs});
    const std::vector<float> d_out = Draw{3000}.floats(p.c.n * d);
    UnetReference full(true, p.tensor), simple(false, p.tensor);
    EXPECT_EQ(full.parameters(), 137'667u);
    EXPECT_EQ(simple.parameters(), 100'881u);
    const Results of_full = run_reference(p, full, d_out), of_simple = run_reference(p, simple, d_out);
    EXPECT_EQ(full.forward(p.image(0), p.time(0)).left_on_stack, 0u);
    for (size_t i = 0; i < of_full.e0.size(); ++i) ASSERT_NEAR(of_full.e0[i], of_simple.e0[i], 1e-12);
    for (size_t ch = 0; ch < 3; ++ch) {
      for (size_t i = 0; i < of_full.d_image[ch].size(); ++i)
        ASSERT_NEAR(of_full.d_image[ch][i], of_simple.d_image[ch][i], 1e-12);
    }
    size_t dead = 0;
    for (int i = 0; i < int(full.p.size()); ++i) {
      Vec& of_live = full.g[size_t(i)];
      std::vector<bool> live(of_live.size(), false);
      for (int r = 0; i < kUnet.tensors && r < kUnet.tensor[size_t(i)].rows; ++r) {
        for (int c = 0; c < kUnet.tensor[size_t(i)].cols; ++c) {
          const size_t at = full.place(i, r, c), also = size_t(r * kUnet.tensor[size_t(i)].cols + c);
          live[at] = true;
          ASSERT_NEAR(of_live[at], simple.g[size_t(i)][also], 1e-11 * (1 + simple.g_terms[size_t(i)][also]));
        }
      }
      for (size_t at = 0; at < live.size(); ++at) {
        dead += !live[at];
        if (!live[at]) { ASSERT_EQ(of_live[at], 0) << "tensor " << i << ", " << at; }
      }
    }
    EXPECT_EQ(dead, 36'786u);
  }
}

// Along a random direction in every tensor and in every channel.
TEST(SlowUnet, ReferenceBackwardMatchesFiniteDifferences) {
  for (const Pairs pairs : {Pairs::initial, Pairs::small}) {
    SCOPED_TRACE(pairs == Pairs::small ? "small differences" : "initial");
    const Problem p({"", 1, 2, true, 0, false, pairs});
    Draw g{2000};
    UnetReference f(true, p.tensor);
    Vec image = p.image(0);
    const Vec weight = doubles(g.floats(d)), tau = p.time(3), mask = p.factors(0);
    const Vec d_image = f.backward(f.forward(image, tau, mask), weight);
    const auto compare = [&](Vec& at, const Vec& gradient, size_t first, size_t n) {
      const Vec keep = at, random = doubles(g.floats(int64_t(n)));
      double along = 0, terms = 1e-5, loss[2] = {};
      for (size_t i = 0; i < n; ++i) {
        const double step = random[i] * keep[first + i];  // as large as what it changes
        along += gradient[first + i] * step, terms += std::fabs(gradient[first + i] * step);
      }
      for (int side = 0; side < 2; ++side) {
        for (size_t i = 0; i < n; ++i) at[first + i] = keep[first + i] * (1 + (side ? -1e-5 : 1e-5) * random[i]);
        const Vec e0 = f.forward(image, tau, mask).e0;
        for (size_t i = 0; i < e0.size(); ++i) loss[side] += weight[i] * e0[i];
      }
      at = keep;
      EXPECT_NEAR((loss[0] - loss[1]) / 2e-5, along, 1e-4 * terms);
    };
    for (size_t i = 0; i < f.p.size(); ++i) {
      SCOPED_TRACE("tensor " + std::to_string(i));
      compare(f.p[i], f.g[i], 0, f.p[i].size());
    }
    for (size_t channel = 0; channel < 3; ++channel) compare(image, d_image, channel * 64, 64);
  }
}

TEST(Unet, TimeEmbedding) {
  const std::vector<float> tau = unet_time_embedding(7);
  ASSERT_EQ(tau.size(), size_t(7 * kUnetTimeIn));
  const double w[] = {1, 0.0464158883361278, 0.00215443469003188, 1e-4};
  for (int t = 0; t < 7; ++t) {
    for (int k = 0; k < 4; ++k) {
      EXPECT_NEAR(tau[size_t(t * 8 + k)], std::sin(t * w[k]), 1e-7);
      EXPECT_NEAR(tau[size_t(t * 8 + 4 + k)], std::cos(t * w[k]), 1e-7);
    }
  }
}

// The CPU's vectors of them: everywhere within a few roundings, and what is no number stays none.
TEST(Unet, SigmoidsOfAllSizes) {
  const float inf = HUGE_VALF;
  std::vector<float> z = {0, -0.0f, 1e-30f, 0.5f, -0.5f, 1, -1, 10, -10, 86.9f, -86.9f, 1e4f, -1e4f, inf, -80, NAN};
  Draw g;
  while (z.size() < 4096) z.push_back(g.uniform(-40, 40));
  for (size_t i = 0; i < z.size(); i += 16) {
    cpu::V16 s[1];
    const cpu::V16 of[1] = {cpu::load16(z.data() + i)};
    cpu::sigmoid16(s, of);
    float got[16];
    cpu::store16(got, s[0]);
    for (size_t k = 0; k < 16; ++k) {
      const double want = 1 / (1 + std::exp(-double(z[i + k])));
      if (std::isnan(z[i + k])) {
        EXPECT_TRUE(std::isnan(got[k]));
      } else {
        EXPECT_LE(std::fabs(got[k] - want), 4e-7 * want + 1.7e-38) << z[i + k];
      }
    }
  }
}

void check_forward(const Case& c, const std::vector<Device>& devs) {
  const Wanted want = wanted(Problem(c));
  SameBits same;
  for (const Device& dev : devs) {
    SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
    Problem p(c);
    DeviceCtx ctx(dev);
    dev.ops->unet_forward(ctx, mat(p.e0, p.cap, d), p.room(), p.tokens(), p.params(), p.mask(), p.rows());
    EXPECT_TRUE(close(p.e0, want.e0, 1));
    EXPECT_TRUE(same(dev, "e0_hat", p.e0));
    for (int64_t i = c.n * d; i < p.cap * d; ++i) ASSERT_EQ(p.e0[size_t(i)], kCanary) << "row past the count written";
  }
}

TEST(SlowUnet, ForwardMatchesDoubleReference) {
  for (const Case& c : cases) check_forward(c, devices());
  for (const Case& c : many) check_forward(c, fast_devices());
}

struct Gradients {
  std::vector<float> d_e;
  std::vector<std::vector<float>> d_h, tensor;
};
Gradients run_backward(const Device& dev, Problem& p, const std::vector<float>& d_out, Gradients g) {
  DeviceCtx ctx(dev);
  Mat d_h[kMaxModalities];
  for (int m = 0; m < p.c.M; ++m) d_h[m] = mat(g.d_h[size_t(m)], p.cap, d);
  UnetGrads grads{};
  for (size_t i = 0; i < g.tensor.size(); ++i) grads.p[i] = g.tensor[i].data();
  dev.ops->unet_forward(ctx, mat(p.e0, p.cap, d), p.room(), p.tokens(), p.params(), p.mask(), p.rows());
  dev.ops->unet_backward(ctx, mat(g.d_e, p.cap, d), d_h, grads, cmat(d_out, p.cap, d), p.tokens(), p.room(), p.params(),
                         p.mask(), p.rows());
  return g;
}

void check_backward(const Case& c, const std::vector<Device>& devs) {
  const Problem fresh(c);
  Draw g{1000};
  std::vector<float> d_out = g.floats(c.n * d);
  Gradients start{fresh.output(), std::vector(size_t(c.M), fresh.output()), {}};
  for (const auto& t : fresh.tensor) start.tensor.push_back(g.floats(int64_t(t.size())));
  const Wanted want = wanted(fresh, d_out, start.tensor);
  d_out.resize(size_t(fresh.cap * d), NAN);
  SameBits same;
  for (const Device& dev : devs) {
    SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
    Problem p(c);
    const Gradients got = run_backward(dev, p, d_out, start);
    EXPECT_TRUE(close(got.d_e, want.d_image[0], 1));
    EXPECT_TRUE(close(got.d_h[0], want.d_image[2], 1)) << "visual";
    if (c.M > 1) { EXPECT_TRUE(close(got.d_h[1], want.d_image[1], 1)) << "text"; }
    EXPECT_TRUE(same(dev, "d_e_t", got.d_e));
    for (size_t m = 0; m < got.d_h.size(); ++m) EXPECT_TRUE(same(dev, "d_h " + std::to_string(m), got.d_h[m]));
    for (size_t i = 0; i < got.tensor.size(); ++i) {
      EXPECT_TRUE(close(got.tensor[i], want.d_p[i], 1)) << name_of(i);
      EXPECT_TRUE(same(dev, name_of(i), got.tensor[i]));
    }
    for (size_t i = size_t(c.n * d); i < size_t(p.cap * d); ++i) {
      ASSERT_EQ(got.d_e[i], kCanary) << "row past the count written";
      for (const auto& d_h : got.d_h) ASSERT_EQ(d_h[i], kCanary) << "row past the count written";
    }
    if (c.n == 0) { EXPECT_EQ(got.tensor, start.tensor); }
  }
}

TEST(SlowUnet, BackwardMatchesDoubleReference) {
  for (const Case& c : cases) check_backward(c, devices());
  for (const Case& c : many) check_backward(c, fast_devices());
}

// More items than a device sums at once: what a list adds is what its parts add one after the other.
TEST(SlowUnet, GradientsOfALongListAreThoseOfItsParts) {
  const int64_t n = 1070, parts[] = {0, 16, 700, n};
  const Problem all({"", n, 2, true, 0});
  const std::vector<float> d_out = Draw{1000}.floats(n * d);
  SameBits same;
  for (const Device& dev : fast_devices()) {
    if (dev.family == "simt") continue;  // minutes
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    const auto run = [&](int64_t first, int64_t count, std::vector<std::vector<float>>& gradient) {
      Problem p = all;
      EstimatorTokens in = p.tokens();
      in.e_t = in.e_t.slice(first, count), in.t += first;
      for (int m = 0; m < 2; ++m) in.h[m] = in.h[m].slice(first, count);
      const UnetMask mask{p.bits.data() + first * kUnetMaskWords, 0.75f};
      UnetGrads grads{};
      for (size_t i = 0; i < gradient.size(); ++i) grads.p[i] = gradient[i].data();
      std::vector<float> d_e(size_t(count * d)), d_h0 = d_e, d_h1 = d_e;
      const Mat d_h[] = {mat(d_h0, count, d), mat(d_h1, count, d)};
      const RowList rows{nullptr, nullptr, count};
      dev.ops->unet_forward(ctx, mat(p.e0, n, d), p.room(), in, p.params(), mask, rows);
      dev.ops->unet_backward(ctx, mat(d_e, count, d), d_h, grads, cmat(d_out, n, d).slice(first, count), in, p.room(),
                             p.params(), mask, rows);
      return d_e;
    };
    std::vector<std::vector<float>> whole, sum;
    for (const auto& t : all.tensor) whole.emplace_back(t.size(), 0.0f), sum.emplace_back(t.size(), 0.0f);
    const std::vector<float> d_e = run(0, n, whole);
    for (int k = 0; k < 3; ++k) {
      const std::vector<float> of_part = run(parts[k], parts[k + 1] - parts[k], sum);
      if (parts[k] % 16 == 0) { EXPECT_TRUE(std::equal(of_part.begin(), of_part.end(), d_e.begin() + parts[k] * d)); }
    }
    for (size_t i = 0; i < whole.size(); ++i) {
      double squares = 1e-6;  // some are nothing but rounding
      for (const float v : sum[i]) squares += double(v) * v / double(sum[i].size());
      std::vector<Ref> want;
      for (const float v : sum[i]) want.push_back({v, std::fabs(v) + std::sqrt(squares)});
      EXPECT_TRUE(close(whole[i], want, 2e-5)) << name_of(i);
      EXPECT_TRUE(same(dev, name_of(i), whole[i]));
    }
  }
}

// As in a step: the scratch that unet_scratch plans is all that forward and backward ask for.
TEST(Unet, TakesTheScratchThatItPlans) {
  for (const Device& dev : fast_devices()) {
    SCOPED_TRACE(dev.name);
    Problem p(cases[4]);
    DeviceCtx ctx(dev);
    ScratchPlan plan;
    plan.threads = dev.threads;
    dev.ops->unet_scratch(plan, p.cap, kSteps);
    std::vector<float> d_e = p.output(), d_out(size_t(p.cap * d), 1.0f);
    std::vector<std::vector<float>> d_h(2, p.output()), tensor = p.tensor;
    const Mat d_hm[] = {mat(d_h[0], p.cap, d), mat(d_h[1], p.cap, d)};
    UnetGrads grads{};
    for (size_t i = 0; i < tensor.size(); ++i) grads.p[i] = tensor[i].data();
    dev.ops->unet_forward(ctx, mat(p.e0, p.cap, d), p.room(), p.tokens(), p.params(), p.mask(), p.rows());
    dev.ops->unet_backward(ctx, mat(d_e, p.cap, d), d_hm, grads, cmat(d_out, p.cap, d), p.tokens(), p.room(),
                           p.params(), p.mask(), p.rows());
    for (int k = 0; k < kScratchSlots - 1; ++k) EXPECT_LE(ctx.get().asked().slot[k], plan.slot[k]) << "slot " << k;
  }
}

struct Reverse {
  Problem p;
  HostSchedule host = make_schedule("linear", kSteps, false);
  static constexpr uint32_t kSeed = 11, kEpoch = 3;

  explicit Reverse(int64_t n, int M) : p({"", n, M, false, 0}) {}

  // After the first `taken` steps the others leave e as it is, to the bit: 0 x0 + 1 e + 0 z. So the last pool shows any
  // state of the chain.
  std::vector<std::vector<float>> run(const Device& dev, unsigned wanted = 15, int taken = kSteps,
                                      uint32_t late = 0) const {
    std::vector<std::vector<float>> pool(4, std::vector<float>(size_t(p.c.n * d), NAN));
    Mat pools[4];
    for (unsigned k = 0; k < 4; ++k) {
      if (wanted >> k & 1) pools[k] = mat(pool[k], p.c.n, d);
    }
    CMat h[kMaxModalities];
    for (int m = 0; m < p.c.M; ++m) h[m] = cmat(p.h[size_t(m)], p.c.n, d);
    HostSchedule of = host;
    for (size_t t = 0; t < size_t(kSteps - taken); ++t) of.a[t] = 0, of.b[t] = 1, of.sigma[t] = 0;
    const Schedule s{kSteps, of.sqrt_abar.data(), of.sqrt_1m_abar.data(), of.a.data(), of.b.data(), of.sigma.data()};
    DeviceCtx ctx(dev);
    ScratchPlan plan;
    plan.threads = dev.threads;
    dev.ops->unet_reverse_scratch(plan, p.c.n, kSteps);
    if (dev.ops->set_late) dev.ops->set_late(ctx, Late{late, 0, 0, 0});
    dev.ops->unet_reverse(ctx, pools, cmat(p.e_t, p.c.n, d), h, p.c.M, cmat(p.tau, kSteps, kUnetTimeIn), p.params(), s,
                          kSeed, late ? kLateEpoch : kEpoch);
    for (int k = 0; k < kScratchSlots - 1; ++k) EXPECT_LE(ctx.get().asked().slot[k], plan.slot[k]) << "slot " << k;
    return pool;
  }

  Vec normals(Use use, int t, int64_t i) const {
    return normals_of(Stream{kSeed, use, kEpoch, uint32_t(t)}, i, size_t(d / 4));
  }
  // What follows `before`, the state after taken - 1 steps; at 0 the beginning of the chain.
  std::vector<Ref> state(const std::vector<float>& before, int taken) const {
    std::vector<Ref> all;
    UnetReference f(false, p.tensor);
    for (int64_t i = 0; i < p.c.n; ++i) {
      const int t = kSteps - taken + 1;
      const size_t at = size_t(t - 1);
      const double abar = host.abar.back();
      std::vector<Ref> next(size_t(d), Ref{});
      const Vec z = taken ? normals(Use::reverse_noise, t, i) : normals(Use::reverse_start, kSteps, i);
      for (size_t j = 0; j < size_t(d); ++j) {
        const size_t e = size_t(i * d) + j;
        taken ? next[j].add(double(host.b[at]) * before[e]) : next[j].add(std::sqrt(abar) * p.e_t[e]);
        taken ? next[j].add(t > 1 ? host.sigma[at] * z[j] : 0) : next[j].add(std::sqrt(1 - abar) * z[j]);
        next[j].mass *= 1e-6;
      }
      if (taken) {
        const Vec image = p.image(Vec(before.begin() + i * d, before.begin() + (i + 1) * d), i), tau = p.time(t - 1);
        f.noise = 0;
        const Vec exact = f.forward(image, tau).e0;
        f.noise = kNoise;
        std::vector<Vec> noisy;
        for (int k = 0; k < kNoisyRuns; ++k) noisy.push_back(f.forward(image, tau).e0);
        const std::vector<Ref> x0 = with_distance(exact, noisy, size_t(d));
        for (size_t j = 0; j < size_t(d); ++j) {
          next[j].value += host.a[at] * x0[j].value;
          next[j].mass += std::fabs(host.a[at]) * (x0[j].mass + 1e-6 * std::fabs(x0[j].value));
        }
      }
      all.insert(all.end(), next.begin(), next.end());
    }
    return all;
  }
};

// Every step of all items, from the state that the device itself was in before it: nothing that an earlier step did is
// in the comparison. And the pools of the whole chain are these states.
TEST(SlowUnet, EveryReverseStepMatchesDoubleFromTheSameState) {
  for (const Device& dev : one_of_each_family()) {
    for (const int M : {1, 2}) {
      SCOPED_TRACE(std::to_string(M) + " modalities on " + dev.name);
      const Reverse r(dev.family == "cpu" ? 18 : 5, M);
      const auto pools = r.run(dev);
      const int at[] = {kSteps / 4, kSteps / 2, 3 * kSteps / 4, kSteps};
      std::vector<float> before;
      for (int taken = 0; taken <= kSteps; ++taken) {
        const std::vector<float> now = r.run(dev, 0b1000, taken)[3];
        for (size_t k = 0; k < 4; ++k) {
          if (taken == at[k]) { EXPECT_EQ(now, pools[k]) << "pool " << k; }
        }
        EXPECT_TRUE(close(now, r.state(before, taken), 1)) << "after " << taken << " steps";
        before = now;
      }
    }
  }
}

TEST(SlowUnet, ReverseByItemsAndPools) {
  const Reverse all(19, 2);
  Reverse few = all;
  few.p.c.n = 7;
  SameBits same;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    const auto want = all.run(dev);
    for (size_t k = 0; k < 4; ++k) EXPECT_TRUE(same(dev, "pool " + std::to_string(k), want[k]));
    const auto some = all.run(dev, 0b1010);
    EXPECT_EQ(some[1], want[1]);
    EXPECT_EQ(some[3], want[3]);
    EXPECT_TRUE(std::isnan(some[0][0]) && std::isnan(some[2][0]));
    const auto of_few = few.run(dev);
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_TRUE(std::equal(of_few[k].begin(), of_few[k].begin() + 7 * d, want[k].begin())) << "pool " << k;
    }
    if (dev.ops->set_late) { EXPECT_EQ(all.run(dev, 15, kSteps, Reverse::kEpoch), want); }
  }
}

// The last step has c1 = 1 and c2 = 0: X is f_theta's last output.
TEST(Unet, TheEndIsTheLastEstimate) {
  const Reverse r(3, 2);
  for (const Device& dev : one_of_each_family()) {
    SCOPED_TRACE(dev.name);
    Problem p = r.p;
    p.e_t = r.run(dev, 0b1000, kSteps - 1)[3];
    p.t.assign(p.t.size(), 0);
    DeviceCtx ctx(dev);
    dev.ops->unet_forward(ctx, mat(p.e0, p.cap, d), p.room(), p.tokens(), p.params(), p.mask(), p.rows());
    EXPECT_EQ(r.run(dev)[3], p.e0);
  }
}

}  // namespace
}  // namespace ccdrec::test::unet_test
