#include "host/report/run_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/path.h"
#include "data/text.h"
#include "host/files/user_values.h"
#include "host/report/statistics.h"
#include "host/systems/label.h"
#include "host/systems/registry.h"

namespace ccdrec {
namespace {

// Settings without those that change no number but the seed's.
std::map<std::string, std::string> deciding(const Settings& s) {
  std::map<std::string, std::string> values = config_values(s);
  for (const char* key : {"seed", "run_dir", "threads", "device", "data_path", "dataset", "inter_file_name",
                          "graph_cache", "mem_limit_gb", "save_best", "save_last", "save_every"})
    values.erase(key);
  return values;
}

void note(const RunReading& reading, const std::string& sentence) {
  if (reading.note) reading.note(sentence);
}

double number_or_nan(const nlohmann::json& j) { return j.is_null() ? NAN : j.get<double>(); }

Figures figures_of(const nlohmann::json& j) {
  Figures f;
  for (const auto& [key, value] : j.items()) f[key] = number_or_nan(value);
  return f;
}

std::vector<RunBin> bins_of(const nlohmann::json& all) {
  std::vector<RunBin> bins;
  for (const nlohmann::json& j : all) {
    RunBin bin;
    bin.items = j.value("items", int64_t(-1)), bin.rows = j.value("rows", int64_t(-1));
    bin.users = j.at("users").get<int64_t>();
    bin.fewest = j.at("train_rows").at(0).get<int64_t>(), bin.most = j.at("train_rows").at(1).get<int64_t>();
    for (const auto& [key, value] : j.items())
      if (key.find('@') != std::string::npos) bin.metrics[key] = number_or_nan(value);
    bins.push_back(bin);
  }
  return bins;
}

RunOfSeed run_of(const RunFolder& folder, const Settings& s, const nlohmann::json& j) {
  RunOfSeed run;
  run.dir = folder.dir(), run.seed = s.seed;
  for (const auto& [split, best, to] :
       {std::tuple{"valid", "best_valid", &run.valid}, {"test", "best_test", &run.test}})
    if (j.at("data").at(split).get<int64_t>() > 0) *to = figures_of(j.at(best));  // earlier programs wrote zeros
  if (j.contains("lists")) run.lists = figures_of(j.at("lists"));
  if (j.contains("groups")) {
    run.popularity = bins_of(j.at("groups").at("popularity"));
    run.activity = bins_of(j.at("groups").at("activity"));
  }
  run.has_lists = j.contains("lists") && j.contains("groups");
  run.has_users = j.contains("users") && folder.has(kUserFile);
  run.best_epoch = j.at("best_epoch").get<double>(), run.epochs = j.at("epochs_run").get<double>();
  run.seconds = j.at("train_seconds").get<double>() + j.at("eval_seconds").get<double>();
  return run;
}

RunGroup line_of_run(const Settings& s, const nlohmann::json& data) {
  RunGroup g;
  g.settings = s, g.label = label_of(s), g.note = label_note(s);
  // One table a set of interactions: models that read no features stand beside those that do.
  g.data = data.at("name"), g.interactions = data.at("interactions");
  g.counts = fmt::format("{} users, {} items, {} training rows", thousands(data.at("users").get<int64_t>()),
                         thousands(data.at("items").get<int64_t>()), thousands(data.at("train").get<int64_t>()));
  g.values = deciding(s);
  g.values["data"] = data.at("checksum").get<std::string>();
  return g;
}

void add_run(const std::string& dir, std::vector<RunGroup>& groups, const RunReading& reading) {
  const RunFolder folder = RunFolder::open(dir);
  if (!folder.has("summary.json"))
    return note(reading, fmt::format("{} has no summary yet (still running, or killed); left out", dir));
  const Settings s = folder.config().settings;
  if (reading.check) reading.check(folder, s);
  const nlohmann::json j = folder.summary();
  try {
    const std::string stopped = j.at("stopped");
    if (j.at("best_epoch").get<int>() < 0)
      return note(reading, fmt::format("{} was never evaluated (it ended as {}); left out", dir, stopped));
    if (stopped == "interrupted" || stopped == "diverged")
      note(reading, fmt::format("{} ended as {}; its best epoch so far is shown", dir, stopped));
    const RunGroup line = line_of_run(s, j.at("data"));
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const RunGroup& have) { return same_set(have, line) && have.values == line.values; });
    if (it == groups.end()) it = groups.insert(groups.end(), line);
    const auto at =
        std::find_if(it->runs.begin(), it->runs.end(), [&](const RunOfSeed& r) { return r.seed >= s.seed; });
    if (at != it->runs.end() && at->seed == s.seed)
      return note(reading, fmt::format("{} repeats seed {} of the same settings; left out", dir, s.seed));
    it->runs.insert(at, run_of(folder, s, j));
  } catch (const nlohmann::json::exception&) {
    throw UserError(fmt::format("{}: written by another version, or damaged", folder.path("summary.json")));
  }
}

// The label, and the settings in which lines of one label differ: "CCDRec(FREEDOM) omega=0.7".
void name_groups(std::vector<RunGroup>& groups) {
  for (RunGroup& g : groups) {
    g.name = g.label;
    for (const auto& [key, value] : g.values) {
      const bool differs = std::any_of(groups.begin(), groups.end(), [&](const RunGroup& other) {
        if (other.label != g.label || !same_set(other, g)) return false;
        const auto it = other.values.find(key);
        return it == other.values.end() || it->second != value;
      });
      if (differs) g.name += fmt::format(" {}={}", key, value);
    }
  }
}

}  // namespace

bool same_bin(const RunBin& a, const RunBin& b) {
  return a.items == b.items && a.rows == b.rows && a.users == b.users && a.fewest == b.fewest && a.most == b.most;
}

bool same_set(const RunGroup& a, const RunGroup& b) { return a.data == b.data && a.interactions == b.interactions; }

std::vector<double> RunGroup::of(const std::string& key, bool valid_split) const {
  std::vector<double> out;
  for (const RunOfSeed& run : runs) {
    const Figures own = {{"best_epoch", run.best_epoch}, {"epochs", run.epochs}, {"seconds", run.seconds}};
    double value = NAN;
    for (const Figures* figures : {&own, valid_split ? &run.valid : &run.test, &run.lists})
      if (const auto it = figures->find(key); it != figures->end() && std::isnan(value)) value = it->second;
    out.push_back(value);
  }
  return out;
}

double RunGroup::mean_of(const std::string& key, bool valid_split) const { return mean(of(key, valid_split)); }

std::vector<RunGroup> group_runs(const std::vector<std::string>& dirs, const RunReading& reading) {
  std::vector<RunGroup> groups;
  for (const std::string& dir : dirs) {
    // `compare runs/*` may meet files: a pattern is no promise.
    if (dirs.size() > 1 && !path_exists(dir + "/config.yaml"))
      note(reading, fmt::format("{} is not a run folder; left out", dir));
    else
      add_run(dir, groups, reading);
  }
  std::erase_if(groups, [](const RunGroup& g) { return g.runs.empty(); });
  if (groups.empty()) throw UserError("no finished run among the folders named");
  const auto rank = [order = system_names()](const RunGroup& g) {
    return std::find(order.begin(), order.end(), g.settings.model) - order.begin();
  };
  std::stable_sort(groups.begin(), groups.end(),
                   [&](const RunGroup& a, const RunGroup& b) { return rank(a) < rank(b); });
  name_groups(groups);
  return groups;
}

std::vector<RunSet> sets_of(const std::vector<RunGroup>& groups) {
  std::vector<RunSet> sets;
  for (const RunGroup& g : groups) {
    auto it = std::find_if(sets.begin(), sets.end(), [&](const RunSet& set) { return same_set(*set.lines[0], g); });
    if (it == sets.end()) {
      const bool unique = std::none_of(groups.begin(), groups.end(),
                                       [&](const RunGroup& o) { return o.data == g.data && !same_set(o, g); });
      const std::string which = unique ? "" : fmt::format(" ({}, checksum {})", g.counts, shown(g.interactions));
      it = sets.insert(it, {g.data + which, {}});
    }
    it->lines.push_back(&g);
  }
  return sets;
}

}  // namespace ccdrec
