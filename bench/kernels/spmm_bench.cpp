// spmm and propagate on graphs of the data's size and skew. bytes = the contract's formula: every edge reads its row of X, caches or not.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/kernels/skewed.h"
#include "bench/random_rows.h"
#include "kernels/ops.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = 64;
int64_t spmm_bytes(int64_t nnz, int64_t R) { return nnz * (8 + 4 * d) + R * (8 + 4 * d); }

void spmm(benchmark::State& state, Shape shape, double rho) {
  const UserItemGraph a(skewed_pairs(shape), rho);
  const auto x = random_floats(a.N * d);
  std::vector<float> y(x.size());
  Ctx ctx(threads());
  for (auto _ : state) cpu::spmm(ctx, {y.data(), a.N, d}, a.view(), {x.data(), a.N, d}, false);
  state.SetBytesProcessed(state.iterations() * spmm_bytes(a.nnz(), a.N));
  state.counters["nnz"] = double(a.nnz());
}

void spmm_one_heavy_row(benchmark::State& state) {  // one row of a million edges: one thread's serial loop
  constexpr int64_t N = 20000, nnz = 1000000;
  std::vector<int64_t> row_ptr = {0, nnz};
  std::vector<int32_t> col = random_ids(nnz, N, 0);
  const auto val = random_floats(nnz), x = random_floats(N * d);
  std::vector<float> y(d);
  Ctx ctx(threads());
  for (auto _ : state) cpu::spmm(ctx, {y.data(), 1, d}, {1, N, row_ptr.data(), col.data(), val.data()}, {x.data(), N, d}, false);
  state.SetBytesProcessed(state.iterations() * spmm_bytes(nnz, 1));
}

// Two layers, forward and backward: all rows, or those a batch of B pairs with two negatives reads.
void propagate(benchmark::State& state, Shape shape, double rho, int64_t B) {
  const UserItemGraph a(skewed_pairs(shape), rho);
  const auto e0 = random_floats(a.N * d), g = random_floats(a.N * d);
  std::vector<float> h(e0.size()), g_e0(e0.size()), w1(e0.size()), w2(e0.size());
  Mat work[2] = {{w1.data(), a.N, d}, {w2.data(), a.N, d}};
  std::vector<int32_t> wanted = random_ids(B, shape.U, 1);
  for (int32_t i : random_ids(3 * B, shape.I, 2)) wanted.push_back(int32_t(shape.U) + i);
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  int64_t n = int64_t(wanted.size()), counts[3];
  std::vector<int32_t> list[3];
  std::vector<uint8_t> mask[3];
  Ctx ctx(threads());
  Frontier f;
  for (auto _ : state) {
    f.layers = 2;
    for (int l = 0; l <= 2; ++l) {
      list[l].resize(size_t(a.N)), mask[l].resize(size_t(a.N));
      f.rows[l] = {list[l].data(), &counts[l], a.N}, f.mask[l] = mask[l].data();
    }
    cpu::frontier(ctx, f, a.view(), a.view(), B ? RowList{wanted.data(), &n, n} : RowList{nullptr, nullptr, a.N});
    cpu::propagate(ctx, {h.data(), a.N, d}, work, a.view(), f, {e0.data(), a.N, d});
    cpu::propagate_backward(ctx, {g_e0.data(), a.N, d}, work, a.view(), f, {g.data(), a.N, d});
  }
  for (int l = 0; l <= 2; ++l) state.counters["rows" + std::to_string(l)] = double(f.rows[l].n());
}

void random_rows(benchmark::State& state) {
  Ctx ctx(threads());
  const RandomRows rows(ctx, state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(rows.pass());
  state.counters["MB"] = double(state.range(0) * RandomRows::kColumns * 4) / 1e6;
  state.counters["rows"] =
      benchmark::Counter(double(RandomRows::kDraws) / ctx.threads, benchmark::Counter::kIsIterationInvariantRate);  // a second and thread
}

BENCHMARK(random_rows)->Arg(31925)->Arg(63850)->Arg(127701)->Arg(255404)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(spmm, baby_full, kBaby, 0.0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(spmm, sports_full, kSports, 0.0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(spmm, sports_pruned, kSports, 0.8)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(spmm_one_heavy_row)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(propagate, sports_full_all_rows, kSports, 0.0, 0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(propagate, sports_pruned_all_rows, kSports, 0.8, 0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(propagate, sports_pruned_batch_512, kSports, 0.8, 512)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(propagate, baby_pruned_batch_512, kBaby, 0.8, 512)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ccdrec::bench
