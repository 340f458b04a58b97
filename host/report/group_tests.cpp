#include "host/report/group_tests.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "host/base/metric_name.h"
#include "host/files/user_values.h"

namespace ccdrec {
namespace {

// What a line's users got, by user: means over its runs.
struct UserMeans {
  std::vector<int32_t> users;
  std::vector<double> values;
  std::string why_not;
};

UserMeans users_of_run(const RunOfSeed& run, const std::string& key, bool valid) {
  UserMeans out;
  const UserValues kept = read_user_values(RunFolder::open(run.dir));
  const int users = kept.column("user"), column = kept.column(key);
  if (kept.columns.empty() || users < 0)
    out.why_not = fmt::format("{} has no values of users", run.dir);
  else if (column < 0)
    out.why_not = fmt::format("{} is kept of no user", key);
  else if ((valid ? kept.valid : kept.test) == 0)
    out.why_not = fmt::format("the {} split has no rows", valid ? "validation" : "test");
  if (!out.why_not.empty()) return out;
  const std::vector<double> user = kept.of(valid, users), value = kept.of(valid, column);
  std::vector<size_t> order(user.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return user[a] < user[b]; });
  for (const size_t k : order) out.users.push_back(int32_t(user[k])), out.values.push_back(value[k]);
  return out;
}

UserMeans user_means(const RunGroup& g, const std::string& key, bool valid) {
  UserMeans all;
  for (const RunOfSeed& run : g.runs) {
    const UserMeans one = users_of_run(run, key, valid);
    if (!one.why_not.empty()) return one;
    if (all.users.empty()) {
      all = one;
      continue;
    }
    if (one.users != all.users) return {.users = {}, .values = {}, .why_not = run.dir + " has other users"};
    for (size_t k = 0; k < all.values.size(); ++k) all.values[k] += one.values[k];
  }
  for (double& value : all.values) value /= double(g.runs.size());
  return all;
}

UserTest test_of(const UserMeans& a, const UserMeans& b) {
  for (const UserMeans* m : {&a, &b})
    if (!m->why_not.empty()) return {{}, m->why_not};
  if (a.users != b.users) return {{}, "the users differ, so the splits do"};
  return {paired_test(a.values, b.values), ""};
}

}  // namespace

UserTest test_over_users(const RunGroup& a, const RunGroup& b, const std::string& key, bool valid) {
  if (!same_set(a, b)) return {{}, "the interactions differ"};
  return test_of(user_means(a, key, valid), user_means(b, key, valid));
}

SeedTest test_over_seeds(const RunGroup& a, const RunGroup& b, const std::string& key, bool valid) {
  SeedTest out;
  if (!same_set(a, b)) return {.why_not = "the interactions differ"};
  const std::vector<double> of_a = a.of(key, valid), of_b = b.of(key, valid);
  std::vector<double> x, y;
  for (size_t k = 0; k < of_a.size(); ++k)
    for (size_t m = 0; m < of_b.size(); ++m)
      if (a.runs[k].seed == b.runs[m].seed && !std::isnan(of_a[k]) && !std::isnan(of_b[m]))
        x.push_back(of_a[k]), y.push_back(of_b[m]);
  out.common = int(x.size());
  out.p = paired_p_of_seeds(x, y);
  if (out.common < kFewestSeeds)
    out.why_not = fmt::format("{} of {} seeds", out.common, kFewestSeeds);
  else if (std::isnan(out.p))
    out.why_not = "all differ alike";
  return out;
}

BestLine best_by_validation(const std::vector<const RunGroup*>& lines) {
  BestLine best;
  double highest = NAN;
  for (const RunGroup* g : lines) {
    const std::string key = metric_key(g->settings.valid_metric);
    if (best.key.empty()) best.key = key;
    if (key != best.key)
      return {.key = key,
              .why_not = fmt::format("{} was stopped by {} and {} by {}", lines[0]->name, best.key, g->name, key)};
    const double value = g->mean_of(key, true);
    if (std::isnan(value)) return {.key = key, .why_not = fmt::format("{} has no validation {}", g->name, key)};
    if (!(value <= highest)) highest = value, best.line = g;
  }
  return best;
}

MetricTests test_lines(const std::vector<const RunGroup*>& lines, const RunGroup& against, const std::string& key,
                       bool valid) {
  MetricTests out{.key = key, .against = &against, .lines = {}};
  const UserMeans other = user_means(against, key, valid);
  const double of_other = against.mean_of(key, valid);
  std::vector<double> p_t, p_wilcoxon;
  for (const RunGroup* g : lines) {
    if (g == &against) continue;
    LineTest line{.line = g, .difference = g->mean_of(key, valid) - of_other, .percent = NAN, .users = {}, .seeds = {}};
    line.percent = of_other == 0 ? NAN : 100 * line.difference / of_other;
    line.users =
        same_set(*g, against) ? test_of(user_means(*g, key, valid), other) : UserTest{{}, "the interactions differ"};
    line.seeds = test_over_seeds(*g, against, key, valid);
    p_t.push_back(line.users.test ? line.users.test->p_t : NAN);
    p_wilcoxon.push_back(line.users.test ? line.users.test->p_wilcoxon : NAN);
    out.lines.push_back(std::move(line));
  }
  const std::vector<double> holm_t = holm(p_t), holm_wilcoxon = holm(p_wilcoxon);
  for (size_t k = 0; k < out.lines.size(); ++k)
    out.lines[k].holm_t = holm_t[k], out.lines[k].holm_wilcoxon = holm_wilcoxon[k];
  return out;
}

}  // namespace ccdrec
