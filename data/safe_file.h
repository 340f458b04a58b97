// A file that appears whole or not at all: written under a temporary name beside its place, flushed to disk, then renamed.
//   a symbolic link  stays, what it points to is replaced
//   a pipe, a terminal, /dev/null, /dev/stdout  cannot be replaced: written straight, and nothing is ever renamed over them
#pragma once
#include <cstddef>
#include <string>

namespace ccdrec {

class SafeFile {
 public:
  explicit SafeFile(const std::string& path);  // UserError when the folder refuses, or a folder or a disk is in the way
  SafeFile(SafeFile&&) noexcept;
  SafeFile(const SafeFile&) = delete;
  ~SafeFile();  // removes the temporary file unless commit() was called

  void write(const void* bytes, size_t n);  // buffered; UserError when the disk refuses (full, quota, read-only)
  void write(const std::string& s) { write(s.data(), s.size()); }
  void commit();  // flush, sync, rename
  const std::string& path() const { return path_; }

 private:
  void flush();
  void write_through(const char* p, size_t n);
  [[noreturn]] void refuse(const char* what, int error);
  std::string path_, place_, temp_, buffer_;  // place_: path_ with its links followed; temp_: "" when written straight
  int fd_ = -1;
};

}  // namespace ccdrec
