#include "host/files/config.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/error.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "host/systems/keys.h"
#include "host/systems/registry.h"
#include "host/training/metrics.h"

namespace ccdrec {
namespace {

[[noreturn]] void unknown_key(const std::string& name, const std::string& origin) {
  std::vector<std::string> names = {"n_layers"};
  for (const ConfigKey& k : config_keys()) names.push_back(k.name);
  const std::string near = nearest(name, names);
  throw UserError(fmt::format(
      "{}: unknown key '{}'{}", origin, shown(name),
      near.empty() ? "; `ccdrec train --help-keys` lists the keys" : fmt::format("; did you mean '{}'?", near)));
}

bool is_known(const std::string& name) { return find_key(canonical(name)) || find_accepted(name); }

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
      if (!item.IsScalar())
        throw UserError(
            fmt::format("{}: {} holds a nested value; expected a list of plain values", origin, shown(key)));
      v.items.push_back(item.Scalar());
    }
  } else {
    throw UserError(fmt::format("{}: {} is a mapping; expected one value or a list", origin, shown(key)));
  }
  return v;
}

// Longer than any configuration by far, and short enough for the parser: some texts take it time that grows faster than
// their length.
constexpr size_t kMostYaml = size_t(64) << 10;

// A second document is an error where it begins. Asked for all documents, the parser would take `"1"2` for two of them,
// and `,1` for an endless row of empty ones: at a document's start it never passes a comma. Asked for one, it would say
// nothing about the rest.
class OnlyOneDocument : public YAML::EventHandler {
 public:
  explicit OnlyOneDocument(const std::string& text) : text_(text) {}
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 1) return;
    const bool comma = size_t(mark.pos) < text_.size() && text_[size_t(mark.pos)] == ',';
    throw YAML::ParserException(mark, comma ? "a comma where a value should begin (the decimal sign is a point)"
                                            : "something stands after the end of the value");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

 private:
  const std::string& text_;
  int documents_ = 0;
};

// The one document of a text. Every YAML text of the program is read here.
YAML::Node one_document(const std::string& text) {
  if (text.size() > kMostYaml)
    throw YAML::ParserException(YAML::Mark(), fmt::format("it is longer than {} bytes", thousands(kMostYaml)));
  std::istringstream in(text);
  YAML::Parser parser(in);
  OnlyOneDocument documents(text);
  while (parser.HandleNextDocument(documents)) {}
  return YAML::Load(text);
}

std::vector<ConfigValue> read_file(const std::string& path) {
  const std::string text = read_text(path, kMostYaml);
  YAML::Node root;
  try {
    root = one_document(text);
  } catch (const YAML::Exception& e) {
    throw UserError(fmt::format("{}:{}: not valid YAML: {}", path, e.mark.line + 1, e.msg));
  }
  if (root.IsNull()) return {};
  if (!root.IsMap())
    throw UserError(fmt::format("{}: not a configuration: expected lines of the form `key: value`", path));
  std::vector<ConfigValue> values;
  std::set<std::string> seen;
  for (const auto& entry : root) {
    const std::string origin = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
    if (!entry.first.IsScalar()) throw UserError(fmt::format("{}: a key is not a plain word", origin));
    const std::string key = entry.first.Scalar();
    if (!seen.insert(key).second)
      throw UserError(fmt::format("{}: the key '{}' stands twice in this file", origin, shown(key)));
    values.push_back(to_value(key, entry.second, origin));
  }
  return values;
}

ConfigValue read_command(const KeyValue& kv) {
  try {
    return to_value(kv.key, one_document(kv.value), kv.origin);
  } catch (const YAML::Exception& e) {
    throw UserError(fmt::format("{}: {} = {} is not valid YAML: {}", kv.origin, shown(kv.key), shown(kv.value), e.msg));
  }
}

void check_accepted(const AcceptedKey& a, const ConfigValue& v, const Settings& s) {
  const std::string name = a.name;
  if (name == "metrics")
    for (const std::string& m : v.items)
      if (!is_metric(lower(m))) v.fail("a list of Recall, NDCG, Precision, MAP, MRR, Hit");
  if (name == "hyper_parameters")
    for (const std::string& key : v.items)
      if (!is_known(key)) unknown_key(key, v.origin + ": hyper_parameters");
  bool possible = true;
  std::string why = a.why;
  if (name == "weight_size") {
    const Outline o = outline_of(s);
    possible = !o.learned_graph || int(v.items.size()) == o.layers;
    if (!possible) why = fmt::format("expected a list of n_ui_layers = {} widths", o.layers);
  } else if (name == "use_neg_sampling" && !find_system(s.model)->concerned_by(kRanking)) {
    // with either value none are drawn
  } else if (name == "feat_embed_dim") {
    double width = s.embedding_size;
    possible = v.items.empty() || (parse_real(v.one("a number"), width) && width == s.embedding_size);
    why += fmt::format(", which is {}", s.embedding_size);
  } else {
    for (const std::string& item : v.items) possible = possible && allows(a, item);
  }
  if (!possible) throw UserError(fmt::format("{}: {} = {} is not possible here: {}", v.origin, v.key, v.text(), why));
}

void check_together(const Settings& s, const std::map<std::string, std::string>& origin) {
  const auto where = [&](const char* key) { return origin.at(key); };
  const std::string metric = metric_key(s.valid_metric);
  const int k = metric_cutoff(metric);
  if (std::find(s.topk.begin(), s.topk.end(), k) == s.topk.end())
    throw UserError(fmt::format("valid_metric = {} ({}) needs {} among topk = [{}] ({})", s.valid_metric,
                                where("valid_metric"), k, fmt::join(s.topk, ", "), where("topk")));
  check_width(s, where("embedding_size"));
  check_sampler(s, where("sampler"));
}

// All that is given, by the settings' own names. Only what wins is parsed: a list of a published grid may be overridden
// by --set.
struct GivenKeys {
  std::map<std::string, ConfigValue> winner;
  std::vector<std::string> may_be_grids;        // what `hyper_parameters` names in any file: MMRec joins them, too
  size_t place(const std::string& key) const {  // of a grid's key among them; its size: it is not named
    return size_t(std::find(may_be_grids.begin(), may_be_grids.end(), key) - may_be_grids.begin());
  }
};

void check_layers_key(const ConfigValue& v, const std::string& model) {
  if (v.key != "n_layers" || find_system(model)->n_layers) return;
  std::vector<std::string> names;
  for (const System& system : systems())
    if (system.n_layers && *system.n_layers) names.emplace_back(system.name);
  const std::string last = names.back();
  names.pop_back();
  throw UserError(fmt::format("{}: n_layers is a key of {} and {}; {} has n_ui_layers and n_mm_layers", v.origin,
                              fmt::join(names, ", "), last, model));
}

// As canonical, where a model may have a meaning of its own.
std::string canonical_for(const std::string& model, const std::string& name) {
  const char* const layers = find_system(model)->n_layers;
  return name == "n_layers" && layers && *layers ? layers : canonical(name);
}

GivenKeys collect(const std::vector<std::vector<ConfigValue>>& layers, const std::string& model) {
  GivenKeys given;
  for (const std::vector<ConfigValue>& layer : layers) {
    std::map<std::string, const ConfigValue*> here;
    for (const ConfigValue& v : layer) {
      check_layers_key(v, model);
      const std::string name = canonical_for(model, v.key);
      if (name == "hyper_parameters")
        for (const std::string& key : v.items) given.may_be_grids.push_back(canonical_for(model, key));
      const auto [at, fresh] = here.emplace(name, &v);
      if (!fresh && at->second->key != v.key)
        throw UserError(fmt::format("{}: {} and {} ({}) name the same setting; give one", v.origin, v.key,
                                    at->second->key, at->second->origin));
      given.winner[name] = v;
    }
  }
  return given;
}

std::string note_of_other_names(const GivenKeys& given) {
  std::string note;
  // n_layers is LightGCN's name for n_ui_layers in MMRec and LATTICE's for n_mm_layers, and those names are this
  // program's
  for (const auto& [name, value] : given.winner)
    if (value.key != name && value.key != "n_layers")
      note += fmt::format("{}{}{} for {}", note.empty() ? "" : ", ", value.key, note.empty() ? " is taken" : "", name);
  return note;
}

void take_grid(Config& config, const ConfigKey& key, const ConfigValue& v) {
  const Settings before = config.settings;
  GridAxis axis{key.name, std::vector<std::string>(v.items.size())};
  for (size_t i = v.items.size(); i-- > 0;) {  // the first value stays
    ConfigValue one = v;
    one.items = {v.items[i]};
    config.settings = before;
    key.set(config.settings, one);
    axis.values[i] = key.get(config.settings);
  }
  config.grid.push_back(std::move(axis));
}

std::string sentence_of_grids(const Config& config, const GivenKeys& given) {
  std::string grids, sets;
  for (const GridAxis& axis : config.grid) {
    const ConfigValue& v = given.winner.at(axis.key);
    grids += fmt::format("{}{} = {} ({})", grids.empty() ? "" : ", ", v.key, axis.text(), v.origin);
    sets += fmt::format(" --set {}={}", v.key, find_key(axis.key)->get(config.settings));
  }
  return fmt::format("{} {}, and a run takes one value{}: choose with, say,{}, or let `ccdrec sweep` run them all",
                     grids, config.grid.size() == 1 ? "is a grid" : "are grids",
                     config.grid.size() == 1 ? "" : " of each", sets);
}

// The files of features that MMRec's dataset files name are the modalities of a model that reads any, where the key
// `modalities` says nothing.
void take_feature_files(Config& config, GivenKeys& given) {
  Settings& s = config.settings;
  if (!uses_features(s) || given.winner.count("modalities")) return;
  static const std::string end = "_feat.npy";
  std::vector<std::string> names;
  std::string first, also;
  for (const char* key : {"vision_feature_file", "text_feature_file"}) {
    const auto it = given.winner.find(key);
    if (it == given.winner.end() || it->second.is_null) continue;
    const ConfigValue v = it->second;
    given.winner.erase(it);
    const std::string& file = v.one("the name of a file");
    if (file.size() <= end.size() || !file.ends_with(end) || file.find('/') != std::string::npos)
      v.fail("NAME_feat.npy, a file in the data folder that holds the modality NAME");
    names.push_back(file.substr(0, file.size() - end.size()));
    (first.empty() ? first : also) = fmt::format("{} (as {})", v.origin, key);
    const bool weighed = s.mm_weights.empty() && outline_of(s).item_layers > 0;
    if (names.size() < 2) continue;
    if (names[0] == names[1]) v.fail("another file than vision_feature_file");
    if (weighed && names[0] != "image" && (names[1] == "image" || names[1] < names[0]))
      throw UserError(
          fmt::format("{}: vision_feature_file = {}{} would be the second modality (image is the first, the others "
                      "follow by name), and "
                      "mm_image_weight would weigh {}; call the file image{}, or give mm_weights",
                      v.origin, shown(names[0]), end, shown(names[1]), end));
  }
  if (names.empty()) return;
  s.modalities = names;
  config.origin["modalities"] = first + (also.empty() ? "" : ", " + also);
}

// One note for all keys that are taken and read by nothing; alone, a key is told its reason.
std::string note_of_accepted(const std::vector<const ConfigValue*>& accepted) {
  if (accepted.size() == 1)
    return fmt::format("{}: {} has no influence here: {}", accepted[0]->origin, accepted[0]->key,
                       find_accepted(accepted[0]->key)->why);
  std::string keys;
  for (const ConfigValue* v : accepted) keys += (keys.empty() ? "" : ", ") + v->key;
  return keys.empty() ? "" : keys + " have no influence here (`ccdrec train --help-keys` says why)";
}

}  // namespace

std::string GridAxis::text() const { return fmt::format("[{}]", fmt::join(values, ", ")); }

KeyValue plain_value(const std::string& key, const std::string& text, const std::string& origin) {
  // JSON's quotes are YAML's
  return {key, nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), origin};
}

KeyValue parse_assignment(const std::string& text, const std::string& origin) {
  const size_t at = text.find('=');
  if (at == std::string::npos || at == 0) throw UserError(fmt::format("{} {}: expected key=value", origin, text));
  return {text.substr(0, at), text.substr(at + 1), origin};
}

void check_resumable(const std::vector<KeyValue>& command_line) {
  for (const KeyValue& kv : command_line) {
    const ConfigKey* key = find_key(canonical(kv.key));
    if (!is_known(kv.key)) unknown_key(kv.key, kv.origin);
    if (!key || !key->resumable) {
      std::string can;
      for (const ConfigKey& k : config_keys())
        if (k.resumable) can += (can.empty() ? "" : ", ") + k.name;
      throw UserError(fmt::format("{}: {} cannot change when a run continues (these can: {})", kv.origin, kv.key, can));
    }
  }
}

Config resolve_config(const std::vector<std::string>& files, const std::vector<KeyValue>& command_line, Grids grids) {
  std::vector<std::vector<ConfigValue>> layers;  // later ones win
  for (const std::string& file : files) layers.push_back(read_file(file));
  layers.emplace_back();
  for (const KeyValue& kv : command_line) layers.back().push_back(read_command(kv));

  Config config;
  for (const ConfigKey& key : config_keys()) config.origin[key.name] = "built-in";
  const ConfigValue* chosen = nullptr;
  for (const std::vector<ConfigValue>& layer : layers)
    for (const ConfigValue& v : layer)
      if (v.key == "model") chosen = &v;
  if (chosen) find_key("model")->set(config.settings, *chosen), config.origin["model"] = chosen->origin;
  for (const std::vector<ConfigValue>& layer : layers)
    for (const ConfigValue& v : layer)
      if (!is_known(v.key)) unknown_key(v.key, v.origin);
  const std::string& model = config.settings.model;
  const auto take_default = [&config](const KeyMeaning& m, const std::string& of) {
    const std::string origin = "default of " + of;
    find_key(m.key)->set(config.settings, ConfigValue::of(m.key, m.standard, origin));
    config.origin[m.key] = origin;
  };
  for (const KeyMeaning& m : find_system(model)->keys) take_default(m, model);
  GivenKeys given = collect(layers, model);
  if (const std::string note = note_of_other_names(given); !note.empty()) config.notes.push_back(note);

  if (const auto on = given.winner.find("backbone");
      find_system(model)->wraps && on != given.winner.end() && on->second.items.size() == 1) {
    find_key("backbone")->set(config.settings, on->second);
    for (const KeyMeaning& m : backbone_keys(config.settings.backbone))
      take_default(m, model + " on " + config.settings.backbone);
  }
  const Settings defaults = config.settings;
  // A setting of other models may be accepted with the one value that is true of this one.
  const auto accepted_key = [&](const std::string& name) {
    const ConfigKey* const key = find_key(name);
    return key && concerns(*key, config.settings) ? nullptr : find_accepted(name);
  };
  for (const auto& [name, value] : given.winner) {
    const ConfigKey* key = find_key(name);
    if (!key || accepted_key(name)) continue;
    const bool grid = value.items.size() > 1 && key->type != "list" && name != "model" &&
                      given.place(name) < given.may_be_grids.size();
    if (!concerns(*key, config.settings)) {  // looked at, and left: a run does not depend on what it does not read
      const Config as_it_was = config;
      grid ? take_grid(config, *key, value) : key->set(config.settings, value);
      check_sampler(config.settings, value.origin);  // but a sampler that the model cannot have is refused
      config.settings = as_it_was.settings, config.grid = as_it_was.grid;
      config.notes.push_back(fmt::format("{}: {} has no influence on {}", value.origin, value.key, model));
      continue;
    }
    grid ? take_grid(config, *key, value) : key->set(config.settings, value);
    config.origin[name] = value.origin + (value.key == name ? "" : " (as " + value.key + ")");
  }
  std::sort(config.grid.begin(), config.grid.end(),
            [&](const GridAxis& a, const GridAxis& b) { return given.place(a.key) < given.place(b.key); });
  if (!find_system(model)->concerned_by(kRanking)) config.settings.n_neg = config.settings.negative_stats = 0;
  if (has_sampler(config.settings) && !given.winner.count("omega"))
    config.settings.omega = 0.5, config.origin["omega"] = "default with a sampler";
  take_feature_files(config, given);
  std::vector<const ConfigValue*> accepted;
  for (const auto& [name, value] : given.winner)
    if (const AcceptedKey* key = accepted_key(name)) {
      check_accepted(*key, value, config.settings);
      if (name != "hyper_parameters" || config.grid.empty()) accepted.push_back(&value);
    }
  if (const std::string note = note_of_accepted(accepted); !note.empty()) config.notes.push_back(note);
  // What was asked for and changes nothing; a value that would have been taken anyway asks for nothing.
  for (const auto& [name, value] : given.winner) {
    const ConfigKey* key = find_key(name);
    if (!key || !key->idle || !concerns(*key, config.settings) || key->get(config.settings) == key->get(defaults))
      continue;
    if (const char* why = key->idle(config.settings))
      config.notes.push_back(fmt::format("{}: {} = {} has no influence here: {}", value.origin, name,
                                         shown(key->get(config.settings)), why));
  }
  check_together(config.settings, config.origin);
  if (!config.grid.empty()) {
    const std::string sentence = sentence_of_grids(config, given);
    if (grids == Grids::refused) throw UserError(sentence);
    config.notes.push_back(sentence);
  }
  return config;
}

std::string print_config(const Config& config) {
  const auto value_of = [&](const ConfigKey& k) {
    for (const GridAxis& axis : config.grid)
      if (axis.key == k.name) return "grid " + axis.text();
    return k.get(config.settings);
  };
  size_t name_width = 0, value_width = 0;
  for (const ConfigKey& k : config_keys()) {
    name_width = std::max(name_width, k.name.size());
    value_width = std::max(value_width, std::min<size_t>(value_of(k).size(), 40));
  }
  std::string out, group;
  for (const ConfigKey& k : config_keys()) {
    if (k.group != group) out += fmt::format("{}{}\n", out.empty() ? "" : "\n", group = k.group);
    const bool used = concerns(k, config.settings);
    out += fmt::format("  {:<{}}  {:<{}}  {}{}\n", k.name, name_width, value_of(k), value_width,
                       config.origin.at(k.name), used ? "" : fmt::format("  (not used by {})", config.settings.model));
  }
  return out;
}

namespace {

bool has_own_default(const Settings& s, const std::string& key) {
  const System& system = *find_system(s.model);
  if (system.meaning(key)) return true;
  if (!system.wraps) return false;
  const std::span<const KeyMeaning> keys = backbone_keys(s.backbone);
  return std::any_of(keys.begin(), keys.end(), [&](const KeyMeaning& m) { return key == m.key; });
}

}  // namespace

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
    if (!concerns(k, config.settings)) continue;
    // A default of the model's own is written even where the value is everybody's: reading back would take it.
    if (!k.written_if_idle && k.get(config.settings) == k.get(Settings{}) && !(k.idle && !k.idle(config.settings)) &&
        !has_own_default(config.settings, k.name))
      continue;
    if (k.group != group) out += fmt::format("{}# {}\n", out.empty() ? "" : "\n", group = k.group);
    const std::string value = k.name + ": " + k.get(config.settings);
    const auto same = had.find(value);
    std::string origin = config.origin.at(k.name);
    // a file's name may hold a line's end
    std::replace_if(
        origin.begin(), origin.end(), [](unsigned char c) { return c < 32 || c == 127; }, '?');
    out += same != had.end() ? same->second + "\n" : fmt::format("{:<48}{}{}\n", value, comment, origin);
  }
  return out;
}

std::map<std::string, std::string> config_values(const Settings& settings) {
  std::map<std::string, std::string> out;
  for (const ConfigKey& k : config_keys())
    if (concerns(k, settings)) out[k.name] = k.get(settings);
  return out;
}

namespace {

// The defaults of a key: the built-in one, and of which models another is.
std::string standards(const ConfigKey& key) {
  std::string all = key.get(Settings{});
  for (const System& system : systems())
    if (const KeyMeaning* m = system.meaning(key.name); m && all != m->standard)
      all += fmt::format(", {} {}", system.name, m->standard);
  return all;
}

// "; FREEDOM, CCDRec only", where a key does not concern every model.
std::string only_of(const ConfigKey& key) {
  std::string names;
  size_t n = 0;
  for (const System& system : systems())
    if (system.concerned_by(key.concerns)) names += (n++ ? ", " : "") + std::string(system.name);
  return n == systems().size() ? "" : "; " + names + " only";
}

std::string key_lines(const ConfigKey& k, const std::string& help, const std::string& standard,
                      const std::string& only) {
  return fmt::format("  {:<22} {}\n  {:<22} {}{}{}; default {}{}\n", k.name, help, "", k.type,
                     k.range.empty() ? "" : " ", k.range, standard, only);
}

// "with backbone LATTICE: reg_weight 0.00001", a line each that changes defaults of a system that is put on it.
std::string standards_of_backbones() {
  std::string out;
  for (const std::string& backbone : backbone_names()) {
    std::string keys;
    for (const KeyMeaning& m : backbone_keys(backbone))
      keys += fmt::format("{}{} {}", keys.empty() ? "" : ", ", m.key, m.standard);
    if (!keys.empty()) out += fmt::format("\ndefaults with backbone {}: {}\n", backbone, keys);
  }
  return out;
}

}  // namespace

std::string key_reference() {
  std::string out, group;
  for (const ConfigKey& k : config_keys()) {
    if (k.group != group) out += fmt::format("{}{}\n", out.empty() ? "" : "\n", group = k.group);
    out += key_lines(k, k.help, standards(k), only_of(k));
  }
  out += "\nother names of settings, taken with a note\n";
  for (const KeyAlias& a : key_aliases())
    if (a.name != std::string("n_layers")) out += fmt::format("  {:<22} {}\n", a.name, a.key);
  out += "\naccepted from MMRec's files, with a note (or an error when the value asks for something else)\n";
  for (const AcceptedKey& a : accepted_keys()) out += fmt::format("  {:<26} {}\n", a.name, a.why);
  return out;
}

std::string key_reference(const std::string& model) {
  Settings chosen;
  find_key("model")->set(chosen, read_command({"model", model, "-m"}));
  const System& system = *find_system(chosen.model);
  std::string out, group;
  for (const ConfigKey& k : config_keys()) {
    if (!system.concerned_by(k.concerns)) continue;
    if (k.group != group) out += fmt::format("{}{}\n", out.empty() ? "" : "\n", group = k.group);
    const KeyMeaning* const m = system.meaning(k.name);
    out += key_lines(k, m && m->help ? m->help : k.help,
                     k.name == "model" ? chosen.model
                     : m               ? m->standard
                                       : k.get(Settings{}),
                     "");
  }
  if (system.n_layers && *system.n_layers) out += fmt::format("\nother names: n_layers for {}\n", system.n_layers);
  out += system.wraps ? standards_of_backbones() : "";
  return out;
}

bool uses_features(const Settings& s) { return outline_of(s).reads_features; }

}  // namespace ccdrec
