#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/growth.h"
#include "bench/published.h"
#include "bench/work.h"
#include "data/error.h"
#include "data/synth.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/systems/registry.h"

namespace ccdrec::bench {
namespace {

const char* const kPhases[] = {"prune", "sample", "forward", "backward", "optimiser", "reverse", "epoch"};
const char* const kModels[] = {"BPR", "LightGCN", "FREEDOM", "CCDRec"};
const char* const kColours[] = {"#7a7a7a", "#2a7f3f", "#1f5fbf", "#c0392b"};

// Slope of log y against log x by least squares; 0 where there are no two points.
double exponent(const std::vector<double>& x, const std::vector<double>& y) {
  const double n = double(x.size());
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (size_t k = 0; k < x.size(); ++k) {
    const double lx = std::log(x[k]), ly = std::log(y[k]);
    sx += lx, sy += ly, sxx += lx * lx, sxy += lx * ly;
  }
  const double spread = n * sxx - sx * sx;
  return x.size() < 2 || spread <= 0 ? 0 : (n * sxy - sx * sy) / spread;
}

// One model's points in one series; only complete ones are shown and judged.
struct Run {
  std::string model;
  std::vector<const Point*> points;
  std::vector<double> x, seconds, peak;
  std::vector<double> in_turn, largest;  // seconds of the counted work
  bool complete = false;
};

Run run_of(const GrowthReport& r, const Series& s, const std::string& model) {
  Run run;
  run.model = model;
  for (const int scale : s.scales) {
    const Point* p = r.find(model, size_of(s, model, scale));
    if (!p) continue;
    run.points.push_back(p);
    run.x.push_back(double(s.axis == "items" ? p->size.items : p->size.interactions));
    const WorkSeconds work = seconds_of({p->flop, p->bytes, p->roots}, r.ceilings);
    run.seconds.push_back(p->seconds.at("epoch")), run.peak.push_back(p->peak_mb);
    run.in_turn.push_back(work.in_turn()), run.largest.push_back(work.largest());
  }
  run.complete = run.points.size() == s.scales.size();
  return run;
}

std::vector<Run> runs_of(const GrowthReport& r, const Series& s) {
  std::vector<Run> runs;
  for (const char* model : kModels)
    if (Run run = run_of(r, s, model); run.complete) runs.push_back(std::move(run));
  return runs;
}

double random_rows_exponent(const GrowthReport& r) {
  std::vector<double> x, y;
  for (const Size& z : sizes_of_first_series())
    x.push_back(double(z.interactions)), y.push_back(x.back() * r.row_ns[y.size()]);
  return exponent(x, y);
}

// Of a run some of whose points met the cores apart and others together: those points took longer for it, and the
// exponents tell of that too.
std::string moved_cores(const Run& run) {
  const auto [least, most] = std::minmax_element(
      run.points.begin(), run.points.end(), [](const Point* a, const Point* b) { return a->core_ns < b->core_ns; });
  if (!((*least)->core_ns > 0 && (*most)->core_ns > 2 * (*least)->core_ns)) return "";
  std::string at;
  for (const Point* p : run.points) at += fmt::format("{}{:.0f}", at.empty() ? "" : ", ", p->core_ns);
  return fmt::format(
      "\n{}: a line of cache took {} ns from one core to the other at the four sizes. Where they lay apart an epoch "
      "takes longer for it, and the "
      "exponents tell of that too.\n",
      run.model, at);
}

std::string phase_exponent(const Run& run, const char* phase) {
  std::vector<double> y;
  for (const Point* p : run.points) y.push_back(p->seconds.at(phase));
  return *std::min_element(y.begin(), y.end()) >= 1e-3 ? fmt::format("{:.2f}", exponent(run.x, y)) : "";
}

}  // namespace

const std::vector<Series>& all_series() {
  static const std::vector<Series> all = {
      {"data", "users, items and interactions alike, the batch with them", "interactions", true, {1, 2, 4, 8}},
      {"fixed-batch", "users, items and interactions alike, batch as published", "interactions", false, {1, 2, 4, 8}},
      {"interactions", "users and interactions, 63,001 items, batch as published", "interactions", false, {1, 2, 4, 8}},
      {"items", "items, 1,689,188 interactions, batch as published", "items", false, {1, 2, 4, 8}}};
  return all;
}

Size size_of(const Series& s, const std::string& model, int scale) {
  const SynthParams full = synth_preset("elec");
  const int users = s.name == "items" ? 8 : scale, items = s.name == "interactions" ? 8 : scale;
  Size z{full.users * users / 8, full.items * items / 8, full.interactions * users / 8,
         published(model).train_batch_size, 0};
  if (outline_of(published(model)).searches) z.candidates = z.items / 10;
  if (s.linear) z.batch *= scale, z.candidates /= scale;
  return z;
}

std::vector<Size> sizes_of_first_series() {
  const Series& s = all_series().front();
  std::vector<Size> sizes;
  for (const int scale : s.scales) sizes.push_back(size_of(s, "BPR", scale));
  return sizes;
}

const Point* GrowthReport::find(const std::string& model, const Size& z) const {
  for (const Point& p : points)
    if (p.model == model && p.size == z) return &p;
  return nullptr;
}

nlohmann::json to_json(const Point& p) {
  nlohmann::json j = {{"model", p.model},
                      {"users", p.size.users},
                      {"items", p.size.items},
                      {"interactions", p.size.interactions},
                      {"batch", p.size.batch},
                      {"candidates", p.size.candidates},
                      {"steps", p.steps},
                      {"timed_steps", p.timed},
                      {"extrapolated", p.timed < p.steps},
                      {"seconds", p.seconds},
                      {"flop", p.flop},
                      {"bytes", p.bytes},
                      {"roots", p.roots},
                      {"peak_mb", p.peak_mb}};
  if (p.core_ns > 0) j["core_to_core_ns"] = p.core_ns;
  return j;
}

Point point_from_json(const nlohmann::json& j) {
  Point p;
  p.model = j.at("model");
  p.size = {j.at("users"), j.at("items"), j.at("interactions"), j.at("batch"), j.at("candidates")};
  p.steps = j.at("steps"), p.timed = j.at("timed_steps"), p.peak_mb = j.at("peak_mb");
  p.flop = j.at("flop"), p.bytes = j.at("bytes"), p.roots = j.at("roots");
  p.seconds = j.at("seconds").get<std::map<std::string, double>>();
  p.core_ns = j.value("core_to_core_ns", 0.0);
  return p;
}

void measured_here(GrowthReport& r) {
  const Machine m = this_machine();
  const Build b = this_build();
  r.machine = {
      {"cpu", m.cpu}, {"cores", m.cores}, {"isa", m.isa}, {"memory_bytes", m.memory_bytes}, {"threads", r.threads}};
  r.build = {{"version", b.version}, {"commit", b.commit}, {"compiler", b.compiler}, {"flags", b.flags}};
}

nlohmann::json growth_json(const GrowthReport& r) {
  nlohmann::json points = nlohmann::json::array();
  for (const Point& p : r.points) points.push_back(to_json(p));
  return {{"command", r.command},
          {"machine", r.machine},
          {"build", r.build},
          {"ceilings",
           {{"memory_gb_s", r.ceilings.memory_gbs},
            {"root_and_division_g_s", r.ceilings.root_grate},
            {"fma_gflop_s", r.ceilings.fma_gflops}}},
          {"random_row_ns", r.row_ns},
          {"points", points}};
}

GrowthReport growth_from_json(const nlohmann::json& j) {
  GrowthReport r;
  r.command = j.at("command"), r.machine = j.at("machine"), r.build = j.at("build"),
  r.threads = r.machine.at("threads");
  const auto& c = j.at("ceilings");
  r.ceilings.memory_gbs = c.at("memory_gb_s"), r.ceilings.root_grate = c.at("root_and_division_g_s"),
  r.ceilings.fma_gflops = c.at("fma_gflop_s");
  r.row_ns = j.value("random_row_ns", std::vector<double>());
  for (const auto& p : j.at("points")) r.points.push_back(point_from_json(p));
  return r;
}

namespace {

// What is wrong with a file that is no report is said once, without the names of C++.
template <class Read>
auto read_json(const std::string& text, const std::string& where, const char* what, Read&& read) {
  try {
    return read(nlohmann::json::parse(text));
  } catch (const nlohmann::json::parse_error& e) {
    throw UserError(fmt::format("{}: is no JSON (ends or goes wrong at byte {}), expected a {}", where, e.byte, what));
  } catch (const nlohmann::json::exception& e) {
    const std::string why = e.what();  // "[json.exception.out_of_range.403] key 'x' not found"
    throw UserError(
        fmt::format("{}: {}, expected a {}", where, why.substr(std::min(why.size(), why.find("] ") + 2)), what));
  }
}

}  // namespace

GrowthReport growth_from_text(const std::string& text, const std::string& path) {
  return read_json(text, path, "report of bench_growth; --fresh measures anew, --out names another",
                   [](const nlohmann::json& j) {
                     GrowthReport r = growth_from_json(j);
                     growth_markdown(r);  // all that it needs is there
                     return r;
                   });
}
Point point_from_text(const std::string& text, const std::string& where) {
  return read_json(text, where, "point of bench_growth", point_from_json);
}

std::string stranger(const GrowthReport& r, const GrowthReport& here, int threads) {
  const auto differ = [](const std::string& what, const nlohmann::json& was, const nlohmann::json& is) {
    const std::string a = was.is_string() ? was.get<std::string>() : "unknown", b = is.get<std::string>();
    return a == b ? "" : fmt::format("with {} {}, and this is {}", what, a, b);
  };
  if (const std::string s = differ("the processor", r.machine.value("cpu", nlohmann::json()), here.machine.at("cpu"));
      !s.empty())
    return s;
  for (const char* key : {"commit", "compiler", "flags"})
    if (const std::string s = differ(key, r.build.value(key, nlohmann::json()), here.build.at(key)); !s.empty())
      return s;
  return threads == 0 || threads == r.threads ? ""
                                              : fmt::format("with {} threads, and these are {}", r.threads, threads);
}

std::vector<std::string> too_steep(const GrowthReport& r) {
  std::vector<std::string> steep;
  const auto judge = [&](const Series& s, const Run& run, const char* what, double got, double limit) {
    if (!(got <= limit))
      steep.push_back(fmt::format("{}, {}: {} grows with exponent {:.2f} in {}, at most {:.2f} is let through",
                                  run.model, s.title, what, got, s.axis, limit));
  };
  for (const Series& s : all_series()) {
    for (const Run& run : runs_of(r, s)) {
      judge(s, run, "memory", exponent(run.x, run.peak), kMostExponent);
      judge(s, run, "time", exponent(run.x, run.seconds),
            s.linear ? kMostExponent : std::max(1.0, exponent(run.x, run.in_turn)) + 0.05);
    }
  }
  return steep;
}

std::string growth_markdown(const GrowthReport& r) {
  const auto text = [](const nlohmann::json& of, const char* key) { return of.at(key).get<std::string>(); };
  std::string s =
      fmt::format("# Growth: epoch time and memory up to the Electronics set's size\n\n    {}\n\n", r.command);
  s += fmt::format("Machine: {}, {} cores, {} threads used, {}, {}. Build: {} {}, {}.\n\n", text(r.machine, "cpu"),
                   r.machine.at("cores").get<int>(), r.threads, text(r.machine, "isa"),
                   describe_bytes(r.machine.at("memory_bytes").get<size_t>()), text(r.build, "version"),
                   text(r.build, "commit"), text(r.build, "compiler"));
  s += "![epoch time and memory](growth.svg)\n\n";
  s += fmt::format(
      "Generated data with features 4,096 and 384 wide. Exponents are slopes on logarithms by least squares over the "
      "four sizes. `in turn` is what "
      "the operations, bytes and roots counted in `bench/work.cpp` take by what this machine was measured to do "
      "({:.1f} GB/s, {:.0f} GFLOP/s, {:.2f} "
      "G/s roots with divisions), one after another: a model, not a bound; `largest` is the longest of the three "
      "alone. An epoch is training and the "
      "reverse process, without the evaluation.\n\n",
      r.ceilings.memory_gbs, r.ceilings.fma_gflops, r.ceilings.root_grate);
  s += fmt::format(
      "In the first series the batch grows with the data (the number of steps stays) and CCDRec's candidate set does "
      "not grow: all that a model asks "
      "for is then proportional to the interactions, and time and memory must be (exponent at most {:g}). With the "
      "published batch a model itself "
      "asks for more than that: an epoch has more steps, and at each of them exact Adam moves every element, the "
      "propagation reaches more of a "
      "larger "
      "graph, and 0.1 I candidates are compared. There the exponent may be at most 0.05 over that of the counted work "
      "in turn.\n",
      kMostExponent);
  const bool knows_rows = r.row_ns.size() == all_series().front().scales.size();
  if (knows_rows)
    s += fmt::format(
        "\nWhat no program escapes here: a row of 256 bytes at a random address takes a thread {:.1f} ns out of tables "
        "as large as those of the four "
        "sizes, caches being smaller than the tables (`bench/random_rows.h`, rows added up and nothing else). One such "
        "row an interaction would grow "
        "as the line `random rows alone` says, and the models whose epochs are such rows, BPR, LightGCN and FREEDOM, "
        "with it.\n",
        fmt::join(r.row_ns, ", "));
  const std::vector<std::string> steep = too_steep(r);
  if (!steep.empty()) s += "\n**Missed:**\n\n";
  for (const std::string& sentence : steep) s += "- " + sentence + "\n";
  for (const Series& series : all_series()) {
    const std::vector<Run> runs = runs_of(r, series);
    if (runs.empty()) continue;
    s += fmt::format(
        "\n## {}\n\nExponents in {}:\n\n| | time | in turn | memory | sample | forward | backward | optimiser | "
        "reverse |\n",
        series.title, series.axis);
    s += "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for (const Run& run : runs) {
      s += fmt::format("| {} | {:.2f} | {:.2f} | {:.2f} |", run.model, exponent(run.x, run.seconds),
                       exponent(run.x, run.in_turn), exponent(run.x, run.peak));
      for (const char* phase : {"sample", "forward", "backward", "optimiser", "reverse"})
        s += " " + phase_exponent(run, phase) + " |";
      s += "\n";
    }
    if (series.linear && knows_rows)
      s += fmt::format("| random rows alone | {:.2f} | | | | | | | |\n", random_rows_exponent(r));
    for (const Run& run : runs) s += moved_cores(run);
    s += "\n| | users | items | interactions | batch | epoch, s | in turn, s | largest, s | sample | forward | "
         "backward | optimiser | reverse | peak "
         "MB | timed |\n";
    s += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n";
    for (const Run& run : runs) {
      for (size_t k = 0; k < run.points.size(); ++k) {
        const Point& p = *run.points[k];
        s += fmt::format("| {} | {} | {} | {} | {} | {:.2f} | {:.2f} | {:.2f} |", run.model, thousands(p.size.users),
                         thousands(p.size.items), thousands(p.size.interactions), thousands(p.size.batch),
                         p.seconds.at("epoch"), run.in_turn[k], run.largest[k]);
        for (const char* phase : {"sample", "forward", "backward", "optimiser", "reverse"})
          s += fmt::format(" {:.2f} |", p.seconds.at(phase));
        s +=
            fmt::format(" {:.0f} | {} |\n", p.peak_mb,
                        p.timed < p.steps ? fmt::format("{} of {} steps, **extrapolated**", p.timed, thousands(p.steps))
                                          : fmt::format("3 epochs of {} steps", p.steps));
      }
    }
  }
  return s;
}

namespace {

// A panel with logarithmic axes.
struct Panel {
  double left, top, width = 250, height = 230;
  double x0, x1, y0, y1;  // logarithms
  double px(double x) const { return left + width * (std::log10(x) - x0) / (x1 - x0); }
  double py(double y) const { return top + height * (1 - (std::log10(y) - y0) / (y1 - y0)); }
};

std::string text(double x, double y, const std::string& what, const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, more, what);
}

std::string short_number(double x) {
  return x >= 1e6   ? fmt::format("{:.2g} M", x / 1e6)
         : x >= 1e3 ? fmt::format("{:.0f} k", x / 1e3)
                    : fmt::format("{:g}", x);
}

std::string draw_panel(const Panel& p, const std::vector<Run>& runs, bool memory) {
  std::string s = fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>\n",
                              p.left, p.top, p.width, p.height);
  for (double e = std::ceil(p.y0); e <= p.y1; ++e) {
    const double y = p.py(std::pow(10, e));
    s += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n", p.left,
                     p.left + p.width, y, y);
    s += text(p.left - 6, y + 4, fmt::format("{:g}", std::pow(10, e)), "text-anchor=\"end\"");
  }
  for (const double x : runs.front().x)
    s += text(p.px(x), p.top + p.height + 16, short_number(x), "text-anchor=\"middle\"");
  // The slope of proportionality, where the eye can compare it.
  const double from = runs.front().x.front(), to = runs.front().x.back(), low = std::pow(10, p.y0 + 0.12);
  s += fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>\n",
      p.px(from), p.py(low), p.px(to), p.py(low * to / from));
  double below = 0;  // labels from the top down, none over another
  std::vector<const Run*> sorted;
  for (const Run& run : runs) sorted.push_back(&run);
  const auto last = [&](const Run* run) { return memory ? run->peak.back() : run->seconds.back(); };
  std::sort(sorted.begin(), sorted.end(), [&](const Run* a, const Run* b) { return last(a) > last(b); });
  for (const Run* run : sorted) {
    const size_t colour = size_t(std::find(std::begin(kModels), std::end(kModels), run->model) - std::begin(kModels));
    const std::vector<double>& y = memory ? run->peak : run->seconds;
    std::string points;
    for (size_t k = 0; k < y.size(); ++k) {
      points += fmt::format("{:.1f},{:.1f} ", p.px(run->x[k]), p.py(y[k]));
      const bool whole = memory || run->points[k]->timed == run->points[k]->steps;
      s += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" stroke=\"{}\" fill=\"{}\"/>\n", p.px(run->x[k]),
                       p.py(y[k]), kColours[colour], whole ? kColours[colour] : "white");
    }
    s += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", points,
                     kColours[colour]);
    const double at = std::max(p.py(y.back()) + 4, below + 13);
    below = at;
    s += text(p.left + p.width + 6, at, fmt::format("{} {:.2f}", run->model, exponent(run->x, y)),
              fmt::format("fill=\"{}\"", kColours[colour]).c_str());
  }
  return s;
}

}  // namespace

std::string growth_svg(const GrowthReport& r) {
  std::string s;
  std::vector<std::pair<const Series*, std::vector<Run>>> columns;
  for (const Series& series : all_series()) {
    std::vector<Run> runs = runs_of(r, series);
    if (!runs.empty()) columns.push_back({&series, runs});
  }
  const double step = 395;
  s += fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"640\" viewBox=\"0 0 {0} 640\" "
      "font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      60 + step * double(std::max<size_t>(columns.size(), 1)));
  for (const bool memory : {false, true}) {
    double low = 1e30, high = 0;
    for (const auto& [series, runs] : columns) {
      for (const Run& run : runs) {
        for (const double y : memory ? run.peak : run.seconds) low = std::min(low, y), high = std::max(high, y);
      }
    }
    for (size_t k = 0; k < columns.size(); ++k) {
      const auto& [series, runs] = columns[k];
      Panel p{60 + step * double(k),  memory ? 350.0 : 50.0,  250, 230, 0, 0,
              std::log10(low) - 0.25, std::log10(high) + 0.15};
      p.x0 = std::log10(runs.front().x.front()) - 0.1, p.x1 = std::log10(runs.front().x.back()) + 0.1;
      s += draw_panel(p, runs, memory);
      const size_t comma = series->title.rfind(", ");
      if (!memory) {
        s += text(p.left, 20, series->title.substr(0, comma + 1), "font-weight=\"bold\"");
        s += text(p.left, 36, series->title.substr(comma + 2));
      }
      s += text(p.left + p.width, p.top + p.height + 34, series->axis, "text-anchor=\"end\"");
      s += text(p.left + 8, p.top + 16, memory ? "peak memory, MB" : "seconds an epoch");
    }
  }
  s += text(60, 632, "Numbers: fitted exponents. Dashed: proportional. Hollow: extrapolated from timed steps.");
  return s + "</svg>\n";
}

}  // namespace ccdrec::bench
