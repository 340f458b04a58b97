// The table of settings: every key once, with its field, type, range, what it concerns and its help; and the keys of
// MMRec's files that are accepted. How a file or a command line names them: files/config.h.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "host/base/settings.h"
#include "host/systems/registry.h"

namespace ccdrec {

// One value as it stands in a file or on the command line, with the place to name in messages.
struct ConfigValue {
  std::vector<std::string> items;
  bool is_list = false, is_null = false;
  // the key as it was written, perhaps another name of the setting
  std::string key, origin;
  static ConfigValue of(const std::string& key, const std::string& text, const std::string& origin);
  std::string text() const;  // "[5, 10]", "2", "(empty)": as messages show it
  // UserError: "runs/a.yaml:3: mu = 2 is not a number in [0, 1]"
  [[noreturn]] void fail(const std::string& expected) const;
  const std::string& one(const std::string& expected) const;  // the only item; UserError for none or several (grids)
};

struct ConfigKey {
  std::string name, group, type, range, help;
  unsigned concerns = kEverySystem;  // it has influence on systems that have some of it
  bool resumable = false;            // may change between an interrupted run and its continuation
  // false: config.yaml of a run that does not use the key stays as it was before the key
  bool written_if_idle = true;
  std::function<void(Settings&, const ConfigValue&)> set;  // UserError when type or range do not fit
  std::function<std::string(const Settings&)> get;         // YAML text
  // why other settings leave it no influence on the run; null: it has some
  std::function<const char*(const Settings&)> idle;
};
const std::vector<ConfigKey>& config_keys();
const ConfigKey* find_key(const std::string& name);  // null when unknown
bool concerns(const ConfigKey&, const Settings&);    // the model of these settings

// Settings made without a file: every key of the model against the range that files and the command line are held to.
// UserError names key, value and range.
void check_ranges(const Settings&);

// Other names of settings: those of the released CCDRec program and of other tools.
struct KeyAlias {
  const char *name, *key;
};
const std::vector<KeyAlias>& key_aliases();
std::string canonical(const std::string& name);  // the setting's own name; a word that is no other name stays as it is

// Keys of published MMRec files that this program does not need: accepted with a note, or only with the one value it
// implements.
struct AcceptedKey {
  const char* name;
  // null: any value; else the possible values, separated by |; numbers and switches are compared as such
  const char* only;
  const char* why;
};
const std::vector<AcceptedKey>& accepted_keys();
const AcceptedKey* find_accepted(const std::string& name);
bool allows(const AcceptedKey&, const std::string& item);
bool parse_real(const std::string& text, double&);  // false: no finite number, or something stands behind it

}  // namespace ccdrec
