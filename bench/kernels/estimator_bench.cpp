// f_theta of one training step: n items, K = M+2 tokens. Beside the time: GFLOP/s of the products (the header's cost),
// to hold against gemm's.
#include <benchmark/benchmark.h>

#include "kernels/ops.h"
#include "kernels/rng.h"

namespace ccdrec {
namespace {

std::vector<float> floats(uint32_t use, int64_t n, float bound) {
  std::vector<float> v(size_t(n), 0.0f);
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = bound * (2 * uniform01(draw(Stream{use, Use::test}, uint32_t(i)).v[0]) - 1);
  return v;
}

struct Step {
  static constexpr int kSteps = 20;
  int64_t n, M, K = M + 2, d;
  std::vector<float> e_t = floats(1, n*d, 0.02f), h = floats(2, M*n*d, 1), tau = time_embedding(kSteps, d),
                     w = floats(3, 3 * d * d, 0.2f);
  std::vector<float> x = floats(4, 3 * n * K * d, 0), small = floats(4, n*K*(1 + K) + 4 * n * d, 0),
                     d_h = floats(4, M*n*d, 0), d_w = floats(4, 3 * d * d, 0), d_e0 = floats(5, n*d, 1);
  std::vector<int32_t> t = std::vector<int32_t>(size_t(n), 7);
  EstimatorTokens in;
  EstimatorSaved saved;
  EstimatorParams params;
  EstimatorGrads grads;
  Mat e0, d_e, d_hm[kMaxModalities];

  Step(int64_t n_, int64_t M_, int64_t d_) : n(n_), M(M_), d(d_) {
    in.e_t = {e_t.data(), n, d};
    for (int64_t m = 0; m < M; ++m) in.h[m] = {h.data() + m * n * d, n, d}, d_hm[m] = {d_h.data() + m * n * d, n, d};
    in.modalities = int(M);
    in.tau = {tau.data(), kSteps, d};
    in.t = t.data();
    const int64_t tokens = n * K;
    saved.x = {x.data(), tokens, d}, saved.y = {x.data() + tokens * d, tokens, d},
    saved.u = {x.data() + 2 * tokens * d, tokens, d};
    float* p = small.data();
    saved.rstd = {p, tokens, 1}, saved.a = {p += tokens, tokens, K}, saved.s = {p += tokens * K, n, d},
    e0 = {p += n * d, n, d}, d_e = {p += n * d, n, d};
    params = {{w.data(), d, d}, {w.data() + d * d, d, d}, {w.data() + 2 * d * d, d, d}};
    grads = {{d_w.data(), d, d}, {d_w.data() + d * d, d, d}, {d_w.data() + 2 * d * d, d, d}};
  }
  RowList rows() const { return {nullptr, nullptr, n}; }
};

void estimator(benchmark::State& state, bool with_backward) {
  Step s(state.range(0), state.range(1), state.range(2));
  Ctx ctx(int(state.range(3)));
  for (auto _ : state) {
    cpu_ops().estimator_forward(ctx, s.e0, s.saved, s.in, s.params, s.rows());
    if (with_backward)
      cpu_ops().estimator_backward(ctx, s.d_e, s.d_hm, s.grads, {s.d_e0.data(), s.n, s.d}, s.in, s.saved, s.params,
                                   s.rows());
    benchmark::ClobberMemory();
  }
  const double flop = 2.0 * double(s.n * (s.K + 1) * s.d * s.d) * (with_backward ? 3 : 1);
  state.counters["GFLOP/s"] = benchmark::Counter(flop * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"n", "M", "d", "threads"})
      ->Args({1000, 2, 64, 1})
      ->Args({1000, 2, 64, 2})
      ->Args({3500, 2, 64, 2})
      ->Args({1000, 3, 128, 2});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(estimator, forward, false)->Apply(sizes);
BENCHMARK_CAPTURE(estimator, forward_and_backward, true)->Apply(sizes);

}  // namespace
}  // namespace ccdrec
