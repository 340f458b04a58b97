#include "host/samplers/popularity.h"

namespace ccdrec {
namespace {

std::vector<PopularColumn> columns_of(const Setup& z) {
  std::vector<int64_t> rows(size_t(z.items()));
  for (const Pair& p : z.data.train) ++rows[size_t(p.item)];
  const std::vector<int32_t> items = z.train.occurring.host();
  std::vector<int64_t> counts(items.size());
  for (size_t k = 0; k < items.size(); ++k) counts[k] = rows[size_t(items[k])];
  return popular_columns(items, counts, z.s.popularity_power);
}

}  // namespace

Popularity::Popularity(const Setup& z, const Outline&)
    : HardSampler(z, Gives::item, true), train_(z.train.by_user.view()), columns_(z.dev, columns_of(z)) {}

void Popularity::early(const Batch& b, const Step& step) {
  if (!gives()) return;
  const Range range = step.clock.range(RangeId::uniform);
  dev_.ops.popular_negatives(dev_.ctx, b.hard(), b.users, b.rows, step.now.first, train_, columns_.p(), columns_.n(),
                             step.now.draws(seed_, Use::popular));
}

}  // namespace ccdrec
