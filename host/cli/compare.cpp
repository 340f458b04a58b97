// ccdrec compare: several runs as one table per data set, mean and deviation over seeds.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "data/path.h"
#include "data/text.h"
#include "host/cli/cli.h"
#include "host/cli/trained_run.h"
#include "host/files/run_folder.h"

namespace ccdrec::cli {
namespace {

struct CompareOptions {
  std::vector<std::string> runs;
  bool markdown = false, json = false, valid = false;
};

constexpr const char* kColumns[] = {"recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20"};
constexpr const char* kTitles[] = {"R@5", "R@10", "R@20", "N@5", "N@10", "N@20"};

struct Group {                                // runs that differ in nothing but the seed
  std::string model, data, interactions;      // name and checksum of the set
  std::string counts;                         // "200 users, 120 items, 1,600 training rows"
  std::map<std::string, std::string> values;  // settings that decide numbers
  // metric -> one value per seed; also "epochs", "best_epoch", "seconds"
  std::map<std::string, std::vector<double>> series;
  std::set<int64_t> seeds;
  std::string name;
};

bool same_set(const Group& a, const Group& b) { return a.data == b.data && a.interactions == b.interactions; }

std::map<std::string, std::string> deciding(const Settings& s) {
  std::map<std::string, std::string> values = config_values(s);
  for (const char* key : {"seed", "run_dir", "threads", "device", "data_path", "dataset", "inter_file_name",
                          "graph_cache", "mem_limit_gb", "save_best", "save_last", "save_every"})
    values.erase(key);
  return values;
}

void add_run(const std::string& dir, bool valid, std::vector<Group>& groups, Io& io) {
  const RunFolder folder = RunFolder::open(dir);
  if (!folder.has("summary.json")) {
    io.err << fmt::format("note: {} has no summary yet (still running, or killed); left out\n", dir);
    return;
  }
  const Settings s = folder.config().settings;
  check_run(folder, s, io);
  const nlohmann::json j = folder.summary();
  try {
    const std::string stopped = j.at("stopped");
    if (j.at("best_epoch").get<int>() < 0) {
      io.err << fmt::format("note: {} was never evaluated (it ended as {}); left out\n", dir, stopped);
      return;
    }
    if (stopped == "interrupted" || stopped == "diverged")
      io.err << fmt::format("note: {} ended as {}; its best epoch so far is shown\n", dir, stopped);
    Group g;
    // One table a set of interactions: models that read no features stand beside those that do.
    const nlohmann::json& data = j.at("data");
    g.model = s.model, g.data = data.at("name"), g.interactions = data.at("interactions");
    g.counts = fmt::format("{} users, {} items, {} training rows", thousands(data.at("users").get<int64_t>()),
                           thousands(data.at("items").get<int64_t>()), thousands(data.at("train").get<int64_t>()));
    g.values = deciding(s);
    g.values["data"] = data.at("checksum").get<std::string>();
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const Group& have) { return same_set(have, g) && have.values == g.values; });
    if (it == groups.end()) it = groups.insert(groups.end(), g);
    if (!it->seeds.insert(int64_t(s.seed)).second) {
      io.err << fmt::format("note: {} repeats seed {} of the same settings; left out\n", dir, s.seed);
      return;
    }
    const bool absent = data.at(valid ? "valid" : "test").get<int64_t>() == 0;  // earlier programs wrote zeros
    if (!absent)
      for (const auto& [key, value] : j.at(valid ? "best_valid" : "best_test").items())
        it->series[key].push_back(value.get<double>());
    it->series["epochs"].push_back(j.at("epochs_run").get<double>());
    it->series["best_epoch"].push_back(j.at("best_epoch").get<double>());
    it->series["seconds"].push_back(j.at("train_seconds").get<double>() + j.at("eval_seconds").get<double>());
  } catch (const nlohmann::json::exception&) {
    throw UserError(fmt::format("{}: written by another version, or damaged", folder.path("summary.json")));
  }
}

double mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / double(x.size());
}
double deviation(const std::vector<double>& x) {  // of a sample: n-1
  const double m = mean(x);
  double sum = 0;
  for (const double v : x) sum += (v - m) * (v - m);
  return x.size() > 1 ? std::sqrt(sum / double(x.size() - 1)) : 0;
}

// The model, and the settings in which groups of one model differ: "CCDRec omega=0.7".
void name_groups(std::vector<Group>& groups) {
  for (Group& g : groups) {
    g.name = g.model;
    for (const auto& [key, value] : g.values) {
      bool differs = false;
      for (const Group& other : groups)
        if (other.model == g.model && same_set(other, g)) {
          const auto it = other.values.find(key);
          differs |= it == other.values.end() || it->second != value;
        }
      if (differs) g.name += fmt::format(" {}={}", key, value);
    }
  }
}

// Two sets of one name are told apart by what they hold.
std::string title(const std::string& name, const Group& g, const std::vector<Group>& groups) {
  const bool unique =
      std::none_of(groups.begin(), groups.end(), [&](const Group& o) { return o.data == g.data && !same_set(o, g); });
  return name + (unique ? "" : fmt::format(" ({}, checksum {})", g.counts, shown(g.interactions)));
}

std::vector<std::vector<std::string>> table_of(const std::vector<const Group*>& groups, const CompareOptions& o,
                                               Io& io) {
  std::vector<std::vector<std::string>> rows(1, {"run", "seeds"});
  rows[0].insert(rows[0].end(), std::begin(kTitles), std::end(kTitles));
  for (const char* title : {"best epoch", "epochs", "seconds"}) rows[0].push_back(title);
  std::map<std::string, double> best;
  for (const Group* g : groups)
    for (const char* column : kColumns)
      if (const auto it = g->series.find(column); it != g->series.end()) {
        const auto [at, fresh] = best.emplace(column, mean(it->second));
        if (!fresh) at->second = std::max(at->second, mean(it->second));
      }
  for (const Group* g : groups) {
    std::vector<std::string> row = {g->name, std::to_string(g->seeds.size())};
    for (const char* column : kColumns) {
      const auto it = g->series.find(column);
      if (it == g->series.end()) {
        row.push_back("-");
        continue;
      }
      std::string cell = fmt::format("{:.4f}", mean(it->second));
      if (it->second.size() > 1) cell += fmt::format(" ± {:.4f}", deviation(it->second));
      const bool is_best = groups.size() > 1 && mean(it->second) == best[column];
      if (o.markdown)
        row.push_back(is_best ? "**" + cell + "**" : cell);
      else if (io.color)
        row.push_back(is_best ? bold(io, cell) : cell);
      else
        row.push_back(cell + (groups.size() > 1 ? is_best ? "*" : " " : ""));
    }
    for (const char* column : {"best_epoch", "epochs"})
      row.push_back(fmt::format("{:.0f}", mean(g->series.at(column))));
    row.push_back(fmt::format("{:.1f}", mean(g->series.at("seconds"))));
    rows.push_back(row);
  }
  return rows;
}

std::string markdown(const std::vector<std::vector<std::string>>& rows) {
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (const std::string& cell : rows[r]) out += "| " + cell + " ";
    out += "|\n";
    if (r == 0) {
      for (size_t c = 0; c < rows[0].size(); ++c) out += c == 0 ? "|---" : "|---:";
      out += "|\n";
    }
  }
  return out;
}

int compare(const CompareOptions& o, Io& io) {
  std::vector<Group> groups;
  for (const std::string& dir : o.runs) {
    // `compare runs/*` may meet files: a pattern is no promise.
    if (o.runs.size() > 1 && !path_exists(dir + "/config.yaml")) {
      io.err << fmt::format("note: {} is not a run folder; left out\n", dir);
      continue;
    }
    add_run(dir, o.valid, groups, io);
  }
  if (groups.empty()) throw UserError("no finished run among the folders named");
  // from the simplest model to the richest, as papers print them
  const auto rank = [order = system_names()](const Group& g) {
    return std::find(order.begin(), order.end(), g.model) - order.begin();
  };
  std::stable_sort(groups.begin(), groups.end(), [&](const Group& a, const Group& b) { return rank(a) < rank(b); });
  name_groups(groups);
  if (o.json) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const Group& g : groups) {
      nlohmann::ordered_json values = g.series;
      for (const char* column : kColumns)
        if (!g.series.count(column)) values[column] = nullptr;  // what the table shows as -
      all.push_back({{"name", g.name},
                     {"model", g.model},
                     {"data", title(g.data, g, groups)},
                     {"interactions", g.interactions},
                     {"seeds", g.seeds},
                     {"values", values},
                     {"settings", g.values}});
    }
    io.out << all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
    return kDone;
  }
  std::vector<std::string> sets;
  for (const Group& g : groups)
    if (const std::string data = title(shown(g.data), g, groups);
        std::find(sets.begin(), sets.end(), data) == sets.end())
      sets.push_back(data);
  for (const std::string& data : sets) {
    std::vector<const Group*> of_set;
    bool several = false;
    for (const Group& g : groups)
      if (title(shown(g.data), g, groups) == data) of_set.push_back(&g), several |= g.seeds.size() > 1;
    io.out << (data == sets[0] ? "" : "\n") << data << ", " << (o.valid ? "validation" : "test")
           << " metrics of the best validation epoch" << (several ? ", mean ± standard deviation over seeds" : "")
           << (of_set.size() > 1 && !io.color && !o.markdown ? "; * = best" : "") << (o.markdown ? "\n\n" : "\n");
    const auto rows = table_of(of_set, o, io);
    io.out << (o.markdown ? markdown(rows) : format_table(rows));
  }
  return kDone;
}

}  // namespace

void add_compare(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<CompareOptions>();
  CLI::App* sub = app.add_subcommand("compare", "several runs as one table, mean and deviation over seeds");
  sub->add_option("RUNS", o->runs, "run folders")->required();
  sub->add_flag("--valid", o->valid, "validation metrics instead of test metrics");
  sub->add_flag("--markdown", o->markdown, "a table for a README");
  sub->add_flag("--json", o->json, "every value of every seed, full precision");
  sub->footer(
      "Runs that differ only in the seed (and in threads, paths, saving) form one line; settings in which lines of a "
      "model differ are named.\n"
      "R = Recall, N = NDCG. A choice among lines should be made with --valid: test metrics are for the report.");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return compare(*o, io); }; });
}

}  // namespace ccdrec::cli
