#include "data/npy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "data/error.h"
#include "data/safe_file.h"
#include "data/text.h"

namespace ccdrec {

namespace {

// The header is a Python dictionary literal: {'descr': '<f4', 'fortran_order': False, 'shape': (7050, 4096), }
struct Header {
  std::string descr;
  bool fortran = false;
  std::vector<int64_t> shape;
};

class DictReader {
 public:
  DictReader(std::string_view text, const std::string& path) : s_(text), path_(path) {}

  Header read() {
    Header h;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        if (peek() == '[')
          throw UserError(
              path_ +
              ": holds records (a structured dtype), expected a plain matrix of numbers; save one array of float32");
        h.descr = quoted();
        descr = true;
      } else if (key == "fortran_order") {
        h.fortran = boolean();
        order = true;
      } else if (key == "shape") {
        h.shape = tuple();
        shape = true;
      } else {
        bad();
      }
      if (!take(',') && peek() != '}') bad();
    }
    if (!descr || !order || !shape || peek() != 0) bad();
    return h;
  }

 private:
  [[noreturn]] void bad() const {
    throw UserError(path_ +
                    ": the npy header is not the dictionary of descr, fortran_order and shape that NumPy writes; save "
                    "the array again with numpy.save");
  }
  char peek() {
    while (at_ < s_.size() && (s_[at_] == ' ' || s_[at_] == '\n')) ++at_;
    return at_ < s_.size() ? s_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c || at_ >= s_.size()) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) bad();
  }
  std::string quoted() {
    const char q = peek();
    if (q != '\'' && q != '"') bad();
    const size_t end = s_.find(q, ++at_);
    if (end == std::string_view::npos) bad();
    std::string out(s_.substr(at_, end - at_));
    at_ = end + 1;
    return out;
  }
  bool boolean() {
    peek();
    for (const auto& [word, value] :
         {std::pair{std::string_view("True"), true}, std::pair{std::string_view("False"), false}})
      if (s_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    bad();
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> out;
    expect('(');
    while (!take(')')) {
      if (!std::isdigit(static_cast<unsigned char>(peek()))) bad();
      int64_t v = 0;
      for (; at_ < s_.size() && std::isdigit(static_cast<unsigned char>(s_[at_])); ++at_) {
        if (v > INT64_MAX / 10 - 1) bad();
        v = v * 10 + (s_[at_] - '0');
      }
      if (at_ < s_.size() && s_[at_] == 'L') ++at_;  // Python 2 wrote long integers so
      out.push_back(v);
      if (!take(',') && peek() != ')') bad();
    }
    return out;
  }

  std::string_view s_;
  const std::string& path_;
  size_t at_ = 0;
};

// IEEE half to float: exact. Subnormal halves (exponent 0) are mantissa * 2^-24.
float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
  if (exponent == 0) {
    const float v = float(mantissa) * 0x1p-24f;
    return sign ? -v : v;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

template <class T>
T load(const unsigned char* p) {  // the array need not be aligned inside the file
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
float as_float(const unsigned char* p, int size) {
  return size == 4 ? load<float>(p) : size == 8 ? float(load<double>(p)) : half_to_float(load<uint16_t>(p));
}

int item_size(const std::string& dtype) { return dtype[2] - '0'; }

std::string astype(const std::string& path) {
  return "python3 -c \"import sys, numpy as n; f = sys.argv[1]; n.save(f, n.load(f).astype('<f4'))\" " +
         shell_word(path);
}

[[noreturn]] void refuse_truncated(const std::string& path, size_t bytes, __int128 expected) {
  throw UserError(fmt::format("{}: is truncated ({} bytes, {} expected); copy or create the file again", path, bytes,
                              expected > INT64_MAX ? INT64_MAX : int64_t(expected)));
}

struct Descriptor {  // closes itself
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

NpyMatrix::NpyMatrix(const std::string& path) : path_(path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0)
    throw UserError(
        fmt::format("{}: cannot be opened ({}); expected a matrix saved with numpy.save", path, std::strerror(errno)));
  struct stat st {};
  if (::fstat(file.fd, &st) != 0) throw UserError(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
  if (S_ISDIR(st.st_mode))
    throw UserError(
        path +
        ": is a directory, expected a file; join its arrays into one matrix with one row per item and numpy.save it");
  if (!S_ISREG(st.st_mode))
    throw UserError(path + ": is not a regular file and cannot be memory-mapped; copy it to disk first");

  const size_t bytes = size_t(st.st_size);
  unsigned char prefix[12] = {};
  const size_t got = bytes < 12 ? bytes : 12;
  if (::pread(file.fd, prefix, got, 0) != ssize_t(got))
    throw UserError(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
  if (got < 6 || std::memcmp(prefix, "\x93NUMPY", 6) != 0)
    throw UserError(
        path +
        ": does not begin as an npy file does; expected a matrix saved with numpy.save (not npz, csv or a pickle)");
  const unsigned major = prefix[6];
  const size_t start = major == 1 ? 10 : 12;
  if (got >= 7 && (major < 1 || major > 3))
    throw UserError(
        fmt::format("{}: is npy version {}, expected 1, 2 or 3; save the array again with numpy.save", path, major));
  if (bytes < start) refuse_truncated(path, bytes, start);
  const size_t length = major == 1 ? size_t(prefix[8] | prefix[9] << 8) : size_t(load<uint32_t>(prefix + 8));
  if (bytes < start + length) refuse_truncated(path, bytes, start + length);

  map_bytes_ = bytes;
  map_ = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    throw UserError(fmt::format("{}: cannot be mapped into memory ({})", path, std::strerror(errno)));
  }
  try {
    const unsigned char* base = static_cast<const unsigned char*>(map_);
    const Header h = DictReader({reinterpret_cast<const char*>(base) + start, length}, path).read();
    if (h.descr.find('O') != std::string::npos)
      throw UserError(path +
                      ": holds Python objects (a pickle); reading it would run code, so it is refused: load it where "
                      "you trust it and numpy.save a "
                      "float32 matrix");
    if (h.descr.size() == 3 && h.descr[0] == '>')
      throw UserError(fmt::format("{}: is big-endian ({}), expected little-endian floats; convert it: {}", path,
                                  shown(h.descr), astype(path)));
    if (h.descr != "<f2" && h.descr != "<f4" && h.descr != "<f8")
      throw UserError(
          fmt::format("{}: holds {}, expected <f2, <f4 or <f8; convert it: {}", path, shown(h.descr), astype(path)));
    if (h.shape.size() != 1 && h.shape.size() != 2)
      throw UserError(fmt::format("{}: has {} dimensions, expected 2 (items, features); reshape it to one row per item",
                                  path, h.shape.size()));
    dtype_ = h.descr;
    fortran_ = h.fortran;
    rows_ = h.shape[0];
    cols_ = h.shape.size() == 2 ? h.shape[1] : 1;
    if (cols_ == 0) throw UserError(path + ": has no columns, expected at least one feature per item");
    if (cols_ > INT32_MAX || rows_ > INT32_MAX)
      throw UserError(
          fmt::format("{}: has shape ({}, {}), more than 2147483647 in one dimension; expected (items, features)", path,
                      rows_, cols_));
    // (2^31)^2 * 8 needs 65 bits: compare in a type that holds it.
    const __int128 need = __int128(start + length) + __int128(rows_) * cols_ * item_size(dtype_);
    if (need > __int128(bytes)) refuse_truncated(path, bytes, need);
    data_ = base + start + length;
  } catch (...) {
    ::munmap(map_, map_bytes_);
    throw;
  }
}

NpyMatrix::NpyMatrix(NpyMatrix&& o) noexcept { *this = std::move(o); }

NpyMatrix& NpyMatrix::operator=(NpyMatrix&& o) noexcept {
  if (this == &o) return *this;
  if (map_) ::munmap(map_, map_bytes_);
  path_ = std::move(o.path_);
  dtype_ = std::move(o.dtype_);
  rows_ = std::exchange(o.rows_, 0);
  cols_ = std::exchange(o.cols_, 0);
  fortran_ = o.fortran_;
  data_ = std::exchange(o.data_, nullptr);
  map_ = std::exchange(o.map_, nullptr);
  map_bytes_ = std::exchange(o.map_bytes_, 0);
  return *this;
}

NpyMatrix::~NpyMatrix() {
  if (map_) ::munmap(map_, map_bytes_);
}

size_t NpyMatrix::byte_count() const { return data_ ? size_t(rows_) * size_t(cols_) * size_t(item_size(dtype_)) : 0; }

const float* NpyMatrix::floats() const {
  const bool plain = dtype_ == "<f4" && !fortran_ && reinterpret_cast<uintptr_t>(data_) % alignof(float) == 0;
  return plain ? reinterpret_cast<const float*>(data_) : nullptr;
}

void NpyMatrix::read_rows(float* out, int64_t first, int64_t n) const {
  if (first < 0 || n < 0 || first + n > rows_)
    throw std::logic_error(fmt::format("{}: rows {}..{} of {} asked", path_, first, first + n, rows_));
  if (n == 0) return;
  const int size = item_size(dtype_);
  if (fortran_) {
    constexpr int64_t kTile = 16;  // columns whose cache lines stay open while rows pass: out is written in runs
    for (int64_t j0 = 0; j0 < cols_; j0 += kTile) {
      const int64_t j1 = j0 + kTile < cols_ ? j0 + kTile : cols_;
      for (int64_t r = 0; r < n; ++r)
        for (int64_t j = j0; j < j1; ++j) out[r * cols_ + j] = as_float(data_ + (j * rows_ + first + r) * size, size);
    }
  } else {
    const unsigned char* p = data_ + first * cols_ * size;
    if (size == 4) {
      std::memcpy(out, p, size_t(n * cols_) * 4);
    } else if (size == 8) {
      for (int64_t e = 0; e < n * cols_; ++e) out[e] = float(load<double>(p + e * 8));
    } else {
      for (int64_t e = 0; e < n * cols_; ++e) out[e] = half_to_float(load<uint16_t>(p + e * 2));
    }
  }
  for (int64_t r = 0; r < n; ++r) {
    const float* row = out + r * cols_;
    uint32_t bad = 0;
    for (int64_t j = 0; j < cols_; ++j)
      bad |= uint32_t((load<uint32_t>(reinterpret_cast<const unsigned char*>(row + j)) & 0x7f800000u) == 0x7f800000u);
    if (!bad) continue;
    int64_t j = 0;
    while (std::isfinite(row[j])) ++j;
    throw UserError(
        fmt::format("{}: row {}, column {} is {}, expected a finite number within float32; replace it, or the whole "
                    "row by zeros or the mean of the others",
                    path_, first + r, j, row[j]));
  }
}

void NpyMatrix::forget_pages() const {
  if (map_) ::madvise(map_, map_bytes_, MADV_DONTNEED);  // the map is never written: nothing is lost
}

std::string npy_header(int64_t rows, int64_t cols) {
  std::string dict = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  while ((10 + dict.size() + 1) % 64 != 0) dict += ' ';  // the data begin at a multiple of 64, as NumPy does
  dict += '\n';
  std::string h("\x93NUMPY\x01\x00", 8);
  h += char(dict.size() & 255);
  h += char(dict.size() >> 8);
  return h + dict;
}

void write_npy(const std::string& path, const float* data, int64_t rows, int64_t cols) {
  SafeFile f(path);
  f.write(npy_header(rows, cols));
  f.write(data, size_t(rows) * size_t(cols) * sizeof(float));
  f.commit();
}

}  // namespace ccdrec
