// ccdrec check: reads a data folder as training would, all of it, and says what is in it.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "data/error.h"
#include "data/stats.h"
#include "host/cli/cli.h"

namespace ccdrec::cli {
namespace {

struct CheckOptions {
  std::string data;
  std::vector<std::string> sets;
};

bool concerns_data(const std::string& key) {
  for (const char* name : {"USER_ID_FIELD", "ITEM_ID_FIELD", "inter_splitting_label", "dataset", "inter_file_name",
                           "modalities", "vision_feature_file", "text_feature_file"})
    if (key == name) return true;
  return false;
}

int check(const CheckOptions& o, Io& io) {
  std::vector<KeyValue> list;
  for (const std::string& text : o.sets) list.push_back(parse_assignment(text));
  Settings s = resolve_config({}, list).settings;
  s.data_path = find_data_folder(o.data);
  // Whatever model is trained later: features are read when they are there, and their absence is no fault of the
  // interactions.
  const bool features = has_features(s.data_path) || !s.modalities.empty();
  Dataset data = load_data(s, features, io);
  const auto remark = [&](const std::string& note) {
    io.err << "note: " << note << '\n';
    data.warnings.push_back(note);
  };
  if (!features)
    remark("no *_feat.npy in it: BPR and LightGCN can be trained; LATTICE, FREEDOM and CCDRec read item features");
  for (const KeyValue& kv : list)
    if (!concerns_data(kv.key))
      io.err << fmt::format("note: {}: {} has no influence on check, which reads data and trains nothing\n", kv.origin,
                            kv.key);
  // Training reads every feature value; a NaN in the last row should be found here, not there. In blocks: the files may
  // be large.
  for (const Feature& f : data.features) {
    const int64_t block = std::max<int64_t>(1, (int64_t(1) << 22) / std::max<int64_t>(1, f.matrix.cols()));
    std::vector<float> rows(size_t(std::min(block, f.matrix.rows()) * f.matrix.cols()));
    for (int64_t first = 0; first < f.matrix.rows(); first += block)
      f.matrix.read_rows(rows.data(), first, std::min(block, f.matrix.rows() - first));
  }
  const std::string text = describe(data);
  io.out << text << (text.empty() || text.back() != '\n' ? "\n" : "");
  io.out << (data.warnings.empty() ? "usable, nothing to remark\n"
                                   : fmt::format("usable, with {} {}\n", data.warnings.size(),
                                                 data.warnings.size() == 1 ? "note" : "notes"));
  return kDone;
}

}  // namespace

void add_check(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<CheckOptions>();
  CLI::App* sub = app.add_subcommand("check", "validate a data folder, every value of it, and print its statistics");
  sub->add_option("FOLDER", o->data, "data folder")->required();
  sub->add_option("--set", o->sets, "keys that name columns, e.g. --set USER_ID_FIELD=user")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  sub->footer(
      "Exit code 0: training can read it. 2: one sentence names the file, the line or row, and what was expected.");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return check(*o, io); }; });
}

}  // namespace ccdrec::cli
