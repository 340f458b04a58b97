// bench_epoch: whole epochs of the four models beside what the machine allows.
//
//   bench_epoch --preset baby                    data of the Baby set's shape; every model in a process of its own, so
//                                                that peak memory is its own
//   bench_epoch --preset elec --steps 200        200 timed steps of CCDRec between a reverse process and an
//                                                extrapolation
//   bench_epoch --case CCDRec                    one model, its result as JSON on stdout (what the first form runs)
//   bench_epoch --preset baby --device cuda      on a GPU: whole epochs of replayed steps, then one epoch of direct
//                                                steps for the phases
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "bench/arguments.h"
#include "bench/command.h"
#include "bench/epoch_report.h"
#include "bench/published.h"
#include "bench/work.h"
#include "data/error.h"
#include "data/safe_file.h"
#include "data/synth.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/files/config.h"
#include "host/files/run_folder.h"
#include "host/systems/registry.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"

namespace ccdrec::bench {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string preset = "baby", cache = "build/bench-data", out, one, device = "cpu", precision = "fp32";
  std::vector<std::string> names;
  int epochs = 5, threads = 0;
  int64_t steps = 0;
};

// What an epoch is measured of: a model with its published learning rate and batch, and what else is set.
struct Case {
  std::string name, model;
  void (*set)(Settings&);
  int dropped = 1;  // epochs before those that are measured
};
const std::vector<Case> kCaseList = {
    {"BPR", "BPR", [](Settings&) {}},
    {"LightGCN", "LightGCN", [](Settings&) {}},
    {"MMGCN", "MMGCN", [](Settings&) {}},
    {"SLMRec", "SLMRec", [](Settings&) {}},
    {"BM3", "BM3", [](Settings&) {}},
    {"FREEDOM", "FREEDOM", [](Settings& s) { s.reg_weight = 0; }},
    {"FREEDOM reg", "FREEDOM", [](Settings& s) { s.reg_weight = 1e-3; }},
    {"FREEDOM+DNS", "FREEDOM", [](Settings& s) { s.reg_weight = 0, s.sampler = "dns", s.omega = 0.5; }},
    {"FREEDOM+MixGCF", "FREEDOM", [](Settings& s) { s.reg_weight = 0, s.sampler = "mixgcf", s.omega = 0.5; }},
    {"LATTICE", "LATTICE", [](Settings&) {}},
    {"LATTICE+DNS", "LATTICE", [](Settings& s) { s.sampler = "dns", s.omega = 0.5; }},
    // The curriculum's last stage: every row has a hard negative.
    {"FREEDOM+RealHNS", "FREEDOM",
     [](Settings& s) { s.reg_weight = 0, s.sampler = "realhns", s.omega = 0.5, s.realhns_start = 0; }, 15},
    {"MG", "FREEDOM", [](Settings& s) { s.reg_weight = 0, s.use_mg = true; }},
    {"MCDRec", "MCDRec", [](Settings&) {}},
    {"CCDRec", "CCDRec", [](Settings&) {}},
    {"CCDRec(LATTICE)", "CCDRec", [](Settings& s) { s.backbone = "LATTICE", s.reg_weight = 1e-5; }},
    {"CCDRec(MCDRec)", "CCDRec", [](Settings& s) { s.backbone = "MCDRec"; }},
    // The last stage of the curriculum, in which the pool is the model's own item matrix of the step: its step
    // propagates all items.
    {"CCDRec own pool", "CCDRec", [](Settings& s) { s.tau_end = 0; }},
};
const std::vector<std::string> kCases = [] {
  std::vector<std::string> names;
  for (const Case& c : kCaseList) names.push_back(c.name);
  return names;
}();

const Case& case_named(const std::string& name) {
  return *std::find_if(kCaseList.begin(), kCaseList.end(), [&](const Case& c) { return c.name == name; });
}

Settings case_settings(const std::string& name, std::string& setting) {
  const Case& chosen = case_named(name);
  Settings s;
  s.model = chosen.model;
  s.learning_rate = published(s.model).learning_rate, s.train_batch_size = published(s.model).train_batch_size;
  s.save_best = s.save_last = false;
  s.negative_stats = 0;  // an analysis, not the epoch
  chosen.set(s);
  setting = fmt::format("B {}", s.train_batch_size);
  const Outline o = outline_of(s);
  if (o.layers > 0 && o.item_layers == 0) setting += fmt::format(", {} layers", o.layers);
  if (o.item_layers > 0 && !o.diffusion) setting += fmt::format(", reg {:g}", s.reg_weight);
  if (o.bands)
    setting += fmt::format(", N {} at most, all rows", s.realhns_candidates);
  else if (o.chooses)
    setting += fmt::format(", N {}", s.n_candidates);
  if (s.use_mg) setting += fmt::format(", beta {}", s.beta);
  if (o.diffusion) {
    setting += fmt::format(", T {}", s.timesteps);
    if (s.tau_end == 0) setting += ", after tau_end";
  }
  return s;
}

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Timing timing(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  const size_t n = v.size();
  return {n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2, v.front(), v.back(), 0, 0, 0};
}

const char* const kPhases[] = {"prune", "sample", "forward", "backward", "optimiser", "reverse", "epoch", "evaluation"};

void add_phase(CaseResult& result, const std::string& name, Timing t, const std::map<std::string, Work>& work) {
  Work w;
  if (name == "epoch") {
    for (const auto& [phase, part] : work) {
      if (phase != "evaluation") w += part;
    }
  } else if (const auto it = work.find(name); it != work.end()) {
    w = it->second;
  }
  t.flop = w.flop, t.bytes = w.bytes, t.roots = w.roots;
  result.phases.push_back({name, t});
}

// On a GPU the phases of replayed steps are not known: one more epoch runs its steps directly and waits at the end of
// each phase.
void time_phases(Trainer& trainer, int epoch, CaseResult& result, const std::map<std::string, Work>& work) {
  Recommender& model = trainer.model();
  result.epochs_direct = 1;
  model.set_timed(true);
  model.seconds().clear();
  model.begin_epoch(epoch);
  for (int64_t k = 0; k < model.steps_per_epoch(); ++k) model.step(epoch, k);
  model.end_epoch(epoch);
  model.set_timed(false);
  for (const char* phase : kPhases) {
    if (const auto at = model.seconds().find(phase); at != model.seconds().end())
      add_phase(result, phase, {at->second, at->second, at->second, 0, 0, 0}, work);
  }
}

// Whole epochs, as `ccdrec train` runs them. The first is dropped: it touches memory for the first time and has no
// curricular negatives. More are where a curriculum goes on.
void run_epochs(const Options& o, Trainer& trainer, CaseResult& result, const std::map<std::string, Work>& work) {
  const int dropped = case_named(o.one).dropped;
  std::map<std::string, std::vector<double>> seconds;
  TrainHooks hooks;
  hooks.on_epoch = [&](const EpochReport& r) {
    std::cerr << fmt::format("{}: epoch {}: {:.2f} s, loss {:.4f}\n", result.name, r.epoch, r.seconds.at("train"),
                             r.loss);
    if (r.epoch < dropped || (o.device == "cuda" && r.epoch == dropped))
      return;  // a GPU has recorded its steps by then
    for (const auto& [phase, s] : r.seconds) seconds[phase == "train" ? "epoch" : phase].push_back(s);
    result.steps = r.steps, result.negatives = r.negatives;
  };
  int left = o.epochs + dropped + 1;
  if (o.device == "cuda") {
    const auto each = hooks.on_epoch;
    hooks.on_epoch = [&left, each](const EpochReport& r) { each(r), --left; };
    hooks.interrupted = [&left] { return left == 0; };
  }
  const TrainSummary summary = trainer.run(hooks);
  if (summary.reason != (o.device == "cuda" ? StopReason::interrupted : StopReason::max_epochs))
    throw UserError(result.name + " stopped: " + summary.message);
  result.epochs = o.epochs;
  if (o.device == "cuda") time_phases(trainer, o.epochs + dropped + 1, result, work);
  for (const char* phase : kPhases) {
    const bool known = o.device != "cuda" || phase == std::string("epoch") || phase == std::string("evaluation");
    if (known && seconds.count(phase)) add_phase(result, phase, timing(seconds[phase]), work);
  }
}

// A few warm-up steps and a reverse process, then `steps` timed steps of the next epoch, which has curricular
// negatives; the rest is multiplication.
void run_steps(const Options& o, Trainer& trainer, CaseResult& result, const std::map<std::string, Work>& work) {
  Recommender& model = trainer.model();
  result.steps = model.steps_per_epoch();
  result.timed_steps = std::min(o.steps, result.steps);
  model.begin_epoch(0);
  for (int64_t i = 0; i < std::min<int64_t>(10, result.steps); ++i) model.step(0, i);
  model.seconds().clear();
  model.end_epoch(0);
  const double reverse = model.seconds()["reverse"];
  model.seconds().clear();
  model.begin_epoch(1);
  const double prune = model.seconds()["prune"];
  model.seconds().clear();
  std::vector<double> step;
  for (int64_t i = 0; i < result.timed_steps; ++i) {
    const auto start = Clock::now();
    model.step(1, i);
    step.push_back(since(start));
    if (i % 20 == 19) std::cerr << fmt::format("{}: step {}: {:.1f} ms\n", result.name, i + 1, 1e3 * step.back());
  }
  // What rows not read in these steps still owe: an epoch pays it too, in steps or in its last flush, so it is scaled
  // with them.
  const auto flush_start = Clock::now();
  model.flush();
  const double owed = since(flush_start);
  result.negatives = model.model().negatives(1);
  const double n = double(result.steps), scale = n / double(result.timed_steps);
  const Timing t = timing(step);
  std::sort(step.begin(), step.end());
  const double p10 = step[step.size() / 10], p90 = step[step.size() * 9 / 10];
  result.step_median_ms = 1e3 * t.median;
  add_phase(result, "prune", {prune, prune, prune, 0, 0, 0}, work);
  // means: their sum is then the steps' mean
  for (const char* phase : {"sample", "forward", "backward", "optimiser"}) {
    const double s = model.seconds()[phase] * scale;
    add_phase(result, phase, {s, s, s, 0, 0, 0}, work);
  }
  add_phase(result, "reverse", {reverse, reverse, reverse, 0, 0, 0}, work);
  const double fixed = prune + reverse + owed * scale;
  add_phase(result, "epoch", {t.median * n + fixed, p10 * n + fixed, p90 * n + fixed, 0, 0, 0}, work);
}

CaseResult run_case(const Options& o, const std::string& folder) {
  CaseResult result;
  result.name = o.one;
  Settings s = case_settings(o.one, result.setting);
  s.data_path = folder, s.threads = o.threads, s.graph_cache = o.cache + "/graphs";
  s.device = o.device, s.precision = o.precision;
  // a GPU: dropped, recorded, .., measured by phases
  s.epochs = o.epochs + case_named(o.one).dropped + (o.device == "cuda" ? 2 : 0), s.stopping_step = s.epochs;
  LoadOptions load;
  load.need_features = uses_features(s);
  const Dataset data = load_dataset(folder, load);
  const std::map<std::string, Work> work = epoch_work(s, data);
  const auto start = Clock::now();
  Trainer trainer(s, data);
  result.setup_seconds = since(start);
  for (const std::string& note : trainer.notes())
    result.knn_cached |= note.find("(from the cache)") != std::string::npos;
  if (o.steps > 0)
    run_steps(o, trainer, result, work);
  else
    run_epochs(o, trainer, result, work);
  result.peak_mb = o.device == "cuda" ? double(trainer.device_bytes()) / 1e6 : peak_memory_mb();
  return result;
}

// Generated once; the name is taken last, so that an interrupted generation is not mistaken for a data set.
std::string data_folder(const Options& o) {
  const fs::path folder = fs::path(o.cache) / o.preset;
  if (!fs::exists(folder)) {
    const fs::path partial = folder.string() + ".partial";
    fs::remove_all(partial);
    SynthParams p = synth_preset(o.preset);
    p.name = o.preset;
    std::cerr << "generating " << folder.string() << "\n";
    write_synth(partial.string(), p);
    fs::rename(partial, folder);
  }
  return folder.string();
}

// Runs this program again for one case and reads its JSON.
CaseResult run_child(const Options& o, const std::string& name) {
  std::string command = fmt::format(
      "'{}' --case '{}' --preset '{}' --cache '{}' --epochs {} --steps {} --threads {} --device {} --precision {}",
      fs::read_symlink("/proc/self/exe").string(), name, o.preset, o.cache, o.epochs, o.steps, o.threads, o.device,
      o.precision);
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw UserError("cannot start " + command);
  std::string text;
  char block[4096];
  for (size_t n; (n = fread(block, 1, sizeof block, pipe)) > 0;) text.append(block, n);
  if (pclose(pipe) != 0) throw UserError(name + " failed: " + command);
  return case_from_json(nlohmann::json::parse(text));
}

int run(int argc, char** argv) {
  Options o;
  Arguments app("Whole epochs of the four models beside what the machine allows");
  app.add("--preset", o.preset, "shape of the generated data set");
  app.add("--epochs", o.epochs, "measured epochs, after one that is dropped", positive());
  app.add("--steps", o.steps, "time this many steps of CCDRec and extrapolate the epoch", zero_or_more());
  app.add_list("--models", o.names, "which cases: " + fmt::format("{}", fmt::join(kCases, ", ")), one_of(kCases));
  app.add("--case", o.one, "one case in this process, JSON on stdout", one_of(kCases));
  app.add("--cache", o.cache, "where generated data sets and neighbour lists are kept");
  app.add("--threads", o.threads, "0 = all cores", zero_or_more());
  app.add("--out", o.out, "write OUT.md and OUT.json");
  app.add("--device", o.device, "cpu or cuda", one_of({"cpu", "cuda"}));
  app.add("--precision", o.precision, "of a GPU's large products", one_of({"fp32", "tf32", "bf16"}));
  if (const auto end = app.parse(argc, argv)) return *end;

  const std::string folder = data_folder(o);
  if (!o.one.empty()) {
    std::cout << to_json(run_case(o, folder)).dump() << "\n";
    return 0;
  }
  if (!o.out.empty()) {  // refused now, not after the first case
    std::error_code error;
    if (const fs::path parent = fs::path(o.out).parent_path(); !parent.empty()) fs::create_directories(parent, error);
    SafeFile(o.out + ".json");
  }
  Report r;
  for (int i = 0; i < argc; ++i) r.command += (i ? " " : "") + (i ? std::string(argv[i]) : "build/bench_epoch");
  r.threads = threads_of(o.threads);
  r.load = load_average();
  r.with_targets = targets_apply(o.preset, o.steps, o.device, o.precision);
  if (o.device == "cuda") {
    check_device(o.device);
    r.gpu = gpu_info().name, r.precision = o.precision;
  } else {
    std::cerr << "measuring the machine\n";
    r.ceilings = measure_ceilings(r.threads);
  }
  if (o.names.empty()) o.names = o.steps > 0 ? std::vector<std::string>{"CCDRec"} : kCases;
  const SynthParams p = synth_preset(o.preset);
  r.data = fmt::format("{} ({} users, {} items, about {} interactions, generated)", o.preset, thousands(p.users),
                       thousands(p.items), thousands(p.interactions));
  std::string failures;
  for (const std::string& name : o.names) {
    try {
      r.cases.push_back(run_child(o, name));
    } catch (const std::exception& e) {  // the other cases are measured all the same
      failures += std::string(failures.empty() ? "" : "; ") + e.what();
      std::cerr << "bench_epoch: " << e.what() << "\n";
      continue;
    }
    if (o.out.empty()) continue;
    write_text(o.out + ".md", report_markdown(r));  // after every case: what is measured stays, whatever happens next
    write_text(o.out + ".json", report_json(r).dump(1) + "\n");
  }
  std::cout << report_markdown(r);
  if (!failures.empty()) throw UserError(failures);
  return 0;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_epoch", ccdrec::bench::run, argc, argv); }
