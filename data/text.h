// Small text files and fields.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ccdrec {

// The whole file; .gz is inflated. UserError: absent, a directory, unreadable, longer than `most` bytes.
std::string read_text(const std::string& path, size_t most = SIZE_MAX);

// The same for a table: refused too where it is UTF-16 or its lines end in CR alone.
std::string read_table(const std::string& path);

// Lines without their end (LF or CRLF); the byte order mark some editors write is skipped.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text.substr(text.starts_with("\xEF\xBB\xBF") ? 3 : 0)) {}
  bool next(std::string_view& line);
  int64_t number() const { return number_; }  // of the line last returned, from 1

 private:
  std::string_view rest_;
  int64_t number_ = 0;
};

// The fields of a line of a table, one after the other. One in double quotes comes without them (doubled ones inside
// stay doubled). Beside commas and semicolons blanks are no part of a field and quotes hide separators; beside tabs
// both are text, as titles hold them.
class Fields {
 public:
  Fields(std::string_view line, char separator) : rest_(line), separator_(separator) {}
  bool next(std::string_view& field) {
    if (!more_) return false;
    const size_t end = rest_.find(separator_);
    field = rest_.substr(0, end);
    if (separator_ == '\t' && (field.empty() || field.front() != '"')) {
      more_ = end != std::string_view::npos;
      if (more_) rest_.remove_prefix(end + 1);
    } else {
      next_quoted(field);
    }
    return true;
  }

 private:
  void next_quoted(std::string_view& field);
  std::string_view rest_;
  char separator_;
  bool more_ = true;
};
std::vector<std::string_view> split_fields(std::string_view line, char separator);
const char* separator_name(char);                 // tabs, commas, semicolons
std::string_view trimmed(std::string_view);       // without blanks and tabs at both ends
constexpr char kSeparators[] = {'\t', ',', ';'};  // those a table may have

// Digits only, at most 2^31 - 2 (row indices are int32): the value, or -1.
inline int64_t parse_index(std::string_view s) {
  if (s.empty() || s.size() > 10) return -1;
  int64_t v = 0;
  for (char c : s) {
    if (c < '0' || c > '9') return -1;
    v = v * 10 + (c - '0');
  }
  return v <= 2147483646 ? v : -1;
}

std::string thousands(int64_t n);  // 160,792
// insertions, deletions, changes, and swaps of two neighbours
size_t edit_distance(const std::string& a, const std::string& b);
std::string lower(std::string);  // ASCII letters
// The candidate a mistyped word most likely meant, whatever its capitals: at most two edits away, and a third of the
// word. "": none is so near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

// Text of a file, a file's name or an id as it may be shown: what is no UTF-8, control characters (C1 as well) and
// those that turn the direction of writing become '?', so that nothing reaches a terminal or a log that it would obey.
std::string printable(std::string_view);
// what of a field is shown in a sentence: at most 40 characters of it, printable
std::string shown(std::string_view field);
std::string shell_word(const std::string&);  // quoted where a shell would not take it as one word
bool is_ascii(std::string_view);
bool valid_utf8(std::string_view);  // no overlong forms, no surrogates
template <class Words>
std::string listed(const Words& words);  // a, b, c, d, e and 3 more: at most five, each as shown()

// A heading as it is compared with usual ones: lower case, without type (`:token`), blanks, '_' and '-'.
std::string plain_heading(std::string_view column);

// Does header column `column` (perhaps typed: user_id:token) carry the field asked for, or one of its usual names?
bool column_matches(std::string_view column, const std::string& field, const std::vector<std::string>& also);
// -1: none
int find_column(const std::vector<std::string_view>& columns, const std::string& field,
                const std::vector<std::string>& also);
const std::vector<std::string>& usual_names(const std::string& field);  // userID, user_id, user; itemID, item_id, item

template <class Words>
std::string listed(const Words& words) {
  std::string s;
  size_t n = 0;
  for (const auto& word : words)
    if (n++ < 5) s += (s.empty() ? "" : ", ") + shown(word);
  return n > 5 ? s + " and " + std::to_string(n - 5) + " more" : s;
}

}  // namespace ccdrec
