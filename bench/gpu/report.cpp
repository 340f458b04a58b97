#include "bench/gpu/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace ccdrec::bench {

Line& Line::at_least(const std::string& against, double got, double target, double stretch) {
  goals.push_back({Goal::share, against, got, target, stretch});
  return *this;
}
Line& Line::within_seconds(double target, double stretch) {
  goals.push_back({Goal::seconds, "the clock (set for an H200)", warm, target, stretch});
  return *this;
}
Line& Line::within_floors(const GpuCeilings& c, double target, double stretch) {
  goals.push_back({Goal::times, more > 0 ? "its floor, normals included" : "its floor", warm / floor_seconds(*this, c),
                   target, stretch});
  return *this;
}

double floor_seconds(const Line& l, const GpuCeilings& c) {
  return std::max(l.bytes / (c.copy_gbs * 1e9), (l.flop + l.more) / (c.gemm_tflops * 1e12));
}

const char* verdict(const Goal& g) {
  // NaN meets nothing
  const auto met = [&](double bound) { return g.kind == Goal::share ? g.got >= bound : g.got <= bound; };
  if (g.target <= 0) return "";
  if (g.stretch > 0 && met(g.stretch)) return "stretch met";
  return met(g.target) ? "met" : "**missed**";
}

namespace {

std::string amount(Goal::Kind kind, double x) {
  return kind == Goal::share     ? fmt::format("{:.0f} %", 100 * x)
         : kind == Goal::seconds ? fmt::format("{:.3g} ms", 1e3 * x)
                                 : fmt::format("{:.1f} x", x);
}
std::string bound(const Goal& g, double x) {
  return x <= 0 ? "" : (g.kind == Goal::share ? "at least " : "at most ") + amount(g.kind, x);
}

}  // namespace

std::string gpu_report_json(const GpuReport& r) {
  static const char* const kinds[] = {"share", "seconds", "times"};
  nlohmann::json rows = nlohmann::json::array();
  for (const Line& l : r.lines) {
    nlohmann::json goals = nlohmann::json::array();
    for (const Goal& g : l.goals)
      goals.push_back({{"kind", kinds[g.kind]},
                       {"against", g.against},
                       {"got", g.got},
                       {"target", g.target},
                       {"stretch", g.stretch}});
    rows.push_back({{"op", l.op},
                    {"case", l.shape},
                    {"warm_us", 1e6 * l.warm},
                    {"min_us", 1e6 * l.least},
                    {"spread", l.spread},
                    {"cold_us", 1e6 * l.cold},
                    {"bytes", l.bytes},
                    {"flop", l.flop},
                    {"more_operations", l.more},
                    {"floor_us", 1e6 * floor_seconds(l, r.ceilings)},
                    {"goals", goals}});
  }
  const nlohmann::json all = {{"gpu", r.gpu},
                              {"scale", r.scale},
                              {"copy_gb_s", r.ceilings.copy_gbs},
                              {"gemm_tflop_s", r.ceilings.gemm_tflops},
                              {"skinny_tflop_s", r.ceilings.skinny_tflops},
                              {"operations", rows},
                              {"failures", r.failures}};
  return all.dump(1) + "\n";
}

std::string gpu_report_markdown(const GpuReport& r) {
  const GpuCeilings& c = r.ceilings;
  std::string s = fmt::format(
      "## Operations\n\n{}; measured here: copy {:.0f} GB/s (read + written), cuBLAS FP32 {:.1f} TFLOP/s on 4096^3, "
      "{:.1f} TFLOP/s on 2048 x 64 x "
      "100,000.\n\n",
      r.gpu, c.copy_gbs, c.gemm_tflops, c.skinny_tflops);
  if (r.scale < 1) s += fmt::format("**Sizes scaled by {}: a test of the bench, not a measurement.**\n\n", r.scale);
  s += "| operation | case | warm us | min us | spread | cold us | GB/s | of copy | TFLOP/s | of cuBLAS | times floor "
       "|\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const Line& l : r.lines) {
    const double gbs = l.bytes / l.warm * 1e-9, tf = l.flop / l.warm * 1e-12;
    s += fmt::format("| {} | {} | {:.1f} | {:.1f} | {:.0f} % | {:.1f} | {:.0f} | {:.0f} % | {} | {} | {:.1f} |\n", l.op,
                     l.shape, 1e6 * l.warm, 1e6 * l.least, 100 * l.spread, 1e6 * l.cold, gbs, 100 * gbs / c.copy_gbs,
                     l.flop > 0 ? fmt::format("{:.2f}", tf) : "",
                     l.flop > 0 ? fmt::format("{:.0f} %", 100 * tf / c.gemm_tflops) : "", l.warm / floor_seconds(l, c));
  }
  s += "\n| target | against | measured | target | stretch | |\n|---|---|---:|---:|---:|---|\n";
  for (const Line& l : r.lines)
    for (const Goal& g : l.goals)
      s += fmt::format("| {} {} | {} | {} | {} | {} | {} |\n", l.op, l.shape, g.against, amount(g.kind, g.got),
                       bound(g, g.target), bound(g, g.stretch), verdict(g));
  for (const std::string& f : r.failures) s += "\n**Failed:** " + f + "\n";
  return s;
}

}  // namespace ccdrec::bench
