// Adam: dense, and by rows at the sizes of Elec's nodes and of Baby's wide features.
#include <fmt/format.h>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {

void optimiser(Bench& b) {
  if (!b.wanted({"adam", "adam_catch_up", "adam_rows", "adam_flush"})) return;
  Device& dev = b.dev();
  const DeviceSteps steps(dev);
  const AdamSchedule s = steps.schedule();
  const int64_t rows = b.n(255404), d = kWidth, n = rows * d;
  {
    const DeviceTable x(dev, rows, d);
    const DeviceMatrix g(dev, rows, d);
    const RowList all{nullptr, nullptr, rows};
    Line& l = b.measure("adam", fmt::format("{} elements", n), 28.0 * double(n), 0,
                        [&] { dev.ops.adam(dev.ctx, x.value, x.m, x.v, g, s, 5); });
    l.at_least("copy", l.bytes / l.cold / (b.top().copy_gbs * 1e9), 0.85);
    // Every row behind; the steps are put back by one more operation, which is timed too (8 bytes a row).
    for (const int64_t owed : {1, 50})
      b.measure("adam_catch_up",
                fmt::format("{} rows of {}, {} owed, steps put back", rows, d, owed == 1 ? "one step" : "50 steps"),
                16.0 * double(n) + 20.0 * double(rows), 0,
                [&] { x.restore_values(dev), dev.ops.adam_catch_up(dev.ctx, x.table(), all, s, owed); });
    b.measure("adam_rows", fmt::format("{} rows of {}, a gradient at once, steps put back", rows, d),
              28.0 * double(n) + 24.0 * double(rows), 0,
              [&] { x.restore_both(dev), dev.ops.adam_rows(dev.ctx, x.table(), all, g, true, s, 1); });
    b.measure("adam_flush", fmt::format("{} rows of {}, 7 steps owed, put back", rows, d),
              24.0 * double(n) + 32.0 * double(rows), 0,
              [&] { x.restore_both(dev), dev.ops.adam_flush(dev.ctx, x.table(), s, 7); });
  }
  const int64_t I = b.n(7050), F = b.n(4096);
  const DeviceTable features(dev, I, F);
  b.measure("adam_flush", fmt::format("{} rows of {}, 7 steps owed, put back", I, F),
            24.0 * double(I) * double(F) + 32.0 * double(I), 0,
            [&] { features.restore_both(dev), dev.ops.adam_flush(dev.ctx, features.table(), s, 7); });
}

}  // namespace ccdrec::bench
