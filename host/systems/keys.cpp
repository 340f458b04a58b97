#include "host/systems/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "data/error.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "host/ccdrec/denoiser.h"

namespace ccdrec {

std::string ConfigValue::text() const {
  if (is_null) return "(empty)";
  std::string list;
  for (const std::string& item : items) list += (list.empty() ? "" : ", ") + shown(item);
  return is_list ? "[" + list + "]" : list;
}

void ConfigValue::fail(const std::string& expected) const {
  throw UserError(fmt::format("{}: {} = {} is not {}", origin, key, text(), expected));
}

// MMRec writes `seed: [999]`, and lists of several values for its grid search.
const std::string& ConfigValue::one(const std::string& expected) const {
  if (is_null || items.empty()) fail(expected);
  if (items.size() > 1)
    throw UserError(fmt::format("{}: {} holds {} values {}; a grid is run one `--set {}=...` at a time, so choose one",
                                origin, key, items.size(), text(), key));
  return items[0];
}

namespace {

enum class Parsed { number, beyond_the_type, no_number };

template <class T>
Parsed parse(const std::string& text, T& out) {
  const char *first = text.data(), *last = first + text.size();
  if (first != last && *first == '+') ++first;
  const auto [end, error] = std::from_chars(first, last, out);
  if (end != last || first == last || error == std::errc::invalid_argument) return Parsed::no_number;
  return error == std::errc() ? Parsed::number : Parsed::beyond_the_type;
}
template <class T>
bool parse_number(const std::string& text, T& out) {
  return parse(text, out) == Parsed::number;
}

bool parse_bool(const std::string& text, bool& out) {
  const std::string t = lower(text);
  out = t == "true" || t == "yes" || t == "on" || t == "1";
  return out || t == "false" || t == "no" || t == "off" || t == "0";
}

// A text as YAML: plain where no reader could take it for something else, in JSON's quotes otherwise.
std::string quoted(const std::string& s) {
  const bool plain =
      !s.empty() && (std::isalpha(static_cast<unsigned char>(s[0])) || s[0] == '/') && lower(s) != "null" &&
      std::all_of(s.begin(), s.end(), [](unsigned char c) { return std::isalnum(c) || std::strchr("_@./-", c); });
  if (plain) return s;
  // JSON leaves DEL and U+0080..9F as they are; a terminal that shows the file would obey them.
  const std::string json = nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out;
  for (size_t i = 0; i < json.size(); ++i) {
    const auto byte = static_cast<unsigned char>(json[i]);
    const auto next = static_cast<unsigned char>(i + 1 < json.size() ? json[i + 1] : '\0');
    if (byte == 0x7f) {
      out += "\\u007f";
    } else if (byte == 0xC2 && next >= 0x80 && next <= 0x9F) {
      out += fmt::format("\\u{:04x}", next), ++i;
    } else {
      out += json[i];
    }
  }
  return out;
}

constexpr double kInf = std::numeric_limits<double>::infinity();
struct Range {
  double lo, hi;
  bool lo_open = false, hi_open = false;
  bool holds(double x) const { return (lo_open ? x > lo : x >= lo) && (hi_open ? x < hi : x <= hi); }
  std::string expected() const { return (hi == kInf ? "a number " : "a number in ") + text(); }
  std::string text() const {
    if (hi == kInf) return fmt::format("{} {}", lo_open ? ">" : ">=", lo);
    return fmt::format("{}{}, {}{}", lo_open ? '(' : '[', lo, hi, hi_open ? ')' : ']');
  }
};

double one_real(const ConfigValue& v, const Range& range, const std::string& text) {
  double x = 0;
  if (!parse_real(text, x) || !range.holds(x)) v.fail(range.expected());
  return x;
}

struct KeyTable {
  std::vector<ConfigKey> keys;
  std::string group;

  ConfigKey& add(const char* name, const char* type, std::string range, const char* help) {
    keys.push_back(ConfigKey{name, group, type, std::move(range), help, kEverySystem, false, true, {}, {}, {}});
    return keys.back();
  }
  ConfigKey& real(const char* name, double Settings::*field, Range range, const char* help) {
    ConfigKey& k = add(name, "number", range.text(), help);
    k.set = [=](Settings& s, const ConfigValue& v) { s.*field = one_real(v, range, v.one(range.expected())); };
    k.get = [=](const Settings& s) { return fmt::format("{}", s.*field); };
    return k;
  }
  template <class Int>
  ConfigKey& integer(const char* name, Int Settings::*field, int64_t lo, int64_t hi, const char* help) {
    const std::string range = hi >= std::numeric_limits<int>::max() && hi != int64_t(UINT32_MAX)
                                  ? fmt::format(">= {}", lo)
                                  : fmt::format("{} .. {}", lo, hi);
    ConfigKey& k = add(name, "integer", range, help);
    k.set = [=](Settings& s, const ConfigValue& v) {
      const std::string expected = "an integer " + range;
      const std::string& text = v.one(expected);
      int64_t x = 0;
      const Parsed parsed = parse(text, x);
      if (parsed == Parsed::beyond_the_type || (parsed == Parsed::number && x > hi))
        v.fail(fmt::format("an integer {} .. {}", lo, hi));
      if (parsed != Parsed::number || x < lo) v.fail(expected);
      s.*field = Int(x);
    };
    k.get = [=](const Settings& s) { return fmt::format("{}", s.*field); };
    return k;
  }
  ConfigKey& flag(const char* name, bool Settings::*field, const char* help) {
    ConfigKey& k = add(name, "switch", "true | false", help);
    k.set = [=](Settings& s, const ConfigValue& v) {
      bool b = false;
      if (!parse_bool(v.one("true or false"), b)) v.fail("true or false");
      s.*field = b;
    };
    k.get = [=](const Settings& s) { return s.*field ? "true" : "false"; };
    return k;
  }
  ConfigKey& text(const char* name, std::string Settings::*field, bool may_be_empty, const char* help) {
    ConfigKey& k = add(name, "text", "", help);
    k.set = [=](Settings& s, const ConfigValue& v) {
      if (v.is_null && may_be_empty) return void((s.*field).clear());
      const std::string& x = v.one("a text");
      if (x.empty() && !may_be_empty) v.fail("a text (it is empty)");
      if (x.find('\0') != std::string::npos) v.fail("a text without zero bytes");  // a path would end there
      s.*field = x;
    };
    k.get = [=](const Settings& s) { return quoted(s.*field); };
    return k;
  }
  ConfigKey& choice(const char* name, std::string Settings::*field, const std::vector<std::string>& allowed,
                    const char* help) {
    std::string range;
    for (const std::string& a : allowed) range += (range.empty() ? "" : " | ") + a;
    ConfigKey& k = add(name, "choice", range, help);
    k.set = [=](Settings& s, const ConfigValue& v) {
      const std::string& x = v.one("one of " + range);
      for (const std::string& a : allowed)
        if (lower(a) == lower(x)) return void(s.*field = a);
      const std::string near = nearest(x, allowed);
      v.fail(fmt::format("one of {}{}", range, near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    };
    k.get = [=](const Settings& s) { return s.*field; };
    return k;
  }
};

constexpr int64_t kIntMax = std::numeric_limits<int>::max();

// Which settings switch which keys off. One that is given a value all the same earns a note.
void name_idle_keys(KeyTable& table) {
  using Why = const char* (*)(const Settings&);
  const auto idle = [&](std::initializer_list<const char*> names, Why why) {
    for (ConfigKey& k : table.keys)
      for (const char* name : names)
        if (k.name == name) k.idle = why;
  };
  static constexpr const char *kNoGraph = "only the backbones FREEDOM, MCDRec and LATTICE have an item graph",
                              *kNoSampler = "cns is off";
  static constexpr const char* kNothingPropagated = "the backbone BPR propagates nothing";
  static constexpr const char* kLearned = "LATTICE learns the modalities' weights, and compares features as they are";
  static const auto item_graph = [](const Settings& s) { return outline_of(s).item_layers > 0; };
  static const auto learned = [](const Settings& s) { return outline_of(s).learned_graph; };
  // null: there is a diffusion
  static const auto no_diffusion = [](const Settings& s) {
    return outline_of(s).diffusion                    ? nullptr
           : find_system(s.model)->concerned_by(kMrd) ? "mrd is off, so there is no diffusion"
                                                      : "dma and ndi are off, so there is no diffusion";
  };
  static const auto propagates = [](const Settings& s) { return outline_of(s).propagates; };
  idle({"n_ui_layers"}, [](const Settings& s) { return propagates(s) ? nullptr : kNothingPropagated; });
  idle({"precision"}, [](const Settings& s) {
    return s.device == "cpu" && s.precision != "fp32"     ? "it concerns a GPU, and device is cpu"
           : s.device != "cpu" && !outline_of(s).projects ? "this model has no large products"
                                                          : nullptr;
  });
  idle({"spmm"}, [](const Settings& s) {
    return s.device == "cpu" && s.spmm == "cusparse" ? "it concerns a GPU, and device is cpu"
           : !propagates(s)                          ? kNothingPropagated
                                                     : nullptr;
  });
  idle({"n_mm_layers", "knn_k", "graph_cache"}, [](const Settings& s) { return item_graph(s) ? nullptr : kNoGraph; });
  idle({"knn_center", "mm_weights"}, [](const Settings& s) {
    return !item_graph(s) ? kNoGraph : learned(s) ? kLearned : nullptr;
  });
  idle({"mm_image_weight"}, [](const Settings& s) {
    return !item_graph(s)         ? kNoGraph
           : learned(s)           ? kLearned
           : s.mm_weights.empty() ? nullptr
                                  : "mm_weights overrides it";
  });
  idle({"lambda_coeff"}, [](const Settings& s) {
    return learned(s) ? nullptr : "only the backbone LATTICE has a frozen graph beside a learned one";
  });
  idle({"dropout"}, [](const Settings& s) {
    return (item_graph(s) && !learned(s)) || outline_of(s).views
               ? nullptr
               : "only the backbones FREEDOM and MCDRec prune their graph";
  });
  static const auto not_denoised = [](const Settings& s) {
    return !outline_of(s).may_denoise ? "DGD belongs to the backbone MCDRec"
           : s.dropout == 0           ? "dropout is 0, so every edge is kept"
                                      : nullptr;
  };
  idle({"dgd"}, [](const Settings& s) { return not_denoised(s); });
  idle({"dgd_tau"}, [](const Settings& s) {
    const char* const why = not_denoised(s);
    return why ? why : s.dgd == "off" ? "dgd is off" : nullptr;
  });
  idle({"reg_weight"}, [](const Settings& s) {
    return find_system(s.model)->wraps && !item_graph(s)
               ? "CCDRec's objective has a regulariser with the backbones FREEDOM, MCDRec and LATTICE alone"
               : nullptr;
  });
  idle({"modalities"}, [](const Settings& s) {
    return outline_of(s).reads_features ? nullptr : "no part of this model reads features";
  });
  idle({"train_features"}, [](const Settings& s) {
    return outline_of(s).projects ? nullptr : "features enter the item graph alone, which is built once";
  });
  idle({"lambda_dm", "timesteps", "noise_schedule", "noise_prediction_form", "mirrored_timesteps", "estimator"},
       [](const Settings& s) { return no_diffusion(s); });
  idle({"estimator_layers", "estimator_heads"}, [](const Settings& s) {
    const char* const why = no_diffusion(s);
    return why ? why : s.estimator == "transformer" ? nullptr : "it concerns the estimator transformer";
  });
  idle({"unet_dropout"}, [](const Settings& s) {
    const char* const why = no_diffusion(s);
    return why ? why : s.estimator == "unet" ? nullptr : "it concerns the estimator unet";
  });
  idle({"mu"}, [](const Settings& s) {
    return outline_of(s).fuses ? nullptr : find_system(s.model)->concerned_by(kMrd) ? "mrd is off" : "dma is off";
  });
  idle({"alpha1", "alpha2", "beta"}, [](const Settings& s) { return s.use_mg ? nullptr : "use_mg is off"; });
  idle({"omega"}, [](const Settings& s) {
    return s.sampler != "none" || outline_of(s).curricular
               ? nullptr
               : "there are no hard negatives: no sampler, and neither ndi nor cns";
  });
  idle({"n_candidates"}, [](const Settings& s) {
    return s.sampler == "dns" || s.sampler == "mixgcf" ? nullptr : "it concerns the samplers dns and mixgcf";
  });
  idle({"top_m"}, [](const Settings& s) { return s.sampler == "dns" ? nullptr : "it concerns the sampler dns"; });
  idle({"popularity_power"},
       [](const Settings& s) { return s.sampler == "popularity" ? nullptr : "it concerns the sampler popularity"; });
  idle({"realhns_p_min", "realhns_p_max", "realhns_candidates", "realhns_clusters", "realhns_start", "realhns_top"},
       [](const Settings& s) { return s.sampler == "realhns" ? nullptr : "it concerns the sampler realhns"; });
  idle({"candidate_ratio", "kappa", "cns_cosine"}, [](const Settings& s) { return s.cns ? nullptr : kNoSampler; });
  idle({"dtau", "first_stage", "tau_end"}, [](const Settings& s) {
    return !s.cns ? kNoSampler : s.ndi ? nullptr : "ndi is off, so there are no pools to change between";
  });
  idle({"ndi_negative"}, [](const Settings& s) { return s.ndi && !s.cns ? nullptr : "it concerns ndi without cns"; });
  idle({"save_every"}, [](const Settings& s) { return s.save_last ? nullptr : "save_last is off"; });
}

KeyTable build_table() {
  KeyTable t;
  t.group = "run";
  t.choice("model", &Settings::model, system_names(), "what is trained (-m)");
  t.choice("backbone", &Settings::backbone, backbone_names(), "the recommender CCDRec's modules are put on").concerns =
      kModules;
  t.text("data_path", &Settings::data_path, true, "the data folder (-d)").resumable = true;
  t.text("dataset", &Settings::dataset, true,
         "name of the .inter file; empty: the folder's name, or the only one there");
  t.integer("seed", &Settings::seed, 0, UINT32_MAX, "every random number is a function of it (--seed)");
  t.choice("precision", &Settings::precision, {"fp32", "tf32", "bf16"},
           "of a GPU's large products (cuBLAS); the CPU computes in fp32");
  t.choice("spmm", &Settings::spmm, {"auto", "own", "cusparse"},
           "a GPU's sparse products of whole graphs, in evaluation, with BM3 and MMGCN in training too: own kernels or "
           "cuSPARSE; auto: a fixed rule, at present own")
      .concerns = kUserItemGraph | kMessages;
  ConfigKey& device = t.choice("device", &Settings::device, {"auto", "cpu", "cuda"}, "where operations run (--device)");
  device.resumable = true;
  device.set = [choose = device.set](Settings& s, const ConfigValue& v) {
    ConfigValue own = v;  // a GPU is called gpu by other tools
    for (std::string& item : own.items)
      if (lower(item) == "gpu") item = "cuda";
    choose(s, own);
  };
  t.integer("threads", &Settings::threads, 0, 4096, "threads; 0: all cores. Never changes a result (--threads)")
      .resumable = true;
  t.text("run_dir", &Settings::run_dir, true, "the run folder; empty: runs/<model>-<set>-<seed>-<time> (--run-dir)")
      .resumable = true;

  t.group = "data";
  t.text("USER_ID_FIELD", &Settings::user_id_field, false, "column of the user in the .inter file");
  t.text("ITEM_ID_FIELD", &Settings::item_id_field, false, "column of the item");
  t.text("inter_splitting_label", &Settings::inter_splitting_label, false,
         "column of the split: 0 training, 1 validation, 2 test");
  ConfigKey& inter = t.text("inter_file_name", &Settings::inter_file_name, true,
                            "the file of interactions in the data folder; empty: as dataset says");
  inter.written_if_idle = false;
  inter.set = [take = inter.set](Settings& s, const ConfigValue& v) {
    take(s, v);
    const std::string& x = s.inter_file_name;
    if (x.find('/') != std::string::npos || x == "." || x == "..")
      v.fail("the name of a file in the data folder, without a path");
  };
  ConfigKey& modalities =
      t.add("modalities", "list", "names", "features to read, NAME for NAME_feat.npy; empty: every one found");
  modalities.concerns = kFeatures;
  modalities.set = [](Settings& s, const ConfigValue& v) {
    if (std::set<std::string>(v.items.begin(), v.items.end()).size() != v.items.size())
      v.fail("a list of distinct names");
    s.modalities = v.items;
  };
  modalities.get = [](const Settings& s) {
    std::string list;
    for (const std::string& m : s.modalities) list += (list.empty() ? "" : ", ") + quoted(m);
    return "[" + list + "]";
  };

  t.group = "training";
  t.integer("embedding_size", &Settings::embedding_size, 1, 65536,
            "d, width of every embedding; CCDRec needs an even one of at least 4, SLMRec an even one");
  t.real("learning_rate", &Settings::learning_rate, {0, kInf, true, true}, "Adam's step, of the first epoch");
  ConfigKey& scheduler = t.add("learning_rate_scheduler", "list", "[gamma in (0, 1], T > 0]",
                               "the rate of epoch e, from 0, is learning_rate gamma^(e/T)");
  scheduler.written_if_idle = false;
  scheduler.set = [](Settings& s, const ConfigValue& v) {
    if (v.is_null || v.items.empty()) return void(s.learning_rate_scheduler = Settings{}.learning_rate_scheduler);
    const char* const expected = "[gamma, epochs]: a number in (0, 1] and a number > 0";
    if (v.items.size() > 2) v.fail(expected);
    double gamma = 1, epochs = 50;
    if (!parse_real(v.items[0], gamma) || (v.items.size() > 1 && !parse_real(v.items[1], epochs)) || !(gamma > 0) ||
        gamma > 1 || !(epochs > 0))
      v.fail(expected);
    s.learning_rate_scheduler = {gamma, epochs};
    if (gamma == 1) s.learning_rate_scheduler = Settings{}.learning_rate_scheduler;  // a constant rate is one rate
  };
  scheduler.get = [](const Settings& s) { return fmt::format("[{}]", fmt::join(s.learning_rate_scheduler, ", ")); };
  t.integer("train_batch_size", &Settings::train_batch_size, 1, kIntMax, "B, rows of a step");
  t.integer("epochs", &Settings::epochs, 1, kIntMax, "at most so many").resumable = true;
  t.integer("stopping_step", &Settings::stopping_step, 0, kIntMax,
            "stop when the evaluations without improvement exceed it (20: at the 21st)");
  t.integer("n_neg", &Settings::n_neg, 1, 1024, "random negatives per row; the loss is their mean").concerns = kRanking;
  t.real("reg_weight", &Settings::reg_weight, {0, kInf, false, true},
         "weight of the regulariser; which one, the model decides (--help-keys -m MODEL)")
      .concerns = kRanking | kViews;
  ConfigKey& decay = t.real("weight_decay", &Settings::weight_decay, {0, kInf, false, true},
                            "times a parameter, added to its gradient; with SLMRec alone");
  decay.concerns = kContrast, decay.written_if_idle = false;
  const size_t mirror = t.keys.size();
  t.flag(
      "use_mg", &Settings::use_mg,
      "Mirror Gradient: every beta-th batch is stepped twice, by alpha1 times its gradient, then by -alpha2 times its "
      "gradient where that led");
  t.real("alpha1", &Settings::alpha1, {0, kInf, true, true}, "Mirror Gradient: of the first pass over a batch");
  t.real("alpha2", &Settings::alpha2, {0, kInf, false, true}, "Mirror Gradient: of the second pass, which goes back");
  t.integer("beta", &Settings::beta, 1, kIntMax,
            "Mirror Gradient: batches 0, beta, 2 beta, .. of an epoch have two passes");
  for (size_t i = mirror; i < t.keys.size(); ++i) t.keys[i].written_if_idle = false;
  t.flag("train_features", &Settings::train_features, "raw features are parameters, as in the published runs")
      .concerns = kItemGraph | kViews;
  t.integer("eval_step", &Settings::eval_step, 1, kIntMax,
            "evaluate every n epochs; a run that ends before the first time is evaluated at its end");
  ConfigKey& topk = t.add("topk", "list", "integers >= 1",
                          "list lengths of the metrics; one beyond the number of items ranks all of them");
  topk.set = [](Settings& s, const ConfigValue& v) {
    std::set<int> ks;
    for (const std::string& item : v.items) {
      int k = 0;
      if (!parse_number(item, k) || k < 1) v.fail("a list of integers >= 1");
      ks.insert(k);
    }
    if (ks.empty()) v.fail("a list of integers >= 1");
    s.topk.assign(ks.begin(), ks.end());
  };
  topk.get = [](const Settings& s) { return fmt::format("[{}]", fmt::join(s.topk, ", ")); };
  ConfigKey& valid_metric = t.add("valid_metric", "text", "Recall@k, NDCG@k, Precision@k, MAP@k, MRR@k, Hit@k",
                                  "what early stopping compares, rounded to 4 decimals; k is one of topk");
  valid_metric.set = [](Settings& s, const ConfigValue& v) {
    const std::string& x = v.one("a metric such as Recall@20");
    try {
      metric_key(x);
    } catch (const UserError&) {
      v.fail("a metric such as Recall@20 (Recall, NDCG, Precision, MAP, MRR or Hit, @, a list length)");
    }
    s.valid_metric = x;
  };
  valid_metric.get = [](const Settings& s) { return s.valid_metric; };
  ConfigKey& mem = t.real("mem_limit_gb", &Settings::mem_limit_gb, {0, kInf, false, true},
                          "refuse to start a run that needs more; 0: what the machine has free");
  mem.resumable = true;

  t.group = "graphs";
  t.integer("n_ui_layers", &Settings::n_ui_layers, 0, kMaxLayers,
            "layers of the user-item graph (n_layers with LightGCN and BM3, layer_num with SLMRec)")
      .concerns = kUserItemGraph;
  t.integer("n_mm_layers", &Settings::n_mm_layers, 1, kMaxLayers,
            "layers of the item-item graph (n_layers with LATTICE)")
      .concerns = kItemGraph;
  t.integer("knn_k", &Settings::knn_k, 1, kIntMax, "neighbours of an item in each modality").concerns = kItemGraph;
  t.flag("knn_center", &Settings::knn_center, "subtract column means before the cosine").concerns = kItemGraph;
  t.real("mm_image_weight", &Settings::mm_image_weight, {0, 1},
         "a of S = a S_first + (1-a) S_second, with two modalities; first: image where there is one, else by file name")
      .concerns = kItemGraph;
  ConfigKey& weights =
      t.add("mm_weights", "list", "numbers >= 0 that sum to 1",
            "one weight per modality, in the order of the data; overrides mm_image_weight; empty: not used");
  weights.concerns = kItemGraph;
  weights.set = [](Settings& s, const ConfigValue& v) {
    std::vector<double> w;
    double sum = 0;
    for (const std::string& item : v.items) sum += w.emplace_back(one_real(v, {0, 1}, item));
    if (!w.empty() && !(std::fabs(sum - 1) < 1e-6))
      v.fail(fmt::format("a list of weights that sum to 1 (they sum to {:.6g})", sum));
    s.mm_weights = w;
  };
  weights.get = [](const Settings& s) { return fmt::format("[{}]", fmt::join(s.mm_weights, ", ")); };
  ConfigKey& frozen =
      t.real("lambda_coeff", &Settings::lambda_coeff, {0, 1},
             "LATTICE: share of the graph of the raw features, which stays as it is, in the item graph");
  frozen.concerns = kLearnedGraph, frozen.written_if_idle = false;
  t.real("dropout", &Settings::dropout, {0, 1, false, true},
         "share of the user-item edges pruned, drawn anew each epoch")
      .concerns = kItemGraph | kViews;
  const size_t denoised = t.keys.size();
  t.choice("dgd", &Settings::dgd, {"on", "off", "direct"},
           "the backbone MCDRec: edges weighed by the last reverse process (before the first, and where there is none: "
           "by the item table) before they are pruned; direct: each by its own weight too; off: as FREEDOM");
  t.real("dgd_tau", &Settings::dgd_tau, {-1, 1, true, true}, "tau of an edge's weight 1 + tau cos(user, item)");
  for (size_t i = denoised; i < t.keys.size(); ++i) t.keys[i].concerns = kDiffusion, t.keys[i].written_if_idle = false;
  ConfigKey& cache =
      t.text("graph_cache", &Settings::graph_cache, true, "folder that keeps kNN lists between runs; empty: none");
  cache.concerns = kItemGraph, cache.resumable = true;

  t.group = "negatives";
  const size_t hard = t.keys.size();
  t.choice("sampler", &Settings::sampler, sampler_names(),
           "hard negatives beside the random ones; with CCDRec where ndi and cns are off");
  t.integer("n_candidates", &Settings::n_candidates, 1, kMostCandidates,
            "dns, mixgcf: N, uniform draws of which the best-scored is taken");
  t.integer("top_m", &Settings::top_m, 1, kMostCandidates, "dns: one of the so many best-scored draws, uniformly");
  t.real("popularity_power", &Settings::popularity_power, {0, 2}, "popularity: P(item) ~ (its training rows)^power");
  t.real("realhns_p_min", &Settings::realhns_p_min, {0, 100, false, true},
         "realhns: where the band of a user's ranking that candidates are taken from begins, in per cent of all items");
  t.real("realhns_p_max", &Settings::realhns_p_max, {0, 100, true, false}, "realhns: where it ends");
  t.integer("realhns_candidates", &Settings::realhns_candidates, 1, kMostFiltered,
            "realhns: N_c, ranks of the band, the same for all users and drawn anew each epoch; at most all of it");
  t.integer(
      "realhns_clusters", &Settings::realhns_clusters, 1, 4096,
      "realhns: clusters of the items, whose mean cohesion a candidate's cosine with the positive may not exceed");
  t.integer(
      "realhns_start", &Settings::realhns_start, 0, kIntMax,
      "realhns: e0, epochs (from 1) of uniform negatives; then, every second epoch, an eighth more of the rows has "
      "a hard one, and the bound on the cosine, cohesion/5 at first, grows 1.15 times up to the cohesion");
  t.real("realhns_top", &Settings::realhns_top, {0, 1, true, false},
         "realhns: share of the candidates, the best scored under the bound, that one is drawn from uniformly");
  t.real("omega", &Settings::omega, {0, 1},
         "weight of the BPR against the hard negative; the random ones have the rest. Not given: 0.5 with a sampler");
  t.integer("negative_stats", &Settings::negative_stats, 0, 1 << 20,
            "rows an epoch whose negatives are measured (hardness in metrics.jsonl); 0: none");
  t.keys.back().resumable = true;  // no number of the training depends on it
  for (size_t i = hard; i < t.keys.size(); ++i) t.keys[i].concerns = kRanking, t.keys[i].written_if_idle = false;

  t.group = "BM3, SLMRec, MMGCN, MCDRec";
  t.real("cl_weight", &Settings::cl_weight, {0, kInf, false, true}, "BM3: weight of the modalities' terms").concerns =
      kViews;
  t.real("temp", &Settings::temp, {0, kInf, true, true}, "SLMRec: temperature of the contrast of users and items")
      .concerns = kContrast;
  t.real("ssl_temp", &Settings::ssl_temp, {0, kInf, true, true}, "SLMRec: temperature of the contrasts of modalities")
      .concerns = kContrast;
  t.real("ssl_alpha", &Settings::ssl_alpha, {0, kInf, false, true}, "SLMRec: weight of the contrasts of modalities")
      .concerns = kContrast;
  t.integer("mmgcn_latent", &Settings::mmgcn_latent, 1, 65536,
            "MMGCN: width that a modality of more than 1,024 columns is mapped to first")
      .concerns = kMessages;
  t.flag("mrd", &Settings::mrd, "MCDRec: the diffusion of items; off: DGD alone, by the item table").concerns = kMrd;
  ConfigKey& dropped = t.real("unet_dropout", &Settings::unet_dropout, {0, 1, false, true},
                              "share of the values that each block of the U-Net drops in training");
  dropped.concerns = kDiffusion, dropped.written_if_idle = false;

  t.group = "CCDRec";
  const size_t first = t.keys.size();
  t.flag("dma", &Settings::dma, "diffusion-controlled multimodal aligning: fusion and L_dm");
  t.flag("ndi", &Settings::ndi, "negative-sensitive diffusive inferring: the pools");
  t.flag("cns", &Settings::cns, "curricular negative sampler");
  t.real("lambda_dm", &Settings::lambda, {0, kInf, false, true}, "weight of L_dm; the paper searches 0.5, 1, 2");
  t.integer("timesteps", &Settings::timesteps, 1, 100000, "T, steps of the diffusion");
  t.choice("noise_schedule", &Settings::noise_schedule, {"linear", "cosine", "exponential", "sqrt"},
           "beta_1 .. beta_T");
  t.flag("noise_prediction_form", &Settings::noise_prediction_form,
         "the reverse step of the paper's Eq. 3, read literally");
  t.flag("mirrored_timesteps", &Settings::mirrored_timesteps,
         "half of a batch draws t, the other half takes the mirrored step: lower variance");
  t.real("mu", &Settings::mu, {0, 1}, "weight of the diffused row in fusion");
  t.integer("dtau", &Settings::dtau, 1, kIntMax, "epochs of a curriculum stage");
  t.integer("first_stage", &Settings::first_stage, 0, kIntMax, "epochs of the first stage; 0: dtau");
  t.integer("tau_end", &Settings::tau_end, 0, kIntMax,
            "after this epoch negatives are ranked by the model's own item representations");
  t.real("candidate_ratio", &Settings::candidate_ratio, {0, 1, true, false},
         "candidates of a batch as a share of all items");
  t.real("kappa", &Settings::kappa, {0, 1, true, false},
         "share of the candidates, the most similar, that one negative is drawn from");
  t.flag("cns_cosine", &Settings::cns_cosine, "cosine instead of the dot product as similarity");
  t.choice("ndi_negative", &Settings::ndi_negative, {"pool", "index"},
           "NDI without CNS: the pool row stands for the negative, or only its index is used");
  t.choice("estimator", &Settings::estimator, {"attention", "transformer", "unet"}, "form of f_theta");
  t.integer("estimator_layers", &Settings::estimator_layers, 1, kMaxEncoderLayers,
            "layers of the transformer estimator");
  t.integer("estimator_heads", &Settings::estimator_heads, 1, kMaxEncoderHeads,
            "heads of the transformer estimator; divides embedding_size");
  for (size_t i = first; i < t.keys.size(); ++i) t.keys[i].concerns = kModules;
  for (ConfigKey& k : t.keys)
    for (const char* of_diffusion : {"lambda_dm", "timesteps", "noise_schedule", "noise_prediction_form",
                                     "mirrored_timesteps", "mu", "estimator", "estimator_layers", "estimator_heads"})
      if (k.name == of_diffusion) k.concerns = kDiffusion;

  t.group = "checkpoints";
  t.flag("save_best", &Settings::save_best,
         "best.safetensors when validation improves; evaluate, recommend and export need it")
      .resumable = true;
  t.flag("save_last", &Settings::save_last, "last.safetensors, from which a run resumes").resumable = true;
  t.integer("save_every", &Settings::save_every, 0, kIntMax,
            "last.safetensors every n epochs; 0: only at the end and when interrupted")
      .resumable = true;
  name_idle_keys(t);
  return t;
}

constexpr const char* kTransformer = "it belongs to the text and image encoders of end2end, and features are read here";
const std::vector<AcceptedKey> kAccepted = {
    {"eval_batch_size", nullptr, "evaluation streams users in tiles of its own; batches never change a metric"},
    {"metrics", nullptr, "Recall, NDCG, Precision, MAP, MRR and Hit are always computed"},
    {"use_gpu", nullptr, "--device decides"},
    {"gpu_id", nullptr, "--device decides"},
    {"hyper_parameters", nullptr, "it names the keys that may hold a grid; a run takes one value of each"},
    {"vision_feature_file", nullptr, "it names a modality, where the model reads any and the key modalities does not"},
    {"text_feature_file", nullptr, "it names a modality, where the model reads any and the key modalities does not"},
    {"feat_embed_dim", nullptr, "modality projections have the width embedding_size"},
    {"weight_size", nullptr, "every layer has the width embedding_size; n_ui_layers is their number"},
    {"cf_model", "lightgcn", "the user-item graph is propagated as LightGCN does"},
    {"mess_dropout", nullptr, "no model here drops messages"},
    {"adj_type", "pre", "the model decides how its graph is normalised"},
    {"mm_fusion_mode", nullptr, "the model decides how modalities are fused"},
    {"init", nullptr, "the model decides its initialisation"},
    {"ssl_task", "FAC", "SLMRec contrasts by fine and coarse alignment (FAC)"},
    {"dropout_rate", nullptr, "SLMRec's alignment (FAC) drops nothing; pruned edges are the key dropout"},
    {"reg", nullptr, "SLMRec's released program reads it and uses it nowhere; a regulariser's weight is reg_weight"},
    {"degree_ratio", nullptr, "FREEDOM's released program reads it and uses it nowhere"},
    {"is_multimodal_model", nullptr, "the model decides whether features are read"},
    {"end2end", "false", "features are read, not extracted"},
    {"user_graph_dict_file", nullptr, "no model here reads it"},
    {"field_separator", "\t|\\t|,|;|", "the file's own separator is found: tabs, commas or semicolons"},
    {"filter_out_cod_start_users", "true", "held-out rows of users without training rows are dropped"},
    {"load_cols", nullptr, "columns are found by name"},
    {"TIME_FIELD", nullptr, "the split stands in the file, so no model here reads the time"},
    {"NEG_PREFIX", nullptr, "an internal name of MMRec"},
    {"use_neg_sampling", "true", "the model decides whether it draws negatives; BM3 draws none"},
    {"training_neg_sample_num", "1", "n_neg is the number of random negatives of a row"},
    {"use_full_sampling", "false", "negatives, where there are any, are drawn"},
    {"use_raw_features", nullptr, "the model decides whether features are read"},
    {"learner", "adam", "the optimiser is Adam"},
    {"weight_decay", "0|", "there is no weight decay with this model"},
    {"clip_grad_norm", "|none|null", "gradients are not clipped"},
    {"valid_metric_bigger", "true", "a larger metric is better"},
    {"eval_type", nullptr, "every item is ranked for every user"},
    {"loss_type", nullptr, "the model decides its loss"},
    {"init_method", nullptr, "the model decides its initialisation"},
    {"req_training", "true", "every model here is trained"},
    {"state", nullptr, "the log has one level"},
    {"reproducibility", "true", "the same seed gives the same bits on a device"},
    {"save_model", nullptr, "save_best and save_last decide"},
    {"checkpoint_dir", nullptr, "checkpoints lie in the run folder (key run_dir)"},
    {"save_recommended_topk", nullptr, "`ccdrec recommend` writes lists"},
    {"recommend_topk", nullptr, "`ccdrec recommend` writes lists"},
    {"vocab_size", nullptr, kTransformer},
    {"type_vocab_size", nullptr, kTransformer},
    {"hidden_size", nullptr, kTransformer},
    {"hidden_dropout_prob", nullptr, kTransformer},
    {"layer_norm_eps", nullptr, kTransformer},
    {"pad_token_id", nullptr, kTransformer},
    {"max_position_embeddings", nullptr, kTransformer},
    {"max_txt_len", nullptr, kTransformer},
    {"max_img_size", nullptr, kTransformer},
};

const std::vector<KeyAlias> kAliases = {
    {"beta_sche", "noise_schedule"},
    {"w", "mu"},
    {"weight", "omega"},
    {"diff_weight", "lambda_dm"},
    {"sample_k", "kappa"},
    {"lr", "learning_rate"},
    {"batch_size", "train_batch_size"},
    {"recdim", "embedding_size"},
    {"n_layers", "n_ui_layers"},
    {"layer_num", "n_ui_layers"},
};

}  // namespace

const std::vector<ConfigKey>& config_keys() {
  static const KeyTable table = build_table();
  return table.keys;
}
const ConfigKey* find_key(const std::string& name) {
  for (const ConfigKey& k : config_keys())
    if (k.name == name) return &k;
  return nullptr;
}
bool concerns(const ConfigKey& key, const Settings& s) {
  const System* const system = find_system(s.model);
  return system && system->concerned_by(key.concerns);
}
const std::vector<AcceptedKey>& accepted_keys() { return kAccepted; }
const AcceptedKey* find_accepted(const std::string& name) {
  for (const AcceptedKey& a : kAccepted)
    if (name == a.name) return &a;
  return nullptr;
}

const std::vector<KeyAlias>& key_aliases() { return kAliases; }
std::string canonical(const std::string& name) {
  for (const KeyAlias& a : kAliases)
    if (name == a.name) return a.key;
  return name;
}

// What `get` gives, taken apart again: one value, or a list in brackets; those in JSON's quotes without them.
ConfigValue ConfigValue::of(const std::string& key, const std::string& text, const std::string& origin) {
  ConfigValue v;
  v.key = key, v.origin = origin;
  v.is_list = text.starts_with('[');
  const std::string_view all = v.is_list ? std::string_view(text).substr(1, text.size() - 2) : std::string_view(text);
  for (size_t at = 0; at < all.size();) {
    size_t end = at;
    for (bool inside = false; end < all.size() && (inside || all.substr(end, 2) != ", "); ++end) {
      if (all[end] == '"') inside = !inside;
      if (all[end] == '\\') ++end;
    }
    const std::string item(all.substr(at, end - at));
    v.items.push_back(item.starts_with('"') ? nlohmann::json::parse(item).get<std::string>() : item);
    at = end + 2;
  }
  if (v.items.empty() && !v.is_list) v.is_null = true;
  return v;
}

void check_ranges(const Settings& settings) {
  Settings copy = settings;
  for (const ConfigKey& key : config_keys())  // `model` is the first
    if (key.name == "model" || concerns(key, settings))
      key.set(copy, ConfigValue::of(key.name, key.get(settings), "settings"));
  check_width(settings, "settings");
  check_sampler(settings, "settings");
}

bool parse_real(const std::string& text, double& out) { return parse_number(text, out) && std::isfinite(out); }

bool allows(const AcceptedKey& key, const std::string& item) {
  if (!key.only) return true;
  const std::string_view all = key.only;
  for (size_t at = 0; at <= all.size();) {
    const size_t end = std::min(all.find('|', at), all.size());
    const std::string possible(all.substr(at, end - at));
    double a = 0, b = 0;
    bool x = false, y = false;
    if (lower(possible) == lower(item) || (parse_real(possible, a) && parse_real(item, b) && a == b)) return true;
    if ((possible == "true" || possible == "false") && parse_bool(possible, x) && parse_bool(item, y) && x == y)
      return true;
    at = end + 1;
  }
  return false;
}

}  // namespace ccdrec
