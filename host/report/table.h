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

struct Cell {
  Cell() = default;
  Cell(std::string t) : text(std::move(t)) {}  // NOLINT: a cell of words
  Cell(const char* t) : text(t) {}             // NOLINT
  // A number, with its deviation over `n` > 1 values; shown with so many digits.
  static Cell number(double value, int digits, double deviation = NAN);
  std::string text;
  double value = NAN, deviation = NAN;  // NAN: it is a word, it has none
  bool best = false;                    // of its column: bold, or a star where there is no bold
};

struct Table {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;  // as many cells as columns; the first is left aligned, the others right
  std::vector<size_t> rules;            // rows with a line above them
  std::vector<std::string> notes;       // below it
};

std::string render(const Table&, TableFormat, bool color = false);
// {"title", "columns", "rows": [{column: text, or {"value", "deviation"}}], "notes"}: full precision
nlohmann::ordered_json table_json(const Table&);

}  // namespace ccdrec
