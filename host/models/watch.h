// How a step is looked into and how it is given its numbers, by the names of docs/step-format.md: for `ccdrec step`,
// cases, records and tests.
#pragma once
#include <string>
#include <vector>

#include "data/graph.h"
#include "host/base/device.h"

namespace ccdrec {

using Extents = std::vector<int64_t>;
constexpr int64_t kAny = -1;  // in a shape that is expected: any extent but 0

std::vector<float> host_copy(Device&, CMat);                         // what it holds
std::vector<int32_t> host_copy(Device&, const int32_t*, int64_t n);  //
std::vector<int32_t> host_copy(Device&, RowList);                    // the entries in use
// (rows,cols) turned into (cols,rows)
std::vector<float> transposed(const std::vector<float>&, int64_t rows, int64_t cols);
HostCsr downloaded(Device&, const Csr&, bool values = true);  // without: the pattern

// Arrays in place of what chance would decide. What is wrong is a UserError that names the array.
class Given {
 public:
  virtual ~Given() = default;
  virtual bool has(const std::string& name) const = 0;
  // finite
  virtual std::vector<float> floats(const std::string& name, const Extents& want) const = 0;
  // 0 .. limit-1
  virtual std::vector<int32_t> indices(const std::string& name, const Extents& want, int64_t limit) const = 0;
  // for sentences: the file
  virtual std::string origin() const = 0;
  // UserError: "ORIGIN: WHAT"
  [[noreturn]] void fail(const std::string& what) const;
};

struct Shown {
  std::string name;
  Extents shape;
  std::vector<float> floats;
  std::vector<int32_t> indices;  // in place of them
};
struct ShownGraph {
  std::string name;
  HostCsr graph;
  bool of_epoch;  // drawn anew each epoch
};

// Collects what a model shows: copied from its device at once.
class Watch {
 public:
  explicit Watch(Device& dev) : dev_(dev) {}
  void floats(const std::string& name, const Extents& shape, std::vector<float> values);
  void floats(const std::string& name, const Extents& shape, CMat from);             // as many values as the shape says
  void parameter(const std::string& name, CMat from, bool vector, bool transposed);  // in the shape of files
  void indices(const std::string& name, const Extents& shape, std::vector<int32_t> values);
  void indices(const std::string& name, const Extents& shape, const int32_t* from);
  void graph(const std::string& name, const Csr&, bool of_epoch);

  const Shown* find(const std::string& name) const;                // null: not shown
  const std::vector<int32_t>& ids(const std::string& name) const;  // empty: not shown

  std::vector<Shown> all;  // in the order shown
  std::vector<ShownGraph> graphs;

 private:
  Device& dev_;
};

// A matrix that is put back when the scope ends: for those who compute again to show what a step has overwritten.
class PutBack {
 public:
  PutBack(Device& dev, Mat m) : dev_(dev), m_(m), kept_(host_copy(dev, m)) {}
  ~PutBack() { dev_.ops.upload(dev_.ctx, m_.p, kept_.data(), kept_.size() * sizeof(float)); }
  PutBack(const PutBack&) = delete;
  PutBack& operator=(const PutBack&) = delete;

 private:
  Device& dev_;
  const Mat m_;
  const std::vector<float> kept_;
};

}  // namespace ccdrec
