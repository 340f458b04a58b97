// What bench_growth measured, as data, as JSON, as a table and as a plot.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/ceilings.h"

namespace ccdrec::bench {

struct Size {
  int64_t users = 0, items = 0, interactions = 0, batch = 0, candidates = 0;  // candidates: CCDRec's set
  bool operator==(const Size&) const = default;
};
struct Point {
  std::string model;
  Size size;
  int64_t steps = 0, timed = 0;           // an epoch has; were timed (fewer: the epoch is extrapolated)
  std::map<std::string, double> seconds;  // by phase, "epoch" their sum
  double flop = 0, bytes = 0, roots = 0;  // of the epoch (work.h)
  double peak_mb = 0;
  double core_ns = 0;  // core_to_core_ns (ceilings.h) around the timed epochs, the most of them; 0 = not measured
};
struct Series {
  std::string name, title, axis;  // axis: "interactions" or "items", what the exponents are against
  bool linear = false;            // every model's work is proportional to the axis: the exponent is judged as it is
  std::vector<int> scales;        // eighths of the Electronics set's size
};
const std::vector<Series>& all_series();
Size size_of(const Series&, const std::string& model, int scale);
std::vector<Size> sizes_of_first_series();

struct GrowthReport {
  std::string command;
  nlohmann::json machine, build;  // where its points were measured, by what
  int threads = 0;
  Ceilings ceilings;
  // of random rows out of tables as large as those of the first series (random_rows.h), a scale each
  std::vector<double> row_ns;
  std::vector<Point> points;
  const Point* find(const std::string& model, const Size&) const;
};
void measured_here(GrowthReport&);  // this machine, this build
nlohmann::json growth_json(const GrowthReport&);
GrowthReport growth_from_json(const nlohmann::json&);
// UserError, which names `path`: no such report
GrowthReport growth_from_text(const std::string& text, const std::string& path);
Point point_from_text(const std::string& text, const std::string& where);
// Why points measured here and now, by `here`, do not belong into the report; "" where they do. threads: as asked for,
// 0 = as the report says.
std::string stranger(const GrowthReport&, const GrowthReport& here, int threads);
nlohmann::json to_json(const Point&);
Point point_from_json(const nlohmann::json&);

constexpr double kMostExponent = 1.05;
std::string growth_markdown(const GrowthReport&);
std::string growth_svg(const GrowthReport&);
std::vector<std::string> too_steep(const GrowthReport&);  // one sentence for each exponent over its limit

}  // namespace ccdrec::bench
