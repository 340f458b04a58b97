#include "host/experiments/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "data/error.h"
#include "data/text.h"
#include "host/base/metric_name.h"
#include "host/base/progress.h"

namespace ccdrec {

std::vector<std::string> Runner::words_of(const PlannedRun& run, int asked) const {
  const Standing at = standing(run, asked);
  if (at.kind == Standing::over || at.kind == Standing::diverged) return {};
  const std::string folder = folder_of(run), epochs = fmt::format("epochs={}", epochs_of(run, asked));
  if (at.kind == Standing::begun) {
    std::vector<std::string> words = {"train", "--no-progress",          "--resume", folder,
                                      "-d",    run.settings().data_path, "--set",    epochs};
    return words;
  }
  std::vector<std::string> words = run.words;
  words.insert(words.end(), {"--run-dir", folder});
  if (epochs_of(run, asked) != run.settings().epochs) words.insert(words.end(), {"--set", epochs});
  return words;
}

std::string Runner::line_of(const PlannedRun& run, const Standing& at) const {
  std::string text = run.label;
  if (!run.point.empty()) text += (text.empty() ? "" : " ") + point_text(run.point);
  text += fmt::format("{}seed {}: ", text.empty() ? "" : " ", run.settings().seed);
  if (const auto it = failed_.find(run.name); it != failed_.end()) return text + "failed: " + it->second;
  if (at.kind == Standing::diverged) return text + "diverged: " + at.summary.value("message", "");
  if (!at.summary.contains("best_valid") || !at.summary["best_valid"].is_object()) return text + "done";
  const std::string metric = metric_key(run.settings().valid_metric);
  return text +
         fmt::format("validation {} {:.4f}, epoch {} of {}, {}", run.settings().valid_metric,
                     at.summary["best_valid"].value(metric, 0.0), at.summary.value("best_epoch", -1),
                     at.summary.value("epochs_run", 0),
                     describe_seconds(at.summary.value("train_seconds", 0.0) + at.summary.value("eval_seconds", 0.0)));
}

bool Runner::bring(const std::vector<const PlannedRun*>& asked, int epochs) {
  using Steady = std::chrono::steady_clock;
  std::vector<const PlannedRun*> runs;
  std::set<std::string> seen;
  size_t over = 0;
  for (const PlannedRun* run : asked) {
    if (!seen.insert(run->name).second) continue;
    const Standing at = standing(*run, epochs);
    if (at.kind == Standing::over || at.kind == Standing::diverged) {
      ++over;
      on_over(*run, false);
    } else {
      runs.push_back(run);
    }
  }
  if (over) say(fmt::format("{} of {} runs are there already", over, seen.size()));
  if (runs.empty()) return true;
  std::vector<Job> jobs;
  for (const PlannedRun* run : runs)
    jobs.push_back({[this, run, epochs] { return words_of(*run, epochs); }, folder_of(*run), run->bytes});
  const auto start = Steady::now();
  size_t ended = 0;
  SideBySide how = how_;
  how.on_wait = [&](size_t j) { say(fmt::format("waiting for {}: another program trains in it", jobs[j].folder)); };
  how.on_end = [&](size_t j, const JobEnd& end) {
    const PlannedRun& run = *runs[j];
    ++ended;
    constexpr int kDone = 0, kDiverged = 4, kInterrupted = 130;
    if (end.code == kInterrupted && how_.interrupted()) return;
    if (end.code != kDone && end.code != kDiverged)
      failed_[run.name] =
          end.code < 0 ? fmt::format("ended by signal {}", -end.code)
          : end.last_words.empty()
              ? fmt::format("ended with code {}", end.code)
              : printable(end.last_words.starts_with("ccdrec: ") ? end.last_words.substr(8) : end.last_words);
    const double took = std::chrono::duration<double>(Steady::now() - start).count();
    const size_t left = runs.size() - ended;
    say(fmt::format(
        "[{}/{}] {}{}", over + ended, seen.size(), line_of(run, standing(run, epochs)),
        left ? fmt::format("; {} left, about {}", left, describe_seconds(took / double(ended) * double(left))) : ""));
    on_over(run, true);
  };
  return how.run(jobs);
}

}  // namespace ccdrec
