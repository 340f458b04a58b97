#include "host/cli/trained_run.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <set>
#include <sstream>

#include "data/error.h"
#include "data/path.h"

namespace ccdrec::cli {
namespace {

CMat representation(const TensorFile& file, const char* name, int64_t rows, const std::string& path) {
  const TensorData& t = file.tensors.at(name);
  if (t.dtype != "F32" || t.shape.size() != 2)
    throw UserError(fmt::format("{}: {} is no float32 matrix; is it a checkpoint of this program?", path, name));
  if (t.shape[0] != rows)
    throw UserError(fmt::format("{}: {} has {} rows and the data set {}; give the data the run was trained with", path, name, t.shape[0], rows));
  for (int64_t j = 0; j < t.shape[0] * t.shape[1]; ++j)
    if (!std::isfinite(t.f32()[j]))
      throw UserError(fmt::format("{}: {} holds {} in row {}; the run diverged, train again with a smaller learning_rate", path, name, t.f32()[j],
                                  j / t.shape[1]));
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
        fmt::format("{}: its ids differ from those the run was trained with ({}); give that data folder with -d", data_folder, folder.path(file)));
}

}  // namespace

TrainedRun load_run(const std::string& run_dir, const std::string& data_folder, Io& io) {
  RunFolder folder = RunFolder::open(run_dir);
  Config config = folder.config();
  Settings& s = config.settings;
  if (!data_folder.empty()) s.data_path = data_folder;
  if (data_folder.empty() && !is_folder(s.data_path))
    throw UserError(fmt::format("{}: the data folder of this run is no longer there; name its new place with -d", s.data_path));
  s.data_path = find_data_folder(s.data_path);
  const std::string best = folder.path("best.safetensors");
  if (!path_exists(best)) throw UserError(fmt::format("{}: has no best.safetensors yet (save_best was off, or no epoch was evaluated)", run_dir));
  const std::vector<std::string> names = {"final.user", "final.item"};
  TensorFile tensors = read_safetensors(best, &names);
  Dataset data = load_data(s, false, io);
  check_ids(folder, "users.tsv", data.users, data.folder);
  check_ids(folder, "items.tsv", data.items, data.folder);
  TrainedRun run{std::move(folder), std::move(config), std::move(data), std::move(tensors), {}, {}};
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
      throw UserError(fmt::format("--topk {}: expected list lengths from 1 to 2147483647 separated by commas, e.g. 5,10,20", text));
    ks.insert(k);
  }
  return {ks.begin(), ks.end()};
}

}  // namespace ccdrec::cli
