// JSON that names each key of an object once: most parsers keep the last silently, and two readers may see two values.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace ccdrec {

// is_discarded() where it is no JSON; repeated: a key stands twice
nlohmann::json parse_strict(const std::string& text, bool& repeated);

}  // namespace ccdrec
