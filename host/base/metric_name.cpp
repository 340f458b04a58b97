#include "host/base/metric_name.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <iterator>
#include <system_error>

#include "data/error.h"

namespace ccdrec {

int metric_cutoff(const std::string& key) {
  int k = 0;
  const size_t at = key.find('@');
  if (at == std::string::npos) return 0;
  const char* const end = key.data() + key.size();
  const auto [rest, error] = std::from_chars(key.data() + at + 1, end, k);
  return error == std::errc() && rest == end ? k : 0;
}

bool is_metric(const std::string& stem) {
  return std::any_of(std::begin(kMetrics), std::end(kMetrics), [&](const MetricName& m) { return stem == m.key; });
}

std::string metric_key(const std::string& name) {
  std::string key;
  for (const char c : name) key += char(std::tolower(static_cast<unsigned char>(c)));
  const size_t at = key.find('@');
  const std::string stem = key.substr(0, at);
  if (!is_metric(stem) || metric_cutoff(key) < 1)
    throw UserError("metric '" + name +
                    "' is not known; expected Recall@k, NDCG@k, Precision@k, MAP@k, MRR@k or Hit@k, e.g. Recall@20");
  return key;
}

}  // namespace ccdrec
