// ccdrec compare: several runs as one table per data set, mean and deviation over seeds; tested, and what their lists
// are like.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/error.h"
#include "data/path.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "host/cli/cli.h"
#include "host/cli/trained_run.h"
#include "host/report/compare_tables.h"

namespace ccdrec::cli {
namespace {

struct CompareOptions {
  std::vector<std::string> runs;
  std::string format = "text", against, metrics;
  bool markdown = false, json = false, valid = false;
  bool tests = false, lists = false, groups = false;
};

// What --tests compares: the metrics named, or Recall and NDCG at 20; where no run has those, at the k of its
// valid_metric.
std::vector<std::string> tested_metrics(const std::vector<RunGroup>& groups, const CompareOptions& o) {
  std::vector<std::string> known, asked;
  for (const RunGroup& g : groups)
    for (const RunOfSeed& run : g.runs)
      for (const Figures* figures :
           {o.valid ? &run.valid : &run.test, o.valid ? &run.valid : &run.lists})  // lists: of test
        for (const auto& [key, value] : *figures)
          if (std::find(known.begin(), known.end(), key) == known.end()) known.push_back(key);
  const auto has = [&](const std::string& key) { return std::find(known.begin(), known.end(), key) != known.end(); };
  if (o.metrics.empty()) {
    const int k = has("recall@20") ? 20 : metric_cutoff(metric_key(groups[0].settings.valid_metric));
    return {fmt::format("recall@{}", k), fmt::format("ndcg@{}", k)};
  }
  std::istringstream in(o.metrics);
  for (std::string word; std::getline(in, word, ',');) {
    const std::string key = lower(std::string(trimmed(word)));
    if (!has(key))
      throw UserError(
          fmt::format("--metrics {}: no run has '{}'; they have {}", shown(o.metrics), shown(key), listed(known)));
    if (std::find(asked.begin(), asked.end(), key) == asked.end()) asked.push_back(key);
  }
  return asked;
}

// The line that is meant: by its name, its label, or one of its folders. Null: it is not in this set.
const RunGroup* line_meant(const RunSet& set, const std::string& text) {
  std::vector<const RunGroup*> labelled;
  for (const RunGroup* g : set.lines) {
    if (g->name == text) return g;
    if (g->label == text) labelled.push_back(g);
  }
  if (labelled.size() > 1) {
    std::vector<std::string> names;
    for (const RunGroup* g : labelled) names.push_back(g->name);
    throw UserError(fmt::format("--against {}: {} lines have this label; name one in full ({}) or one of its folders",
                                shown(text), labelled.size(), listed(names)));
  }
  if (!labelled.empty()) return labelled[0];
  for (const RunGroup* g : set.lines)
    for (const RunOfSeed& run : g->runs)
      if (absolute_path(run.dir) == absolute_path(text)) return g;
  return nullptr;
}

struct SetTests {
  std::vector<MetricTests> metrics;  // empty: nothing to test
  std::string chosen;                // why against that line
  std::string why_not;               // no line of the set stands out
};

SetTests tests_of(const RunSet& set, const std::vector<std::string>& keys, const CompareOptions& o, Io& io) {
  SetTests out;
  if (set.lines.size() < 2) {
    io.err << fmt::format("note: {} has one line, so there is nothing to test it against\n", printable(set.title));
    return out;
  }
  const RunGroup* against = nullptr;
  if (o.against.empty()) {
    const BestLine best = best_by_validation(set.lines);
    if (!best.line) {
      out.why_not = fmt::format("{}: {}, so no line is best by validation; name one with --against", shown(set.title),
                                best.why_not);
      return out;
    }
    against = best.line, out.chosen = fmt::format("; best by validation {}", best.key);
  } else {
    against = line_meant(set, o.against);
    if (!against) {
      io.err << fmt::format("note: {} has no line '{}', so its lines are not tested\n", printable(set.title),
                            shown(o.against));
      return out;
    }
  }
  for (const std::string& key : keys) out.metrics.push_back(test_lines(set.lines, *against, key, o.valid));
  return out;
}

std::vector<SetTests> all_tests(const std::vector<RunGroup>& groups, const std::vector<RunSet>& sets,
                                const CompareOptions& o, Io& io) {
  std::vector<SetTests> tests(sets.size());
  if (!o.tests) return tests;
  if (!o.against.empty() &&
      std::none_of(sets.begin(), sets.end(), [&](const RunSet& set) { return line_meant(set, o.against); })) {
    std::vector<std::string> names;
    for (const RunGroup& g : groups) names.push_back(g.name);
    throw UserError(
        fmt::format("--against {}: no line and none of the runs; the lines are {}", shown(o.against), listed(names)));
  }
  const std::vector<std::string> keys = tested_metrics(groups, o);
  for (size_t k = 0; k < sets.size(); ++k) tests[k] = tests_of(sets[k], keys, o, io);
  const bool some = std::any_of(tests.begin(), tests.end(), [](const SetTests& t) { return !t.metrics.empty(); });
  for (const SetTests& t : tests) {
    if (t.why_not.empty()) continue;
    if (!some) throw UserError(t.why_not);
    io.err << "note: " << t.why_not << '\n';
  }
  return tests;
}

// A sentence for each kind of figures that is asked for and that some runs lack, as those of earlier programs do.
void note_lacking(const std::vector<RunGroup>& groups, const CompareOptions& o, Io& io) {
  const auto note = [&](bool asked, bool RunOfSeed::*has, const char* what) {
    std::string all;
    size_t n = 0;
    for (const RunGroup& g : groups)
      for (const RunOfSeed& run : g.runs)
        if (asked && !(run.*has)) all += (n++ ? ", " : "") + shell_word(run.dir);
    if (n)
      io.err << fmt::format(
          "note: {} {} no {}; `ccdrec evaluate RUN --keep` adds them where there is a best.safetensors\n",
          printable(all), n > 1 ? "have" : "has", what);
  };
  note(o.tests, &RunOfSeed::has_users, "values of users");
  note(o.lists || o.groups, &RunOfSeed::has_lists, "figures of lists and groups");
}

void print_json(const std::vector<RunSet>& sets, const std::vector<SetTests>& tests, const CompareOptions& o, Io& io) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (size_t k = 0; k < sets.size(); ++k)
    for (const RunGroup* g : sets[k].lines) {
      nlohmann::ordered_json& j = all.emplace_back(group_json(*g, sets[k].title, o.valid));
      if (!o.tests) continue;
      j["tests"] = nlohmann::ordered_json::array();
      for (const MetricTests& metric : tests[k].metrics)
        for (const LineTest& line : metric.lines)
          if (line.line == g) j["tests"].push_back(test_json(line, metric));
    }
  io.out << all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
}

int compare(const CompareOptions& o, Io& io) {
  const TableFormat format = o.markdown ? TableFormat::markdown : o.json ? TableFormat::json : table_format(o.format);
  const std::vector<RunGroup> groups =
      group_runs(o.runs, {.note = [&](const std::string& note) { io.err << "note: " << note << '\n'; },
                          .check = [&](const RunFolder& folder, const Settings& s) { check_run(folder, s, io); }});
  const std::vector<RunSet> sets = sets_of(groups);
  note_lacking(groups, o, io);
  const std::vector<SetTests> tests = all_tests(groups, sets, o, io);
  if (format == TableFormat::json) {
    print_json(sets, tests, o, io);
    return kDone;
  }
  std::vector<ResultTable> tables;
  for (size_t k = 0; k < sets.size(); ++k) {
    tables.push_back(metric_table(sets[k], o.valid));
    if (o.lists) tables.push_back(list_table(sets[k], o.valid));
    if (o.groups)
      for (ResultTable& t : bin_tables(sets[k])) tables.push_back(std::move(t));
    for (const MetricTests& metric : tests[k].metrics)
      tables.push_back(test_table(sets[k], metric, o.valid, tests[k].chosen));
  }
  for (const ResultTable& t : tables) {
    if (&t != &tables[0]) io.out << '\n';
    // A file of one table is read as it is; several are told apart.
    if (format == TableFormat::csv && tables.size() > 1) io.out << "# " << printable(t.title) << '\n';
    io.out << render(t, format, io.color);
  }
  return kDone;
}

}  // namespace

void add_compare(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<CompareOptions>();
  CLI::App* sub = app.add_subcommand("compare", "several runs as one table, mean and deviation over seeds, and tested");
  sub->add_option("RUNS", o->runs, "run folders")->required();
  sub->add_flag("--valid", o->valid, "validation metrics instead of test metrics");
  CLI::Option* tests =
      sub->add_flag("--tests", o->tests, "differences to one line: interval, paired tests over users and over seeds");
  sub->add_option("--against", o->against, "that line, by its name or one of its runs; without: best by validation")
      ->type_name("LINE")
      ->needs(tests);
  sub->add_option("--metrics", o->metrics, "what is tested; without: recall@20,ndcg@20")
      ->type_name("KEYS")
      ->needs(tests);
  sub->add_flag("--lists", o->lists, "MRR, Hit and what the lists are like, at the k of valid_metric");
  sub->add_flag("--groups", o->groups, "test Recall by popularity of the items and by activity of the users");
  CLI::Option* format = sub->add_option("--format", o->format, "text, markdown, latex, csv or json")
                            ->type_name("FORMAT")
                            ->capture_default_str();
  CLI::Option* markdown = sub->add_flag("--markdown", o->markdown, "--format markdown")->excludes(format);
  sub->add_flag("--json", o->json, "--format json: every value of every seed, full precision")
      ->excludes(format)
      ->excludes(markdown);
  sub->footer(
      "Runs that differ only in the seed (and in threads, paths, saving) form one line; settings in which lines of a "
      "label differ are named.\n"
      "R = Recall, N = NDCG. A choice among lines should be made with --valid: test metrics are for the report.\n\n"
      "--tests: a user's values are averaged over the seeds of a line and compared user by user.\n"
      "  95 %        percentile interval of the difference over 10,000 bootstrap resamples of the users\n"
      "  p (t)       paired t-test, two-sided; p (W): Wilcoxon's signed ranks, users without a difference left out\n"
      "  Holm        the p-value corrected for the number of lines tested on this metric\n"
      "  effect      Cohen's d of pairs: mean difference / standard deviation of the differences\n"
      "  p (seeds)   paired t-test over the seeds that both lines have, from six on: fewer cannot tell\n"
      "--lists: of the lists of k items that the best epoch's model gives the test users\n"
      "  coverage    share of the items that are in some list; Gini: how unevenly they are, 0 evenly, 1 one item "
      "alone\n"
      "  ARP         mean number of training rows of a list's items; tail: share of them outside the most popular\n"
      "              items that hold 80 % of the training rows; novelty: mean -log2 of their share of the training "
      "rows\n"
      "  ILD m       mean distance (1 - cosine) between two items of a list by the features of modality m\n"
      "--groups: five groups of items and four of users, by quantiles of their training rows.\n"
      "docs/metrics.md has the definitions, and what the tests assume.");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return compare(*o, io); }; });
}

}  // namespace ccdrec::cli
