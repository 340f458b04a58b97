// Where parameters live: small dense ones (projections, estimator) in one contiguous arena, tables that a step touches
// by rows in row tables; and the windows through which files see either.
#pragma once
#include <string>
#include <vector>

#include "host/base/device.h"
#include "host/models/watch.h"

namespace ccdrec {

// A parameter matrix stepped by rows on demand: value, moments and the steps they have reached in each row.
class RowTable {
 public:
  RowTable() = default;
  RowTable(Device& dev, int64_t rows, int64_t cols, bool trainable) : value_(dev, rows, cols) {
    if (trainable)
      m_ = Matrix(dev, rows, cols), v_ = Matrix(dev, rows, cols), value_at_ = Array<int32_t>(dev, rows),
      moments_at_ = Array<int32_t>(dev, rows);
  }
  Mat value() const { return value_; }
  bool trainable() const { return bool(m_); }
  Table table(int64_t first, int64_t n) const {  // rows first .. first+n-1
    return {value_.mat().slice(first, n), m_.mat().slice(first, n), v_.mat().slice(first, n), value_at_.p() + first,
            moments_at_.p() + first};
  }
  Table table() const { return table(0, value_.rows()); }
  Matrix& values() { return value_; }
  Matrix& moments() { return m_; }
  Matrix& squares() { return v_; }
  // values and moments of those rows have been given as after step t
  void set_reached(int64_t t, int64_t first, int64_t n) {
    const std::vector<int32_t> steps(static_cast<size_t>(n), int32_t(t));
    value_at_.upload(steps.data(), n, first), moments_at_.upload(steps.data(), n, first);
  }

 private:
  Matrix value_, m_, v_;
  Array<int32_t> value_at_, moments_at_;
};

// One parameter as files see it: a window of a device array, with those of its moments.
struct Window {
  std::string name;  // PyTorch-style
  // (in,out) here; a linear weight is written (out,in) when `transposed`, as torch.nn.Linear keeps it
  int64_t rows, cols;
  bool transposed;
  Array<float>*value, *m, *v;  // m and v null: not trained
  int64_t offset;              // its first element in each
  RowTable* table = nullptr;   // whose rows are stepped on demand; null: all of it moves at every step
  bool vector = false;         // (1,n) here, (n) in files

  std::vector<int64_t> shape() const {  // in files
    if (transposed) return {cols, rows};
    return vector ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols};
  }
  void set_reached(int64_t t) const {  // value and moments have been given as after step t
    if (table) table->set_reached(t, offset / cols, rows);
  }
};
using Windows = std::vector<Window>;

inline Window window(const std::string& name, RowTable& t, int64_t first, int64_t rows) {
  const int64_t d = t.value().cols;
  const bool trained = t.trainable();
  return {name,
          rows,
          d,
          false,
          &t.values().array(),
          trained ? &t.moments().array() : nullptr,
          trained ? &t.squares().array() : nullptr,
          first * d,
          &t};
}

struct ParamInfo {
  std::string name;    // as Window's
  int64_t rows, cols;  //
  bool transposed;
  int64_t offset;
  bool vector;
};

// Small dense parameters in one contiguous arena; gradients, m and v are twins of the same layout: Adam is one pass.
class ParamArena {
 public:
  int add(const std::string& name, int64_t rows, int64_t cols, bool transposed) {
    return add(name, rows, cols, transposed, rows == 1 && !transposed);
  }
  int add(const std::string& name, int64_t rows, int64_t cols, bool transposed, bool vector) {
    params_.push_back({name, rows, cols, transposed, size_, vector});
    size_ += (rows * cols + 15) / 16 * 16;  // every tensor starts on a cache line
    return int(params_.size()) - 1;
  }
  // P and Q of a model that moves all their rows at every step: two parameters, and between them `stacked` is [P; Q].
  int add_tables(int64_t users, int64_t items, int64_t d) {
    params_.push_back({"user_embedding.weight", users, d, false, size_, false});
    params_.push_back({"item_id_embedding.weight", items, d, false, size_ + users * d, false});
    size_ += ((users + items) * d + 15) / 16 * 16;
    return int(params_.size()) - 2;
  }
  Mat stacked(int i) const { return stacked(value_, i); }  // (N,d) [P; Q]; i: what add_tables gave
  Mat stacked_grad(int i) const { return stacked(grad_, i); }
  void take(Device& dev) {
    value_ = Array<float>(dev, size_), grad_ = Array<float>(dev, size_), m_ = Array<float>(dev, size_),
    v_ = Array<float>(dev, size_);
  }
  Mat value(int i) const { return at(value_, i); }
  Mat grad(int i) const { return at(grad_, i); }
  Mat all(const Array<float>& a) const { return {a.p(), 1, size_}; }
  void zero_grad(Device& dev) {
    if (size_) dev.ops.fill_zero(dev.ctx, all(grad_));
  }
  void update(Device& dev, const AdamSchedule& schedule, int64_t t) {
    if (size_) dev.ops.adam(dev.ctx, all(value_), all(m_), all(v_), all(grad_), schedule, t);
  }
  int64_t size() const { return size_; }  // values, with those between tensors
  const std::vector<ParamInfo>& params() const { return params_; }
  Array<float>& values() { return value_; }
  void show_gradients(Watch& w) const {
    for (size_t k = 0; k < params_.size(); ++k)
      w.parameter("grad." + params_[k].name, grad(int(k)), params_[k].vector, params_[k].transposed);
  }
  void parameters(Windows& all) {
    for (const ParamInfo& p : params_)
      all.push_back({p.name, p.rows, p.cols, p.transposed, &value_, &m_, &v_, p.offset, nullptr, p.vector});
  }

 private:
  Mat stacked(const Array<float>& a, int i) const {
    const ParamInfo &p = params_[size_t(i)], &q = params_[size_t(i) + 1];
    return {a.p() + p.offset, p.rows + q.rows, p.cols};
  }
  Mat at(const Array<float>& a, int i) const {
    return {a.p() + params_[size_t(i)].offset, params_[size_t(i)].rows, params_[size_t(i)].cols};
  }
  std::vector<ParamInfo> params_;
  int64_t size_ = 0;
  Array<float> value_, grad_, m_, v_;
};

}  // namespace ccdrec
