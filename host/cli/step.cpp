// ccdrec step, ccdrec reverse: one training step or the reverse process on arrays that a file gives
// (docs/step-format.md).
#include "host/files/step.h"

#include <filesystem>
#include <memory>

#include "data/error.h"
#include "host/base/device.h"
#include "host/cli/cli.h"
#include "host/cli/print_arrays.h"

namespace ccdrec::cli {
namespace {

struct StepOptions {
  std::string in, out, device = "cpu", rows;
  std::vector<std::string> prints;
  int threads = 0;
};
using Work = TensorFile (*)(const std::string&, const std::string&, const std::string&, int);

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code absent;
  return std::filesystem::equivalent(a, b, absent);
}

int run(const StepOptions& o, Work work, Io& io) {
  check_device(o.device);
  if (o.out.empty() && o.prints.empty())
    throw UserError("nothing to do with the result: name a file with --out, or arrays with --print");
  if (is_same_file(o.in, o.out))
    throw UserError("--out " + o.out + ": that is the case itself; name another file for the result");
  std::optional<RowRange> rows;
  if (!o.rows.empty()) rows = parse_rows(o.rows);
  const TensorFile result = work(o.in, "", o.device, o.threads), given = read_safetensors(o.in);
  std::string text;
  for (const std::string& name : o.prints) text += print_array(name, {&result, &given}, rows);
  if (!o.out.empty()) {
    write_result(o.out, result);
    text += "wrote " + o.out + '\n';
  }
  io.out << text;
  return kDone;
}

void add_arrays(CLI::App& app, Action& chosen, const char* name, const char* what, const char* example, Work work) {
  auto o = std::make_shared<StepOptions>();
  CLI::App* sub = app.add_subcommand(name, what);
  sub->add_option("--in", o->in, "the case, a safetensors file")->required()->type_name("FILE");
  sub->add_option("--out", o->out, "where the result goes, a safetensors file")->type_name("FILE");
  sub->add_option("--print", o->prints, "an array of the result or of the case, as text; may be given several times")
      ->type_name("ARRAY")
      ->allow_extra_args(false);
  sub->add_option("--rows", o->rows, "of what is printed: 0:3 is rows 0, 1 and 2; 5 is that row")
      ->type_name("FIRST:END");
  add_device_options(*sub, o->device, o->threads);
  sub->footer(
      "docs/step-format.md lists the arrays of both files, docs/tour.md explains them. Nothing is drawn: the case "
      "holds every number that chance\n"
      "decides.\n"
      "Example: ccdrec " +
      std::string(name) + " --in case.safetensors --print " + example + " --rows 0:3");
  sub->callback([o, work, &chosen] { chosen = [o, work](Io& io) { return run(*o, work, io); }; });
}

}  // namespace

void add_step(CLI::App& app, Action& chosen) {
  add_arrays(app, chosen, "step",
             "one training step on given arrays: every intermediate, loss, gradient and updated parameter",
             "e_t --print loss.total", run_step_case);
  add_arrays(app, chosen, "reverse", "the reverse process on given noise: the four pools", "pool.0", run_reverse_case);
}

}  // namespace ccdrec::cli
