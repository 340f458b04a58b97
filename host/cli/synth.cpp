// ccdrec synth: a data folder that behaves like the real ones, from a few parameters.
#include "data/synth.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "data/error.h"
#include "data/text.h"
#include "host/cli/cli.h"
#include "host/cli/interrupt.h"

namespace ccdrec::cli {
namespace {

struct SynthOptions {
  std::string preset = "demo", preset_flag, out, name;
  int64_t users = 0, items = 0, interactions = 0;
  uint32_t seed = 0;
  bool force = false;
  CLI::Option *has_users = nullptr, *has_items = nullptr, *has_interactions = nullptr, *has_seed = nullptr,
              *has_preset = nullptr, *has_place = nullptr;
};

int synth(const SynthOptions& o, Io& io) {
  if (o.has_preset->count() && o.has_place->count() && o.preset_flag != o.preset)
    throw UserError(
        fmt::format("{} and --preset {} name two presets; give one", shown(o.preset), shown(o.preset_flag)));
  SynthParams p = synth_preset(o.has_preset->count() ? o.preset_flag : o.preset);
  if (o.has_users->count()) p.users = o.users;
  if (o.has_items->count()) p.items = o.items;
  if (o.has_interactions->count()) p.interactions = o.interactions;
  if (o.has_seed->count()) p.seed = o.seed;
  std::filesystem::path folder = std::filesystem::path(o.out).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  if (o.name.empty() && folder.filename() != "." && folder.filename() != "..") p.name = folder.filename().string();
  if (!o.name.empty()) p.name = o.name;
  if (!o.force && holds_data_set(folder.string()))
    throw UserError(
        fmt::format("{}: already holds a data set; choose another folder, or write into it all the same with --force",
                    folder.string()));
  const InterruptGuard guard;
  try {
    write_synth(folder.string(), p, [] { return InterruptGuard::asked(); });
  } catch (const SynthStopped&) {
    io.err << "interrupted: nothing was left behind\n";
    return kInterrupted;
  }
  io.out << fmt::format("wrote {}: about {} interactions of {} users with {} items, {} modalities, seed {}\n",
                        folder.string(), thousands(p.interactions), thousands(p.users), thousands(p.items),
                        p.modalities.size(), p.seed);
  io.out << fmt::format("next: ccdrec check {0}; ccdrec train -m CCDRec -d {0}\n", shell_word(folder.string()));
  return kDone;
}

}  // namespace

void add_synth(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<SynthOptions>();
  CLI::App* sub = app.add_subcommand("synth", "make a synthetic data set with planted tastes: no download needed");
  std::string presets;
  for (const std::string& preset : synth_presets()) presets += (presets.empty() ? "" : ", ") + preset;
  o->has_place = sub->add_option("PRESET", o->preset, "size and shape: " + presets)->capture_default_str();
  o->has_preset = sub->add_option("--preset", o->preset_flag, "the same, as an option")->type_name("PRESET");
  sub->add_option("-o,--out", o->out, "folder to write; its name becomes the data set's name")
      ->required()
      ->type_name("FOLDER");
  sub->add_option("--name", o->name, "another name for the .inter file")->type_name("NAME");
  o->has_users = sub->add_option("--users", o->users, "number of users instead of the preset's")
                     ->check(whole_number(1, kMostRows), "")
                     ->type_name("N");
  o->has_items =
      sub->add_option("--items", o->items, "number of items")->check(whole_number(1, kMostRows), "")->type_name("N");
  o->has_interactions = sub->add_option("--interactions", o->interactions, "number of interactions, about")
                            ->check(whole_number(1, kMostRows), "")
                            ->type_name("N");
  o->has_seed = sub->add_option("--seed", o->seed, "same seed and sizes, same files")
                    ->check(whole_number(0, UINT32_MAX), "")
                    ->type_name("N");
  sub->add_flag("--force", o->force,
                "write into a folder that already holds a data set: files of the same names are replaced, others stay");
  sub->footer(
      "The larger presets have the sizes and popularity curves of the public Amazon sets of the same name, not their "
      "contents.\n"
      "Example: ccdrec synth demo --out demo --seed 7");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return synth(*o, io); }; });
}

}  // namespace ccdrec::cli
