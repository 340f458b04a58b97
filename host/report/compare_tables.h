// The tables of `ccdrec compare`: what lines of a set reached, tests of them, their lists, Recall by groups.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "host/report/group_tests.h"
#include "host/report/run_groups.h"
#include "host/report/table.h"

namespace ccdrec {

ResultTable metric_table(const RunSet&, bool valid);
// One metric: lines against one of them. chosen: why that one, for the title.
ResultTable test_table(const RunSet&, const MetricTests&, bool valid, const std::string& chosen);
// MRR and Hit of the split; coverage, Gini, .. of test lists: of the k of the first line's valid_metric.
ResultTable list_table(const RunSet&, bool valid);
// Recall at that k, of the test split: by popularity of the items, and by activity of the users.
std::vector<ResultTable> bin_tables(const RunSet&);

// Every value of every seed in full precision, of each line: {"name", "label", .., "values", "lists", "groups"}.
nlohmann::ordered_json group_json(const RunGroup&, const std::string& set_title, bool valid);
nlohmann::ordered_json test_json(const LineTest&, const MetricTests&);

}  // namespace ccdrec
