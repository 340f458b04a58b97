// One table in every form that is asked for: the terminal, Markdown, LaTeX, CSV, JSON.
#pragma once
#include <cmath>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace ccdrec {

enum class TableFormat { text, markdown, latex, csv, json };
// "text", "markdown", "latex", "csv" or "json"; UserError for another word.
TableFormat table_format(const std::string& name);
std::vector<std::string> table_formats();

constexpr const char* kAbsent = "-";  // what stands where there is no value

struct Cell {
  Cell() : text(kAbsent) {}
  Cell(std::string t) : text(std::move(t)) {}  // NOLINT: a cell of words
  Cell(const char* t) : text(t) {}             // NOLINT
  // A number, with its deviation over several values; shown with so many digits. NAN: absent.
  static Cell number(double value, int digits, double deviation = NAN);
  // A p-value: four digits, as a power of ten below 0.001. NAN: absent.
  static Cell p_value(double);

  std::string text;
  double value = NAN, deviation = NAN;  // NAN: it is a word, it has none
  bool best = false;                    // of its column: bold, or a star where there is no bold
};

// Not Table, which is what Adam moves (kernels/adam.h).
struct ResultTable {
  std::string title = {};
  std::vector<std::string> columns = {};     // names that differ
  std::vector<std::vector<Cell>> rows = {};  // as many cells as columns; the first is left aligned, the others right
  std::vector<size_t> rules = {};            // rows with a line above them (text and LaTeX)
  std::vector<std::string> notes = {};       // below it
};

// Marks the highest value of a column, and all that are as high, in tables of several rows.
void mark_best(ResultTable&, size_t column);

//   text      columns in line; the best bold where there is colour, else starred, which the title says
//   markdown  the title above, the notes below; the best bold
//   latex     a table with booktabs' rules, title and notes its caption
//   csv       RFC 4180 with LF: values in full precision, a column `NAME sd` after each that has deviations, absent
//             values empty; no title, no notes
//   json      table_json
std::string render(const ResultTable&, TableFormat, bool color = false);
// {"title", "columns", "rows": [{column: text, null, or {"value", "deviation"}}], "notes"}: full precision
nlohmann::ordered_json table_json(const ResultTable&);

// Rows of words in line; the first is the header. First column left, the others right aligned.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace ccdrec
