#include "data/safe_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "data/error.h"

namespace ccdrec {

namespace {

constexpr size_t kBuffer = size_t(1) << 20;

// Where the links at the end of `path` lead; "" when they pass through /proc, as /dev/stdout does: what is open there cannot be replaced by a name.
std::string follow_links(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path at = path;
  std::error_code ec;
  for (int links = 0; links < 40; ++links) {
    const fs::path folder = fs::canonical(at.has_parent_path() ? at.parent_path() : fs::path("."), ec);
    if (!ec && folder.string().starts_with("/proc/")) return "";
    const fs::path to = fs::read_symlink(at, ec);
    if (ec) return at.string();  // no link: the place itself
    at = to.is_absolute() ? to : at.parent_path() / to;
  }
  throw UserError(path + ": its symbolic links lead in a circle; name a file");
}

}  // namespace

SafeFile::SafeFile(const std::string& path) : path_(path), place_(follow_links(path)) {
  struct stat st {};
  const bool there = ::stat(path.c_str(), &st) == 0;
  if (there && S_ISDIR(st.st_mode)) throw UserError(path + ": cannot be put in place, a folder has that name; name a file");
  if (there && S_ISBLK(st.st_mode)) throw UserError(path + ": is a disk, nothing is written over it; name a file");
  if (place_.empty() || (there && !S_ISREG(st.st_mode))) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);  // O_APPEND: /dev/stdout may be a file that others write to as well
    if (fd_ < 0) refuse("opened", errno);
    return;
  }
  // The end of a long name is left out, so that a name the disk allows stays one it allows.
  const std::filesystem::path place = place_;
  temp_ = (place.parent_path() / fmt::format("{}.tmp-{}", place.filename().string().substr(0, 200), getpid())).string();
  fd_ = ::open(temp_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    const int e = errno;
    temp_.clear();
    refuse("created", e);
  }
}

SafeFile::SafeFile(SafeFile&& o) noexcept
    : path_(std::move(o.path_)),
      place_(std::move(o.place_)),
      temp_(std::exchange(o.temp_, {})),
      buffer_(std::move(o.buffer_)),
      fd_(std::exchange(o.fd_, -1)) {}

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
  if (!temp_.empty() && ::fsync(fd_) != 0 && errno != EINVAL) refuse("flushed to disk", errno);
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) refuse("closed", errno);
  if (temp_.empty()) return;
  if (std::rename(temp_.c_str(), place_.c_str()) != 0) refuse("put in place", errno);
  temp_.clear();
}

}  // namespace ccdrec
