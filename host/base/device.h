// A device chosen at run time: its operations, its context, its memory. Models reach memory only through Array and the
// operations.
#pragma once
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace ccdrec {

class Device {
 public:
  Device(const Ops& table, int threads) : ops(table), ctx(threads) {}
  bool gpu() const { return ctx.device == DeviceKind::cuda; }
  void wait() {  // until every operation so far is done
    if (ops.wait) ops.wait(ctx);
  }
  void check_faults();  // GPU: throws std::logic_error for what an operation noted since the last call; waits
  const Ops& ops;
  Ctx ctx;
};

// `device` is auto | cpu | cuda; threads 0 = default_threads(); precision of a GPU's large products: fp32 | tf32 |
// bf16; whose sparse products: auto | own | cusparse. UserError when the device cannot be had. `note` says what was
// taken and why.
std::unique_ptr<Device> make_device(const std::string& device, int threads, std::string& note,
                                    const std::string& precision = "fp32", const std::string& spmm = "auto");

// UserError when the device cannot be had, or not with that setting; takes nothing.
void check_device(const std::string& device, const std::string& spmm = "auto");
SpmmBy spmm_choice(const std::string& spmm, const GpuInfo&);  // UserError where that GPU's build lacks it
bool takes_gpu(const std::string& device);                    // whether make_device would
int threads_of(int setting);                                  // of a CPU device
// Bytes free on the GPU that make_device would take for this setting; 0 where it would take the CPU.
size_t gpu_memory_available(const std::string& device);
// of the GPU that make_device would take, null where it would take the CPU
const Ops* ops_for_ranges(const std::string& device);

// A range for profilers and nothing else.
class Range {
 public:
  Range(const Device& dev, RangeId id, int64_t payload = -1) : Range(&dev.ops, id, payload) {}
  // before there is a device; null: none
  Range(const Ops* ops, RangeId id, int64_t payload = -1) : ops_(ops && ops->enter ? ops : nullptr) {
    if (ops_) ops_->enter(id, payload);
  }
  ~Range() {
    if (ops_) ops_->leave();
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  const Ops* const ops_;
};

// A stretch of work: a range for profilers, and its seconds added to a map under the range's name when the scope ends.
// On a GPU operations return before they are done: with `timed` the scope waits for them, without it nothing is added.
class Phase {
 public:
  Phase(Device&, std::map<std::string, double>& into, RangeId, bool timed, int64_t payload);
  ~Phase();
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;

 private:
  Device& dev_;
  Range range_;
  std::map<std::string, double>& into_;
  const char* const name_;
  const bool timed_;
  const std::chrono::steady_clock::time_point start_;
};

// An array on a device. Zeroed when taken. Moves, does not copy.
template <class T>
class Array {
 public:
  Array() = default;
  Array(Device& dev, int64_t n)
      : dev_(&dev), n_(n), p_(static_cast<T*>(dev.ops.alloc(dev.ctx, size_t(n) * sizeof(T)))) {
    dev.ctx.count_array(n * int64_t(sizeof(T)));
  }
  Array(Device& dev, const std::vector<T>& host) : Array(dev, int64_t(host.size())) { upload(host.data(), n_); }
  Array(Array&& o) noexcept { swap(o); }
  Array& operator=(Array&& o) noexcept {
    swap(o);
    return *this;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() {
    if (!dev_) return;
    dev_->ops.free(dev_->ctx, p_);
    dev_->ctx.count_array(-n_ * int64_t(sizeof(T)));
  }

  T* p() const { return p_; }
  int64_t n() const { return n_; }
  void upload(const T* host, int64_t n, int64_t first = 0) {
    dev_->ops.upload(dev_->ctx, p_ + first, host, size_t(n) * sizeof(T));
  }
  void download(T* host, int64_t n, int64_t first = 0) const {
    dev_->ops.download(dev_->ctx, host, p_ + first, size_t(n) * sizeof(T));
  }
  std::vector<T> host() const {
    std::vector<T> v(static_cast<size_t>(n_));
    if (n_) download(v.data(), n_);
    return v;
  }

 private:
  void swap(Array& o) {
    std::swap(dev_, o.dev_);
    std::swap(n_, o.n_);
    std::swap(p_, o.p_);
  }
  Device* dev_ = nullptr;
  int64_t n_ = 0;
  T* p_ = nullptr;
};

// A matrix on a device.
class Matrix {
 public:
  Matrix() = default;
  Matrix(Device& dev, int64_t rows, int64_t cols) : a_(dev, rows * cols), rows_(rows), cols_(cols) {}
  operator Mat() const { return {a_.p(), rows_, cols_}; }
  operator CMat() const { return {a_.p(), rows_, cols_}; }
  Mat mat() const { return {a_.p(), rows_, cols_}; }
  Mat top(int64_t n) const { return {a_.p(), n, cols_}; }  // the first n rows
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  Array<float>& array() { return a_; }
  const Array<float>& array() const { return a_; }
  explicit operator bool() const { return a_.p() != nullptr; }

 private:
  Array<float> a_;
  int64_t rows_ = 0, cols_ = 0;
};

// A row list, groups and a CSR matrix that own their memory.
class OwnedRows {
 public:
  OwnedRows() = default;
  OwnedRows(Device& dev, int64_t capacity) : idx_(dev, capacity), count_(dev, 1), capacity_(capacity) {}
  RowList list() const { return {idx_.p(), count_.p(), capacity_}; }

 private:
  Array<int32_t> idx_;
  Array<int64_t> count_;
  int64_t capacity_ = 0;
};

class OwnedGroups {
 public:
  OwnedGroups() = default;
  OwnedGroups(Device& dev, int64_t slots) : rows_(dev, slots), ptr_(dev, slots + 1), slot_(dev, slots) {}
  Groups groups() const { return {rows_.list(), ptr_.p(), slot_.p()}; }

 private:
  OwnedRows rows_;
  Array<int32_t> ptr_, slot_;
};

class OwnedCsr {
 public:
  OwnedCsr() = default;
  template <class Host>  // a HostCsr
  OwnedCsr(Device& dev, const Host& h)
      : rows_(h.rows),
        cols_(h.cols),
        nnz_(int64_t(h.col.size())),
        ptr_(dev, h.row_ptr),
        col_(dev, h.col),
        val_(dev, h.val) {}
  OwnedCsr(Device& dev, int64_t rows, int64_t cols, int64_t nnz)
      : rows_(rows), cols_(cols), ptr_(dev, rows + 1), col_(dev, nnz), val_(dev, nnz) {}
  Csr view() const { return {rows_, cols_, ptr_.p(), col_.p(), val_.p(), nnz_}; }
  MutableCsr mutable_view() const { return {rows_, cols_, ptr_.p(), col_.p(), val_.p(), col_.n()}; }
  int64_t rows() const { return rows_; }

 private:
  int64_t rows_ = 0, cols_ = 0, nnz_ = -1;  // -1: the device fills it
  Array<int64_t> ptr_;
  Array<int32_t> col_;
  Array<float> val_;
};

}  // namespace ccdrec
