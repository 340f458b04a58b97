#include "data/text.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "data/error.h"

namespace ccdrec {

namespace {

[[noreturn]] void too_long(const std::string& path, size_t most) {
  throw UserError(
      fmt::format("{}: holds more than {} bytes, too many for a file of its kind; is it the one that was meant?", path, thousands(int64_t(most))));
}

std::string inflate_file(const std::string& path, size_t most) {
  const gzFile f = gzopen(path.c_str(), "rb");
  if (!f) throw UserError(fmt::format("{}: cannot be opened ({})", path, std::strerror(errno)));
  gzbuffer(f, 1 << 17);
  std::string text;
  constexpr size_t kStep = size_t(1) << 22;
  int got = 0;
  do {
    const size_t old = text.size();
    text.resize(old + kStep);
    got = gzread(f, text.data() + old, unsigned(kStep));
    text.resize(old + size_t(std::max(got, 0)));
  } while (got > 0 && text.size() <= most);
  int code = Z_OK;
  gzerror(f, &code);
  gzclose(f);
  if (text.size() > most) too_long(path, most);
  if (got < 0 || code != Z_OK) throw UserError(path + ": is not a whole gzip file; copy or compress it again");
  return text;
}

}  // namespace

std::string read_text(const std::string& path, size_t most) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw UserError(fmt::format("{}: cannot be opened ({})", path, std::strerror(errno)));
  struct stat st {};
  const bool known = ::fstat(fd, &st) == 0;
  if (!known || S_ISDIR(st.st_mode)) {
    ::close(fd);
    throw UserError(path + ": is a directory, expected a text file");
  }
  if (path.ends_with(".gz")) {
    ::close(fd);
    return inflate_file(path, most);
  }
  // A pipe says nothing of its size, and a file may grow while it is read: until the end, whatever was announced.
  std::string text(std::min(size_t(std::max<int64_t>(0, st.st_size)), most) + 1, '\0');
  size_t at = 0;
  int error = 0;
  while (at <= most) {
    if (at == text.size()) text.resize(2 * at + 4096);
    const ssize_t got = ::read(fd, text.data() + at, text.size() - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got <= 0) break;
    at += size_t(got);
  }
  ::close(fd);
  if (error) throw UserError(fmt::format("{}: cannot be read ({})", path, std::strerror(error)));
  if (at > most) too_long(path, most);
  text.resize(at);
  return text;
}

bool Lines::next(std::string_view& line) {
  if (rest_.empty()) return false;
  const size_t end = rest_.find('\n');
  line = rest_.substr(0, end);
  rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  ++number_;
  return true;
}

std::vector<std::string_view> split_tabs(std::string_view line) {
  std::vector<std::string_view> out;
  for (;;) {
    const size_t tab = line.find('\t');
    out.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return out;
    line.remove_prefix(tab + 1);
  }
}

std::string thousands(int64_t n) {
  std::string digits = std::to_string(n);
  for (int64_t at = int64_t(digits.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) digits.insert(size_t(at), ",");
  return digits;
}

size_t edit_distance(const std::string& a, const std::string& b) {
  // Three rows of the table at a time: of the prefixes of `a` that are two letters shorter, one shorter, and as long.
  std::vector<size_t> two_shorter(b.size() + 1), shorter(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    std::swap(two_shorter, shorter);
    std::swap(shorter, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({shorter[j] + 1, row[j - 1] + 1, shorter[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], two_shorter[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string lower(std::string s) {
  for (char& c : s)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return s;
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t farther = std::min<size_t>(2, word.size() / 3) + 1;  // than what is taken for a hint
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(lower(word), lower(candidate));
    if (distance < farther) farther = distance, best = candidate;
  }
  return best;
}

std::string shown(std::string_view field) {
  std::string s(field.substr(0, 40));
  for (char& c : s)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return field.size() > 40 ? s + "..." : s;
}

bool column_matches(std::string_view column, const std::string& field, const std::vector<std::string>& also) {
  const std::string_view name = column.substr(0, column.find(':'));
  return column == field || name == field || std::find(also.begin(), also.end(), name) != also.end();
}

int find_column(const std::vector<std::string_view>& columns, const std::string& field, const std::vector<std::string>& also) {
  for (size_t c = 0; c < columns.size(); ++c)
    if (column_matches(columns[c], field, {})) return int(c);  // the name asked for wins over a synonym
  for (size_t c = 0; c < columns.size(); ++c)
    if (column_matches(columns[c], field, also)) return int(c);
  return -1;
}

const std::vector<std::string>& usual_names(const std::string& field) {
  static const std::vector<std::string> none, users{"userID", "user_id", "user"}, items{"itemID", "item_id", "item"};
  const std::string_view name = std::string_view(field).substr(0, field.find(':'));
  if (std::find(users.begin(), users.end(), name) != users.end()) return users;
  if (std::find(items.begin(), items.end(), name) != items.end()) return items;
  return none;
}

}  // namespace ccdrec
