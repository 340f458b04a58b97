// Curricular negatives beside the product they replace; the draws of an epoch and of a step.
#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth;

void similar(Bench& b, int64_t I, int64_t B, int64_t C) {
  Device& dev = b.dev();
  const int64_t items = std::max<int64_t>(64, b.n(I)), rows = std::max<int64_t>(8, b.n(B)), count = std::max<int64_t>(8, b.n(C));
  const DeviceGraph g(dev, scaled({kBaby.U, items, kBaby.E}, items == I ? 1.0 : b.scale()));
  const DeviceMatrix pool(dev, g.pairs.shape.I, d);
  Array<int32_t> cand(dev, count), out(dev, rows), flag(dev, 1);
  const Array<int32_t> pos(dev, random_ids(rows, g.pairs.shape.I, 1)), users(dev, random_ids(rows, g.pairs.shape.U, 2));
  dev.ops.candidates(dev.ctx, cand.p(), count, g.pairs.shape.I, Stream{1, Use::candidates});
  const double flop = 2.0 * double(rows) * double(count) * d;
  Line& l = b.measure("similar_negative", fmt::format("B {}, C {}, kappa 0.1", rows, count), 4.0 * double(rows + count) * d, flop, [&] {
    dev.ops.similar_negative(dev.ctx, out.p(), flag.p(), pool, pos.p(), users.p(), rows, cand.p(), count, g.train(), std::max<int64_t>(1, count / 10),
                             false, pos.p(), Stream{1, Use::cns_rank});
  });
  const bool judged = C == 100000;
  l.at_least("cuBLAS, the one product it replaces", flop / l.warm / (b.top().skinny_tflops * 1e12), judged ? 0.25 : 0, judged ? 0.5 : 0);
}

void draws(Bench& b) {
  Device& dev = b.dev();
  const DeviceGraph g(dev, scaled(kElec, b.scale()));
  const int64_t E = g.edges().n, I = g.pairs.shape.I, B = b.n(2048), n = b.n(1300);
  Array<int32_t> order(dev, E), negatives(dev, B), cand(dev, std::max<int64_t>(1, I / 10)), t(dev, n);
  const Array<int32_t> users(dev, random_ids(B, g.pairs.shape.U, 2)), items(dev, random_ids(I, I, 3));
  OwnedCsr pruned(dev, g.N, g.N, 2 * E);
  b.measure("draws: shuffle", fmt::format("{} pairs", E), 24.0 * double(E), 0, [&] {
    dev.ops.shuffle(dev.ctx, order.p(), E, Stream{1, Use::shuffle});
  });
  b.measure("draws: prune", fmt::format("{} edges, rho 0.8", E), 60.0 * double(E), 0, [&] {
    dev.ops.prune(dev.ctx, pruned.mutable_view(), g.edges(), 0.8, Stream{1, Use::prune});
  });
  b.measure("draws: negatives", fmt::format("B {}", B), 8.0 * double(B), 0, [&] {
    dev.ops.negatives(dev.ctx, negatives.p(), users.p(), B, 1, 0, g.train(), items.p(), I, Stream{1, Use::neg_uniform});
  });
  b.measure("draws: unseen_items", fmt::format("B {}", B), 8.0 * double(B), 0, [&] {
    dev.ops.unseen_items(dev.ctx, negatives.p(), users.p(), B, g.train(), I, Stream{1, Use::ndi_item});
  });
  b.measure("draws: candidates", fmt::format("C {}", cand.n()), 8.0 * double(cand.n()), 0, [&] {
    dev.ops.candidates(dev.ctx, cand.p(), cand.n(), I, Stream{1, Use::candidates});
  });
  b.measure("draws: draw_timesteps", fmt::format("{} items, mirrored", n), 4.0 * double(n), 0, [&] {
    dev.ops.draw_timesteps(dev.ctx, t.p(), RowList{nullptr, nullptr, n}, 20, true, Stream{1, Use::timestep});
  });
}

}  // namespace

void sampling(Bench& b) {
  if (b.wanted({"similar_negative"}))
    for (const auto& [I, B, C] : {std::tuple(int64_t(7050), int64_t(512), int64_t(705)), std::tuple(int64_t(63001), int64_t(512), int64_t(6300)),
                                  std::tuple(int64_t(1000000), int64_t(2048), int64_t(100000))})
      similar(b, I, B, C);
  if (b.wanted({"draws", "shuffle", "prune", "negatives", "unseen_items", "candidates", "draw_timesteps"})) draws(b);
}

}  // namespace ccdrec::bench
