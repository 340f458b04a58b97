#include "data/text.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "data/error.h"

namespace ccdrec {

namespace {

[[noreturn]] void too_long(const std::string& path, size_t most) {
  throw UserError(
      fmt::format("{}: holds more than {} bytes, too many for a file of its kind; is it the one that was meant?", path,
                  thousands(int64_t(most))));
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

std::string read_table(const std::string& path) {
  std::string text = read_text(path);
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    throw UserError(path + ": is UTF-16, expected UTF-8; save it as UTF-8");
  const std::string_view first = std::string_view(text).substr(0, text.find('\n'));
  const size_t cr = first.find('\r');
  if (cr != std::string_view::npos && cr + 1 < first.size())
    throw UserError(path + ": its lines end in CR alone, expected LF or CRLF; convert it: tr '\\r' '\\n' < OLD > NEW");
  return text;
}

std::string_view trimmed(std::string_view s) {
  const size_t first = s.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(" \t") + 1 - first);
}

void Fields::next_quoted(std::string_view& field) {
  size_t end = field.size();
  if (separator_ != '\t') {
    const size_t quote = rest_.find_first_not_of(' ');
    if (quote != std::string_view::npos && rest_[quote] == '"') {
      // The quote that ends the field is followed by a separator or by nothing; any other is text.
      for (size_t close = rest_.find('"', quote + 1); close != std::string_view::npos;
           close = rest_.find('"', close + 1)) {
        if (rest_.substr(close, 2) == "\"\"") {
          ++close;
          continue;
        }
        const size_t after = std::min(rest_.find_first_not_of(' ', close + 1), rest_.size());
        if (after < rest_.size() && rest_[after] != separator_) continue;
        end = after;
        break;
      }
    }
    field = trimmed(rest_.substr(0, end));
  }
  if (field.size() >= 2 && field.front() == '"' && field.back() == '"') field = field.substr(1, field.size() - 2);
  more_ = end < rest_.size();
  if (more_) rest_.remove_prefix(end + 1);
}

std::vector<std::string_view> split_fields(std::string_view line, char separator) {
  std::vector<std::string_view> out;
  Fields fields(line, separator);
  for (std::string_view field; fields.next(field);) out.push_back(field);
  return out;
}

const char* separator_name(char separator) {
  return separator == '\t' ? "tabs" : separator == ',' ? "commas" : "semicolons";
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
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], two_shorter[j - 2] + 1);
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

namespace {

struct Symbol {
  size_t bytes;
  bool valid;
  uint32_t code;
};

// The character at the beginning of `s`, which is not empty. What is no UTF-8 is one byte long.
Symbol first_symbol(std::string_view s) {
  const auto byte = [&](size_t i) { return uint32_t(static_cast<unsigned char>(s[i])); };
  const uint32_t b = byte(0);
  if (b < 0x80) return {1, true, b};
  const size_t n = b >= 0xC2 && b < 0xE0 ? 2 : b >= 0xE0 && b < 0xF0 ? 3 : b >= 0xF0 && b < 0xF5 ? 4 : 0;
  if (n == 0 || s.size() < n) return {1, false, b};
  uint32_t code = b & (0x7Fu >> n);
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {1, false, b};
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
  if (overlong || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return {1, false, b};
  return {n, true, code};
}

bool may_be_shown(const Symbol& c) {
  const bool control = c.code < 32 || (c.code >= 0x7F && c.code < 0xA0);
  const bool direction = (c.code >= 0x2028 && c.code <= 0x202E) || (c.code >= 0x2066 && c.code <= 0x2069);
  return c.valid && !control && !direction;
}

}  // namespace

UserError::UserError(const std::string& sentence) : std::runtime_error(printable(sentence)) {}

bool is_ascii(std::string_view s) {
  uint64_t high = 0;
  size_t at = 0;
  for (; at + 8 <= s.size(); at += 8) {
    uint64_t eight;
    std::memcpy(&eight, s.data() + at, 8);
    high |= eight;
  }
  for (; at < s.size(); ++at) high |= uint64_t(static_cast<unsigned char>(s[at]));
  return (high & 0x8080808080808080u) == 0;
}

bool valid_utf8(std::string_view s) {
  if (is_ascii(s)) return true;
  while (!s.empty()) {
    const Symbol c = first_symbol(s);
    if (!c.valid) return false;
    s.remove_prefix(c.bytes);
  }
  return true;
}

std::string printable(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  while (!s.empty()) {
    const Symbol c = first_symbol(s);
    out += may_be_shown(c) ? s.substr(0, c.bytes) : "?";
    s.remove_prefix(c.bytes);
  }
  return out;
}

std::string shown(std::string_view field) {
  std::string_view rest = field;
  for (int n = 0; n < 40 && !rest.empty(); ++n) rest.remove_prefix(first_symbol(rest).bytes);
  return printable(field.substr(0, field.size() - rest.size())) + (rest.empty() ? "" : "...");
}

std::string shell_word(const std::string& s) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("_./-+=@%,:").find(c) != std::string_view::npos;
  };
  if (!s.empty() && std::all_of(s.begin(), s.end(), plain)) return s;
  std::string quoted = "'";
  for (const char c : s) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string plain_heading(std::string_view column) {
  std::string s;
  for (const char c : column.substr(0, column.find(':')))
    if (c != ' ' && c != '_' && c != '-') s += char(std::tolower(static_cast<unsigned char>(c)));
  return s;
}

bool column_matches(std::string_view column, const std::string& field, const std::vector<std::string>& also) {
  const std::string_view name = column.substr(0, column.find(':'));
  return column == field || name == field || std::find(also.begin(), also.end(), name) != also.end();
}

int find_column(const std::vector<std::string_view>& columns, const std::string& field,
                const std::vector<std::string>& also) {
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
