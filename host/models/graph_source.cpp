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

HostCsr GraphsOfData::user_item_mean(bool self_loops) { return mean_graph(train, self_loops); }

int64_t latent_width(const Settings& s, int64_t F) {
  constexpr int64_t kWide = 1024;
  return F > kWide ? s.mmgcn_latent : 0;
}

int64_t GraphsOfData::latent_width(size_t modality) {
  return ccdrec::latent_width(s_, data_.features[modality].matrix.cols());
}

std::vector<int32_t> GraphsOfData::neighbours(const Feature& f, bool centre) {
  const Range range(dev_, RangeId::knn);
  KnnResult r = knn_lists(dev_.ctx, dev_.ops, f, s_.knn_k, centre, s_.seed, s_.graph_cache);
  notes_.push_back("item graph of " + f.name + ": " + std::to_string(s_.knn_k) + " neighbours each, " +
                   std::to_string(r.tied_rows) + " of " + std::to_string(data_.n_items) + " rows tie at the last one" +
                   (r.from_cache ? " (from the cache)" : ""));
  if (!r.note.empty()) notes_.push_back(r.note);
  f.matrix.forget_pages();
  return std::move(r.idx);
}

// The similarities are I k dot products of rows of length 1, on the device and once a run: for that time a copy of the
// features is taken.
NeighbourLists GraphsOfData::frozen(size_t modality) {
  const Feature& f = data_.features[modality];
  NeighbourLists lists;
  lists.idx = neighbours(f, false);
  const Range range(dev_, RangeId::knn);
  const int64_t I = f.matrix.rows(), F = f.matrix.cols(), k = int64_t(lists.idx.size()) / I;
  Matrix x(dev_, I, F);
  const int64_t at_once = std::max<int64_t>(1, (int64_t(4) << 20) / F);
  std::vector<float> rows(size_t(std::min(at_once, I) * F));
  for (int64_t first = 0; first < I; first += at_once) {
    const int64_t n = std::min(at_once, I - first);
    f.matrix.read_rows(rows.data(), first, n);
    x.array().upload(rows.data(), n * F, first * F);
  }
  f.matrix.forget_pages();
  const Array<float> inv_norm(dev_, I), cosine(dev_, I * k);
  const Array<int32_t> idx(dev_, lists.idx);
  dev_.ops.normalize_rows(dev_.ctx, x, inv_norm.p(), x, RowList{nullptr, nullptr, I});
  dev_.ops.list_dots(dev_.ctx, {cosine.p(), I, k}, x, x, idx.p(), k);
  lists.val = cosine.host();
  std::vector<double> scale(size_t(I), 0.0);
  int64_t without = 0;
  for (int64_t i = 0; i < I; ++i) {
    double c = 0;
    for (int64_t e = i * k; e < (i + 1) * k; ++e) c += double(lists.val[size_t(e)]);
    scale[size_t(i)] = c > 0 ? 1 / std::sqrt(c) : 0;
    without += c > 0 ? 0 : 1;
  }
  for (int64_t i = 0; i < I; ++i)
    for (int64_t e = i * k; e < (i + 1) * k; ++e)
      lists.val[size_t(e)] =
          float(scale[size_t(i)] * double(lists.val[size_t(e)]) * scale[size_t(lists.idx[size_t(e)])]);
  if (without > 0)
    notes_.push_back("item graph of " + f.name + ": " + std::to_string(without) +
                     " rows have no positive sum of similarities; they have no frozen neighbours");
  return lists;
}

HostCsr GraphsOfData::items() {
  std::vector<std::vector<int32_t>> knn;
  for (const Feature& f : data_.features) knn.push_back(neighbours(f, s_.knn_center));
  const std::vector<float> weights = modality_weights(s_, data_.features.size());
  HostCsr graph = item_graph(knn, weights, data_.n_items, s_.knn_k);
  std::string mixed;
  for (size_t m = 0; m < weights.size(); ++m)
    mixed += fmt::format("{}{} {:g}", m ? ", " : "", data_.features[m].name, weights[m]);
  notes_.push_back("item graph: weights " + mixed);
  return graph;
}

}  // namespace ccdrec
