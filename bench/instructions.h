// What the counts of bench_instructions mean: its lines, the reference they are held against, and the sentences of what
// is wrong.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/callgrind.h"

namespace ccdrec::bench {

constexpr int64_t kTolerancePercent = 3;  // of the reference's count, up and down; itself let through
constexpr double kMostGrowth = 2.1, kShare = 0.01;

struct CountedLine {
  std::string model, what;  // "epoch", an operation, "all else"
  int64_t x1 = 0, x2 = 0;
};

// {"toolchain": .., MODEL: {WHAT: [x1, x2]}}. UserError, which names `path`: no such thing.
nlohmann::json parse_reference(const std::string& text, const std::string& path);
nlohmann::json as_reference(const std::vector<CountedLine>&, const std::string& toolchain);

// The whole epoch, its operations (those of kShare of it, and those that the reference has: one at that share does not
// come and go), all else.
std::vector<CountedLine> lines_of(const std::string& model, const Counts& x1, const Counts& x2,
                                  const nlohmann::json& reference);

struct Verdict {
  std::string table;
  std::vector<std::string> wrong;  // a sentence each; none: all is well
};
// `reference` may be an empty object: then only the growth is judged, as with another toolchain than its own.
Verdict judge(const std::vector<CountedLine>&, const nlohmann::json& reference, const std::string& toolchain);

}  // namespace ccdrec::bench
