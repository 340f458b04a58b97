// RealHNS: the choice of a batch among each user's candidates, and the cohesion of the items' clusters.
#include <benchmark/benchmark.h>

#include "bench/kernels/skewed.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = 64;

// q: the share of the rows that are active; theta 0.2 lets most of random rows pass.
void filtered_negative(benchmark::State& state, Shape shape, int64_t B, int64_t N, float q) {
  const auto h_u = random_floats(shape.U * d), h_i = random_floats(shape.I * d);
  const auto users = random_ids(B, shape.U, 0), positives = random_ids(B, shape.I, 1),
             table = random_ids(shape.U * N, shape.I, 2);
  const float theta = 0.2f;
  std::vector<int32_t> out(size_t(B), 0);
  FilterProblem p;
  p.h_u = {h_u.data(), shape.U, d}, p.h_i = {h_i.data(), shape.I, d};
  p.users = users.data(), p.positives = positives.data(), p.batch = B;
  p.table = table.data(), p.n_candidates = N, p.top = (N + 9) / 10;
  p.theta = &theta, p.q = &q;
  Ctx ctx(threads());
  uint32_t step = 0;
  for (auto _ : state) {
    ++step;
    p.active = {1, Use::filter_active, 0, step}, p.rank = {1, Use::filter_rank, 0, step};
    cpu::filtered_negative(ctx, out.data(), nullptr, p);
  }
  state.counters["Gflop/s"] = benchmark::Counter(
      double(state.iterations()) * 4.0 * double(B * N * d) * double(q) * 1e-9, benchmark::Counter::kIsRate);
}

// Random rows: all the rounds there are.
void cohesion(benchmark::State& state, Shape shape, int clusters) {
  const auto h = random_floats(shape.I * d);
  float theta = 0;
  Ctx ctx(threads());
  for (auto _ : state) cpu::cohesion(ctx, &theta, {h.data(), shape.I, d}, clusters, 1, Stream{1, Use::centres});
  state.counters["Gflop/s"] =
      benchmark::Counter(double(state.iterations()) * 2.0 * double(shape.I * clusters * d) * kCohesionRounds * 1e-9,
                         benchmark::Counter::kIsRate);
}

void pick_columns(benchmark::State& state, int64_t n, int64_t k, int64_t c) {
  const auto lists = random_ids(n * k, 7050, 0), columns = random_ids(c, k, 1);
  std::vector<int32_t> out(size_t(n * c), 0);
  Ctx ctx(threads());
  for (auto _ : state) cpu::pick_columns(ctx, out.data(), lists.data(), n, k, columns.data(), c, nullptr);
}

BENCHMARK_CAPTURE(filtered_negative, baby_2048x705, kBaby, 2048, 705, 1.0f)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(filtered_negative, baby_2048x705_an_eighth_active, kBaby, 2048, 705, 0.125f)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(filtered_negative, sports_2048x1000, kSports, 2048, 1000, 1.0f)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(cohesion, baby_100, kBaby, 100)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(cohesion, sports_100, kSports, 100)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(pick_columns, baby_4096x705, 4096, 705, 705)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ccdrec::bench
