#include "host/models/watch.h"

#include <algorithm>
#include <cctype>
#include <numeric>

#include "data/error.h"

namespace ccdrec {

namespace {
int64_t values_of(const Extents& shape) {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}
}  // namespace

void Given::fail(const std::string& what) const {
  std::string sentence = what;
  for (char& c : sentence)
    if (std::iscntrl(static_cast<unsigned char>(c))) c = '?';
  throw UserError(origin() + ": " + sentence);
}

std::vector<float> host_copy(Device& dev, CMat m) {
  std::vector<float> v(static_cast<size_t>(m.size()));
  if (!v.empty()) dev.ops.download(dev.ctx, v.data(), m.p, v.size() * sizeof(float));
  return v;
}

std::vector<int32_t> host_copy(Device& dev, const int32_t* from, int64_t n) {
  std::vector<int32_t> v(static_cast<size_t>(n));
  if (n) dev.ops.download(dev.ctx, v.data(), from, v.size() * sizeof(int32_t));
  return v;
}

std::vector<int32_t> host_copy(Device& dev, RowList rows) {
  if (!rows.idx) {  // every row in order
    std::vector<int32_t> all(static_cast<size_t>(rows.capacity));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  int64_t n = 0;
  dev.ops.download(dev.ctx, &n, rows.count, sizeof n);
  return host_copy(dev, rows.idx, n);
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

void Watch::floats(const std::string& name, const Extents& shape, std::vector<float> values) {
  CHECK_THAT(int64_t(values.size()) == values_of(shape));
  all.push_back({name, shape, std::move(values), {}});
}

void Watch::floats(const std::string& name, const Extents& shape, CMat from) {
  floats(name, shape, host_copy(dev_, {from.p, 1, values_of(shape)}));
}

void Watch::parameter(const std::string& name, CMat from, bool vector, bool turned) {
  std::vector<float> v = host_copy(dev_, from);
  if (turned)
    floats(name, {from.cols, from.rows}, transposed(v, from.rows, from.cols));
  else
    floats(name, vector ? Extents{from.cols} : Extents{from.rows, from.cols}, std::move(v));
}

void Watch::indices(const std::string& name, const Extents& shape, std::vector<int32_t> values) {
  CHECK_THAT(int64_t(values.size()) == values_of(shape));
  all.push_back({name, shape, {}, std::move(values)});
}

void Watch::indices(const std::string& name, const Extents& shape, const int32_t* from) {
  indices(name, shape, host_copy(dev_, from, values_of(shape)));
}

void Watch::graph(const std::string& name, const Csr& a, bool of_epoch) {
  graphs.push_back({name, downloaded(dev_, a), of_epoch});
}

const Shown* Watch::find(const std::string& name) const {
  const auto it = std::find_if(all.begin(), all.end(), [&](const Shown& s) { return s.name == name; });
  return it == all.end() ? nullptr : &*it;
}

const std::vector<int32_t>& Watch::ids(const std::string& name) const {
  static const std::vector<int32_t> none;
  const Shown* const s = find(name);
  return s ? s->indices : none;
}

}  // namespace ccdrec
