#include "host/report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {
namespace {

struct FormatName {
  const char* name;
  TableFormat format;
};
constexpr FormatName kFormats[] = {{"text", TableFormat::text},
                                   {"markdown", TableFormat::markdown},
                                   {"latex", TableFormat::latex},
                                   {"csv", TableFormat::csv},
                                   {"json", TableFormat::json}};

bool absent(const Cell& c) { return std::isnan(c.value) && c.text == kAbsent; }

// UTF-8: continuation bytes take no column; escape sequences none either.
size_t columns_of(const std::string& s) {
  size_t n = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\x1b') {
      while (i < s.size() && s[i] != 'm') ++i;
      continue;
    }
    n += (static_cast<unsigned char>(s[i]) & 0xC0) != 0x80;
  }
  return n;
}

bool has_best(const ResultTable& t, size_t column) {
  return std::any_of(t.rows.begin(), t.rows.end(), [&](const auto& row) { return row[column].best; });
}

std::string text(const ResultTable& t, bool color) {
  std::vector<std::vector<std::string>> words(1);
  for (const std::string& column : t.columns) words[0].push_back(printable(column));
  bool stars = false;
  std::vector<bool> starred;
  for (size_t c = 0; c < t.columns.size(); ++c) starred.push_back(!color && has_best(t, c));
  for (const auto& row : t.rows) {
    std::vector<std::string>& out = words.emplace_back();
    for (size_t c = 0; c < row.size(); ++c) {
      std::string cell = printable(row[c].text);
      if (color && row[c].best) cell = "\x1b[1m" + cell + "\x1b[0m";
      if (starred[c] && !absent(row[c])) cell += row[c].best ? "*" : " ";  // digits stay in line
      stars |= starred[c];
      out.push_back(cell);
    }
  }
  std::string lines = format_table(words);
  if (!t.rules.empty()) {
    std::string ruled;
    size_t width = 0, row = 0;
    for (size_t at = 0, end; (end = lines.find('\n', at)) != std::string::npos; at = end + 1)
      width = std::max(width, columns_of(lines.substr(at, end - at)));
    for (size_t at = 0, end; (end = lines.find('\n', at)) != std::string::npos; at = end + 1, ++row) {
      if (row > 0 && std::find(t.rules.begin(), t.rules.end(), row - 1) != t.rules.end())
        ruled += std::string(width, '-') + '\n';
      ruled += lines.substr(at, end + 1 - at);
    }
    lines = ruled;
  }
  std::string out = printable(t.title);
  if (stars) out += out.empty() ? "* = best" : "; * = best";
  if (!out.empty()) out += '\n';
  out += lines;
  for (const std::string& note : t.notes) out += printable(note) + '\n';
  return out;
}

// `special` characters with a backslash before them.
std::string escaped(const std::string& s, const char* special) {
  std::string out;
  for (const char c : s) {
    if (std::string_view(special).find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string markdown(const ResultTable& t) {
  const auto words = [](const std::string& s) { return escaped(printable(s), "|*\\`<"); };
  std::string out = t.title.empty() ? "" : words(t.title) + "\n\n";
  for (const std::string& column : t.columns) out += "| " + words(column) + " ";
  out += "|\n";
  for (size_t c = 0; c < t.columns.size(); ++c) out += c == 0 ? "|---" : "|---:";
  out += "|\n";
  for (const auto& row : t.rows) {
    for (const Cell& cell : row) out += "| " + (cell.best ? "**" + words(cell.text) + "**" : words(cell.text)) + " ";
    out += "|\n";
  }
  for (const std::string& note : t.notes) out += "\n" + words(note) + "\n";
  return out;
}

std::string latex_words(const std::string& s) {
  struct Replaced {
    std::string_view from, to;
  };
  static constexpr Replaced kReplaced[] = {{"\\", "\\textbackslash{}"},
                                           {"&", "\\&"},
                                           {"%", "\\%"},
                                           {"$", "\\$"},
                                           {"#", "\\#"},
                                           {"_", "\\_"},
                                           {"{", "\\{"},
                                           {"}", "\\}"},
                                           {"<", "$<$"},
                                           {">", "$>$"},
                                           {"~", "\\textasciitilde{}"},
                                           {"±", "$\\pm$"},
                                           {"×", "$\\times$"},
                                           {"^", "\\textasciicircum{}"}};
  std::string out;
  for (size_t at = 0; at < s.size();) {
    const auto* const r = std::find_if(std::begin(kReplaced), std::end(kReplaced), [&](const Replaced& x) {
      return std::string_view(s).substr(at).starts_with(x.from);
    });
    if (r == std::end(kReplaced)) {
      out += s[at++];
    } else {
      out += r->to, at += r->from.size();
    }
  }
  return out;
}

std::string latex_cell(const Cell& cell) {
  std::string words = latex_words(printable(cell.text));
  if (!std::isnan(cell.value) && words.starts_with('-')) words = "$-$" + words.substr(1);  // a hyphen is no minus
  return cell.best ? "\\textbf{" + words + "}" : words;
}

std::string latex(const ResultTable& t) {
  std::string out = "% \\usepackage{booktabs}\n\\begin{table}\n\\centering\n";
  if (!t.title.empty()) out += "\\caption{" + latex_words(printable(t.title)) + "}\n";
  out += "\\begin{tabular}{l" + std::string(std::max<size_t>(t.columns.size(), 1) - 1, 'r') + "}\n\\toprule\n";
  const auto line = [&](const auto& cells, const auto& words) {
    for (size_t c = 0; c < cells.size(); ++c) out += (c == 0 ? "" : " & ") + words(cells[c]);
    out += " \\\\\n";
  };
  line(t.columns, [](const std::string& s) { return latex_words(printable(s)); });
  out += "\\midrule\n";
  for (size_t r = 0; r < t.rows.size(); ++r) {
    if (r > 0 && std::find(t.rules.begin(), t.rules.end(), r) != t.rules.end()) out += "\\midrule\n";
    line(t.rows[r], latex_cell);
  }
  out += "\\bottomrule\n\\end{tabular}\n";
  for (const std::string& note : t.notes) out += "\n{\\footnotesize " + latex_words(printable(note)) + "}\n";
  return out + "\\end{table}\n";
}

std::string csv_field(const std::string& s) {
  if (s.find_first_of(",\"\r\n") == std::string::npos) return s;
  std::string out = "\"";
  for (const char c : s) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

std::string csv(const ResultTable& t) {
  std::vector<bool> deviates(t.columns.size(), false);
  for (const auto& row : t.rows)
    for (size_t c = 0; c < row.size(); ++c) deviates[c] = deviates[c] || !std::isnan(row[c].deviation);
  const auto number = [](double x) { return std::isnan(x) ? "" : fmt::format("{}", x); };
  std::string out;
  const auto line = [&](const auto& cells, const auto& first, const auto& second) {
    for (size_t c = 0; c < cells.size(); ++c) {
      out += (c == 0 ? "" : ",") + csv_field(first(cells[c]));
      if (deviates[c]) out += "," + csv_field(second(cells[c]));
    }
    out += '\n';
  };
  line(
      t.columns, [](const std::string& s) { return s; }, [](const std::string& s) { return s + " sd"; });
  for (const auto& row : t.rows)
    line(
        row, [&](const Cell& c) { return absent(c)             ? ""
                                         : std::isnan(c.value) ? c.text
                                                               : number(c.value); },
        [&](const Cell& c) { return number(c.deviation); });
  return out;
}

}  // namespace

TableFormat table_format(const std::string& name) {
  for (const FormatName& f : kFormats)
    if (name == f.name) return f.format;
  throw UserError(fmt::format("a table has no format '{}', expected text, markdown, latex, csv or json", shown(name)));
}

std::vector<std::string> table_formats() {
  std::vector<std::string> names;
  for (const FormatName& f : kFormats) names.emplace_back(f.name);
  return names;
}

Cell Cell::number(double value, int digits, double deviation) {
  Cell c;
  if (std::isnan(value)) return c;
  const auto shown_as = [&](double x) {
    const std::string s = fmt::format("{:.{}f}", x, digits);
    return s.starts_with('-') && s.find_first_of("123456789") == std::string::npos ? s.substr(1) : s;  // no -0.0000
  };
  c.text = shown_as(value), c.value = value, c.deviation = deviation;
  if (!std::isnan(deviation)) c.text += " ± " + shown_as(deviation);
  return c;
}

Cell Cell::p_value(double p) {
  Cell c = number(p, 4);
  if (p < 0.001) c.text = p < 1e-99 ? "<1e-99" : fmt::format("{:.1e}", p);
  return c;
}

void mark_best(ResultTable& t, size_t column) {
  if (t.rows.size() < 2) return;
  double best = NAN;
  for (const auto& row : t.rows)
    if (!(row[column].value <= best) && !std::isnan(row[column].value)) best = row[column].value;
  for (auto& row : t.rows) row[column].best = row[column].value == best;
}

std::string render(const ResultTable& t, TableFormat format, bool color) {
  switch (format) {
    case TableFormat::text:
      return text(t, color);
    case TableFormat::markdown:
      return markdown(t);
    case TableFormat::latex:
      return latex(t);
    case TableFormat::csv:
      return csv(t);
    case TableFormat::json:
      break;
  }
  return table_json(t).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

nlohmann::ordered_json table_json(const ResultTable& t) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& row : t.rows) {
    nlohmann::ordered_json& out = rows.emplace_back(nlohmann::ordered_json::object());
    for (size_t c = 0; c < row.size(); ++c) {
      nlohmann::ordered_json& cell = out[t.columns[c]];
      if (absent(row[c])) continue;
      if (std::isnan(row[c].value)) {
        cell = row[c].text;
      } else {
        cell["value"] = row[c].value;
        if (!std::isnan(row[c].deviation)) cell["deviation"] = row[c].deviation;
      }
    }
  }
  return {{"title", t.title}, {"columns", t.columns}, {"rows", rows}, {"notes", t.notes}};
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) {
      if (c >= width.size()) width.push_back(0);
      width[c] = std::max(width[c], columns_of(row[c]));
    }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string pad(width[c] - columns_of(row[c]), ' ');
      line += (c ? "  " : "") + (c == 0 ? row[c] + pad : pad + row[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

}  // namespace ccdrec
