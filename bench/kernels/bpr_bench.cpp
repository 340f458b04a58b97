// The ranking loss with its gradient: six (B,d) matrices read, three written.
#include <benchmark/benchmark.h>

#include "bench/kernels/skewed.h"

namespace ccdrec::bench {
namespace {

void bpr(benchmark::State& state, int64_t B, bool with_eps) {
  constexpr int64_t d = 64;
  const auto u = random_floats(B * d), p = random_floats(B * d), x = random_floats(B * d);
  std::vector<float> d_u(u.size()), d_p(u.size()), d_x(u.size());
  double loss = 0;
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::bpr(ctx, &loss, {d_u.data(), B, d}, {d_p.data(), B, d}, {d_x.data(), B, d}, {u.data(), B, d}, {p.data(), B, d}, {x.data(), B, d}, 0.8f,
             with_eps);
  state.SetBytesProcessed(state.iterations() * B * d * 4 * 9);
}

void fro(benchmark::State& state, int64_t B) {
  constexpr int64_t d = 64;
  const auto x = random_floats(B * d);
  std::vector<float> grad(x.size());
  double loss = 0;
  Ctx ctx(threads());
  for (auto _ : state) cpu::fro(ctx, &loss, {grad.data(), B, d}, {x.data(), B, d}, 0.1f, B);
  state.SetBytesProcessed(state.iterations() * B * d * 4 * 4);
}

BENCHMARK_CAPTURE(bpr, batch_512, 512, false)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(bpr, batch_2048, 2048, false)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(bpr, batch_2048_eps, 2048, true)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(fro, batch_2048, 2048)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ccdrec::bench
