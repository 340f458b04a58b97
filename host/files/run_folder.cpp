#include "host/files/run_folder.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/error.h"
#include "data/path.h"
#include "data/safe_file.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/base/numbers.h"
#include "host/files/kept_figures.h"

namespace ccdrec {
namespace fs = std::filesystem;
namespace {

std::string dump(const nlohmann::json& j, int indent = -1) {
  return j.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string without_slashes(std::string dir) {  // at the end
  while (dir.size() > 1 && dir.back() == '/') dir.pop_back();
  return dir;
}

[[noreturn]] void refuse_folder(const std::string& dir, const std::string& why) {
  throw UserError(fmt::format("{}: the run folder cannot be made ({})", dir, why));
}

std::vector<std::string> names_in(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) names.push_back(entry.path().filename().string());
  if (error) throw UserError(fmt::format("{}: cannot be listed ({})", dir, error.message()));
  std::sort(names.begin(), names.end());
  return names;
}

// Only a run that holds the lock writes these, and this process has not begun to: a number that is its own was
// another's before.
bool left_over_of_killed(const std::string& name) {
  for (const char* file : {"config.yaml", "metrics.jsonl", "best.safetensors", "best-of-last.safetensors",
                           "last.safetensors", "users.tsv", "items.tsv", kUserFile, "summary.json"})
    if (const pid_t writer = writer_of_temporary(name, file); writer > 0)
      return writer == ::getpid() || (::kill(writer, 0) != 0 && errno == ESRCH);
  return false;
}

}  // namespace

void write_text(const std::string& path, const std::string& text) {
  SafeFile file(path);
  file.write(text);
  file.commit();
}

std::string default_run_dir(const Settings& s, const std::string& data_name, long time) {
  return fmt::format("runs/{}-{}-{}-{:%Y%m%d-%H%M%S}", s.model, data_name, s.seed, fmt::localtime(std::time_t(time)));
}

RunFolder RunFolder::create(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error || !is_folder(dir)) refuse_folder(dir, error ? error.message() : "a file is in the way");
  return RunFolder(without_slashes(dir));
}

RunFolder RunFolder::create_free(const std::string& dir) {
  std::error_code error;
  if (const fs::path parent = fs::path(dir).parent_path(); !parent.empty()) fs::create_directories(parent, error);
  if (error) refuse_folder(dir, error.message());
  for (int n = 1;; ++n) {  // mkdir: of two programs that ask for one name at a time, one gets it
    const std::string name = n == 1 ? dir : fmt::format("{}-{}", dir, n);
    if (::mkdir(name.c_str(), 0777) == 0) return RunFolder(name);
    if (errno != EEXIST) refuse_folder(name, std::strerror(errno));
  }
}

// A folder with any config.yaml is no run yet: somebody's own settings may have that name. A run writes where it lies.
bool RunFolder::is_own_config() const {
  const auto name = [](const std::string& path) { return fs::path(absolute_path(path)).filename(); };
  try {
    const std::string written = config().settings.run_dir;
    return !written.empty() && name(written) == name(dir_);
  } catch (const UserError&) { return false; }
}

void RunFolder::check_new() const {
  const bool config = has("config.yaml");
  for (const char* file : {"last.safetensors", "best.safetensors", "summary.json"})
    if (config && has(file))
      throw UserError(fmt::format("{}: already holds a run; continue it with --resume {}, or choose another --run-dir",
                                  dir_, shell_word(dir_)));
  // A run that was killed before it left anything but its settings is no loss: its folder may be used again.
  if (config && is_own_config()) return;
  for (const std::string& name : names_in(dir_)) {
    if (left_over_of_killed(name)) continue;
    throw UserError(fmt::format(
        "{}: is not empty and holds no run of this program (it has {}); name a new or an empty folder with --run-dir",
        dir_, shown(name)));
  }
}

void RunFolder::check_begun() const {
  if (!has("best.safetensors") && !is_own_config())
    throw UserError(fmt::format(
        "{}: no run has begun in it (its config.yaml is of another folder); train with -c {} and a --run-dir", dir_,
        path("config.yaml")));
}

void RunFolder::remove_left_over() const {
  for (const std::string& name : names_in(dir_))
    if (left_over_of_killed(name)) remove(name.c_str());
}

RunFolder RunFolder::open(const std::string& dir) {
  const std::string trimmed = without_slashes(dir);
  if (!path_exists(trimmed + "/config.yaml"))
    throw UserError(fmt::format("{}: not a run folder (it has no config.yaml)", dir));
  return RunFolder(trimmed);
}

bool RunFolder::has(const char* file) const { return path_exists(path(file)); }

void RunFolder::remove(const char* file) const {
  std::error_code error;
  fs::remove(path(file), error);
  if (error) throw UserError(fmt::format("{}: cannot be removed ({})", path(file), error.message()));
}

void RunFolder::rename(const char* from, const char* to) const {
  std::error_code error;
  fs::rename(path(from), path(to), error);
  if (error) throw UserError(fmt::format("{}: cannot take the place of {} ({})", path(from), to, error.message()));
}

RunLock::RunLock(const RunFolder& folder) : fd_(::open(folder.dir().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  // a file system without locks: no protection, no refusal
  if (fd_ < 0 || ::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(fd_);
  throw UserError(fmt::format("{}: another program is training in it; wait for its end, or choose another --run-dir",
                              folder.dir()));
}

RunLock::~RunLock() {
  if (fd_ >= 0) ::close(fd_);
}

Config RunFolder::config() const { return resolve_config({path("config.yaml")}, {}); }

void RunFolder::write_ids(const Dataset& data) const {
  const auto text = [](const IdMap& map) {
    std::string out;
    for (int64_t i = 0; i < map.size(); ++i) out += fmt::format("{}\t{}\n", i, map.raw(i));
    return out;
  };
  write_text(path("users.tsv"), text(data.users));
  write_text(path("items.tsv"), text(data.items));
}

std::vector<std::string> RunFolder::ids(const char* file) const {
  std::istringstream in(read_text(path(file)));
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos || line.substr(0, tab) != std::to_string(out.size()))
      throw UserError(fmt::format("{}:{}: expected `{} TAB raw id`", path(file), out.size() + 1, out.size()));
    out.push_back(line.substr(tab + 1));
  }
  return out;
}

nlohmann::json metrics_json(const Metrics& m) { return m.empty() ? nlohmann::json() : nlohmann::json(m); }

nlohmann::json epoch_json(const EpochReport& e) {
  nlohmann::json j = {
      {"epoch", e.epoch}, {"steps", e.steps}, {"loss", e.loss}, {"losses", e.losses}, {"seconds", e.seconds}};
  if (!e.negatives.empty()) j["negatives"] = e.negatives;
  for (const auto& [name, value] : e.figures) j[name] = value;
  if (!e.hardness.empty()) j["hardness"] = e.hardness;
  if (e.evaluated) j["valid"] = metrics_json(e.valid), j["test"] = metrics_json(e.test), j["improved"] = e.improved;
  return j;
}

void RunFolder::append_epoch(const EpochReport& e) const {
  std::ofstream file(path("metrics.jsonl"), std::ios::app);
  file << dump(epoch_json(e)) << '\n' << std::flush;
  if (!file) throw UserError(fmt::format("{}: cannot be written ({})", path("metrics.jsonl"), std::strerror(errno)));
}

void RunFolder::truncate_epochs(int first_dropped, int forgotten) const {
  if (!has("metrics.jsonl")) return;
  std::istringstream in(read_text(path("metrics.jsonl")));
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object() || !j.contains("epoch")) continue;
    const auto& epoch = j["epoch"];
    if (!epoch.is_number_unsigned() || epoch.get<uint64_t>() >= uint64_t(first_dropped)) continue;
    if (forgotten >= 0 && epoch == forgotten) {
      for (const char* key : {"valid", "test", "improved"}) j.erase(key);
      line = dump(j);
    }
    kept += line + "\n";
  }
  write_text(path("metrics.jsonl"), kept);
}

const char* reason_name(StopReason r) {
  switch (r) {
    case StopReason::running:
      return "running";
    case StopReason::early:
      return "early";
    case StopReason::max_epochs:
      return "max_epochs";
    case StopReason::interrupted:
      return "interrupted";
    case StopReason::diverged:
      return "diverged";
  }
  return "unknown";
}

std::string summary_text(const nlohmann::ordered_json& j) {
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void RunFolder::write_summary(const Config& config, const Dataset& data, const TrainSummary& s,
                              const ListFigures* lists) const {
  const Machine machine = this_machine();
  const Build build = this_build();
  nlohmann::ordered_json j;
  j["model"] = config.settings.model;
  j["data"] = {{"name", data.name},          {"folder", data.folder},      {"interactions", data.interactions},
               {"checksum", data.checksum},  {"users", data.n_users},      {"items", data.n_items},
               {"train", data.train.size()}, {"valid", data.valid.size()}, {"test", data.test.size()}};
  j["seed"] = config.settings.seed;
  j["stopped"] = reason_name(s.reason);
  if (!s.message.empty()) j["message"] = s.message;
  j["epochs_run"] = s.epochs_run;
  j["best_epoch"] = s.best_epoch;
  j["valid_metric"] = config.settings.valid_metric;
  j["best_score"] = s.best_valid.empty() ? nlohmann::json() : nlohmann::json(s.best_score);
  j["best_valid"] = metrics_json(s.best_valid);
  j["best_test"] = metrics_json(s.best_test);
  j["train_seconds"] = s.train_seconds;
  j["eval_seconds"] = s.eval_seconds;
  j["protocol"] =
      std::string("full ranking over all items; training items masked in validation and test; test metrics of the ") +
      (s.latest ? "last epoch evaluated: validation cannot select" : "best validation epoch");
  j["machine"] = {
      {"cpu", machine.cpu}, {"cores", machine.cores}, {"isa", machine.isa}, {"memory_bytes", machine.memory_bytes}};
  j["build"] = {
      {"version", build.version}, {"commit", build.commit}, {"compiler", build.compiler}, {"flags", build.flags}};
  if (lists) describe_figures(j, *lists, s.best_epoch);
  write_text(path("summary.json"), summary_text(j));
}

nlohmann::json RunFolder::summary() const {
  const std::string file = path("summary.json");
  auto j = nlohmann::json::parse(read_text(file), nullptr, false);
  if (!j.is_object()) throw UserError(fmt::format("{}: not a summary (no JSON object)", file));
  if (j.contains("stopped") && !j["stopped"].is_string())
    throw UserError(fmt::format("{}: stopped is no text; the file is damaged", file));
  for (const auto& [key, least] : {std::pair{"epochs_run", 0}, std::pair{"best_epoch", -1}})
    if (j.contains(key)) whole_number(j[key], least, INT_MAX, fmt::format("{}: {}", file, key));
  return j;
}

}  // namespace ccdrec
