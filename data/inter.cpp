#include "data/inter.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "data/error.h"
#include "data/hash.h"
#include "data/text.h"

namespace ccdrec {

namespace {

// A number in any spelling: 3, -1, 2.0, 1e5. Digits that begin with 0 and go on (0005019281) are a name: as a number
// they would lose their zeros.
bool looks_numeric(std::string_view s) {
  if (s.empty() || !std::strchr("0123456789+-.", s[0])) return false;
  if (s.size() > 1 && s[0] == '0' && s.find_first_not_of("0123456789") == std::string_view::npos) return false;
  double v = 0;
  const char* first = s.data() + (s[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(first, s.data() + s.size(), v);
  return error != std::errc::invalid_argument && end == s.data() + s.size();
}

bool is_plain_index(std::string_view s, int64_t value) { return value >= 0 && (s[0] != '0' || s.size() == 1); }

// What an id is written as. `respelled`: an integer but for blanks and quotes around it or a fraction of zeros.
enum class Spelling { integer, respelled, number, name };

Spelling spelling_of(std::string_view s) {
  if (!std::strchr("0123456789+-. \t\"'", s.front())) return Spelling::name;
  if (is_plain_index(s, parse_index(s))) return Spelling::integer;
  std::string_view core = s;
  while (!core.empty() && std::strchr(" \t\"'", core.front())) core.remove_prefix(1);
  while (!core.empty() && std::strchr(" \t\"'", core.back())) core.remove_suffix(1);
  const size_t dot = core.find('.');
  if (dot != std::string_view::npos && core.find_first_not_of('0', dot + 1) == std::string_view::npos)
    core = core.substr(0, dot);
  if (core.size() < s.size() && parse_index(core) >= 0) return Spelling::respelled;
  return looks_numeric(s) ? Spelling::number : Spelling::name;
}

// One id column while the rows go by.
class IdColumn {
 public:
  IdColumn(std::string header, const IdMapping& mapping, const std::string& path, bool ascii)
      : header_(std::move(header)),
        plain_header_(header_.substr(0, header_.find(':'))),
        mapping_(mapping),
        path_(path),
        ascii_(ascii) {
    typed_ = header_.find(":token") != std::string::npos;
    header_ = shown(header_);
  }

  // false: a name was met where all the column may be names; call as_names() and read the rows again.
  bool read(std::string_view field, int64_t line, int32_t& index) {
    if (!names_) {
      const int64_t v = parse_index(field);
      if (is_plain_index(field, v)) {
        if (first_.line == 0) first_ = {field, line, Spelling::integer};
        if (v > largest_) {
          largest_ = v;
          line_of_largest_ = line;
        }
        index = int32_t(v);
        return true;
      }
      check(field, line);
      if (typed_ || mapped()) return false;
      const Spelling spelling = spelling_of(field);
      if (spelling == Spelling::number)
        throw UserError(
            fmt::format("{}: line {}: {} is '{}', expected an integer from 0 to 2147483646; ids that are names are "
                        "read when the header says {}:token",
                        path_, line, header_, shown(field), plain_header_));
      if (first_.line) refuse_mixture(field, line);
      names_ = true;
    }
    index = name(field, line);
    return true;
  }

  void as_names() {
    names_ = true;
    largest_ = -1;
    first_ = {};
    for (size_t i = 0; i < mapping_.raw.size(); ++i) index_.emplace(mapping_.raw[i], int32_t(i));
  }

  // Integers with wide gaps would make matrices of rows nobody owns. False: typed, so number them in order instead.
  bool dense_enough(int64_t rows) const {
    if (names_ || mapped() || largest_ < 100000 + 100 * rows) return true;
    if (typed_) return false;
    throw UserError(
        fmt::format("{}: line {}: {} is {}, which makes {} rows of parameters for {} interactions; number the ids from "
                    "0 without gaps, or write {}:token in the "
                    "header to have them numbered in order of appearance",
                    path_, line_of_largest_, header_, largest_, largest_ + 1, rows, header_));
  }

  InterIds finish() {
    InterIds ids;
    ids.line_of_largest = line_of_largest_;
    if (mapped()) {
      ids.raw = mapping_.raw;
      ids.n = int64_t(ids.raw.size());
      if (largest_ >= ids.n)
        throw UserError(
            fmt::format("{}: line {}: {} is {}, but {} lists only {} ids; use the mapping written together with this "
                        "file, or remove it",
                        path_, line_of_largest_, header_, largest_, mapping_.path, ids.n));
    } else if (names_) {
      refuse_disguised_integers();
      ids.raw = std::move(raw_);
      ids.n = int64_t(ids.raw.size());
      ids.appearance = true;
    } else {
      ids.n = largest_ + 1;
    }
    return ids;
  }

 private:
  struct Seen {
    std::string_view id;
    int64_t line = 0;  // 0: none yet
    Spelling spelling = Spelling::name;
  };

  bool mapped() const { return !mapping_.raw.empty(); }

  void check(std::string_view field, int64_t line) const {
    if (trimmed(field).empty())
      throw UserError(
          fmt::format("{}: line {}: {} is empty, expected an id; remove or complete the line", path_, line, header_));
    if (!ascii_ && !valid_utf8(field))
      throw UserError(fmt::format(
          "{}: line {}: {} '{}' is not UTF-8; convert the file (iconv -f latin1 -t utf-8, or what it is written in)",
          path_, line, header_, shown(field)));
  }

  [[noreturn]] void refuse_mixture(std::string_view field, int64_t line) const {
    throw UserError(
        fmt::format("{}: line {}: {} is '{}', but '{}' on line {}; expected an integer from 0 to 2147483646, without "
                    "blanks or zeros in front, in "
                    "every line; where "
                    "all of them are names, write {}:token in the header, which means names",
                    path_, line, header_, shown(field), shown(first_.id), first_.line, plain_header_));
  }
  [[noreturn]] void refuse_respelled(const Seen& at, const Seen& other) const {
    const std::string second = other.line ? fmt::format(" and '{}' on line {}", shown(other.id), other.line) : "";
    throw UserError(
        fmt::format("{}: line {}: {} is '{}'{}: integers with blanks, quotes or a fraction; expected plain ones such "
                    "as 3; where they are names, write "
                    "{}:token in the header, which means names",
                    path_, at.line, header_, shown(at.id), second, plain_header_));
  }

  // Of a name met for the first time. Names are numbered by appearance, so integers among them would lose their places,
  // and with them their feature rows.
  void look_at_spelling(std::string_view field, int64_t line) {
    const Seen now{field, line, spelling_of(field)};
    const bool digits = now.spelling == Spelling::name && parse_index(field) >= 0;  // zeros in front
    if (digits) largest_digits_ = std::max(largest_digits_, parse_index(field));
    only_digits_ &= digits;
    if (now.spelling == Spelling::integer && !integer_.line) integer_ = now;
    if (now.spelling == Spelling::respelled && !respelled_.line) respelled_ = now;
    other_ |= now.spelling == Spelling::name || now.spelling == Spelling::number;
    if (!first_.line) {
      first_ = now;
    } else if (!typed_ && now.spelling != first_.spelling) {
      refuse_mixture(field, line);
    } else if (!typed_ && now.spelling == Spelling::respelled) {
      refuse_respelled(first_, now);
    }
  }

  // What is found out at the end alone: a column of nothing but integers that are numbered by appearance for their
  // spelling.
  void refuse_disguised_integers() const {
    if (!typed_ && respelled_.line) refuse_respelled(respelled_, {});
    if (typed_ && respelled_.line && integer_.line && !other_) refuse_respelled(respelled_, integer_);
    if (!typed_ && only_digits_ && largest_digits_ < 2 * int64_t(raw_.size()))
      throw UserError(
          fmt::format("{}: line {}: {} is '{}': a number with zeros in front, or a name; write it without the zeros, "
                      "or {}:token in the header, which "
                      "means names",
                      path_, first_.line, header_, shown(first_.id), plain_header_));
  }

  int32_t name(std::string_view field, int64_t line) {
    const auto found = index_.find(field);
    int32_t i = 0;
    if (found != index_.end()) {
      i = found->second;
    } else {
      check(field, line);
      if (mapped())
        throw UserError(fmt::format(
            "{}: line {}: {} '{}' is not in {}; use the mapping written together with this file, or remove it", path_,
            line, header_, shown(field), mapping_.path));
      look_at_spelling(field, line);
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

  std::string header_, plain_header_;
  const IdMapping& mapping_;
  const std::string& path_;
  bool ascii_ = true, typed_ = false, names_ = false;
  int64_t largest_ = -1, line_of_largest_ = 0;
  Seen first_, integer_, respelled_;  // of the column, of its kind
  bool other_ = false, only_digits_ = true;
  int64_t largest_digits_ = -1;
  std::vector<std::string> raw_;
  std::unordered_map<std::string_view, int32_t> index_;
};

struct Columns {
  int user = -1, item = -1, label = -1;
};
struct Header {
  int64_t line = 0;
  char separator = '\t';
  std::vector<std::string_view> names;
  Columns at;
};

std::string columns_found(const Header& h) {
  return fmt::format("columns found, separated by {}: {}", separator_name(h.separator), listed(h.names));
}

Header split_header(std::string_view text, char separator, const InterFields& fields) {
  Header h;
  h.separator = separator;
  h.names = split_fields(text, separator);
  const auto find = [&](const std::string& field) { return find_column(h.names, field, usual_names(field)); };
  h.at = {find(fields.user), find(fields.item), find(fields.label)};
  return h;
}

// A table without a split: what is to be made, and by what.
[[noreturn]] void refuse_unsplit(const std::string& path, const Header& h, const std::string& label) {
  const auto has = [&](const char* name) { return std::find(h.names.begin(), h.names.end(), name) != h.names.end(); };
  const bool for_resplit = h.separator == '\t' && has("userID") && has("itemID");
  throw UserError(
      fmt::format("{}: line {}: no column '{}'; {}; a split has to be made: add a column {} that is 0 (training), 1 "
                  "(validation) or 2 (test) in every "
                  "line{}, or name the column that holds it with --set inter_splitting_label=NAME",
                  path, h.line, label, columns_found(h), label,
                  for_resplit ? " (python3 bench/resplit.py FOLDER NEW_FOLDER SEED, in the sources, draws one per user "
                                "where ids are integers)"
                              : ""));
}

// The header with the separator under which the ids are found.
Header read_header(const std::string& path, std::string_view text, int64_t line, const InterFields& fields) {
  Header h;
  for (const char separator : kSeparators) {
    Header now = split_header(text, separator, fields);
    now.line = line;
    const bool found = now.at.user >= 0 && now.at.item >= 0;
    if (found || h.names.empty() || now.names.size() > h.names.size()) h = std::move(now);
    if (found) break;
  }
  if (h.at.user < 0 || h.at.item < 0) {
    std::string tabs(text);
    tabs.erase(std::unique(tabs.begin(), tabs.end(), [](char a, char b) { return a == ' ' && b == ' '; }), tabs.end());
    std::replace(tabs.begin(), tabs.end(), ' ', '\t');
    if (const Header blanks = split_header(tabs, '\t', fields); blanks.at.user >= 0 && blanks.at.item >= 0)
      throw UserError(
          fmt::format("{}: line {}: columns are separated by blanks, expected tabs, commas or semicolons; convert it: "
                      "sed -E 's/ +/\\t/g' OLD > NEW",
                      path, line));
  }
  const auto need = [&](int at, const std::string& field, const char* what) {
    if (at < 0)
      throw UserError(fmt::format("{}: line {}: no column '{}' ({}); {}; rename one, or name it in the configuration",
                                  path, line, field, what, columns_found(h)));
  };
  need(h.at.user, fields.user, "the user of an interaction");
  need(h.at.item, fields.item, "the item of an interaction");
  if (h.at.label < 0) refuse_unsplit(path, h, fields.label);
  return h;
}

// false: a column turned out to hold names, see IdColumn::read.
bool read_rows(InterFile& f, std::string_view text, const Header& header, IdColumn& users, IdColumn& items) {
  f.user.clear(), f.item.clear(), f.label.clear();
  Lines lines(text);
  std::string_view line;
  while (lines.next(line) && line.empty()) {}
  const Columns at = header.at;
  const int columns = int(header.names.size()), last = std::max({at.user, at.item, at.label});
  while (lines.next(line)) {
    if (line.empty()) continue;
    std::string_view user, item, label, field;
    Fields fields(line, header.separator);
    int c = 0;  // fields read
    while (c <= last && fields.next(field)) {
      if (c == at.user) user = field;
      if (c == at.item) item = field;
      if (c == at.label) label = field;
      ++c;
    }
    if (c <= last)
      throw UserError(fmt::format(
          "{}: line {}: has {} columns, expected {} separated by {} as in the header; complete or remove the line",
          f.path, lines.number(), c, columns, separator_name(header.separator)));
    // A field more than the header has (row names that R writes without a heading, a comma in a text) would move all
    // after it.
    if (header.separator != '\t' || f.user.empty())
      for (; fields.next(field); ++c)
        if (c >= columns && !field.empty())
          throw UserError(
              fmt::format("{}: line {}: has more columns than the {} of the header; give every column a heading, and "
                          "quote text that holds {}",
                          f.path, lines.number(), columns, separator_name(header.separator)));
    int32_t u = 0, i = 0;
    if (!users.read(user, lines.number(), u)) return users.as_names(), false;
    if (!items.read(item, lines.number(), i)) return items.as_names(), false;
    if (label.size() != 1 || label[0] < '0' || label[0] > '2')
      throw UserError(fmt::format("{}: line {}: {} is '{}', expected 0 (training), 1 (validation) or 2 (test)", f.path,
                                  lines.number(), shown(header.names[size_t(at.label)]), shown(label)));
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

InterFile read_inter(const std::string& path, const InterFields& fields, const IdMapping& user_mapping,
                     const IdMapping& item_mapping) {
  InterFile f;
  f.path = path;
  const std::string text = read_table(path);
  f.fingerprint = hash_bytes(text.data(), text.size(), user_mapping.fingerprint ^ (item_mapping.fingerprint << 1));

  Lines lines(text);
  std::string_view first;
  while (lines.next(first) && first.empty()) {}
  if (first.empty())
    throw UserError(
        path +
        ": is empty, expected a header line (userID, itemID, x_label) and one line per interaction, separated by tabs");
  const Header header = read_header(path, first, lines.number(), fields);
  for (const IdMapping* m : {&user_mapping, &item_mapping})
    f.notes.insert(f.notes.end(), m->notes.begin(), m->notes.end());
  if (header.separator != '\t')
    f.notes.push_back(fmt::format("{}: columns are separated by {}", path, separator_name(header.separator)));

  const bool ascii = is_ascii(text);
  IdColumn users(std::string(header.names[size_t(header.at.user)]), user_mapping, path, ascii),
      items(std::string(header.names[size_t(header.at.item)]), item_mapping, path, ascii);
  while (!read_rows(f, text, header, users, items)) {}
  if (f.user.empty()) throw UserError(path + ": has a header but no interactions, expected one line per interaction");
  f.users = users.finish();
  f.items = items.finish();
  return f;
}

namespace {

// Is this what a column of raw ids is usually called?
bool names_raw_ids(std::string_view column, const std::string& field) {
  static const std::set<std::string> usual = {
      "asin",    "parentasin", "id",     "raw",     "rawid",     "original",   "originalid", "orgid",
      "origid",  "token",      "key",    "user",    "userid",    "uid",        "item",       "itemid",
      "iid",     "sku",        "isbn",   "movieid", "bookid",    "newsid",     "productid",  "videoid",
      "trackid", "businessid", "gmapid", "photoid", "articleid", "customerid", "reviewerid"};
  return column_matches(column, field, {}) || usual.count(plain_heading(column)) > 0;
}

// Where a mapping has what. index < 0: raw ids in order.
struct MappingForm {
  char separator = '\t';
  size_t columns = 1, raw = 0;
  int index = -1;
  bool heading = true;
};

MappingForm mapping_form(const std::string& path, std::string_view first, std::string_view second, int64_t line,
                         const std::string& field, std::vector<std::string>& notes) {
  MappingForm m;
  for (const char separator : kSeparators)
    if (first.find(separator) != std::string_view::npos) {
      m.separator = separator;
      break;
    }
  const auto cells = split_fields(first, m.separator);
  m.columns = cells.size();
  const auto is_index = [](std::string_view cell) { return parse_index(cell) >= 0; };
  if (m.columns == 1) {
    m.heading = names_raw_ids(cells[0], field);
    if (!m.heading && cells[0].find_first_of("0123456789") == std::string_view::npos)
      throw UserError(
          fmt::format("{}: line {}: '{}' may be a heading or the first raw id; write {} in a line above the ids", path,
                      line, shown(cells[0]), field));
    return m;
  }
  m.heading = std::none_of(cells.begin(), cells.end(), is_index);
  if (!m.heading) {
    if (m.columns != 2 || is_index(cells[0]) == is_index(cells[1]))
      throw UserError(
          fmt::format("{}: line {}: expected a heading, such as asin and {}, for the columns {}; write one above it",
                      path, line, field, listed(cells)));
    m.index = is_index(cells[0]) ? 0 : 1;
    m.raw = size_t(1 - m.index);
    return m;
  }
  m.index = find_column(cells, field, {});
  if (m.columns == 2) {
    // Neither bears the name, or both: the second, unless the first alone can be it.
    const auto values = split_fields(second, m.separator);
    const bool first_alone = values.size() == 2 && is_index(values[0]) && !is_index(values[1]);
    if (m.index < 0 || column_matches(cells[1], field, {})) m.index = m.index < 0 && first_alone ? 0 : 1;
    m.raw = size_t(1 - m.index);
    return m;
  }
  if (m.index < 0)
    throw UserError(
        fmt::format("{}: line {}: none of its {} columns is called {}, as that of the indices must be; columns found: "
                    "{}; rename it",
                    path, line, m.columns, field, listed(cells)));
  std::vector<size_t> named;  // pandas writes its row numbers under no name
  for (size_t c = 0; c < m.columns; ++c)
    if (int(c) != m.index && !cells[c].empty() && !cells[c].starts_with("Unnamed:")) named.push_back(c);
  if (named.empty())
    throw UserError(fmt::format("{}: line {}: no heading names the column of raw ids; write one", path, line));
  const auto usual = std::find_if(named.begin(), named.end(), [&](size_t c) { return names_raw_ids(cells[c], field); });
  m.raw = usual == named.end() ? named[0] : *usual;
  if (named.size() > 1)
    notes.push_back(fmt::format("{}: raw ids are taken from its column '{}'", path, shown(cells[m.raw])));
  return m;
}

}  // namespace

IdMapping read_id_mapping(const std::string& path, const std::string& field) {
  IdMapping m;
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return m;
  m.path = path;
  const std::string text = read_table(path);
  m.fingerprint = hash_bytes(text.data(), text.size());
  Lines lines(text);
  std::string_view line, second;
  while (lines.next(line) && line.empty()) {}
  if (line.empty())
    throw UserError(path + ": lists no ids, expected one line per id; remove the file if ids are their own numbers");
  Lines ahead = lines;
  while (ahead.next(second) && second.empty()) {}
  const MappingForm form = mapping_form(path, line, second, lines.number(), field, m.notes);

  std::unordered_map<std::string_view, int64_t> seen;
  std::vector<int64_t> line_of;
  int64_t blank = 0;  // a blank line in a column of ids in order: harmless at the end, else an id is missing
  const auto take = [&] {
    if (line.empty()) {
      blank = form.columns == 1 ? lines.number() : 0;
      return;
    }
    if (blank)
      throw UserError(fmt::format("{}: line {}: the raw id is empty; complete or remove the line", path, blank));
    const auto cells = form.columns == 1 ? std::vector<std::string_view>{split_fields(line, '\t')}
                                         : split_fields(line, form.separator);
    const int64_t i = cells.size() != form.columns ? -1
                      : form.index < 0             ? int64_t(m.raw.size())
                                                   : parse_index(cells[size_t(form.index)]);
    if (i < 0 || i > 1000 + int64_t(text.size()))
      throw UserError(
          fmt::format("{}: line {}: expected {}, got '{}'", path, lines.number(),
                      form.columns == 1 ? "a raw id alone"
                      : form.columns == 2
                          ? fmt::format("a raw id and an index from 0 separated by {}", separator_name(form.separator))
                          : fmt::format("{} columns as in the heading, with an index from 0", form.columns),
                      shown(line)));
    const std::string_view raw = cells[form.raw];
    if (trimmed(raw).empty())
      throw UserError(
          fmt::format("{}: line {}: the raw id is empty; complete or remove the line", path, lines.number()));
    if (!valid_utf8(raw))
      throw UserError(
          fmt::format("{}: line {}: raw id '{}' is not UTF-8; convert the file (iconv -f latin1 -t utf-8, or what it "
                      "is written in)",
                      path, lines.number(), shown(raw)));
    const auto [other, fresh] = seen.emplace(raw, lines.number());
    if (!fresh)
      throw UserError(fmt::format("{}: line {}: raw id '{}' stands on line {} already; each may occur once", path,
                                  lines.number(), shown(raw), other->second));
    if (size_t(i) >= m.raw.size()) m.raw.resize(size_t(i) + 1), line_of.resize(size_t(i) + 1, 0);
    if (line_of[size_t(i)])
      throw UserError(fmt::format("{}: line {}: index {} stands on line {} already; each may occur once", path,
                                  lines.number(), i, line_of[size_t(i)]));
    line_of[size_t(i)] = lines.number();
    m.raw[size_t(i)] = std::string(raw);
  };
  if (!form.heading) take();
  while (lines.next(line)) take();
  if (m.raw.empty())
    throw UserError(path + ": lists no ids, expected one line per id; remove the file if ids are their own numbers");
  for (size_t i = 0; i < line_of.size(); ++i)
    if (!line_of[i])
      throw UserError(
          fmt::format("{}: no line for index {}, expected every index from 0 to {}; complete the mapping or remove it",
                      path, i, line_of.size() - 1));
  return m;
}

}  // namespace ccdrec
