// bench_growth: epoch time and peak memory as the data grow to the Electronics set's size, with exponents fitted on
// logarithms.
//
//   bench_growth                          all series and models that bench/results/growth.json does not hold yet;
//                                         writes growth.md, .json and .svg there; exit code 1 when something grows
//                                         faster than it may
//   bench_growth --fresh                  measures all of them anew
//   bench_growth --prepare                only generates the data and the neighbour lists
//   bench_growth --point JSON             one point in this process, so that peak memory is its own (what the first
//                                         form runs)
#include "bench/growth.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "bench/arguments.h"
#include "bench/command.h"
#include "bench/published.h"
#include "bench/work.h"
#include "data/error.h"
#include "data/safe_file.h"
#include "data/synth.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/files/config.h"
#include "host/files/run_folder.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"

namespace ccdrec::bench {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

const std::vector<std::string> kModels = {"BPR", "LightGCN", "FREEDOM", "CCDRec"};

struct Options {
  std::string cache = "build/bench-data", out = "bench/results/growth", point;
  std::vector<std::string> models = kModels, series;
  int threads = 0;
  int64_t steps = 200;
  bool fresh = false, prepare = false;
};

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Generated once; the name is taken last, so that an interrupted generation is not mistaken for a data set.
std::string data_folder(const Options& o, const Size& z) {
  const std::string name = fmt::format("u{}-i{}-e{}", z.users, z.items, z.interactions);
  const fs::path folder = fs::path(o.cache) / "growth" / name;
  if (!fs::exists(folder)) {
    std::cerr << "generating " << folder.string() << "\n";
    SynthParams p = synth_preset("elec");
    p.name = name, p.users = z.users, p.items = z.items, p.interactions = z.interactions;
    const fs::path partial = folder.string() + ".partial";
    fs::remove_all(partial);
    write_synth(partial.string(), p);
    fs::rename(partial, folder);
  }
  return folder.string();
}

Settings settings_of(const Options& o, const std::string& model, const Size& z) {
  Settings s;
  s.model = model, s.device = "cpu", s.threads = o.threads, s.graph_cache = o.cache + "/graphs";
  s.learning_rate = published(model).learning_rate;
  s.train_batch_size = int(z.batch);
  s.candidate_ratio = (double(z.candidates) + 0.5) / double(z.items);  // its floor is meant
  s.epochs = 5, s.save_best = s.save_last = false;
  return s;
}

// Seconds of an epoch by phase. The timed steps follow a flush and are followed by one, so that each row's missed Adam
// steps are those of the timed steps, no more and no less. Where an epoch has more steps than are timed, all that steps
// and flush cost is multiplied.
std::map<std::string, double> timed_epoch(Recommender& model, int epoch, int64_t timed) {
  auto& seconds = model.seconds();
  seconds.clear();
  model.begin_epoch(epoch);
  const double prune = seconds["prune"], shuffle = seconds["sample"];
  seconds.clear();
  for (int64_t k = 0; k < timed; ++k) model.step(epoch, k);
  const auto start = Clock::now();
  model.flush();
  const double owed = since(start), scale = double(model.steps_per_epoch()) / double(timed);
  std::map<std::string, double> out = {{"prune", prune},
                                       {"sample", shuffle + scale * seconds["sample"]},
                                       {"forward", scale * seconds["forward"]},
                                       {"backward", scale * seconds["backward"]},
                                       {"optimiser", scale * (seconds["optimiser"] + owed)}};
  seconds.clear();
  model.end_epoch(epoch);
  out["reverse"] = seconds["reverse"];
  for (const auto& [phase, s] : std::map(out)) out["epoch"] += s;
  return out;
}

Point measure(const Options& o, const std::string& name, const Size& z) {
  const std::string folder = data_folder(o, z);
  Settings s = settings_of(o, name, z);
  s.data_path = folder;
  LoadOptions load;
  load.need_features = uses_features(s);
  const Dataset data = load_dataset(folder, load);
  Point p;
  p.model = name, p.size = z;
  for (const auto& [phase, w] : epoch_work(s, data))
    if (phase != "evaluation") p.flop += w.flop, p.bytes += w.bytes, p.roots += w.roots;
  Trainer trainer(s, data);
  Recommender& model = trainer.model();
  p.steps = model.steps_per_epoch(), p.timed = std::min(o.steps, p.steps);
  // Rows without a gradient so far cost Adam nothing: three random negatives for each item on average leave 5 % of them
  // behind.
  const int64_t warm = std::min(p.steps, 3 * z.items / z.batch + 1);
  model.begin_epoch(0);
  for (int64_t k = 0; k < warm; ++k) model.step(0, k);
  model.end_epoch(0);
  const int repeats = p.timed == p.steps ? 3 : 1;
  std::vector<std::map<std::string, double>> runs;
  p.core_ns = core_to_core_ns(s.threads);
  for (int r = 1; r <= repeats; ++r) {
    runs.push_back(timed_epoch(model, r, p.timed));
    p.core_ns = std::max(p.core_ns, core_to_core_ns(s.threads));
  }
  std::sort(runs.begin(), runs.end(), [](auto& a, auto& b) { return a.at("epoch") < b.at("epoch"); });
  p.seconds = runs[runs.size() / 2];
  p.peak_mb = peak_memory_mb();
  return p;
}

// Runs this program again for one point and reads its JSON.
Point run_child(const Options& o, int threads, const std::string& model, const Size& z) {
  Point asked;
  asked.model = model, asked.size = z;
  const std::string command =
      fmt::format("'{}' --point '{}' --cache '{}' --threads {} --steps {}", fs::read_symlink("/proc/self/exe").string(),
                  to_json(asked).dump(), o.cache, threads, o.steps);
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw UserError("cannot start " + command);
  std::string text;
  char block[4096];
  for (size_t n; (n = fread(block, 1, sizeof block, pipe)) > 0;) text.append(block, n);
  if (pclose(pipe) != 0) throw UserError(model + " failed: " + command);
  return point_from_text(text, "what " + command + " printed");
}

// Data and neighbour lists of a point, which are not part of an epoch.
void prepare(const Options& o, const std::string& model, const Size& z) {
  Settings s = settings_of(o, model, z);
  s.data_path = data_folder(o, z);
  if (uses_features(s)) Trainer(s, load_dataset(s.data_path));
}

void write(const Options& o, const GrowthReport& r) {
  write_text(o.out + ".json", growth_json(r).dump(1) + "\n");
  write_text(o.out + ".md", growth_markdown(r));
  write_text(o.out + ".svg", growth_svg(r));
}

int run(int argc, char** argv) {
  Options o;
  std::vector<std::string> names;
  for (const Series& s : all_series()) names.push_back(s.name);
  o.series = names;
  Arguments app("Epoch time and memory as the data grow");
  app.add_list("--models", o.models, "which models", one_of(kModels));
  app.add_list("--series", o.series, "which series", one_of(names));
  app.add("--steps", o.steps, "time at most this many steps of an epoch", positive());
  app.add("--threads", o.threads, "0 = all cores, or those of the report that is continued", zero_or_more());
  app.add("--cache", o.cache, "where generated data sets and neighbour lists are kept");
  app.add("--out", o.out, "write OUT.md, OUT.json and OUT.svg");
  app.add("--fresh", o.fresh, "measure again what OUT.json holds");
  app.add("--prepare", o.prepare, "generate data and neighbour lists, measure nothing");
  app.add("--point", o.point, "one point, JSON in and out");
  if (const auto end = app.parse(argc, argv)) return *end;
  if (!o.point.empty()) {
    const Point asked = point_from_text(o.point, "--point");
    std::cout << to_json(measure(o, asked.model, asked.size)).dump() << "\n";
    return 0;
  }

  GrowthReport r, here;
  measured_here(here);
  if (!o.prepare && !o.fresh && fs::exists(o.out + ".json"))
    r = growth_from_text(read_text(o.out + ".json"), o.out + ".json");
  const bool begun = !r.points.empty();
  if (!begun) r.threads = threads_of(o.threads), measured_here(r);
  if (!o.prepare) SafeFile(o.out + ".json");  // refused now, not after the first point
  if (r.command.empty()) {                    // a later call adds to the points of the first, or shows them
    r.command = "build/bench_growth";
    for (int i = 1; i < argc; ++i) r.command += " " + std::string(argv[i]);
  }
  if (!o.prepare && r.ceilings.memory_gbs == 0) {
    r.ceilings = measure_ceilings(r.threads);
    for (const Size& z : sizes_of_first_series()) r.row_ns.push_back(random_row_ns(r.threads, z.users + z.items));
  }
  for (const std::string& model : o.models) {
    for (const Series& s : all_series()) {
      if (std::find(o.series.begin(), o.series.end(), s.name) == o.series.end()) continue;
      for (const int scale : s.scales) {
        const Size z = size_of(s, model, scale);
        if (o.prepare) {
          prepare(o, model, z);
          continue;
        }
        if (r.find(model, z)) continue;
        if (const std::string other = begun ? stranger(r, here, o.threads) : ""; !other.empty())
          throw UserError(fmt::format(
              "{}.json was measured {}: points of both do not belong together; choose another --out, or --fresh", o.out,
              other));
        r.points.push_back(run_child(o, r.threads, model, z));
        const Point& p = r.points.back();
        std::cerr << fmt::format("{}, {} x{}: {:.2f} s, {:.0f} MB\n", model, s.name, scale, p.seconds.at("epoch"),
                                 p.peak_mb);
        write(o, r);  // after every point: what is measured stays, whatever happens next
      }
    }
  }
  if (o.prepare) return 0;
  write(o, r);
  std::cout << growth_markdown(r);
  const std::vector<std::string> steep = too_steep(r);
  for (const std::string& sentence : steep) std::cerr << "growth: " << sentence << "\n";
  return steep.empty() ? 0 : 1;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_growth", ccdrec::bench::run, argc, argv); }
