// A file that appears whole or not at all: written under a temporary name beside its place, flushed to disk, then
// renamed.
//   a symbolic link  stays, what it points to is replaced
//   a pipe, a terminal, /dev/null, /dev/stdout  cannot be replaced: written straight, and nothing is ever renamed over
//   them
//   a file that is there  is replaced with its permissions kept; a new one has those the umask leaves
// The temporary file is always made by this process, through no link: NAME.tmp-PID, or NAME.tmp-PID-N where that is
// taken. It stays behind when the process is killed.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>

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

// The process whose temporary file for `file` (a name, no path) bears this name; 0: it is none.
pid_t writer_of_temporary(std::string_view name, std::string_view file);

// `to` holds from now on what `from` holds, whatever takes the place of `from` later: a second name (hard link), or a
// copy where there are none.
void keep_as(const std::string& from, const std::string& to);

}  // namespace ccdrec
