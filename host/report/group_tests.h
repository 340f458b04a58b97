// Lines of a table tested against one of them, user by user and seed by seed. What the figures mean: docs/metrics.md,
// "Comparing runs".
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "host/report/run_groups.h"
#include "host/report/statistics.h"

namespace ccdrec {

// Over the users of a split: each user's values averaged over the runs of a line, matched by user. No test: why not.
struct UserTest {
  std::optional<PairedTest> test;
  std::string why_not;
};
UserTest test_over_users(const RunGroup& a, const RunGroup& b, const std::string& key, bool valid);

// Over the seeds that both have. p is NAN below six, or where nothing differs: why.
struct SeedTest {
  int common = 0;
  double p = NAN;
  std::string why_not;
};
SeedTest test_over_seeds(const RunGroup& a, const RunGroup& b, const std::string& key, bool valid);

// The line whose mean of valid_metric on the validation split is highest: the only choice that a comparison makes by
// itself, and it sees no test metric. Null: why not.
struct BestLine {
  const RunGroup* line = nullptr;
  std::string key;  // recall@20
  std::string why_not;
};
BestLine best_by_validation(const std::vector<const RunGroup*>&);

struct LineTest {
  const RunGroup* line;
  double difference, percent;  // of the means, this line minus the other; NAN: one has no such value
  UserTest users;
  double holm_t = NAN, holm_wilcoxon = NAN;  // over the lines
  SeedTest seeds;
};
struct MetricTests {
  std::string key;
  const RunGroup* against;
  std::vector<LineTest> lines;  // all others
};
MetricTests test_lines(const std::vector<const RunGroup*>&, const RunGroup& against, const std::string& key,
                       bool valid);

}  // namespace ccdrec
