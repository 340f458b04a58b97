// LATTICE's item graph, built and differentiated once an epoch over all items: lists of ten neighbours, two modalities.
#include <fmt/format.h>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth, k = 10;

void lists(Bench& b) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050);
  const Array<int32_t> idx(dev, random_ids(I * k, I, 51));
  OwnedGroups owned(dev, I * k);
  Groups by_target = owned.groups();
  dev.ops.group(dev.ctx, by_target, idx.p(), I * k, I);
  const DeviceMatrix x(dev, I, d), y(dev, I, d), g(dev, I, k);
  Matrix v(dev, I, k), dy(dev, I, d);
  const std::string shape = fmt::format("{} lists of {}", I, k);
  const double entries = double(I) * k, bytes = entries * (8 + 4 * d) + 4.0 * double(I) * d;
  b.measure("list_dots", shape, bytes, 2 * entries * d, [&] { dev.ops.list_dots(dev.ctx, v, x, y, idx.p(), k); });
  b.measure("list_spread", shape, 2 * bytes, 4 * entries * d,
            [&] { dev.ops.list_spread(dev.ctx, dy, g, y, idx.p(), by_target); });
}

}  // namespace

void item_graphs(Bench& b) {
  if (b.wanted({"list_dots", "list_spread"})) lists(b);
}

}  // namespace ccdrec::bench
