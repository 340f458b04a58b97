#include "host/systems/registry.h"

#include <fmt/format.h>

#include "data/error.h"
#include "data/text.h"
#include "host/ccdrec/cns.h"
#include "host/ccdrec/dma.h"
#include "host/ccdrec/pool_negatives.h"
#include "host/models/bm3.h"
#include "host/models/bpr.h"
#include "host/models/freedom.h"
#include "host/models/lattice.h"
#include "host/models/lightgcn.h"
#include "host/models/mcdrec.h"
#include "host/models/mmgcn.h"
#include "host/models/slmrec.h"
#include "host/samplers/dns.h"
#include "host/samplers/mixgcf.h"
#include "host/samplers/popularity.h"
#include "host/samplers/realhns.h"
#include "host/systems/ranked.h"

namespace ccdrec {
namespace {

// The line of that name; UserError: "WHAT is 'NAME', expected A, B or C".
template <class Lines>
const auto& line_of(const Lines& lines, const char* what, const std::string& name) {
  std::string names;
  const size_t n = std::size(lines);
  for (size_t k = 0; k < n; ++k) {
    if (name == lines[k].name) return lines[k];
    names += std::string(k == 0 ? "" : k + 1 < n ? ", " : " or ") + lines[k].name;
  }
  throw UserError(std::string(what) + " is '" + name + "', expected " + names);
}

template <class B>
std::unique_ptr<Backbone> made(const Setup& z, Start start) {
  return std::make_unique<B>(z, start);
}

struct BackboneLine {
  const char* name;
  std::unique_ptr<Backbone> (*make)(const Setup&, Start);
  void (*outline)(Outline&, const Settings&);
  std::vector<KeyMeaning> keys;  // of systems put on it
};
constexpr const char* kModalityTerms = "weight of the BPR terms on mapped features; 0: none";
constexpr const char* kSquares = "weight of the squares of the batch's representations";
const BackboneLine kBackbones[] = {
    {"FREEDOM", made<Freedom>, Freedom::outline, {}},
    {"MCDRec", made<McdRec>, McdRec::outline, {}},
    {"LATTICE",
     made<Lattice>,
     Lattice::outline,
     {{"learning_rate_scheduler", "[0.96, 50]"}, {"reg_weight", "0.00001", kSquares}}},
    {"LightGCN", made<LightGcn>, LightGcn::outline, {}},
    {"BPR", made<Bpr>, Bpr::outline, {}},
};
const BackboneLine& backbone_named(const std::string& name) { return line_of(kBackbones, "backbone", name); }

template <class S>
std::unique_ptr<Sampler> made_sampler(const Setup& z, const Outline& o) {
  return std::make_unique<S>(z, o);
}

struct SamplerLine {
  const char *name, *title;
  std::unique_ptr<Sampler> (*make)(const Setup&, const Outline&);
  void (*outline)(Outline&);
};
constexpr SamplerLine kSamplers[] = {
    {"none", "", [](const Setup&, const Outline&) { return std::unique_ptr<Sampler>(); }, [](Outline&) {}},
    {"popularity", "Popularity", made_sampler<Popularity>, Popularity::outline},
    {"dns", "DNS", made_sampler<Dns>, Dns::outline},
    {"mixgcf", "MixGCF", made_sampler<MixGcf>, MixGcf::outline},
    {"realhns", "RealHNS", made_sampler<RealHns>, RealHns::outline},
};

void outline_sampler(Outline& o, const Settings& s) {
  o.hard = o.hard || (s.sampler != kSamplers[0].name && s.omega != 0);
  line_of(kSamplers, "sampler", s.sampler).outline(o);
}
std::unique_ptr<Sampler> make_sampler(const Setup& z, const Outline& o) {
  return line_of(kSamplers, "sampler", z.s.sampler).make(z, o);
}

bool diffuses(const Settings& s) { return s.dma || s.ndi; }  // NDI's estimator learns as DMA's does

// A backbone alone.
Outline plain_outline(const Settings& s) {
  Outline o;
  backbone_named(s.model).outline(o, s);
  outline_sampler(o, s);
  return o;
}

std::unique_ptr<Model> make_plain(const Setup& z) {
  RankedParts p;
  p.backbone = backbone_named(z.s.model).make(z, Start::q);
  const Outline o = plain_outline(z.s);
  if (o.projects) p.modal = std::make_unique<Modalities>(z, *p.arena);
  p.backbone->join(*p.arena, p.modal.get());
  p.arena->take(z.dev);
  if (p.modal) p.modal->init();
  p.backbone->init();
  p.sampler = make_sampler(z, o);
  return std::make_unique<Ranked>(z, find_system(z.s.model)->losses, std::move(p));
}

// What an estimator adds to the outline of the backbone it is put on.
void outline_diffusion(Outline& o, const Settings& s, int pools) {
  o.diffusion = o.projects = o.reads_features = true;
  o.estimator = Denoiser::parameters(s, s.embedding_size);
  o.unet = s.estimator == "unet";
  o.pools = pools;
}

void note_no_guide(const Setup& z, const Outline& o, const char* why) {
  if (o.denoises && !o.diffusion)
    z.notes.push_back(std::string(why) +
                      ", so there is no reverse process: DGD weighs the edges by the item table itself");
}

// A fusion put on a backbone: all that has room in the arena, made and initialised. Null: the outline has none.
std::unique_ptr<Dma> add_fusion(const Setup& z, const Outline& o, RankedParts& p) {
  if (o.projects) p.modal = std::make_unique<Modalities>(z, *p.arena);
  std::unique_ptr<Dma> dma = o.diffusion ? std::make_unique<Dma>(z, o, *p.arena, *p.modal) : nullptr;
  p.backbone->join(*p.arena, p.modal.get());
  p.arena->take(z.dev);
  if (p.modal) p.modal->init();
  p.backbone->init();
  if (dma) dma->init();
  return dma;
}

// MCDRec: a backbone whose propagation starts from what MRD, an estimator over all items, makes of the item table.
Outline mcdrec_outline(const Settings& s) {
  Outline o = plain_outline(s);
  if (!s.mrd) return o;
  o.start_room = o.fuses = o.fuses_all = true;
  outline_diffusion(o, s, 1);
  return o;
}

std::unique_ptr<Model> make_mcdrec(const Setup& z) {
  const Outline o = mcdrec_outline(z.s);
  RankedParts p;
  p.backbone = backbone_named(z.s.model).make(z, o.diffusion ? Start::over_q : Start::q);
  p.fusion = add_fusion(z, o, p);
  p.sampler = make_sampler(z, o);
  note_no_guide(z, o, "mrd is off");
  return std::make_unique<Ranked>(z, find_system(z.s.model)->losses, std::move(p));
}

// CCDRec: a backbone whose propagation starts from what DMA makes of Hhat, and negatives by CNS over the pools of NDI.
Outline ccdrec_outline(const Settings& s) {
  Outline o;
  backbone_named(s.backbone).outline(o, s);
  o.start_room = true;
  o.fuses = s.dma;
  constexpr int kOfCurriculum = 4;  // the stages of CNS; fusion and NDI alone read the last
  if (diffuses(s)) outline_diffusion(o, s, s.ndi && s.cns ? kOfCurriculum : 1), o.maps_items = true;
  o.searches = s.cns, o.constant_rows = s.ndi && !s.cns;
  o.curricular = s.cns || s.ndi;
  o.hard = o.curricular && s.omega != 0;
  outline_sampler(o, s);
  return o;
}

std::unique_ptr<Model> make_ccdrec(const Setup& z) {
  const Outline o = ccdrec_outline(z.s);
  RankedParts p;
  p.backbone = backbone_named(z.s.backbone).make(z, Start::over_hhat);
  std::unique_ptr<Dma> dma = add_fusion(z, o, p);
  if (z.s.cns)
    p.sampler = std::make_unique<Cns>(z, dma ? &dma->ndi() : nullptr);
  else if (z.s.ndi)
    p.sampler = std::make_unique<PoolNegatives>(z, dma->ndi());
  else
    p.sampler = make_sampler(z, o);
  p.fusion = std::move(dma);
  note_no_guide(z, o, "dma and ndi are off");
  return std::make_unique<Ranked>(z, find_system(z.s.model)->losses, std::move(p));
}

// A model of a kind of its own.
template <class M>
std::unique_ptr<Model> make_own(const Setup& z) {
  return std::make_unique<M>(z, find_system(z.s.model)->losses);
}

constexpr const char* kNormRegulariser = "weight of the norm regulariser";

// Defaults: the released settings where there are some (spec baselines 3, 4, 9; ccdrec 6), else starting points in the
// middle of the published grids (BPR 0.1: what another toolbox settled on for all three Amazon sets).
const std::vector<System> kSystems = {
    {"BPR",
     kRanking,
     {{"learning_rate", "0.001"}, {"train_batch_size", "2048"}, {"reg_weight", "0.1", kNormRegulariser}},
     {"bpr", "reg"},
     nullptr,
     false,
     make_plain,
     plain_outline},
    {"LightGCN",
     kRanking | kUserItemGraph,
     {{"learning_rate", "0.001"},
      {"train_batch_size", "2048"},
      {"reg_weight", "0.0001", kNormRegulariser},
      {"n_ui_layers", "2"}},
     {"bpr", "reg"},
     "n_ui_layers",
     false,
     make_plain,
     plain_outline},
    {"MMGCN",
     kRanking | kFeatures | kMessages,
     {{"learning_rate", "0.001"},
      {"train_batch_size", "2048"},
      {"reg_weight", "0", "weight of a regulariser on what is not trained: it is shown, and changes no parameter"}},
     {"bpr", "reg"},
     "",
     false,
     make_own<Mmgcn>,
     Mmgcn::outline,
     Mmgcn::plan},
    {"SLMRec",
     kUserItemGraph | kFeatures | kContrast,
     {{"learning_rate", "0.001"}, {"train_batch_size", "2048"}, {"n_ui_layers", "3"}, {"weight_decay", "0.0001"}},
     {"main", "ssl_1", "ssl_2"},
     nullptr,
     false,
     make_own<SlmRec>,
     SlmRec::outline,
     SlmRec::plan},
    {"BM3",
     kUserItemGraph | kFeatures | kViews,
     {{"learning_rate", "0.001"},
      {"train_batch_size", "2048"},
      {"n_ui_layers", "1"},
      {"dropout", "0.5", "share of a target's values that is masked, drawn anew each step"},
      {"reg_weight", "0.1", "weight of the norms of the propagated tables"},
      {"cl_weight", "2"}},
     {"user_item", "modality", "reg"},
     "n_ui_layers",
     false,
     make_own<Bm3>,
     Bm3::outline,
     Bm3::plan},
    {"FREEDOM",
     kRanking | kUserItemGraph | kFeatures | kItemGraph,
     {{"learning_rate", "0.001"},
      {"train_batch_size", "2048"},
      {"dropout", "0.8"},
      {"reg_weight", "0", kModalityTerms}},
     {"bpr", "bpr_curricular", "align", "reg"},
     nullptr,
     false,
     make_plain,
     plain_outline,
     nullptr,
     "MG"},
    {"LATTICE",
     kRanking | kUserItemGraph | kFeatures | kItemGraph | kLearnedGraph,
     {{"learning_rate", "0.001"},
      {"learning_rate_scheduler", "[0.96, 50]"},
      {"train_batch_size", "2048"},
      {"reg_weight", "0.00001", kSquares}},
     {"bpr", "reg"},
     "n_mm_layers",
     false,
     make_plain,
     plain_outline},
    {"MCDRec",
     kRanking | kUserItemGraph | kFeatures | kItemGraph | kDiffusion | kMrd,
     {{"learning_rate", "0.001"},
      {"train_batch_size", "2048"},
      {"dropout", "0.8"},
      {"reg_weight", "0", kModalityTerms},
      {"lambda_dm", "0.5", "weight of L_dm, the mean over all items"},
      {"mu", "0.5", "w, weight of the estimates in the propagation's start; the rest is the item table's"},
      {"estimator", "unet"}},
     {"bpr", "align", "reg"},
     nullptr,
     false,
     make_mcdrec,
     mcdrec_outline},
    {"CCDRec",
     kRanking | kUserItemGraph | kFeatures | kItemGraph | kLearnedGraph | kDiffusion | kModules,
     {{"learning_rate", "0.0005"},
      {"train_batch_size", "512"},
      {"dropout", "0.8"},
      {"reg_weight", "0", kModalityTerms},
      {"dtau", "5"},
      {"tau_end", "30"}},
     {"bpr", "bpr_curricular", "align", "reg"},
     nullptr,
     true,
     make_ccdrec,
     ccdrec_outline},
};

const System& system_named(const std::string& name) { return line_of(kSystems, "model", name); }

}  // namespace

const KeyMeaning* System::meaning(const std::string& key) const {
  for (const KeyMeaning& m : keys)
    if (key == m.key) return &m;
  return nullptr;
}

std::span<const System> systems() { return kSystems; }

const System* find_system(const std::string& name) {
  for (const System& system : kSystems)
    if (name == system.name) return &system;
  return nullptr;
}

std::span<const KeyMeaning> backbone_keys(const std::string& backbone) { return backbone_named(backbone).keys; }

std::vector<std::string> system_names() {
  std::vector<std::string> names;
  for (const System& system : kSystems) names.emplace_back(system.name);
  return names;
}

std::vector<std::string> backbone_names() {
  std::vector<std::string> names;
  for (const BackboneLine& line : kBackbones) names.emplace_back(line.name);
  return names;
}

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const SamplerLine& line : kSamplers) names.emplace_back(line.name);
  return names;
}

const char* sampler_title(const std::string& name) { return line_of(kSamplers, "sampler", name).title; }

Outline outline_of(const Settings& s) { return system_named(s.model).outline(s); }

std::unique_ptr<Model> make_system(const Setup& z) { return system_named(z.s.model).make(z); }

// CCDRec's step encoding: half of the width is sines, half cosines. SLMRec contrasts at half of the width too.
void check_width(const Settings& s, const std::string& origin) {
  const System& system = system_named(s.model);
  const auto refuse = [&](const char* why) {
    throw UserError("embedding_size = " + std::to_string(s.embedding_size) + " (" + origin + "): " + s.model + why);
  };
  if (system.concerned_by(kDiffusion) && s.estimator != "unet" && (s.embedding_size < 4 || s.embedding_size % 2 != 0))
    refuse("'s step encoding needs an even width of at least 4");
  if (system.concerned_by(kContrast) && s.embedding_size % 2 != 0)
    refuse(" contrasts modalities at half of the width too and needs an even one");
}

void check_modalities(const Settings& s, const std::vector<std::string>& names) {
  const Outline o = outline_of(s);
  if (o.diffusion) check_estimator(s, names.size());
  if (o.views)
    for (const std::string& name : names)
      if (name == "users" || name == "items")
        throw UserError("model " + s.model + " has masks of users and of items, so no modality can be called '" + name +
                        "'; rename " + name + "_feat.npy");
  const int want = o.modalities;
  if (want == 0 || names.size() == size_t(want)) return;
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? " (" : ", ") + shown(name);
  throw UserError(
      fmt::format("model {} takes exactly {} modalities, the first named in the visual place, the second in "
                  "the textual one, and there {} {}{}; name {} with modalities",
                  s.model, want, names.size() == 1 ? "is" : "are", names.size(), all.empty() ? "" : all + ")", want));
}

bool has_sampler(const Settings& s) { return s.sampler != kSamplers[0].name; }

void check_sampler(const Settings& s, const std::string& origin) {
  if (!has_sampler(s)) return;
  const System& system = system_named(s.model);
  const std::string what = "sampler = " + s.sampler + " (" + origin + "): ";
  if (!system.concerned_by(kRanking))
    throw UserError(what + s.model + " learns from no pairs of a positive and a negative; leave it away");
  if (!system.outline(s).ranks)
    throw UserError(what + s.model +
                    " learns from random negatives alone, n_neg of them a row; leave it away, or choose BPR, LightGCN, "
                    "FREEDOM, LATTICE or MCDRec");
  if (system.outline(s).curricular)
    throw UserError(what + "NDI and CNS give " + s.model +
                    " its hard negatives; switch both off (ndi: false, cns: false), or leave it away");
  if (system.outline(s).bands && s.realhns_p_min >= s.realhns_p_max)
    throw UserError(fmt::format("{}realhns_p_min is {} and realhns_p_max {}, expected the first below the second", what,
                                s.realhns_p_min, s.realhns_p_max));
}

void check_modules(const Settings& s) {
  if (outline_of(s).diffusion) check_estimator(s);
}

void check_system(const Settings& s, const Dataset& data) {
  const auto bad = [](const std::string& key, const std::string& got, const std::string& want) {
    throw UserError(key + " is " + got + ", expected " + want);
  };
  const Outline o = outline_of(s);
  check_modules(s);
  constexpr int kWidestOnGpu = 512;  // kernels/cuda/estimator.h: a row stays in the registers of a warp
  if (o.diffusion && s.embedding_size > kWidestOnGpu && s.estimator == "attention" && takes_gpu(s.device))
    bad("embedding_size", std::to_string(s.embedding_size),
        "at most " + std::to_string(kWidestOnGpu) + " on a GPU with the estimator attention");
  if (o.bands) {
    const Band band(s, data.n_users, data.n_items);
    if (band.width() < 1)
      throw UserError(fmt::format("realhns_p_min {} to realhns_p_max {} is no rank of {} items; widen the band",
                                  s.realhns_p_min, s.realhns_p_max, data.n_items));
  }
  if (data.train.empty()) throw UserError("data set " + data.name + " has no training rows; x_label 0 marks them");
  if (o.reads_features && data.features.empty())
    throw UserError("model " + s.model + " reads item features, but " + data.folder +
                    " has no *_feat.npy; add one, or choose BPR or LightGCN");
  if (o.reads_features && data.features.size() > size_t(kMaxModalities))
    throw UserError(std::to_string(data.features.size()) + " modalities found, at most " +
                    std::to_string(kMaxModalities) + " are supported; choose some with modalities");
  std::vector<std::string> names;
  for (const Feature& f : data.features) names.push_back(f.name);
  check_modalities(s, names);
  if (o.item_layers == 0) return;
  if (s.knn_k > data.n_items)
    bad("knn_k", std::to_string(s.knn_k), "at most the number of items, " + std::to_string(data.n_items));
  if (!o.learned_graph) modality_weights(s, data.features.size());
}

}  // namespace ccdrec
