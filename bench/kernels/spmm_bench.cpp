// spmm and propagate on graphs of the data's size and skew. bytes = the contract's formula: every edge reads its row of
// X, caches or not.
#include <benchmark/benchmark.h>

#include <string>

#include "bench/kernels/skewed.h"
#include "bench/random_rows.h"
#include "kernels/ops.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = 64;
int64_t spmm_bytes(int64_t nnz, int64_t R) { return nnz * (8 + 4 * d) + R * (8 + 4 * d); }

// A table where training keeps its tables (huge pages).
class BenchTable {
 public:
  BenchTable(Ctx& ctx, int64_t rows, bool random)
      : ctx_(ctx), m_{static_cast<float*>(cpu_ops().alloc(ctx, size_t(rows * d) * sizeof(float))), rows, d} {
    const auto from = random ? random_floats(rows * d) : std::vector<float>(size_t(rows * d));
    std::copy(from.begin(), from.end(), m_.p);
  }
  ~BenchTable() { cpu_ops().free(ctx_, m_.p); }
  BenchTable(const BenchTable&) = delete;
  BenchTable& operator=(const BenchTable&) = delete;
  operator Mat() const { return m_; }
  operator CMat() const { return m_; }

 private:
  Ctx& ctx_;
  Mat m_;
};

void spmm(benchmark::State& state, Shape shape, double rho) {
  Ctx ctx(threads());
  const UserItemGraph a(skewed_pairs(shape), rho);
  const BenchTable x(ctx, a.N, true), y(ctx, a.N, false);
  for (auto _ : state) cpu::spmm(ctx, y, a.view(), x, false);
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
  for (auto _ : state)
    cpu::spmm(ctx, {y.data(), 1, d}, {1, N, row_ptr.data(), col.data(), val.data()}, {x.data(), N, d}, false);
  state.SetBytesProcessed(state.iterations() * spmm_bytes(nnz, 1));
}

// LATTICE's item graph: 2 M k = 40 entries a row, in no order of columns.
void transpose(benchmark::State& state) {
  constexpr int64_t kEntries = 40;
  const int64_t I = state.range(0), nnz = I * kEntries;
  std::vector<int64_t> row_ptr(size_t(I + 1)), row_ptr_t(row_ptr.size());
  for (size_t r = 0; r < row_ptr.size(); ++r) row_ptr[r] = int64_t(r) * kEntries;
  const std::vector<int32_t> col = random_ids(nnz, I, 0);
  const std::vector<float> val = random_floats(nnz);
  std::vector<int32_t> col_t(col.size());
  std::vector<float> val_t(val.size());
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::transpose(ctx, {I, I, row_ptr_t.data(), col_t.data(), val_t.data(), nnz},
                   {I, I, row_ptr.data(), col.data(), val.data(), nnz});
  state.SetBytesProcessed(state.iterations() * nnz * (12 + 8));
}

// Two layers on all rows (B = 0), or on those that a batch of B pairs with a negative each reads. edges1, edges2: of
// the rows of each layer.
enum class Part { frontier, forward, backward, backward_layers };
void two_layers(benchmark::State& state, Part part, Shape shape, double rho, int64_t B) {
  Ctx ctx(threads());
  const SkewedPairs pairs = skewed_pairs(shape);
  const UserItemGraph a(pairs, rho);
  const BenchTable e0(ctx, a.N, true), g(ctx, a.N, true), h(ctx, a.N, false), g_e0(ctx, a.N, false),
      w1(ctx, a.N, false), w2(ctx, a.N, false);
  Mat work[2] = {w1, w2};
  const CMat g_layer[3] = {e0, e0, e0};  // values do not matter
  std::vector<int32_t> wanted;
  for (int32_t e : random_ids(B, int64_t(pairs.user.size()), 1))
    wanted.push_back(pairs.user[size_t(e)]), wanted.push_back(int32_t(shape.U) + pairs.item[size_t(e)]);
  for (int32_t i : random_ids(B, shape.I, 2)) wanted.push_back(int32_t(shape.U) + i);
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  int64_t n = int64_t(wanted.size()), counts[3];
  std::vector<int32_t> list[3];
  std::vector<uint8_t> mask[3];
  Frontier f;
  f.layers = 2;
  for (int l = 0; l <= 2; ++l) {
    list[l].resize(size_t(a.N)), mask[l].resize(size_t(a.N));
    f.rows[l] = {list[l].data(), &counts[l], a.N}, f.mask[l] = mask[l].data();
  }
  const RowList seed = B ? RowList{wanted.data(), &n, n} : RowList{nullptr, nullptr, a.N};
  cpu::frontier(ctx, f, a.view(), a.view(), seed);
  for (auto _ : state) {
    if (part == Part::frontier) cpu::frontier(ctx, f, a.view(), a.view(), seed);
    if (part == Part::forward) cpu::propagate(ctx, h, work, a.view(), f, e0);
    if (part == Part::backward) cpu::propagate_backward(ctx, g_e0, work, a.view(), f, g);
    if (part == Part::backward_layers) cpu::propagate_backward_layers(ctx, g_e0, work, a.view(), f, g, g_layer);
  }
  for (int l = 1; l <= 2; ++l) {
    int64_t edges = 0;
    for (int64_t j = 0; j < f.rows[l].n(); ++j) {
      const int64_t r = f.rows[l].idx ? f.rows[l].idx[j] : j;
      edges += a.row_ptr[size_t(r) + 1] - a.row_ptr[size_t(r)];
    }
    state.counters["rows" + std::to_string(l)] = double(f.rows[l].n()),
                            state.counters["edges" + std::to_string(l)] = double(edges);
  }
}

void random_rows(benchmark::State& state) {
  Ctx ctx(threads());
  const RandomRows rows(ctx, state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(rows.pass());
  state.counters["MB"] = double(state.range(0) * RandomRows::kColumns * 4) / 1e6;
  // a second and thread
  state.counters["rows"] =
      benchmark::Counter(double(RandomRows::kDraws) / ctx.threads, benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(random_rows)->Arg(31925)->Arg(63850)->Arg(127701)->Arg(255404)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(spmm, baby_full, kBaby, 0.0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(spmm, sports_full, kSports, 0.0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(spmm, sports_pruned, kSports, 0.8)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(transpose)->Arg(7050)->Arg(23033)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(spmm_one_heavy_row)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(two_layers, frontier_baby_full_batch_2048, Part::frontier, kBaby, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, forward_baby_full_batch_2048, Part::forward, kBaby, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, backward_baby_full_batch_2048, Part::backward, kBaby, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, backward_layers_baby_full_batch_2048, Part::backward_layers, kBaby, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, frontier_baby_pruned_batch_2048, Part::frontier, kBaby, 0.8, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, forward_baby_pruned_batch_2048, Part::forward, kBaby, 0.8, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, backward_baby_pruned_batch_2048, Part::backward, kBaby, 0.8, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, frontier_sports_full_batch_2048, Part::frontier, kSports, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, forward_sports_full_batch_2048, Part::forward, kSports, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, backward_sports_full_batch_2048, Part::backward, kSports, 0.0, 2048)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, forward_baby_full_all_rows, Part::forward, kBaby, 0.0, 0)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, backward_baby_full_all_rows, Part::backward, kBaby, 0.0, 0)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, forward_sports_full_all_rows, Part::forward, kSports, 0.0, 0)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(two_layers, backward_sports_full_all_rows, Part::backward, kSports, 0.0, 0)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ccdrec::bench
