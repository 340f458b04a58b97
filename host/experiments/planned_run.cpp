#include "host/experiments/planned_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "data/path.h"
#include "data/sha256.h"
#include "data/text.h"
#include "host/files/run_folder.h"
#include "host/training/checkpoint.h"

namespace ccdrec {

PlannedRun planned_run(const Asked& asked, const std::string& label, const Point& point, const std::string& seed) {
  PlannedRun run;
  run.label = label, run.point = point;
  run.words = {"train", "--no-progress", "-d", asked.data};
  std::vector<KeyValue> list;
  for (const std::string& file : asked.configs) run.words.insert(run.words.end(), {"-c", file});
  for (const std::string& text : asked.sets) {
    list.push_back(parse_assignment(text));
    run.words.insert(run.words.end(), {"--set", text});
  }
  for (const KeyValue& v : point) {
    list.push_back(v);
    run.words.insert(run.words.end(), {"--set", v.key + "=" + v.value});
  }
  const auto add = [&](const char* option, const char* key, const std::string& value) {
    if (value.empty()) return;
    list.push_back(plain_value(key, value, option));
    run.words.insert(run.words.end(), {option, value});
  };
  add("-m", "model", asked.model), add("--device", "device", asked.device), add("--seed", "seed", seed);
  if (!asked.threads.empty())
    list.push_back(plain_value("threads", asked.threads, "--threads"));  // a run has its share
  run.config = resolve_config(asked.configs, list);
  run.config.settings.data_path = asked.data;
  return run;
}

std::string run_key(const Settings& settings, const Dataset& data) {
  Settings s = settings;
  s.seed = 0;
  const std::string text = fmt::format("{} epochs={} topk={} data={}", settings_fingerprint(s), s.epochs,
                                       fmt::join(s.topk, ","), uses_features(s) ? data.checksum : data.interactions);
  return sha256(text).substr(0, 12);
}

std::string run_name(const Settings& s, const std::string& key) {
  return fmt::format("{}-s{}-{}", s.model, s.seed, key);
}

namespace {

// The lines of metrics.jsonl, one an epoch that is complete.
std::vector<nlohmann::json> epochs_in(const std::string& dir) {
  std::vector<nlohmann::json> epochs;
  const std::string path = dir + "/metrics.jsonl";
  if (!path_exists(path)) return epochs;
  std::istringstream in(read_text(path));
  for (std::string line; std::getline(in, line);) {
    auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_object() && j.contains("epoch") && j["epoch"].is_number_integer()) epochs.push_back(std::move(j));
  }
  return epochs;
}

}  // namespace

Standing standing_of(const std::string& dir, int epochs) {
  Standing now;
  if (!path_exists(dir + "/config.yaml")) return now;
  const RunFolder folder = RunFolder::open(dir);
  now.kind = Standing::begun;
  int trained = 0;
  if (folder.has("summary.json")) {
    now.summary = folder.summary();
    const std::string stopped = now.summary.value("stopped", "");
    trained = now.summary.value("epochs_run", 0);
    if (stopped == "diverged") now.kind = trained >= epochs ? Standing::over : Standing::diverged;
    if (stopped == "early") now.kind = Standing::over;
  } else if (const auto all = epochs_in(dir); !all.empty()) {
    trained = all.back()["epoch"].get<int>() + 1;
    // It may be on its way to more; the last epoch it was asked for ends with a summary.
    if (trained == folder.config().settings.epochs) --trained;
  }
  if (now.kind == Standing::begun && trained >= epochs) now.kind = Standing::over;
  return now;
}

double best_within(const std::string& dir, const std::string& metric, int epochs) {
  double best = -1;
  for (const nlohmann::json& j : epochs_in(dir)) {
    if (j["epoch"].get<int64_t>() >= epochs || !j.contains("valid") || !j["valid"].is_object()) continue;
    if (j["valid"].contains(metric) && j["valid"][metric].is_number())
      best = std::max(best, j["valid"][metric].get<double>());
  }
  return best;
}

}  // namespace ccdrec
