#include "host/cli/planning.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/error.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/base/progress.h"
#include "host/cli/interrupt.h"
#include "host/cli/memory.h"
#include "host/report/table.h"
#include "host/training/checkpoint.h"
#include "host/training/trainer.h"

namespace ccdrec::cli {

void add_side_options(CLI::App& sub, SideOptions& o) {
  sub.add_option("--jobs", o.jobs,
                 "so many runs side by side, each with its share of the threads, as far as memory goes")
      ->check(whole_number(1, 1024), "")
      ->type_name("N")
      ->capture_default_str();
}

SideBySide side_by_side(const SideOptions& o, const Settings& s) {
  SideBySide how;
  how.interrupted = [] { return InterruptGuard::asked(); };
  how.jobs = o.jobs;
  how.threads = threads_of(s.threads);
  how.memory = free_memory(s).bytes;
  if (s.mem_limit_gb > 0) {
    const auto limit = uint64_t(s.mem_limit_gb * 1e9);
    how.memory = how.memory ? std::min(how.memory, limit) : limit;
  }
  return how;
}

const Dataset& PlanningData::of(const Settings& s) {
  const bool features = uses_features(s);
  const std::string key = fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", s.data_path, s.dataset, s.inter_file_name,
                                      s.user_id_field, s.item_id_field, s.inter_splitting_label,
                                      features ? fmt::format("features {}", fmt::join(s.modalities, ",")) : "");
  auto it = sets_.find(key);
  if (it == sets_.end()) it = sets_.emplace(key, load_data(s, features, io_)).first;
  return it->second;
}

void PlanningData::settle(const std::vector<PlannedRun*>& runs) {
  std::map<std::string, size_t> planned;  // by what decides them: seeds share a plan
  for (PlannedRun* run : runs) {
    const Settings& s = run->settings();
    const Dataset& data = of(s);
    run->key = run_key(s, data), run->name = run_name(s, run->key);
    auto [it, fresh] = planned.try_emplace(run->key, 0);
    if (fresh) {
      check_device(s.device, s.spmm);
      if (!s.save_last)
        throw UserError("save_last is off, and runs that a search or a table asks for are continued; leave it on");
      it->second = Trainer::plan(s, data).total();
    }
    run->bytes = it->second;
  }
}

void PlanningData::refuse_if_too_large(const PlannedRun& run) {
  const Settings& s = run.settings();
  try {
    cli::refuse_if_too_large(Trainer::plan(s, of(s)), s, of(s), free_memory(s));
  } catch (const UserError& e) {
    throw UserError(run.point.empty() ? e.what() : point_text(run.point) + ": " + e.what());
  }
}

int dry_run(const std::vector<std::pair<std::string, std::vector<const PlannedRun*>>>& lines, PlanningData& data,
            const SideOptions& o, const std::string& format, Io& io) {
  constexpr int kSteps = 5;
  ResultTable table;
  table.title = fmt::format("{} steps of each timed", kSteps);
  table.columns = {"settings", "runs", "memory", "s/epoch", "s/evaluation", "epochs at most", "at most"};
  double total = 0;
  size_t n = 0;
  for (const auto& [name, runs] : lines) {
    const Settings& s = runs[0]->settings();
    Settings timed = s;  // of a run long enough to reach an epoch that has all its parts
    timed.epochs = std::max(s.epochs, std::max(s.dtau, s.realhns_start) + 2);
    Trainer trainer(timed, data.of(s));
    const StepTimes times = trainer.time_steps(kSteps);
    const double evaluations = double(s.epochs) / double(std::max(1, s.eval_step)),
                 seconds = times.epoch() * s.epochs + times.evaluation * evaluations;
    total += seconds * double(runs.size()), n += runs.size();
    table.rows.push_back({name, std::to_string(runs.size()), describe_bytes(runs[0]->bytes),
                          Cell::number(times.epoch(), 3), Cell::number(times.evaluation, 3), std::to_string(s.epochs),
                          describe_seconds(seconds)});
  }
  table.notes.push_back(
      fmt::format("{} runs, at most {} one after the other with these threads{}; early stopping makes most of them "
                  "shorter",
                  n, describe_seconds(total), o.jobs > 1 ? fmt::format(", shared by {} jobs", o.jobs) : ""));
  io.out << render(table, table_format(format), io.color);
  return kDone;
}

}  // namespace ccdrec::cli
