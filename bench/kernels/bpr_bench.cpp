// The ranking loss with its gradient: five (B,d) matrices read, three written.
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
    cpu::bpr(ctx, &loss, {{d_u.data(), B, d}, {d_p.data(), B, d}, {d_x.data(), B, d}}, {u.data(), B, d},
             {p.data(), B, d}, {x.data(), B, d}, 0.8f, with_eps);
  state.SetBytesProcessed(state.iterations() * B * d * 4 * 8);
}

void norm_reg(benchmark::State& state, int64_t B) {
  constexpr int64_t d = 64, R = kBaby.U + kBaby.I;
  const auto x = random_floats(R * d);
  const auto ids = random_ids(3 * B, R, 1);
  std::vector<int32_t> rows(ids.size()), ptr(ids.size() + 1), slot(ids.size());
  int64_t n = 0;
  Groups slots{{rows.data(), &n, 3 * B}, ptr.data(), slot.data()};
  std::vector<float> grad(x.size());
  double loss = 0;
  Ctx ctx(threads());
  cpu::group(ctx, slots, ids.data(), 3 * B, R);
  for (auto _ : state) cpu::norm_reg(ctx, &loss, {grad.data(), R, d}, {x.data(), R, d}, slots, ids.data(), B, 1, 0.1f);
  state.SetBytesProcessed(state.iterations() * (3 * B + 3 * n) * d * 4);
}

BENCHMARK_CAPTURE(bpr, batch_512, 512, false)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(bpr, batch_2048, 2048, false)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(bpr, batch_2048_eps, 2048, true)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(norm_reg, batch_2048, 2048)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ccdrec::bench
