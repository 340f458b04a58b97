#include "host/training/tensors.h"

namespace ccdrec {

Windows windows(Recommender& model) {
  Windows all;
  model.model().parameters(all);
  return all;
}

void Writer::add(const std::string& name, CMat m) {
  if (in_place_)
    views.push_back({name, "F32", {m.rows, m.cols}, m.p});
  else
    floats(name, {m.rows, m.cols}, host_copy(dev_, m));
}

void Writer::add(const std::string& prefix, const Window& w, const Array<float>& a) {
  const CMat m{a.p() + w.offset, w.rows, w.cols};
  if (in_place_ && !w.transposed) {
    views.push_back({prefix + w.name, "F32", w.shape(), m.p});
    return;
  }
  std::vector<float> host = host_copy(dev_, m);
  if (w.transposed) host = transposed(host, w.rows, w.cols);
  floats(prefix + w.name, w.shape(), std::move(host));
}

void Writer::add(const Shown& a) {
  if (a.indices.empty())
    floats(a.name, a.shape, a.floats);
  else
    indices(a.name, a.shape, a.indices);
}

void Writer::add(const Kept& k) {
  if (in_place_) {
    views.push_back({k.name, k.dtype, k.shape, k.device});
    return;
  }
  bytes_.emplace_back(k.bytes);
  dev_.ops.download(dev_.ctx, bytes_.back().data(), k.device, k.bytes);
  views.push_back({k.name, k.dtype, k.shape, bytes_.back().data()});
}

void Writer::floats(const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
  floats_.push_back(std::move(values));
  views.push_back({name, "F32", std::move(shape), floats_.back().data()});
}

void Writer::indices(const std::string& name, std::vector<int64_t> shape, std::vector<int32_t> values) {
  indices_.push_back(std::move(values));
  views.push_back({name, "I32", std::move(shape), indices_.back().data()});
}

void Writer::numbers(const std::string& name, std::vector<int64_t> shape, std::vector<double> values) {
  numbers_.push_back(std::move(values));
  views.push_back({name, "F64", std::move(shape), numbers_.back().data()});
}

void Writer::graph(const std::string& name, const HostCsr& a) {
  const int64_t nnz = a.nnz();
  std::vector<int32_t> index(size_t(2 * nnz));
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e)
      index[size_t(e)] = int32_t(r), index[size_t(nnz + e)] = a.col[size_t(e)];
  indices(name + ".index", {2, nnz}, std::move(index));
  floats(name + ".value", {nnz}, a.val);
}

}  // namespace ccdrec
