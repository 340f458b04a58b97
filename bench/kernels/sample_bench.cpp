// The draws of an epoch and of a batch, at the sizes of the data.
#include <benchmark/benchmark.h>

#include "bench/kernels/skewed.h"

namespace ccdrec::bench {
namespace {

void shuffle(benchmark::State& state, int64_t n) {
  Ctx ctx(threads());
  std::vector<int32_t> order(size_t(n), 0);
  uint32_t epoch = 0;
  for (auto _ : state) cpu::shuffle(ctx, order.data(), n, Stream{1, Use::shuffle, epoch++});
  state.SetItemsProcessed(state.iterations() * n);
}

void prune(benchmark::State& state, Shape shape, double rho) {
  const SkewedPairs p = skewed_pairs(shape);
  UserItemGraph a(p, 0);
  Ctx ctx(threads());
  uint32_t epoch = 0;
  for (auto _ : state) cpu::prune(ctx, a.room, p.edges(), rho, Stream{1, Use::prune, epoch++});
  state.SetItemsProcessed(state.iterations() * int64_t(p.user.size()));
}

// DGD: the edges' weights by two random tables, and the graph that follows from them.
void edge_cosines(benchmark::State& state, Shape shape) {
  constexpr int64_t d = 64;
  const SkewedPairs pairs = skewed_pairs(shape);
  const auto p = random_floats(shape.U * d), x = random_floats(shape.I * d);
  std::vector<float> a(pairs.user.size());
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::edge_cosines(ctx, a.data(), pairs.edges(), {p.data(), shape.U, d}, {x.data(), shape.I, d}, 0.3f);
  state.SetItemsProcessed(state.iterations() * int64_t(a.size()));
}

void prune_weighted(benchmark::State& state, Shape shape, double rho) {
  const SkewedPairs p = skewed_pairs(shape);
  UserItemGraph graph(p, 0);
  std::vector<float> a = random_floats(int64_t(p.user.size()));
  for (float& x : a) x = 1 + 0.3f * x;
  Ctx ctx(threads());
  uint32_t epoch = 0;
  for (auto _ : state)
    cpu::prune_weighted(ctx, graph.room, p.edges(), a.data(), false, rho, Stream{1, Use::prune, epoch++});
  state.SetItemsProcessed(state.iterations() * int64_t(p.user.size()));
}

void negatives(benchmark::State& state, Shape shape, int64_t B, int n_neg) {
  const SkewedPairs p = skewed_pairs(shape);
  const auto users = random_ids(B, shape.U, 0);
  std::vector<int32_t> items(size_t(shape.I)), out(size_t(B) * size_t(n_neg));
  std::iota(items.begin(), items.end(), 0);
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::negatives(ctx, out.data(), users.data(), B, n_neg, 0, p.train(), items.data(), shape.I,
                   Stream{1, Use::neg_uniform});
  state.SetItemsProcessed(state.iterations() * B * n_neg);
}

void candidates(benchmark::State& state, int64_t C, int64_t n_items) {
  Ctx ctx(threads());
  std::vector<int32_t> out(size_t(C), 0);
  uint32_t step = 0;
  for (auto _ : state) cpu::candidates(ctx, out.data(), C, n_items, Stream{1, Use::candidates, 0, step++});
}

void group(benchmark::State& state, int64_t n, int64_t limit) {
  const auto ids = random_ids(n, limit, 0);
  std::vector<int32_t> idx(size_t(n), 0), ptr(size_t(n) + 1, 0), slot(size_t(n), 0);
  int64_t count = 0;
  Groups g{{idx.data(), &count, n}, ptr.data(), slot.data()};
  Ctx ctx(threads());
  for (auto _ : state) cpu::group(ctx, g, ids.data(), n, limit);
  state.SetItemsProcessed(state.iterations() * n);
}

void similar_negative(benchmark::State& state, Shape shape, int64_t B, int64_t C) {
  constexpr int64_t d = 64;
  const SkewedPairs p = skewed_pairs(shape);
  const auto pool = random_floats(shape.I * d);
  const auto users = random_ids(B, shape.U, 0), positives = random_ids(B, shape.I, 1),
             fallback = random_ids(B, shape.I, 2);
  auto cand = random_ids(C, shape.I, 3);
  std::sort(cand.begin(), cand.end());
  std::vector<int32_t> out(size_t(B), 0);
  int32_t nan_flag = 0;
  Ctx ctx(threads());
  uint32_t step = 0;
  for (auto _ : state)
    cpu::similar_negative(ctx, out.data(), &nan_flag, {pool.data(), shape.I, d}, positives.data(), users.data(), B,
                          cand.data(), C, p.train(), C / 10, false, fallback.data(),
                          Stream{1, Use::cns_rank, 0, step++});
  state.counters["Gflop/s"] =
      benchmark::Counter(double(state.iterations()) * 2.0 * double(B * C * d) * 1e-9, benchmark::Counter::kIsRate);
}

BENCHMARK_CAPTURE(shuffle, sports, 218409)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(prune, baby, kBaby, 0.8)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(prune, sports, kSports, 0.8)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(prune, sports_all_kept, kSports, 0.0)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(prune_weighted, baby, kBaby, 0.8)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(prune_weighted, sports, kSports, 0.8)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(edge_cosines, baby, kBaby)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(edge_cosines, sports, kSports)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(negatives, sports_512x2, kSports, 512, 2)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(negatives, sports_2048x1, kSports, 2048, 1)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(candidates, sports, 1835, 18357)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(group, batch_2048x5_sports, 10240, 53955)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(similar_negative, baby_512x705, kBaby, 512, 705)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(similar_negative, sports_512x1835, kSports, 512, 1835)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(similar_negative, sports_2048x6300, kSports, 2048, 6300)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ccdrec::bench
