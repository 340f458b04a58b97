// Measured on the public Amazon 5-core sets and imitated here (quantiles 5, 25, 50, 75, 95, 99 %, maximum of
// interactions):
//   Baby      users 5 5 6 9 17 31 | 125    items 5 7 11 23 78 184 | 780     top 1 % / 10 % of items hold 11.9 / 45.4 %
//   Sports    users 5 5 6 9 18 32 | 296    items 5 6 9 16 49 117 | 1042                                   11.9 / 41.8 %
//   Clothing  users 5 5 6 8 13 21 | 136    items 5 6 8 13 33 70 | 441                                      8.8 / 35.0 %
// - degree - 4 is close to lognormal: log deviation 1.0 to 1.1 for users, 1.2 to 1.45 for items (that is user_log_sd
//   and item_log_sd);
// - the spectrum of the normalised user-item matrix decays slowly (Baby: 1 .85 .80 .67 .60 .58 .55 at 1, 2, 3, 5, 10,
//   20, 64): many small groups;
// - an item's ten nearest neighbours by features are co-consumed 8 to 10 times as often as random pairs, while over all
//   pairs similarity says little; modalities are nearly independent of each other given taste; features do not reveal
//   popularity.
// No model's own assumption is built in: users choose from mixtures of interests by popularity and taste, features are
// random waves of taste and of a style that no user cares about.
#include "data/synth.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/error.h"
#include "data/npy.h"
#include "data/synth_parts.h"
#include "data/text.h"

namespace ccdrec {

namespace fs = std::filesystem;

namespace {

const std::vector<SynthParams>& presets() {
  // Strength and signal were set by trial until the statistics above came out, with item-kNN on the interactions at the
  // Recall@20 measured on the real sets (Baby .039, Sports .044, Clothing .027; here .04 to .05, .04, .025) and
  // popularity at .045, .031, .017 (here .06, .03, .02).
  const auto make = [](const char* name, int64_t users, int64_t items, int64_t interactions, double user_sd,
                       double item_sd, int64_t image, int64_t text, float strength, float signal) {
    SynthParams p;
    p.name = name;
    p.users = users, p.items = items, p.interactions = interactions;
    p.user_log_sd = user_sd, p.item_log_sd = item_sd;
    p.taste_strength = strength;
    p.modalities = {{"image", image, signal, true}, {"text", text, signal, false}};
    return p;
  };
  static const std::vector<SynthParams> all{
      make("tiny", 200, 120, 2000, 0.8, 0.8, 32, 16, 7.0f, 0.5f),
      make("demo", 2500, 1500, 26000, 1.0, 1.2, 256, 64, 11.0f, 0.55f),
      make("baby", 19445, 7050, 160792, 1.08, 1.42, 4096, 384, 8.5f, 0.55f),
      make("sports", 35598, 18357, 296337, 1.08, 1.33, 4096, 384, 11.6f, 0.4f),
      make("clothing", 39387, 23033, 278677, 0.95, 1.2, 4096, 384, 12.6f, 0.37f),
      make("elec", 192403, 63001, 1689188, 1.08, 1.45, 4096, 384, 13.0f, 0.4f),
  };
  return all;
}

// The largest share of users that own one item is 4 % on Baby, 3 % on Sports, 1 % on Clothing; small sets need more
// room.
int64_t most_per_item(const SynthParams& p) {
  const int64_t mean = (p.interactions + p.items - 1) / p.items;
  return std::min(p.users, std::max({p.users / 25, std::min(p.users / 2, 10 * mean), mean + 1}));
}

[[noreturn]] void refuse(const std::string& what) { throw UserError("synth: " + what); }

// Users own between min_per_user and half of the items each, every item has an owner, and rows are counted in 31 bits.
void check_sizes(const SynthParams& p) {
  constexpr int64_t kMost = INT32_MAX - 1;
  const int64_t least = p.min_per_user;
  if (p.users < 1 || p.users > kMost / least)
    refuse(fmt::format("users is {}, expected 1 to {}", p.users, kMost / least));
  if (p.items < std::max<int64_t>(4, least) || p.items > kMost)
    refuse(fmt::format("items is {}, expected {} to {}: a user has at least {} different ones", p.items,
                       std::max<int64_t>(4, least), kMost, least));
  const int64_t most = std::max(least, p.items / 2);
  if (p.users < (p.items + most - 1) / most)
    refuse(fmt::format(
        "{} {} of at most {} items each cannot own all of {} items; expected at least {} users, or fewer items",
        p.users, p.users == 1 ? "user" : "users", most, p.items, (p.items + most - 1) / most));
  const int64_t from = std::max(p.users * least, p.items), to = std::min(p.users * most, kMost);
  if (p.interactions >= from && p.interactions <= to) return;
  std::string also;  // what would suit the interactions
  if (p.interactions < from && p.interactions / least >= 1 && p.interactions >= p.items)
    also = fmt::format(", or at most {} users", p.interactions / least);
  else if (p.interactions > to && p.interactions <= kMost)
    also = fmt::format(", or at least {} users", (p.interactions + most - 1) / most);
  refuse(fmt::format("interactions is {}, expected {} to {} with {} users (of {} to {} items each) and {} items{}",
                     p.interactions, from, to, p.users, least, most, p.items, also));
}

void check(const SynthParams& p) {
  if (p.name.empty() || p.name[0] == '.' || p.name.find('/') != std::string::npos)
    refuse(fmt::format("name '{}' is no file name; use letters, digits, - and _", shown(p.name)));
  if (p.min_per_user < 3)
    refuse(
        fmt::format("min_per_user is {}, expected at least 3: one row each to train, select and test", p.min_per_user));
  check_sizes(p);
  if (p.taste_dims < 2 || p.taste_dims > 256) refuse(fmt::format("taste_dims is {}, expected 2 to 256", p.taste_dims));
  if (!(p.taste_strength >= 0 && p.taste_strength <= 50))
    refuse(fmt::format("taste_strength is {}, expected 0 to 50", p.taste_strength));
  if (!(p.user_log_sd >= 0 && p.user_log_sd <= 3) || !(p.item_log_sd >= 0 && p.item_log_sd <= 3))
    refuse("user_log_sd and item_log_sd are expected from 0 to 3");
  for (const SynthModality& m : p.modalities) {
    if (m.name.empty() || m.name[0] == '.' || m.name.find('/') != std::string::npos)
      refuse(fmt::format("modality '{}' is no file name; use letters and digits", m.name));
    if (m.width < 1 || !(m.signal >= 0 && m.signal <= 1))
      refuse(fmt::format("modality {}: width {} and signal {}, expected at least 1, and 0 to 1", m.name, m.width,
                         m.signal));
  }
}

// MMRec's rule per user: k held out, 2 below ten interactions, else a fifth; half of them (rounded down) validation,
// the rest test.
void write_inter(SafeFile& f, const std::vector<std::vector<int32_t>>& chosen) {
  f.write("userID\titemID\tx_label\n");
  fmt::memory_buffer line;
  for (size_t u = 0; u < chosen.size(); ++u) {
    const size_t n = chosen[u].size(), held = n < 10 ? 2 : n / 5, valid = held / 2;
    for (size_t r = 0; r < n; ++r) {
      const int label = r < n - held ? 0 : r < n - held + valid ? 1 : 2;
      line.clear();
      fmt::format_to(std::back_inserter(line), "{}\t{}\t{}\n", u, chosen[u][r], label);
      f.write(line.data(), line.size());
    }
  }
}

}  // namespace

std::vector<std::string> synth_presets() {
  std::vector<std::string> names;
  for (const SynthParams& p : presets()) names.push_back(p.name);
  return names;
}

SynthParams synth_preset(const std::string& name) {
  for (const SynthParams& p : presets())
    if (p.name == name) return p;
  std::string list;
  for (const std::string& n : synth_presets()) list += (list.empty() ? "" : ", ") + n;
  const std::string near = nearest(name, synth_presets());
  throw UserError(fmt::format("'{}' is no preset of the generator{} (presets: {})", shown(name),
                              near.empty() ? "" : fmt::format("; did you mean {}?", near), list));
}

void write_synth(const std::string& folder, const SynthParams& p, const std::function<bool()>& stop) {
  check(p);
  std::error_code ec;
  std::vector<fs::path> made;  // the folders that are not there yet, the innermost first
  for (fs::path at = fs::path(folder).lexically_normal(); !at.empty() && !fs::exists(at, ec) && !ec;
       at = at.parent_path())
    made.push_back(at);
  const auto unmake = [&] {
    std::error_code ignored;
    for (const fs::path& at : made) fs::remove(at, ignored);  // only if empty
  };
  fs::create_directories(folder, ec);
  if (ec) {
    unmake();
    throw UserError(
        fmt::format("{}: cannot be created ({}); choose a folder that can be written", folder, ec.message()));
  }
  try {
    const int64_t least_item = p.interactions >= 6 * p.items ? std::min<int64_t>(5, p.users) : 1;
    const auto user_degree = synth::degrees(p.seed, synth::Part::user_degree, p.users, p.interactions, p.min_per_user,
                                            std::max(p.min_per_user, p.items / 2), p.user_log_sd);
    const auto item_degree = synth::degrees(p.seed, synth::Part::item_degree, p.items, p.interactions, least_item,
                                            most_per_item(p), p.item_log_sd);
    const synth::Sphere taste = synth::sphere(p.seed, 0, p.items, p.taste_dims);
    std::vector<SafeFile> files;
    files.emplace_back((fs::path(folder) / (p.name + ".inter")).string());
    write_inter(files[0], synth::choose(p, taste, user_degree, item_degree, stop));
    for (size_t m = 0; m < p.modalities.size(); ++m) {
      files.emplace_back((fs::path(folder) / (p.modalities[m].name + "_feat.npy")).string());
      synth::write_features(files.back(), p, m, taste, stop);
    }
    // the .inter file last: a folder that has it is complete
    for (auto f = files.rbegin(); f != files.rend(); ++f) f->commit();
  } catch (...) {
    unmake();
    throw;
  }
}

}  // namespace ccdrec
