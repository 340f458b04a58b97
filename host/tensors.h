// The parameters of a model by their PyTorch-style names, wherever they live, and arrays on their way from a device into a file.
#pragma once
#include <list>
#include <string>
#include <vector>

#include "host/models/recommender.h"
#include "host/safetensors.h"

namespace ccdrec {

// One parameter: a window of a device array, with those of its moments.
struct Window {
  std::string name;
  int64_t rows, cols;
  bool transposed;  // written (cols,rows), as torch.nn.Linear keeps it
  Array<float>*value, *m, *v;
  int64_t offset;
};
std::vector<Window> windows(Recommender&);  // what is trained

std::vector<float> transposed(const std::vector<float>&, int64_t rows, int64_t cols);  // (rows,cols) turned into (cols,rows)
HostCsr downloaded(Device&, const Csr&, bool values = true);                           // without: the pattern

// Host copies of what is written, kept alive until the file is. On the CPU device a plain window is written from where it lies.
class Writer {
 public:
  explicit Writer(bool on_host) : on_host_(on_host) {}
  void add(const std::string& name, std::vector<int64_t> shape, const Array<float>& a, int64_t offset, int64_t rows, int64_t cols, bool transposed);
  void add(const std::string& prefix, const Window& w, const Array<float>& a);
  void floats(const std::string& name, std::vector<int64_t> shape, std::vector<float> values);
  void indices(const std::string& name, std::vector<int64_t> shape, std::vector<int32_t> values);
  void numbers(const std::string& name, std::vector<int64_t> shape, std::vector<double> values);
  void graph(const std::string& name, const HostCsr&);  // NAME.index (2,nnz) rows and columns, NAME.value (nnz)
  std::vector<TensorView> views;

 private:
  bool on_host_;
  std::list<std::vector<float>> floats_;
  std::list<std::vector<int32_t>> indices_;
  std::list<std::vector<double>> numbers_;
};

}  // namespace ccdrec
