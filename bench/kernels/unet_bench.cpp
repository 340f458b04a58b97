// MCDRec's U-Net of one training step over all items, and the reverse process once per epoch. GFLOP/s counts the
// convolutions' multiply-adds with the taps that meet padding (1.43 M an item forward, as frameworks count them), and as
// `done` those that are not padding (1.04 M); to hold against gemm's, which is measured beside them.
#include <benchmark/benchmark.h>

#include "kernels/ops.h"

namespace ccdrec {
namespace {

std::vector<float> floats(uint32_t use, int64_t n, float bound) {
  std::vector<float> v(size_t(n), 0.0f);
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = bound * (2 * uniform01(draw(Stream{use, Use::test}, uint32_t(i)).v[0]) - 1);
  return v;
}

std::vector<float> zeros(int64_t n) { return std::vector<float>(size_t(n), 0.0f); }

struct Step {
  static constexpr int kSteps = 20;
  static constexpr int64_t d = kUnetWidth, M = 2;
  int64_t n;
  std::vector<float> e_t = floats(1, n*d, 0.5f), h = floats(2, M*n*d, 1), tau = unet_time_embedding(kSteps),
                     d_e0 = floats(3, n*d, 1), d_h = zeros(M * n * d), saved = zeros(unet_saved_floats(n)),
                     e0 = floats(4, n*d, 0), d_e = e0;
  std::vector<std::vector<float>> tensor, gradient;
  std::vector<int32_t> t;
  std::vector<uint16_t> bits;
  EstimatorTokens in;
  UnetParams params{};
  UnetGrads grads{};
  Mat d_hm[M];

  explicit Step(int64_t n_) : n(n_), bits(size_t(n * kUnetMaskWords)) {
    for (int i = 0; i < kUnet.tensors; ++i) {
      const UnetTensor& of = kUnet.tensor[size_t(i)];
      tensor.push_back(floats(uint32_t(10 + i), of.rows * of.cols, of.fan_in ? 1 / std::sqrt(float(of.fan_in)) : 1));
    }
    gradient = tensor;
    for (size_t i = 0; i < tensor.size(); ++i) params.p[i] = tensor[i].data(), grads.p[i] = gradient[i].data();
    for (int64_t j = 0; j < n; ++j) t.push_back(int32_t(j % kSteps));
    in.e_t = {e_t.data(), n, d};
    for (int64_t m = 0; m < M; ++m) in.h[m] = {h.data() + m * n * d, n, d}, d_hm[m] = {d_h.data() + m * n * d, n, d};
    in.modalities = int(M), in.tau = {tau.data(), kSteps, kUnetTimeIn}, in.t = t.data();
    Ctx ctx(1);
    cpu_ops().draw_masks(ctx, bits.data(), rows(), kUnetMaskWords, 0.1f, Stream{1, Use::unet_mask});
  }
  RowList rows() const { return {nullptr, nullptr, n}; }
  UnetMask mask() const { return {bits.data(), 0.9f}; }
  UnetSaved room() { return {saved.data(), n}; }
  void forward(Ctx& ctx) { cpu_ops().unet_forward(ctx, {e0.data(), n, d}, room(), in, params, mask(), rows()); }
  void backward(Ctx& ctx) {
    cpu_ops().unet_backward(ctx, {d_e.data(), n, d}, d_hm, grads, {d_e0.data(), n, d}, in, room(), params, mask(),
                            rows());
  }
};

constexpr double kNominal = 2 * 1.432576e-3, kDone = 2 * 1.04e-3;  // GFLOP an item
void rate(benchmark::State& state, double items) {
  const auto gflops = [&](double of_an_item) {
    return benchmark::Counter(of_an_item * items, benchmark::Counter::kIsIterationInvariantRate);
  };
  state.counters["GFLOP/s"] = gflops(kNominal);
  state.counters["done"] = gflops(kDone);
}

void forward(benchmark::State& state) {
  Step s(state.range(0));
  Ctx ctx(int(state.range(1)));
  for (auto _ : state) s.forward(ctx);
  rate(state, double(s.n));
}
void backward(benchmark::State& state) {
  Step s(state.range(0));
  Ctx ctx(int(state.range(1)));
  s.forward(ctx);
  for (auto _ : state) s.backward(ctx);
  rate(state, 2 * double(s.n));
}
void step(benchmark::State& state) {
  Step s(state.range(0));
  Ctx ctx(int(state.range(1)));
  for (auto _ : state) s.forward(ctx), s.backward(ctx);
  rate(state, 3 * double(s.n));
}
void reverse(benchmark::State& state) {
  Step s(state.range(0));
  Ctx ctx(int(state.range(1)));
  const HostSchedule host = make_schedule("linear", Step::kSteps, false);
  const Schedule schedule{Step::kSteps,  host.sqrt_abar.data(), host.sqrt_1m_abar.data(),
                          host.a.data(), host.b.data(),         host.sigma.data()};
  const Mat pools[4] = {{}, {}, {}, {s.e0.data(), s.n, Step::d}};
  const CMat h[] = {s.in.h[0], s.in.h[1]};
  for (auto _ : state)
    cpu_ops().unet_reverse(ctx, pools, s.in.e_t, h, int(Step::M), s.in.tau, s.params, schedule, 1, 1);
  rate(state, Step::kSteps * double(s.n));
}
void ceiling(benchmark::State& state) {  // a gemm that stays in the caches
  const int64_t n = 1024;
  const std::vector<float> a = floats(1, n * n, 1), b = floats(2, n * n, 1);
  std::vector<float> c(size_t(n * n));
  Ctx ctx(int(state.range(1)));
  for (auto _ : state) {
    cpu_ops().gemm(ctx, {c.data(), n, n}, {a.data(), n, n}, false, {b.data(), n, n}, false, false);
    benchmark::ClobberMemory();
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * double(n * n * n), benchmark::Counter::kIsIterationInvariantRate);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"n", "threads"})->Args({1008, 1})->Args({7050, 2})->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK(ceiling)->Apply(sizes);
BENCHMARK(forward)->Apply(sizes);
BENCHMARK(backward)->Apply(sizes);
BENCHMARK(step)->Apply(sizes);
BENCHMARK(reverse)->Apply(sizes)->Iterations(1);

}  // namespace
}  // namespace ccdrec
