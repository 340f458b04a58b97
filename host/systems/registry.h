// The systems by name, an entry each: what each holds, which settings concern it and what they mean there, and how it
// is made. Nothing else compares the names of models.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host/models/model.h"
#include "host/models/outline.h"
#include "host/models/planner.h"

namespace ccdrec {

// What a setting can concern (ConfigKey::concerns, systems/keys.h), and what a system has of it.
enum Concern : unsigned {
  kEverySystem = 0,
  kUserItemGraph = 1,  // it propagates over it
  kFeatures = 2,       // it reads features
  kRanking = 4,        // it learns from pairs of a positive and a negative
  kModules = 8,        // DMA, NDI, CNS
  kLearnedGraph = 16,  // its item graph, or that of a backbone it can have, is learned
  kItemGraph = 32,     // it has an item graph, and trains features
  kDiffusion = 64,     // it has an estimator of denoised items
  kMrd = 128,          // MCDRec's module
  kViews = 256,        // two views of a pair, one of them masked: BM3
  kContrast = 512,     // in-batch contrasts: SLMRec
  kMessages = 1024,    // a graph network on each modality: MMGCN
};

struct KeyMeaning {  // of a key for one system
  const char* key;
  const char* standard;        // its default there
  const char* help = nullptr;  // what it means there; null: what the table says
};

struct System {
  const char* name;
  unsigned has;                     // Concerns
  std::vector<KeyMeaning> keys;     // what they mean here, where that differs
  std::vector<const char*> losses;  // their terms, in the order of files; a sampler of hard negatives adds its own
  // the setting that MMRec's key n_layers is for this model; null: not its key; "": taken without influence
  const char* n_layers;
  bool wraps;  // it is put on the backbone that the settings name
  std::unique_ptr<Model> (*make)(const Setup&);
  Outline (*outline)(const Settings&);
  void (*plan)(Planner&) = nullptr;  // of a model of its own kind; null: by the outline
  const char* with_mg = nullptr;     // what tables call it when Mirror Gradient steps it; null: MG(NAME)

  bool concerned_by(unsigned concerns) const { return concerns == kEverySystem || (concerns & has); }
  const KeyMeaning* meaning(const std::string& key) const;  // null: the table's
};
std::span<const System> systems();
const System* find_system(const std::string& name);  // null: there is none
// What a backbone means by keys of a system that is put on it, beyond the system's own meanings.
std::span<const KeyMeaning> backbone_keys(const std::string& backbone);

std::vector<std::string> system_names();
std::vector<std::string> backbone_names();           // what a system that wraps can be put on
std::vector<std::string> sampler_names();            // none, and those that can be put on any system that ranks
const char* sampler_title(const std::string& name);  // what tables call it: DNS

// UserError for a name that is none, from all of them.
Outline outline_of(const Settings&);
// of embedding_size, given there: UserError where the system cannot have it
void check_width(const Settings&, const std::string& origin);
// given there: UserError where the system cannot have it
bool has_sampler(const Settings&);  // of hard negatives, by the setting
void check_sampler(const Settings&, const std::string& origin);
// UserError: settings of the system that the data or the device cannot serve
void check_modules(const Settings&);  // UserError: settings of the system's own modules that do not go together
// UserError: it cannot be put on so many
void check_modalities(const Settings&, const std::vector<std::string>& names);
void check_system(const Settings&, const Dataset&);
std::unique_ptr<Model> make_system(const Setup&);

}  // namespace ccdrec
