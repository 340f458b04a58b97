// ccdrec case: trains up to a step and writes that step as a case of `ccdrec step`.
#include "host/files/case.h"

#include <fmt/format.h>

#include <memory>

#include "data/error.h"
#include "data/safe_file.h"
#include "host/base/device.h"
#include "host/base/progress.h"
#include "host/cli/interrupt.h"
#include "host/cli/memory.h"
#include "host/cli/run_options.h"
#include "host/training/recommender.h"

namespace ccdrec::cli {
namespace {

struct CaseOptions : RunOptions {
  int epoch = 0;
  int64_t step = -1;
  int pass = 0;
  std::string out;
  bool reverse = false;
};

int run_case(const CaseOptions& o, Io& io) {
  if (o.reverse == (o.step >= 0))
    throw UserError("give --step K for a step, or --reverse for the reverse process that ends the epoch");
  if (o.reverse && o.pass != 0) throw UserError("--pass is one of a step; leave it away with --reverse");
  Config config = resolve_run(o, o.configs, command_line(o));
  Settings& s = config.settings;
  check_device(s.device, s.spmm);
  settle_data_folder(config);
  const Dataset data = load_data(s, uses_features(s), io);
  refuse_if_too_large(Trainer::plan(s, data), s, data, free_memory(s));
  { const SafeFile opens(o.out); }  // a place that refuses says so now and not after the training
  Trainer trainer(s, data);
  const int64_t step = o.reverse ? 0 : o.step;
  check_step(trainer, s, o.epoch, step, o.pass);
  if (o.reverse && !trainer.model().model().reverses())
    throw UserError("--reverse: the model of the settings has no diffusion");
  for (const std::string& note : config.notes) io.err << "note: " << note << '\n';
  for (const std::string& note : trainer.notes()) io.err << "note: " << note << '\n';

  Progress progress(io.out, io.err, io.err_tty);
  const InterruptGuard guard;
  TrainHooks hooks;
  hooks.interrupted = [] { return InterruptGuard::asked(); };
  hooks.on_step = [&](int epoch, int64_t at, int64_t steps) { progress.step(epoch, at + 1, steps); };
  const TrainSummary sum = train_to(trainer, s, o.epoch, step, hooks);
  progress.clear();
  if (sum.reason == StopReason::diverged) {
    io.err << "ccdrec: training diverged: " << sum.message << '\n';
    return kDiverged;
  }
  if (trainer.epoch() != o.epoch || trainer.next_step() != step) {
    io.err << "ccdrec: interrupted: " << sum.message << "; nothing was written\n";
    return kInterrupted;
  }
  if (o.reverse) {
    write_reverse_case(trainer, s, o.out);
    io.out << fmt::format("wrote {}: the reverse process after epoch {}\n", o.out, o.epoch);
    return kDone;
  }
  write_case(trainer, s, o.pass, o.out);
  const std::string pass = trainer.model().passes(step).size() > 1 ? fmt::format(", pass {}", o.pass) : "";
  io.out << fmt::format("wrote {}: epoch {}, step {} of {}{}\n", o.out, o.epoch, o.step,
                        trainer.model().steps_per_epoch(), pass);
  return kDone;
}

}  // namespace

void add_case(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<CaseOptions>();
  CLI::App* sub = app.add_subcommand("case", "trains up to a step and writes that step as a case of `ccdrec step`");
  add_run_options(*sub, *o);
  sub->add_option("--epoch", o->epoch, "epoch of the step, from 0")
      ->check(whole_number(0, kMostRows), "")
      ->required()
      ->type_name("E");
  sub->add_option("--step", o->step, "the step within its epoch, from 0")
      ->type_name("K")
      ->check(whole_number(0, kMostRows), "");
  sub->add_option("--pass", o->pass, "Mirror Gradient: the pass over the batch, 0 or 1")
      ->type_name("P")
      ->check(whole_number(0, kMostRows), "");
  sub->add_flag("--reverse", o->reverse,
                "instead: the reverse process that ends the epoch, a case of `ccdrec reverse`");
  sub->add_option("--out", o->out, "where the case goes, a safetensors file")->required()->type_name("FILE");
  sub->footer(
      "The step is the one that `ccdrec train` with the same options takes there: parameters and moments before it, "
      "the graphs of its\n"
      "epoch, the batch with its negatives, diffusion steps and noise. docs/step-format.md lists the arrays.\n"
      "Example: ccdrec case -m CCDRec -d demo --epoch 1 --step 3 --out case.safetensors\n"
      "         ccdrec step --in case.safetensors --print loss.total --out result.safetensors");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return run_case(*o, io); }; });
}

}  // namespace ccdrec::cli
