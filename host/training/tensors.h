// Arrays on their way from a device into a file.
#pragma once
#include <list>
#include <string>
#include <vector>

#include "host/base/safetensors.h"
#include "host/training/recommender.h"

namespace ccdrec {

Windows windows(Recommender&);  // what is trained

// Host copies of what is written, kept alive until the file is. On the CPU device what lies in order is written from
// where it lies, unless it is to be copied: it will have changed by then.
class Writer {
 public:
  explicit Writer(Device& dev, bool copy = false) : dev_(dev), in_place_(!dev.gpu() && !copy) {}
  void add(const std::string& name, CMat);                                      // (rows,cols)
  void add(const std::string& prefix, const Window& w, const Array<float>& a);  // of its value or its moments
  void add(const Shown&);
  void add(const Kept&);
  void floats(const std::string& name, std::vector<int64_t> shape, std::vector<float> values);
  void indices(const std::string& name, std::vector<int64_t> shape, std::vector<int32_t> values);
  void numbers(const std::string& name, std::vector<int64_t> shape, std::vector<double> values);
  void graph(const std::string& name, const HostCsr&);  // NAME.index (2,nnz) rows and columns, NAME.value (nnz)
  std::vector<TensorView> views;

 private:
  Device& dev_;
  bool in_place_;
  std::list<std::vector<float>> floats_;
  std::list<std::vector<int32_t>> indices_;
  std::list<std::vector<double>> numbers_;
  std::list<std::vector<unsigned char>> bytes_;
};

}  // namespace ccdrec
