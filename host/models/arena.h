// Small dense parameters (projections, estimator) in one contiguous arena; gradients, m and v are twins of the same layout: Adam is one pass.
#pragma once
#include <string>
#include <vector>

#include "host/device.h"

namespace ccdrec {

struct ParamInfo {
  std::string name;    // PyTorch-style
  int64_t rows, cols;  // (in,out) here; a linear weight is written (out,in) when `transposed`
  bool transposed;
  int64_t offset;
};

class ParamArena {
 public:
  int add(const std::string& name, int64_t rows, int64_t cols, bool transposed) {
    params_.push_back({name, rows, cols, transposed, size_});
    size_ += (rows * cols + 15) / 16 * 16;  // every tensor starts on a cache line
    return int(params_.size()) - 1;
  }
  void take(Device& dev) {
    value_ = Array<float>(dev, size_), grad_ = Array<float>(dev, size_), m_ = Array<float>(dev, size_), v_ = Array<float>(dev, size_);
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
  const std::vector<ParamInfo>& params() const { return params_; }
  Array<float>& values() { return value_; }
  Array<float>& moments() { return m_; }
  Array<float>& squares() { return v_; }
  int64_t size() const { return size_; }

 private:
  Mat at(const Array<float>& a, int i) const { return {a.p() + params_[size_t(i)].offset, params_[size_t(i)].rows, params_[size_t(i)].cols}; }
  std::vector<ParamInfo> params_;
  int64_t size_ = 0;
  Array<float> value_, grad_, m_, v_;
};

// A parameter matrix stepped by rows on demand: value, moments and the steps they have reached in each row.
class RowTable {
 public:
  RowTable() = default;
  RowTable(Device& dev, int64_t rows, int64_t cols, bool trainable) : value_(dev, rows, cols) {
    if (trainable)
      m_ = Matrix(dev, rows, cols), v_ = Matrix(dev, rows, cols), value_at_ = Array<int32_t>(dev, rows), moments_at_ = Array<int32_t>(dev, rows);
  }
  Mat value() const { return value_; }
  bool trainable() const { return bool(m_); }
  Table table(int64_t first, int64_t n) const {  // rows first .. first+n-1
    return {value_.mat().slice(first, n), m_.mat().slice(first, n), v_.mat().slice(first, n), value_at_.p() + first, moments_at_.p() + first};
  }
  Table table() const { return table(0, value_.rows()); }
  Matrix& values() { return value_; }
  Matrix& moments() { return m_; }
  Matrix& squares() { return v_; }
  void set_reached(int64_t t) {  // values and moments have been given as after step t
    const std::vector<int32_t> steps(size_t(value_at_.n()), int32_t(t));
    value_at_.upload(steps.data(), value_at_.n()), moments_at_.upload(steps.data(), moments_at_.n());
  }

 private:
  Matrix value_, m_, v_;
  Array<int32_t> value_at_, moments_at_;
};

}  // namespace ccdrec
