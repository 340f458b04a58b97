#include "data/stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "data/hash.h"
#include "data/text.h"

namespace ccdrec {

namespace {

double percent(int64_t part, int64_t whole) { return whole ? 100.0 * double(part) / double(whole) : 0.0; }

// Ascending degrees of users or items.
struct Degrees {
  std::vector<int64_t> sorted;
  int64_t sum = 0;
  explicit Degrees(std::vector<int64_t> d) : sorted(std::move(d)) {
    std::sort(sorted.begin(), sorted.end());
    for (int64_t x : sorted) sum += x;
  }
  int64_t at(double q) const { return sorted.empty() ? 0 : sorted[size_t(q * double(sorted.size() - 1))]; }
  double mean() const { return sorted.empty() ? 0 : double(sum) / double(sorted.size()); }
  double gini() const {  // 0: all alike, 1: one has all
    const double n = double(sorted.size());
    double g = 0;
    for (size_t i = 0; i < sorted.size(); ++i) g += double(sorted[i]) * (2.0 * double(i + 1) - n - 1);
    return sum ? g / (double(sum) * n) : 0;
  }
  double top_share(double q) const {  // percent of interactions held by the share q of the largest
    const size_t n = std::max<size_t>(1, size_t(q * double(sorted.size())));
    int64_t s = 0;
    for (size_t i = sorted.size() - std::min(n, sorted.size()); i < sorted.size(); ++i) s += sorted[i];
    return percent(s, sum);
  }
  std::string line(const char* what) const {
    std::string s = fmt::format("  {:<10}", what);
    for (double q : {.01, .05, .25, .50, .75, .95, .99, 1.0}) s += fmt::format("{:>8}", thousands(at(q)));
    return s + fmt::format("{:>9.2f}{:>7.3f}\n", mean(), gini());
  }
};

struct Health {
  int64_t zero_rows = 0, repeated_rows = 0;
  double mean_energy = 0;  // share of the energy in the mean row
};

Health examine(const NpyMatrix& m) {
  const int64_t F = m.cols(), tile = std::max<int64_t>(1, (int64_t(1) << 18) / F);
  std::vector<float> rows(size_t(tile * F), 0.0f);
  std::vector<double> mean(size_t(F), 0.0);
  std::vector<uint64_t> prints;
  double energy = 0;
  Health h;
  for (int64_t first = 0; first < m.rows(); first += tile) {
    const int64_t n = std::min(tile, m.rows() - first);
    m.read_rows(rows.data(), first, n);
    for (int64_t r = 0; r < n; ++r) {
      const float* x = &rows[size_t(r * F)];
      double sum = 0;
      for (int64_t j = 0; j < F; ++j) {
        mean[size_t(j)] += double(x[j]);
        sum += double(x[j]) * double(x[j]);
      }
      energy += sum;
      if (sum == 0)
        ++h.zero_rows;
      else
        prints.push_back(hash_bytes(x, size_t(F) * sizeof(float)));
    }
  }
  for (double s : mean) h.mean_energy += s * s / std::max(1.0, double(m.rows()));
  h.mean_energy = energy > 0 ? h.mean_energy / energy : 0;
  std::sort(prints.begin(), prints.end());
  h.repeated_rows = int64_t(prints.size()) - (std::unique(prints.begin(), prints.end()) - prints.begin());
  return h;
}

}  // namespace

std::string describe(const Dataset& d) {
  std::vector<int64_t> user(size_t(d.n_users), 0), item(size_t(d.n_items), 0), trained(size_t(d.n_items), 0);
  for (const auto* split : {&d.train, &d.valid, &d.test})
    for (const Pair& p : *split) ++user[size_t(p.user)], ++item[size_t(p.item)];
  for (const Pair& p : d.train) ++trained[size_t(p.item)];
  const Degrees users(user), items(item);
  const int64_t rows = users.sum;
  const auto cold = [&](const std::vector<Pair>& split) {
    return std::count_if(split.begin(), split.end(), [&](const Pair& p) { return trained[size_t(p.item)] == 0; });
  };

  std::string s = fmt::format("data set {} ({})\n", printable(d.name), printable(d.folder));
  s += fmt::format("  users {}, items {}, interactions {}, sparsity {:.3f} %\n", thousands(d.n_users),
                   thousands(d.n_items), thousands(rows),
                   100.0 - 100.0 * double(rows) / (double(d.n_users) * double(d.n_items)));
  s += fmt::format("  training {} ({:.1f} %), validation {} ({:.1f} %), test {} ({:.1f} %)\n",
                   thousands(int64_t(d.train.size())), percent(int64_t(d.train.size()), rows),
                   thousands(int64_t(d.valid.size())), percent(int64_t(d.valid.size()), rows),
                   thousands(int64_t(d.test.size())), percent(int64_t(d.test.size()), rows));
  s += fmt::format("  ids: users {}, items {}\n",
                   d.users.dense() ? "numbered in the file" : "named, such as " + shown(d.users.raw(0)),
                   d.items.dense() ? "numbered in the file" : "named, such as " + shown(d.items.raw(0)));
  s += "\ninteractions of one user or item, all splits, at the quantiles\n";
  s += fmt::format("  {:<10}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}{:>7}\n", "", "1 %", "5 %", "25 %", "50 %",
                   "75 %", "95 %", "99 %", "max", "mean", "Gini");
  s += users.line("user") + items.line("item");
  s += fmt::format("  the most popular 1 % of items hold {:.1f} % of the interactions, 10 % hold {:.1f} %\n",
                   items.top_share(.01), items.top_share(.10));
  const int64_t cold_items = std::count(trained.begin(), trained.end(), 0);
  s += fmt::format("  cold items (no training row): {} of {}, with {} validation and {} test rows on them\n",
                   thousands(cold_items), thousands(d.n_items), thousands(cold(d.valid)), thousands(cold(d.test)));

  s += "\nfeatures\n";
  if (d.features.empty()) s += "  none read\n";
  for (const Feature& f : d.features) {
    const Health h = examine(f.matrix);
    s += fmt::format(
        "  {:<8} {}: {} x {}, {}, {:.1f} MB; zero rows {}, rows that repeat another {}; {:.0f} % of the energy is the "
        "common mean\n",
        f.name, std::filesystem::path(f.matrix.path()).filename().string(), thousands(f.matrix.rows()),
        thousands(f.matrix.cols()), f.matrix.dtype(), double(f.matrix.byte_count()) / 1e6, thousands(h.zero_rows),
        thousands(h.repeated_rows), 100 * h.mean_energy);
  }
  s += fmt::format("\nfingerprint {}\n", d.checksum);
  s += d.warnings.empty() ? "no warnings\n"
                          : fmt::format("{} warning{}\n", d.warnings.size(), d.warnings.size() == 1 ? "" : "s");
  for (const std::string& w : d.warnings) s += "  " + w + "\n";
  return s;
}

}  // namespace ccdrec
