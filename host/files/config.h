// Configuration: YAML files with MMRec's key names and `--set key=value`, resolved over defaults into Settings.
//
//   order      built-in < defaults of the model < files, in the order given < command line
//   one table  systems/keys.cpp lists every key once: field, type, range, what it concerns, help; parsing,
//              --print-config, errors and docs read it
//   silence    no key is ignored in it: unknown = UserError with a name that is near; a key without influence on the
//              run, another name = a note
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "host/base/settings.h"

namespace ccdrec {

struct KeyValue {
  std::string key, value, origin;  // value is YAML text; origin is what messages name: "--set", "-m", "--seed"
};

struct GridAxis {
  std::string key;                  // the setting's own name
  std::vector<std::string> values;  // YAML texts, each within the key's range
  std::string text() const;         // "[0.8, 0.9]"
  bool operator==(const GridAxis&) const = default;
};

struct Config {
  Settings settings;
  std::map<std::string, std::string> origin;  // key -> "built-in", "default of CCDRec", "file.yaml:3", "--set"
  // lists of the keys that `hyper_parameters` names, in its order; settings hold the first values
  std::vector<GridAxis> grid;
  // one sentence each: accepted keys that change nothing here, other names of keys
  std::vector<std::string> notes;
};

// A list of values under a key that `hyper_parameters` names, as MMRec's model files hold them: a run takes one value
// of each, so it is refused with the --set that would choose; --print-config shows it.
enum class Grids { refused, shown };

// Throws UserError: a file that is no YAML mapping, unknown key, wrong type, value out of range, a list of several
// values where one is needed.
Config resolve_config(const std::vector<std::string>& files, const std::vector<KeyValue>& command_line,
                      Grids = Grids::refused);
// the text as it stands, no YAML in it
KeyValue plain_value(const std::string& key, const std::string& text, const std::string& origin);
KeyValue parse_assignment(const std::string& text, const std::string& origin = "--set");  // "key=value"

// Checks that keys of `command_line` may change when a run continues (epochs, threads, ...): the others decide its
// numbers. UserError names the key.
void check_resumable(const std::vector<KeyValue>& command_line);

std::string print_config(const Config&);  // aligned table: key, value or grid, where it came from
// What config.yaml of a run holds: every key of this model, origins as comments; reads back to the same Settings.
// `earlier`, the file of a run that is continued: its lines stay where their value is the same, so that they still say
// where it came from in the first place.
std::string config_yaml(const Config&, const std::string& earlier = "");
// key -> text, keys of this model: what `compare` groups runs by
std::map<std::string, std::string> config_values(const Settings&);
// every key with type, range, models and help: `ccdrec train --help-keys`, docs
std::string key_reference();
// those of one model, with its own meanings and defaults; UserError: no model
std::string key_reference(const std::string& model);

// The model has an item graph or a diffusion: it reads the modality features.
bool uses_features(const Settings&);

}  // namespace ccdrec
