#include "host/metrics.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>

#include "data/error.h"

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

std::string metric_key(const std::string& name) {
  std::string key;
  for (const char c : name) key += char(std::tolower(static_cast<unsigned char>(c)));
  const size_t at = key.find('@');
  const std::string stem = key.substr(0, at);
  const bool known = stem == "recall" || stem == "ndcg" || stem == "precision" || stem == "map";
  if (!known || at == std::string::npos || at + 1 == key.size() || key.size() > at + 6 ||
      key.find_first_not_of("0123456789", at + 1) != std::string::npos)
    throw UserError("metric '" + name + "' is not known; expected Recall@k, NDCG@k, Precision@k or MAP@k, e.g. Recall@20");
  return key;
}

namespace {

// Sums of the metrics over users, one slot per (k, metric).
struct Sums {
  explicit Sums(const std::vector<int>& cutoffs) : ks(cutoffs), sum(cutoffs.size() * 4) {
    const int widest = cutoffs.empty() ? 0 : *std::max_element(cutoffs.begin(), cutoffs.end());
    ideal.push_back(0.0);
    for (int j = 1; j <= widest; ++j) gain.push_back(1.0 / std::log2(double(j) + 1.0)), ideal.push_back(ideal.back() + gain.back());
  }
  // top: `width` ranked items of one user; held: the user's c held-out items.
  void add(const int32_t* top, int64_t width, const int32_t* held, int64_t c) {
    ++users;
    hit.assign(gain.size(), 0);
    for (int64_t j = 0; j < std::min<int64_t>(width, int64_t(gain.size())); ++j)
      hit[size_t(j)] = top[j] >= 0 && std::find(held, held + c, top[j]) != held + c;
    for (size_t q = 0; q < ks.size(); ++q) {
      double hits = 0, dcg = 0, ap = 0;
      for (int j = 0; j < ks[q]; ++j) {
        if (!hit[size_t(j)]) continue;
        hits += 1;
        dcg += gain[size_t(j)];
        ap += hits / double(j + 1);
      }
      const auto least = double(std::min<int64_t>(ks[q], c));
      sum[q * 4] += hits / double(c);
      sum[q * 4 + 1] += dcg / ideal[size_t(least)];
      sum[q * 4 + 2] += hits / double(ks[q]);
      sum[q * 4 + 3] += ap / least;
    }
  }
  Metrics mean() const {
    static const char* const stems[] = {"recall@", "ndcg@", "precision@", "map@"};
    Metrics m;
    for (size_t q = 0; q < ks.size(); ++q)
      for (size_t s = 0; s < 4; ++s) m[stems[s] + std::to_string(ks[q])] = users ? sum[q * 4 + s] / double(users) : 0.0;
    return m;
  }
  std::vector<int> ks;
  std::vector<double> sum, gain, ideal;
  std::vector<char> hit;
  int64_t users = 0;
};

}  // namespace

Metrics ranking_metrics(const HeldOut& held, const int32_t* top, int64_t width, const std::vector<int>& ks) {
  Sums sums(ks);
  for (size_t j = 0; j < held.users.size(); ++j)
    sums.add(top + int64_t(j) * width, width, held.items.data() + held.ptr[j], held.ptr[j + 1] - held.ptr[j]);
  return sums.mean();
}

int64_t users_at_once(DeviceKind device) { return device == DeviceKind::cuda ? 65536 : 4096; }

EvalResult evaluate(Ctx& ctx, const Ops& ops, CMat hu, CMat hi, const Csr& mask, const HeldOut& valid, const HeldOut& test,
                    const std::vector<int>& ks) {
  const auto start = std::chrono::steady_clock::now();
  // Users of either split, each scored once: those of validation first, then the others of test.
  constexpr int32_t none = -1;
  std::vector<int32_t> place_valid(size_t(hu.rows), none), place_test(size_t(hu.rows), none), users;
  for (size_t j = 0; j < valid.users.size(); ++j) place_valid[size_t(valid.users[j])] = int32_t(j), users.push_back(valid.users[j]);
  for (size_t j = 0; j < test.users.size(); ++j) {
    place_test[size_t(test.users[j])] = int32_t(j);
    if (place_valid[size_t(test.users[j])] == none) users.push_back(test.users[j]);
  }
  const int64_t width = ks.empty() ? 1 : *std::max_element(ks.begin(), ks.end());
  const int64_t block = std::min<int64_t>(users_at_once(ctx.device), int64_t(users.size()));
  const DeviceBlock d_users(ctx, ops, size_t(block) * 4), d_top(ctx, ops, size_t(block * width) * 4), d_score(ctx, ops, size_t(block * width) * 4);
  std::vector<int32_t> top(size_t(block * width));
  // Metrics add up in the order of each split's own users, so batch sizes change no bit: keep the lists of test, a few MB.
  Sums sum_valid(ks), sum_test(ks);
  std::vector<int32_t> test_top(test.users.size() * size_t(width), none);
  for (size_t first = 0; first < users.size(); first += size_t(block)) {
    const int64_t n = std::min<int64_t>(block, int64_t(users.size() - first));
    ops.upload(ctx, d_users.p, users.data() + first, size_t(n) * 4);
    ops.score_topk(ctx, static_cast<int32_t*>(d_top.p), static_cast<float*>(d_score.p), hu, static_cast<int32_t*>(d_users.p), n, hi, &mask, width);
    ops.download(ctx, top.data(), d_top.p, size_t(n * width) * 4);
    for (int64_t j = 0; j < n; ++j) {
      const auto u = size_t(users[first + size_t(j)]);
      const int32_t* list = top.data() + j * width;
      if (const int32_t v = place_valid[u]; v != none)
        sum_valid.add(list, width, valid.items.data() + valid.ptr[size_t(v)], valid.ptr[size_t(v) + 1] - valid.ptr[size_t(v)]);
      if (const int32_t t = place_test[u]; t != none) std::copy_n(list, width, test_top.data() + int64_t(t) * width);
    }
  }
  for (size_t j = 0; j < test.users.size(); ++j)
    sum_test.add(test_top.data() + int64_t(j) * width, width, test.items.data() + test.ptr[j], test.ptr[j + 1] - test.ptr[j]);
  return {sum_valid.mean(), sum_test.mean(), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
}

}  // namespace ccdrec
