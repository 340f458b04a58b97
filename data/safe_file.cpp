#include "data/safe_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {

namespace {

constexpr size_t kBuffer = size_t(1) << 20;
constexpr int kNames = 1000;  // that are tried for a temporary file
constexpr std::string_view kMark = ".tmp-";

// The end of a long name is left out, so that a name the disk allows stays one it allows.
std::string beginning(std::string_view file) { return std::string(file.substr(0, 200)); }
std::string temporary_stem(std::string_view file) { return fmt::format("{}{}{}", beginning(file), kMark, getpid()); }

// Where the links at the end of `path` lead; "" when they pass through /proc, as /dev/stdout does: what is open there
// cannot be replaced by a name.
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
  if (there && S_ISDIR(st.st_mode))
    throw UserError(path + ": cannot be put in place, a folder has that name; name a file");
  if (there && S_ISBLK(st.st_mode)) throw UserError(path + ": is a disk, nothing is written over it; name a file");
  if (place_.empty() || (there && !S_ISREG(st.st_mode))) {
    // O_APPEND: /dev/stdout may be a file that others write to as well
    fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd_ < 0) refuse("opened", errno);
    return;
  }
  const std::filesystem::path place = place_;
  const std::string stem = (place.parent_path() / temporary_stem(place.filename().string())).string();
  // A file that is replaced keeps its permissions; until they are set, nobody else opens what was perhaps private.
  const mode_t mode = there ? 0600 : 0666;
  // O_EXCL: neither a file nor a link that somebody put there is written through. One of a killed process with the same
  // number may be in the way.
  for (int n = 1; fd_ < 0 && n <= kNames; ++n) {
    temp_ = n == 1 ? stem : fmt::format("{}-{}", stem, n);
    fd_ = ::open(temp_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd_ < 0 && errno != EEXIST) break;
  }
  if (fd_ < 0 || (there && ::fchmod(fd_, st.st_mode & 0777) != 0)) {
    const int e = errno;
    if (fd_ >= 0) ::close(std::exchange(fd_, -1)), ::unlink(temp_.c_str());
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
  throw UserError(fmt::format("{}: cannot be {} ({}); check that the folder exists, is writable and has space", path_,
                              what, std::strerror(error)));
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

pid_t writer_of_temporary(std::string_view name, std::string_view file) {
  const std::string before = beginning(file) + std::string(kMark);
  if (!name.starts_with(before)) return 0;
  name.remove_prefix(before.size());
  const size_t dash = name.find('-');
  const int64_t writer = parse_index(name.substr(0, dash));
  if (writer < 1 || (dash != std::string_view::npos && parse_index(name.substr(dash + 1)) < 2)) return 0;
  return pid_t(writer);
}

void keep_as(const std::string& from, const std::string& to) {
  if (::unlink(to.c_str()) != 0 && errno != ENOENT)
    throw UserError(fmt::format("{}: cannot be replaced ({})", to, std::strerror(errno)));
  if (::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), AT_SYMLINK_FOLLOW) == 0) return;
  std::ifstream in(from, std::ios::binary);
  SafeFile out(to);
  std::string part(kBuffer, '\0');
  while (in.read(part.data(), std::streamsize(part.size())) || in.gcount() > 0)
    out.write(part.data(), size_t(in.gcount()));
  if (!in.eof()) throw UserError(fmt::format("{}: cannot be read ({})", from, std::strerror(errno)));
  out.commit();
}

}  // namespace ccdrec
