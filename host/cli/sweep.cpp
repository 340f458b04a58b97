// ccdrec sweep: a grid of settings over seeds, side by side, resumable; the winner by validation.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "data/path.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "host/base/progress.h"
#include "host/cli/cli.h"
#include "host/cli/interrupt.h"
#include "host/cli/memory.h"
#include "host/cli/planning.h"
#include "host/cli/run_options.h"
#include "host/experiments/grid.h"
#include "host/experiments/runner.h"
#include "host/files/run_folder.h"
#include "host/report/statistics.h"
#include "host/report/table.h"
#include "host/systems/keys.h"

namespace ccdrec::cli {
namespace {

struct SweepOptions : RunOptions, SideOptions {
  std::vector<std::string> grid;
  std::string seeds, out, shard, format = "text";
  int64_t trials = 0;
  bool halving = false, dry_run = false;
};

struct Trial {  // a point of the grid; its runs differ in the seed
  size_t number = 0;
  Point point;
  std::vector<PlannedRun> runs;
  int epochs = 0;    // halving: how far it was asked to come; 0: to its end
  bool here = true;  // of this shard
};

// --- the list

std::vector<GridAxis> axes_of(const SweepOptions& o, const Config& base, std::vector<std::string>& seeds) {
  std::vector<GridAxis> axes;
  std::set<std::string> given;
  std::vector<GridAxis> typed;
  for (const std::string& text : o.grid) {
    GridAxis axis = parse_axis(text, "--grid");
    axis.key = canonical(axis.key);
    if (axis.key == "model") throw UserError("--grid model: a sweep is of one model; sweep each by itself");
    if (axis.key == "seed") throw UserError("--grid seed: seeds are an axis of their own, --seeds 1,2,3");
    if (const ConfigKey* key = find_key(axis.key); key && key->resumable && axis.key != "epochs")
      throw UserError(fmt::format("--grid {}: no result depends on it; give it with --set", axis.key));
    if (!given.insert(axis.key).second) throw UserError(fmt::format("--grid: {} stands twice", shown(axis.key)));
    typed.push_back(std::move(axis));
  }
  for (const GridAxis& axis : base.grid) {
    if (axis.key == "seed") {
      if (o.seeds.empty()) seeds = parse_seeds(fmt::format("{}", fmt::join(axis.values, ",")));
    } else if (!given.count(axis.key)) {
      axes.push_back(axis);
    }
  }
  axes.insert(axes.end(), typed.begin(), typed.end());
  return axes;
}

std::vector<Trial> trials_of(const SweepOptions& o, const Asked& asked, const Config& base) {
  std::vector<std::string> seeds =
      o.seeds.empty() ? std::vector<std::string>{std::to_string(base.settings.seed)} : parse_seeds(o.seeds);
  const std::vector<Point> points = points_of(axes_of(o, base, seeds));
  std::vector<size_t> places =
      drawn(points.size(), o.trials ? size_t(o.trials) : points.size(), uint32_t(std::stoul(seeds[0])));
  std::vector<Trial> trials;
  for (const size_t place : places) {
    Trial t;
    t.number = trials.size(), t.point = points[place];
    for (const std::string& seed : seeds) t.runs.push_back(planned_run(asked, "", t.point, seed));
    trials.push_back(std::move(t));
  }
  return trials;
}

// Points that are the same run by other words, as a key without influence makes them: one of them stays.
void drop_repeated(std::vector<Trial>& trials, Io& io) {
  std::set<std::string> seen;
  std::erase_if(trials, [&](const Trial& t) {
    if (seen.insert(t.runs[0].key).second) return false;
    io.err << fmt::format(
        "note: {} repeats an earlier point of the grid (a key of it has no influence there); left out\n",
        point_text(t.point));
    return true;
  });
  for (size_t k = 0; k < trials.size(); ++k) trials[k].number = k;
}

// --- results

std::string status_of(const Standing& at) {
  switch (at.kind) {
    case Standing::absent:
      return "waiting";
    case Standing::begun:
      return "begun";
    case Standing::diverged:
      return "diverged";
    default:
      return at.summary.value("stopped", "over");
  }
}

// One line a run, in the order of the list, from the run folders alone: whoever writes it writes the same.
void write_lines(const std::string& path, const std::vector<Trial>& trials, const Runner& runner) {
  std::string text;
  for (const Trial& t : trials)
    for (const PlannedRun& run : t.runs) {
      const Standing at = runner.standing(run, t.epochs);
      if (at.kind == Standing::absent || at.kind == Standing::begun) continue;
      nlohmann::ordered_json j;
      j["trial"] = t.number;
      j["set"] = nlohmann::ordered_json::object();
      for (const KeyValue& v : t.point) j["set"][v.key] = v.value;
      j["seed"] = run.settings().seed;
      j["run"] = run.name;
      j["status"] = status_of(at);
      for (const char* key :
           {"message", "epochs_run", "best_epoch", "best_valid", "best_test", "train_seconds", "eval_seconds"})
        if (at.summary.contains(key)) j[key] = at.summary[key];
      text += j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    }
  write_text(path, text);
}

struct Result {  // of a trial, over its seeds
  const Trial* trial = nullptr;
  int seeds = 0, diverged = 0;
  std::map<std::string, std::vector<double>> valid, test;
  std::vector<double> epochs, seconds;
  double score = -1;  // mean validation metric; -1: a seed of it diverged, or is missing
};

Result result_of(const Trial& t, const Runner& runner, const std::string& metric) {
  Result r;
  r.trial = &t;
  for (const PlannedRun& run : t.runs) {
    const Standing at = runner.standing(run);
    r.diverged += at.kind == Standing::diverged;
    if (at.kind != Standing::over || !at.summary.contains("best_valid")) continue;
    ++r.seeds;
    const auto add = [&](const char* key, auto& to) {
      if (at.summary.contains(key) && at.summary[key].is_object())
        for (const auto& [name, value] : at.summary[key].items())
          if (value.is_number()) to[name].push_back(value.template get<double>());
    };
    add("best_valid", r.valid), add("best_test", r.test);
    r.epochs.push_back(at.summary.value("epochs_run", 0));
    r.seconds.push_back(at.summary.value("train_seconds", 0.0) + at.summary.value("eval_seconds", 0.0));
  }
  const auto it = r.valid.find(metric);
  if (r.seeds == int(t.runs.size()) && it != r.valid.end()) r.score = mean(it->second);
  return r;
}

std::string short_name(const std::string& metric) {  // recall@20 -> R@20
  return std::string(1, char(std::toupper(static_cast<unsigned char>(metric[0])))) + metric.substr(metric.find('@'));
}

Cell cell_of(const std::map<std::string, std::vector<double>>& values, const std::string& metric) {
  const auto it = values.find(metric);
  if (it == values.end()) return "-";
  return Cell::number(mean(it->second), 4, it->second.size() > 1 ? deviation(it->second) : NAN);
}

std::string test_text(const Result& r) {
  std::string text;
  for (const char* metric : {"recall@10", "recall@20", "ndcg@10", "ndcg@20"})
    if (const auto it = r.test.find(metric); it != r.test.end())
      text += fmt::format("{}{} {:.4f}", text.empty() ? "" : ", ", short_name(metric), mean(it->second));
  return text.empty() ? "no test rows" : "test " + text;
}

std::string name_of(const Trial& t) { return t.point.empty() ? "the settings given" : point_text(t.point); }

// The best first; those without a score last, in the order of the list.
ResultTable table_of(std::vector<Result>& results, const std::string& title, const Settings& s) {
  const std::string metric = metric_key(s.valid_metric);
  std::stable_sort(results.begin(), results.end(), [](const Result& a, const Result& b) { return a.score > b.score; });
  ResultTable table;
  table.title = title;
  table.columns = {"settings", "seeds", "validation " + short_name(metric)};
  std::vector<std::string> shown_metrics;
  for (const char* m : {"recall@10", "recall@20", "ndcg@10", "ndcg@20"})
    if (std::count(s.topk.begin(), s.topk.end(), metric_cutoff(m))) shown_metrics.push_back(m);
  for (const std::string& m : shown_metrics) table.columns.push_back("test " + short_name(m));
  for (const char* c : {"epochs", "seconds"}) table.columns.push_back(c);
  for (const Result& r : results) {
    std::vector<Cell> row = {name_of(*r.trial), std::to_string(r.seeds)};
    row.push_back(cell_of(r.valid, metric));
    row.back().best = r.score >= 0 && r.score == results[0].score && results.size() > 1;
    if (r.diverged) row.back() = fmt::format("{} diverged", r.diverged);
    for (const std::string& m : shown_metrics) row.push_back(cell_of(r.test, m));
    row.push_back(r.epochs.empty() ? Cell("-") : Cell::number(mean(r.epochs), 0));
    row.push_back(r.seconds.empty() ? Cell("-") : Cell::number(mean(r.seconds), 1));
    table.rows.push_back(std::move(row));
  }
  return table;
}

// --- the work

// Halving (eta 3): all trials to a ninth of the epochs, the best third of them to a third, of these the best third to
// the end. Runs continue, so nothing is trained twice.
bool bring_by_halving(std::vector<Trial>& trials, Runner& runner, const Settings& s, std::vector<Trial*>& left,
                      Io& io) {
  const std::string metric = metric_key(s.valid_metric);
  constexpr int kEta = 3, kRungs = 3;
  left.clear();
  for (Trial& t : trials) left.push_back(&t);
  for (int rung = 1, part = 9; rung <= kRungs; ++rung, part /= kEta) {
    // At an evaluation: one that a run makes only because it ends is forgotten when the run goes on.
    const int step = std::max(1, s.eval_step),
              epochs = std::min(s.epochs, ((s.epochs + part - 1) / part + step - 1) / step * step);
    std::vector<const PlannedRun*> runs;
    for (Trial* t : left) {
      t->epochs = epochs;
      for (const PlannedRun& run : t->runs) runs.push_back(&run);
    }
    io.err << fmt::format("rung {}: {} to {} epochs\n", rung,
                          left.size() == 1 ? "1 point" : fmt::format("{} points", left.size()), epochs);
    if (!runner.bring(runs, epochs)) return false;
    if (rung == kRungs) break;
    const auto score = [&](const Trial* t) {
      double sum = 0;
      for (const PlannedRun& run : t->runs) {
        const double best = runner.standing(run, epochs).kind == Standing::diverged
                                ? -1
                                : best_within(runner.folder_of(run), metric, epochs);
        if (best < 0) return -1.0;
        sum += best;
      }
      return sum / double(t->runs.size());
    };
    std::stable_sort(left.begin(), left.end(), [&](const Trial* a, const Trial* b) { return score(a) > score(b); });
    left.resize((left.size() + kEta - 1) / kEta);
    std::sort(left.begin(), left.end(), [](const Trial* a, const Trial* b) { return a->number < b->number; });
  }
  return true;
}

int finish(const SweepOptions& o, const std::vector<Trial>& trials, const std::vector<Trial*>& left, Runner& runner,
           const std::string& out, const std::string& set, Io& io) {
  const Settings& s = trials[0].runs[0].settings();
  const std::string metric = metric_key(s.valid_metric);
  std::vector<Result> results;
  for (const Trial* t : left) results.push_back(result_of(*t, runner, metric));
  size_t missing = 0, diverged = 0, all = 0;
  for (const Trial& t : trials)
    for (const PlannedRun& run : t.runs) {
      const Standing at = runner.standing(run, t.epochs);
      ++all, missing += at.kind == Standing::absent || at.kind == Standing::begun,
          diverged += at.kind == Standing::diverged;
    }
  ResultTable table =
      table_of(results,
               fmt::format("{} on {}, {}", s.model, set,
                           results[0].trial->runs.size() > 1 ? "mean ± standard deviation over seeds" : "one seed"),
               s);
  const Result& winner = results[0];
  if (winner.score >= 0) {
    const auto by_test = std::max_element(results.begin(), results.end(), [&](const Result& a, const Result& b) {
      const auto value = [&](const Result& r) {
        const auto it = r.test.find(metric);
        return r.score < 0 || it == r.test.end() ? -1.0 : mean(it->second);
      };
      return value(a) < value(b);
    });
    table.notes.push_back(
        fmt::format("chosen by validation {}: {}; {}", s.valid_metric, name_of(*winner.trial), test_text(winner)));
    if (by_test->test.count(metric))
      table.notes.push_back(
          fmt::format("chosen by test {} (as the field's toolbox does; optimistic, not for a report): {}; "
                      "{}",
                      s.valid_metric, name_of(*by_test->trial), test_text(*by_test)));
    const std::string best = out + "/best.yaml";
    write_text(best, config_yaml(winner.trial->runs[0].config));
    table.notes.push_back(fmt::format("its settings: {} (ccdrec train -c {})", best, shell_word(best)));
  }
  if (left.size() < trials.size())
    table.notes.push_back(
        fmt::format("points left behind by halving: {}; sweep.jsonl has them", trials.size() - left.size()));
  if (missing && left.size() == trials.size())
    table.notes.push_back(
        fmt::format("not there yet: {} of {} runs; the same command without --shard, when the others "
                    "are through, trains what is missing and prints the whole table",
                    missing, all));
  io.out << render(table, table_format(o.format), io.color);
  if (diverged == all) {
    io.err << "ccdrec: every run of the sweep diverged; try a smaller learning_rate\n";
    return kDiverged;
  }
  for (const auto& [name, what] : runner.failed()) io.err << fmt::format("ccdrec: {}/{}: {}\n", out, name, what);
  return runner.failed().empty() ? kDone : kFault;
}

int sweep(const SweepOptions& o, Io& io) {
  table_format(o.format);
  const Shard shard = o.shard.empty() ? Shard{} : parse_shard(o.shard);
  if (o.halving && shard.of > 1) throw UserError("--halving compares all points after each rung; leave --shard away");
  if (!o.seed.empty()) throw UserError("--seed: a sweep takes --seeds, e.g. --seeds 1,2,3");
  Config base = resolve_run(o, o.configs, command_line(o), Grids::shown);
  settle_data_folder(base);
  for (const std::string& note : base.notes)
    if (base.grid.empty() || note != base.notes.back()) io.err << "note: " << note << '\n';  // the last is of the grid
  const Asked asked{o.model, base.settings.data_path, o.device, o.threads, o.configs, o.sets};
  std::vector<Trial> trials = trials_of(o, asked, base);
  std::vector<PlannedRun*> runs;
  for (Trial& t : trials)
    for (PlannedRun& run : t.runs) runs.push_back(&run);
  PlanningData data(io);
  data.settle(runs);
  drop_repeated(trials, io);
  if (o.halving &&
      std::any_of(trials[0].point.begin(), trials[0].point.end(), [](const KeyValue& v) { return v.key == "epochs"; }))
    throw UserError("--halving shares out the epochs: leave them out of the grid");
  if (trials.size() > 1 && data.of(trials[0].runs[0].settings()).valid.empty())
    throw UserError(
        "the data have no validation rows (x_label 1), so no point can be chosen; add some, or train one setting");
  for (Trial& t : trials) t.here = shard.has(t.number);
  if (o.dry_run) {
    std::vector<std::pair<std::string, std::vector<const PlannedRun*>>> listed;
    for (const Trial& t : trials) {
      if (!t.here) continue;
      listed.push_back({name_of(t), {}});
      for (const PlannedRun& run : t.runs) listed.back().second.push_back(&run);
    }
    return dry_run(listed, data, o, o.format, io);
  }
  const Settings& s = trials[0].runs[0].settings();
  const std::string set = data.of(s).name;
  const std::string out =
      RunFolder::create(o.out.empty() ? fmt::format("runs/sweep-{}-{}", s.model, set) : o.out).dir();
  const std::string lines = out + "/sweep.jsonl";
  const InterruptGuard guard;
  Runner runner(out, side_by_side(o, s));
  runner.say = [&](const std::string& text) { io.err << text << std::endl; };
  runner.on_over = [&](const PlannedRun&, bool fresh) {
    if (fresh) write_lines(lines, trials, runner);
  };
  for (const Trial& t : trials) {
    const Standing::Kind at = runner.standing(t.runs[0]).kind;
    if (t.here && (at == Standing::absent || at == Standing::begun)) data.refuse_if_too_large(t.runs[0]);
  }
  std::vector<Trial*> left;
  bool over = true;
  if (o.halving) {
    over = bring_by_halving(trials, runner, s, left, io);
  } else {
    std::vector<const PlannedRun*> mine;
    for (Trial& t : trials) {
      left.push_back(&t);
      if (!t.here) continue;
      for (const PlannedRun& run : t.runs) mine.push_back(&run);
    }
    over = runner.bring(mine);
  }
  write_lines(lines, trials, runner);
  if (!over) {
    io.err << fmt::format("ccdrec: interrupted; the same command goes on where it stopped ({})\n", out);
    return kInterrupted;
  }
  return finish(o, trials, left, runner, out, set, io);
}

}  // namespace

void add_sweep(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<SweepOptions>();
  CLI::App* sub = app.add_subcommand("sweep", "search a grid of settings over seeds; the winner by validation");
  add_run_options(*sub, *o);
  sub->add_option("--grid", o->grid, "values of one key to try; several: their product")
      ->type_name("KEY=A,B,C")
      ->allow_extra_args(false);
  sub->add_option("--seeds", o->seeds, "each point with each of these seeds, means over them")->type_name("N,N,...");
  sub->add_option("--trials", o->trials, "draw so many points of the grid at random instead of all")
      ->check(whole_number(1, int64_t(kMostPoints)), "")
      ->type_name("N");
  sub->add_flag("--halving", o->halving,
                "all points to a ninth of the epochs, the best third by validation to a third, of these the best third "
                "to the end");
  sub->add_option("--shard", o->shard, "train the i-th of n parts of the list: one job of a job array each")
      ->type_name("I/N");
  sub->add_option("-o,--out", o->out, "folder of the runs and of sweep.jsonl (default runs/sweep-MODEL-SET)")
      ->type_name("DIR");
  sub->add_flag("--dry-run", o->dry_run, "list the runs with memory and time (five steps of each timed), then stop");
  sub->add_option("--format", o->format, "text, markdown, latex, csv or json")
      ->type_name("FORMAT")
      ->capture_default_str();
  add_side_options(*sub, *o);
  sub->footer(
      "Lists in a -c file under keys that its `hyper_parameters` names are the grid, as in MMRec's model files; --grid "
      "adds keys or takes\n"
      "the place of such a list. Runs are stored under the content of their settings: the same command goes on after a "
      "stop or a kill,\n"
      "and another sweep into the same folder trains only what is not there. The winner has the best mean validation "
      "metric; what\n"
      "test would have chosen is printed beside it, labelled. best.yaml holds the winner's settings.\n"
      "A job array: each job runs the same command with its own --shard, all with one --out on a shared disk; the same "
      "command without\n"
      "--shard, when they are through, prints the table (docs/sweep.md has a job script).\n"
      "Exit codes: as train; 4 only if every run diverged.\n"
      "Example: ccdrec sweep -m FREEDOM -d data/baby --grid reg_weight=0,1e-4,1e-3 --grid dropout=0.8,0.9 --seeds "
      "1,2,3 "
      "--jobs 2");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return sweep(*o, io); }; });
}

}  // namespace ccdrec::cli
