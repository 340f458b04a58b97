// The dense products, Adam and the ranking: shapes of one Baby step. GFLOP/s or GB/s to hold against the ceilings;
// OpenBLAS, where it was found, beside gemm as the yardstick.
#include <benchmark/benchmark.h>

#include <chrono>

#include "bench/kernels/skewed.h"
#include "build_info.h"
#include "kernels/adam.h"
#if CCDREC_HAVE_OPENBLAS
#include <cblas.h>
extern "C" void openblas_set_num_threads(int);
#endif

namespace ccdrec::bench {
namespace {

void rate(benchmark::State& state, const char* name, double work) {
  state.counters[name] = benchmark::Counter(work * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

struct Product {
  int64_t m, k, n;
  std::vector<float> a = random_floats(m * k), b = random_floats(k * n), c = random_floats(m * n);
};

void gemm(benchmark::State& state, bool transposed) {
  Product p{state.range(0), state.range(1), state.range(2)};
  Ctx ctx(int(state.range(3)));
  const CMat a(p.a.data(), transposed ? p.k : p.m, transposed ? p.m : p.k);
  for (auto _ : state) {
    cpu_ops().gemm(ctx, {p.c.data(), p.m, p.n}, a, transposed, {p.b.data(), p.k, p.n}, false, false);
    benchmark::ClobberMemory();
  }
  rate(state, "GFLOP/s", 2.0 * double(p.m * p.k * p.n));
}

#if CCDREC_HAVE_OPENBLAS
void openblas(benchmark::State& state) {
  Product p{state.range(0), state.range(1), state.range(2)};
  openblas_set_num_threads(int(state.range(3)));
  for (auto _ : state) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, int(p.m), int(p.n), int(p.k), 1, p.a.data(), int(p.k),
                p.b.data(), int(p.n), 0, p.c.data(), int(p.n));
    benchmark::ClobberMemory();
  }
  rate(state, "GFLOP/s", 2.0 * double(p.m * p.k * p.n));
}
#endif

void weight_gradients(benchmark::internal::Benchmark* b) {
  for (const int t : {1, 2}) b->Args({4096, 900, 64, t})->Args({384, 900, 64, t})->Args({64, 3600, 64, t});
}
void products(benchmark::internal::Benchmark* b) {
  b->ArgNames({"m", "k", "n", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int t : {1, 2}) b->Args({1024, 1024, 1024, t})->Args({1024, 4096, 64, t})->Args({4000, 64, 64, t});
}
BENCHMARK_CAPTURE(gemm, rows, false)->Apply(products);
BENCHMARK_CAPTURE(gemm, transposed, true)->Apply(products)->Apply(weight_gradients);
#if CCDREC_HAVE_OPENBLAS
BENCHMARK(openblas)->Apply(products);
#endif

// The modality map of a batch's distinct items: rows of X gathered into the product; backward with the gradient of the
// features.
struct Projection {
  int64_t n, R, F, d = 64;
  std::vector<float> x = random_floats(R * F), w = random_floats(F * d), b = random_floats(d), y = random_floats(n * d),
                     dw = w, db = b, dx = random_floats(n * F);
  std::vector<int32_t> rows = random_ids(n, R, 1);
  Projection(int64_t n_, int64_t R_, int64_t F_) : n(n_), R(R_), F(F_) { std::sort(rows.begin(), rows.end()); }
  RowList list() { return {rows.data(), nullptr, n}; }
};

void project(benchmark::State& state) {
  Projection p{state.range(0), 7050, state.range(1)};
  Ctx ctx(int(state.range(2)));
  for (auto _ : state) {
    cpu_ops().project(ctx, {p.y.data(), p.n, p.d}, {p.x.data(), p.R, p.F}, p.list(), {p.w.data(), p.F, p.d},
                      {p.b.data(), 1, p.d});
    benchmark::ClobberMemory();
  }
  rate(state, "GFLOP/s", 2.0 * double(p.n * p.F * p.d));
}
void project_backward(benchmark::State& state) {
  Projection p{state.range(0), 7050, state.range(1)};
  Ctx ctx(int(state.range(2)));
  for (auto _ : state) {
    cpu_ops().project_backward(ctx, {p.dw.data(), p.F, p.d}, {p.db.data(), 1, p.d}, {p.dx.data(), p.n, p.F},
                               {p.y.data(), p.n, p.d}, {p.x.data(), p.R, p.F}, p.list(), {p.w.data(), p.F, p.d});
    benchmark::ClobberMemory();
  }
  rate(state, "GFLOP/s", 4.0 * double(p.n * p.F * p.d));
}
void projections(benchmark::internal::Benchmark* b) {
  b->ArgNames({"n", "F", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int t : {1, 2}) b->Args({900, 4096, t})->Args({900, 384, t});
}
BENCHMARK(project)->Apply(projections);
BENCHMARK(project_backward)->Apply(projections);

std::vector<AdamCoef> coefficients(int64_t steps) {
  std::vector<AdamCoef> c;
  for (int64_t t = 1; t <= steps; ++t) c.push_back(adam_coef(1e-3, {}, t));
  return c;
}

// A trained modality, step by step: the rows of a batch are brought up to date and multiplied, and their gradient
// enters the moments. Rows wait for some R / n steps, so the two operations are timed together, in the order of
// training, and shown apart.
void trained_projection(benchmark::State& state) {
  constexpr int64_t kLists = 16;
  Projection p{state.range(0), 7050, state.range(1)};
  std::vector<float> m(p.x.size(), 1e-4f), v(p.x.size(), 1e-8f);
  std::vector<int32_t> value_at(size_t(p.R), 0), moments_at(size_t(p.R), 0);
  const auto coef = coefficients(100000);
  const AdamSchedule s{coef.data(), int64_t(coef.size()), {}};
  const Table x{{p.x.data(), p.R, p.F}, {m.data(), p.R, p.F}, {v.data(), p.R, p.F}, value_at.data(), moments_at.data()};
  std::vector<std::vector<int32_t>> lists;
  for (uint32_t k = 0; k < kLists; ++k) {
    lists.push_back(random_ids(p.n, p.R, k));
    std::sort(lists.back().begin(), lists.back().end());
    lists.back().erase(std::unique(lists.back().begin(), lists.back().end()), lists.back().end());
  }
  Ctx ctx(int(state.range(2)));
  double forward = 0, backward = 0;
  int64_t t = 0;
  for (auto _ : state) {
    std::vector<int32_t>& rows = lists[size_t(++t % kLists)];
    const RowList list{rows.data(), nullptr, int64_t(rows.size())};
    const auto start = std::chrono::steady_clock::now();
    cpu_ops().catch_up_project(ctx, {p.y.data(), p.n, p.d}, x, list, {p.w.data(), p.F, p.d}, {p.b.data(), 1, p.d}, s,
                               t - 1);
    const auto between = std::chrono::steady_clock::now();
    cpu_ops().project_backward_step(ctx, {p.dw.data(), p.F, p.d}, {p.db.data(), 1, p.d}, {p.y.data(), p.n, p.d}, x,
                                    list, {p.w.data(), p.F, p.d}, s, t);
    const auto end = std::chrono::steady_clock::now();
    forward += std::chrono::duration<double, std::milli>(between - start).count(),
        backward += std::chrono::duration<double, std::milli>(end - between).count();
  }
  state.counters["forward_ms"] = benchmark::Counter(forward, benchmark::Counter::kAvgIterations);
  state.counters["backward_ms"] = benchmark::Counter(backward, benchmark::Counter::kAvgIterations);
}
BENCHMARK(trained_projection)->Apply(projections);

void adam(benchmark::State& state) {
  const int64_t n = state.range(0);
  std::vector<float> p = random_floats(n), m(p.size()), v(p.size()), g = random_floats(n);
  const auto coef = coefficients(1000);
  Ctx ctx(int(state.range(1)));
  int64_t t = 0;
  for (auto _ : state)
    cpu_ops().adam(ctx, {p.data(), 1, n}, {m.data(), 1, n}, {v.data(), 1, n}, {g.data(), 1, n}, {coef.data(), 1000, {}},
                   1 + t++ % 1000);
  rate(state, "GB/s", 28.0 * double(n));
}
BENCHMARK(adam)
    ->ArgNames({"elements", "threads"})
    ->Args({1 << 18, 1})
    ->Args({1 << 18, 2})
    ->Args({1 << 26, 1})
    ->Args({1 << 26, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Rows brought to a step `missed` after the last one, then given a gradient at which their value waits: Gstep/s counts
// elements times steps, each one divide and one square root.
void adam_rows(benchmark::State& state) {
  const int64_t n = 900, R = 4 * n, F = 4096, missed = state.range(0);
  std::vector<float> p = random_floats(R * F), m = random_floats(R * F), v = random_floats(R * F),
                     g = random_floats(n * F);
  for (float& x : v) x *= x;
  const auto coef = coefficients(missed + 2);
  const AdamSchedule s{coef.data(), missed + 2, {}};
  std::vector<int32_t> value_at(static_cast<size_t>(R)), moments_at(static_cast<size_t>(R));
  Ctx ctx(int(state.range(1)));
  const Table table{{p.data(), R, F}, {m.data(), R, F}, {v.data(), R, F}, value_at.data(), moments_at.data()};
  const RowList rows{nullptr, nullptr, n};
  for (auto _ : state) {
    // step 1 has left its move open
    std::fill(value_at.begin(), value_at.end(), 0), std::fill(moments_at.begin(), moments_at.end(), 1);
    cpu_ops().adam_catch_up(ctx, table, rows, s, missed + 1);
    cpu_ops().adam_rows(ctx, table, rows, {g.data(), n, F}, false, s, missed + 2);
  }
  rate(state, "Gstep/s", double(n * F * (missed + 1)));
}
BENCHMARK(adam_rows)
    ->ArgNames({"missed", "threads"})
    ->Args({0, 1})
    ->Args({7, 1})
    ->Args({7, 2})
    ->Args({60, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void score_topk(benchmark::State& state) {
  static const SkewedPairs pairs = skewed_pairs(kBaby);
  const int64_t n = 4096, d = 64, k = state.range(0);
  const auto hu = random_floats(kBaby.U * d), hi = random_floats(kBaby.I * d);
  const auto users = random_ids(n, kBaby.U, 2);
  std::vector<int32_t> top(size_t(n * k), 0);
  std::vector<float> score(size_t(n * k), 0.0f);
  const Csr mask = pairs.train();
  Ctx ctx(int(state.range(1)));
  for (auto _ : state)
    cpu_ops().score_topk(ctx, top.data(), score.data(), {hu.data(), kBaby.U, d}, users.data(), n,
                         {hi.data(), kBaby.I, d}, &mask, k);
  rate(state, "GFLOP/s", 2.0 * double(n * kBaby.I * d));
}
BENCHMARK(score_topk)
    ->ArgNames({"k", "threads"})
    ->Args({50, 1})
    ->Args({50, 2})
    ->Args({500, 2})
    ->Args({705, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void knn_cosine(benchmark::State& state) {
  const int64_t I = state.range(0), F = state.range(1), k = 10;
  const auto x = random_floats(I * F);
  std::vector<int32_t> idx(size_t(I * k), 0);
  int64_t tied = 0;
  Ctx ctx(threads());
  for (auto _ : state) cpu_ops().knn_cosine(ctx, idx.data(), &tied, {x.data(), I, F}, k, false, 1);
  rate(state, "GFLOP/s", 2.0 * double(I * I * F));
}
BENCHMARK(knn_cosine)
    ->ArgNames({"I", "F"})
    ->Args({7050, 384})
    ->Args({7050, 4096})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ccdrec::bench
