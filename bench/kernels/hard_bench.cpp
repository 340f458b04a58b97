// Hard negatives of a batch: the choice of DNS (one table) and of MixGCF (three tables and an item part), MixGCF's
// loss, popularity, and how hard they were.
#include <benchmark/benchmark.h>

#include "bench/kernels/skewed.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = 64;

struct Tables {  // n tables and, where there are several, an item part
  std::vector<std::vector<float>> floats;
  LayerTables v;
  Tables(int64_t I, int n) {
    v.n = n;
    for (int l = 0; l < n + (n > 1); ++l) floats.push_back(random_floats(I * d));
    for (int l = 0; l < n; ++l) v.layer[l] = {floats[size_t(l)].data(), I, d};
    if (n > 1) v.item_part = {floats.back().data(), I, d};
  }
};

void hardest_negative(benchmark::State& state, Shape shape, int64_t B, int N, int n, int top_m) {
  const SkewedPairs p = skewed_pairs(shape);
  const Tables t(shape.I, n);
  const auto h_u = random_floats(shape.U * d);
  const auto users = random_ids(B, shape.U, 0);
  std::vector<int32_t> items(size_t(shape.I)), out(size_t(B) * size_t(n));
  std::iota(items.begin(), items.end(), 0);
  Ctx ctx(threads());
  uint32_t step = 0;
  for (auto _ : state) {
    ++step;
    cpu::hardest_negative(ctx, out.data(), {h_u.data(), shape.U, d}, users.data(), B, 0, t.v, p.train(), items.data(),
                          shape.I, N, top_m, Stream{1, Use::hard, 0, step}, Stream{1, Use::hard_rank, 0, step});
  }
  state.SetItemsProcessed(state.iterations() * B * N);
}

void mixed_bpr(benchmark::State& state, Shape shape, int64_t B, int n) {
  const Tables t(shape.I, n);
  const auto u = random_floats(B * d), alpha = random_floats(n * B);
  const auto positives = random_ids(B, shape.I, 0), hard = random_ids(n * B, shape.I, 1);
  std::vector<float> d_u(u.size()), gradients(size_t(n) * 2 * u.size());
  std::vector<Mat> d_layer;
  for (int l = 0; l < n; ++l) d_layer.push_back({gradients.data() + int64_t(l) * 2 * B * d, 2 * B, d});
  double loss = 0;
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::mixed_bpr(ctx, &loss, {d_u.data(), B, d}, d_layer.data(), {}, {u.data(), B, d}, t.v, positives.data(),
                   hard.data(), {alpha.data(), n, B}, 0.5f, false);
}

void draw_mixing(benchmark::State& state, int64_t B, int n) {
  std::vector<float> alpha(size_t(B) * size_t(n));
  Ctx ctx(threads());
  for (auto _ : state) cpu::draw_mixing(ctx, {alpha.data(), n, B}, 0, Stream{1, Use::mix});
}

void popular_negatives(benchmark::State& state, Shape shape, int64_t B) {
  const SkewedPairs p = skewed_pairs(shape);
  const auto users = random_ids(B, shape.U, 0);
  std::vector<int32_t> items(size_t(shape.I)), out(size_t(B), 0);
  std::iota(items.begin(), items.end(), 0);
  std::vector<int64_t> counts(items.size());
  for (int32_t i : p.item) ++counts[size_t(i)];
  const auto columns = popular_columns(items, counts, 0.75);
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::popular_negatives(ctx, out.data(), users.data(), B, 0, p.train(), columns.data(), int64_t(columns.size()),
                           Stream{1, Use::popular});
}

void negative_ranks(benchmark::State& state, Shape shape, int64_t B) {
  const SkewedPairs p = skewed_pairs(shape);
  const auto h_u = random_floats(shape.U * d), h_i = random_floats(shape.I * d), h_n = random_floats(B * d);
  const auto users = random_ids(B, shape.U, 0), positives = random_ids(B, shape.I, 1);
  std::vector<float> out(size_t(B) * 3);
  Ctx ctx(threads());
  for (auto _ : state)
    cpu::negative_ranks(ctx, {out.data(), B, 3}, {h_u.data(), shape.U, d}, users.data(), positives.data(),
                        {h_n.data(), B, d}, {h_i.data(), shape.I, d}, p.train());
  state.counters["Gflop/s"] = benchmark::Counter(double(state.iterations()) * 2.0 * double(B * shape.I * d) * 1e-9,
                                                 benchmark::Counter::kIsRate);
}

BENCHMARK_CAPTURE(hardest_negative, dns_baby_2048x32, kBaby, 2048, 32, 1, 1)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(hardest_negative, dns_baby_2048x32_of_the_best_4, kBaby, 2048, 32, 1, 4)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(hardest_negative, mixgcf_baby_2048x32x3, kBaby, 2048, 32, 3, 1)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(hardest_negative, mixgcf_sports_2048x32x3, kSports, 2048, 32, 3, 1)
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(mixed_bpr, baby_2048x3, kBaby, 2048, 3)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(draw_mixing, batch_2048x3, 2048, 3)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(popular_negatives, baby_2048, kBaby, 2048)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(negative_ranks, baby_1024, kBaby, 1024)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ccdrec::bench
