#include "bench/gpu/agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace ccdrec::bench {

double tie_error(const ItemScores& x, const ItemScores& y, int64_t d) { return sum_error(d) * (x.mass + y.mass); }
double tie_limit(const ItemScores& x, const ItemScores& y, int64_t d) {
  return std::fabs((x.cpu - y.cpu) - (x.gpu - y.gpu)) + tie_error(x, y, d);
}
bool is_tie(const ItemScores& x, const ItemScores& y, int64_t d) {  // `<=` throughout: a NaN is no tie
  const double e = tie_error(x, y, d);
  return y.cpu - x.cpu <= e && x.gpu - y.gpu <= e;
}

void Flips::add(const std::string& where, int32_t x, const ItemScores& of_x, int32_t y, const ItemScores& of_y,
                int64_t d) {
  const double mass = of_x.mass + of_y.mass + 1e-30, allowed = tie_limit(of_x, of_y, d);
  double apart = std::fabs(of_x.cpu - of_y.cpu);
  keep_worst(apart, std::fabs(of_x.gpu - of_y.gpu));
  const bool tie = is_tie(of_x, of_y, d);
  ++count, no_ties += !tie;
  const double rank = tie ? apart / allowed : std::isnan(apart) ? INFINITY : 2 + apart / mass;
  if (rank <= rank_) return;
  rank_ = rank, gap = apart / mass, limit = allowed / mass;
  worst = fmt::format(
      "{}: item {} before {} on the CPU, after it on the GPU; scores {:.9g} and {:.9g} there, {:.9g} and {:.9g} here",
      where, x, y, of_x.cpu, of_y.cpu, of_x.gpu, of_y.gpu);
}

std::string Flips::text() const {
  if (count == 0) return "no flips";
  return fmt::format(
      "{} flip{}, {}; the worst: {:.1e} of the mass apart, a tie up to {:.1e} ({})", count, count == 1 ? "" : "s",
      all_ties() ? "all ties" : fmt::format("**{} no tie{}**", no_ties, no_ties == 1 ? "" : "s"), gap, limit, worst);
}

void add_flips(Flips& flips, const std::string& where, const std::vector<int32_t>& on_cpu,
               const std::vector<int32_t>& on_gpu, const std::function<ItemScores(int32_t)>& scores, int64_t d) {
  const auto place = [](const std::vector<int32_t>& list, int32_t item) {
    return std::find(list.begin(), list.end(), item) - list.begin();
  };
  struct Item {
    int32_t id;
    int64_t cpu, gpu;
    ItemScores scores;
  };
  std::vector<Item> items;
  for (const auto* list : {&on_cpu, &on_gpu})
    for (const int32_t i : *list) {
      if (i < 0 || std::any_of(items.begin(), items.end(), [&](const Item& known) { return known.id == i; })) continue;
      items.push_back({i, place(on_cpu, i), place(on_gpu, i), scores(i)});
    }
  for (const Item& x : items)
    for (const Item& y : items)
      if (x.cpu < y.cpu && y.gpu < x.gpu) flips.add(where, x.id, x.scores, y.id, y.scores, d);
}

}  // namespace ccdrec::bench
