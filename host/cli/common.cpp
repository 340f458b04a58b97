#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "data/error.h"
#include "data/path.h"
#include "data/text.h"
#include "host/base/device.h"
#include "host/cli/cli.h"

namespace ccdrec::cli {
std::function<std::string(const std::string&)> whole_number(int64_t least, int64_t most) {
  return [=](const std::string& text) -> std::string {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= least && value <= most) return "";
    return fmt::format("'{}' is no whole number from {} to {}", shown(text), least, most);
  };
}

void add_device_options(CLI::App& sub, std::string& device, int& threads) {
  const auto own_name = [](const std::string& text) { return lower(text) == "gpu" ? std::string("cuda") : text; };
  sub.add_option("--device", device, "auto, cpu or cuda")
      ->transform(own_name, "")
      ->type_name("DEVICE")
      ->capture_default_str();
  sub.add_option("--threads", threads, "CPU threads; 0: all cores")
      ->check(whole_number(0, 4096), "")
      ->type_name("N")
      ->capture_default_str();
}

std::string find_data_folder(const std::string& folder) {
  if (folder.empty())
    throw UserError("no data folder given; name one with -d FOLDER (`ccdrec synth demo --out demo` makes one to try)");
  for (const std::string& candidate : {folder, "data/" + folder})
    if (is_folder(candidate)) return absolute_path(candidate);
  if (path_exists(folder)) {
    const std::string parent = std::filesystem::path(folder).parent_path().string();
    throw UserError(
        fmt::format("{}: is a file, expected the folder that holds the .inter file and the features; give {}", folder,
                    parent.empty() ? "." : parent));
  }
  throw UserError(fmt::format("{}: no such data folder (data/{} neither)", folder, folder));
}

Dataset load_data(const Settings& s, bool need_features, Io& io) {
  LoadOptions options;
  options.name = s.dataset, options.file = s.inter_file_name;
  options.user_field = s.user_id_field, options.item_field = s.item_id_field,
  options.label_field = s.inter_splitting_label;
  options.need_features = need_features;
  options.modalities = s.modalities;
  const Range range(ops_for_ranges(s.device), RangeId::read);
  Dataset data = load_dataset(s.data_path, options);
  for (const std::string& warning : data.warnings) io.err << "note: " << warning << '\n';
  return data;
}

std::string bold(const Io& io, const std::string& s) { return io.color ? "\x1b[1m" + s + "\x1b[0m" : s; }

}  // namespace ccdrec::cli
