#include "data/path.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/error.h"

namespace ccdrec {

namespace fs = std::filesystem;

namespace {

fs::file_status look_at(const std::string& path) {
  std::error_code ec;
  const fs::file_status st = fs::status(path, ec);
  if (st.type() == fs::file_type::none)
    throw UserError(fmt::format("{}: cannot be looked at ({})", path, ec.message()));
  return st;
}

}  // namespace

bool path_exists(const std::string& path) { return fs::exists(look_at(path)); }
bool is_folder(const std::string& path) { return fs::is_directory(look_at(path)); }

std::string absolute_path(const std::string& path) {
  std::error_code ec;
  std::string out = fs::absolute(path, ec).lexically_normal().string();
  if (ec) throw UserError(fmt::format("{}: the current folder is gone ({}); change to another", path, ec.message()));
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

bool is_plain_file_name(const std::string& name) {
  constexpr size_t kLongest = 200;  // file systems take 255 bytes, and an ending and a temporary name come on top
  if (name.empty() || name.size() > kLongest || name[0] == '.') return false;
  return std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c < 32 || c == 127 || c == '/' || c == '\\'; });
}

}  // namespace ccdrec
