// Curricular negatives beside the product they replace; the draws of an epoch and of a step; hard negatives.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth;

void similar(Bench& b, int64_t I, int64_t B, int64_t C) {
  Device& dev = b.dev();
  const int64_t items = std::max<int64_t>(64, b.n(I)), rows = std::max<int64_t>(8, b.n(B)),
                count = std::max<int64_t>(8, b.n(C));
  const DeviceGraph g(dev, scaled({kBaby.U, items, kBaby.E}, items == I ? 1.0 : b.scale()));
  const DeviceMatrix pool(dev, g.pairs.shape.I, d);
  Array<int32_t> cand(dev, count), out(dev, rows), flag(dev, 1);
  const Array<int32_t> pos(dev, random_ids(rows, g.pairs.shape.I, 1)), users(dev, random_ids(rows, g.pairs.shape.U, 2));
  dev.ops.candidates(dev.ctx, cand.p(), count, g.pairs.shape.I, Stream{1, Use::candidates});
  const double flop = 2.0 * double(rows) * double(count) * d;
  Line& l = b.measure(
      "similar_negative", fmt::format("B {}, C {}, kappa 0.1", rows, count), 4.0 * double(rows + count) * d, flop, [&] {
        dev.ops.similar_negative(dev.ctx, out.p(), flag.p(), pool, pos.p(), users.p(), rows, cand.p(), count, g.train(),
                                 std::max<int64_t>(1, count / 10), false, pos.p(), Stream{1, Use::cns_rank});
      });
  const bool judged = C == 100000;
  l.at_least("cuBLAS, the one product it replaces", flop / l.warm / (b.top().skinny_tflops * 1e12), judged ? 0.25 : 0,
             judged ? 0.5 : 0);
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
  const DeviceMatrix p(dev, g.pairs.shape.U, d), x(dev, I, d);
  Array<float> a(dev, E);
  b.measure("draws: edge_cosines", fmt::format("{} edges", E), double(E) * (12 + 4 * d), 2.0 * double(E) * d,
            [&] { dev.ops.edge_cosines(dev.ctx, a.p(), g.edges(), p, x, 0.3f); });
  b.measure("draws: prune_weighted", fmt::format("{} edges, rho 0.8", E), 120.0 * double(E), 0, [&] {
    dev.ops.prune_weighted(dev.ctx, pruned.mutable_view(), g.edges(), a.p(), false, 0.8, Stream{1, Use::prune});
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

// DNS, then MixGCF on three tables and an item part.
void hard(Bench& b) {
  Device& dev = b.dev();
  const DeviceGraph g(dev, scaled(kBaby, b.scale()));
  const int64_t U = g.pairs.shape.U, I = g.pairs.shape.I, B = b.n(2048);
  constexpr int kN = 32;
  const DeviceMatrix h_u(dev, U, d), u(dev, B, d), part(dev, I, d), first(dev, I, d), second(dev, I, d),
      third(dev, I, d), alpha(dev, 3, B);
  const Array<int32_t> users(dev, random_ids(B, U, 2)), positives(dev, random_ids(B, I, 1)),
      items(dev, random_ids(I, I, 3));
  Array<int32_t> out(dev, 3 * B);
  LayerTables dns, mixed;
  dns.n = 1, dns.layer[0] = first;
  mixed.n = 3, mixed.layer[0] = first, mixed.layer[1] = second, mixed.layer[2] = third, mixed.item_part = part;
  const auto choice = [&](const char* name, const LayerTables& v, double rows) {
    b.measure(name, fmt::format("B {}, N {}, {} tables", B, kN, v.n), 4.0 * double(B) * kN * rows * d,
              2.0 * double(B) * kN * rows * d, [&] {
                dev.ops.hardest_negative(dev.ctx, out.p(), h_u, users.p(), B, 0, v, g.train(), items.p(), I, kN, 1,
                                         Stream{1, Use::hard}, Stream{1, Use::hard_rank});
              });
  };
  choice("hardest_negative: DNS", dns, 1);
  choice("hardest_negative: MixGCF", mixed, 6);  // the item part once a table
  Matrix mixing(dev, 3, B), d_u(dev, B, d), d_first(dev, 2 * B, d), d_second(dev, 2 * B, d), d_third(dev, 2 * B, d),
      ranks(dev, B, 3);
  b.measure("draw_mixing", fmt::format("B {}, 3 tables", B), 12.0 * double(B), 0, [&] {
    dev.ops.draw_mixing(dev.ctx, mixing, 0, Stream{1, Use::mix});
  });
  Array<double> loss(dev, 1);
  const Mat d_layer[] = {d_first, d_second, d_third};
  b.measure("mixed_bpr", fmt::format("B {}, 3 tables", B), 4.0 * double(B) * d * (3 + 8 + 6), 0, [&] {
    dev.ops.mixed_bpr(dev.ctx, loss.p(), d_u, d_layer, {}, u, mixed, positives.p(), out.p(), alpha, 0.5f, false);
  });
  std::vector<int32_t> all(size_t(I), 0);
  std::iota(all.begin(), all.end(), 0);
  const Array<PopularColumn> columns(dev, popular_columns(all, std::vector<int64_t>(size_t(I), 1), 0.75));
  b.measure("popular_negatives", fmt::format("B {}", B), 24.0 * double(B), 0, [&] {
    dev.ops.popular_negatives(dev.ctx, out.p(), users.p(), B, 0, g.train(), columns.p(), columns.n(),
                              Stream{1, Use::popular});
  });
  b.measure("negative_ranks", fmt::format("B {}, I {}", B, I), 4.0 * double(2 * B + I) * d,
            2.0 * double(B) * double(I) * d,
            [&] { dev.ops.negative_ranks(dev.ctx, ranks, h_u, users.p(), positives.p(), u, first, g.train()); });
}

// RealHNS: candidates of users out of their rankings, the cohesion of the items' clusters, the choice of a batch.
void filtered(Bench& b) {
  Device& dev = b.dev();
  const int64_t U = b.n(kBaby.U), I = std::max<int64_t>(64, b.n(kBaby.I)), B = b.n(2048), N = (I + 9) / 10,
                K = std::min<int64_t>(100, I);
  const DeviceMatrix h_u(dev, U, d), h_i(dev, I, d);
  const Array<int32_t> users(dev, random_ids(B, U, 2)), positives(dev, random_ids(B, I, 1)),
      lists(dev, random_ids(U * N, I, 3)), columns(dev, random_ids(N, N, 4));
  Array<int32_t> table(dev, U * N), out(dev, B);
  Array<float> theta(dev, std::vector<float>{0.2f}), q(dev, std::vector<float>{1.0f}), cohesion(dev, 1);
  b.measure("pick_columns", fmt::format("{} users, {} of {}", U, N, N), 8.0 * double(U) * double(N), 0,
            [&] { dev.ops.pick_columns(dev.ctx, table.p(), lists.p(), U, N, columns.p(), N, nullptr); });
  // random rows: as many rounds as there are
  b.measure("cohesion", fmt::format("{} items, {} clusters, {} rounds", I, K, kCohesionRounds),
            4.0 * double(I) * d * kCohesionRounds, 2.0 * double(I * K) * d * kCohesionRounds, [&] {
              dev.ops.cohesion(dev.ctx, cohesion.p(), h_i, 100, 1, Stream{1, Use::centres});
            });
  FilterProblem p;
  p.h_u = h_u, p.h_i = h_i, p.users = users.p(), p.positives = positives.p(), p.batch = B;
  p.table = table.p(), p.n_candidates = N, p.top = (N + 9) / 10, p.theta = theta.p(), p.q = q.p();
  p.active = {1, Use::filter_active}, p.rank = {1, Use::filter_rank};
  b.measure("filtered_negative", fmt::format("B {}, N {}", B, N), 4.0 * double(B) * double(N) * d,
            4.0 * double(B) * double(N) * d, [&] { dev.ops.filtered_negative(dev.ctx, out.p(), nullptr, p); });
}

}  // namespace

void sampling(Bench& b) {
  if (b.wanted({"similar_negative"}))
    for (const auto& [I, B, C] : {std::tuple(int64_t(7050), int64_t(512), int64_t(705)),
                                  std::tuple(int64_t(63001), int64_t(512), int64_t(6300)),
                                  std::tuple(int64_t(1000000), int64_t(2048), int64_t(100000))})
      similar(b, I, B, C);
  if (b.wanted({"draws", "shuffle", "prune", "edge_cosines", "prune_weighted", "negatives", "unseen_items",
                "candidates", "draw_timesteps"}))
    draws(b);
  if (b.wanted({"hardest_negative", "draw_mixing", "mixed_bpr", "popular_negatives", "negative_ranks"})) hard(b);
  if (b.wanted({"pick_columns", "cohesion", "filtered_negative"})) filtered(b);
}

}  // namespace ccdrec::bench
