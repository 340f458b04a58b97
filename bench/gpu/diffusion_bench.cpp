// The diffusion: estimator and encoder on a batch, the reverse processes over all items, and what surrounds them in a
// step.
#include <fmt/format.h>

#include "bench/gpu/bench.h"
#include "kernels/cuda/estimator_weights.h"
#include "kernels/encoder.h"
#include "kernels/precision.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth, kTokens = 4, kBatchItems = 1300;

struct DeviceSchedule {
  Array<float> s[5];
  Schedule view;
  DeviceSchedule(Device& dev, int steps) {
    const HostSchedule h = make_schedule("linear", steps, false);
    const std::vector<float>* const from[5] = {&h.sqrt_abar, &h.sqrt_1m_abar, &h.a, &h.b, &h.sigma};
    for (int k = 0; k < 5; ++k) s[k] = Array<float>(dev, *from[k]);
    view = {steps, s[0].p(), s[1].p(), s[2].p(), s[3].p(), s[4].p()};
  }
};

struct Tokens {  // of n items, four each
  DeviceMatrix e_t, h0, h1, tau;
  Array<int32_t> t;
  EstimatorTokens in;
  Tokens(Device& dev, int64_t n, int steps)
      : e_t(dev, n, d), h0(dev, n, d), h1(dev, n, d), tau(dev, steps, d), t(dev, random_ids(n, steps, 4)) {
    in.e_t = e_t, in.h[0] = h0, in.h[1] = h1, in.modalities = 2, in.tau = tau, in.t = t.p();
  }
};

struct Attention {
  DeviceMatrix w;
  EstimatorParams params;
  explicit Attention(Device& dev) : w(dev, 3 * d, d) {
    const CMat all = w;
    params = {all.slice(0, d), all.slice(d, d), all.slice(2 * d, d)};
  }
};

// The tensors of an encoder layer of inner width 4d, one after the other.
constexpr int64_t kInner = 4 * d, kLayerFloats = 4 * d * d + 2 * d * kInner + 9 * d + kInner;
template <class View, class Float>
EncoderLayer<View> cut(Float* p) {
  constexpr int64_t kShapes[16][2] = {{1, d}, {1, d}, {d, d}, {1, d}, {d, d},      {1, d},      {d, d},      {1, d},
                                      {d, d}, {1, d}, {1, d}, {1, d}, {d, kInner}, {1, kInner}, {kInner, d}, {1, d}};
  EncoderLayer<View> l;
  int k = 0;
  for (View* const tensor : tensors_of(l)) {
    *tensor = View{p, kShapes[k][0], kShapes[k][1]};
    p += kShapes[k][0] * kShapes[k][1], ++k;
  }
  return l;
}
struct Encoder {
  DeviceMatrix w;
  EncoderParams params;
  explicit Encoder(Device& dev) : w(dev, 1, kLayerFloats) {
    params.layer[0] = cut<CMat>(static_cast<const float*>(w.a.p()));
  }
};

// What two ways that should agree came to: sums of `terms` products, so many times over.
void expect_equal(Bench& b, const std::string& what, const Array<float>& one, const Array<float>& other,
                  int64_t terms) {
  const std::vector<float> x = one.host(), y = other.host();
  double most = 1e-30, off = 0;
  for (size_t e = 0; e < x.size(); ++e) {
    most = std::max({most, std::fabs(double(x[e])), std::fabs(double(y[e]))});
    if (!(std::fabs(double(x[e]) - y[e]) <= off)) off = std::fabs(double(x[e]) - y[e]);
  }
  if (!(off <= 2 * sum_error(terms) * most))
    b.failed(what, fmt::format("the two ways differ by {:.1e} of the largest element", off / most));
}

// The weight gradients alone, ours and by the library: which of the two the estimator should call. Operations of the
// four products counted once.
void weight_gradients(Bench& b, CMat d_e0, const EstimatorSaved& saved, const EstimatorParams& params, RowList rows) {
  Device& dev = b.dev();
  const int64_t n = rows.capacity;
  const double tokens = double(n) * kTokens, flop = 2.0 * d * d * (tokens + double(n) + 2 * d),
               bytes = 4.0 * d * 2 * (tokens + double(n));
  Matrix dw(dev, 3 * d, d), by_library(dev, 3 * d, d), dg(dev, d, d);
  const auto part = [](Matrix& m, int k) { return m.mat().slice(k * d, d); };
  const std::string shape = fmt::format("{} items, 4 tokens", n);
  const auto library = [&] {
    dev.ops.gemm(dev.ctx, dg, saved.x, true, saved.u, false, false);
    dev.ops.gemm(dev.ctx, part(by_library, 0), dg, false, params.wk, false, true);
    dev.ops.gemm(dev.ctx, part(by_library, 1), dg, true, params.wq, false, true);
    dev.ops.gemm(dev.ctx, part(by_library, 2), saved.s, true, d_e0, false, true);
  };
  const auto ours = [&] {
    cuda::estimator_weight_gradients(dev.ctx, {part(dw, 0), part(dw, 1), part(dw, 2)}, d_e0, saved, params, rows,
                                     int(kTokens));
  };
  ours(), library();
  expect_equal(b, "weight gradients", dw.array(), by_library.array(), n * kTokens + d);
  const double cublas =
      b.measure("estimator_backward", "its weight gradients by cuBLAS, " + shape, bytes, flop, library).warm;
  Line& l = b.measure("estimator_backward", "its weight gradients, " + shape, bytes, flop, ours);
  l.at_least("cuBLAS on the same products (over 100 %: ours is faster)", cublas / l.warm);
}

void estimator(Bench& b) {
  Device& dev = b.dev();
  const int64_t n = b.n(kBatchItems);
  const Tokens tokens(dev, n, 20);
  const Attention a(dev);
  Matrix e0(dev, n, d), x(dev, n * 4, d), rstd(dev, n * 4, 1), y(dev, n * 4, d), u(dev, n * 4, d), att(dev, n * 4, 4),
      s(dev, n, d);
  const EstimatorSaved saved{x, rstd, y, u, att, s};
  const RowList rows{nullptr, nullptr, n};
  b.measure("estimator_forward", fmt::format("{} items, 4 tokens", n), 4.0 * double(n) * d * (3 + 1 + 8 + 1),
            2.0 * double(n) * 5 * d * d,
            [&] { dev.ops.estimator_forward(dev.ctx, e0, saved, tokens.in, a.params, rows); });
  Matrix d_e(dev, n, d), dh0(dev, n, d), dh1(dev, n, d), dw(dev, 3 * d, d);
  const DeviceMatrix d_e0(dev, n, d);
  const Mat d_h[2] = {dh0, dh1};
  const EstimatorGrads grads{dw.mat().slice(0, d), dw.mat().slice(d, d), dw.mat().slice(2 * d, d)};
  b.measure("estimator_backward", fmt::format("{} items, 4 tokens", n), 4.0 * double(n) * d * (8 + 1 + 3 + 1),
            4.0 * double(n) * 5 * d * d,
            [&] { dev.ops.estimator_backward(dev.ctx, d_e, d_h, grads, d_e0, tokens.in, saved, a.params, rows); });
  weight_gradients(b, d_e0, saved, a.params, rows);
}

void encoder(Bench& b) {
  Device& dev = b.dev();
  const int64_t n = b.n(kBatchItems);
  const Tokens tokens(dev, n, 20);
  const Encoder e(dev);
  const Array<float> room(dev, encoder_saved_floats(n, 2, d, kInner, e.params.heads, 1) + 16 * 16);
  const EncoderSaved saved = encoder_saved(room.p(), n, 2, d, kInner, e.params.heads, 1);
  Matrix e0(dev, n, d);
  const RowList rows{nullptr, nullptr, n};
  // Saved: x1 q k v o x2, u of 4d, two rstd and the attention of the heads, a token; the tokens' three rows in, one row
  // out; the weights.
  const double kept = double(n) * kTokens * double(10 * d + 2 + kTokens * e.params.heads),
               flop = 24.0 * double(n) * kTokens * d * d;
  const std::string shape = fmt::format("{} items, 4 tokens, inner {}", n, kInner);
  b.measure("encoder_forward", shape, 4 * (kept + 4.0 * double(n) * d + kLayerFloats), flop,
            [&] { dev.ops.encoder_forward(dev.ctx, e0, saved, tokens.in, e.params, rows); });
  Matrix d_e(dev, n, d), dh0(dev, n, d), dh1(dev, n, d), dw(dev, 1, kLayerFloats);
  const DeviceMatrix d_e0(dev, n, d);
  const Mat d_h[2] = {dh0, dh1};
  EncoderGrads grads;
  grads.layer[0] = cut<Mat>(dw.mat().p);
  b.measure("encoder_backward", shape, 4 * (kept + 4.0 * double(n) * d + 3.0 * kLayerFloats), 2 * flop,
            [&] { dev.ops.encoder_backward(dev.ctx, d_e, d_h, grads, d_e0, tokens.in, saved, e.params, rows); });
}

// Both reverse processes read Q and two projections and write four pools; a normal for each element and step.
struct AllItems {
  int64_t I;
  int steps;
  Tokens tokens;
  DeviceSchedule schedule;
  Matrix p0, p1, p2, p3;
  Mat pools[4];
  CMat mods[2];
  AllItems(Bench& b, int64_t items, int T)
      : I(b.n(items)),
        steps(b.scale() < 1 ? 4 : T),
        tokens(b.dev(), I, steps),
        schedule(b.dev(), steps),
        p0(b.dev(), I, d),
        p1(b.dev(), I, d),
        p2(b.dev(), I, d),
        p3(b.dev(), I, d),
        pools{p0, p1, p2, p3},
        mods{tokens.h0, tokens.h1} {}
  double bytes() const { return 4.0 * double(I) * d * 7; }
  double normals() const { return double(I) * steps * d; }
};

void reverse(Bench& b) {
  Device& dev = b.dev();
  const Attention a(dev);
  for (const bool baby : {true, false}) {
    const AllItems all(b, baby ? 7050 : 23033, baby ? 20 : 100);
    Line& l =
        b.measure("reverse_process", fmt::format("{}: {} items, T {}", baby ? "Baby" : "Clothing", all.I, all.steps),
                  all.bytes(), 4.0 * all.normals() * d, [&] {
                    dev.ops.reverse_process(dev.ctx, all.pools, all.tokens.e_t, all.mods, 2, all.tokens.tau, a.params,
                                            all.schedule.view, 1, 0);
                  });
    l.more = kOperationsOfNormal * all.normals();
    if (baby)
      l.within_seconds(0.5e-3).within_floors(b.top());
    else
      l.within_floors(b.top(), 2);
  }
}

void encoder_reverse(Bench& b) {
  Device& dev = b.dev();
  const Encoder e(dev);
  const AllItems all(b, 7050, 20);
  Line& l = b.measure("encoder_reverse", fmt::format("Baby: {} items, T {}", all.I, all.steps), all.bytes(),
                      24.0 * all.normals() * kTokens * d, [&] {
                        dev.ops.encoder_reverse(dev.ctx, all.pools, all.tokens.e_t, all.mods, 2, all.tokens.tau,
                                                e.params, all.schedule.view, 1, 0);
                      });
  l.more = kOperationsOfNormal * all.normals();
}

void around(Bench& b) {
  Device& dev = b.dev();
  const int64_t n = b.n(kBatchItems), I = b.n(7050);
  const DeviceMatrix q(dev, I, d), ehat(dev, n, d), d_e_t(dev, n, d);
  Matrix eps(dev, n, d), e_t(dev, n, d), ego(dev, I, d), d_q(dev, I, d);
  const Array<int32_t> t(dev, random_ids(n, 20, 4));
  const DeviceRows listed(dev, evenly(n, I));
  const RowList rows = listed.list();
  const DeviceSchedule schedule(dev, 20);
  const std::string shape = fmt::format("{} x {}", n, d);
  const double elements = double(n) * d;
  b.measure("diffuse: draw_normals", shape, 4 * elements, 0, [&] {
     dev.ops.draw_normals(dev.ctx, eps, rows, Stream{1, Use::noise});
   }).more = kOperationsOfNormal * elements;
  b.measure("diffuse", shape, 12 * elements, 0,
            [&] { dev.ops.diffuse(dev.ctx, e_t, q, eps, t.p(), rows, schedule.view); });
  b.measure("diffuse: fuse", shape, 12 * elements, 0, [&] { dev.ops.fuse(dev.ctx, ego, q, ehat, rows, 0.5f); });
  b.measure("diffuse_backward", shape, 12 * elements, 0,
            [&] { dev.ops.diffuse_backward(dev.ctx, d_q, d_e_t, t.p(), rows, schedule.view); });

  // Slots of a batch of positives and negatives. Read Q, e0_hat, g_ego, d_q; written d_e0_hat, d_q, g_ego.
  const int64_t slots = b.n(1024);
  OwnedGroups owned(dev, slots);
  Groups g = owned.groups();
  const Array<int32_t> ids(dev, random_ids(slots, I, 31));
  dev.ops.group(dev.ctx, g, ids.p(), slots, I);
  int64_t items = 0;
  dev.ops.download(dev.ctx, &items, g.rows.count, sizeof items);
  const DeviceMatrix e0(dev, slots, d);
  Matrix to(dev, slots, d);
  Array<double> loss(dev, 1);
  b.measure("align", fmt::format("{} items in {} slots", items, slots), 28.0 * double(items) * d + 12.0 * double(items),
            0, [&] { dev.ops.align(dev.ctx, loss.p(), to, d_q, ego, q, e0, g, 0.1f, slots, 0.5f); });
}

}  // namespace

void diffusion(Bench& b) {
  if (b.wanted({"reverse_process"})) reverse(b);
  if (b.wanted({"estimator_forward", "estimator_backward"})) estimator(b);
  if (b.wanted({"encoder_forward", "encoder_backward"})) encoder(b);
  if (b.wanted({"encoder_reverse"})) encoder_reverse(b);
  if (b.wanted({"diffuse", "draw_normals", "fuse", "diffuse_backward", "align"})) around(b);
}

}  // namespace ccdrec::bench
