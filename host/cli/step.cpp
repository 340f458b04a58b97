// ccdrec step, ccdrec reverse: one training step or the reverse process on arrays that a file gives (docs/step-format.md).
#include "host/step.h"

#include <memory>

#include "host/cli/cli.h"
#include "host/device.h"

namespace ccdrec::cli {
namespace {

struct Options {
  std::string in, out, device = "cpu";
  int threads = 0;
};
using Work = void (*)(const std::string&, const std::string&, const std::string&, int);

void add_arrays(CLI::App& app, Action& chosen, const char* name, const char* what, Work work) {
  auto o = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand(name, what);
  sub->add_option("--in", o->in, "the case, a safetensors file")->required()->type_name("FILE");
  sub->add_option("--out", o->out, "where the result goes, a safetensors file")->required()->type_name("FILE");
  sub->add_option("--device", o->device, "auto, cpu or cuda")->type_name("DEVICE")->capture_default_str();
  sub->add_option("--threads", o->threads, "0: all cores")->type_name("N");
  sub->footer("docs/step-format.md lists the arrays of both files. Nothing is drawn: the case holds every number that chance decides.");
  sub->callback([o, work, &chosen] {
    chosen = [o, work](Io& io) {
      check_device(o->device);
      work(o->in, o->out, o->device, o->threads);
      io.out << "wrote " << o->out << '\n';
      return kDone;
    };
  });
}

}  // namespace

void add_step(CLI::App& app, Action& chosen) {
  add_arrays(app, chosen, "step", "one training step on given arrays: every intermediate, loss, gradient and updated parameter", run_step_case);
  add_arrays(app, chosen, "reverse", "the reverse process on given noise: the four pools", run_reverse_case);
}

}  // namespace ccdrec::cli
