// Names of metrics in settings and files.
#pragma once
#include <string>

namespace ccdrec {

// The ranking metrics, in the order in which they are computed and listed: training/metrics.h.
struct MetricName {
  const char *key, *shown;
};
inline constexpr MetricName kMetrics[] = {{"recall", "Recall"}, {"ndcg", "NDCG"}, {"precision", "Precision"},
                                          {"map", "MAP"},       {"mrr", "MRR"},   {"hit", "Hit"}};
bool is_metric(const std::string& stem);  // of "recall": in small letters, without a cutoff

std::string metric_key(const std::string& name);  // "Recall@20" -> "recall@20"; UserError for an unknown metric
int metric_cutoff(const std::string& key);        // of "recall@20": 20; 0: there is none

}  // namespace ccdrec
