#include "host/experiments/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "data/error.h"
#include "data/path.h"
#include "data/safe_file.h"
#include "data/text.h"
#include "host/files/run_folder.h"
#include "host/training/checkpoint.h"

namespace ccdrec {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kResultsFormat = "ccdrec-results-1";

bool same_run(const Json& a, const Json& b) { return a.at("key") == b.at("key") && a.at("seed") == b.at("seed"); }
bool same_test(const Json& a, const Json& b) {
  for (const char* key : {"interactions", "a", "b", "metric", "seeds"})
    if (a.value(key, Json()) != b.value(key, Json())) return false;
  return true;
}

template <class Same>
void put(Json& list, const Json& entry, Same&& same) {
  for (Json& have : list)
    if (same(have, entry)) {
      have = entry;
      return;
    }
  list.push_back(entry);
}

std::string command_of(const PlannedRun& run) {
  std::string text = "ccdrec";
  for (size_t k = 0; k < run.words.size(); ++k) {
    if (run.words[k] == "--no-progress") continue;
    // the folder's place says nothing; its name does
    const bool data = k > 0 && run.words[k - 1] == "-d";
    text += " " + shell_word(data ? run.words[k].substr(run.words[k].find_last_of('/') + 1) : run.words[k]);
  }
  return text;
}

}  // namespace

Results::Results(const std::string& path) : path_(path) {
  if (path_exists(path)) read();
  const SafeFile opens(path);  // a place that refuses says so now and not after the first run
}

void Results::read() {
  const Json j = Json::parse(read_text(path_), nullptr, false);
  const bool right = j.is_object() && j.value("format", "") == kResultsFormat && j.contains("runs") &&
                     j["runs"].is_array() && std::all_of(j["runs"].begin(), j["runs"].end(), [](const Json& run) {
                       return run.is_object() && run.contains("key") && run["key"].is_string() &&
                              run.contains("seed") && run["seed"].is_number_unsigned() && run.contains("best_valid");
                     });
  if (!right)
    throw UserError(
        fmt::format("{}: no file of results of this program (a JSON object with format {}); name another "
                    "with --results",
                    path_, kResultsFormat));
  runs_ = j["runs"];
  tests_ = j.value("tests", Json::array());
}

void Results::write() const {
  std::string text = fmt::format("{{\n\"format\": \"{}\",\n\"runs\": [", kResultsFormat);
  const auto lines = [&](const Json& list) {
    for (size_t k = 0; k < list.size(); ++k)
      text += (k ? ",\n" : "\n") + list[k].dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  lines(runs_);
  text += "\n],\n\"tests\": [";
  lines(tests_);
  text += "\n]\n}\n";
  write_text(path_, text);
}

const Json* Results::find(const PlannedRun& run) const {
  for (const Json& have : runs_)
    if (have["key"] == run.key && have["seed"] == run.settings().seed) return &have;
  return nullptr;
}

void Results::add(const PlannedRun& run, const std::string& folder) {
  const Json summary = RunFolder::open(folder).summary();
  Json entry;
  entry["key"] = run.key, entry["seed"] = run.settings().seed, entry["label"] = run.label;
  if (!run.point.empty()) entry["point"] = point_text(run.point);
  entry["command"] = command_of(run);
  for (const char* key : {"model", "stopped", "message", "epochs_run", "best_epoch", "valid_metric", "best_valid",
                          "best_test", "lists", "groups", "train_seconds", "eval_seconds"})
    if (summary.contains(key)) entry[key] = summary[key];
  const RunTimes times = run_times(folder, summary.value("best_epoch", -1));
  entry["epoch_seconds"] = times.epoch, entry["to_best_seconds"] = times.to_best, entry["phases"] = times.phases;
  entry["plan_bytes"] = run.bytes;
  if (summary.contains("data")) entry["data"] = summary["data"], entry["data"].erase("folder");
  entry["settings"] = settings_fingerprint(run.settings());
  if (summary.contains("machine")) entry["machine"] = summary["machine"];
  if (summary.contains("build")) entry["build"] = summary["build"];
  if (path_exists(path_)) read();
  put(runs_, entry, same_run);
  if (keeps()) write();
}

void Results::add_test(const Json& test) {
  if (path_exists(path_)) read();
  put(tests_, test, same_test);
  if (keeps()) write();
}

const Json* Results::find_test(const Json& which) const {
  for (const Json& have : tests_)
    if (same_test(have, which)) return &have;
  return nullptr;
}

RunTimes run_times(const std::string& dir, int best_epoch) {
  RunTimes times;
  const std::string path = dir + "/metrics.jsonl";
  if (!path_exists(path)) return times;
  std::istringstream in(read_text(path));
  std::vector<std::map<std::string, double>> epochs;
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object() || !j.contains("seconds") || !j["seconds"].is_object()) continue;
    epochs.emplace_back();
    for (const auto& [name, value] : j["seconds"].items())
      if (value.is_number()) epochs.back()[name] = value.get<double>();
    if (j.value("epoch", 0) <= best_epoch) times.to_best += epochs.back()["train"] + epochs.back()["evaluation"];
  }
  const size_t first = epochs.size() > 1 ? 1 : 0;  // the first touches all memory for the first time
  for (size_t e = first; e < epochs.size(); ++e)
    for (const auto& [name, value] : epochs[e]) times.phases[name] += value / double(epochs.size() - first);
  times.epoch = times.phases.count("train") ? times.phases["train"] : 0;
  times.phases.erase("train");
  return times;
}

}  // namespace ccdrec
