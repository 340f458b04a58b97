// bench_gpu: every operation of the catalogue on a GPU at the sizes of the data sets: microseconds warm (data in L2 where it fits) and cold (L2
// overwritten before each call), bytes and operations against what the machine was measured to do.
//
//   bench_gpu [--out FILE] [--only WORD] [--scale S]     Markdown on stdout; FILE.md and FILE.json when --out is given
//
// Inputs are as skewed as the data (bench/kernels/skewed.h). `floor` is the larger of bytes / copy rate and flop / matrix rate. One call of an
// operation may be several launches; the time is theirs together.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/arguments.h"
#include "bench/command.h"
#include "bench/gpu/ceilings.h"
#include "bench/kernels/skewed.h"
#include "data/error.h"
#include "host/device.h"
#include "host/machine.h"
#include "kernels/cuda/library.h"

namespace ccdrec::bench {
namespace {

struct Line {
  std::string op, shape;
  double warm = 0, least = 0, spread = 0, cold = 0;  // seconds: median warm, minimum, (p90 - p10) / median, median cold
  double bytes = 0, flop = 0;
  std::string against;  // a target of the project and what it is measured against
  double share = 0, target = 0;
};

double percentile(std::vector<double> v, double p) {
  std::sort(v.begin(), v.end());
  return v[size_t(p * double(v.size() - 1) + 0.5)];
}

class Bench {
 public:
  Bench(double scale, std::string only) : scale_(scale), only_(std::move(only)) {
    std::string note;
    dev_ = make_device("cuda", 0, note);
    clock_ = std::make_unique<GpuClock>(dev_->ctx);
  }
  Device& dev() { return *dev_; }
  GpuClock& clock() { return *clock_; }
  int64_t n(int64_t full) const { return std::max<int64_t>(1, int64_t(std::llround(double(full) * scale_))); }
  double scale() const { return scale_; }
  bool wanted(const std::string& op) const { return only_.empty() || op.find(only_) != std::string::npos; }
  std::vector<Line>& lines() { return lines_; }
  const std::vector<std::string>& failures() const { return failures_; }
  void failed(const std::string& what, const std::exception& e) {
    failures_.push_back(what + ": " + e.what());
    std::cerr << "bench_gpu: " << failures_.back() << "\n";
  }

  // Warm: as many calls as last a millisecond, recorded together and replayed within one pair of events, so that neither the host's launches nor the
  // start of a graph is measured; cold: one call, replayed after the cache was overwritten.
  Line& measure(const std::string& op, const std::string& shape, double bytes, double flop, const std::function<void()>& call) {
    call();
    call();
    dev_->wait();
    void* const recorded = dev_->ops.record(dev_->ctx, call);
    const auto again = [&] { dev_->ops.replay(dev_->ctx, recorded); };
    again();
    const double once = clock_->seconds(again);
    const int repeat = scale_ < 1 ? 2 : int(std::clamp(1e-3 / std::max(once, 1e-7), 1.0, 200.0)), samples = scale_ < 1 ? 3 : once > 0.05 ? 5 : 25;
    void* const together = dev_->ops.record(dev_->ctx, [&] {
      for (int r = 0; r < repeat; ++r) call();
    });
    std::vector<double> warm, cold;
    for (int k = 0; k < samples; ++k) warm.push_back(clock_->seconds([&] { dev_->ops.replay(dev_->ctx, together); }) / repeat);
    for (int k = 0; k < std::min(samples, 9); ++k) {
      clock_->flush_l2();
      cold.push_back(clock_->seconds(again));
    }
    dev_->ops.forget(dev_->ctx, together);
    dev_->ops.forget(dev_->ctx, recorded);
    dev_->check_faults();
    const double median = percentile(warm, 0.5);
    lines_.push_back({op, shape, median, percentile(warm, 0), (percentile(warm, 0.9) - percentile(warm, 0.1)) / median, percentile(cold, 0.5), bytes,
                      flop, "", 0, 0});
    std::cerr << fmt::format("{:<22} {:<46} {:>10.1f} us warm {:>10.1f} us cold\n", op, shape, 1e6 * median, 1e6 * lines_.back().cold);
    return lines_.back();
  }

 private:
  double scale_;
  std::string only_;
  std::unique_ptr<Device> dev_;
  std::unique_ptr<GpuClock> clock_;
  std::vector<Line> lines_;
  std::vector<std::string> failures_;
};

Array<float> floats(Device& dev, int64_t n) {
  Array<float> a(dev, n);
  const std::vector<float> piece = random_floats(std::min<int64_t>(n, int64_t(1) << 20));
  for (int64_t at = 0; at < n; at += int64_t(piece.size())) a.upload(piece.data(), std::min<int64_t>(n - at, int64_t(piece.size())), at);
  return a;
}
struct DeviceMatrix {
  Array<float> a;
  int64_t rows, cols;
  DeviceMatrix(Device& dev, int64_t r, int64_t c) : a(floats(dev, r * c)), rows(r), cols(c) {}
  operator Mat() const { return {a.p(), rows, cols}; }
  operator CMat() const { return {a.p(), rows, cols}; }
};

Shape scaled(Shape s, double f) {
  return {std::max<int64_t>(20, int64_t(double(s.U) * f)), std::max<int64_t>(30, int64_t(double(s.I) * f)),
          std::max<int64_t>(100, int64_t(double(s.E) * f))};
}
constexpr Shape kElec{192403, 63001, 1689188}, kClothing{39387, 23033, 278677};

struct DeviceGraph {
  SkewedPairs pairs;
  Array<int64_t> train_ptr, ptr;
  Array<int32_t> train_col, col, user, item;
  Array<float> val, weight;
  int64_t N, nnz;
  DeviceGraph(Device& dev, Shape s) : pairs(skewed_pairs(s)), N(s.U + s.I) {
    const UserItemGraph g(pairs, 0);
    nnz = g.nnz();
    train_ptr = Array<int64_t>(dev, pairs.row_ptr), train_col = Array<int32_t>(dev, pairs.item);
    ptr = Array<int64_t>(dev, g.row_ptr), col = Array<int32_t>(dev, g.col), val = Array<float>(dev, g.val);
    user = Array<int32_t>(dev, pairs.user), item = Array<int32_t>(dev, pairs.item), weight = Array<float>(dev, pairs.weight);
  }
  Csr view() const { return {N, N, ptr.p(), col.p(), val.p(), nnz}; }
  Csr train() const { return {pairs.shape.U, pairs.shape.I, train_ptr.p(), train_col.p(), nullptr}; }
  EdgeList edges() const { return {user.p(), item.p(), weight.p(), int64_t(pairs.user.size()), pairs.shape.U, pairs.shape.I}; }
};

// One product both ways. Their ratio decides spmm_rule (kernels/spmm.h): over 100 %, and beyond the spread of both, cuSPARSE is the faster one.
Line& measure_spmm(Bench& b, const std::string& shape, const Csr& a, Mat y, CMat x) {
  Device& dev = b.dev();
  const double d = double(x.cols), bytes = double(a.nnz) * (8 + 4 * d) + double(a.rows) * (8 + 4 * d), flop = 2.0 * double(a.nnz) * d;
  const auto call = [&] { dev.ops.spmm(dev.ctx, y, a, x, false); };
  dev.ctx.spmm = SpmmBy::own;
  const size_t at = b.lines().size();
  const double own = b.measure("spmm", shape, bytes, flop, call).warm;
  if (gpu_info().cusparse) {
    dev.ctx.spmm = SpmmBy::cusparse;
    try {
      Line& l = b.measure("spmm by cuSPARSE", shape, bytes, flop, call);
      l.against = "our spmm of the same graph", l.share = own / l.warm;
    } catch (const std::exception& e) { b.failed("spmm by cuSPARSE, " + shape, e); }
  }
  dev.ctx.spmm = SpmmBy::automatic;
  return b.lines()[at];
}

void sparse(Bench& b, const GpuCeilings& top) {
  if (!b.wanted("spmm")) return;
  Device& dev = b.dev();
  const int64_t d = 64;
  for (const auto& [name, shape] : {std::pair("baby", kBaby), std::pair("elec", kElec)}) {
    const DeviceGraph g(dev, scaled(shape, b.scale()));
    const DeviceMatrix x(dev, g.N, d);
    Matrix y(dev, g.N, d);
    // The yardstick: as many random rows of the same table as the graph has edges.
    const int64_t reads = std::max<int64_t>(32, g.nnz / 32 * 32);
    const Array<int32_t> ids(dev, random_ids(reads, g.N, 7));
    Matrix acc(dev, reads / 32, d);
    Line& gather = b.measure("row gather (yardstick)", fmt::format("{}: {} random rows of 256 B", name, reads), double(reads) * (4 + 4 * d), 0,
                             [&] { gather_random_rows(dev.ctx, acc, x, ids.p()); });
    const double rate = gather.bytes / gather.warm;
    Line& l = measure_spmm(b, fmt::format("{}: {} edges, {} rows", name, g.nnz, g.N), g.view(), y, x);
    l.against = "random 256-byte row gather", l.share = l.bytes / l.warm / rate, l.target = name == std::string("elec") ? 0.8 : 0;
  }
  // What a popular node is at its worst: one row with all the edges, which is one block of ours.
  const int64_t edges = b.n(1000000), N = b.n(200000);
  const Array<int64_t> ptr(dev, std::vector<int64_t>{0, edges});
  std::vector<int32_t> columns = random_ids(edges, N, 11);
  std::sort(columns.begin(), columns.end());
  const Array<int32_t> col(dev, columns);
  const Array<float> val = floats(dev, edges);
  const DeviceMatrix x(dev, N, d);
  Matrix y(dev, 1, d);
  measure_spmm(b, fmt::format("one row of {} edges", edges), {1, N, ptr.p(), col.p(), val.p(), edges}, y, x);
  (void)top;
}

void optimiser(Bench& b, const GpuCeilings& top) {
  if (!b.wanted("adam")) return;
  Device& dev = b.dev();
  std::vector<AdamCoef> coef(64);
  for (size_t k = 0; k < coef.size(); ++k) coef[k] = adam_coef(1e-3, {}, int64_t(k) + 1);
  const Array<AdamCoef> on_device(dev, coef);
  const AdamSchedule s{on_device.p(), int64_t(coef.size()), {}};
  const int64_t rows = b.n(255404), d = 64, n = rows * d;
  const DeviceMatrix p(dev, rows, d), m(dev, rows, d), g(dev, rows, d);
  Matrix v(dev, rows, d);
  Line& l = b.measure("adam", fmt::format("{} elements", n), 28.0 * double(n), 0, [&] { dev.ops.adam(dev.ctx, p, m, v, g, s, 5); });
  l.against = "copy", l.share = l.bytes / l.cold / (top.copy_gbs * 1e9), l.target = 0.85;
  Array<int32_t> value_at(dev, rows), moments_at(dev, rows);
  const Table table{p, m, v, value_at.p(), moments_at.p()};
  // Every row behind; the steps are put back by one more operation, which is timed too (8 bytes a row).
  Array<int32_t> zero(dev, rows);
  for (const int64_t owed : {1, 50})
    b.measure("adam_catch_up", fmt::format("{} rows of {}, {} owed", rows, d, owed == 1 ? "one step" : "50 steps"),
              16.0 * double(n) + 20.0 * double(rows), 0, [&] {
                cuda::library::copy(dev.ctx, value_at.p(), zero.p(), size_t(rows) * 4);
                dev.ops.adam_catch_up(dev.ctx, table, RowList{nullptr, nullptr, rows}, s, owed);
              });
  b.measure("adam_rows", fmt::format("{} rows of {}, a gradient at once", rows, d), 28.0 * double(n) + 24.0 * double(rows), 0, [&] {
    cuda::library::copy(dev.ctx, value_at.p(), zero.p(), size_t(rows) * 4), cuda::library::copy(dev.ctx, moments_at.p(), zero.p(), size_t(rows) * 4);
    dev.ops.adam_rows(dev.ctx, table, RowList{nullptr, nullptr, rows}, g, true, s, 1);
  });
}

void sampling(Bench& b, const GpuCeilings& top) {
  Device& dev = b.dev();
  const int64_t d = 64;
  if (b.wanted("similar_negative")) {
    for (const auto& [I, B, C] : {std::tuple(int64_t(7050), int64_t(512), int64_t(705)), std::tuple(int64_t(63001), int64_t(512), int64_t(6300)),
                                  std::tuple(int64_t(1000000), int64_t(2048), int64_t(100000))}) {
      const int64_t items = std::max<int64_t>(64, b.n(I)), rows = std::max<int64_t>(8, b.n(B)), count = std::max<int64_t>(8, b.n(C));
      const DeviceGraph g(dev, scaled({kBaby.U, items, kBaby.E}, items == I ? 1.0 : b.scale()));
      const DeviceMatrix pool(dev, g.pairs.shape.I, d);
      Array<int32_t> cand(dev, count), out(dev, rows), flag(dev, 1);
      const Array<int32_t> pos(dev, random_ids(rows, g.pairs.shape.I, 1)), users(dev, random_ids(rows, g.pairs.shape.U, 2));
      dev.ops.candidates(dev.ctx, cand.p(), count, g.pairs.shape.I, Stream{1, Use::candidates});
      const double flop = 2.0 * double(rows) * double(count) * d;
      Line& l = b.measure("similar_negative", fmt::format("B {}, C {}, kappa 0.1", rows, count), 4.0 * double(rows + count) * d, flop, [&] {
        dev.ops.similar_negative(dev.ctx, out.p(), flag.p(), pool, pos.p(), users.p(), rows, cand.p(), count, g.train(),
                                 std::max<int64_t>(1, count / 10), false, pos.p(), Stream{1, Use::cns_rank});
      });
      l.against = "cuBLAS, the one product it replaces", l.share = flop / l.warm / (top.skinny_tflops * 1e12), l.target = C == 100000 ? 0.25 : 0;
    }
  }
  if (b.wanted("draws")) {
    const DeviceGraph g(dev, scaled(kElec, b.scale()));
    const int64_t E = g.edges().n, I = g.pairs.shape.I, B = b.n(2048);
    Array<int32_t> order(dev, E), negatives(dev, B), cand(dev, std::max<int64_t>(1, I / 10));
    const Array<int32_t> users(dev, random_ids(B, g.pairs.shape.U, 2)), items(dev, random_ids(I, I, 3));
    OwnedCsr pruned(dev, g.N, g.N, 2 * E);
    b.measure("draws: shuffle", fmt::format("{} pairs", E), 24.0 * double(E), 0, [&] {
      dev.ops.shuffle(dev.ctx, order.p(), E, Stream{1, Use::shuffle});
    });
    b.measure("draws: prune", fmt::format("{} edges, rho 0.8", E), 60.0 * double(E), 0, [&] {
      dev.ops.prune(dev.ctx, pruned.mutable_view(), g.edges(), 0.8, Stream{1, Use::prune});
    });
    b.measure("draws: negatives", fmt::format("B {}", B), 8.0 * double(B), 0, [&] {
      dev.ops.negatives(dev.ctx, negatives.p(), users.p(), B, 1, 0, g.train(), items.p(), I, Stream{1, Use::neg_uniform});
    });
    b.measure("draws: candidates", fmt::format("C {}", cand.n()), 8.0 * double(cand.n()), 0, [&] {
      dev.ops.candidates(dev.ctx, cand.p(), cand.n(), I, Stream{1, Use::candidates});
    });
  }
}

struct Attention {  // an estimator with data for n items of capacity cap
  int64_t cap, K, d = 64;
  DeviceMatrix w, e_t, h0, h1, tau;
  Array<int32_t> t;
  EstimatorTokens tokens;
  EstimatorParams params;
  Attention(Device& dev, int64_t n, int steps)
      : cap(n), K(4), w(dev, 3 * 64, 64), e_t(dev, n, 64), h0(dev, n, 64), h1(dev, n, 64), tau(dev, steps, 64), t(dev, random_ids(n, steps, 4)) {
    tokens.e_t = e_t, tokens.h[0] = h0, tokens.h[1] = h1, tokens.modalities = 2, tokens.tau = tau, tokens.t = t.p();
    const CMat all = w;
    params = {all.slice(0, 64), all.slice(64, 64), all.slice(128, 64)};
  }
};

void diffusion(Bench& b, const GpuCeilings&) {
  Device& dev = b.dev();
  const int64_t d = 64;
  if (b.wanted("estimator")) {
    const int64_t n = b.n(1300);
    Attention a(dev, n, 20);
    Matrix e0(dev, n, d), x(dev, n * 4, d), rstd(dev, n * 4, 1), y(dev, n * 4, d), u(dev, n * 4, d), att(dev, n * 4, 4), s(dev, n, d);
    const EstimatorSaved saved{x, rstd, y, u, att, s};
    const RowList rows{nullptr, nullptr, n};
    b.measure("estimator_forward", fmt::format("{} items, 4 tokens", n), 4.0 * double(n) * d * (3 + 1 + 8 + 1), 2.0 * double(n) * 5 * d * d,
              [&] { dev.ops.estimator_forward(dev.ctx, e0, saved, a.tokens, a.params, rows); });
    Matrix d_e(dev, n, d), dh0(dev, n, d), dh1(dev, n, d), dw(dev, 3 * d, d);
    const DeviceMatrix d_e0(dev, n, d);
    const Mat d_h[2] = {dh0, dh1};
    const EstimatorGrads grads{dw.mat().slice(0, d), dw.mat().slice(d, d), dw.mat().slice(2 * d, d)};
    b.measure("estimator_backward", fmt::format("{} items, 4 tokens", n), 4.0 * double(n) * d * (8 + 1 + 3 + 1), 4.0 * double(n) * 5 * d * d,
              [&] { dev.ops.estimator_backward(dev.ctx, d_e, d_h, grads, d_e0, a.tokens, saved, a.params, rows); });
  }
  if (b.wanted("reverse_process")) {
    for (const auto& [name, items, T] : {std::tuple("Baby", int64_t(7050), 20), std::tuple("Clothing", int64_t(23033), 100)}) {
      const int64_t I = b.n(items);
      const int steps = b.scale() < 1 ? 4 : T;
      Attention a(dev, I, steps);
      const HostSchedule h = make_schedule("linear", steps, false);
      const Array<float> s0(dev, h.sqrt_abar), s1(dev, h.sqrt_1m_abar), s2(dev, h.a), s3(dev, h.b), s4(dev, h.sigma);
      const Schedule schedule{steps, s0.p(), s1.p(), s2.p(), s3.p(), s4.p()};
      Matrix p0(dev, I, d), p1(dev, I, d), p2(dev, I, d), p3(dev, I, d);
      const Mat pools[4] = {p0, p1, p2, p3};
      const CMat mods[2] = {a.h0, a.h1};
      const DeviceMatrix q(dev, I, d);
      // 4 d^2 flop an item and step; about 60 integer and float operations a normal (ten rounds of Philox for four, logarithm, sine and cosine for
      // two).
      Line& l =
          b.measure("reverse_process", fmt::format("{}: {} items, T {}", name, I, steps), 4.0 * double(I) * d * 7, 4.0 * double(I) * steps * d * d,
                    [&] { dev.ops.reverse_process(dev.ctx, pools, q, mods, 2, a.tau, a.params, schedule, 1, 0); });
      l.against = fmt::format("its floor, {:.2f} G normals apart", 1e-9 * double(I) * steps * d);
    }
  }
  if (b.wanted("diffuse")) {
    const int64_t n = b.n(1300), I = b.n(7050);
    const DeviceMatrix q(dev, I, d), ehat(dev, n, d);
    Matrix eps(dev, n, d), e_t(dev, n, d), ego(dev, I, d);
    Array<int32_t> t(dev, n), idx(dev, n);
    std::vector<int32_t> every(static_cast<size_t>(n));
    for (int64_t j = 0; j < n; ++j) every[size_t(j)] = int32_t(j * I / n);
    idx.upload(every.data(), n);
    Array<int64_t> count(dev, std::vector<int64_t>{n});
    const RowList rows{idx.p(), count.p(), n};
    const HostSchedule h = make_schedule("linear", 20, false);
    const Array<float> s0(dev, h.sqrt_abar), s1(dev, h.sqrt_1m_abar);
    const Schedule schedule{20, s0.p(), s1.p(), s0.p(), s0.p(), s0.p()};
    b.measure("diffuse: draw_normals", fmt::format("{} x {}", n, d), 4.0 * double(n) * d, 0, [&] {
      dev.ops.draw_normals(dev.ctx, eps, rows, Stream{1, Use::noise});
    });
    b.measure("diffuse", fmt::format("{} x {}", n, d), 12.0 * double(n) * d, 0,
              [&] { dev.ops.diffuse(dev.ctx, e_t, q, eps, t.p(), rows, schedule); });
    b.measure("diffuse: fuse", fmt::format("{} x {}", n, d), 12.0 * double(n) * d, 0, [&] { dev.ops.fuse(dev.ctx, ego, q, ehat, rows, 0.5f); });
  }
}

void dense(Bench& b, const GpuCeilings&) {
  Device& dev = b.dev();
  const int64_t d = 64;
  if (b.wanted("project")) {
    for (const int64_t F : {int64_t(384), int64_t(4096)}) {
      const int64_t I = b.n(7050), n = b.n(1300), width = b.n(F);
      const DeviceMatrix x(dev, I, width), w(dev, width, d), bias(dev, 1, d), dy(dev, n, d);
      Matrix y(dev, n, d), dw(dev, width, d), db(dev, 1, d), dx(dev, n, width);
      std::vector<int32_t> every(static_cast<size_t>(n));
      for (int64_t j = 0; j < n; ++j) every[size_t(j)] = int32_t(j * I / n);
      const Array<int32_t> idx(dev, every);
      Array<int64_t> count(dev, std::vector<int64_t>{n});
      const RowList rows{idx.p(), count.p(), n};
      b.measure("project", fmt::format("{} rows of {}", n, width), 4.0 * (double(n) * double(width) + double(width) * d + double(n) * d),
                2.0 * double(n) * double(width) * d, [&] { dev.ops.project(dev.ctx, y, x, rows, w, bias); });
      b.measure("project_backward", fmt::format("{} rows of {}, features trained", n, width),
                4.0 * (2.0 * double(n) * double(width) + 2.0 * double(width) * d + double(n) * d), 4.0 * double(n) * double(width) * d,
                [&] { dev.ops.project_backward(dev.ctx, dw, db, dx, dy, x, rows, w); });
    }
  }
  if (b.wanted("bpr")) {
    const int64_t B = b.n(2048);
    const DeviceMatrix u(dev, B, d), p(dev, B, d), x(dev, B, d);
    Matrix du(dev, B, d), dp(dev, B, d), dx(dev, B, d);
    Array<double> loss(dev, 1);
    b.measure("bpr", fmt::format("B {}", B), 4.0 * 8 * double(B) * d, 0, [&] { dev.ops.bpr(dev.ctx, loss.p(), {du, dp, dx}, u, p, x, 1.0f, false); });
  }
  if (b.wanted("group")) {
    const int64_t slots = b.n(2048 * 3), N = b.n(26495);
    const Array<int32_t> ids(dev, random_ids(slots, N, 9));
    OwnedGroups groups(dev, slots);
    Groups g = groups.groups();
    b.measure("group", fmt::format("{} slots", slots), 20.0 * double(slots), 0, [&] { dev.ops.group(dev.ctx, g, ids.p(), slots, N); });
    const DeviceMatrix x(dev, slots, d);
    Matrix y(dev, N, d);
    b.measure("group: segment_sum", fmt::format("{} slots", slots), 8.0 * double(slots) * d, 0,
              [&] { dev.ops.segment_sum(dev.ctx, y, x, g, true, false); });
  }
}

void ranking(Bench& b, const GpuCeilings& top) {
  if (!b.wanted("score_topk")) return;
  Device& dev = b.dev();
  const int64_t d = 64, k = 50;
  for (const auto& [name, shape] : {std::pair("baby", kBaby), std::pair("elec", kElec)}) {
    const DeviceGraph g(dev, scaled(shape, b.scale()));
    const int64_t U = g.pairs.shape.U, I = g.pairs.shape.I;
    const DeviceMatrix hu(dev, U, d), hi(dev, I, d);
    std::vector<int32_t> all(static_cast<size_t>(U));
    for (int64_t u = 0; u < U; ++u) all[size_t(u)] = int32_t(u);
    const Array<int32_t> users(dev, all);
    Array<int32_t> best(dev, U * k);
    Array<float> score(dev, U * k);
    const Csr mask = g.train();
    const double flop = 2.0 * double(U) * double(I) * d;
    Line& l = b.measure("score_topk", fmt::format("{}: {} users x {} items, k {}", name, U, I, k), 4.0 * (double(U + I) * d + 2.0 * double(U) * k),
                        flop, [&] { dev.ops.score_topk(dev.ctx, best.p(), score.p(), hu, users.p(), U, hi, &mask, k); });
    l.against = "cuBLAS on the product, written out", l.share = flop / l.warm / (top.skinny_tflops * 1e12),
    l.target = name == std::string("elec") ? 0.5 : 0;
  }
}

std::string markdown(const Bench& b, const std::vector<Line>& lines, const GpuCeilings& c, const GpuInfo& gpu) {
  std::string s = fmt::format(
      "## Operations\n\n{}; measured here: copy {:.0f} GB/s (read + written), cuBLAS FP32 {:.1f} TFLOP/s on 4096^3, {:.1f} TFLOP/s on 2048 x 64 x "
      "100,000.\n\n",
      gpu.name, c.copy_gbs, c.gemm_tflops, c.skinny_tflops);
  if (b.scale() < 1) s += fmt::format("**Sizes scaled by {}: a test of the bench, not a measurement.**\n\n", b.scale());
  s += "| operation | case | warm us | min us | spread | cold us | GB/s | of copy | TFLOP/s | of cuBLAS | times floor "
       "|\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const Line& l : lines) {
    const double gbs = l.bytes / l.warm * 1e-9, tf = l.flop / l.warm * 1e-12,
                 floor = std::max(l.bytes / (c.copy_gbs * 1e9), l.flop / (c.gemm_tflops * 1e12));
    s += fmt::format("| {} | {} | {:.1f} | {:.1f} | {:.0f} % | {:.1f} | {:.0f} | {:.0f} % | {} | {} | {:.1f} |\n", l.op, l.shape, 1e6 * l.warm,
                     1e6 * l.least, 100 * l.spread, 1e6 * l.cold, gbs, 100 * gbs / c.copy_gbs, l.flop > 0 ? fmt::format("{:.2f}", tf) : "",
                     l.flop > 0 ? fmt::format("{:.0f} %", 100 * tf / c.gemm_tflops) : "", l.warm / floor);
  }
  s += "\n| target | against | share | target | |\n|---|---|---:|---:|---|\n";
  for (const Line& l : lines)
    if (!l.against.empty() && l.share > 0)
      s += fmt::format("| {} {} | {} | {:.0f} % | {} | {} |\n", l.op, l.shape, l.against, 100 * l.share,
                       l.target > 0 ? fmt::format("{:.0f} %", 100 * l.target) : "",
                       l.target <= 0         ? ""
                       : l.share >= l.target ? "met"
                                             : "**missed**");
  for (const std::string& f : b.failures()) s += "\n**Failed:** " + f + "\n";
  return s;
}

int run(int argc, char** argv) {
  std::string out, only;
  double scale = 1;
  Arguments app("Every operation on a GPU, against what the GPU was measured to do");
  app.add("--out", out, "write OUT.md and OUT.json");
  app.add("--only", only, "operations whose name contains this");
  app.add("--scale", scale, "sizes times this: below 1 to try the bench", between(1e-4, 1.0));
  if (const auto end = app.parse(argc, argv)) return *end;
  Bench b(scale, only);
  const GpuInfo gpu = gpu_info();
  const GpuCeilings top = measure_gpu(b.dev(), b.clock(), scale);
  const auto save = [&] {
    if (out.empty()) return;
    nlohmann::json rows = nlohmann::json::array();
    for (const Line& l : b.lines())
      rows.push_back({{"op", l.op},
                      {"case", l.shape},
                      {"warm_us", 1e6 * l.warm},
                      {"min_us", 1e6 * l.least},
                      {"spread", l.spread},
                      {"cold_us", 1e6 * l.cold},
                      {"bytes", l.bytes},
                      {"flop", l.flop},
                      {"against", l.against},
                      {"share", l.share},
                      {"target", l.target}});
    const nlohmann::json all = {
        {"gpu", gpu.name},   {"scale", scale}, {"copy_gb_s", top.copy_gbs}, {"gemm_tflop_s", top.gemm_tflops}, {"skinny_tflop_s", top.skinny_tflops},
        {"operations", rows}};
    std::ofstream(out + ".json") << all.dump(1) << "\n";
    std::ofstream(out + ".md") << markdown(b, b.lines(), top, gpu);
  };
  using Family = void (*)(Bench&, const GpuCeilings&);
  for (const auto& [name, family] : {std::pair<const char*, Family>("diffusion", diffusion),
                                     {"sampling", sampling},
                                     {"sparse", sparse},
                                     {"optimiser", optimiser},
                                     {"ranking", ranking},
                                     {"dense", dense}}) {  // the most telling first
    try {
      family(b, top);
    } catch (const std::exception& e) { b.failed(std::string("family ") + name, e); }  // the others are measured all the same
    save();
  }
  std::cout << markdown(b, b.lines(), top, gpu);
  return b.failures().empty() ? 0 : 1;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_gpu", ccdrec::bench::run, argc, argv); }
