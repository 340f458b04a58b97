#include "host/cli/print_arrays.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "data/error.h"
#include "host/files/config.h"

namespace ccdrec::cli {
namespace {

using Shape64 = std::vector<int64_t>;

template <class T>
std::vector<double> wide(const TensorData& t) {
  std::vector<T> v(t.bytes.size() / sizeof(T));
  if (!v.empty()) std::memcpy(v.data(), t.bytes.data(), v.size() * sizeof(T));
  return {v.begin(), v.end()};
}

bool is_integer(const TensorData& t) { return t.dtype == "I32" || t.dtype == "I64"; }

std::vector<double> values_of(const std::string& name, const TensorData& t) {
  if (t.dtype == "F32") return wide<float>(t);
  if (t.dtype == "F64") return wide<double>(t);
  if (t.dtype == "I32") return wide<int32_t>(t);
  if (t.dtype == "I64") return wide<int64_t>(t);
  throw UserError(
      fmt::format("array '{}' has type {}, which is not printed (F32, F64, I32 and I64 are)", name, t.dtype));
}

// How the numbers of one array are written.
struct Form {
  bool integer = false, exponent = false;
  int decimals = 0;

  Form(const TensorData& t, const std::vector<double>& v) : integer(is_integer(t)) {
    double largest = 0;
    for (const double x : v)
      if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
    exponent = largest != 0 && (largest < 1e-2 || largest >= 1e6);
    decimals = largest == 0 ? 0 : std::max(0, 4 - int(std::floor(std::log10(largest))));
  }
  std::string operator()(double x) const {
    if (integer) return fmt::format("{}", int64_t(x));
    if (x == 0) return "0";
    return exponent ? fmt::format("{:.4e}", x) : fmt::format("{:.{}f}", x, decimals);
  }
};

// Lines of cells, each column as wide as its widest cell.
std::string aligned(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> width;
  for (const auto& line : lines)
    for (size_t c = 0; c < line.size(); ++c) {
      if (c >= width.size()) width.push_back(0);
      width[c] = std::max(width[c], line[c].size());
    }
  std::string out;
  for (const auto& line : lines) {
    for (size_t c = 0; c < line.size(); ++c) out += fmt::format("  {:>{}}", line[c], width[c]);
    out += '\n';
  }
  return out;
}

RowRange within(const std::string& name, const std::optional<RowRange>& asked, int64_t n) {
  const RowRange r{asked ? asked->first : 0, asked && asked->last >= 0 ? asked->last : n};
  if (r.first >= r.last && n > 0) throw UserError(fmt::format("--rows {}:{} holds no row", r.first, r.last));
  if (r.last > n)
    throw UserError(fmt::format("--rows asks for row {} of '{}', which has {} (0 to {})", r.last - 1, name, n, n - 1));
  return r;
}

std::string print_dense(const std::string& name, const TensorData& t, const std::optional<RowRange>& asked) {
  const std::vector<double> v = values_of(name, t);
  const Form form(t, v);
  const Shape64& shape = t.shape;
  if (shape.empty() || (shape.size() == 1 && shape[0] == 1)) return fmt::format("{}  {}\n", name, form(v.at(0)));
  const RowRange rows = within(name, asked, shape[0]);
  std::string out = fmt::format("{} ({})\n", name, fmt::join(shape, ","));
  std::vector<std::vector<std::string>> lines;
  if (shape.size() == 1) {
    lines.emplace_back();
    for (int64_t k = rows.first; k < rows.last; ++k) lines[0].push_back(form(v[size_t(k)]));
    return out + aligned(lines);
  }
  const int64_t cols = shape.back(), all = cols ? int64_t(v.size()) / cols : 0, each = shape[0] ? all / shape[0] : 0;
  for (int64_t r = rows.first * each; r < rows.last * each; ++r) {
    std::string index;  // of all dimensions but the last
    for (int64_t k = int64_t(shape.size()) - 2, rest = r; k >= 0; --k) {
      index = fmt::format("{}{}{}", rest % shape[size_t(k)], index.empty() ? "" : ",", index);
      rest /= shape[size_t(k)];
    }
    lines.push_back({index});
    for (int64_t c = 0; c < cols; ++c) lines.back().push_back(form(v[size_t(r * cols + c)]));
  }
  return out + aligned(lines);
}

std::string print_sparse(const std::string& name, const TensorData& index, const TensorData& value,
                         const std::optional<RowRange>& asked) {
  const std::vector<double> at = values_of(name + ".index", index), v = values_of(name + ".value", value);
  if (index.shape != Shape64{2, int64_t(v.size())})
    throw UserError(fmt::format("'{0}.index' and '{0}.value' do not belong together", name));
  const Form form(value, v);
  std::vector<size_t> order(v.size());
  for (size_t e = 0; e < order.size(); ++e) order[e] = e;
  const auto cell = [&](size_t e) { return std::pair(at[e], at[order.size() + e]); };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cell(a) < cell(b); });
  const int64_t n = v.empty() ? 0 : int64_t(cell(order.back()).first) + 1;
  const RowRange rows = within(name, asked, n);
  std::vector<std::vector<std::string>> lines;
  int64_t last = -1;
  for (const size_t e : order) {
    const int64_t row = int64_t(cell(e).first);
    if (row < rows.first || row >= rows.last) continue;
    if (row != last) lines.push_back({fmt::format("{}:", row)});
    lines.back().push_back(fmt::format("{} {}", int64_t(cell(e).second), form(v[e])));
    last = row;
  }
  return fmt::format("{}, {} entries, row: column value\n", name, v.size()) + aligned(lines);
}

}  // namespace

RowRange parse_rows(const std::string& text) {
  const auto number = [&](std::string_view part) {
    int64_t x = -1;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), x);
    if (error != std::errc() || end != part.data() + part.size() || x < 0)
      throw UserError(
          fmt::format("--rows {}: expected FIRST:END such as 0:3 (rows 0, 1, 2), or one row such as 5", text));
    return x;
  };
  const std::string_view all = text;
  const size_t colon = all.find(':');
  if (colon == all.npos) return {number(all), number(all) + 1};
  return {number(all.substr(0, colon)), colon + 1 == all.size() ? -1 : number(all.substr(colon + 1))};
}

std::string print_array(const std::string& name, const std::vector<const TensorFile*>& files,
                        const std::optional<RowRange>& rows) {
  std::vector<std::string> known;
  for (const TensorFile* file : files) {
    const auto& tensors = file->tensors;
    if (const auto it = tensors.find(name); it != tensors.end()) return print_dense(name, it->second, rows);
    const auto index = tensors.find(name + ".index"), value = tensors.find(name + ".value");
    if (index != tensors.end() && value != tensors.end()) return print_sparse(name, index->second, value->second, rows);
    for (const auto& [other, t] : tensors) known.push_back(other);
  }
  const std::string near = nearest(name, known);
  throw UserError(
      fmt::format("--print {}: neither the case nor the result has such an array{} (docs/step-format.md lists them)",
                  name, near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

}  // namespace ccdrec::cli
