// safetensors: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}, "__metadata__":
// {string: string}}, raw row-major data. Readable by safetensors.torch.load_file; cannot execute anything.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ccdrec {

struct TensorView {         // what is written
  std::string name, dtype;  // "F32", "I32", "I64", "F64"
  std::vector<int64_t> shape;
  const void* data = nullptr;  // host memory
  size_t bytes() const;
};
struct TensorData {  // what is read
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<unsigned char> bytes;
  const float* f32() const { return reinterpret_cast<const float*>(bytes.data()); }
  const int32_t* i32() const { return reinterpret_cast<const int32_t*>(bytes.data()); }
};
struct TensorFile {
  std::map<std::string, std::string> metadata;
  std::map<std::string, TensorData> tensors;
};

// Checks the disk space first, writes to a temporary name beside `path`, flushes (fsync), renames: an interrupted write
// leaves the old file. UserError when the disk refuses.
void write_safetensors(const std::string& path, const std::vector<TensorView>&,
                       const std::map<std::string, std::string>& metadata);
// Header only when `names` is given: just those tensors are loaded. UserError: not a safetensors file, truncated,
// overlapping or out-of-range offsets, missing name.
TensorFile read_safetensors(const std::string& path, const std::vector<std::string>* names = nullptr);

}  // namespace ccdrec
