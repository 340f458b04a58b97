#include "data/inter.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "data/error.h"
#include "data/hash.h"
#include "data/text.h"

namespace ccdrec {

namespace {

std::string listed(const std::vector<std::string_view>& columns) {
  std::string s;
  for (std::string_view c : columns) s += (s.empty() ? "" : ", ") + shown(c);
  return s;
}

// A number in any spelling: 3, -1, 2.0, 1e5. Digits that begin with 0 and go on (0005019281) are a name: as a number they would lose their zeros.
bool looks_numeric(std::string_view s) {
  if (s.empty() || !std::strchr("0123456789+-.", s[0])) return false;
  if (s.size() > 1 && s[0] == '0' && s.find_first_not_of("0123456789") == std::string_view::npos) return false;
  double v = 0;
  const char* first = s.data() + (s[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(first, s.data() + s.size(), v);
  return error != std::errc::invalid_argument && end == s.data() + s.size();
}

// One id column while the rows go by.
class IdColumn {
 public:
  IdColumn(std::string header, const IdMapping& mapping, const std::string& path) : header_(std::move(header)), mapping_(mapping), path_(path) {
    typed_ = header_.find(":token") != std::string::npos;
  }

  // false: under a typed header a name was met among integers; call as_names() and read the rows again.
  bool read(std::string_view field, int64_t line, int32_t& index) {
    if (!decided_) decide(field);
    if (names_) {
      index = name(field, line);
      return true;
    }
    const int64_t v = parse_index(field);
    if (v < 0) {
      if (typed_ && !field.empty()) return false;
      throw UserError(
          fmt::format("{}: line {}: {} is '{}', expected an integer from 0 to 2147483646; ids that are names are read when the header says {}:token",
                      path_, line, header_, shown(field), header_.substr(0, header_.find(':'))));
    }
    if (v > largest_) {
      largest_ = v;
      line_of_largest_ = line;
    }
    index = int32_t(v);
    return true;
  }

  void as_names() {
    decided_ = names_ = true;
    largest_ = -1;
    fill();
  }

  // Integers with wide gaps would make matrices of rows nobody owns. False: typed, so number them in order instead.
  bool dense_enough(int64_t rows) const {
    if (names_ || !mapping_.raw.empty() || largest_ < 100000 + 100 * rows) return true;
    if (typed_) return false;
    throw UserError(fmt::format(
        "{}: line {}: {} is {}, which makes {} rows of parameters for {} interactions; number the ids from 0 without gaps, or write {}:token in the "
        "header to have them numbered in order of appearance",
        path_, line_of_largest_, header_, largest_, largest_ + 1, rows, header_));
  }

  InterIds finish() {
    InterIds ids;
    ids.line_of_largest = line_of_largest_;
    if (!mapping_.raw.empty()) {
      ids.raw = mapping_.raw;
      ids.n = int64_t(ids.raw.size());
      if (largest_ >= ids.n)
        throw UserError(fmt::format("{}: line {}: {} is {}, but {} lists only {} ids; use the mapping written together with this file, or remove it",
                                    path_, line_of_largest_, header_, largest_, mapping_.path, ids.n));
    } else if (names_) {
      ids.raw = std::move(raw_);
      ids.n = int64_t(ids.raw.size());
      ids.appearance = true;
    } else {
      ids.n = largest_ + 1;
    }
    return ids;
  }

 private:
  void decide(std::string_view first) {
    decided_ = true;
    names_ = !looks_numeric(first) && !first.empty();
    if (names_) fill();
  }
  void fill() {
    for (size_t i = 0; i < mapping_.raw.size(); ++i) index_.emplace(mapping_.raw[i], int32_t(i));
  }
  int32_t name(std::string_view field, int64_t line) {
    if (field.empty()) throw UserError(fmt::format("{}: line {}: {} is empty, expected an id; remove or complete the line", path_, line, header_));
    const auto found = index_.find(field);
    int32_t i = 0;
    if (found != index_.end()) {
      i = found->second;
    } else {
      if (!mapping_.raw.empty())
        throw UserError(fmt::format("{}: line {}: {} '{}' is not in {}; use the mapping written together with this file, or remove it", path_, line,
                                    header_, shown(field), mapping_.path));
      i = int32_t(raw_.size());
      raw_.emplace_back(field);
      index_.emplace(field, i);  // the key points into the text, which outlives this object
    }
    if (i > largest_) {
      largest_ = i;
      line_of_largest_ = line;
    }
    return i;
  }

  std::string header_;
  const IdMapping& mapping_;
  const std::string& path_;
  bool typed_ = false, decided_ = false, names_ = false;
  int64_t largest_ = -1, line_of_largest_ = 0;
  std::vector<std::string> raw_;
  std::unordered_map<std::string_view, int32_t> index_;
};

struct Columns {
  int user, item, label;
};

// false: a column turned out to hold names, see IdColumn::read.
bool read_rows(InterFile& f, std::string_view text, Columns at, const std::string& label_name, IdColumn& users, IdColumn& items) {
  f.user.clear(), f.item.clear(), f.label.clear();
  Lines lines(text);
  std::string_view line;
  while (lines.next(line) && line.empty()) {}
  const size_t header_columns = split_tabs(line).size();
  const int last = std::max({at.user, at.item, at.label});
  while (lines.next(line)) {
    if (line.empty()) continue;
    std::string_view user, item, label, rest = line;
    int c = 0;
    for (;; ++c) {
      const size_t tab = rest.find('\t');
      const std::string_view field = rest.substr(0, tab);
      if (c == at.user) user = field;
      if (c == at.item) item = field;
      if (c == at.label) label = field;
      if (c == last || tab == std::string_view::npos) break;
      rest.remove_prefix(tab + 1);
    }
    if (c < last)
      throw UserError(fmt::format("{}: line {}: has {} columns, expected {} separated by tabs as in the header; complete or remove the line", f.path,
                                  lines.number(), c + 1, header_columns));
    int32_t u = 0, i = 0;
    if (!users.read(user, lines.number(), u)) return users.as_names(), false;
    if (!items.read(item, lines.number(), i)) return items.as_names(), false;
    if (label.size() != 1 || label[0] < '0' || label[0] > '2')
      throw UserError(fmt::format("{}: line {}: {} is '{}', expected 0 (training), 1 (validation) or 2 (test)", f.path, lines.number(), label_name,
                                  shown(label)));
    f.user.push_back(u);
    f.item.push_back(i);
    f.label.push_back(uint8_t(label[0] - '0'));
  }
  const int64_t rows = int64_t(f.user.size());
  if (!users.dense_enough(rows)) return users.as_names(), false;
  if (!items.dense_enough(rows)) return items.as_names(), false;
  return true;
}

}  // namespace

InterFile read_inter(const std::string& path, const InterFields& fields, const IdMapping& user_mapping, const IdMapping& item_mapping) {
  InterFile f;
  f.path = path;
  const std::string text = read_text(path);
  f.fingerprint = hash_bytes(text.data(), text.size(), user_mapping.fingerprint ^ (item_mapping.fingerprint << 1));

  Lines lines(text);
  std::string_view header;
  while (lines.next(header) && header.empty()) {}
  if (header.empty())
    throw UserError(path + ": is empty, expected a header line (userID, itemID, x_label) and one line per interaction, separated by tabs");
  const auto columns = split_tabs(header);
  const auto need = [&](const std::string& field, const char* what) {
    const int c = find_column(columns, field, usual_names(field));
    if (c < 0)
      throw UserError(
          fmt::format("{}: line {}: no column '{}' ({}); columns found, separated by tabs: {}; rename one, or name it in the configuration", path,
                      lines.number(), field, what, listed(columns)));
    return c;
  };
  const Columns at{need(fields.user, "the user of an interaction"), need(fields.item, "the item of an interaction"),
                   need(fields.label, "0 training, 1 validation, 2 test")};
  IdColumn users(std::string(columns[size_t(at.user)]), user_mapping, path), items(std::string(columns[size_t(at.item)]), item_mapping, path);
  while (!read_rows(f, text, at, std::string(columns[size_t(at.label)]), users, items)) {}
  if (f.user.empty()) throw UserError(path + ": has a header but no interactions, expected one line per interaction");
  f.users = users.finish();
  f.items = items.finish();
  return f;
}

IdMapping read_id_mapping(const std::string& path, const std::string& field) {
  IdMapping m;
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return m;
  m.path = path;
  const std::string text = read_text(path);
  m.fingerprint = hash_bytes(text.data(), text.size());
  Lines lines(text);
  std::string_view line;
  lines.next(line);
  const auto columns = split_tabs(line);
  if (columns.size() != 2)
    throw UserError(fmt::format("{}: line 1: has {} columns ({}), expected two separated by a tab: the raw id and {}", path, columns.size(),
                                listed(columns), field));
  // The index column bears the field's name (MMRec: asin, itemID); where both or neither could, it is the second.
  const size_t index_at = column_matches(columns[0], field, {}) && !column_matches(columns[1], field, {}) ? 0 : 1;
  std::unordered_map<std::string_view, int64_t> seen;
  std::vector<int64_t> line_of;
  while (lines.next(line)) {
    if (line.empty()) continue;
    const auto cells = split_tabs(line);
    const int64_t i = cells.size() == 2 ? parse_index(cells[index_at]) : -1;
    if (i < 0 || i > 1000 + int64_t(text.size()))
      throw UserError(
          fmt::format("{}: line {}: expected a raw id and an index from 0 separated by a tab, got '{}'", path, lines.number(), shown(line)));
    const std::string_view raw = cells[1 - index_at];
    const auto [other, fresh] = seen.emplace(raw, lines.number());
    if (!fresh)
      throw UserError(
          fmt::format("{}: line {}: raw id '{}' stands on line {} already; each may occur once", path, lines.number(), shown(raw), other->second));
    if (size_t(i) >= m.raw.size()) m.raw.resize(size_t(i) + 1), line_of.resize(size_t(i) + 1, 0);
    if (line_of[size_t(i)])
      throw UserError(
          fmt::format("{}: line {}: index {} stands on line {} already; each may occur once", path, lines.number(), i, line_of[size_t(i)]));
    line_of[size_t(i)] = lines.number();
    m.raw[size_t(i)] = std::string(raw);
  }
  if (m.raw.empty()) throw UserError(path + ": lists no ids, expected one line per id; remove the file if ids are their own numbers");
  for (size_t i = 0; i < line_of.size(); ++i)
    if (!line_of[i])
      throw UserError(
          fmt::format("{}: no line for index {}, expected every index from 0 to {}; complete the mapping or remove it", path, i, line_of.size() - 1));
  return m;
}

}  // namespace ccdrec
