// ccdrec train: settings, data, memory plan, then epochs until validation stops improving; everything lands in one run
// folder.
#include <fmt/format.h>

#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/error.h"
#include "data/path.h"
#include "data/safe_file.h"
#include "data/text.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/base/metric_name.h"
#include "host/base/progress.h"
#include "host/cli/cli.h"
#include "host/cli/interrupt.h"
#include "host/cli/memory.h"
#include "host/cli/run_options.h"
#include "host/cli/trained_run.h"
#include "host/files/kept_figures.h"
#include "host/files/record.h"
#include "host/files/run_folder.h"
#include "host/systems/keys.h"
#include "host/training/checkpoint.h"
#include "host/training/trainer.h"

namespace ccdrec::cli {
namespace {

constexpr const char* kBestOfLast = "best-of-last.safetensors";

struct TrainOptions : RunOptions {
  std::string run_dir, resume, record;
  bool print_config = false, help_keys = false, plan = false, no_progress = false;
};

// What decides the numbers of a run stays as it is while it continues: the refusal names each setting with both values.
void check_unchanged(const std::string& run, const std::vector<std::string>& files, const std::vector<KeyValue>& list) {
  const auto was = config_values(resolve_config(files, {}).settings),
             would = config_values(resolve_config(files, list).settings);
  std::string differ;
  for (const auto& [key, value] : was)
    if (const auto it = would.find(key); it != would.end() && it->second != value && !find_key(key)->resumable)
      differ +=
          fmt::format("{}{} is {} and would be {}", differ.empty() ? "" : ", ", key, shown(value), shown(it->second));
  if (!differ.empty())
    throw UserError(fmt::format("{}: {}; that cannot change when a run continues, start a new run with -c {}", run,
                                differ, files[0]));
}

Config configure(const TrainOptions& o) {
  std::vector<KeyValue> list = command_line(o);
  std::vector<std::string> files = o.configs;
  if (!o.resume.empty()) {
    files = {RunFolder::open(o.resume).path("config.yaml")};
    check_unchanged(o.resume, files, list);
    check_resumable(list);
  }
  Config config = resolve_run(o, files, list, o.print_config ? Grids::shown : Grids::refused);
  Settings& s = config.settings;
  if (!o.run_dir.empty()) s.run_dir = o.run_dir, config.origin["run_dir"] = "--run-dir";
  if (!o.resume.empty()) s.run_dir = o.resume, config.origin["run_dir"] = "--resume";
  return config;
}

double phase(const EpochReport& e, const char* name) {
  const auto it = e.seconds.find(name);
  return it == e.seconds.end() ? 0 : it->second;
}

// RecBole's and MMRec's lines, so that scripts made for their logs keep working. The loss is the mean over steps.
void report_epoch(const EpochReport& e, const Settings& s, const std::string& metric, double best, Progress& progress) {
  double training = phase(e, "train");
  progress.line(fmt::format("epoch {} training [time: {:.2f}s, train loss: {:.4f}]", e.epoch, training, e.loss));
  std::string detail;
  for (const auto& [name, value] : e.losses) detail += fmt::format(" {} {:.6g}", name, value);
  if (!e.negatives.empty()) detail += " negatives " + e.negatives;
  for (const auto& [name, value] : e.figures) detail += fmt::format(" {} {:.6g}", name, value);
  for (const auto& [name, value] : e.hardness) detail += fmt::format(" {} {:.6g}", name, value);
  for (const auto& [name, value] : e.seconds) detail += fmt::format(" {} {:.3f}s", name, value);
  progress.log_only(fmt::format("epoch {} detail{}", e.epoch, detail));
  if (!e.evaluated) return;
  if (e.valid.empty()) {
    progress.line(
        fmt::format("epoch {} evaluating [time: {:.2f}s] latest, no validation rows", e.epoch, phase(e, "evaluation")));
    progress.tail(fmt::format("loss {:.4f}", e.loss));
    return;
  }
  const double score = e.valid.at(metric);
  const char* kept = e.latest ? " latest" : e.improved ? " best so far" : "";
  progress.line(fmt::format("epoch {} evaluating [time: {:.2f}s, valid_score: {:.4f}]{}", e.epoch,
                            phase(e, "evaluation"), score, kept));
  progress.tail(fmt::format("loss {:.4f}  best {} {:.4f}", e.loss, s.valid_metric, e.improved ? score : best));
}

std::string metrics_table(const TrainSummary& sum, const std::vector<int>& topk) {  // Precision and MAP: summary.json
  std::vector<std::vector<std::string>> rows(1, {fmt::format("best epoch {}", sum.best_epoch)});
  for (const char* name : {"recall", "ndcg"})
    for (const int k : topk) rows[0].push_back(fmt::format("{}@{}", name, k));
  for (const auto& [title, metrics] : {std::pair{"validation", &sum.best_valid}, std::pair{"test", &sum.best_test}}) {
    rows.push_back({title});
    for (size_t c = 1; c < rows[0].size(); ++c) {
      const auto it = metrics->find(rows[0][c]);
      rows.back().push_back(it == metrics->end() ? "-" : fmt::format("{:.4f}", it->second));
    }
  }
  return format_table(rows);
}

int finish(const TrainSummary& sum, const RunFolder& folder, const Settings& s, Progress& progress, Io& io) {
  if (sum.best_epoch >= 0) {
    const std::string table = metrics_table(sum, s.topk);
    Lines lines(table);
    for (std::string_view line; lines.next(line);) progress.line(std::string(line));
  }
  const std::string took = fmt::format("{} epochs, {} training, {} evaluating", sum.epochs_run,
                                       describe_seconds(sum.train_seconds), describe_seconds(sum.eval_seconds));
  switch (sum.reason) {
    case StopReason::diverged:
      progress.log_only("diverged: " + sum.message);
      io.err << "ccdrec: training diverged: " << sum.message << '\n';
      return kDiverged;
    case StopReason::interrupted: {
      const std::string saved =
          s.save_last ? fmt::format("state saved; continue with: ccdrec train --resume {}", shell_word(folder.dir()))
                      : "no state saved (save_last is off)";
      progress.line(fmt::format("interrupted: {}; {}", sum.message, took));
      progress.line(saved);
      if (PipeGuard::reader_gone())
        io.err << "ccdrec: interrupted, because the program that read the output has ended; " << saved << '\n';
      return kInterrupted;
    }
    case StopReason::early:
      progress.line(fmt::format("stopped: {}; {}", sum.message, took));
      break;
    default:
      progress.line(fmt::format("finished: {}", took));
      break;
  }
  progress.line(fmt::format("run folder: {}", folder.dir()));
  return kDone;
}

// What the lists of the best epoch's model are like. None: its file is not kept, or an earlier program lost it.
std::optional<ListFigures> figures_of_best(const RunFolder& folder, const Settings& s, const Dataset& data,
                                           int best_epoch, Progress& progress) {
  if (best_epoch < 0 || best_epoch_of(folder.path(kBest)) != best_epoch) return {};
  const std::vector<std::string> names = {"final.user", "final.item"};
  const TensorFile best = read_safetensors(folder.path(kBest), &names);
  const auto matrix = [&](const char* name) {
    const TensorData& t = best.tensors.at(name);
    return CMat{t.f32(), t.shape[0], t.shape[1]};
  };
  std::vector<std::string> notes;
  // opened anew: a model that reads none has none here, and one broken file costs a figure, not the run
  const std::vector<Feature> features = readable_features(data, s.modalities, notes);
  if (features.empty() && notes.empty()) notes.push_back(data.folder + " has no *_feat.npy of items");
  for (const std::string& note : notes)
    progress.log_only(fmt::format("note: lists are not measured in a modality: {}", note));
  std::string device_note;
  const std::unique_ptr<Device> device = make_device(s.device, s.threads, device_note, s.precision, s.spmm);
  return list_figures(*device, matrix("final.user"), matrix("final.item"), data, features, s.topk);
}

// A run to be continued: where it stands (nothing saved: at its beginning), or that nothing is left to do.
struct Continued {
  bool has_state = false, over = false;
  SavedRun at;
};
Continued look_at_run(const RunFolder& folder, const Settings& s) {
  Continued c;
  c.has_state = folder.has(kLast);
  if (!c.has_state) {
    if (folder.has("summary.json"))
      throw UserError(fmt::format(
          "{}: has no last.safetensors to resume from (save_last was off, or it ended before its first save)",
          folder.dir()));
    return c;
  }
  c.at = saved_run(folder.path(kLast), s);
  if (!is_over(c.at, s) || !folder.has("summary.json")) return c;
  const nlohmann::json summary = folder.summary();
  const std::string stopped = summary.value("stopped", "");
  c.over = (stopped == "early" || stopped == "max_epochs") && summary.value("epochs_run", -1) == c.at.epoch;
  return c;
}

// The two checkpoints of a run. Epochs after the saved state run again when the program is killed, the best one before
// it does not: whenever that happens, the model of the state's best epoch is in best.safetensors, or in
// best-of-last.safetensors while the former is ahead of the state.
class Checkpoints {
 public:
  Checkpoints(const RunFolder& folder, const Settings& s, const SavedRun& at)
      : folder_(folder),
        s_(s),
        best_(at.best_epoch),
        best_of_last_(at.saved_best),
        in_file_(folder.has(kBest) ? best_epoch_of(folder.path(kBest)) : -1) {}

  // Of a run that is taken up again: the state's best model takes its place again. A sentence where that is lost, or
  // was never saved.
  std::string restore() {
    if (in_file_ == best_of_last_) {
      // killed after the state had caught up with the best model
      if (folder_.has(kBestOfLast)) folder_.remove(kBestOfLast);
    } else if (best_of_last_ >= 0 && folder_.has(kBestOfLast) &&
               best_epoch_of(folder_.path(kBestOfLast)) == best_of_last_) {
      folder_.rename(kBestOfLast, kBest);
      in_file_ = best_of_last_;
    } else if (best_of_last_ >= 0 && s_.save_best) {
      return fmt::format(
          "best.safetensors is {}, not of epoch {}, the best so far; the next better epoch takes its place",
          in_file_ < 0 ? "not there or damaged" : fmt::format("of epoch {}", in_file_), best_of_last_);
    }
    return "";
  }
  bool has_best() const { return in_file_ >= 0; }
  void save_best(Trainer& trainer, int epoch) {
    best_ = epoch;
    if (!s_.save_best) return;
    if (best_of_last_ >= 0 && in_file_ == best_of_last_) keep_as(folder_.path(kBest), folder_.path(kBestOfLast));
    trainer.save_best(folder_.path(kBest));
    in_file_ = epoch;
  }
  void save_state(Trainer& trainer) {
    trainer.save_state(folder_.path(kLast));
    best_of_last_ = best_;
    if (folder_.has(kBestOfLast)) folder_.remove(kBestOfLast);
  }

 private:
  const RunFolder& folder_;
  const Settings& s_;
  int best_, best_of_last_;  // epochs: of the run, of last.safetensors
  int in_file_;              // of best.safetensors; -1: there is none
};

int train(const TrainOptions& o, Io& io) {
  if (o.help_keys) {
    io.out << (o.model.empty() ? key_reference() : key_reference(o.model));
    return kDone;
  }
  const bool resuming = !o.resume.empty();
  std::optional<RunLock> lock;
  if (resuming) {
    if (!o.configs.empty()) throw UserError("--resume takes its settings from the run folder; leave -c away");
    if (!o.run_dir.empty()) throw UserError("--resume continues in its own folder; leave --run-dir away");
    if (!o.record.empty()) throw UserError("--record holds a run from its first step; leave --resume away");
  }
  // before anything of the run is read
  if (resuming && !o.print_config && !o.plan) lock.emplace(RunFolder::open(o.resume));
  Config config = configure(o);
  Settings& s = config.settings;
  if (o.print_config) {
    io.out << print_config(config);
    for (const std::string& note : config.notes) io.err << "note: " << note << '\n';
    return kDone;
  }
  check_device(s.device, s.spmm);
  Continued from;
  if (resuming) {
    const RunFolder folder = RunFolder::open(s.run_dir);
    from = look_at_run(folder, s);
    if (from.over && !o.plan) {
      const std::string note = Checkpoints(folder, s, from.at).restore();
      if (!note.empty()) io.err << "note: " << note << '\n';
    }
    if (from.over) {
      io.out << fmt::format("nothing to do: {} has {} epochs behind it, best epoch {}; {}\n", s.run_dir, from.at.epoch,
                            from.at.best_epoch,
                            from.at.epoch >= s.epochs ? "--set epochs=N goes on to N" : "it stopped early");
      return kDone;
    }
  }
  if (resuming) run_data_folder(s, o.data);
  settle_data_folder(config);
  const Dataset data = load_data(s, uses_features(s), io);
  const MemoryPlan plan = Trainer::plan(s, data);
  const FreeMemory free = free_memory(s);
  const std::vector<std::string> plan_lines = memory_lines(plan, free);
  if (o.plan) {
    for (const std::string& line : plan_lines) io.out << line << '\n';
    refuse_if_too_large(plan, s, data, free);
    return kDone;
  }
  refuse_if_too_large(plan, s, data, free);
  const bool recording = !o.record.empty();
  if (recording) {
    Recorder::check(s, data);
    { const SafeFile opens(o.record); }  // a place that refuses says so now and not after the training
  }

  const RunFolder folder = resuming ? RunFolder::open(s.run_dir)
                           : s.run_dir.empty()
                               ? RunFolder::create_free(default_run_dir(s, data.name, long(std::time(nullptr))))
                               : RunFolder::create(s.run_dir);
  s.run_dir = folder.dir();
  if (!lock) lock.emplace(folder);
  if (!resuming) folder.check_new();
  if (resuming && !from.has_state) folder.check_begun();
  folder.remove_left_over();
  const std::string earlier = folder.has("config.yaml") ? read_text(folder.path("config.yaml")) : "";
  const std::string yaml = config_yaml(config, resuming ? earlier : "");
  if (!resuming) {  // first of all: from here on the folder is that of this run
    folder.truncate_epochs(0);
    write_text(folder.path("config.yaml"), yaml);
  }
  const PipeGuard pipe;  // from the first line on: `train | head` shows less than is said before the first step
  Progress progress(io.out, io.err, io.err_tty && !o.no_progress);
  progress.log_to(folder.path("train.log"), resuming);
  if (!resuming && !earlier.empty())
    progress.line("note: the run that was in this folder ended before it had saved anything; this one takes its place");
  for (const std::string& warning : data.warnings) progress.log_only("note: " + warning);
  for (const std::string& note : config.notes) progress.line("note: " + note);
  progress.line(fmt::format("{}{} on {}: {} users, {} items, {} training, {} validation, {} test rows; seed {}",
                            resuming ? "resuming " : "", s.model, data.name, thousands(data.n_users),
                            thousands(data.n_items), thousands(int64_t(data.train.size())),
                            thousands(int64_t(data.valid.size())), thousands(int64_t(data.test.size())), s.seed));
  for (const std::string& line : plan_lines) progress.line(line);

  auto trainer_owner = std::make_unique<Trainer>(s, data);
  Trainer& trainer = *trainer_owner;
  Checkpoints checkpoints(folder, s, from.at);
  // Nothing of the folder changes before all that was computed in it is known to be of this data and these settings.
  if (resuming && checkpoints.has_best()) check_same_run(folder.path(kBest), s, data.checksum);
  if (from.has_state) trainer.load_state(folder.path(kLast));
  for (const std::string& note : trainer.notes()) progress.line("note: " + note);  // of the state too
  if (resuming) {
    progress.line(from.has_state ? fmt::format("resumed at epoch {}, step {}", trainer.epoch(), trainer.next_step())
                                 : "no state had been saved when the run ended: it begins again at epoch 0");
    // first: more epochs are asked for, whatever happens from here on
    if (yaml != earlier) write_text(folder.path("config.yaml"), yaml);
    const bool forgets = from.at.saved_best != from.at.best_epoch;
    folder.truncate_epochs(trainer.epoch(), forgets ? from.at.saved_best : -1);
    if (const std::string note = checkpoints.restore(); !note.empty()) progress.line("note: " + note);
  }
  // of an earlier end; those of this one are written when the run ends
  for (const char* file : {"summary.json", kUserFile})
    if (folder.has(file)) folder.remove(file);
  folder.write_ids(data);  // of the data that this program has read: those of an earlier start may be another set's

  std::unique_ptr<Recorder> recorder;
  if (recording) {
    recorder = std::make_unique<Recorder>(trainer, s, data);
    progress.line(fmt::format("record: at most {} in memory, then in {}", describe_bytes(Recorder::most_bytes(s, data)),
                              o.record));
  }

  const std::string metric = metric_key(s.valid_metric);
  double best = from.at.best_score;
  const InterruptGuard guard;
  TrainHooks hooks;
  hooks.interrupted = [] { return InterruptGuard::asked() || PipeGuard::reader_gone(); };
  hooks.on_step = [&](int epoch, int64_t step, int64_t steps) {
    progress.step(epoch, step + 1, steps);
    if (recorder) recorder->step(epoch, step);
  };
  hooks.on_best = [&] { checkpoints.save_best(trainer, trainer.epoch() - 1); };  // called when the epoch is over
  hooks.on_epoch = [&](const EpochReport& e) {
    if (recorder) recorder->epoch(e);
    report_epoch(e, s, metric, best, progress);
    if (e.improved && !e.valid.empty()) best = e.valid.at(metric);
    folder.append_epoch(e);
    if (s.save_last && s.save_every > 0 && (e.epoch + 1) % s.save_every == 0) checkpoints.save_state(trainer);
  };
  const TrainSummary sum = trainer.run(hooks);
  progress.clear();
  // A diverged state is worth nothing: the last good one stays.
  if (s.save_last && sum.reason != StopReason::diverged) checkpoints.save_state(trainer);
  const bool over = sum.reason == StopReason::early || sum.reason == StopReason::max_epochs;
  if (recorder && over) {
    recorder->write(o.record);
    progress.line("record: " + o.record);
  } else if (recorder) {
    progress.line("no record: the run did not end");
  }
  // What is done last takes no more memory than what is over: that is given back first.
  recorder.reset(), trainer_owner.reset();
  std::optional<ListFigures> lists;
  if (over) lists = figures_of_best(folder, s, data, sum.best_epoch, progress);
  if (lists) write_user_values(folder, *lists, sum.best_epoch);
  folder.write_summary(config, data, sum, lists ? &*lists : nullptr);
  return finish(sum, folder, s, progress, io);
}

}  // namespace

void add_train(CLI::App& app, Action& chosen) {
  auto o = std::make_shared<TrainOptions>();
  CLI::App* sub = app.add_subcommand("train", "train a model; everything it leaves lies in one run folder");
  add_run_options(*sub, *o);
  sub->add_option("--run-dir,--run", o->run_dir, "run folder (default runs/MODEL-SET-SEED-TIME)")->type_name("DIR");
  sub->add_option("--resume", o->resume, "continue this run, bit for bit as if it had never stopped")
      ->type_name("RUN_DIR");
  sub->add_option("--record", o->record,
                  "write what the run drew and computed, for another program to repeat it (docs/run-format.md)")
      ->type_name("FILE");
  sub->add_flag("--print-config", o->print_config, "print every setting and where its value came from, then stop");
  sub->add_flag("--help-keys", o->help_keys,
                "print every key with type, range and meaning, then stop; with -m those of that model");
  sub->add_flag("--plan", o->plan, "print the memory the run would take, then stop");
  sub->add_flag("--no-progress", o->no_progress, "no progress bar even on a terminal");
  sub->footer(
      "Settings: built-in < defaults of the model < -c files in order < --set and the options above. An unknown key is "
      "an error.\n"
      "The run folder holds config.yaml, train.log, metrics.jsonl (one object per epoch), best.safetensors, "
      "last.safetensors,\n"
      "users.tsv, items.tsv, users.f32 (what each user got) and summary.json. Ctrl-C (SIGTERM, SIGHUP) saves the state "
      "and ends with code 130; "
      "--resume goes on from\n"
      "there; a run that was killed goes on from its last state (every save_every epochs), or begins again where none "
      "was saved.\n"
      "Test metrics reported are those of the epoch with the best validation metric; the loss printed is the mean over "
      "steps.\n"
      "Example: ccdrec train -m CCDRec -d data/baby -c configs/ccdrec.yaml --set omega=0.7 --seed 2024");
  sub->callback([o, &chosen] { chosen = [o](Io& io) { return train(*o, io); }; });
}

}  // namespace ccdrec::cli
