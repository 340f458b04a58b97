#include "host/training/metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>

#include "data/error.h"
#include "host/base/metric_name.h"

namespace ccdrec {

HeldOut held_out(const std::vector<Pair>& pairs) {
  std::unordered_map<int32_t, size_t> place;
  std::vector<std::vector<int32_t>> of;
  HeldOut h;
  for (const Pair& p : pairs) {
    const auto [it, fresh] = place.try_emplace(p.user, h.users.size());
    if (fresh) h.users.push_back(p.user), of.emplace_back();
    std::vector<int32_t>& items = of[it->second];
    if (std::find(items.begin(), items.end(), p.item) == items.end()) items.push_back(p.item);
  }
  for (const std::vector<int32_t>& items : of) {
    h.items.insert(h.items.end(), items.begin(), items.end());
    h.ptr.push_back(int64_t(h.items.size()));
  }
  return h;
}

double round4(double x) { return std::round(x * 1e4) / 1e4; }

Selects selects(const std::string& key, const HeldOut& held, const HostCsr& train) {
  const bool by_order = key.starts_with("ndcg") || key.starts_with("map") || key.starts_with("mrr");
  const bool any_hit = key.starts_with("hit");
  const int64_t k = metric_cutoff(key);
  Selects s;
  for (size_t j = 0; j < held.users.size(); ++j) {
    const auto u = size_t(held.users[j]);
    const auto first = train.col.begin() + train.row_ptr[u], last = train.col.begin() + train.row_ptr[u + 1];
    const int64_t n = train.cols - (last - first);
    const int64_t h = std::count_if(held.items.begin() + held.ptr[j], held.items.begin() + held.ptr[j + 1],
                                    [&](int32_t item) { return !std::binary_search(first, last, item); });
    if (h == 0 || h == n) {
      ++s.fixed_users;
      continue;
    }
    const int64_t fixed_from = any_hit ? n - h + 1 : n;
    s.fewest_places = s.fewest_places ? std::min(s.fewest_places, fixed_from) : fixed_from;
    if (by_order || k < fixed_from) continue;
    ++s.fixed_users, ++s.short_users;
    s.most_places = std::max(s.most_places, fixed_from);
  }
  return s;
}

std::vector<int> cutoffs(const std::vector<int>& topk, const std::string& valid_metric) {
  std::vector<int> ks = topk;
  ks.push_back(metric_cutoff(metric_key(valid_metric)));
  std::sort(ks.begin(), ks.end());
  ks.erase(std::unique(ks.begin(), ks.end()), ks.end());
  return ks;
}
int64_t list_width(const std::vector<int>& ks, int64_t n_items) {
  const int64_t widest = ks.empty() ? 1 : *std::max_element(ks.begin(), ks.end());
  return std::max<int64_t>(1, std::min(widest, n_items));
}
std::string longer_than_items(const std::vector<int>& ks, int64_t n_items) {
  std::vector<int> longer;
  for (const int k : ks)
    if (k > n_items) longer.push_back(k);
  if (longer.empty()) return "";
  return fmt::format("topk {}: there are {} items, and a longer list holds all of them; Precision@k still divides by k",
                     fmt::join(longer, ", "), n_items);
}

namespace {

// The metrics of one user at a time, a value for each (k, stem), and their sums over users.
class Sums {
 public:
  explicit Sums(const std::vector<int>& cutoffs) : ks_(cutoffs), sum_(size()) {}
  size_t size() const { return ks_.size() * kMetricStems; }
  // top: `width` ranked items of one user; held: the user's c held-out items. Writes size() values.
  void of_user(double* value, const int32_t* top, int64_t width, const int32_t* held, int64_t c) {
    hit_.assign(size_t(width), 0);
    for (int64_t j = 0; j < width; ++j) hit_[size_t(j)] = top[j] >= 0 && std::find(held, held + c, top[j]) != held + c;
    for (const int k : ks_) {
      const int64_t ranks = std::min<int64_t>(width, k), least = std::min<int64_t>(k, c);
      reach(std::max(ranks, least));
      double hits = 0, dcg = 0, ap = 0, first = 0;
      for (int64_t j = 0; j < ranks; ++j) {
        if (!hit_[size_t(j)]) continue;
        if (hits == 0) first = 1.0 / double(j + 1);
        hits += 1;
        dcg += gain_[size_t(j)];
        ap += hits / double(j + 1);
      }
      *value++ = hits / double(c), *value++ = dcg / ideal_[size_t(least)], *value++ = hits / double(k),
      *value++ = ap / double(least), *value++ = first, *value++ = hits > 0 ? 1.0 : 0.0;
    }
  }
  void add(const double* value) {
    ++users_;
    for (size_t q = 0; q < size(); ++q) sum_[q] += value[q];
  }
  Metrics mean() const {
    Metrics m;
    for (size_t q = 0; users_ && q < size(); ++q)
      m[fmt::format("{}@{}", kMetrics[q % kMetricStems].key, ks_[q / kMetricStems])] = sum_[q] / double(users_);
    return m;
  }

 private:
  void reach(int64_t ranks) {  // gains of so many: as many as lists have, not as a k asks for
    for (int64_t j = int64_t(gain_.size()) + 1; j <= ranks; ++j)
      gain_.push_back(1.0 / std::log2(double(j) + 1.0)), ideal_.push_back(ideal_.back() + gain_.back());
  }
  std::vector<int> ks_;
  std::vector<double> sum_, gain_, ideal_ = {0.0};
  std::vector<char> hit_;
  int64_t users_ = 0;
};

}  // namespace

Metrics ranking_metrics(const HeldOut& held, const int32_t* top, int64_t width, const std::vector<int>& ks) {
  Sums sums(ks);
  std::vector<double> value(sums.size());
  for (size_t j = 0; j < held.users.size(); ++j) {
    sums.of_user(value.data(), top + int64_t(j) * width, width, held.items.data() + held.ptr[j],
                 held.ptr[j + 1] - held.ptr[j]);
    sums.add(value.data());
  }
  return sums.mean();
}

int64_t users_at_once(DeviceKind device, int64_t width) {
  constexpr int64_t kEntries = int64_t(1) << 25;  // of all lists: 256 MB with the scores
  return std::clamp<int64_t>(kEntries / std::max<int64_t>(width, 1), 64, device == DeviceKind::cuda ? 65536 : 4096);
}

namespace {

constexpr int32_t kNone = -1;

std::vector<int32_t> places(const HeldOut& held, int64_t n_users) {
  std::vector<int32_t> place(size_t(n_users), kNone);
  for (size_t j = 0; j < held.users.size(); ++j) place[size_t(held.users[j])] = int32_t(j);
  return place;
}
// Those of validation first, then the others of test.
std::vector<int32_t> either(const HeldOut& valid, const HeldOut& test, const std::vector<int32_t>& place_valid) {
  std::vector<int32_t> users = valid.users;
  for (const int32_t u : test.users)
    if (place_valid[size_t(u)] == kNone) users.push_back(u);
  return users;
}

}  // namespace

Evaluation::Evaluation(Ctx& ctx, const Ops& ops, int64_t n_users, int64_t n_items, const HeldOut& valid,
                       const HeldOut& test, const std::vector<int>& ks, int64_t at_once)
    : ctx_(ctx),
      ops_(ops),
      valid_(valid),
      test_(test),
      ks_(ks),
      place_valid_(places(valid, n_users)),
      place_test_(places(test, n_users)),
      users_(either(valid, test, place_valid_)),
      width_(list_width(ks, n_items)),
      block_(std::min(at_once ? at_once : users_at_once(ctx.device, width_), int64_t(users_.size()))),
      d_users_(ctx, ops, users_.size() * 4),
      d_top_(ctx, ops, size_t(block_ * width_) * 4),
      d_score_(ctx, ops, size_t(block_ * width_) * 4) {
  ops_.upload(ctx_, d_users_.p, users_.data(), users_.size() * 4);
}

EvalResult Evaluation::run(CMat hu, CMat hi, const Csr& mask, PerUser* shown) const {
  const auto start = std::chrono::steady_clock::now();
  std::vector<int32_t> top(size_t(block_ * width_));
  // Metrics add up in the order of each split's own users, so batch sizes change no bit: a test user's wait for their
  // turn.
  Sums sum_valid(ks_), sum_test(ks_);
  std::vector<double> value(sum_valid.size()), of_test(test_.users.size() * sum_test.size());
  if (shown) shown->valid.resize(valid_.users.size() * sum_valid.size());
  for (int64_t first = 0; first < int64_t(users_.size()); first += block_) {
    const int64_t n = std::min<int64_t>(block_, int64_t(users_.size()) - first);
    ops_.score_topk(ctx_, static_cast<int32_t*>(d_top_.p), static_cast<float*>(d_score_.p), hu,
                    static_cast<const int32_t*>(d_users_.p) + first, n, hi, &mask, width_);
    ops_.download(ctx_, top.data(), d_top_.p, size_t(n * width_) * 4);
    for (int64_t j = 0; j < n; ++j) {
      const auto u = size_t(users_[size_t(first + j)]);
      const int32_t* list = top.data() + j * width_;
      const auto of = [&](Sums& sums, double* to, const HeldOut& held, int32_t at) {
        sums.of_user(to, list, width_, held.items.data() + held.ptr[size_t(at)],
                     held.ptr[size_t(at) + 1] - held.ptr[size_t(at)]);
      };
      if (const int32_t v = place_valid_[u]; v != kNone) {
        double* const to = shown ? shown->valid.data() + size_t(v) * sum_valid.size() : value.data();
        of(sum_valid, to, valid_, v), sum_valid.add(to);
      }
      if (const int32_t t = place_test_[u]; t != kNone)
        of(sum_test, of_test.data() + size_t(t) * sum_test.size(), test_, t);
    }
    if (shown && shown->lists) shown->lists(users_.data() + first, n, top.data(), width_);
  }
  for (size_t j = 0; j < test_.users.size(); ++j) sum_test.add(of_test.data() + j * sum_test.size());
  if (shown) shown->test = std::move(of_test);
  return {sum_valid.mean(), sum_test.mean(),
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
}

EvalResult evaluate(Ctx& ctx, const Ops& ops, CMat hu, CMat hi, const Csr& mask, const HeldOut& valid,
                    const HeldOut& test, const std::vector<int>& ks) {
  return Evaluation(ctx, ops, hu.rows, hi.rows, valid, test, ks).run(hu, hi, mask);
}

}  // namespace ccdrec
