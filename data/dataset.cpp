#include "data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "data/error.h"
#include "data/hash.h"
#include "data/inter.h"
#include "data/path.h"
#include "data/text.h"

namespace ccdrec {

namespace fs = std::filesystem;

// ---------------------------------------------------------------------------------------------------------------- ids

IdMap IdMap::dense_of(int64_t n) {
  IdMap m;
  m.n_ = n;
  return m;
}

IdMap IdMap::of(std::vector<std::string> raw) {
  IdMap m;
  m.n_ = int64_t(raw.size());
  m.raw_ = std::move(raw);
  m.index_.reserve(m.raw_.size());
  for (size_t i = 0; i < m.raw_.size(); ++i) m.index_.emplace(m.raw_[i], int64_t(i));
  return m;
}

int64_t IdMap::find(const std::string& raw) const {
  if (!dense()) {
    const auto it = index_.find(raw);
    return it == index_.end() ? -1 : it->second;
  }
  if (raw.empty() || raw.size() > 10 || (raw.size() > 1 && raw[0] == '0')) return -1;  // "007" is not what raw(7) gives
  int64_t v = 0;
  for (char c : raw) {
    if (c < '0' || c > '9') return -1;
    v = v * 10 + (c - '0');
  }
  return v < n_ ? v : -1;
}

// -------------------------------------------------------------------------------------------------------------- files

namespace {

constexpr const char* kFeatureEnd = "_feat.npy";

// file names without the ending, sorted
std::vector<std::string> names_ending(const std::string& folder, const std::string& end) {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const std::string name = entry.path().filename().string();
    if (name.size() > end.size() && name.ends_with(end) && name[0] != '.')
      out.push_back(name.substr(0, name.size() - end.size()));
  }
  if (ec) throw UserError(fmt::format("{}: cannot be listed ({})", folder, ec.message()));
  std::sort(out.begin(), out.end());
  return out;
}

struct Found {
  std::string name, path;
};
Found find_inter(const std::string& folder, const std::string& asked, const std::string& file) {
  std::error_code ec;
  if (!fs::exists(folder, ec))
    throw UserError(folder + ": no such folder; expected a data set with NAME.inter in it (make one: ccdrec synth)");
  if (!fs::is_directory(folder, ec))
    throw UserError(folder + ": is a file, expected the folder that holds NAME.inter and the feature files");
  const auto at = [&](const std::string& name) -> std::string {
    for (const char* end : {".inter", ".inter.gz"})
      if (fs::exists(fs::path(folder) / (name + end), ec)) return (fs::path(folder) / (name + end)).string();
    return "";
  };
  const std::string own = fs::path(folder).filename().string();
  for (const auto& [key, value] : {std::pair{"dataset", &asked}, std::pair{"inter_file_name", &file}})
    if (value->find('/') != std::string::npos)
      throw UserError(
          fmt::format("{} = {}: is a path, expected the name of an .inter file in {}; name the folder with -d", key,
                      shown(*value), folder));
  if (!file.empty()) {
    std::string name = file;
    for (const std::string end : {".gz", ".inter"})
      if (name.size() > end.size() && name.ends_with(end)) name.resize(name.size() - end.size());
    // In MMRec `dataset` names the folder; here it may name the file, too.
    if (!asked.empty() && asked != name && (asked != own || !at(asked).empty()))
      throw UserError(fmt::format("{}: dataset = {} and inter_file_name = {} name two files; leave one of them away",
                                  folder, shown(asked), shown(file)));
    for (const char* end : {"", ".gz"})
      if (const fs::path path = fs::path(folder) / (file + end); fs::exists(path, ec)) return {name, path.string()};
    const std::vector<std::string> found = names_ending(folder, ".inter");
    throw UserError(fmt::format("{}: no {} in it, which inter_file_name names; .inter files found: {}", folder,
                                shown(file), found.empty() ? "none" : listed(found)));
  }
  if (!asked.empty()) {
    if (const std::string path = at(asked); !path.empty()) return {asked, path};
    throw UserError(fmt::format("{}: no {}.inter in it; .inter files found: {}", folder, shown(asked),
                                listed(names_ending(folder, ".inter"))));
  }
  if (const std::string path = at(own); !path.empty()) return {own, path};
  std::vector<std::string> names = names_ending(folder, ".inter");
  for (const std::string& n : names_ending(folder, ".inter.gz"))
    if (std::find(names.begin(), names.end(), n) == names.end()) names.push_back(n);
  if (names.size() == 1) return {names[0], at(names[0])};
  if (names.empty())
    throw UserError(folder +
                    ": no .inter file in it; expected NAME.inter, one interaction per line: userID, itemID, x_label "
                    "separated by tabs");
  throw UserError(fmt::format("{}: several .inter files ({}) and none named {}.inter; name the one to read", folder,
                              listed(names), own));
}

// ----------------------------------------------------------------------------------------------------------- features

struct Scan {
  int64_t zero_rows = 0, first_zero = -1;
};

// One pass over a matrix, by tiles: refuses NaN and infinity (the lowest row first, for any thread count), counts rows
// of zeros.
Scan scan_features(const NpyMatrix& m) {
  const int64_t tile = std::max<int64_t>(1, (int64_t(1) << 18) / m.cols()), tiles = (m.rows() + tile - 1) / tile;
  std::vector<Scan> part(size_t(tiles), Scan{});
  std::vector<std::string> refused;
  refused.resize(size_t(tiles));
#pragma omp parallel
  {
    std::vector<float> buffer(size_t(tile * m.cols()), 0.0f);
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = t * tile, n = std::min(tile, m.rows() - first);
      try {
        m.read_rows(buffer.data(), first, n);
      } catch (const UserError& e) {
        refused[size_t(t)] = e.what();
        continue;
      }
      for (int64_t r = 0; r < n; ++r) {
        const float* row = buffer.data() + r * m.cols();
        if (std::any_of(row, row + m.cols(), [](float x) { return x != 0.0f; })) continue;
        Scan& s = part[size_t(t)];
        if (s.zero_rows++ == 0) s.first_zero = first + r;
      }
    }
  }
  Scan all;
  for (int64_t t = 0; t < tiles; ++t) {
    if (!refused[size_t(t)].empty()) throw UserError(refused[size_t(t)]);
    if (all.zero_rows == 0) all.first_zero = part[size_t(t)].first_zero;
    all.zero_rows += part[size_t(t)].zero_rows;
  }
  return all;
}

// Do the ids of the file seem to begin at 1? Row 0 of the features then belongs to the item the file calls 1, and no
// count shows it.
bool begins_at_one(const InterFile& f) {
  return f.items.raw.empty() && std::find(f.item.begin(), f.item.end(), 0) == f.item.end();
}

void check_rows(const NpyMatrix& m, const InterFile& f) {
  if (m.rows() == f.items.n) return;
  const std::string inter = fs::path(f.path).filename().string();
  const bool from_one = begins_at_one(f);
  if (m.rows() == f.items.n - 1 && from_one)
    throw UserError(
        fmt::format("{}: has {} rows, and the items of {} are 1 to {}, but row i belongs to item i, from 0; subtract 1 "
                    "from every item id, or put a row "
                    "in front of the matrix",
                    m.path(), m.rows(), inter, f.items.n - 1));
  const char* shift = from_one ? "; no line names item 0: where the ids begin at 1, subtract 1 from each, or put a row "
                                 "in front of the matrix"
                               : "";
  if (m.rows() < f.items.n && f.items.raw.empty())
    throw UserError(
        fmt::format("{}: has {} rows, but {} line {} names item {}; expected one row for each of {} items: add the "
                    "missing rows, or remove such lines{}",
                    m.path(), m.rows(), inter, f.items.line_of_largest, f.items.n - 1, f.items.n, shift));
  throw UserError(
      fmt::format("{}: has {} rows, expected {}, one for each item of {}; make both from the same item list{}{}",
                  m.path(), m.rows(), f.items.n, inter,
                  m.rows() > f.items.n ? " (i_id_mapping.csv may list items that have no interactions)" : "", shift));
}

// A row for each user, and not named as a modality.
bool concerns_users(const std::string& name, const NpyMatrix& m, const Dataset& d) {
  return (name == "user" || name.starts_with("user_")) && m.rows() == d.n_users &&
         (name == "user" || m.rows() != d.n_items);
}

// image first, then by name
std::vector<std::string> feature_names(const std::string& folder) {
  std::vector<std::string> names = names_ending(folder, kFeatureEnd);
  const auto image = std::find(names.begin(), names.end(), "image");
  if (image != names.end()) std::rotate(names.begin(), image, image + 1);
  return names;
}

void load_features(Dataset& d, const InterFile& f, const LoadOptions& opt) {
  const std::vector<std::string> names = feature_names(d.folder);
  for (const std::string& want : opt.modalities)
    if (std::find(names.begin(), names.end(), want) == names.end())
      throw UserError(fmt::format("{}: no {}{} in it; modalities found: {}", d.folder, shown(want), kFeatureEnd,
                                  names.empty() ? "none" : listed(names)));
  if (names.empty())
    throw UserError(
        d.folder +
        ": no *_feat.npy in it; a multimodal model needs at least one, such as image_feat.npy, with one row per item");
  for (const std::string& name : names) {
    if (!opt.modalities.empty() &&
        std::find(opt.modalities.begin(), opt.modalities.end(), name) == opt.modalities.end())
      continue;
    NpyMatrix m((fs::path(d.folder) / (name + kFeatureEnd)).string());
    if (opt.modalities.empty() && concerns_users(name, m, d)) {
      d.warnings.push_back(
          fmt::format("{}{} has a row for each of the {} users; features of users are not used, it is left out", name,
                      kFeatureEnd, d.n_users));
      continue;
    }
    if (const std::string why = unusable_modality(name); !why.empty())
      throw UserError(
          fmt::format("{}: {} and rename the file, or list the others with --set modalities=[...]", m.path(), why));
    check_rows(m, f);
    const Scan s = scan_features(m);
    if (s.zero_rows)
      d.warnings.push_back(fmt::format("{}: {} of {} feature rows are all zero (first: item {})", name, s.zero_rows,
                                       m.rows(), shown(d.items.raw(s.first_zero))));
    d.features.push_back({name, std::move(m)});
  }
  if (d.features.empty())
    throw UserError(d.folder +
                    ": no *_feat.npy of items in it; a multimodal model needs at least one, such as image_feat.npy, "
                    "with one row per item");
  if (begins_at_one(f))
    d.warnings.push_back(
        "no line names item 0, to which row 0 of the features belongs; where the ids begin at 1, subtract 1 from each, "
        "or put a row in front of "
        "every "
        "matrix");
}

// ------------------------------------------------------------------------------------------------------- interactions

// Spec baselines 2.2: rows by label; validation and test rows of users without a training row are dropped.
void split_rows(Dataset& d, const InterFile& f) {
  std::vector<char> trained(size_t(d.n_users), 0);
  for (size_t r = 0; r < f.user.size(); ++r)
    if (f.label[r] == 0) trained[size_t(f.user[r])] = 1;
  const char* names[3] = {"training", "validation", "test"};
  for (int label = 0; label < 3; ++label) {
    std::vector<Pair>& to = label == 0 ? d.train : label == 1 ? d.valid : d.test;
    int64_t dropped = 0, total = 0;
    std::vector<int32_t> users;
    for (size_t r = 0; r < f.user.size(); ++r) {
      if (f.label[r] != label) continue;
      ++total;
      if (trained[size_t(f.user[r])]) {
        to.push_back({f.user[r], f.item[r]});
      } else {
        ++dropped;
        users.push_back(f.user[r]);
      }
    }
    if (total == 0 && label > 0)
      d.warnings.push_back(fmt::format("no {} rows (label {}): nothing to {} on", names[label], label,
                                       label == 1 ? "select the epoch" : "report"));
    if (dropped == 0) continue;
    const int32_t first = users[0];
    std::sort(users.begin(), users.end());
    const auto distinct = std::unique(users.begin(), users.end()) - users.begin();
    d.warnings.push_back(fmt::format("{} of {} {} rows dropped: their {} users have no training row (first: user {})",
                                     dropped, total, names[label], distinct, shown(d.users.raw(first))));
  }
  if (d.train.empty())
    throw UserError(fmt::format(
        "{}: no training rows; expected lines whose label is 0 (labels: 0 training, 1 validation, 2 test)", f.path));
}

void warn_about_rows(Dataset& d, const InterFile& f) {
  std::vector<char> seen(size_t(d.n_items), 0);
  for (int32_t i : f.item) seen[size_t(i)] = 1;
  const auto idle = std::count(seen.begin(), seen.end(), 0);
  if (idle)
    d.warnings.push_back(fmt::format("{} of {} items have no interactions (first: item {}); they stay candidates", idle,
                                     d.n_items,
                                     shown(d.items.raw(std::find(seen.begin(), seen.end(), 0) - seen.begin()))));

  std::vector<std::pair<uint64_t, uint8_t>> keys(f.user.size());  // (user, item), label
  for (size_t r = 0; r < keys.size(); ++r)
    keys[r] = {uint64_t(uint32_t(f.user[r])) << 32 | uint32_t(f.item[r]), f.label[r]};
  std::sort(keys.begin(), keys.end());
  int64_t repeated = 0, across = 0;
  uint64_t first_repeated = 0, first_across = 0;
  for (size_t r = 1; r < keys.size(); ++r) {
    if (keys[r].first != keys[r - 1].first) continue;
    const bool same_split = keys[r].second == keys[r - 1].second;
    uint64_t& first = same_split ? first_repeated : first_across;
    if ((same_split ? repeated : across)++ == 0) first = keys[r].first;
  }
  const auto named = [&](uint64_t key) {
    return fmt::format("user {}, item {}", shown(d.users.raw(int64_t(key >> 32))),
                       shown(d.items.raw(int64_t(uint32_t(key)))));
  };
  if (repeated)
    d.warnings.push_back(fmt::format(
        "{} duplicated rows (first: {}); graphs count them once, training draws them as often as they stand", repeated,
        named(first_repeated)));
  if (across)
    d.warnings.push_back(
        fmt::format("{} pairs stand in more than one split (first: {}); what is trained on is never recommended again",
                    across, named(first_across)));
}

}  // namespace

std::string unusable_modality(const std::string& name) {
  // before _embedding; adam lest it be taken for the moments
  static const std::set<std::string> tables = {"user", "item_id", "id", "adam"};
  static const std::set<std::string> groups = {"adam", "final",     "pool", "state",     "param", "grad",
                                               "new",  "estimator", "unet", "predictor", "ssl"};
  const size_t dot = name.find('.');
  if (tables.count(name) || (dot != std::string::npos && groups.count(name.substr(0, dot))))
    return fmt::format("'{}' is the name of tables that a model has beside those of modalities, choose another name",
                       shown(name));
  if (name.empty() || name[0] == '.' || name.find_first_of("/,") != std::string::npos || printable(name) != name)
    return fmt::format(
        "'{}' cannot name a modality, for a comma, a slash, a dot in front or a character that cannot be printed; "
        "choose another name",
        shown(name));
  return "";
}

std::vector<Feature> readable_features(const Dataset& d, const std::vector<std::string>& modalities,
                                       std::vector<std::string>& notes) {
  std::vector<Feature> features;
  std::vector<std::string> names = modalities;
  try {
    if (names.empty()) names = feature_names(d.folder);
    for (const std::string& name : names) try {
        NpyMatrix m((fs::path(d.folder) / (name + kFeatureEnd)).string());
        if (modalities.empty() && concerns_users(name, m, d)) continue;
        if (const std::string why = unusable_modality(name); !why.empty())
          throw UserError(fmt::format("{}: {}", m.path(), why));
        if (m.rows() != d.n_items)
          throw UserError(
              fmt::format("{}: has {} rows, expected {}, one for each item", m.path(), m.rows(), d.n_items));
        scan_features(m);
        features.push_back({name, std::move(m)});
      } catch (const UserError& e) { notes.push_back(printable(e.what())); }
  } catch (const UserError& e) { notes.push_back(printable(e.what())); }  // the folder
  return features;
}

bool has_features(const std::string& folder) {
  if (!is_folder(folder)) return false;
  const std::vector<std::string> names = names_ending(folder, kFeatureEnd);
  return std::any_of(names.begin(), names.end(), [](const std::string& name) { return name != "user"; });
}

bool holds_data_set(const std::string& folder) {
  if (!is_folder(folder)) return false;
  for (const char* end : {kFeatureEnd, ".inter", ".inter.gz"})
    if (!names_ending(folder, end).empty()) return true;
  return false;
}

Dataset load_dataset(const std::string& folder, const LoadOptions& opt) {
  Dataset d;
  fs::path clean = fs::path(folder).lexically_normal();
  if (clean.filename().empty()) clean = clean.parent_path();  // a slash at the end
  if (clean == ".") clean = fs::current_path();
  d.folder = clean.string();
  const Found found = find_inter(d.folder, opt.name, opt.file);
  d.name = found.name;
  if (printable(d.name) != d.name)  // it becomes the name of a run folder, and a column of tables
    throw UserError(found.path + ": its name holds characters that cannot be printed; rename it");
  const InterFile f = read_inter(found.path, {opt.user_field, opt.item_field, opt.label_field},
                                 read_id_mapping((clean / "u_id_mapping.csv").string(), opt.user_field),
                                 read_id_mapping((clean / "i_id_mapping.csv").string(), opt.item_field));
  d.warnings = f.notes;
  d.n_users = f.users.n;
  d.n_items = f.items.n;
  d.users = f.users.raw.empty() ? IdMap::dense_of(d.n_users) : IdMap::of(f.users.raw);
  d.items = f.items.raw.empty() ? IdMap::dense_of(d.n_items) : IdMap::of(f.items.raw);
  split_rows(d, f);
  warn_about_rows(d, f);
  if (opt.need_features) load_features(d, f, opt);
  if (opt.need_features && f.items.appearance)
    d.warnings.push_back(
        "items are numbered in order of first appearance; feature row 0 belongs to the first item of the file "
        "(i_id_mapping.csv would fix another "
        "order)");
  uint64_t sum = f.fingerprint;
  d.interactions = hex16(sum);
  for (const Feature& x : d.features)
    sum = hash_bytes(x.matrix.bytes(), x.matrix.byte_count(),
                     hash_bytes(x.name.data(), x.name.size(), sum ^ uint64_t(x.matrix.cols())));
  d.checksum = hex16(sum);
  for (std::string& warning : d.warnings) warning = printable(warning);
  return d;
}

}  // namespace ccdrec
