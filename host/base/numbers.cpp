#include "host/base/numbers.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/text.h"

namespace ccdrec {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& got, const std::string& expected) {
  throw UserError(
      fmt::format("{} is {}, expected {}; the file is damaged or was changed by hand", what, got, expected));
}

[[noreturn]] void refuse_whole(const std::string& what, const std::string& got, int64_t least, int64_t most) {
  refuse(what, got, least == most ? std::to_string(least) : fmt::format("a whole number from {} to {}", least, most));
}

}  // namespace

int64_t whole_number(const std::string& text, int64_t least, int64_t most, const std::string& what) {
  int64_t value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (error != std::errc() || end != last || value < least || value > most)
    refuse_whole(what, "'" + shown(text) + "'", least, most);
  return value;
}

int64_t whole_number(const nlohmann::json& j, int64_t least, int64_t most, const std::string& what) {
  const bool fits = j.is_number_integer() && !(j.is_number_unsigned() && j.get<uint64_t>() > uint64_t(INT64_MAX));
  if (!fits || j.get<int64_t>() < least || j.get<int64_t>() > most) refuse_whole(what, shown(j.dump()), least, most);
  return j.get<int64_t>();
}

double real_number(const nlohmann::json& j, double least, double most, const std::string& what) {
  const double value = j.is_number() ? j.get<double>() : least - 1;
  if (!(value >= least && value <= most))
    refuse(what, shown(j.dump()), fmt::format("a number from {:g} to {:g}", least, most));
  return value;
}

}  // namespace ccdrec
