// ccdrec reproduce: a table or figure of the CCDRec paper on the given data, by one command that can be stopped and
// goes on.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <sstream>

#include "data/error.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "host/base/progress.h"
#include "host/cli/cli.h"
#include "host/cli/interrupt.h"
#include "host/cli/reproduction.h"
#include "host/files/run_folder.h"

namespace ccdrec::cli {
namespace {
using Json = nlohmann::ordered_json;
}  // namespace

// --- plan

void Reproduction::plan() {
  seeds_ = parse_seeds(o_.seeds);
  Config base = resolve_run(o_, o_.configs, command_line(o_), Grids::shown);
  settle_data_folder(base);
  Settings s = base.settings;
  const Dataset& data = data_.of(s);
  set_ = published_set(data), data_name_ = data.name;
  table_ = paper_table(o_.table, set_);
  if (!table_.searches && o_.search != "none")
    throw UserError(fmt::format("--search {}: {} searches nothing; leave it away", shown(o_.search), o_.table));
  std::set<std::string> only;
  std::istringstream words(o_.only);
  for (std::string word; std::getline(words, word, ',');) only.insert(std::string(trimmed(word)));
  for (const std::string& label : only)
    if (std::none_of(table_.lines.begin(), table_.lines.end(), [&](const PaperLine& l) { return l.label == label; })) {
      std::string all;
      for (const PaperLine& l : table_.lines) all += (all.empty() ? "" : ", ") + l.label;
      throw UserError(fmt::format("--only {}: no line of {}; its lines are {}", shown(label), o_.table, all));
    }
  for (const PaperLine& paper : table_.lines) {
    if (!only.empty() && !only.count(paper.label)) continue;
    Line line;
    line.paper = paper;
    // what a line is about wins over what is asked of all
    Asked asked{paper.model, base.settings.data_path, o_.device, o_.threads, o_.configs, paper.released};
    asked.sets.insert(asked.sets.end(), o_.sets.begin(), o_.sets.end());
    asked.sets.insert(asked.sets.end(), paper.sets.begin(), paper.sets.end());
    std::vector<GridAxis> axes = o_.search == "small"   ? paper.small
                                 : o_.search == "paper" ? paper.paper
                                                        : std::vector<GridAxis>{};
    try {
      for (const Point& point : points_of(axes)) {
        line.points.emplace_back();
        for (const std::string& seed : seeds_)
          line.points.back().push_back(planned_run(asked, paper.label, point, seed));
        std::vector<PlannedRun*> runs;
        for (PlannedRun& run : line.points.back()) runs.push_back(&run);
        data_.settle(runs);
      }
    } catch (const UserError& e) {  // this system cannot be put on these data: the others can
      line.points.clear(), line.left_out = e.what();
    }
    lines_.push_back(std::move(line));
  }
  if (std::all_of(lines_.begin(), lines_.end(), [](const Line& l) { return l.points.empty(); }))
    throw UserError(lines_[0].left_out);
}

// --- train

Json Reproduction::outcome(const PlannedRun& run) const {
  if (const Json* have = results_.find(run)) return *have;
  const Standing at = runner_->standing(run);
  return at.kind == Standing::over || at.kind == Standing::diverged ? Json(at.summary) : Json();
}

double Reproduction::score(const PlannedRun& run) const {
  const Json j = outcome(run);
  const std::string metric = metric_key(run.settings().valid_metric);
  if (!j.is_object() || j.value("stopped", "") == "diverged" || !j.contains("best_valid") ||
      !j["best_valid"].is_object())
    return -1;
  return j["best_valid"].value(metric, -1.0);
}

// The point with the best validation metric on the first seed; of equal ones the first.
void Reproduction::choose(Line& line) {
  line.chosen.reset();
  if (line.points.size() == 1) line.chosen = 0;  // also where validation has nothing to say
  double best = -1;
  for (size_t p = 0; p < line.points.size(); ++p)
    if (const double value = score(line.points[p][0]); value > best) best = value, line.chosen = p;
}

bool Reproduction::train_line(Line& line) {
  const auto bring = [&](const std::vector<const PlannedRun*>& asked) {
    std::vector<const PlannedRun*> missing;
    for (const PlannedRun* run : asked)
      if (results_.keeps() ? !results_.find(*run) : outcome(*run).is_null()) missing.push_back(run);
    return missing.empty() || runner_->bring(missing);
  };
  try {
    for (const std::vector<PlannedRun>& of_seeds : line.points)
      if (outcome(of_seeds[0]).is_null()) data_.refuse_if_too_large(of_seeds[0]);
  } catch (const UserError& e) {  // the others may fit
    line.left_out = e.what();
    return true;
  }
  std::vector<const PlannedRun*> first;
  for (const std::vector<PlannedRun>& of_seeds : line.points) first.push_back(&of_seeds[0]);
  if (!bring(first)) return false;
  choose(line);
  return !line.chosen || bring(line.runs(*line.chosen));
}

// The time by the runs that are there: of the same line, where it has some, else of all.
void Reproduction::say_what_is_left() {
  size_t left = 0, all = 0, timed = 0, guessed = 0;
  double seconds = 0, known = 0;
  for (Line& line : lines_) {
    if (line.points.empty()) continue;
    double here = 0;
    size_t n = 0, missing = 0;
    const auto look = [&](const PlannedRun& run) {
      const Json j = outcome(run);
      ++all;
      if (j.is_null())
        ++missing;
      else
        here += j.value("train_seconds", 0.0) + j.value("eval_seconds", 0.0), ++n;
    };
    for (const std::vector<PlannedRun>& of_seeds : line.points) look(of_seeds[0]);
    choose(line);
    for (size_t s = 1; s < seeds_.size(); ++s) look(line.points[line.chosen.value_or(0)][s]);
    left += missing, known += here, timed += n;
    if (n)
      seconds += here / double(n) * double(missing);
    else
      guessed += missing;
  }
  if (!left) return;
  std::string time;
  if (timed)
    time = fmt::format(", about {} one after the other{}",
                       describe_seconds(seconds + known / double(timed) * double(guessed)),
                       guessed ? fmt::format(" ({} of them of lines that are not timed yet)", guessed) : "");
  io_.err << fmt::format("{} of {} runs left{}\n", left, all, time);
}

bool Reproduction::train() {
  for (Line& line : lines_) {
    if (line.points.empty()) continue;
    say_what_is_left();
    if (!train_line(line)) return false;
  }
  return true;
}

int Reproduction::dry() {
  std::vector<std::pair<std::string, std::vector<const PlannedRun*>>> listed;
  for (const Line& line : lines_) {
    if (line.points.empty()) continue;
    std::vector<const PlannedRun*> runs;
    for (const std::vector<PlannedRun>& of_seeds : line.points) runs.push_back(&of_seeds[0]);
    for (size_t s = 1; s < seeds_.size(); ++s) runs.push_back(&line.points[0][s]);
    listed.push_back({line.paper.label, runs});
  }
  return dry_run(listed, data_, o_, o_.format, io_);
}

int Reproduction::run() {
  const TableFormat format = table_format(o_.format);
  if (!o_.model.empty()) throw UserError("-m: reproduce trains the systems of its table; --only LABEL,... chooses");
  if (!o_.seed.empty()) throw UserError("--seed: reproduce takes --seeds, e.g. --seeds 1,2,3");
  plan();
  if (!o_.results.empty()) results_ = Results(o_.results);
  if (o_.dry_run) return dry();
  out_ = RunFolder::create(o_.out.empty() ? fmt::format("runs/reproduce-{}", data_name_) : o_.out).dir();
  const Settings* some = nullptr;
  for (const Line& line : lines_)
    if (!line.points.empty()) some = &line.points[0][0].settings();
  const InterruptGuard guard;
  SideBySide how = side_by_side(o_, *some);
  runner_ = std::make_unique<Runner>(out_, how);
  runner_->say = [&](const std::string& text) { io_.err << text << std::endl; };
  runner_->on_over = [&](const PlannedRun& run, bool) {
    const Standing::Kind at = runner_->standing(run).kind;
    if (results_.keeps() && (at == Standing::over || at == Standing::diverged))
      results_.add(run, runner_->folder_of(run));
  };
  if (o_.report) {
    for (Line& line : lines_) choose(line);
  } else if (!train()) {
    io_.err << fmt::format("ccdrec: interrupted; the same command goes on where it stopped ({})\n", out_);
    return kInterrupted;
  }
  ResultTable t = table_.name == "cost" ? cost_table() : metrics_table();
  t.title =
      fmt::format("{}, on {}{}", table_.title, data_name_,
                  seeds_.size() > 1 ? fmt::format(", seeds {}: mean ± standard deviation", fmt::join(seeds_, ", "))
                                    : fmt::format(", seed {}", seeds_[0]));
  add_notes(t);
  io_.out << render(t, format, io_.color);
  if (table_.name == "figure3" && format == TableFormat::text) io_.out << bars();
  for (const auto& [name, what] : runner_->failed()) io_.err << fmt::format("ccdrec: {}/{}: {}\n", out_, name, what);
  size_t there = 0, diverged = 0;
  for (const Line& line : lines_)
    for (const std::vector<PlannedRun>& of_seeds : line.points)
      for (const PlannedRun& run : of_seeds)
        if (const Json j = outcome(run); j.is_object()) ++there, diverged += j.value("stopped", "") == "diverged";
  if (there == 0 && o_.report) io_.err << fmt::format("ccdrec: no run of {} is there yet ({})\n", o_.table, out_);
  if (there > 0 && diverged == there) {
    io_.err << "ccdrec: every run diverged; try a smaller learning_rate\n";
    return kDiverged;
  }
  return runner_->failed().empty() ? kDone : kFault;
}

void add_reproduce(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<ReproduceOptions>();
  CLI::App* sub = app.add_subcommand("reproduce", "a table or figure of the CCDRec paper on your data");
  sub->add_option("TABLE", o->table, fmt::format("{}", fmt::join(paper_tables(), ", ")))->required();
  add_run_options(*sub, *o);
  sub->add_option("--seeds", o->seeds, "each line with each of these, mean and deviation over them")
      ->type_name("N,N,...")
      ->capture_default_str();
  sub->add_option("--search", o->search,
                  "none: each system's own settings; small: at most four points a system; paper: the published grids")
      ->check(CLI::IsMember({"none", "small", "paper"}))
      ->type_name("HOW")
      ->capture_default_str();
  sub->add_option("--only", o->only, "these lines of the table alone, e.g. FREEDOM,CCDRec(FREEDOM)")
      ->type_name("LABEL,...");
  sub->add_option("-o,--out", o->out, "folder of the runs (default runs/reproduce-SET)")->type_name("DIR");
  sub->add_option("--results", o->results,
                  "a file that finished runs enter, and whose runs are not trained again (bench/results/accuracy.json)")
      ->type_name("FILE");
  sub->add_flag("--report", o->report, "train nothing: the table of what is there");
  sub->add_flag("--dry-run", o->dry_run, "list the runs with memory and time (five steps of a line timed), then stop");
  sub->add_option("--format", o->format, "text, markdown, latex, csv or json")
      ->type_name("FORMAT")
      ->capture_default_str();
  add_side_options(*sub, *o);
  sub->footer(
      "  table2       all systems, with the gain of CCDRec over each backbone\n"
      "  table3       samplers of hard negatives on LATTICE, FREEDOM and MG, CCDRec beside them\n"
      "  systems      both tables in one\n"
      "  figure3      the modules one after the other on each backbone\n"
      "  sensitivity  lambda, omega, T, mu, dtau, tau_end of CCDRec(FREEDOM), one at a time\n"
      "  cost         seconds and memory of DMA, NDI, CNS and of the samplers, an epoch and to the best one\n"
      "A search runs on the first seed and is decided by validation; what it chooses runs with the other seeds. Runs "
      "are "
      "stored under the\n"
      "content of their settings: the same command goes on after a stop or a kill, and tables share what they have in "
      "common. Published\n"
      "figures stand beside ours where the data have the counts of Baby, Sports or Clothing. Progress goes to standard "
      "error, the table to\n"
      "standard output. docs/sweep.md lists what is searched.\n"
      "Example: ccdrec reproduce table2 -d data/baby --seeds 1,2,3 --search small --jobs 2 --format markdown > "
      "table2.md");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return Reproduction(*o, io).run(); }; });
}

}  // namespace ccdrec::cli
