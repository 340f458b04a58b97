// bench_instructions: what an epoch costs in instructions, which, unlike seconds, do not depend on what else the
// machine does. Run it by bench/instructions.sh, which builds it without -march and fixes what the processor would
// choose.
//
//   bench_instructions --reference FILE            counts every case under callgrind, compares with FILE; exit code 1
//                                                  when something has grown bench_instructions --reference FILE
//                                                  --update   writes FILE instead
//   bench_instructions --case CCDRec --scale 2     one epoch inside counted_epoch(): what callgrind runs
//
// Judged, for the whole epoch and for every operation that makes up 1 % of it:
//   - the count, against the reference's, where that came from the same compiler and C library; what comes or goes
//     counts as well;
//   - the growth from x1 to x2, always. Users, items and interactions double; the batch doubles with them (the number
//     of steps stays) and the candidate set does not grow. All that a model asks for then doubles: what more than
//     doubles is the program's own. LATTICE's search for neighbours and SLMRec's contrasts compare all pairs: they may
//     take four times as much.
#include "bench/instructions.h"

#include <fmt/format.h>
#include <gnu/libc-version.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/arguments.h"
#include "bench/callgrind.h"
#include "bench/command.h"
#include "data/error.h"
#include "data/synth.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/files/run_folder.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"

// The name callgrind is told. Never inlined, never renamed.
extern "C" __attribute__((noinline)) void counted_epoch(ccdrec::Recommender& model, int epoch) {
  model.begin_epoch(epoch);
  for (int64_t k = 0; k < model.steps_per_epoch(); ++k) model.step(epoch, k);
  model.end_epoch(epoch);
}

namespace ccdrec::bench {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

// What is counted, the longest first: they run side by side. Without the measured negatives, but where it is said.
struct CountedCase {
  std::string name, model;
  void (*set)(Settings&);
};
const std::vector<CountedCase> kCaseList = {
    {"CCDRec", "CCDRec", [](Settings&) {}},
    {"FREEDOM", "FREEDOM", [](Settings&) {}},
    {"LATTICE", "LATTICE", [](Settings&) {}},
    // An epoch of one step: the graph networks are of all nodes.
    {"MMGCN", "MMGCN", [](Settings& s) { s.train_batch_size *= 20; }},
    {"SLMRec", "SLMRec", [](Settings& s) { s.n_neg = 0; }},
    {"BM3", "BM3", [](Settings& s) { s.n_neg = 0, s.dropout = 0.5; }},
    // An epoch of one step, so that what makes its graph shows.
    {"DGD", "CCDRec",
     [](Settings& s) {
       s.backbone = "MCDRec", s.dma = s.ndi = s.cns = false, s.reg_weight = 0, s.train_batch_size *= 20;
     }},
    {"LightGCN", "LightGCN", [](Settings&) {}},
    {"LightGCN+MixGCF", "LightGCN", [](Settings& s) { s.sampler = "mixgcf"; }},
    {"LightGCN+DNS", "LightGCN", [](Settings& s) { s.sampler = "dns", s.negative_stats = 256; }},
    {"BPR+MG", "BPR", [](Settings& s) { s.use_mg = true; }},
    {"BPR", "BPR", [](Settings&) {}},
};
const std::vector<std::string> kModels = [] {
  std::vector<std::string> names;
  for (const CountedCase& c : kCaseList) names.push_back(c.name);
  return names;
}();

struct Options {
  std::string reference = "bench/results/instructions.json", room = "build-portable/instructions", one;
  int scale = 1, jobs = 2;
  bool update = false;
};

std::string data_folder(const Options& o, int scale) { return o.room + "/x" + std::to_string(scale); }

void generate(const Options& o, int scale) {
  SynthParams p = synth_preset("tiny");
  p.users = 200 * scale, p.items = 160 * scale, p.interactions = 2000 * scale;
  p.modalities = {{"image", 48, 0.5f, true}, {"text", 24, 0.5f, false}};
  p.name = "x" + std::to_string(scale);
  write_synth(data_folder(o, scale), p);
}

void run_case(const Options& o) {
  if (cpu::gemm_isa() != std::string("portable"))
    throw UserError(std::string("the dense kernels are ") + cpu::gemm_isa() +
                    ", expected portable: run bench/instructions.sh, which sets CCDREC_ISA");
  Settings s;
  const CountedCase& counted =
      *std::find_if(kCaseList.begin(), kCaseList.end(), [&](const CountedCase& c) { return c.name == o.one; });
  s.model = counted.model, s.negative_stats = 0, s.data_path = data_folder(o, o.scale), s.threads = 1, s.device = "cpu";
  s.embedding_size = 16, s.train_batch_size = 100 * o.scale, s.epochs = 2, s.save_best = s.save_last = false;
  // FREEDOM then projects features too
  s.reg_weight = 1e-3;
  // tau_end 0: the last stage, the model's own pool
  s.timesteps = 5, s.tau_end = 0, s.candidate_ratio = 0.4 / o.scale, s.mm_image_weight = 0.1;
  counted.set(s);
  LoadOptions load;
  load.need_features = uses_features(s);
  const Dataset data = load_dataset(s.data_path, load);
  Trainer trainer(s, data);
  Recommender& model = trainer.model();
  model.begin_epoch(0);  // finds the sizes of scratch memory and fills the pools
  model.step(0, 0);
  model.end_epoch(0);
  counted_epoch(model, 1);
}

Counts count(const Options& o, const std::string& model, int scale) {
  const std::string stem = fmt::format("{}/{}-x{}", o.room, model, scale), out = stem + ".callgrind",
                    log = stem + ".log";
  fs::remove(out);
  const std::string command = fmt::format(
      "valgrind --tool=callgrind --toggle-collect=counted_epoch --compress-strings=no --compress-pos=no "
      "--callgrind-out-file='{}' '{}' --case {} "
      "--scale {} --room '{}' >'{}' 2>&1",
      out, fs::read_symlink("/proc/self/exe").string(), model, scale, o.room, log);
  if (std::system(command.c_str()) != 0 || !fs::exists(out))
    throw UserError(fmt::format(
        "callgrind did not count {} at x{}: {} says why (is valgrind installed? tools/install-deps.sh instructions)",
        model, scale, log));
  Counts c = read_callgrind(out);
  if (c.total == 0) throw UserError(out + " holds no instructions: counted_epoch was not entered");
  return c;
}

// What the numbers depend on besides the sources.
std::string toolchain() { return this_build().compiler + ", glibc " + gnu_get_libc_version(); }

int check(const Options& o) {
  const json reference = o.update ? json::object() : parse_reference(read_text(o.reference), o.reference);
  fs::create_directories(o.room);
  for (int scale : {1, 2}) generate(o, scale);
  std::vector<Counts> counts(2 * kModels.size());
  std::vector<std::string> failed(counts.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(o.jobs)
  for (size_t k = 0; k < counts.size(); ++k) {
    try {
      counts[k] = count(o, kModels[k / 2], k % 2 ? 1 : 2);
    } catch (const std::exception& e) { failed[k] = e.what(); }
  }
  for (const std::string& sentence : failed)
    if (!sentence.empty()) throw UserError(sentence);
  std::vector<CountedLine> lines;
  for (size_t m = 0; m < kModels.size(); ++m)
    for (CountedLine& l : lines_of(kModels[m], counts[2 * m + 1], counts[2 * m], reference))
      lines.push_back(std::move(l));
  const auto [table, wrong] = judge(lines, reference, toolchain());
  std::cout << table << (wrong.empty() ? "" : "\n");
  for (const std::string& sentence : wrong) std::cout << "instructions: " << sentence << "\n";
  if (o.update) {
    write_text(o.reference, as_reference(lines, toolchain()).dump(1) + "\n");
    std::cout << "\nwrote " << o.reference << "\n";
  }
  if (wrong.empty())
    std::cout << "\ninstructions: as the reference says, and no part of an epoch grows faster than the data\n";
  return wrong.empty() ? 0 : 1;
}

int run(int argc, char** argv) {
  Options o;
  Arguments app("Instructions of one epoch, counted by callgrind and compared with a reference");
  app.add("--reference", o.reference, "the counts to compare with");
  app.add("--update", o.update, "write the reference instead");
  app.add("--room", o.room, "folder for the generated data and callgrind's files");
  app.add("--jobs", o.jobs, "cases counted side by side", positive());
  app.add("--case", o.one, "run one model's epoch", one_of(kModels));
  app.add("--scale", o.scale, "of --case: 1 or 2", between(1, 2));
  if (const auto end = app.parse(argc, argv)) return *end;
  if (o.one.empty()) return check(o);
  run_case(o);
  return 0;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_instructions", ccdrec::bench::run, argc, argv); }
