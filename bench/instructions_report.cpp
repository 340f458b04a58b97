#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "bench/instructions.h"
#include "data/error.h"
#include "data/text.h"

namespace ccdrec::bench {
namespace {
using nlohmann::json;

struct Pair {
  int64_t x1 = 0, x2 = 0;
};

const json* entry(const json& reference, const std::string& model, const std::string& what) {
  const auto of = reference.find(model);
  if (of == reference.end()) return nullptr;
  const auto at = of->find(what);
  return at == of->end() ? nullptr : &*at;
}

bool beyond(int64_t now, int64_t was) {
  return 100 * std::llabs(now - was) > kTolerancePercent * was;
}  // whole numbers: the edge itself is let through
double percent(int64_t now, int64_t was) { return now == was ? 0.0 : 100 * (double(now) / double(was) - 1); }

// A count that is too high is said before one that is too low: what has become better at x1 does not excuse x2.
std::string apart(const std::string& what, const CountedLine& now, const Pair& was) {
  const double at1 = beyond(now.x1, was.x1) ? percent(now.x1, was.x1) : 0,
               at2 = beyond(now.x2, was.x2) ? percent(now.x2, was.x2) : 0;
  if (const double more = std::max(at1, at2); more > 0)
    return fmt::format("{}: {:.1f} % more instructions than the reference; at most {} % are let through", what, more,
                       kTolerancePercent);
  if (const double fewer = std::min(at1, at2); fewer < 0)
    return fmt::format("{}: {:.1f} % fewer instructions than the reference; keep the gain: make instructions UPDATE=1",
                       what, -fewer);
  return {};
}

// What goes through all pairs: LATTICE's search, of items, and SLMRec's contrasts, of the batch's rows. Four times the
// work for twice the data, and an epoch is judged without it.
bool of_all_pairs(const std::string& what) { return what == "knn_cosine" || what == "infonce"; }

std::string too_steep(const CountedLine& l, const std::vector<CountedLine>& lines) {
  CountedLine judged = l;
  for (const CountedLine& pairs : lines)
    if (l.what == "epoch" && pairs.model == l.model && of_all_pairs(pairs.what))
      judged.x1 -= pairs.x1, judged.x2 -= pairs.x2;
  const double growth = double(judged.x2) / double(std::max<int64_t>(judged.x1, 1)),
               most = of_all_pairs(l.what) ? 2 * kMostGrowth : kMostGrowth;
  if (growth <= most) return {};
  return fmt::format(
      "{}, {}: {:.3f} times the instructions for twice the data, expected at most {:g}: something is not linear",
      l.model, l.what, growth, most);
}

// Of the models counted: what the reference has and no line says any more.
std::vector<std::string> gone(const std::vector<CountedLine>& lines, const json& reference) {
  std::set<std::string> models;
  std::set<std::pair<std::string, std::string>> counted;
  for (const CountedLine& l : lines) models.insert(l.model), counted.emplace(l.model, l.what);
  std::vector<std::string> out;
  for (const std::string& model : models) {
    if (!reference.contains(model)) continue;
    for (const auto& [what, counts] : reference[model].items())
      if (!counted.count({model, what}))
        out.push_back(model + ", " + what + ": is in the reference and was not called; make instructions UPDATE=1");
  }
  return out;
}

}  // namespace

json parse_reference(const std::string& text, const std::string& path) {
  const auto bad = [&](const std::string& why) {
    return UserError(path + why + "; write it anew with make instructions UPDATE=1");
  };
  json j;
  try {
    j = json::parse(text);
  } catch (const json::exception& e) { throw bad(std::string(" is no JSON (") + e.what() + ")"); }
  if (!j.is_object() || !j.contains("toolchain") || !j["toolchain"].is_string()) throw bad(": no \"toolchain\"");
  for (const auto& [model, lines] : j.items()) {
    if (model == "toolchain") continue;
    if (!lines.is_object()) throw bad(": \"" + model + "\" has no lines");
    for (const auto& [what, counts] : lines.items()) {
      const bool two =
          counts.is_array() && counts.size() == 2 && counts[0].is_number_integer() && counts[1].is_number_integer();
      if (!two) throw bad(": \"" + model + "\", \"" + what + "\" are not two counts");
    }
  }
  return j;
}

json as_reference(const std::vector<CountedLine>& lines, const std::string& toolchain) {
  json j = {{"toolchain", toolchain}};
  for (const CountedLine& l : lines) j[l.model][l.what] = {l.x1, l.x2};
  return j;
}

std::vector<CountedLine> lines_of(const std::string& model, const Counts& x1, const Counts& x2, const json& reference) {
  std::vector<CountedLine> lines = {{model, "epoch", x1.total, x2.total}};
  int64_t rest1 = x1.total, rest2 = x2.total;
  for (const auto& [name, n] : x2.operations) {
    const auto at = x1.operations.find(name);
    const int64_t n1 = at == x1.operations.end() ? 0 : at->second;
    if (double(n) < kShare * double(x2.total) && !entry(reference, model, name)) continue;
    lines.push_back({model, name, n1, n});
    rest1 -= n1, rest2 -= n;
  }
  std::sort(lines.begin() + 1, lines.end(), [](const CountedLine& a, const CountedLine& b) { return a.x2 > b.x2; });
  lines.push_back({model, "all else", rest1, rest2});
  return lines;
}

Verdict judge(const std::vector<CountedLine>& lines, const json& reference, const std::string& toolchain) {
  const bool same = reference.value("toolchain", "") == toolchain;
  Verdict v;
  v.table = fmt::format("{:9} {:20} {:>14} {:>14} {:>8} {:>13}\n", "model", "", "x1", "x2", "growth", "x2 : reference");
  for (const CountedLine& l : lines) {
    const std::string what = l.model + ", " + l.what;
    const double growth = double(l.x2) / double(std::max<int64_t>(l.x1, 1));
    std::string beside = "-", off;
    if (const json* r = entry(reference, l.model, l.what)) {
      const Pair was = {(*r)[0].get<int64_t>(), (*r)[1].get<int64_t>()};
      beside = fmt::format("{:+.2f} %", percent(l.x2, was.x2));
      off = apart(what, l, was);
      if (same && !off.empty()) v.wrong.push_back(off);
    } else if (same) {
      v.wrong.push_back(what + ": the reference has no such line; make instructions UPDATE=1");
    }
    const std::string steep = too_steep(l, lines);
    if (!steep.empty()) v.wrong.push_back(steep);
    v.table += fmt::format("{:9} {:20} {:>14} {:>14} {:>8.3f} {:>13}{}\n", l.model, l.what, thousands(l.x1),
                           thousands(l.x2), growth, beside, off.empty() && steep.empty() ? "" : "  <--");
  }
  if (same)
    for (std::string& sentence : gone(lines, reference)) v.wrong.push_back(std::move(sentence));
  if (!same && !reference.empty())
    v.table += fmt::format("\nCounted with {}, the reference with {}: counts are shown, only the growth is judged.\n",
                           toolchain, reference.value("toolchain", "an unknown compiler"));
  return v;
}

}  // namespace ccdrec::bench
