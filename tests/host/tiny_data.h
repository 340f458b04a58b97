// Small data sets in memory for the tests of models and training.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kernels/rng.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {

inline void add_feature(Dataset& data, const Folder& dir, const std::string& name, const std::vector<float>& x,
                        int64_t width) {
  const std::string file = dir / (name + "_feat.npy");
  write_npy(file, x.data(), data.n_items, width);
  data.features.push_back({name, NpyMatrix(file)});
}

// U users, I items, pairs and features drawn at random; the last item and the last user have no training row.
inline Dataset random_data(const Folder& dir, int32_t U, int32_t I, int pairs_per_user,
                           const std::vector<int64_t>& widths, uint32_t seed = 5) {
  static const char* const names[] = {"image", "text", "audio"};
  Dataset data;
  data.name = "random", data.checksum = "test";
  data.n_users = U, data.n_items = I;
  data.users = IdMap::dense_of(U), data.items = IdMap::dense_of(I);
  uint32_t n = 0;
  const auto bits = [&] { return draw(Stream{seed, Use::test, 9}, n++).v[0]; };
  for (int32_t u = 0; u + 1 < U; ++u) {
    std::vector<int32_t> items;
    while (int(items.size()) < pairs_per_user + 2) {
      const auto i = int32_t(below(bits(), uint32_t(I - 1)));
      if (std::find(items.begin(), items.end(), i) == items.end()) items.push_back(i);
    }
    for (int k = 0; k < pairs_per_user; ++k) data.train.push_back({u, items[size_t(k)]});
    data.valid.push_back({u, items[size_t(pairs_per_user)]});
    data.test.push_back({u, items[size_t(pairs_per_user) + 1]});
  }
  for (size_t m = 0; m < widths.size(); ++m) {
    std::vector<float> x(size_t(I * widths[m]));
    for (float& v : x) v = 2 * uniform01(bits()) - 1;
    add_feature(data, dir, names[m], x, widths[m]);
  }
  return data;
}

}  // namespace ccdrec::test
