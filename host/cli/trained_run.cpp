#include "host/cli/trained_run.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <tuple>

#include "data/error.h"
#include "data/path.h"
#include "data/text.h"
#include "host/training/checkpoint.h"

namespace ccdrec::cli {
namespace {

CMat representation(const TensorFile& file, const char* name, int64_t rows, const std::string& path) {
  const TensorData& t = file.tensors.at(name);
  if (t.dtype != "F32" || t.shape.size() != 2)
    throw UserError(fmt::format("{}: {} is no float32 matrix; is it a checkpoint of this program?", path, name));
  if (t.shape[0] != rows)
    throw UserError(fmt::format("{}: {} has {} rows and the data set {}; give the data the run was trained with", path,
                                name, t.shape[0], rows));
  for (int64_t j = 0; j < t.shape[0] * t.shape[1]; ++j)
    if (!std::isfinite(t.f32()[j]))
      throw UserError(
          fmt::format("{}: {} holds {} in row {}; the run diverged, train again with a smaller learning_rate", path,
                      name, t.f32()[j], j / t.shape[1]));
  return {t.f32(), t.shape[0], t.shape[1]};
}

// Row u of final.user belongs to the u-th raw id of the run: another order of ids would recommend to the wrong people.
void check_ids(const RunFolder& folder, const char* file, const IdMap& map, const std::string& data_folder) {
  const std::vector<std::string> ids = folder.ids(file);
  bool same = int64_t(ids.size()) == map.size();
  size_t at = 0;
  for (; same && at < ids.size(); ++at) same = ids[at] == map.raw(int64_t(at));
  if (!same)
    throw UserError(
        fmt::format("{}: its ids differ from those the run was trained with ({}); give that data folder with -d",
                    data_folder, folder.path(file)));
}

[[noreturn]] void unreadable_summary(const RunFolder& folder) {
  throw UserError(fmt::format("{}: written by another version, or damaged", folder.path("summary.json")));
}

// The first value that differs, as "recall@20 is 0.2, not 0.1"; empty: none does.
std::string differing(const Metrics& is, const Metrics& was) {
  for (const auto& [key, value] : was) {
    const auto it = is.find(key);
    if (it == is.end() || it->second != value)
      return fmt::format("{} is {}, not {}", key, it == is.end() ? "absent" : fmt::to_string(it->second), value);
  }
  return is.size() == was.size() ? "" : "it has more of them";
}

void check_summary(const RunFolder& folder, const Settings& s, const std::string& file, const RunIdentity* run,
                   bool has_numbers) {
  const std::string path = folder.path("summary.json");
  const auto contradiction = [&](const std::string& what, const std::string& other) {
    throw UserError(
        fmt::format("{}: contradicts {}: {}; put back the file that belongs to this run", path, other, what));
  };
  const nlohmann::json j = folder.summary();
  try {
    const std::string model = j.at("model");
    const int64_t seed = j.at("seed");
    if (model != s.model) contradiction(fmt::format("model is {}, not {}", shown(model), s.model), "config.yaml");
    if (seed != int64_t(s.seed)) contradiction(fmt::format("seed is {}, not {}", seed, s.seed), "config.yaml");
    if (!run) return;
    const std::string checksum = j.at("data").at("checksum"), interactions = j.at("data").at("interactions");
    if (!run->data.empty() && checksum != run->data)
      contradiction(fmt::format("data checksum is {}, not {}", shown(checksum), shown(run->data)), file);
    if (!run->interactions.empty() && interactions != run->interactions)
      contradiction(fmt::format("interactions are {}, not {}", shown(interactions), shown(run->interactions)), file);
    const int best_epoch = j.at("best_epoch");
    if (!has_numbers || best_epoch < 0) return;
    if (best_epoch != run->summary.best_epoch)
      contradiction(fmt::format("best_epoch is {}, not {}", best_epoch, run->summary.best_epoch), file);
    for (const auto& [name, split, was] : {std::tuple{"best_valid", "valid", &run->summary.best_valid},
                                           std::tuple{"best_test", "test", &run->summary.best_test}}) {
      if (j.at("data").at(split).get<int64_t>() == 0) continue;  // a split without rows has no figures
      const std::string differs = differing(j.at(name).get<Metrics>(), *was);
      if (!differs.empty()) contradiction(fmt::format("of {} {}", name, differs), file);
    }
  } catch (const nlohmann::json::exception&) { unreadable_summary(folder); }
}

// The interactions' checksum by the run's own files; empty: they do not tell.
std::string trained_interactions(const RunFolder& folder) {
  for (const char* file : {kBest, kLast})
    if (folder.has(file))
      if (const std::string told = run_identity(folder.path(file)).interactions; !told.empty()) return told;
  if (!folder.has("summary.json")) return "";
  try {
    return folder.summary().at("data").at("interactions");
  } catch (const nlohmann::json::exception&) { unreadable_summary(folder); }
}

// For runs of earlier programs that were killed: what they were computed from, which tells of the features too.
std::string trained_data(const RunFolder& folder) {
  for (const char* file : {kBest, kLast})
    if (folder.has(file))
      if (const std::string told = run_identity(folder.path(file)).data; !told.empty()) return told;
  return "";
}

}  // namespace

void check_run(const RunFolder& folder, const Settings& s, Io& io) {
  RunIdentity numbers;
  std::string file;
  for (const char* name : {kLast, kBest}) {
    if (!folder.has(name)) continue;
    const RunIdentity run = run_identity(folder.path(name));
    if (run.settings.empty()) {
      io.err << fmt::format("note: {}: does not say which run it is of, so it is taken as that of config.yaml\n",
                            folder.path(name));
      continue;
    }
    if (const std::string differs = other_settings(run, s); !differs.empty())
      throw UserError(fmt::format("{}: contradicts {}: {}; put back the file that belongs to this run",
                                  folder.path("config.yaml"), name, differs));
    if (file.empty() || s.save_best) file = name, numbers = run;
  }
  if (!folder.has("summary.json")) return;
  // A file that is no longer saved is older than the summary, and so is the state of a run that diverged.
  const bool has_numbers =
      file == kBest ? s.save_best : s.save_last && folder.summary().value("stopped", "") != "diverged";
  check_summary(folder, s, file, file.empty() ? nullptr : &numbers, has_numbers);
}

std::string run_data_folder(const Settings& s, const std::string& given) {
  if (given.empty() && !is_folder(s.data_path))
    throw UserError(
        fmt::format("{}: the data folder of this run is no longer there; name its new place with -d", s.data_path));
  return find_data_folder(given.empty() ? s.data_path : given);
}

bool check_interactions(const RunFolder& folder, const Settings& s, const Dataset& data, bool other_data, Io& io) {
  std::string was = trained_interactions(folder), is = data.interactions;
  const char* what = "interactions";
  if (was.empty()) {
    was = trained_data(folder);
    if (uses_features(s) && !was.empty()) {
      what = "interactions or features";
      try {
        std::ostringstream nowhere;  // what there is to note of this folder has been noted
        Io quiet{nowhere, nowhere};
        is = load_data(s, true, quiet).checksum;
      } catch (const UserError&) { was.clear(); }
    }
  }
  if (was.empty()) {
    io.err << fmt::format(
        "note: {}: nothing in it tells which interactions it was trained with, so those of {} are taken as they are\n",
        folder.dir(), data.folder);
    return true;
  }
  if (is == was) return true;
  const std::string differs = fmt::format("{}: its {} are not those the run was trained with (checksum {}, then {})",
                                          data.folder, what, is, shown(was));
  if (!other_data)
    throw UserError(fmt::format(
        "{}; give that data folder with -d, or --other-data to go on with figures that are not comparable", differs));
  io.err << fmt::format("note: {}: {}\n", differs, kNotComparable);
  return false;
}

TrainedRun load_run(const std::string& run_dir, const std::string& data_folder, bool other_data, Io& io) {
  RunFolder folder = RunFolder::open(run_dir);
  Config config = folder.config();
  Settings& s = config.settings;
  check_run(folder, s, io);
  s.data_path = run_data_folder(s, data_folder);
  const std::string best = folder.path(kBest);
  if (!path_exists(best))
    throw UserError(
        fmt::format("{}: has no best.safetensors yet (save_best was off, or no epoch was evaluated)", run_dir));
  const std::vector<std::string> names = {"final.user", "final.item"};
  TensorFile tensors = read_safetensors(best, &names);
  Dataset data = load_data(s, false, io);
  check_ids(folder, "users.tsv", data.users, data.folder);
  check_ids(folder, "items.tsv", data.items, data.folder);
  const bool comparable = check_interactions(folder, s, data, other_data, io);
  TrainedRun run{std::move(folder), std::move(config), std::move(data), std::move(tensors), {}, {}, comparable};
  run.hu = representation(run.tensors, "final.user", run.data.n_users, best);
  run.hi = representation(run.tensors, "final.item", run.data.n_items, best);
  if (run.hu.cols != run.hi.cols) throw UserError(fmt::format("{}: final.user and final.item differ in width", best));
  return run;
}

std::vector<int> parse_topk(const std::string& text, const std::vector<int>& standard) {
  if (text.empty()) return standard;
  std::set<int> ks;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) {
    int k = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), k);
    if (error != std::errc() || end != item.data() + item.size() || k < 1)
      throw UserError(
          fmt::format("--topk {}: expected list lengths from 1 to 2147483647 separated by commas, e.g. 5,10,20", text));
    ks.insert(k);
  }
  return {ks.begin(), ks.end()};
}

}  // namespace ccdrec::cli
