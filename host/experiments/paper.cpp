#include "host/experiments/paper.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {
namespace {

using Axes = std::vector<GridAxis>;

// What CCDRec's authors searched (spec ccdrec 6), on any backbone.
const Axes kCcdSmall = {{"mu", {"0.5", "0.8"}}, {"omega", {"0.5", "0.8"}}};
const Axes kCcdPaper = {{"lambda_dm", {"0.5", "1", "2"}},       {"omega", {"0.5", "0.7", "0.8", "0.9"}},
                        {"mu", {"0.3", "0.5", "0.8"}},          {"timesteps", {"5", "10", "20", "40", "100"}},
                        {"dtau", {"3", "5", "10", "15", "20"}}, {"tau_end", {"30", "50", "75", "100"}}};
const Axes kRegs = {{"reg_weight", {"0", "0.00001", "0.0001", "0.001"}}};

struct Backbone {
  const char *label, *name;            // in the table; the key's value
  std::vector<std::string> sets;       // beyond the model's own
  std::vector<std::string> on_sports;  // as released for that set
  Axes small, paper;
};
const std::vector<Backbone>& backbones() {
  static const std::vector<Backbone> all = {
      {"LATTICE",
       "LATTICE",
       {},
       {},
       {{"learning_rate", {"0.001", "0.0005"}}, {"reg_weight", {"0.00001", "0.001"}}},
       {{"learning_rate", {"0.0001", "0.0005", "0.001", "0.005"}}, kRegs[0]}},
      {"FREEDOM",
       "FREEDOM",
       {},
       {"reg_weight=0.001"},
       {{"dropout", {"0.8", "0.9"}}, {"reg_weight", {"0", "0.001"}}},
       {{"dropout", {"0.8", "0.9"}}, kRegs[0]}},
      {"MCDRec",
       "MCDRec",
       {},
       {},
       {{"mu", {"0.5", "0.8"}}},
       {{"mu", {"0.3", "0.5", "0.8"}}, {"lambda_dm", {"0.5", "1", "2"}}, kRegs[0]}},
      {"MG",
       "FREEDOM",
       {"use_mg=true"},
       {"reg_weight=0.001"},
       {{"alpha2", {"0.1", "0.2"}}, {"reg_weight", {"0", "0.001"}}},
       {{"alpha2", {"0.1", "0.2", "0.3"}}, {"dropout", {"0.8", "0.9"}}, kRegs[0]}}};
  return all;
}
const Backbone& backbone(const std::string& label) {
  return *std::find_if(backbones().begin(), backbones().end(), [&](const Backbone& b) { return label == b.label; });
}

PaperLine plain(const Backbone& b) { return {b.label, b.name, b.sets, b.small, b.paper, "", b.on_sports}; }

PaperLine ccdrec(const Backbone& b, const std::string& label) {
  PaperLine line{label,     "CCDRec", {fmt::format("backbone={}", b.name)},      kCcdSmall,
                 kCcdPaper, b.label,  {"dtau=10", "first_stage=6", "tau_end=75"}};
  line.sets.insert(line.sets.end(), b.sets.begin(), b.sets.end());
  return line;
}
PaperLine ccdrec(const Backbone& b) { return ccdrec(b, fmt::format("CCDRec({})", b.label)); }

// With CNS off: no curriculum to search, and without hard negatives no omega.
PaperLine without_cns(const Backbone& b, const char* suffix, const std::vector<std::string>& modules, bool hard) {
  PaperLine line = ccdrec(b, b.label + std::string(suffix));
  line.sets.push_back("cns=false");
  line.sets.insert(line.sets.end(), modules.begin(), modules.end());
  line.released.clear();
  for (Axes* axes : {&line.small, &line.paper})
    std::erase_if(*axes, [&](const GridAxis& axis) {
      return axis.key == "dtau" || axis.key == "tau_end" || (axis.key == "omega" && !hard);
    });
  return line;
}

PaperLine sampled(const Backbone& b, const char* suffix, const char* sampler, Axes small, Axes paper) {
  PaperLine line{
      b.label + std::string(suffix), b.name, b.sets, std::move(small), std::move(paper), b.label, b.on_sports};
  line.sets.push_back(fmt::format("sampler={}", sampler));
  return line;
}
std::vector<PaperLine> samplers_on(const Backbone& b) {
  const GridAxis omega{"omega", {"0.5", "0.8"}};
  const GridAxis drawn_omega{"omega", {"0.5", "0.7", "0.8", "0.9", "1"}};
  const GridAxis few{"n_candidates", {"8", "32"}}, many{"n_candidates", {"8", "16", "32", "64"}};
  const GridAxis band{"realhns_p_max", {"5", "10"}};
  return {sampled(b, "+DNS", "dns", {few, omega}, {many, drawn_omega}),
          sampled(b, "+MixGCF", "mixgcf", {few, omega}, {many, drawn_omega}),
          sampled(b, "+RealHNS", "realhns", {band, omega}, {{"realhns_p_max", {"5", "10", "20", "30"}}, drawn_omega})};
}

// Those that stand on no backbone.
std::vector<PaperLine> by_themselves() {
  return {{"BPR",
           "BPR",
           {},
           {{"reg_weight", {"0.1", "0.01", "0.001", "0.0001"}}},
           {{"reg_weight", {"2", "1", "0.1", "0.01", "0.001", "0.0001", "0.00001"}}},
           "",
           {}},
          {"LightGCN",
           "LightGCN",
           {},
           {{"reg_weight", {"0.01", "0.001", "0.0001", "0.00001"}}},
           {{"n_ui_layers", {"1", "2", "3", "4"}}, {"reg_weight", {"0.01", "0.001", "0.0001", "0.00001", "0.000001"}}},
           "",
           {}},
          {"MMGCN",
           "MMGCN",
           {},
           {{"learning_rate", {"0.001", "0.0005"}}},
           {{"learning_rate", {"0.0001", "0.0005", "0.001", "0.005"}}},
           "",
           {}},
          {"SLMRec",
           "SLMRec",
           {},
           {{"ssl_temp", {"0.1", "0.5"}}, {"ssl_alpha", {"0.01", "0.1"}}},
           {{"ssl_temp", {"0.1", "0.2", "0.5", "1"}},
            {"ssl_alpha", {"0.01", "0.05", "0.1", "0.5", "1"}},
            {"learning_rate", {"0.0001", "0.001"}}},
           "",
           {}},
          {"BM3",
           "BM3",
           {},
           {{"n_ui_layers", {"1", "2"}}, {"reg_weight", {"0.1", "0.01"}}},
           {{"n_ui_layers", {"1", "2"}}, {"reg_weight", {"0.1", "0.01"}}, {"dropout", {"0.3", "0.5"}}},
           "",
           {"reg_weight=0.01"}}};
}

std::vector<PaperLine> table2() {
  std::vector<PaperLine> lines = by_themselves();
  for (const Backbone& b : backbones()) lines.push_back(plain(b)), lines.push_back(ccdrec(b));
  return lines;
}

// A backbone with what gives it hard negatives. CCDRec has another model too, which the samplers' lines lack: DNS on
// that model shows what the negatives alone do.
std::vector<PaperLine> with_negatives(const Backbone& b) {
  std::vector<PaperLine> lines = {plain(b)};
  for (PaperLine& line : samplers_on(b)) lines.push_back(std::move(line));
  lines.push_back(without_cns(b, "+DMA+DNS", {"ndi=false", "sampler=dns"}, true));
  lines.push_back(ccdrec(b));
  return lines;
}

std::vector<PaperLine> table3() {
  std::vector<PaperLine> lines;
  for (const char* label : {"LATTICE", "FREEDOM", "MG"})
    for (PaperLine& line : with_negatives(backbone(label))) lines.push_back(std::move(line));
  return lines;
}

std::vector<PaperLine> all_systems() {
  std::vector<PaperLine> lines = by_themselves();
  for (const Backbone& b : backbones())
    for (PaperLine& line : with_negatives(b)) lines.push_back(std::move(line));
  return lines;
}

std::vector<PaperLine> figure3() {
  std::vector<PaperLine> lines;
  for (const Backbone& b : backbones()) {
    lines.push_back(plain(b));
    lines.back().sets.push_back("n_neg=2");
    lines.push_back(without_cns(b, "+DMA", {"ndi=false", "n_neg=2"}, false));
    lines.push_back(without_cns(b, "+DMA+NDI", {}, true));
    lines.push_back(ccdrec(b));
  }
  return lines;
}

std::vector<PaperLine> sensitivity() {
  const Backbone& b = backbone("FREEDOM");
  std::vector<PaperLine> lines = {ccdrec(b)};
  lines[0].over = "";
  for (const char* key : {"lambda_dm", "omega", "timesteps", "mu", "dtau", "tau_end"})
    for (const GridAxis& axis : kCcdPaper)
      if (axis.key == key)
        for (const std::string& value : axis.values) {
          lines.push_back(ccdrec(b, fmt::format("{}={}", key, value)));
          lines.back().sets.push_back(lines.back().label);
          lines.back().over = lines[0].label;
        }
  return lines;
}

std::vector<PaperLine> cost() {
  const Backbone& b = backbone("FREEDOM");
  std::vector<PaperLine> lines = {plain(b), without_cns(b, "+DMA", {"ndi=false"}, false),
                                  without_cns(b, "+DMA+NDI", {}, true), ccdrec(b),
                                  sampled(b, "+Popularity", "popularity", {}, {})};
  for (PaperLine& line : samplers_on(b)) lines.push_back(std::move(line));
  return lines;
}

struct Counts {
  const char* set;
  int64_t users, items, rows;
};
constexpr Counts kSets[] = {
    {"baby", 19445, 7050, 160792}, {"sports", 35598, 18357, 296337}, {"clothing", 39387, 23033, 278677}};

// Tables 2 and 3 of the paper: recall@5, recall@10, ndcg@5, ndcg@10; 0: not printed.
struct Figures {
  const char *set, *label;
  double value[4];
};
constexpr const char* kPrinted[] = {"recall@5", "recall@10", "ndcg@5", "ndcg@10"};
constexpr Figures kPublished[] = {{"baby", "BPR", {.0208, .0344, .0138, .0183}},
                                  {"baby", "LightGCN", {.0307, .0488, .0204, .0263}},
                                  {"baby", "MMGCN", {.0251, .0410, .0164, .0217}},
                                  {"baby", "SLMRec", {.0320, .0486, .0216, .0271}},
                                  {"baby", "BM3", {.0326, .0535, .0219, .0288}},
                                  {"baby", "LATTICE", {.0352, .0545, .0228, .0291}},
                                  {"baby", "CCDRec(LATTICE)", {.0371, .0596, .0251, .0325}},
                                  {"baby", "FREEDOM", {.0389, .0626, .0250, .0328}},
                                  {"baby", "CCDRec(FREEDOM)", {.0426, .0679, .0274, .0356}},
                                  {"baby", "MCDRec", {.0381, .0651, .0255, .0343}},
                                  {"baby", "CCDRec(MCDRec)", {.0409, .0667, .0269, .0354}},
                                  {"baby", "MG", {.0390, .0624, .0253, .0330}},
                                  {"baby", "CCDRec(MG)", {.0399, .0651, .0262, .0344}},
                                  {"baby", "LATTICE+DNS", {0, .0572, 0, .0311}},
                                  {"baby", "LATTICE+MixGCF", {0, .0582, 0, .0316}},
                                  {"baby", "LATTICE+RealHNS", {0, .0586, 0, .0313}},
                                  {"baby", "FREEDOM+DNS", {0, .0637, 0, .0339}},
                                  {"baby", "FREEDOM+MixGCF", {0, .0654, 0, .0348}},
                                  {"baby", "FREEDOM+RealHNS", {0, .0659, 0, .0351}},
                                  {"baby", "MG+DNS", {0, .0635, 0, .0336}},
                                  {"baby", "MG+MixGCF", {0, .0643, 0, .0342}},
                                  {"baby", "MG+RealHNS", {0, .0644, 0, .0338}},
                                  {"sports", "BPR", {.0257, .0410, .0177, .0228}},
                                  {"sports", "LightGCN", {.0354, .0554, .0242, .0308}},
                                  {"sports", "MMGCN", {.0236, .0388, .0154, .0204}},
                                  {"sports", "SLMRec", {.0420, .0650, .0285, .0361}},
                                  {"sports", "BM3", {.0401, .0627, .0269, .0343}},
                                  {"sports", "LATTICE", {.0395, .0625, .0263, .0338}},
                                  {"sports", "CCDRec(LATTICE)", {.0470, .0715, .0316, .0397}},
                                  {"sports", "FREEDOM", {.0455, .0713, .0299, .0384}},
                                  {"sports", "CCDRec(FREEDOM)", {.0481, .0760, .0315, .0406}},
                                  {"sports", "MCDRec", {.0463, .0709, .0305, .0386}},
                                  {"sports", "CCDRec(MCDRec)", {.0478, .0740, .0315, .0400}},
                                  {"sports", "MG", {.0460, .0714, .0302, .0385}},
                                  {"sports", "CCDRec(MG)", {.0489, .0746, .0319, .0404}},
                                  {"clothing", "BPR", {.0118, .0191, .0079, .0102}},
                                  {"clothing", "LightGCN", {.0219, .0355, .0145, .0189}},
                                  {"clothing", "MMGCN", {.0128, .0210, .0085, .0111}},
                                  {"clothing", "SLMRec", {.0290, .0440, .0192, .0240}},
                                  {"clothing", "BM3", {.0273, .0417, .0180, .0226}},
                                  {"clothing", "LATTICE", {.0330, .0499, .0217, .0272}},
                                  {"clothing", "CCDRec(LATTICE)", {.0393, .0613, .0259, .0330}},
                                  {"clothing", "FREEDOM", {.0403, .0623, .0265, .0337}},
                                  {"clothing", "CCDRec(FREEDOM)", {.0433, .0677, .0288, .0368}},
                                  {"clothing", "MCDRec", {.0415, .0653, .0276, .0353}},
                                  {"clothing", "CCDRec(MCDRec)", {.0434, .0670, .0288, .0364}},
                                  {"clothing", "MG", {.0400, .0622, .0264, .0336}},
                                  {"clothing", "CCDRec(MG)", {.0428, .0664, .0284, .0361}},
                                  {"clothing", "LATTICE+DNS", {0, .0580, 0, .0322}},
                                  {"clothing", "LATTICE+MixGCF", {0, .0582, 0, .0321}},
                                  {"clothing", "LATTICE+RealHNS", {0, .0586, 0, .0322}},
                                  {"clothing", "FREEDOM+DNS", {0, .0650, 0, .0354}},
                                  {"clothing", "FREEDOM+MixGCF", {0, .0644, 0, .0350}},
                                  {"clothing", "FREEDOM+RealHNS", {0, .0641, 0, .0351}},
                                  {"clothing", "MG+DNS", {0, .0639, 0, .0346}},
                                  {"clothing", "MG+MixGCF", {0, .0648, 0, .0349}},
                                  {"clothing", "MG+RealHNS", {0, .0651, 0, .0352}}};

}  // namespace

const std::vector<std::string>& paper_tables() {
  static const std::vector<std::string> names = {"table2", "table3", "systems", "figure3", "sensitivity", "cost"};
  return names;
}

PaperTable paper_table(const std::string& name, const std::string& set) {
  const std::vector<std::string> four = {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}, two = {"recall@10", "ndcg@10"};
  PaperTable t;
  t.name = name;
  if (name == "table2")
    t.title = "Table 2: all systems", t.lines = table2(), t.metrics = four, t.gain_rows = true;
  else if (name == "table3")
    t.title = "Table 3: samplers of hard negatives", t.lines = table3(), t.metrics = two;
  else if (name == "systems")
    t.title = "Tables 2 and 3: all systems and samplers", t.lines = all_systems(), t.metrics = four;
  else if (name == "figure3")
    t.title = "Figure 3: the modules", t.lines = figure3(), t.metrics = two;
  else if (name == "sensitivity")
    t.title = "Sensitivity of CCDRec(FREEDOM), one setting at a time", t.lines = sensitivity(), t.metrics = two,
    t.searches = false;
  else if (name == "cost")
    t.title = "Cost of the modules and of the samplers on FREEDOM", t.lines = cost(), t.metrics = two,
    t.searches = false;
  else
    throw UserError(
        fmt::format("reproduce: '{}' is no table, expected {}", shown(name), fmt::join(paper_tables(), ", ")));
  if (set != "sports")
    for (PaperLine& line : t.lines) line.released.clear();
  return t;
}

std::string published_set(const Dataset& data) {
  const auto rows = int64_t(data.train.size() + data.valid.size() + data.test.size());
  for (const Counts& c : kSets)
    if (data.n_users == c.users && data.n_items == c.items && rows == c.rows) return c.set;
  return "";
}

double published(const std::string& set, const std::string& label, const std::string& metric) {
  for (const Figures& f : kPublished)
    if (set == f.set && label == f.label)
      for (int k = 0; k < 4; ++k)
        if (metric == kPrinted[k] && f.value[k] > 0) return f.value[k];
  return NAN;
}

}  // namespace ccdrec
