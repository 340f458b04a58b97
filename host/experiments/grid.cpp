#include "host/experiments/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <sstream>

#include "data/error.h"
#include "data/text.h"
#include "kernels/rng.h"

namespace ccdrec {
namespace {

// Parts between the commas that stand in no bracket.
std::vector<std::string> top_level(const std::string& text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += (c == '[') - (c == ']');
    if (c == ',' && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

bool parse_whole(const std::string& text, int64_t least, int64_t most, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= least && value <= most;
}

}  // namespace

GridAxis parse_axis(const std::string& text, const std::string& origin) {
  const size_t at = text.find('=');
  if (at == std::string::npos || at == 0)
    throw UserError(fmt::format("{} {}: expected key=a,b,c", origin, shown(text)));
  GridAxis axis{std::string(trimmed(text.substr(0, at))), {}};
  for (const std::string& part : top_level(text.substr(at + 1))) {
    const std::string value(trimmed(part));
    if (value.empty()) throw UserError(fmt::format("{} {}: a value is empty; expected key=a,b,c", origin, shown(text)));
    axis.values.push_back(value);
  }
  return axis;
}

std::vector<Point> points_of(const std::vector<GridAxis>& axes) {
  size_t count = 1;
  for (const GridAxis& axis : axes) {
    count *= axis.values.size();
    if (count > kMostPoints)
      throw UserError(
          fmt::format("the grid has more than {} points; leave values or keys away", thousands(int64_t(kMostPoints))));
  }
  std::vector<Point> points(count);
  for (size_t p = 0; p < count; ++p) {
    size_t rest = p;
    Point& point = points[p];
    for (size_t a = axes.size(); a-- > 0;) {  // the last axis varies fastest
      const GridAxis& axis = axes[a];
      point.push_back({axis.key, axis.values[rest % axis.values.size()], "--grid"});
      rest /= axis.values.size();
    }
    std::reverse(point.begin(), point.end());
  }
  return points;
}

std::vector<size_t> drawn(size_t count, size_t n, uint32_t seed) {
  std::vector<size_t> places(count);
  std::iota(places.begin(), places.end(), size_t(0));
  if (n >= count) return places;
  const auto key = [seed](size_t place) {
    const Draw4 d = draw({seed, Use::search}, uint32_t(place));
    return uint64_t(d.v[0]) << 32 | d.v[1];
  };
  std::stable_sort(places.begin(), places.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  places.resize(n);
  std::sort(places.begin(), places.end());
  return places;
}

Shard parse_shard(const std::string& text) {
  Shard s;
  const size_t at = text.find('/');
  if (at == std::string::npos || !parse_whole(text.substr(at + 1), 1, 1'000'000, s.of) ||
      !parse_whole(text.substr(0, at), 1, s.of, s.index))
    throw UserError(fmt::format("--shard {}: expected i/n, the i-th (from 1) of n parts, e.g. 2/8", shown(text)));
  return s;
}

std::vector<std::string> parse_seeds(const std::string& text) {
  std::vector<std::string> seeds;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    int64_t value = 0;
    const bool whole = parse_whole(std::string(trimmed(part)), 0, UINT32_MAX, value);
    const std::string item = std::to_string(value);  // 01 is 1
    if (!whole || std::find(seeds.begin(), seeds.end(), item) != seeds.end())
      throw UserError(
          fmt::format("--seeds {}: expected distinct whole numbers from 0 to {} separated by commas, e.g. "
                      "1,2,3",
                      shown(text), UINT32_MAX));
    seeds.push_back(item);
  }
  if (seeds.empty()) throw UserError("--seeds: expected whole numbers separated by commas, e.g. 1,2,3");
  return seeds;
}

std::string point_text(const Point& point) {
  std::string text;
  for (const KeyValue& v : point) text += fmt::format("{}{}={}", text.empty() ? "" : " ", v.key, v.value);
  return text;
}

}  // namespace ccdrec
