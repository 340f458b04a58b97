#include "host/cli/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "data/error.h"
#include "data/text.h"
#include "host/base/device.h"
#include "host/base/machine.h"
#include "host/cli/cli.h"
#include "host/systems/keys.h"
#include "host/systems/registry.h"

namespace ccdrec::cli {
namespace {

struct Fit {
  std::string set;  // as it is typed after --set
  size_t bytes;
};

// The largest value below `from` that fits, in steps of `step`; none: 0. Halving finds one that fits, bisection the
// largest below the one that did not. (A small batch has many steps, whose coefficients take memory too: what fits is a
// range, not all below a limit.)
template <class Fits>
int64_t largest(int64_t from, int64_t step, Fits&& fits) {
  int64_t hi = from / step, lo = (from - 1) / 2 / step;
  while (lo > 0 && !fits(lo * step)) hi = lo, lo /= 2;
  while (lo > 0 && hi - lo > 1) {
    const int64_t mid = lo + (hi - lo) / 2;
    (fits(mid * step) ? lo : hi) = mid;
  }
  return lo * step;
}

// Raw features are parameters, and need not be.
bool could_freeze(const Settings& s) {
  return s.train_features && outline_of(s).projects && concerns(*find_key("train_features"), s);
}

// One change that makes it fit, or train_features=false and one more: a smaller batch first, which changes the model
// least.
std::optional<Fit> what_fits(const Settings& asked, const Dataset& data, size_t most) {
  for (const bool frozen : {false, true}) {
    Settings s = asked;
    if (frozen) {
      if (!could_freeze(s)) break;
      s.train_features = false;
      if (const size_t bytes = Trainer::plan(s, data).total(); bytes <= most) return Fit{"train_features=false", bytes};
    }
    const auto smaller = [&](const char* key, int Settings::*field, int64_t from, int64_t step) -> std::optional<Fit> {
      Settings t = s;
      const auto bytes = [&](int64_t value) {
        t.*field = int(value);
        return Trainer::plan(t, data).total();
      };
      const int64_t value = largest(from, step, [&](int64_t v) { return bytes(v) <= most; });
      if (value == 0) return {};
      return Fit{fmt::format("{}{}={}", frozen ? "train_features=false with " : "", key, value), bytes(value)};
    };
    // rows that are read four floats at a time
    const int64_t whole = s.estimator == "transformer" ? std::lcm(4, s.estimator_heads) : 4;
    if (auto fit = smaller("train_batch_size", &Settings::train_batch_size,
                           std::min<int64_t>(s.train_batch_size, int64_t(data.train.size())), 1))
      return fit;
    if (auto fit = smaller("embedding_size", &Settings::embedding_size, s.embedding_size, whole)) return fit;
  }
  return {};
}

}  // namespace

FreeMemory free_memory(const Settings& s) {
  if (const size_t bytes = gpu_memory_available(s.device)) return {bytes, true};
  return {this_machine().available_bytes, false};
}

std::vector<std::string> memory_lines(const MemoryPlan& plan, const FreeMemory& free) {
  std::vector<std::vector<std::string>> rows;
  for (const PlanLine& line : plan.lines) rows.push_back({"  " + line.what, describe_bytes(line.bytes)});
  rows.push_back({"  total", describe_bytes(plan.total())});
  std::vector<std::string> lines = {
      fmt::format("memory plan ({} available{})", describe_bytes(free.bytes), free.gpu ? " on the GPU" : "")};
  const std::string table = format_table(rows);
  Lines of_table(table);
  for (std::string_view line; of_table.next(line);) lines.emplace_back(line);
  return lines;
}

void refuse_if_too_large(const MemoryPlan& plan, const Settings& s, const Dataset& data, const FreeMemory& free) {
  const uint64_t limit = uint64_t(s.mem_limit_gb * 1e9);
  const size_t total = plan.total();
  std::string against;
  if (limit && total > limit)
    against = fmt::format("mem_limit_gb = {:g} allows {}", s.mem_limit_gb, describe_bytes(limit));
  else if (free.bytes && total > free.bytes)
    against = fmt::format("the {} has {} available", free.gpu ? "GPU" : "machine", describe_bytes(free.bytes));
  else
    return;
  const PlanLine& largest_part = *std::max_element(plan.lines.begin(), plan.lines.end(),
                                                   [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  // one of them may be unknown
  const size_t most = size_t(limit && free.bytes ? std::min(limit, free.bytes) : limit + free.bytes);
  const std::optional<Fit> fit = what_fits(s, data, most);
  throw UserError(fmt::format("this run needs {} and {}; the largest part is '{}' ({}); {}", describe_bytes(total),
                              against, largest_part.what, describe_bytes(largest_part.bytes),
                              fit ? fmt::format("{} would fit ({})", fit->set, describe_bytes(fit->bytes))
                                  : "no train_batch_size or embedding_size would fit" +
                                        std::string(could_freeze(s) ? ", nor would train_features=false" : "")));
}

}  // namespace ccdrec::cli
