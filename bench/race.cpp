// bench_race: this program's side of the race (bench/race.py), one model in one process, epoch by epoch on command.
//
//   bench_race --data FOLDER --model CCDRec [--set key=value ..] [--threads N] [--device cpu|cuda]
//   bench_race --ceilings [--threads N] [--device cpu|cuda]    what the machine, or its GPU, allows, as one line of
//   JSON
//
// Prints one line of JSON when it is set up; then, for every line "epoch" that it reads, runs one epoch as `ccdrec
// train` does (training, then evaluation of validation and test) and prints one line; at the end of the input a last
// one. bench/pytorch/train.py --on-command speaks the same. On the CPU, with two threads or more, `core_to_core_ns`
// (bench/ceilings.h) is measured before each epoch, outside its seconds: epochs depend on it.
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/arguments.h"
#include "bench/ceilings.h"
#include "bench/command.h"
#include "bench/gpu/this_gpu.h"
#include "bench/work.h"
#include "data/error.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/files/config.h"
#include "host/training/trainer.h"

namespace ccdrec::bench {
namespace {
using Clock = std::chrono::steady_clock;

struct Options {
  std::string data, model = "CCDRec", device = "cpu";
  std::vector<std::string> sets;
  int threads = 0;
  bool ceilings = false;
};

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
void say(const nlohmann::json& line) { std::cout << line.dump() << std::endl; }

bool told() {
  std::string line;
  if (!std::getline(std::cin, line)) return false;
  if (line != "epoch")
    throw UserError(fmt::format("read '{}' on the standard input, expected 'epoch' or its end", line));
  return true;
}

void race(const Options& o) {
  std::vector<KeyValue> values{plain_value("model", o.model, "--model"), plain_value("data_path", o.data, "--data")};
  for (const std::string& text : o.sets) values.push_back(parse_assignment(text));
  Settings s = resolve_config({}, values).settings;
  s.device = o.device, s.threads = o.threads;
  s.stopping_step = s.epochs;  // as many epochs as are asked for
  const auto start = Clock::now();
  LoadOptions load;
  load.need_features = uses_features(s);
  const Dataset data = load_dataset(o.data, load);
  const double loaded = since(start);
  Trainer trainer(s, data);
  nlohmann::json work;
  for (const auto& [phase, w] : epoch_work(s, data))
    work[phase] = {{"flop", w.flop}, {"bytes", w.bytes}, {"roots", w.roots}};
  const Build b = this_build();
  say({{"model", s.model},
       {"device", s.device},
       {"threads", o.threads},
       {"users", data.n_users},
       {"items", data.n_items},
       {"train", data.train.size()},
       {"batch", s.train_batch_size},
       {"seconds_load", loaded},
       {"seconds_setup", since(start) - loaded},
       {"work", work},
       {"notes", trainer.notes()},
       {"build", fmt::format("{} {}, {}, {}", b.version, b.commit, b.compiler, b.flags)}});

  const int threads = s.device == "cpu" ? threads_of(o.threads) : 0;
  double line_ns = 0;
  const auto told_and_measured = [&] {
    if (!told()) return false;
    line_ns = core_to_core_ns(threads);
    return true;
  };
  bool go_on = told_and_measured();
  if (!go_on) return;
  TrainHooks hooks;
  hooks.interrupted = [&] { return !go_on; };  // after the first step of an epoch nobody asked for
  hooks.on_epoch = [&](const EpochReport& r) {
    nlohmann::json line = {{"epoch", r.epoch},
                           {"loss", r.loss},
                           {"valid_Recall@20", r.valid.at("recall@20")},
                           {"test_Recall@20", r.test.at("recall@20")},
                           {"negatives", r.negatives},
                           {"phases", r.seconds}};
    line["seconds_train"] = line["phases"].at("train");
    line["phases"].erase("train");
    if (line_ns > 0) line["core_to_core_ns"] = line_ns;
    say(line);
    go_on = told_and_measured();
  };
  trainer.run(hooks);
  nlohmann::json end = {{"peak_cuda_mb", nullptr}};
  if (s.device == "cuda") end["peak_cuda_mb"] = double(trainer.device_bytes()) / 1e6;
  say(end);
}

// Of a GPU: device-to-device copies for the memory, large products in FP32 for the arithmetic; loops of fma and of
// roots are not measured there.
nlohmann::json ceilings(const Options& o) {
  const Machine m = this_machine();
  nlohmann::json line = {
      {"cpu", m.cpu}, {"cores", m.cores}, {"isa", m.isa}, {"os", m.os}, {"memory_bytes", m.memory_bytes}};
  if (o.device == "cuda") {
    const GpuCeilings c = measure_this_gpu();
    line.update({{"gpu", gpu_info().name}, {"memory_gb_s", c.copy_gbs}, {"gemm_gflop_s", 1e3 * c.gemm_tflops}});
    line.update({{"fma_gflop_s", nullptr}, {"root_and_division_g_s", nullptr}});
  } else {
    const Ceilings c = measure_ceilings(threads_of(o.threads));
    line.update({{"memory_gb_s", c.memory_gbs}, {"gemm_gflop_s", c.gemm_gflops}});
    line.update({{"fma_gflop_s", c.fma_gflops}, {"root_and_division_g_s", c.root_grate}});
    if (const double ns = core_to_core_ns(threads_of(o.threads)); ns > 0) line["core_to_core_ns"] = ns;
  }
  return line;
}

int run(int argc, char** argv) {
  Options o;
  Arguments app("One model, epoch by epoch on command (bench/race.py)");
  app.add("--data", o.data, "a data folder");
  app.add("--model", o.model, "as in ccdrec train -m");
  app.add("--set", o.sets, "key=value, as in ccdrec train");
  app.add("--device", o.device, "cpu or cuda", one_of({"cpu", "cuda"}));
  app.add("--threads", o.threads, "0 = all cores", zero_or_more());
  app.add("--ceilings", o.ceilings, "measure the machine instead");
  if (const auto end = app.parse(argc, argv)) return *end;
  check_device(o.device);
  if (o.ceilings) {
    say(ceilings(o));
    return 0;
  }
  if (o.data.empty()) throw UserError("--data is missing: the folder of a data set");
  race(o);
  return 0;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_race", ccdrec::bench::run, argc, argv); }
