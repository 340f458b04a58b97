#include "host/models/model.h"

namespace ccdrec {

Interactions::Interactions(Device& dev, const Dataset& data, const HostCsr& pairs) {
  std::vector<int32_t> users, items, seen;
  std::vector<bool> occurs(static_cast<size_t>(data.n_items));
  for (const Pair& p : data.train) users.push_back(p.user), items.push_back(p.item), occurs[size_t(p.item)] = true;
  for (int64_t i = 0; i < data.n_items; ++i)
    if (occurs[size_t(i)]) seen.push_back(int32_t(i));
  user = Array<int32_t>(dev, users), item = Array<int32_t>(dev, items), occurring = Array<int32_t>(dev, seen);
  by_user = OwnedCsr(dev, pairs);
}

}  // namespace ccdrec
