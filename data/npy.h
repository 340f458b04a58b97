// NumPy matrices, memory-mapped: versions 1-3, f2/f4/f8 little-endian, C and Fortran order, 1-d or 2-d.
//
// Refused with one sentence (UserError): wrong magic, truncated file, object arrays (they are pickles: code),
// big-endian, other dtypes, more than two dimensions, a directory in place of a file, a header that is not the expected
// dictionary.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ccdrec {

class NpyMatrix {
 public:
  explicit NpyMatrix(const std::string& path);  // opens and maps; reads the header only
  NpyMatrix(NpyMatrix&&) noexcept;
  NpyMatrix& operator=(NpyMatrix&&) noexcept;
  NpyMatrix(const NpyMatrix&) = delete;
  ~NpyMatrix();

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }  // 1 for a vector
  const std::string& path() const { return path_; }
  std::string dtype() const { return dtype_; }          // "<f4", "<f8", "<f2"
  const unsigned char* bytes() const { return data_; }  // the array as stored; byte_count() of them: for fingerprints
  size_t byte_count() const;
  // the array itself where it is float32 in row order, aligned; null otherwise. Not looked through for NaN
  const float* floats() const;
  // Row-major float32 of rows first .. first+n-1 into out (n*cols). A non-finite value is a UserError naming file, row
  // and column.
  void read_rows(float* out, int64_t first, int64_t n) const;
  // Gives the pages read so far back: they count as this process's memory although the file has them. A later read
  // fetches them again.
  void forget_pages() const;

 private:
  std::string path_, dtype_;
  int64_t rows_ = 0, cols_ = 0;
  bool fortran_ = false;
  const unsigned char* data_ = nullptr;  // start of the array inside the map
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
};

// float32, C order, version 1.0: what write_npy puts before the data
std::string npy_header(int64_t rows, int64_t cols);

// Writes float32 C-order version 1.0 (temporary name, flushed, renamed). Throws UserError when the disk refuses.
void write_npy(const std::string& path, const float* data, int64_t rows, int64_t cols);

}  // namespace ccdrec
