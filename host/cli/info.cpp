// ccdrec info: what was built, what it runs on, which device a run would take and why.
#include <fmt/format.h>

#include "host/cli/cli.h"
#include "host/device.h"
#include "host/machine.h"

namespace ccdrec::cli {
namespace {

int info(Io& io) {
  const Build b = this_build();
  const Machine m = this_machine();
  std::string note;
  make_device("auto", 0, note);
  const std::pair<const char*, std::string> lines[] = {
      {"version", fmt::format("{} ({})", b.version, b.commit)},
      {"compiler", b.compiler},
      {"flags", b.flags},
      {"CUDA", b.cuda ? "built in" : "not built in: this version runs on the CPU"},
      {"OpenBLAS", b.openblas ? "built in, used by benches only as a yardstick" : "not built in (nothing needs it)"},
      {"processor", fmt::format("{}, {} {}", m.cpu, m.cores, m.cores == 1 ? "core" : "cores")},
      {"instructions", m.isa},
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
