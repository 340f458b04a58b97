// Names of metrics in settings and files.
#pragma once
#include <string>

namespace ccdrec {

std::string metric_key(const std::string& name);  // "Recall@20" -> "recall@20"; UserError for an unknown metric
int metric_cutoff(const std::string& key);        // of "recall@20": 20; 0: there is none

}  // namespace ccdrec
