#include "host/base/metric_name.h"

#include <cctype>
#include <charconv>
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

std::string metric_key(const std::string& name) {
  std::string key;
  for (const char c : name) key += char(std::tolower(static_cast<unsigned char>(c)));
  const size_t at = key.find('@');
  const std::string stem = key.substr(0, at);
  const bool known = stem == "recall" || stem == "ndcg" || stem == "precision" || stem == "map";
  if (!known || metric_cutoff(key) < 1)
    throw UserError("metric '" + name +
                    "' is not known; expected Recall@k, NDCG@k, Precision@k or MAP@k, e.g. Recall@20");
  return key;
}

}  // namespace ccdrec
