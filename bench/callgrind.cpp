#include "bench/callgrind.h"

#include <fmt/format.h>

#include <charconv>
#include <set>

#include "data/error.h"
#include "data/text.h"
#include "kernels/ops.h"

namespace ccdrec::bench {
namespace {

constexpr std::string_view kCpu = "ccdrec::cpu::";

// "adam_rows" of "ccdrec::cpu::adam_rows(ccdrec::Ctx&, ...)" if it is in the catalogue, else empty.
std::string operation(std::string_view function) {
#define CCDREC_NAME(name) #name,
  static const std::set<std::string, std::less<>> all = {CCDREC_OPS(CCDREC_NAME)};
#undef CCDREC_NAME
  if (!function.starts_with(kCpu)) return {};
  function.remove_prefix(kCpu.size());
  const std::string_view name = function.substr(0, function.find('('));
  return all.count(name) ? std::string(name) : std::string();
}

// A caller that is neither an operation, nor a helper of one, nor the OpenMP library on behalf of one.
bool outside(std::string_view function) { return function.starts_with("ccdrec::") && !function.starts_with(kCpu); }

int64_t number(std::string_view s, const std::string& path) {
  int64_t n = 0;
  if (std::from_chars(s.data(), s.data() + s.size(), n).ec != std::errc())
    throw UserError(fmt::format("{}: '{}' is no count", path, shown(s)));
  return n;
}

}  // namespace

// fn=CALLER, then lines "POSITION COST" of its own, and for each callee: cfn=CALLEE, calls=..., "POSITION COST" with
// all that the calls cost.
Counts read_callgrind(const std::string& path) {
  const std::string text = read_text(path);
  Counts c;
  Lines lines(text);
  std::string_view line, caller, callee;
  bool of_calls = false, summed = false;
  while (lines.next(line)) {
    if (line.starts_with("fn=")) {
      caller = line.substr(3);
    } else if (line.starts_with("cfn=")) {
      callee = line.substr(4);
    } else if (line.starts_with("calls=")) {
      of_calls = true;
    } else if (line.starts_with("totals: ")) {
      c.total = number(line.substr(8), path), summed = true;
    } else if (of_calls) {
      of_calls = false;
      const std::string name = outside(caller) ? operation(callee) : std::string();
      if (!name.empty()) c.operations[name] += number(line.substr(line.find(' ') + 1), path);
    }
  }
  if (!summed) throw UserError(path + ": no line 'totals:'; expected what callgrind writes");
  return c;
}

}  // namespace ccdrec::bench
