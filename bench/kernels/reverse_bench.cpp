// The reverse process over all items, once per epoch: I, T, M as in the data sets. GFLOP/s counts the two products per
// item and step; the second line is the price of its normals alone.
#include <benchmark/benchmark.h>

#include "kernels/ops.h"

namespace ccdrec {
namespace {

void reverse_process(benchmark::State& state) {
  const int64_t I = state.range(0), M = state.range(1), T = state.range(2), d = state.range(3);
  Ctx ctx(int(state.range(4)));
  auto normals = [&](uint32_t use, int64_t rows, float sd) {
    std::vector<float> v(size_t(rows * d));
    cpu_ops().init_normal(ctx, {v.data(), rows, d}, sd, Stream{use, Use::test});
    return v;
  };
  const std::vector<float> q = normals(1, I, 0.02f), h = normals(2, M * I, 1), w = normals(3, 3 * d, 0.125f),
                           tau = time_embedding(int(T), d);
  const HostSchedule host = make_schedule("linear", int(T), false);
  const Schedule schedule{int(T),        host.sqrt_abar.data(), host.sqrt_1m_abar.data(),
                          host.a.data(), host.b.data(),         host.sigma.data()};
  std::vector<float> pool(size_t(4 * I * d));
  Mat pools[4];
  CMat hs[kMaxModalities];
  for (int64_t p = 0; p < 4; ++p) pools[p] = {pool.data() + p * I * d, I, d};
  for (int64_t m = 0; m < M; ++m) hs[m] = {h.data() + m * I * d, I, d};
  const EstimatorParams params{{w.data(), d, d}, {w.data() + d * d, d, d}, {w.data() + 2 * d * d, d, d}};
  for (auto _ : state) {
    cpu_ops().reverse_process(ctx, pools, {q.data(), I, d}, hs, int(M), {tau.data(), T, d}, params, schedule, 1, 1);
    benchmark::ClobberMemory();
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(4e-9 * double(I * T * d * d), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(reverse_process)
    ->ArgNames({"I", "M", "T", "d", "threads"})
    ->Args({7050, 2, 20, 64, 1})
    ->Args({7050, 2, 20, 64, 2})
    ->Args({7050, 2, 100, 64, 2})
    ->Args({23033, 2, 20, 64, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void draw_normals(benchmark::State& state) {
  const int64_t n = state.range(0), d = state.range(1);
  Ctx ctx(int(state.range(2)));
  std::vector<float> eps(size_t(n * d));
  for (auto _ : state) {
    cpu_ops().draw_normals(ctx, {eps.data(), n, d}, {nullptr, nullptr, n}, Stream{1, Use::noise, 1, 1});
    benchmark::ClobberMemory();
  }
  state.counters["normals/s"] = benchmark::Counter(double(n * d), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(draw_normals)
    ->ArgNames({"n", "d", "threads"})
    ->Args({7050, 64, 1})
    ->Args({7050, 64, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ccdrec
