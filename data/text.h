// Small text files and fields.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ccdrec {

// The whole file; .gz is inflated. UserError: absent, a directory, unreadable, longer than `most` bytes.
std::string read_text(const std::string& path, size_t most = SIZE_MAX);

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

std::vector<std::string_view> split_tabs(std::string_view line);

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

std::string thousands(int64_t n);                                  // 160,792
size_t edit_distance(const std::string& a, const std::string& b);  // insertions, deletions, changes, and swaps of two neighbours
std::string lower(std::string);                                    // ASCII letters
// The candidate a mistyped word most likely meant, whatever its capitals: at most two edits away, and a third of the word. "": none is so near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

// What of a field is shown in a sentence: at most 40 characters, the unprintable ones as '?'.
std::string shown(std::string_view field);

// Does header column `column` (perhaps typed: user_id:token) carry the field asked for, or one of its usual names?
bool column_matches(std::string_view column, const std::string& field, const std::vector<std::string>& also);
int find_column(const std::vector<std::string_view>& columns, const std::string& field, const std::vector<std::string>& also);  // -1: none
const std::vector<std::string>& usual_names(const std::string& field);  // userID, user_id, user; itemID, item_id, item

}  // namespace ccdrec
