#include "host/training/lists.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ccdrec {
namespace {

constexpr int32_t kNotInTest = -1;

// Items by how often they are trained on.
struct Popularity {
  Popularity(const std::vector<Pair>& train, int64_t n_items)
      : rows(size_t(n_items)), group(size_t(n_items)), tail(size_t(n_items), 1), surprise(size_t(n_items)) {
    for (const Pair& p : train) ++rows[size_t(p.item)];
    std::vector<int32_t> order(size_t(n_items), 0);  // ascending, ties by number
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return rows[size_t(a)] < rows[size_t(b)]; });
    for (int64_t g = 0; g < kItemGroups; ++g)
      for (int64_t at = g * n_items / kItemGroups; at < (g + 1) * n_items / kItemGroups; ++at)
        group[size_t(order[size_t(at)])] = char(g);
    // from the most popular on, ties by number here too
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return rows[size_t(a)] > rows[size_t(b)]; });
    const auto total = int64_t(train.size());
    int64_t held = 0;
    for (const int32_t item : order) {
      if (10 * held >= 8 * total) break;
      held += rows[size_t(item)], tail[size_t(item)] = 0;
    }
    for (size_t i = 0; i < rows.size(); ++i)
      surprise[i] = -std::log2(double(std::max<int64_t>(rows[i], 1)) / double(total));
  }
  std::vector<int64_t> rows;
  std::vector<char> group, tail;
  std::vector<double> surprise;
};

// Rows of one modality at length 1; those of zeros stay so and are none.
class UnitRows {
 public:
  explicit UnitRows(const NpyMatrix& m, int threads) : m_(m), scale_(size_t(m.rows())) {
#pragma omp parallel num_threads(threads)
    {
      std::vector<float> buffer(size_t(m.cols()));
#pragma omp for schedule(static)
      for (int64_t i = 0; i < m.rows(); ++i) {
        const float* x = row(i, buffer.data());
        double square = 0;
        for (int64_t j = 0; j < m.cols(); ++j) square += double(x[j]) * double(x[j]);
        scale_[size_t(i)] = square > 0 ? 1 / std::sqrt(square) : 0;
      }
    }
  }
  int64_t width() const { return m_.cols(); }
  // sum += row i; false: it is none. buffer: width() values
  bool add(double* sum, int64_t i, float* buffer) const {
    const double scale = scale_[size_t(i)];
    if (scale == 0) return false;
    const float* x = row(i, buffer);
    for (int64_t j = 0; j < m_.cols(); ++j) sum[j] += scale * double(x[j]);
    return true;
  }

 private:
  const float* row(int64_t i, float* buffer) const {
    if (m_.floats()) return m_.floats() + i * m_.cols();
    m_.read_rows(buffer, i, 1);
    return buffer;
  }
  const NpyMatrix& m_;
  std::vector<double> scale_;
};

// Over the users that have a value; the others are NaN.
struct Mean {
  double sum = 0;
  int64_t users = 0;
  void add(double x) {
    if (!std::isnan(x)) sum += x, ++users;
  }
};

double gini(std::vector<int64_t> counts) {
  std::sort(counts.begin(), counts.end());
  const auto n = int64_t(counts.size());
  double weighted = 0, total = 0;
  for (int64_t i = 0; i < n; ++i) {
    weighted += double(2 * (i + 1) - n - 1) * double(counts[size_t(i)]);
    total += double(counts[size_t(i)]);
  }
  return weighted / (double(n) * total);
}

// The figures of lists that come in batches of users.
class ListSums {
 public:
  ListSums(const Dataset& data, const HeldOut& test, const std::vector<Feature>& features, const std::vector<int>& ks,
           int threads)
      : test_(test),
        ks_(ks),
        threads_(threads),
        items_(data.train, data.n_items),
        place_(size_t(data.n_users), kNotInTest) {
    for (const Feature& f : features) names_.push_back(f.name), unit_.emplace_back(f.matrix, threads);
    for (size_t j = 0; j < test.users.size(); ++j) place_[size_t(test.users[j])] = int32_t(j);
    means_.resize(ks_.size() * terms());
    counts_.assign(ks_.size(), std::vector<int64_t>(size_t(data.n_items)));
    tail_.resize(ks_.size()), places_.resize(ks_.size());
  }

  void add(const int32_t* users, int64_t n, const int32_t* top, int64_t width) {
    std::vector<int64_t> of_test;  // those of the batch
    for (int64_t j = 0; j < n; ++j)
      if (place_[size_t(users[j])] != kNotInTest) of_test.push_back(j);
    const size_t size = means_.size();
    std::vector<double> value(of_test.size() * size);
#pragma omp parallel num_threads(threads_)
    {
      Buffers buffers(unit_);
#pragma omp for schedule(dynamic, 16)
      for (size_t at = 0; at < of_test.size(); ++at)
        of_user(value.data() + at * size, top + of_test[at] * width, width, place_[size_t(users[of_test[at]])],
                buffers);
    }
    for (size_t at = 0; at < of_test.size(); ++at) {  // in the order of users: the bits of any number of threads
      for (size_t q = 0; q < size; ++q) means_[q].add(value[at * size + q]);
      count(top + of_test[at] * width, width);
    }
  }

  // after the last batch
  void finish(ListFigures& f) {
    if (test_.users.empty()) return;
    std::vector<int64_t> counts(items_.rows.size());
    int64_t tail = 0, places = 0;
    for (size_t b = 0; b < ks_.size(); ++b) {
      const auto key = [&](const std::string& name) { return fmt::format("{}@{}", name, ks_[b]); };
      const auto keep = [&](const std::string& name, size_t term) {
        const Mean& m = means_[b * terms() + term];
        if (m.users) f.lists[key(name)] = m.sum / double(m.users);
      };
      for (size_t i = 0; i < counts.size(); ++i) counts[i] += counts_[b][i];
      tail += tail_[b], places += places_[b];
      const auto reached = std::count_if(counts.begin(), counts.end(), [](int64_t c) { return c > 0; });
      f.lists[key("coverage")] = double(reached) / double(counts.size());
      if (places) f.lists[key("gini")] = gini(counts), f.lists[key("tail")] = double(tail) / double(places);
      keep("arp", 0), keep("novelty", 1);
      for (size_t m = 0; m < unit_.size(); ++m) keep("ild_" + names_[m], 2 + m);
    }
    popularity_groups(f.popularity);
  }

 private:
  // Values of a user at one k: mean training rows, mean surprise, distance in each modality, Recall in each item group.
  size_t terms() const { return 2 + unit_.size() + kItemGroups; }

  struct Buffers {  // of a thread
    explicit Buffers(const std::vector<UnitRows>& unit) {
      int64_t widest = 0;
      for (const UnitRows& u : unit) sums.emplace_back(size_t(u.width())), widest = std::max(widest, u.width());
      row.resize(size_t(widest));
    }
    std::vector<std::vector<double>> sums;
    std::vector<float> row;
  };

  void of_user(double* value, const int32_t* list, int64_t width, int32_t at, Buffers& buffers) const {
    const int32_t* const held = test_.items.data() + test_.ptr[size_t(at)];
    const int64_t c = test_.ptr[size_t(at) + 1] - test_.ptr[size_t(at)];
    int64_t held_of[kItemGroups] = {}, hits_of[kItemGroups] = {};
    for (int64_t h = 0; h < c; ++h) ++held_of[int(items_.group[size_t(held[h])])];
    for (std::vector<double>& sum : buffers.sums) std::fill(sum.begin(), sum.end(), 0.0);
    std::vector<int64_t> with_row(unit_.size());
    double rows = 0, surprise = 0;
    int64_t n = 0;
    for (const int k : ks_) {
      for (; n < std::min<int64_t>(k, width) && list[n] >= 0; ++n) {
        const auto item = size_t(list[n]);
        rows += double(items_.rows[item]), surprise += items_.surprise[item];
        if (std::find(held, held + c, list[n]) != held + c) ++hits_of[int(items_.group[item])];
        for (size_t m = 0; m < unit_.size(); ++m)
          with_row[m] += unit_[m].add(buffers.sums[m].data(), list[n], buffers.row.data());
      }
      *value++ = n ? rows / double(n) : NAN, *value++ = n ? surprise / double(n) : NAN;
      for (size_t m = 0; m < unit_.size(); ++m) *value++ = distance(buffers.sums[m], double(with_row[m]));
      for (int g = 0; g < kItemGroups; ++g) *value++ = held_of[g] ? double(hits_of[g]) / double(held_of[g]) : NAN;
    }
  }

  // Mean distance of n unit rows of that sum. Rounding alone can make it negative.
  static double distance(const std::vector<double>& sum, double n) {
    if (n < 2) return NAN;
    double square = 0;
    for (const double x : sum) square += x * x;
    return std::max(0.0, 1 - (square - n) / (n * (n - 1)));
  }

  void count(const int32_t* list, int64_t width) {  // each place at the first k that reaches it
    int64_t n = 0;
    for (size_t b = 0; b < ks_.size(); ++b)
      for (; n < std::min<int64_t>(ks_[b], width) && list[n] >= 0; ++n) {
        ++counts_[b][size_t(list[n])], ++places_[b];
        tail_[b] += items_.tail[size_t(list[n])];
      }
  }

  void popularity_groups(std::vector<ListGroup>& groups) const {
    groups.resize(kItemGroups);
    for (size_t i = 0; i < items_.rows.size(); ++i) {
      ListGroup& g = groups[size_t(items_.group[i])];
      g.fewest = g.items ? std::min(g.fewest, items_.rows[i]) : items_.rows[i];
      g.most = std::max(g.most, items_.rows[i]);
      ++g.items;
    }
    for (const int32_t item : test_.items) ++groups[size_t(items_.group[size_t(item)])].rows;
    for (size_t g = 0; g < groups.size(); ++g)
      for (size_t b = 0; b < ks_.size(); ++b) {
        const Mean& m = means_[b * terms() + 2 + unit_.size() + g];
        groups[g].users = m.users;  // those with held-out items of the group, at every k
        if (m.users) groups[g].metrics[fmt::format("recall@{}", ks_[b])] = m.sum / double(m.users);
      }
  }

  const HeldOut& test_;
  const std::vector<int>& ks_;  // ascending
  int threads_;
  Popularity items_;
  std::vector<int32_t> place_;  // of a user in test, -1 = none
  std::vector<std::string> names_;
  std::vector<UnitRows> unit_;
  std::vector<Mean> means_;                   // (ks, terms)
  std::vector<std::vector<int64_t>> counts_;  // (ks, I): how often at the places from the k before on
  std::vector<int64_t> tail_, places_;        // likewise
};

std::vector<int64_t> rows_of_users(const Dataset& data) {
  std::vector<int64_t> rows(size_t(data.n_users));
  for (const Pair& p : data.train) ++rows[size_t(p.user)];
  return rows;
}

// values: (users of test, ks, kMetrics)
std::vector<ListGroup> activity_groups(const HeldOut& test, const std::vector<int64_t>& rows,
                                       const std::vector<double>& values, const std::vector<int>& ks) {
  std::vector<size_t> order(test.users.size());
  std::iota(order.begin(), order.end(), size_t(0));
  const auto rows_at = [&](size_t j) { return rows[size_t(test.users[j])]; };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows_at(a) < rows_at(b); });
  std::vector<ListGroup> groups(kUserGroups);
  const size_t n = order.size(), stems = 2;  // Recall and NDCG, the first two
  std::vector<double> sums(groups.size() * ks.size() * stems);
  for (size_t at = 0, first = 0; at < n; ++at) {
    const size_t j = order[at];
    if (rows_at(j) != rows_at(order[first])) first = at;  // of those with as many rows
    const size_t g = kUserGroups * first / n;
    if (groups[g].users++ == 0) groups[g].fewest = rows_at(j);
    groups[g].most = rows_at(j);
    for (size_t b = 0; b < ks.size(); ++b)
      for (size_t q = 0; q < stems; ++q)
        sums[(g * ks.size() + b) * stems + q] += values[(j * ks.size() + b) * kMetricStems + q];
  }
  for (size_t g = 0; g < groups.size(); ++g)
    for (size_t b = 0; groups[g].users && b < ks.size(); ++b)
      for (size_t q = 0; q < stems; ++q)
        groups[g].metrics[fmt::format("{}@{}", kMetrics[q].key, ks[b])] =
            sums[(g * ks.size() + b) * stems + q] / double(groups[g].users);
  return groups;
}

void add_user_values(ListFigures& f, const HeldOut& held, const std::vector<int64_t>& rows,
                     const std::vector<double>& values) {
  const size_t size = f.columns.size() - 2;
  for (size_t j = 0; j < held.users.size(); ++j) {
    f.values.push_back(float(held.users[j])), f.values.push_back(float(rows[size_t(held.users[j])]));
    for (size_t q = 0; q < size; ++q) f.values.push_back(float(values[j * size + q]));
  }
}

}  // namespace

ListFigures list_figures(Device& device, CMat hu_host, CMat hi_host, const Dataset& data,
                         const std::vector<Feature>& features, const std::vector<int>& ks, bool mask_valid) {
  const auto uploaded = [&](CMat host) {
    Matrix m(device, host.rows, host.cols);
    m.array().upload(host.p, host.size());
    return m;
  };
  const Matrix hu = uploaded(hu_host), hi = uploaded(hi_host);
  const HeldOut valid = held_out(data.valid), test = held_out(data.test);
  ListSums sums(data, test, features, ks, device.ctx.threads);
  PerUser shown;
  const auto ranked = [&](const std::vector<Pair>& masked, const HeldOut& v, const HeldOut& t) {
    const OwnedCsr mask(device, pairs_by_user(masked, data.n_users, data.n_items));
    const Range range(device, RangeId::evaluation);
    return Evaluation(device.ctx, device.ops, data.n_users, data.n_items, v, t, ks).run(hu, hi, mask.view(), &shown);
  };
  const auto add = [&](const int32_t* users, int64_t n, const int32_t* top, int64_t width) {
    sums.add(users, n, top, width);
  };
  ListFigures f;
  std::vector<double> of_valid;
  if (mask_valid) {
    f.result = ranked(data.train, valid, HeldOut{});
    of_valid = std::move(shown.valid);
    std::vector<Pair> both = data.train;
    both.insert(both.end(), data.valid.begin(), data.valid.end());
    shown.lists = add;
    f.result.test = ranked(both, HeldOut{}, test).test;
  } else {
    shown.lists = add;
    f.result = ranked(data.train, valid, test);
    of_valid = std::move(shown.valid);
  }
  sums.finish(f);
  const std::vector<int64_t> rows = rows_of_users(data);
  if (!test.users.empty()) f.activity = activity_groups(test, rows, shown.test, ks);
  if (data.n_users > kMostNamedUsers) return f;
  f.columns = {"user", "train_rows"};
  for (const int k : ks)
    for (const MetricName& m : kMetrics) f.columns.push_back(fmt::format("{}@{}", m.key, k));
  f.valid = int64_t(valid.users.size()), f.test = int64_t(test.users.size());
  f.values.reserve(size_t(f.valid + f.test) * f.columns.size());
  add_user_values(f, valid, rows, of_valid), add_user_values(f, test, rows, shown.test);
  return f;
}

int64_t list_figure_bytes(int64_t n_items, int64_t evaluated, int64_t ranked, int64_t modalities, int64_t n_ks) {
  const int64_t metrics = n_ks * int64_t(kMetricStems), terms = n_ks * (2 + modalities + kItemGroups);
  const int64_t of_user = metrics * 8 + (2 + metrics) * 4;          // of one split: as computed, as kept
  const int64_t of_item = 8 + 2 + 8 + 8 * (modalities + n_ks + 1);  // Popularity, scales, counts
  return 2 * evaluated * of_user + n_items * of_item + ranked * (terms + 1) * 8;
}

}  // namespace ccdrec
