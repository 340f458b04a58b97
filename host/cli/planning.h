// What `sweep` and `reproduce` share: the data that planned runs read, their memory plans, how they are trained side by
// side, and what a dry run lists.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/cli/cli.h"
#include "host/experiments/planned_run.h"
#include "host/experiments/side_by_side.h"

namespace ccdrec::cli {

struct SideOptions {
  int jobs = 1;
};
void add_side_options(CLI::App&, SideOptions&);
// Threads and memory as these settings say; interrupted by the signals of an InterruptGuard.
SideBySide side_by_side(const SideOptions&, const Settings&);

// The data folder of runs, read once for each choice of columns and modalities.
class PlanningData {
 public:
  explicit PlanningData(Io& io) : io_(io) {}
  const Dataset& of(const Settings&);
  // Checks each against the data, fills in key, name and memory. UserError: a run that cannot be, or not be continued.
  void settle(const std::vector<PlannedRun*>&);
  // UserError: it needs more memory than there is even alone.
  void refuse_if_too_large(const PlannedRun&);

 private:
  Io& io_;
  std::map<std::string, Dataset> sets_;
};

// A line each: name, runs. Prints runs, memory and time in that format; nothing is trained but five steps of each line.
int dry_run(const std::vector<std::pair<std::string, std::vector<const PlannedRun*>>>& lines, PlanningData&,
            const SideOptions&, const std::string& format, Io&);

}  // namespace ccdrec::cli
