// The work of `ccdrec reproduce`: the lines of a table, their runs and what came of them (reproduce.cpp), and the
// tables made of it (reproduce_tables.cpp).
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "host/cli/planning.h"
#include "host/cli/run_options.h"
#include "host/experiments/paper.h"
#include "host/experiments/results.h"
#include "host/experiments/runner.h"
#include "host/report/table.h"

namespace ccdrec::cli {

struct ReproduceOptions : RunOptions, SideOptions {
  std::string table, seeds = "999", search = "none", only, out, results, format = "text";
  bool dry_run = false, report = false;
};

struct Line {
  PaperLine paper;
  std::vector<std::vector<PlannedRun>> points;  // of the search; a run for each seed
  std::optional<size_t> chosen;                 // the point whose seeds stand in the table
  std::string left_out;                         // why there is none
  std::vector<const PlannedRun*> runs(size_t point) const {
    std::vector<const PlannedRun*> all;
    for (const PlannedRun& run : points[point]) all.push_back(&run);
    return all;
  }
};

class Reproduction {
 public:
  Reproduction(const ReproduceOptions& o, Io& io) : o_(o), io_(io), data_(io) {}
  int run();

 private:
  void plan();
  bool train();
  bool train_line(Line&);
  int dry();
  nlohmann::ordered_json outcome(const PlannedRun&) const;  // null: not there
  double score(const PlannedRun&) const;                    // validation; -1: none
  void choose(Line&);
  void say_what_is_left();
  std::vector<double> values(const Line&, const char* split, const std::string& metric) const;
  ResultTable metrics_table();
  ResultTable cost_table();
  std::string significance(const Line&, const Line& over, const std::string& metric);
  void add_notes(ResultTable&);
  const Line* line_named(const std::string& label) const;
  std::string bars() const;

  const ReproduceOptions& o_;
  Io& io_;
  PlanningData data_;
  PaperTable table_;
  std::vector<std::string> seeds_;
  std::string set_, data_name_, out_;
  std::vector<Line> lines_;
  Results results_;
  std::unique_ptr<Runner> runner_;
};

}  // namespace ccdrec::cli
