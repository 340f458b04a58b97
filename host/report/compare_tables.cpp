#include "host/report/compare_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "data/text.h"
#include "host/base/metric_name.h"

namespace ccdrec {
namespace {

struct Column {
  std::string key, title;
  int digits = 4;
};
const Column kMetricColumns[] = {{"recall@5", "R@5"}, {"recall@10", "R@10"}, {"recall@20", "R@20"},
                                 {"ndcg@5", "N@5"},   {"ndcg@10", "N@10"},   {"ndcg@20", "N@20"}};

Cell mean_cell(const std::vector<double>& x, int digits) {
  return Cell::number(mean(x), digits, x.size() > 1 ? deviation(x) : NAN);
}

// Rows of the lines: name, seeds, a cell a column.
void add_lines(ResultTable& t, const RunSet& set, const std::vector<Column>& columns, bool valid) {
  t.columns = {"run", "seeds"};
  for (const Column& c : columns) t.columns.push_back(c.title);
  for (const RunGroup* g : set.lines) {
    auto& row = t.rows.emplace_back();
    row = {g->name, Cell::number(double(g->runs.size()), 0)};
    for (const Column& c : columns) row.push_back(mean_cell(g->of(c.key, valid), c.digits));
  }
}

const char* split_name(bool valid) { return valid ? "validation" : "test"; }

const char* over_seeds(const RunSet& set) {
  const bool several =
      std::any_of(set.lines.begin(), set.lines.end(), [](const auto* g) { return g->runs.size() > 1; });
  return several ? ", mean ± standard deviation over seeds" : "";
}

int k_of(const RunSet& set) { return metric_cutoff(metric_key(set.lines[0]->settings.valid_metric)); }

ResultTable bin_table(const RunSet& set, std::vector<RunBin> RunOfSeed::*bins, const char* what) {
  const int k = k_of(set);
  const std::string key = fmt::format("recall@{}", k);
  ResultTable t;
  t.title = fmt::format("{}, test {} by {}{}", set.title, key, what, over_seeds(set));
  t.columns = {"run", "seeds"};
  const std::vector<RunBin>* like = nullptr;  // bins of the first run that has some: those of one set are alike
  for (const RunGroup* g : set.lines)
    for (const RunOfSeed& run : g->runs)
      if (!like && !(run.*bins).empty()) like = &(run.*bins);
  for (size_t b = 0; like && b < like->size(); ++b) {
    const RunBin& bin = (*like)[b];
    t.columns.push_back(fmt::format("{}: {}-{} rows", b + 1, bin.fewest, bin.most));
    t.notes.push_back(
        bin.items < 0 ? fmt::format("{}: {} users", b + 1, bin.users)
                      : fmt::format("{}: {} items, {} test rows of {} users", b + 1, bin.items, bin.rows, bin.users));
  }
  std::string all;
  for (const std::string& note : t.notes) all += (all.empty() ? "" : "; ") + note;
  t.notes = all.empty() ? std::vector<std::string>{} : std::vector<std::string>{all};
  for (const RunGroup* g : set.lines) {
    auto& row = t.rows.emplace_back();
    row = {g->name, Cell::number(double(g->runs.size()), 0)};
    for (size_t b = 0; like && b < like->size(); ++b) {
      std::vector<double> values;
      for (const RunOfSeed& run : g->runs) {
        const std::vector<RunBin>& own = run.*bins;
        const bool has = b < own.size() && same_bin(own[b], (*like)[b]) && own[b].metrics.count(key);
        values.push_back(has ? own[b].metrics.at(key) : NAN);
      }
      row.push_back(mean_cell(values, 4));
    }
  }
  for (size_t c = 2; c < t.columns.size(); ++c) mark_best(t, c);
  return t;
}

nlohmann::ordered_json bins_json(const RunGroup& g, std::vector<RunBin> RunOfSeed::*bins) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  const std::vector<RunBin>& first = g.runs[0].*bins;
  for (size_t b = 0; b < first.size(); ++b) {
    nlohmann::ordered_json& j = all.emplace_back();
    if (first[b].items >= 0) j["items"] = first[b].items, j["rows"] = first[b].rows;
    j["users"] = first[b].users, j["train_rows"] = {first[b].fewest, first[b].most};
    for (const auto& [key, value] : first[b].metrics)
      for (const RunOfSeed& run : g.runs) {
        const std::vector<RunBin>& own = run.*bins;
        const bool has = b < own.size() && same_bin(own[b], first[b]) && own[b].metrics.count(key);
        j[key].push_back(has ? own[b].metrics.at(key) : NAN);
      }
  }
  return all;
}

nlohmann::ordered_json series_json(const RunGroup& g, bool valid, const std::set<std::string>& keys) {
  nlohmann::ordered_json j = nlohmann::ordered_json::object();
  for (const std::string& key : keys) j[key] = g.of(key, valid);
  return j;
}

}  // namespace

ResultTable metric_table(const RunSet& set, bool valid) {
  ResultTable t;
  t.title = fmt::format("{}, {} metrics of the best validation epoch{}", set.title, split_name(valid), over_seeds(set));
  add_lines(t, set, {std::begin(kMetricColumns), std::end(kMetricColumns)}, valid);
  for (size_t c = 2; c < t.columns.size(); ++c) mark_best(t, c);
  const Column ends[] = {{"best_epoch", "best epoch", 0}, {"epochs", "epochs", 0}, {"seconds", "seconds", 1}};
  for (const Column& c : ends) {
    t.columns.push_back(c.title);
    for (size_t r = 0; r < t.rows.size(); ++r)
      t.rows[r].push_back(Cell::number(set.lines[r]->mean_of(c.key, valid), c.digits));
  }
  for (const RunGroup* g : set.lines)
    if (!g->note.empty()) t.notes.push_back(g->name + ": " + g->note);
  return t;
}

ResultTable list_table(const RunSet& set, bool valid) {
  const int k = k_of(set);
  const auto at = [&](const std::string& stem) { return fmt::format("{}@{}", stem, k); };
  std::vector<Column> columns = {{at("mrr"), "MRR", 4},        {at("hit"), "Hit", 4}, {at("coverage"), "coverage", 4},
                                 {at("gini"), "Gini", 4},      {at("arp"), "ARP", 2}, {at("tail"), "tail", 4},
                                 {at("novelty"), "novelty", 3}};
  std::set<std::string> distances;  // ild_image@20, one a modality
  for (const RunGroup* g : set.lines)
    for (const RunOfSeed& run : g->runs)
      for (const auto& [key, value] : run.lists)
        if (key.starts_with("ild_") && metric_cutoff(key) == k) distances.insert(key);
  for (const std::string& key : distances) columns.push_back({key, "ILD " + key.substr(4, key.find('@') - 4), 4});
  ResultTable t;
  t.title = fmt::format("{}, lists of {} items of the best validation epoch: {} MRR and Hit, test lists{}", set.title,
                        k, split_name(valid), over_seeds(set));
  add_lines(t, set, columns, valid);
  mark_best(t, 2), mark_best(t, 3);  // of the others more is not better
  return t;
}

std::vector<ResultTable> bin_tables(const RunSet& set) {
  return {bin_table(set, &RunOfSeed::popularity, "popularity of the items (training rows of an item)"),
          bin_table(set, &RunOfSeed::activity, "activity of the users (training rows of a user)")};
}

ResultTable test_table(const RunSet& set, const MetricTests& tests, bool valid, const std::string& chosen) {
  ResultTable t;
  t.title = fmt::format("{}, {} {} against {} ({}{})", set.title, split_name(valid), tests.key, tests.against->name,
                        Cell::number(tests.against->mean_of(tests.key, valid), 4).text, chosen);
  t.columns = {"run",      "difference", "%",        "95 % from", "to",       "p (t)",
               "Holm (t)", "p (W)",      "Holm (W)", "effect",    "p (seeds)"};
  std::vector<std::pair<std::string, std::string>> reasons;  // why no test over users, and of which lines
  int64_t users = 0;
  for (const LineTest& line : tests.lines) {
    auto& row = t.rows.emplace_back();
    const PairedTest none{
        .n = 0, .t = NAN, .p_t = NAN, .w = NAN, .p_wilcoxon = NAN, .low = NAN, .high = NAN, .effect = NAN};
    const PairedTest& test = line.users.test ? *line.users.test : none;
    users = std::max(users, test.n);
    row = {line.line->name,
           Cell::number(line.difference, 4),
           Cell::number(line.percent, 2),
           Cell::number(test.low, 4),
           Cell::number(test.high, 4),
           Cell::p_value(test.p_t),
           Cell::p_value(line.holm_t),
           Cell::p_value(test.p_wilcoxon),
           Cell::p_value(line.holm_wilcoxon),
           Cell::number(test.effect, 3),
           line.seeds.why_not.empty() ? Cell::p_value(line.seeds.p) : Cell(line.seeds.why_not)};
    if (line.users.test) continue;
    auto it =
        std::find_if(reasons.begin(), reasons.end(), [&](const auto& r) { return r.first == line.users.why_not; });
    if (it == reasons.end()) it = reasons.insert(it, {line.users.why_not, ""});
    it->second += (it->second.empty() ? "" : ", ") + line.line->name;
  }
  if (users > 0)
    t.notes.push_back(
        fmt::format("over {} users, their values averaged over seeds; t: paired t-test, W: Wilcoxon's "
                    "signed ranks, Holm: corrected for the lines; effect: Cohen's d",
                    thousands(users)));
  for (const auto& [why, lines] : reasons) t.notes.push_back(fmt::format("no test over users of {}: {}", lines, why));
  return t;
}

nlohmann::ordered_json group_json(const RunGroup& g, const std::string& set_title, bool valid) {
  std::set<std::string> metrics, lists;
  std::vector<std::string> dirs;
  std::vector<uint32_t> seeds;
  for (const RunOfSeed& run : g.runs) {
    for (const auto& [key, value] : valid ? run.valid : run.test) metrics.insert(key);
    for (const auto& [key, value] : run.lists) lists.insert(key);
    dirs.push_back(run.dir), seeds.push_back(run.seed);
  }
  nlohmann::ordered_json values = nlohmann::ordered_json::object();
  for (const char* key : {"best_epoch", "epochs", "seconds"}) values[key] = g.of(key, valid);
  for (const std::string& key : metrics) values[key] = g.of(key, valid);
  for (const Column& column : kMetricColumns)
    if (!values.contains(column.key)) values[column.key] = nullptr;  // what the table shows as -
  nlohmann::ordered_json j = {{"name", g.name}, {"label", g.label}};
  if (!g.note.empty()) j["note"] = g.note;
  j["model"] = g.settings.model;
  j["data"] = set_title;
  j["interactions"] = g.interactions;
  j["seeds"] = seeds;
  j["runs"] = dirs;
  j["values"] = values;
  if (!lists.empty()) j["lists"] = series_json(g, valid, lists);
  if (!g.runs[0].popularity.empty())
    j["groups"] = {{"popularity", bins_json(g, &RunOfSeed::popularity)},
                   {"activity", bins_json(g, &RunOfSeed::activity)}};
  j["settings"] = g.values;
  return j;
}

nlohmann::ordered_json test_json(const LineTest& line, const MetricTests& tests) {
  nlohmann::ordered_json j = {{"metric", tests.key},
                              {"against", tests.against->name},
                              {"difference", line.difference},
                              {"percent", line.percent}};
  if (line.users.test) {
    const PairedTest& t = *line.users.test;
    j["users"] = {{"n", t.n},
                  {"difference", t.difference},
                  {"interval", {t.low, t.high}},
                  {"t", t.t},
                  {"p_t", t.p_t},
                  {"p_t_holm", line.holm_t},
                  {"w", t.w},
                  {"p_wilcoxon", t.p_wilcoxon},
                  {"p_wilcoxon_holm", line.holm_wilcoxon},
                  {"effect", t.effect}};
  } else {
    j["users"] = {{"why_not", line.users.why_not}};
  }
  j["seeds"] = {{"common", line.seeds.common}, {"p", line.seeds.p}};
  if (!line.seeds.why_not.empty()) j["seeds"]["why_not"] = line.seeds.why_not;
  return j;
}

}  // namespace ccdrec
