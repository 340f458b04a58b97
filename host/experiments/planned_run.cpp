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

Standing standing_of(const std::string& dir, int epochs) {
  Standing now;
  if (!path_exists(dir + "/config.yaml")) return now;
  const RunFolder folder = RunFolder::open(dir);
  now.kind = Standing::begun;
  if (!folder.has("summary.json")) {
    // Asked to go further than this before it was stopped: so far it had come.
    if (folder.config().settings.epochs > epochs) now.kind = Standing::over;
    return now;
  }
  now.summary = folder.summary();
  const std::string stopped = now.summary.value("stopped", "");
  if (stopped == "diverged")
    now.kind = Standing::diverged;
  else if (stopped == "early" || (stopped == "max_epochs" && now.summary.value("epochs_run", 0) >= epochs) ||
           folder.config().settings.epochs > epochs)
    now.kind = Standing::over;
  return now;
}

double best_within(const std::string& dir, const std::string& metric, int epochs) {
  double best = -1;
  const std::string path = dir + "/metrics.jsonl";
  if (!path_exists(path)) return best;
  std::istringstream in(read_text(path));
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object() || !j.contains("epoch") || !j["epoch"].is_number_integer() ||
        j["epoch"].get<int64_t>() >= epochs)
      continue;
    if (j.contains("valid") && j["valid"].is_object() && j["valid"].contains(metric) && j["valid"][metric].is_number())
      best = std::max(best, j["valid"][metric].get<double>());
  }
  return best;
}

}  // namespace ccdrec
