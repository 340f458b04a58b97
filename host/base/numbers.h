// Numbers that come from a file: within their range, or one sentence that names the file, the key and what was
// expected.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace ccdrec {

// UserError. `what` begins the sentence: "runs/a/last.safetensors: metadata 'epoch'".
// digits and a sign, nothing else
int64_t whole_number(const std::string& text, int64_t least, int64_t most, const std::string& what);
int64_t whole_number(const nlohmann::json&, int64_t least, int64_t most, const std::string& what);
double real_number(const nlohmann::json&, double least, double most, const std::string& what);  // finite

}  // namespace ccdrec
