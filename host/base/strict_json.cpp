#include "host/base/strict_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace ccdrec {

nlohmann::json parse_strict(const std::string& text, bool& repeated) {
  std::vector<std::set<std::string>> keys;
  repeated = false;
  const auto watch = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    if (event == nlohmann::json::parse_event_t::object_start) keys.emplace_back();
    if (event == nlohmann::json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == nlohmann::json::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(value.get<std::string>()).second)
      repeated = true;
    return true;
  };
  return nlohmann::json::parse(text, watch, false);
}

}  // namespace ccdrec
