#include "host/tensors.h"

namespace ccdrec {

std::vector<Window> windows(Recommender& model) {
  std::vector<Window> w;
  Backbone& b = model.backbone();
  RowTable& nodes = b.nodes();
  const int64_t d = nodes.value().cols;
  const auto add = [&](const std::string& name, RowTable& t, int64_t first, int64_t rows, int64_t cols) {
    w.push_back({name, rows, cols, false, &t.values().array(), &t.moments().array(), &t.squares().array(), first * cols});
  };
  add("user_embedding.weight", nodes, 0, b.users(), d);
  add("item_id_embedding.weight", nodes, b.first_item(), b.n_items(), d);
  if (Modalities* modal = model.modalities())
    for (int k = 0; k < modal->count(); ++k)
      if (RowTable& x = modal->features(k); x.trainable()) add(modal->name(k) + "_embedding.weight", x, 0, x.value().rows, x.value().cols);
  ParamArena& arena = model.arena();
  for (const ParamInfo& p : arena.params())
    w.push_back({p.name, p.rows, p.cols, p.transposed, &arena.values(), &arena.moments(), &arena.squares(), p.offset});
  return w;
}

std::vector<float> transposed(const std::vector<float>& v, int64_t rows, int64_t cols) {
  std::vector<float> t(v.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) t[size_t(c * rows + r)] = v[size_t(r * cols + c)];
  return t;
}

HostCsr downloaded(Device& dev, const Csr& a, bool values) {
  HostCsr h;
  h.rows = a.rows, h.cols = a.cols;
  h.row_ptr.resize(size_t(a.rows) + 1);
  dev.ops.download(dev.ctx, h.row_ptr.data(), a.row_ptr, h.row_ptr.size() * sizeof(int64_t));
  h.col.resize(size_t(h.row_ptr.back()));
  if (h.col.empty()) return h;
  dev.ops.download(dev.ctx, h.col.data(), a.col, h.col.size() * sizeof(int32_t));
  if (!values) return h;
  h.val.resize(h.col.size());
  dev.ops.download(dev.ctx, h.val.data(), a.val, h.val.size() * sizeof(float));
  return h;
}

void Writer::add(const std::string& name, std::vector<int64_t> shape, const Array<float>& a, int64_t offset, int64_t rows, int64_t cols,
                 bool transposed) {
  if (on_host_ && !transposed) {
    views.push_back({name, "F32", std::move(shape), a.p() + offset});
    return;
  }
  std::vector<float> host(size_t(rows * cols));
  a.download(host.data(), rows * cols, offset);
  if (transposed) host = ccdrec::transposed(host, rows, cols);
  floats(name, std::move(shape), std::move(host));
}

void Writer::add(const std::string& prefix, const Window& w, const Array<float>& a) {
  const bool bias = w.rows == 1 && !w.transposed;
  std::vector<int64_t> shape = w.transposed ? std::vector<int64_t>{w.cols, w.rows}
                               : bias       ? std::vector<int64_t>{w.cols}
                                            : std::vector<int64_t>{w.rows, w.cols};
  add(prefix + w.name, std::move(shape), a, w.offset, w.rows, w.cols, w.transposed);
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
