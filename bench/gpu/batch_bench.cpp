// The losses of a batch, its slots grouped by row, and the row moves of a step: small operations, of which a step has
// many.
#include <fmt/format.h>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth;

void losses(Bench& b) {
  Device& dev = b.dev();
  const int64_t B = b.n(2048);
  const DeviceMatrix u(dev, B, d), p(dev, B, d), x(dev, B, d);
  Matrix du(dev, B, d), dp(dev, B, d), dx(dev, B, d);
  Array<double> loss(dev, 1);
  b.measure("bpr", fmt::format("B {}", B), 4.0 * 8 * double(B) * d, 0, [&] {
    dev.ops.bpr(dev.ctx, loss.p(), {du, dp, dx}, u, p, x, 1.0f, false);
  });
  b.measure("square_reg", fmt::format("B {}", B), 12.0 * double(B) * d, 0,
            [&] { dev.ops.square_reg(dev.ctx, loss.p(), du, u, 1e-3f); });
}

void groups(Bench& b) {
  Device& dev = b.dev();
  const int64_t B = b.n(2048), slots = 3 * B, N = b.n(26495);
  const Array<int32_t> ids(dev, random_ids(slots, N, 9));
  OwnedGroups owned(dev, slots);
  Groups g = owned.groups();
  const std::string shape = fmt::format("{} slots", slots);
  b.measure("group", shape, 20.0 * double(slots), 0, [&] { dev.ops.group(dev.ctx, g, ids.p(), slots, N); });
  int64_t rows = 0;
  dev.ops.download(dev.ctx, &rows, g.rows.count, sizeof rows);
  const DeviceMatrix x(dev, slots, d), table(dev, N, d);
  Matrix y(dev, N, d), by_slot(dev, slots, d);
  Array<double> loss(dev, 1);
  b.measure("group: segment_sum", shape, 4.0 * double(slots + rows) * d + 8.0 * double(slots), 0,
            [&] { dev.ops.segment_sum(dev.ctx, y, x, g, true, false); });
  b.measure("group: expand_rows", shape, 4.0 * double(slots + rows) * d + 8.0 * double(slots), 0,
            [&] { dev.ops.expand_rows(dev.ctx, by_slot, x, g); });
  b.measure("group: gather_rows", shape, 8.0 * double(slots) * d + 4.0 * double(slots), 0,
            [&] { dev.ops.gather_rows(dev.ctx, by_slot, table, ids.p(), slots); });
  // Every slot's row for the norms; each distinct row again for its gradient, which is added to.
  b.measure("norm_reg", fmt::format("{} of {} rows", shape, rows),
            4.0 * double(slots + 3 * rows) * d + 8.0 * double(slots), 0,
            [&] { dev.ops.norm_reg(dev.ctx, loss.p(), y, table, g, ids.p(), B, 1, 1e-3f); });
}

// Rows as a step of CCDRec on Baby moves them: most nodes are reached.
void row_moves(Bench& b) {
  Device& dev = b.dev();
  const int64_t U = b.n(19445), I = b.n(7050), N = U + I, n = b.n(13000), m = b.n(900);
  const DeviceRows nodes(dev, evenly(n, N)), items(dev, evenly(std::min(n / 4 + 1, I), I)), few(dev, evenly(m, I));
  const DeviceMatrix x(dev, N, d);
  Matrix y(dev, N, d);
  const OwnedRows users_out(dev, U), items_out(dev, I), both(dev, items.n + few.n);
  const std::string shape = fmt::format("{} of {} rows", n, N);
  const double moved = 4.0 * double(n) * d, list = 4.0 * double(n);
  b.measure("row moves: copy_rows", shape, 2 * moved + list, 0,
            [&] { dev.ops.copy_rows(dev.ctx, y, x, nodes.list()); });
  b.measure("row moves: add_rows", shape, 3 * moved + list, 0,
            [&] { dev.ops.add_rows(dev.ctx, y, x, nodes.list(), 0); });
  b.measure("row moves: zero_rows", shape, moved + list, 0, [&] { dev.ops.zero_rows(dev.ctx, y, nodes.list()); });
  b.measure("row moves: fill_zero", fmt::format("{} rows", N), 4.0 * double(N) * d, 0,
            [&] { dev.ops.fill_zero(dev.ctx, y); });
  b.measure("row moves: split_rows", fmt::format("{} nodes", n), 2 * list, 0,
            [&] { dev.ops.split_rows(dev.ctx, users_out.list(), items_out.list(), nodes.list(), U); });
  b.measure("row moves: merge_rows", fmt::format("{} and {} rows", items.n, few.n), 8.0 * double(items.n + few.n), 0,
            [&] { dev.ops.merge_rows(dev.ctx, both.list(), items.list(), few.list()); });
}

void indices(Bench& b) {
  Device& dev = b.dev();
  const int64_t E = b.n(kBaby.E), B = b.n(512);
  const Array<int32_t> table(dev, random_ids(E, b.n(7050), 41)), order(dev, random_ids(E, E, 42));
  Array<int32_t> out(dev, B);
  b.measure("row moves: take", fmt::format("B {}", B), 12.0 * double(B), 0,
            [&] { dev.ops.take(dev.ctx, out.p(), table.p(), order.p(), 0, B); });
  b.measure("row moves: offset_ids", fmt::format("B {}", B), 8.0 * double(B), 0,
            [&] { dev.ops.offset_ids(dev.ctx, out.p(), table.p(), B, int32_t(kBaby.U)); });
}

// Of all items, as LATTICE normalises them.
void normalised(Bench& b) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050);
  const DeviceMatrix x(dev, I, d), g(dev, I, d);
  Matrix y(dev, I, d), g_x(dev, I, d);
  Array<float> inv(dev, I);
  const RowList all{nullptr, nullptr, I};
  const std::string shape = fmt::format("{} rows", I);
  b.measure("normalize_rows", shape, double(I) * (8 * d + 4), 0,
            [&] { dev.ops.normalize_rows(dev.ctx, y, inv.p(), x, all); });
  b.measure("normalize_rows_backward", shape, double(I) * (12 * d + 4), 0,
            [&] { dev.ops.normalize_rows_backward(dev.ctx, g_x, g, y, inv.p(), all, false); });
}

// Once a run.
void initialisers(Bench& b) {
  Device& dev = b.dev();
  const int64_t rows = b.n(255404);
  Matrix y(dev, rows, d);
  const double elements = double(rows) * d;
  const std::string shape = fmt::format("{} x {}", rows, d);
  b.measure("init_uniform", shape, 4 * elements, 0, [&] {
    dev.ops.init_uniform(dev.ctx, y, 0.1f, Stream{1, Use::init});
  });
  b.measure("init_normal", shape, 4 * elements, 0, [&] {
     dev.ops.init_normal(dev.ctx, y, 0.1f, Stream{1, Use::init});
   }).more = kOperationsOfNormal * elements;
}

}  // namespace

void batch(Bench& b) {
  if (b.wanted({"bpr", "square_reg"})) losses(b);
  if (b.wanted({"group", "segment_sum", "expand_rows", "gather_rows", "norm_reg"})) groups(b);
  if (b.wanted({"row moves", "copy_rows", "add_rows", "zero_rows", "fill_zero", "split_rows", "merge_rows"}))
    row_moves(b);
  if (b.wanted({"row moves", "take", "offset_ids"})) indices(b);
  if (b.wanted({"normalize_rows", "normalize_rows_backward"})) normalised(b);
  if (b.wanted({"init_uniform", "init_normal"})) initialisers(b);
}

}  // namespace ccdrec::bench
