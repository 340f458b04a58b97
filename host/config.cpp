#include "host/config.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "data/text.h"
#include "host/config_keys.h"
#include "host/metrics.h"

namespace ccdrec {
namespace {

[[noreturn]] void unknown_key(const std::string& name, const std::string& origin) {
  std::vector<std::string> names = {"n_layers"};
  for (const ConfigKey& k : config_keys()) names.push_back(k.name);
  const std::string near = nearest(name, names);
  throw UserError(fmt::format("{}: unknown key '{}'{}", origin, name,
                              near.empty() ? "; `ccdrec train --help-keys` lists the keys" : fmt::format("; did you mean '{}'?", near)));
}

ConfigValue to_value(const std::string& key, const YAML::Node& node, const std::string& origin) {
  ConfigValue v;
  v.key = key, v.origin = origin;
  if (!node.IsDefined() || node.IsNull()) {
    v.is_null = true;
  } else if (node.IsScalar()) {
    v.items = {node.Scalar()};
  } else if (node.IsSequence()) {
    v.is_list = true;
    for (const YAML::Node& item : node) {
      if (!item.IsScalar()) throw UserError(fmt::format("{}: {} holds a nested value; expected a list of plain values", origin, key));
      v.items.push_back(item.Scalar());
    }
  } else {
    throw UserError(fmt::format("{}: {} is a mapping; expected one value or a list", origin, key));
  }
  return v;
}

// The one document of a text. The parser takes `"1"2` for two of them, and the usual call returns the first without a word about the rest.
YAML::Node one_document(const std::string& text) {
  const std::vector<YAML::Node> all = YAML::LoadAll(text);
  if (all.size() > 1) throw YAML::ParserException(all[1].Mark(), "something stands after the end of the value");
  return all.empty() ? YAML::Node() : all[0];
}

std::vector<ConfigValue> read_file(const std::string& path) {
  const std::string text = read_text(path);
  YAML::Node root;
  try {
    root = one_document(text);
  } catch (const YAML::Exception& e) { throw UserError(fmt::format("{}:{}: not valid YAML: {}", path, e.mark.line + 1, e.msg)); }
  if (root.IsNull()) return {};
  if (!root.IsMap()) throw UserError(fmt::format("{}: not a configuration: expected lines of the form `key: value`", path));
  std::vector<ConfigValue> values;
  std::set<std::string> seen;
  for (const auto& entry : root) {
    const std::string origin = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
    if (!entry.first.IsScalar()) throw UserError(fmt::format("{}: a key is not a plain word", origin));
    const std::string key = entry.first.Scalar();
    if (!seen.insert(key).second) throw UserError(fmt::format("{}: the key '{}' stands twice in this file", origin, key));
    values.push_back(to_value(key, entry.second, origin));
  }
  return values;
}

ConfigValue read_command(const KeyValue& kv) {
  try {
    return to_value(kv.key, one_document(kv.value), kv.origin);
  } catch (const YAML::Exception& e) { throw UserError(fmt::format("{}: {} = {} is not valid YAML: {}", kv.origin, kv.key, kv.value, e.msg)); }
}

void check_accepted(const AcceptedKey& a, const ConfigValue& v, std::vector<std::string>& notes) {
  if (a.name == std::string("metrics"))
    for (const std::string& m : v.items) {
      const std::string name = lower(m);
      if (name != "recall" && name != "ndcg" && name != "precision" && name != "map") v.fail("a list of Recall, NDCG, Precision, MAP");
    }
  if (a.name == std::string("hyper_parameters"))
    for (const std::string& name : v.items)
      if (name != "n_layers" && !find_key(name) && !find_accepted(name)) unknown_key(name, v.origin + ": hyper_parameters");
  if (a.only) {
    const std::string allowed = "|" + std::string(a.only) + "|";
    for (const std::string& item : v.items)
      if (allowed.find("|" + lower(item) + "|") == std::string::npos)
        throw UserError(fmt::format("{}: {} = {} is not possible here: {}", v.origin, v.key, item, a.why));
  }
  notes.push_back(fmt::format("{}: {} has no influence here: {}", v.origin, v.key, a.why));
}

// CCDRec's step encoding: half of the width is sines, half cosines.
void check_width(const Settings& s, const std::string& origin) {
  if (s.model == "CCDRec" && (s.embedding_size < 4 || s.embedding_size % 2 != 0))
    throw UserError(fmt::format("embedding_size = {} ({}): CCDRec's step encoding needs an even width of at least 4", s.embedding_size, origin));
}

void check_together(const Settings& s, const std::map<std::string, std::string>& origin) {
  const auto where = [&](const char* key) { return origin.at(key); };
  const std::string metric = metric_key(s.valid_metric);
  const int k = metric_cutoff(metric);
  if (std::find(s.topk.begin(), s.topk.end(), k) == s.topk.end())
    throw UserError(fmt::format("valid_metric = {} ({}) needs {} among topk = [{}] ({})", s.valid_metric, where("valid_metric"), k,
                                fmt::join(s.topk, ", "), where("topk")));
  check_width(s, where("embedding_size"));
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2) + 1;  // farther is no hint
  const std::string a = lower(word);
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(a, lower(candidate));
    if (distance < best_distance) best_distance = distance, best = candidate;
  }
  return best;
}

KeyValue plain_value(const std::string& key, const std::string& text, const std::string& origin) {
  return {key, nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), origin};  // JSON's quotes are YAML's
}

KeyValue parse_assignment(const std::string& text, const std::string& origin) {
  const size_t at = text.find('=');
  if (at == std::string::npos || at == 0) throw UserError(fmt::format("{} {}: expected key=value", origin, text));
  return {text.substr(0, at), text.substr(at + 1), origin};
}

void check_resumable(const std::vector<KeyValue>& command_line) {
  for (const KeyValue& kv : command_line) {
    const ConfigKey* key = find_key(kv.key);
    if (!key && !find_accepted(kv.key)) unknown_key(kv.key, kv.origin);
    if (!key || !key->resumable) {
      std::string can;
      for (const ConfigKey& k : config_keys())
        if (k.resumable) can += (can.empty() ? "" : ", ") + k.name;
      throw UserError(fmt::format("{}: {} cannot change when a run continues (these can: {})", kv.origin, kv.key, can));
    }
  }
}

Config resolve_config(const std::vector<std::string>& files, const std::vector<KeyValue>& command_line) {
  std::vector<ConfigValue> values;  // later ones win
  for (const std::string& file : files)
    for (ConfigValue& v : read_file(file)) values.push_back(std::move(v));
  for (const KeyValue& kv : command_line) values.push_back(read_command(kv));

  Config config;
  for (const ConfigKey& key : config_keys()) config.origin[key.name] = "built-in";
  std::map<std::string, const ConfigValue*> winner;  // only what wins is parsed: a list of a published grid may be overridden by --set
  for (const ConfigValue& v : values) {
    if (v.key != "n_layers" && !find_key(v.key) && !find_accepted(v.key)) unknown_key(v.key, v.origin);
    winner[v.key] = &v;
  }
  if (const auto it = winner.find("model"); it != winner.end())
    find_key("model")->set(config.settings, *it->second), config.origin["model"] = it->second->origin;
  const std::string& model = config.settings.model;
  for (const ModelDefault& d : model_defaults())
    if (model == d.model) {
      ConfigValue v;
      v.key = d.key, v.origin = "default of " + model, v.items = {d.value};
      find_key(d.key)->set(config.settings, v);
      config.origin[d.key] = v.origin;
    }
  ConfigValue alias;
  if (const auto it = winner.find("n_layers"); it != winner.end()) {
    if (model != "LightGCN")
      throw UserError(fmt::format("{}: n_layers is LightGCN's key; {} has n_ui_layers and n_mm_layers", it->second->origin, model));
    if (winner.count("n_ui_layers"))
      throw UserError(
          fmt::format("{}: n_layers and n_ui_layers ({}) name the same setting; give one", it->second->origin, winner["n_ui_layers"]->origin));
    alias = *it->second, alias.key = "n_ui_layers";
    winner.erase(it);
    winner["n_ui_layers"] = &alias;
  }
  const Settings defaults = config.settings;
  for (const auto& [name, value] : winner) {
    if (const AcceptedKey* accepted = find_accepted(name)) {
      check_accepted(*accepted, *value, config.notes);
      continue;
    }
    const ConfigKey& key = *find_key(name);
    key.set(config.settings, *value);
    config.origin[name] = value->origin;
    if (!(key.models & model_bit(model))) config.notes.push_back(fmt::format("{}: {} has no influence on {}", value->origin, name, model));
  }
  // What was asked for and changes nothing; a value that would have been taken anyway asks for nothing.
  for (const auto& [name, value] : winner) {
    const ConfigKey* key = find_key(name);
    if (!key || !key->idle || !(key->models & model_bit(model)) || key->get(config.settings) == key->get(defaults)) continue;
    if (const char* why = key->idle(config.settings))
      config.notes.push_back(fmt::format("{}: {} = {} has no influence here: {}", value->origin, name, key->get(config.settings), why));
  }
  check_together(config.settings, config.origin);
  return config;
}

void check_ranges(const Settings& settings) {
  Settings copy = settings;
  for (const ConfigKey& key : config_keys())  // `model` is the first
    if (key.name == "model" || (key.models & model_bit(settings.model))) key.set(copy, read_command({key.name, key.get(settings), "settings"}));
  check_width(settings, "settings");
}

std::string print_config(const Config& config) {
  size_t name_width = 0, value_width = 0;
  for (const ConfigKey& k : config_keys()) {
    name_width = std::max(name_width, k.name.size());
    value_width = std::max(value_width, std::min<size_t>(k.get(config.settings).size(), 32));
  }
  std::string out, group;
  for (const ConfigKey& k : config_keys()) {
    if (k.group != group) out += fmt::format("{}{}\n", out.empty() ? "" : "\n", group = k.group);
    const bool used = k.models & model_bit(config.settings.model);
    out += fmt::format("  {:<{}}  {:<{}}  {}{}\n", k.name, name_width, k.get(config.settings), value_width, config.origin.at(k.name),
                       used ? "" : fmt::format("  (not used by {})", config.settings.model));
  }
  return out;
}

std::string config_yaml(const Config& config, const std::string& earlier) {
  constexpr const char* comment = "  # ";
  std::map<std::string, std::string> had;  // "key: value" -> its line
  Lines lines(earlier);
  for (std::string_view line; lines.next(line);) {
    const std::string_view value = line.substr(0, line.rfind(comment));
    had.emplace(value.substr(0, value.find_last_not_of(' ') + 1), line);
  }
  std::string out, group;
  for (const ConfigKey& k : config_keys()) {
    if (!(k.models & model_bit(config.settings.model))) continue;
    if (k.group != group) out += fmt::format("{}# {}\n", out.empty() ? "" : "\n", group = k.group);
    const std::string value = k.name + ": " + k.get(config.settings);
    const auto same = had.find(value);
    out += same != had.end() ? same->second + "\n" : fmt::format("{:<48}{}{}\n", value, comment, config.origin.at(k.name));
  }
  return out;
}

std::map<std::string, std::string> config_values(const Settings& settings) {
  std::map<std::string, std::string> out;
  for (const ConfigKey& k : config_keys())
    if (k.models & model_bit(settings.model)) out[k.name] = k.get(settings);
  return out;
}

std::string key_reference() {
  const Settings defaults;
  std::string out, group;
  for (const ConfigKey& k : config_keys()) {
    if (k.group != group) out += fmt::format("{}{}\n", out.empty() ? "" : "\n", group = k.group);
    std::string models;
    for (const auto& [name, bit] : kModels)
      if (k.models != kAll && (k.models & bit)) models += (models.empty() ? "" : ", ") + std::string(name);
    std::string standard = k.get(defaults);
    for (const ModelDefault& d : model_defaults())
      if (k.name == d.key && standard != d.value) standard += fmt::format(", {} {}", d.model, d.value);
    out += fmt::format("  {:<22} {}\n  {:<22} {}{}{}; default {}{}\n", k.name, k.help, "", k.type, k.range.empty() ? "" : " ", k.range, standard,
                       models.empty() ? "" : "; " + models + " only");
  }
  out += "\naccepted from MMRec's files, with a note (or an error when the value asks for something else)\n  ";
  size_t column = 2;
  for (const AcceptedKey& a : accepted_keys()) {
    const std::string name = a.name;
    if (column + name.size() > 110) out += "\n  ", column = 2;
    out += name + "  ", column += name.size() + 2;
  }
  return out + "\n";
}

bool uses_features(const Settings& s) { return s.model == "FREEDOM" || (s.model == "CCDRec" && (s.backbone == "FREEDOM" || s.dma || s.ndi)); }

}  // namespace ccdrec
