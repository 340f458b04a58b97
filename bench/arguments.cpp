#include "bench/arguments.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <type_traits>

namespace ccdrec::bench {

Arguments::Arguments(const std::string& about) : app_(std::make_unique<CLI::App>(about)) {}
Arguments::~Arguments() = default;

namespace {

// CLI11's own check names the largest double in full.
std::string above_zero(const std::string& text) {
  return std::strtod(text.c_str(), nullptr) > 0 ? "" : "'" + text + "' is no number above 0";
}
std::string not_below_zero(const std::string& text) {
  return std::strtod(text.c_str(), nullptr) >= 0 ? "" : "'" + text + "' is below 0";
}

// CLI11 takes the largest number of the type for one that is too large.
template <class T>
std::string whole_number(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range)
    return "'" + text + "' is too " + (text[0] == '-' ? "small" : "large") + "; the numbers from " +
           std::to_string(std::numeric_limits<T>::min()) + " to " + std::to_string(std::numeric_limits<T>::max()) +
           " are taken";
  return error == std::errc() && end == text.data() + text.size() ? "" : "'" + text + "' is no whole number";
}

template <class T>
CLI::Option* add_to(CLI::App& app, const std::string& name, T& value, const std::string& text, const Allowed& allowed) {
  CLI::Option* option = app.add_option(name, value, text);
  bool has_default = true;
  if constexpr (!std::is_arithmetic_v<T>) has_default = !value.empty();
  if (has_default) option->capture_default_str();
  if constexpr (std::is_integral_v<T>) option->check(whole_number<T>, "");
  switch (allowed.kind) {
    case Allowed::Kind::anything:
      break;
    case Allowed::Kind::one_of:
      option->check(CLI::IsMember(allowed.values));
      break;
    case Allowed::Kind::between:
      option->check(CLI::Range(allowed.least, allowed.most));
      break;
    case Allowed::Kind::positive:
      option->check(above_zero, "POSITIVE");
      break;
    case Allowed::Kind::zero_or_more:
      option->check(not_below_zero, "NONNEGATIVE");
      break;
  }
  return option;
}

}  // namespace

template <class T>
void Arguments::add(const std::string& name, T& value, const std::string& text, const Allowed& allowed) {
  if constexpr (std::is_same_v<T, bool>)
    app_->add_flag(name, value, text);
  else
    add_to(*app_, name, value, text, allowed);
}
void Arguments::add_list(const std::string& name, std::vector<std::string>& values, const std::string& text,
                         const Allowed& allowed) {
  add_to(*app_, name, values, text, allowed)->delimiter(',');
}
template void Arguments::add(const std::string&, bool&, const std::string&, const Allowed&);
template void Arguments::add(const std::string&, int&, const std::string&, const Allowed&);
template void Arguments::add(const std::string&, int64_t&, const std::string&, const Allowed&);
template void Arguments::add(const std::string&, double&, const std::string&, const Allowed&);
template void Arguments::add(const std::string&, std::string&, const std::string&, const Allowed&);
template void Arguments::add(const std::string&, std::vector<std::string>&, const std::string&, const Allowed&);

std::optional<int> Arguments::parse(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& e) { return app_->exit(e) == 0 ? 0 : 2; }
  return {};
}

}  // namespace ccdrec::bench
