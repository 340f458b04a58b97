#include "host/models/graph_source.h"

#include <fmt/format.h>

#include <cmath>

#include "data/error.h"

namespace ccdrec {

std::vector<float> modality_weights(const Settings& s, size_t count) {
  if (!s.mm_weights.empty()) {
    double sum = 0;
    for (const double x : s.mm_weights) sum += x;
    if (s.mm_weights.size() != count || std::fabs(sum - 1.0) > 1e-6)
      throw UserError("mm_weights has " + std::to_string(s.mm_weights.size()) + " values with sum " +
                      std::to_string(sum) + ", expected " + std::to_string(count) +
                      " values (one per modality) with sum 1");
    return {s.mm_weights.begin(), s.mm_weights.end()};
  }
  if (count == 1) return {1.0f};
  if (count == 2) return {float(s.mm_image_weight), float(1.0 - s.mm_image_weight)};
  return std::vector<float>(count, float(1.0 / double(count)));
}

GraphsOfData::GraphsOfData(Device& dev, const Settings& s, const Dataset& data, std::vector<std::string>& notes)
    : GraphSource(data), dev_(dev), s_(s), data_(data), notes_(notes) {
  if (train.nnz() < int64_t(data.train.size()))
    notes.push_back(std::to_string(int64_t(data.train.size()) - train.nnz()) +
                    " duplicated training rows: one edge each in the graphs, kept as training samples");
}

HostCsr GraphsOfData::user_item() { return user_item_graph(train); }

HostCsr GraphsOfData::items() {
  std::vector<std::vector<int32_t>> knn;
  for (const Feature& f : data_.features) {
    const Range range(dev_, RangeId::knn);
    KnnResult r = knn_lists(dev_.ctx, dev_.ops, f, s_.knn_k, s_.knn_center, s_.seed, s_.graph_cache);
    notes_.push_back("item graph of " + f.name + ": " + std::to_string(s_.knn_k) + " neighbours each, " +
                     std::to_string(r.tied_rows) + " of " + std::to_string(data_.n_items) +
                     " rows tie at the last one" + (r.from_cache ? " (from the cache)" : ""));
    if (!r.note.empty()) notes_.push_back(r.note);
    knn.push_back(std::move(r.idx));
    f.matrix.forget_pages();
  }
  const std::vector<float> weights = modality_weights(s_, data_.features.size());
  HostCsr graph = item_graph(knn, weights, data_.n_items, s_.knn_k);
  std::string mixed;
  for (size_t m = 0; m < weights.size(); ++m)
    mixed += fmt::format("{}{} {:g}", m ? ", " : "", data_.features[m].name, weights[m]);
  notes_.push_back("item graph: weights " + mixed);
  return graph;
}

}  // namespace ccdrec
