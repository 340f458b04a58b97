#include "data/safe_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "data/error.h"

namespace ccdrec {

namespace {
constexpr size_t kBuffer = size_t(1) << 20;
}

SafeFile::SafeFile(const std::string& path) : path_(path), temp_(fmt::format("{}.tmp-{}", path, getpid())) {
  fd_ = ::open(temp_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    const int e = errno;
    temp_.clear();
    refuse("created", e);
  }
}

SafeFile::SafeFile(SafeFile&& o) noexcept
    : path_(std::move(o.path_)), temp_(std::exchange(o.temp_, {})), buffer_(std::move(o.buffer_)), fd_(std::exchange(o.fd_, -1)) {}

SafeFile::~SafeFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temp_.empty()) ::unlink(temp_.c_str());
}

void SafeFile::refuse(const char* what, int error) {
  throw UserError(fmt::format("{}: cannot be {} ({}); check that the folder exists, is writable and has space", path_, what, std::strerror(error)));
}

void SafeFile::write(const void* bytes, size_t n) {
  if (buffer_.size() + n > kBuffer) {
    flush();
    if (n > kBuffer) return write_through(static_cast<const char*>(bytes), n);
  }
  buffer_.append(static_cast<const char*>(bytes), n);
}

void SafeFile::flush() {
  write_through(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void SafeFile::write_through(const char* p, size_t n) {
  while (n > 0) {
    const ssize_t w = ::write(fd_, p, n);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) refuse("written", errno);
    p += w;
    n -= size_t(w);
  }
}

void SafeFile::commit() {
  flush();
  if (::fsync(fd_) != 0 && errno != EINVAL) refuse("flushed to disk", errno);
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) refuse("closed", errno);
  if (std::rename(temp_.c_str(), path_.c_str()) != 0) refuse("put in place", errno);
  temp_.clear();
}

}  // namespace ccdrec
