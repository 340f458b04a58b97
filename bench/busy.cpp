// bench_busy: how often the threads of a step meet. One line of JSON for each model on a data folder, then one for what
// a meeting costs (bench/busy.py).
//
//   bench_busy --data FOLDER [--threads N]
//
// The compiler makes a call of GOMP_parallel of every parallel region; the linker sends those of this program here
// first (--wrap, cmake/bench.cmake).
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/arguments.h"
#include "bench/command.h"
#include "data/error.h"
#include "host/files/config.h"
#include "host/training/recommender.h"
#include "host/training/trainer.h"

namespace {
// regions of several threads, and those that the calling thread worked through by itself
int64_t shared = 0, alone = 0;
}  // namespace

extern "C" {
void __real_GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags);
void __wrap_GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags) {
  ++(threads == 1 ? alone : shared);
  __real_GOMP_parallel(work, data, threads, flags);
}
}

namespace ccdrec::bench {
namespace {

// The second epoch: CCDRec has curricular negatives in it.
nlohmann::json steps_of(const std::string& model, const std::string& folder, int threads) {
  Settings s =
      resolve_config({}, {plain_value("model", model, "--model"), plain_value("data_path", folder, "--data")}).settings;
  s.threads = threads, s.device = "cpu";
  LoadOptions load;
  load.need_features = uses_features(s);
  const Dataset data = load_dataset(folder, load);
  Trainer trainer(s, data);
  Recommender& m = trainer.model();
  const int64_t n = m.steps_per_epoch();
  for (int epoch = 0; epoch < 2; ++epoch) {
    m.begin_epoch(epoch);
    shared = alone = 0;
    for (int64_t k = 0; k < n; ++k) m.step(epoch, k);
    if (epoch == 0) m.end_epoch(0);
  }
  return {{"model", model}, {"steps", n}, {"shared", double(shared) / double(n)}, {"alone", double(alone) / double(n)}};
}

// An empty region, the threads being awake: microseconds, the least of many short rounds.
double empty_region_us(int threads) {
  using Clock = std::chrono::steady_clock;
  double least = 1e9;
  for (int round = 0; round < 200; ++round) {
    constexpr int kRegions = 20;
    const auto start = Clock::now();
    for (int i = 0; i < kRegions; ++i) {
#pragma omp parallel num_threads(threads)
      asm volatile("" ::: "memory");
    }
    least = std::min(least, std::chrono::duration<double, std::micro>(Clock::now() - start).count() / kRegions);
  }
  return least;
}

int run(int argc, char** argv) {
  std::string folder;
  int threads = 0;
  Arguments app("Parallel regions a step of the four models");
  app.add("--data", folder, "a data folder");
  app.add("--threads", threads, "0 = as many as the program takes", zero_or_more());
  if (const auto end = app.parse(argc, argv)) return *end;
  if (folder.empty()) throw UserError("--data is missing: the folder of a data set");
  for (const char* model : {"BPR", "LightGCN", "FREEDOM", "CCDRec"})
    std::cout << steps_of(model, folder, threads).dump() << std::endl;
  std::cout << nlohmann::json{{"threads", threads_of(threads)},
                              {"empty_region_us", empty_region_us(threads_of(threads))}}
                   .dump()
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_busy", ccdrec::bench::run, argc, argv); }
