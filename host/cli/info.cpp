// ccdrec info: what was built, what it runs on, which device a run would take and why.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/cli/cli.h"

namespace ccdrec::cli {
namespace {

// GFLOP/s of one core in the products the models are made of; the best of many short rounds, so that others at work
// disturb it least.
double measured_rate() {
  constexpr int64_t M = 512, K = 64, N = 512, kRound = 8;
  Ctx ctx(1);
  std::vector<float> a(size_t(M * K), 0.5f), b(size_t(K * N), 0.25f), c(size_t(M * N));
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto round = Clock::now();
    for (int64_t r = 0; r < kRound; ++r)
      cpu::gemm(ctx, {c.data(), M, N}, {a.data(), M, K}, false, {b.data(), K, N}, false, false);
    best = std::max(best, 2e-9 * double(M * K * N * kRound) / std::max(since(round), 1e-9));
  } while (since(start) < 0.1);
  return best;
}

int info(Io& io) {
  const Build b = this_build();
  const Machine m = this_machine();
  const Threads threads = default_threads();
  const GpuInfo gpu = gpu_info();
  std::string note;
  make_device("auto", 0, note);
  const std::pair<const char*, std::string> lines[] = {
      {"version", fmt::format("{} ({})", b.version, b.commit)},
      {"compiler", b.compiler},
      {"flags", b.flags},
      {"CUDA", gpu.built ? fmt::format("built in with toolkit {} for architectures {}, driver {}", gpu.toolkit,
                                       gpu.built_for, gpu.driver)
                         : "not built in"},
      {"GPU", gpu.usable ? fmt::format("{}, compute capability {}.{}, {}, {} available", gpu.name, gpu.major, gpu.minor,
                                       describe_bytes(gpu.memory), describe_bytes(gpu.available))
                         : "none: " + gpu.why},
      {"sparse",
       !gpu.built
           ? "no CUDA operations, so spmm has no influence"
           : fmt::format("spmm = auto is {}; spmm = cusparse {}", kSpmmRule,
                         gpu.cusparse ? "is built in" : "is not built in (libcusparse with its header was not found)")},
      {"OpenBLAS", b.openblas ? "built in, used by benches only as a yardstick" : "not built in (nothing needs it)"},
      {"processor", fmt::format("{}, {} {}", m.cpu, m.cores, m.cores == 1 ? "core" : "cores")},
      {"threads", fmt::format("{} ({}), {}", threads.n, threads.why, describe_waiting())},
      {"instructions", m.isa},
      {"dense kernels", fmt::format("{}, {:.0f} GFLOP/s a core (512 x 64 x 512 products, measured now)",
                                    cpu::gemm_isa(), measured_rate())},
      {"memory", fmt::format("{}, {} available", describe_bytes(m.memory_bytes), describe_bytes(m.available_bytes))},
      {"system", m.os},
      {"device auto", note},
  };
  for (const auto& [name, value] : lines) io.out << fmt::format("{:<13} {}\n", name, value);
  return kDone;
}

}  // namespace

void add_info(CLI::App& app, Action& chosen) {
  CLI::App* sub = app.add_subcommand("info", "what was built, the machine, and the device a run would take and why");
  sub->callback([&chosen] { chosen = [](Io& io) { return info(io); }; });
}

}  // namespace ccdrec::cli
