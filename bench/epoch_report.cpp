#include "bench/epoch_report.h"

#include <fmt/format.h>

#include "bench/work.h"
#include "data/text.h"
#include "host/base/machine.h"

namespace ccdrec::bench {
namespace {

WorkSeconds seconds_of(const Timing& t, const Ceilings& c) {
  return bench::seconds_of(Work{t.flop, t.bytes, t.roots}, c);
}

const Timing* find(const std::vector<CaseResult>& cases, const std::string& name, const std::string& phase) {
  for (const CaseResult& c : cases) {
    for (const auto& [p, t] : c.phases) {
      if (c.name == name && p == phase) return &t;
    }
  }
  return nullptr;
}

std::vector<Target> cpu_targets(const std::vector<CaseResult>& cases) {
  std::vector<Target> all = {
      {"CCDRec epoch, B 512, T 20", "s", 10, 7, 0},        {"FREEDOM epoch, B 2048, reg 0", "s", 2, 0, 0},
      {"FREEDOM epoch, B 2048, reg > 0", "s", 5, 0, 0},    {"LightGCN epoch, B 2048, 2 layers", "s", 1.5, 0, 0},
      {"evaluation, validation and test", "s", 0.4, 0, 0}, {"reverse process", "s", 0.25, 0, 0},
      {"peak memory, all models", "MB", 900, 0, 0}};
  const char* const from[][2] = {{"CCDRec", "epoch"},   {"FREEDOM", "epoch"},     {"FREEDOM reg", "epoch"},
                                 {"LightGCN", "epoch"}, {"CCDRec", "evaluation"}, {"CCDRec", "reverse"}};
  for (size_t i = 0; i < std::size(from); ++i) {
    if (const Timing* t = find(cases, from[i][0], from[i][1])) all[i].got = t->median;
  }
  for (const CaseResult& c : cases) all.back().got = std::max(all.back().got, c.peak_mb);
  return all;
}

// What an epoch of replayed steps takes besides its steps is known from the direct epoch: both run it directly.
std::vector<Target> gpu_targets(const std::vector<CaseResult>& cases) {
  Target steps{"CCDRec training steps of an epoch, B 512, T 20: epoch less prune and reverse", "ms", 80, 60, 0};
  if (const Timing* epoch = find(cases, "CCDRec", "epoch")) {
    steps.got = 1e3 * epoch->median;
    for (const char* phase : {"prune", "reverse"})
      if (const Timing* t = find(cases, "CCDRec", phase)) steps.got -= 1e3 * t->median;
  }
  return {steps};
}

std::string targets_markdown(const std::vector<Target>& targets) {
  std::string s = "| | target | stretch | measured | |\n|---|---:|---:|---:|---|\n";
  for (const Target& t : targets) {
    const std::string got = t.got > 0 ? fmt::format("{:.3g} {}", t.got, t.unit) : "not measured";
    const char* verdict = t.got <= 0                            ? ""
                          : t.stretch > 0 && t.got <= t.stretch ? "stretch met"
                          : t.got <= t.target                   ? "met"
                                                                : "**missed**";
    s += fmt::format("| {} | {:g} {} | {} | {} | {} |\n", t.what, t.target, t.unit,
                     t.stretch > 0 ? fmt::format("{:g} {}", t.stretch, t.unit) : "", got, verdict);
  }
  return s;
}

}  // namespace

bool targets_apply(const std::string& preset, int64_t steps, const std::string& device, const std::string& precision) {
  return preset == "baby" && steps == 0 && (device == "cpu" || (device == "cuda" && precision == "fp32"));
}

std::vector<Target> targets(const Report& r) {
  if (!r.with_targets) return {};
  return r.gpu.empty() ? cpu_targets(r.cases) : gpu_targets(r.cases);
}

nlohmann::json to_json(const CaseResult& c) {
  nlohmann::json phases = nlohmann::json::array();
  for (const auto& [name, t] : c.phases) {
    phases.push_back({{"phase", name},
                      {"median_s", t.median},
                      {"min_s", t.min},
                      {"max_s", t.max},
                      {"flop", t.flop},
                      {"bytes", t.bytes},
                      {"roots", t.roots}});
  }
  return {{"name", c.name},
          {"setting", c.setting},
          {"steps", c.steps},
          {"epochs", c.epochs},
          {"timed_steps", c.timed_steps},
          {"step_median_ms", c.step_median_ms},
          {"peak_mb", c.peak_mb},
          {"setup_s", c.setup_seconds},
          {"knn_cached", c.knn_cached},
          {"negatives", c.negatives},
          {"extrapolated", c.timed_steps > 0},
          {"phases", phases}};
}

CaseResult case_from_json(const nlohmann::json& j) {
  CaseResult c;
  c.name = j.at("name"), c.setting = j.at("setting"), c.negatives = j.at("negatives");
  c.steps = j.at("steps"), c.epochs = j.at("epochs"), c.timed_steps = j.at("timed_steps");
  c.knn_cached = j.value("knn_cached", false);
  c.step_median_ms = j.at("step_median_ms"), c.peak_mb = j.at("peak_mb"), c.setup_seconds = j.at("setup_s");
  for (const auto& p : j.at("phases")) {
    c.phases.push_back(
        {p.at("phase"), {p.at("median_s"), p.at("min_s"), p.at("max_s"), p.at("flop"), p.at("bytes"), p.at("roots")}});
  }
  return c;
}

nlohmann::json report_json(const Report& r) {
  const Machine m = this_machine();
  const Build b = this_build();
  nlohmann::json cases = nlohmann::json::array(), goals = nlohmann::json::array();
  for (const CaseResult& c : r.cases) {
    cases.push_back(to_json(c));
    if (!r.gpu.empty()) continue;
    for (auto& p : cases.back()["phases"]) {
      const WorkSeconds work = seconds_of(Timing{0, 0, 0, p["flop"], p["bytes"], p["roots"]}, r.ceilings);
      p["in_turn_s"] = work.in_turn(), p["largest_s"] = work.largest();
    }
  }
  for (const Target& t : targets(r)) {
    if (t.got > 0)
      goals.push_back(
          {{"what", t.what}, {"unit", t.unit}, {"target", t.target}, {"measured", t.got}, {"met", t.got <= t.target}});
  }
  return {{"command", r.command},
          {"data", r.data},
          {"gpu", r.gpu},
          {"precision", r.precision},
          {"machine",
           {{"cpu", m.cpu},
            {"cores", m.cores},
            {"isa", m.isa},
            {"os", m.os},
            {"memory_bytes", m.memory_bytes},
            {"threads", r.threads},
            {"load", r.load}}},
          {"build", {{"version", b.version}, {"commit", b.commit}, {"compiler", b.compiler}, {"flags", b.flags}}},
          {"ceilings",
           {{"memory_gb_s", r.ceilings.memory_gbs},
            {"root_and_division_g_s", r.ceilings.root_grate},
            {"fma_gflop_s", r.ceilings.fma_gflops},
            {"gemm_gflop_s", r.ceilings.gemm_gflops},
            {"gemm_projection_gflop_s", r.ceilings.gemm_proj_gflops}}},
          {"targets", goals},
          {"cases", cases}};
}

namespace {

// On a GPU: totals of replayed steps, phases of direct ones. The limits of its operations are in bench_gpu's table.
std::string gpu_markdown(const Report& r) {
  const Build b = this_build();
  std::string s = fmt::format("## Epochs: {}\n\n    {}\n\n{}, large products in {}. Build: {} {}.\n", r.data, r.command,
                              r.gpu, r.precision, b.version, b.commit);
  s += "`epoch` is the median of whole epochs of recorded and replayed steps; the phases are of one more epoch whose "
       "steps ran directly and waited "
       "at the end of each phase, so they "
       "add up to more.\n";
  if (r.with_targets) s += "\nTargets, set for an H200:\n\n" + targets_markdown(targets(r));
  for (const CaseResult& c : r.cases) {
    s +=
        fmt::format("\n### {} ({})\n\n{} epochs of {} steps. Set up in {:.2f} s. Arrays on the device {:.0f} MB.{}\n\n",
                    c.name, c.setting, c.epochs, thousands(c.steps), c.setup_seconds, c.peak_mb,
                    c.negatives.empty() ? "" : " Curricular negatives from: " + c.negatives + ".");
    s += "| phase | ms | min | max | GFLOP | GB |\n|---|---:|---:|---:|---:|---:|\n";
    for (const auto& [name, t] : c.phases)
      s += fmt::format("| {} | {:.2f} | {:.2f} | {:.2f} | {:.1f} | {:.2f} |\n", name, 1e3 * t.median, 1e3 * t.min,
                       1e3 * t.max, t.flop / 1e9, t.bytes / 1e9);
  }
  return s;
}

}  // namespace

std::string report_markdown(const Report& r) {
  if (!r.gpu.empty()) return gpu_markdown(r);
  const Machine m = this_machine();
  const Build b = this_build();
  std::string s = fmt::format("# Epochs on the CPU: {}\n\n    {}\n\n", r.data, r.command);
  s += fmt::format(
      "Machine: {}, {} cores, {} threads used, {}, {}, {}. Load average when it began: {:.1f} (others at work slow "
      "every number here).\n\n",
      m.cpu, m.cores, r.threads, m.isa, describe_bytes(m.memory_bytes), m.os, r.load);
  s += fmt::format("Build: {} {}, {}, `{}`.\n\n", b.version, b.commit, b.compiler, b.flags);
  s += "Measured ceilings, all threads, best of several runs:\n\n| | |\n|---|---|\n";
  s += fmt::format(
      "| memory, triad a = b + s c (16 bytes an element: a line is read before it is written) | {:.1f} GB/s |\n| fused "
      "multiply-add in registers | "
      "{:.0f} "
      "GFLOP/s |\n| a square root and a division in registers, as Adam takes | {:.2f} G/s |\n",
      r.ceilings.memory_gbs, r.ceilings.fma_gflops, r.ceilings.root_grate);
  s += fmt::format("| `cpu::gemm` 1024 x 1024 x 1024 | {:.0f} GFLOP/s ({:.0f} % of fma) |\n", r.ceilings.gemm_gflops,
                   100 * r.ceilings.gemm_gflops / r.ceilings.fma_gflops);
  s += fmt::format("| `cpu::gemm` 1024 x 4096 x 64, a projection | {:.0f} GFLOP/s ({:.0f} % of fma) |\n\n",
                   r.ceilings.gemm_proj_gflops, 100 * r.ceilings.gemm_proj_gflops / r.ceilings.fma_gflops);
  if (r.with_targets) s += "## Targets\n\n" + targets_markdown(targets(r)) + "\n";
  s += "## Phases\n\n`in turn` = flop / fma rate + bytes / memory bandwidth + Adam's roots / their rate, from the "
       "formulas of `bench/work.cpp`: one "
       "resource after another, a model and not a bound, since a core computes while it waits for memory and caches "
       "keep something from step to step. "
       "`largest` is the longest of the three alone. The optimiser's phase includes the steps that rows had missed.\n";
  for (const CaseResult& c : r.cases) {
    s += fmt::format("\n### {} ({})\n\n", c.name, c.setting);
    if (c.timed_steps > 0) {
      s += fmt::format(
          "**Extrapolated**: {} steps timed, median {:.2f} ms; an epoch has {} steps. Minimum and maximum are the 10th "
          "and 90th percentile of a "
          "step, times {}. The Adam steps that rows not read meanwhile still owed were taken and timed at the end, and "
          "are part of the optimiser's "
          "phase.\n",
          c.timed_steps, c.step_median_ms, thousands(c.steps), thousands(c.steps));
    } else {
      s += fmt::format("{} epochs of {} steps after one that is dropped; medians.\n", c.epochs, thousands(c.steps));
    }
    s += fmt::format("Set up in {:.2f} s (graphs, kNN{}, initialisation). Peak memory {:.0f} MB.{}\n\n",
                     c.setup_seconds, c.knn_cached ? " lists from the cache" : "", c.peak_mb,
                     c.negatives.empty() ? "" : " Curricular negatives from: " + c.negatives + ".");
    s += "| phase | seconds | min | max | in turn | times it | largest | GFLOP | GB | G roots "
         "|\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for (const auto& [name, t] : c.phases) {
      const WorkSeconds work = seconds_of(t, r.ceilings);
      const double in_turn = work.in_turn();
      s +=
          fmt::format("| {} | {:.3f} | {:.3f} | {:.3f} | {:.3f} | {} | {:.3f} | {:.1f} | {:.2f} | {:.2f} |\n", name,
                      t.median, t.min, t.max, in_turn, in_turn >= 1e-3 ? fmt::format("{:.1f}", t.median / in_turn) : "",
                      work.largest(), t.flop / 1e9, t.bytes / 1e9, t.roots / 1e9);
    }
  }
  return s;
}

}  // namespace ccdrec::bench
