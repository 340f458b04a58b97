// bench_gpu: every operation of the catalogue on a GPU at the sizes of the data sets: microseconds warm (data in L2
// where it fits) and cold (L2 overwritten before each call), bytes and operations against what the machine was measured
// to do. An operation that no family calls is an error.
//
//   bench_gpu [--out FILE] [--only WORD] [--scale S]     Markdown on stdout; FILE.md and FILE.json when --out is given
//
// Inputs are as skewed as the data (bench/kernels/skewed.h). `floor` is the larger of bytes / copy rate and operations
// / matrix rate. One call of an operation may be several launches; the time is theirs together.
#include <fstream>
#include <iostream>

#include "bench/arguments.h"
#include "bench/command.h"
#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

int run(int argc, char** argv) {
  std::string out, only;
  double scale = 1;
  Arguments app("Every operation on a GPU, against what the GPU was measured to do");
  app.add("--out", out, "write OUT.md and OUT.json");
  app.add("--only", only, "operations whose name contains this, with those measured beside them");
  app.add("--scale", scale, "sizes times this: below 1 to try the bench", between(1e-4, 1.0));
  if (const auto end = app.parse(argc, argv)) return *end;
  Bench b(scale, only);
  GpuReport& report = b.report();
  report.ceilings = measure_gpu(b.dev(), b.clock(), scale);
  const auto save = [&] {
    if (out.empty()) return;
    std::ofstream(out + ".json") << gpu_report_json(report);
    std::ofstream(out + ".md") << gpu_report_markdown(report);
  };
  using Family = void (*)(Bench&);
  for (const auto& [name, family] : {std::pair<const char*, Family>("diffusion", diffusion),
                                     {"sampling", sampling},
                                     {"sparse", sparse},
                                     {"optimiser", optimiser},
                                     {"ranking", ranking},
                                     {"dense", dense},
                                     {"batch", batch},
                                     {"item_graphs", item_graphs},
                                     {"models", models}}) {  // the most telling first
    try {
      family(b);
      // the others are measured all the same
    } catch (const std::exception& e) { b.failed(std::string("family ") + name, e.what()); }
    save();
  }
  if (only.empty())
    for (const std::string& gap : gaps(noted().called, excused())) b.failed("catalogue", gap);
  save();
  std::cout << gpu_report_markdown(report);
  return report.failures.empty() ? 0 : 1;
}

}  // namespace
}  // namespace ccdrec::bench

int main(int argc, char** argv) { return ccdrec::bench::command("bench_gpu", ccdrec::bench::run, argc, argv); }
