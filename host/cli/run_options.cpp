#include "host/cli/run_options.h"

#include <fmt/format.h>

#include <filesystem>

#include "data/error.h"
#include "data/path.h"
#include "host/systems/registry.h"

namespace ccdrec::cli {

void add_run_options(CLI::App& sub, RunOptions& o) {
  sub.add_option("-m,--model", o.model,
                 fmt::format("{} (default {})", fmt::join(system_names(), ", "), Settings{}.model))
      ->type_name("MODEL");
  sub.add_option("-d,--data", o.data, "data folder: NAME.inter and NAME_feat.npy files; `-d baby` also finds data/baby")
      ->type_name("FOLDER");
  sub.add_option("-c,--config", o.configs, "YAML with MMRec's key names; several files: the later one wins")
      ->type_name("FILE")
      ->allow_extra_args(false);
  sub.add_option("--set", o.sets, "one setting, any key, e.g. --set learning_rate=1e-3 --set topk=[10,20]")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  sub.add_option("--seed", o.seed, "same seed, same numbers (default 999)")->type_name("N");
  sub.add_option("--device", o.device, "auto, cpu or cuda; auto says what it took and why")->type_name("DEVICE");
  sub.add_option("--threads", o.threads, "CPU threads; never changes a result (default: all cores)")->type_name("N");
}

std::vector<KeyValue> command_line(const RunOptions& o) {
  std::vector<KeyValue> list;
  for (const std::string& text : o.sets) list.push_back(parse_assignment(text));
  const auto add = [&](const char* key, const std::string& value, const char* origin) {
    if (!value.empty()) list.push_back(plain_value(key, value, origin));
  };
  add("model", o.model, "-m"), add("seed", o.seed, "--seed"), add("device", o.device, "--device"),
      add("threads", o.threads, "--threads");
  return list;
}

Config resolve_run(const RunOptions& o, const std::vector<std::string>& files, const std::vector<KeyValue>& list,
                   Grids grids) {
  Config config = resolve_config(files, list, grids);
  if (!o.data.empty()) config.settings.data_path = o.data, config.origin["data_path"] = "-d";
  return config;
}

void settle_data_folder(Config& config) {
  Settings& s = config.settings;
  const std::string inner = (std::filesystem::path(s.data_path) / s.dataset).string();
  if (!s.dataset.empty() && config.origin["data_path"] != "-d" && is_folder(inner)) s.data_path = inner;
  if (s.data_path.empty() && !s.dataset.empty()) s.data_path = s.dataset;
  s.data_path = find_data_folder(s.data_path);
}

}  // namespace ccdrec::cli
