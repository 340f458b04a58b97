// The tables of `ccdrec reproduce`.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/text.h"
#include "host/base/machine.h"
#include "host/base/metric_name.h"
#include "host/cli/reproduction.h"
#include "host/report/group_tests.h"
#include "host/report/statistics.h"
#include "host/systems/label.h"

namespace ccdrec::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string title_of(const std::string& metric) {  // recall@10 -> R@10
  return std::string(1, char(std::toupper(static_cast<unsigned char>(metric[0])))) + metric.substr(metric.find('@'));
}

Cell cell_of(const std::vector<double>& values, int digits) {
  if (values.empty()) return {};
  return Cell::number(mean(values), digits, values.size() > 1 ? deviation(values) : NAN);
}

}  // namespace

const Line* Reproduction::line_named(const std::string& label) const {
  for (const Line& line : lines_)
    if (line.paper.label == label) return &line;
  return nullptr;
}

std::vector<double> Reproduction::values(const Line& line, const char* split, const std::string& metric) const {
  std::vector<double> out;
  if (!line.chosen) return out;
  for (const PlannedRun& run : line.points[*line.chosen]) {
    const Json j = outcome(run);
    if (!j.is_object() || j.value("stopped", "") == "diverged" || !j.contains(split)) continue;
    if (metric.empty()) {  // a number of the summary itself
      if (j[split].is_number()) out.push_back(j[split].get<double>());
    } else if (j[split].is_object() && j[split].contains(metric)) {
      out.push_back(j[split][metric].get<double>());
    }
  }
  return out;
}

// Paired over users, their values averaged over the seeds; what was found is kept with the results. Empty: the run
// folders are not there.
std::string Reproduction::significance(const Line& line, const Line& over, const std::string& metric) {
  const PlannedRun &a0 = line.points[*line.chosen][0], &b0 = over.points[*over.chosen][0];
  Json test;
  test["interactions"] = data_.of(a0.settings()).interactions;
  test["a"] = a0.key, test["b"] = b0.key, test["metric"] = metric, test["seeds"] = seeds_;
  if (const Json* have = results_.find_test(test)) {
    test = *have;
  } else {
    const auto group_of = [&](const Line& l) {
      std::vector<std::string> dirs;
      for (const PlannedRun& run : l.points[*l.chosen])
        if (runner_->standing(run).kind == Standing::over) dirs.push_back(runner_->folder_of(run));
      return dirs.size() == seeds_.size() ? group_runs(dirs, {}) : std::vector<RunGroup>{};
    };
    const std::vector<RunGroup> a = group_of(line), b = group_of(over);
    if (a.size() != 1 || b.size() != 1) return "";
    const UserTest users = test_over_users(a[0], b[0], metric, false);
    if (!users.test || !std::isfinite(users.test->p_t)) return "";  // nothing differs
    const PairedTest& t = *users.test;
    test["lines"] = {line.paper.label, over.paper.label};
    test["users"] = t.n, test["difference"] = t.difference, test["mean_b"] = b[0].mean_of(metric, false);
    test["low"] = t.low, test["high"] = t.high, test["p_t"] = t.p_t, test["p_wilcoxon"] = t.p_wilcoxon;
    test["effect"] = t.effect;
    results_.add_test(test);
  }
  const double base = test.value("mean_b", 0.0), difference = test.value("difference", 0.0);
  const auto p = [](const Json& j) { return j.is_number() ? Cell::p_value(j.get<double>()).text : std::string("-"); };
  return fmt::format(
      "{} against {}, {}: {:+.4f} ({:+.1f} %), 95 % interval {:+.4f} to {:+.4f}, t-test p {}, Wilcoxon p "
      "{}, effect size {:+.3f}; {} users, means over {}",
      line.paper.label, over.paper.label, title_of(metric), difference, base > 0 ? 100 * difference / base : 0.0,
      test.value("low", 0.0), test.value("high", 0.0), p(test["p_t"]), p(test["p_wilcoxon"]), test.value("effect", 0.0),
      thousands(test.value("users", int64_t(0))),
      seeds_.size() == 1 ? "one seed" : fmt::format("{} seeds", seeds_.size()));
}

ResultTable Reproduction::metrics_table() {
  ResultTable t;
  const std::vector<std::string> gains = {"recall@10", "ndcg@10"};  // as columns
  t.columns = {"system", "seeds"};
  for (const std::string& m : table_.metrics) t.columns.push_back(title_of(m));
  if (!set_.empty() && !std::isnan(published(set_, "FREEDOM", table_.metrics[0])))
    for (const std::string& m : table_.metrics) t.columns.push_back("paper " + title_of(m));
  if (!table_.gain_rows)
    for (const std::string& m : gains) t.columns.push_back("gain " + title_of(m) + " %");
  std::string valid;
  for (const Line& line : lines_)
    if (valid.empty() && !line.points.empty()) valid = metric_key(line.points[0][0].settings().valid_metric);
  for (const std::string& c : {"validation " + title_of(valid), std::string("epochs"), std::string("seconds")})
    t.columns.push_back(c);
  for (const Line& line : lines_) {
    const Line* const over = line.paper.over.empty() ? nullptr : line_named(line.paper.over);
    std::vector<Cell> row = {line.paper.label};
    const std::vector<double> scores = values(line, "best_valid", valid);
    row.push_back(std::to_string(scores.size()));
    for (const std::string& m : table_.metrics) row.push_back(cell_of(values(line, "best_test", m), 4));
    const auto gain = [&](const std::string& m) -> Cell {
      const std::vector<double> a = values(line, "best_test", m),
                                b = over ? values(*over, "best_test", m) : std::vector<double>{};
      if (a.empty() || b.empty() || mean(b) <= 0) return "";
      return fmt::format("{:+.1f}", 100 * (mean(a) / mean(b) - 1));
    };
    for (const std::string& c : t.columns)
      if (c.starts_with("paper "))
        for (const std::string& m : table_.metrics)
          if (c == "paper " + title_of(m)) row.push_back(Cell::number(published(set_, line.paper.label, m), 4));
    if (!table_.gain_rows)
      for (const std::string& m : gains) row.push_back(gain(m));
    row.push_back(cell_of(scores, 4));
    std::vector<double> seconds = values(line, "train_seconds", "");
    const std::vector<double> evaluation = values(line, "eval_seconds", "");
    for (size_t k = 0; k < seconds.size() && k < evaluation.size(); ++k) seconds[k] += evaluation[k];
    row.push_back(cell_of(values(line, "epochs_run", ""), 0)), row.back().deviation = NAN;
    if (!row.back().text.empty()) row.back().text = row.back().text.substr(0, row.back().text.find(' '));
    row.push_back(seconds.empty() ? Cell() : Cell::number(mean(seconds), 1));
    // around a backbone and the lines put on it
    const bool starts = !over && &line != &lines_.back() && !(&line)[1].paper.over.empty(),
               follows = !over && &line != &lines_.front() && !(&line)[-1].paper.over.empty();
    if ((starts || follows) && !t.rows.empty() && !table_.gain_rows) t.rules.push_back(t.rows.size());
    t.rows.push_back(std::move(row));
    if (table_.gain_rows && over && !values(line, "best_test", table_.metrics[0]).empty()) {
      std::vector<Cell> row_of_gains(t.columns.size(), Cell(""));
      row_of_gains[0] = fmt::format("  over {}, %", over->paper.label);
      for (size_t m = 0; m < table_.metrics.size(); ++m) row_of_gains[2 + m] = gain(table_.metrics[m]);
      t.rows.push_back(std::move(row_of_gains));
    }
  }
  for (size_t m = 0; m < table_.metrics.size(); ++m) mark_best(t, 2 + m);
  return t;
}

ResultTable Reproduction::cost_table() {
  ResultTable t;
  constexpr const char* kPhases[] = {"prune",     "sample",  "forward",  "backward",
                                     "optimiser", "reverse", "hardness", "evaluation"};
  t.columns = {"system", "memory", "s/epoch"};
  for (const char* phase : kPhases) t.columns.push_back(phase);
  for (const char* c : {"best epoch", "s to it", "R@10"}) t.columns.push_back(c);
  for (const Line& line : lines_) {
    if (!line.chosen) {
      t.rows.emplace_back(t.columns.size(), Cell());
      t.rows.back()[0] = line.paper.label;
      continue;
    }
    RunTimes times;
    double n = 0, best = 0;
    for (const PlannedRun& run : line.points[*line.chosen]) {
      const Json j = outcome(run);
      if (!j.is_object()) continue;
      RunTimes one;
      if (j.contains("epoch_seconds"))
        one = {j.value("epoch_seconds", 0.0), j.value("to_best_seconds", 0.0),
               j["phases"].get<std::map<std::string, double>>()};
      else
        one = run_times(runner_->folder_of(run), j.value("best_epoch", -1));
      times.epoch += one.epoch, times.to_best += one.to_best, best += j.value("best_epoch", 0), ++n;
      for (const auto& [name, value] : one.phases) times.phases[name] += value;
    }
    const auto average = [&](double sum, int digits) { return n > 0 ? Cell::number(sum / n, digits) : Cell(); };
    std::vector<Cell> row = {line.paper.label, describe_bytes(line.points[*line.chosen][0].bytes),
                             average(times.epoch, 3)};
    for (const char* phase : kPhases)
      row.push_back(times.phases.count(phase) ? average(times.phases[phase], 3) : Cell());
    row.push_back(average(best, 0)), row.push_back(average(times.to_best, 1));
    row.push_back(cell_of(values(line, "best_test", "recall@10"), 4));
    t.rows.push_back(std::move(row));
  }
  t.notes = {
      "memory: what the plan says a run takes. s/epoch: mean seconds of a training epoch but the first; the "
      "phases are its parts (reverse: NDI's reverse process, also DMA's; sample: negatives, CNS's among them).",
      "Seconds of runs that are trained side by side (--jobs) or on a busy machine tell little: compare within "
      "one command."};
  return t;
}

void Reproduction::add_notes(ResultTable& t) {
  if (o_.search != "none") {
    t.notes.push_back(
        fmt::format("searched ({}) on seed {} by validation; the choice stands with all seeds:", o_.search, seeds_[0]));
    for (const Line& line : lines_) {
      if (!line.chosen || line.points.size() < 2) continue;
      std::string note = fmt::format("  {}: {}", line.paper.label, point_text(line.points[*line.chosen][0].point));
      double best = -1;
      size_t by_test = *line.chosen;
      for (size_t p = 0; p < line.points.size(); ++p) {
        const Json j = outcome(line.points[p][0]);
        const std::string metric = metric_key(line.points[p][0].settings().valid_metric);
        if (score(line.points[p][0]) >= 0 && j["best_test"].is_object() && j["best_test"].value(metric, -1.0) > best)
          best = j["best_test"].value(metric, -1.0), by_test = p;
      }
      if (by_test != *line.chosen)
        note += fmt::format(" (test would have chosen {})", point_text(line.points[by_test][0].point));
      t.notes.push_back(note);
    }
  } else {
    t.notes.push_back("settings: each system's own, nothing searched");
  }
  if (!o_.sets.empty() || !o_.configs.empty())
    t.notes.push_back(fmt::format("for all lines, but for what a line is about: {}{}{}", fmt::join(o_.sets, " "),
                                  o_.configs.empty() || o_.sets.empty() ? "" : ", ", fmt::join(o_.configs, ", ")));
  if (table_.name == "figure3")
    t.notes.push_back(
        "lines without NDI have two random negatives a row, as the paper says of them; +DMA+NDI: the pool's "
        "row stands for the negative, as a constant");
  for (const Line& line : lines_) {
    if (!line.left_out.empty()) t.notes.push_back(fmt::format("{} left out: {}", line.paper.label, line.left_out));
    if (line.points.empty()) continue;
    int diverged = 0;
    for (const PlannedRun* run : line.runs(line.chosen.value_or(0)))
      if (const Json j = outcome(*run); j.is_object()) diverged += j.value("stopped", "") == "diverged";
    if (diverged)
      t.notes.push_back(fmt::format("{}: {} of {} seeds diverged", line.paper.label, diverged, seeds_.size()));
    if (const std::string note = label_note(line.points[0][0].settings()); !note.empty())
      t.notes.push_back(fmt::format("{}: {}", line.paper.label, note));
  }
  if (table_.name == "cost") return;
  for (const Line& line : lines_) {
    const Line* const over = line.paper.over.empty() ? nullptr : line_named(line.paper.over);
    if (!over || !line.chosen || !over->chosen) continue;
    if (const std::string text = significance(line, *over, "recall@10"); !text.empty()) t.notes.push_back(text);
  }
}

// Figure 3 in the terminal: R@10, the longest bar the best.
std::string Reproduction::bars() const {
  constexpr size_t kWidth = 50;
  double most = 0;
  size_t widest = 0;
  for (const Line& line : lines_) {
    const std::vector<double> v = values(line, "best_test", "recall@10");
    if (!v.empty()) most = std::max(most, mean(v));
    widest = std::max(widest, line.paper.label.size());
  }
  std::string text = "\nR@10\n";
  for (const Line& line : lines_) {
    const std::vector<double> v = values(line, "best_test", "recall@10");
    if (v.empty() || most <= 0) continue;
    if (line.paper.over.empty() && text.size() > 6) text += "\n";
    text += fmt::format("{:<{}}  ", line.paper.label, widest);
    for (size_t k = 0; k < size_t(std::lround(mean(v) / most * kWidth)); ++k) text += "█";
    text += fmt::format(" {:.4f}\n", mean(v));
  }
  return text;
}

}  // namespace ccdrec::cli
