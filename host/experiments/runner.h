// Brings planned runs to their end, side by side, and says how far it is. All that it knows stands in the run folders:
// stopped at any moment, the same command goes on from there.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "host/experiments/planned_run.h"
#include "host/experiments/side_by_side.h"

namespace ccdrec {

class Runner {
 public:
  // out: the folder of the run folders. `how` without its callbacks but `interrupted`.
  Runner(std::string out, SideBySide how) : out_(std::move(out)), how_(std::move(how)) {}

  std::string folder_of(const PlannedRun& run) const { return out_ + "/" + run.name; }
  // Asked to reach `epochs` epochs; 0: its own.
  Standing standing(const PlannedRun& run, int epochs = 0) const {
    return standing_of(folder_of(run), epochs_of(run, epochs));
  }
  // Each of the distinct runs to `epochs` epochs (0: its own), or to its early stop. false: interrupted.
  bool bring(const std::vector<const PlannedRun*>& runs, int epochs = 0);

  std::function<void(const std::string&)> say = [](const std::string&) {};
  // Each time one has come so far; not fresh: it was there before.
  std::function<void(const PlannedRun&, bool fresh)> on_over = [](const PlannedRun&, bool) {};
  // Runs that ended otherwise than training ends, by name: what they said.
  const std::map<std::string, std::string>& failed() const { return failed_; }

 private:
  static int epochs_of(const PlannedRun& run, int epochs) {
    return epochs ? std::min(epochs, run.settings().epochs) : run.settings().epochs;
  }
  std::vector<std::string> words_of(const PlannedRun& run, int epochs) const;
  std::string line_of(const PlannedRun& run, const Standing&) const;
  std::string out_;
  SideBySide how_;
  std::map<std::string, std::string> failed_;
};

}  // namespace ccdrec
