// Who takes what. Users come in random order; each draws her items without replacement with probability proportional to
//   stock(i) * max over her interests j of exp(strength * cos(interest_j, taste_i)),
// by one exponential race: stock starts at the item's degree and shrinks as it is taken, so degrees come out exactly
// and late users still meet popular items in proportion. U x I weights are not computed: beyond 4,096 items a user
// races her pool, the items of the clusters nearest to her interests with their exact weight, and a sample of all stock
// that stands for the rest (each draw with weight stock total / draws).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/synth_parts.h"

namespace ccdrec::synth {

namespace {

constexpr int64_t kRaceAll = 4096;  // up to so many items everybody races all of them
constexpr int kNearClusters = 16;   // clusters around an interest whose items enter the pool
constexpr int kMaxInterests = 2;
constexpr float kWander = 0.35f;  // of an interest about the item it began with

float dot(const float* a, const float* b, int n) {  // eight sums side by side: one vector, one order on every machine
  float lane[8] = {};
  int k = 0;
  for (; k + 8 <= n; k += 8)
    for (int l = 0; l < 8; ++l) lane[l] += a[k + l] * b[k + l];
  for (int l = 0; k < n; ++k, ++l) lane[l] += a[k] * b[k];
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

struct Candidate {
  float key;
  int32_t item;
};

class Market {
 public:
  Market(const SynthParams& p, const Sphere& taste, const std::vector<int64_t>& item_degree)
      : p_(p), taste_(taste), stock_(item_degree), mark_(size_t(p.items), -1), drawn_(size_t(p.items), 0) {
    start_.assign(size_t(taste.clusters()) + 1, 0);
    for (int32_t c : taste.cluster) ++start_[size_t(c) + 1];
    std::partial_sum(start_.begin(), start_.end(), start_.begin());
    member_.resize(size_t(p.items));
    std::vector<int64_t> at(start_.begin(), start_.end() - 1);
    for (int64_t i = 0; i < p.items; ++i) member_[size_t(at[size_t(taste.cluster[size_t(i)])]++)] = int32_t(i);
    find_near_clusters();
    restock();
  }

  std::vector<int32_t> serve(uint32_t user, int64_t n) {
    draw_interests(user);
    pool_.clear();
    if (p_.items <= kRaceAll) {
      for (int64_t i = 0; i < p_.items; ++i) add(user, int32_t(i), float(stock_[size_t(i)]));
    } else {
      fill_pool(user, n);
    }
    if (int64_t(pool_.size()) < n)
      for (int64_t i = 0; i < p_.items; ++i) add(user, int32_t(i), float(stock_[size_t(i)]));
    race(user);
    const size_t keep = std::min(size_t(n), pool_.size());
    const auto better = [](const Candidate& a, const Candidate& b) {
      return a.key != b.key ? a.key > b.key : a.item < b.item;
    };
    std::partial_sort(pool_.begin(), pool_.begin() + int64_t(keep), pool_.end(), better);
    std::vector<int32_t> items;
    for (size_t c = 0; c < keep; ++c) items.push_back(pool_[c].item);
    for (int32_t i : items) --stock_[size_t(i)];
    total_ -= int64_t(keep);
    // The last customers may find fewer kinds in stock than they want: the rest is oversold, a handful in the whole
    // set.
    for (uint32_t tries = 0; int64_t(items.size()) < n; ++tries) {
      const int32_t i = int32_t(below(bits(p_.seed, Part::background, user, tries, 1).v[0], uint32_t(p_.items)));
      if (std::find(items.begin(), items.end(), i) == items.end()) items.push_back(i);
    }
    return items;
  }

 private:
  void find_near_clusters() {
    const int64_t C = taste_.clusters(), near = std::min<int64_t>(kNearClusters, C);
    near_.resize(size_t(C * near));
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < C; ++c) {
      std::vector<Candidate> all(size_t(C), Candidate{});
      for (int64_t o = 0; o < C; ++o)
        all[size_t(o)] = {
            dot(&taste_.centre[size_t(c * taste_.dims)], &taste_.centre[size_t(o * taste_.dims)], taste_.dims),
            int32_t(o)};
      std::partial_sort(all.begin(), all.begin() + near, all.end(), [](const Candidate& a, const Candidate& b) {
        return a.key != b.key ? a.key > b.key : a.item < b.item;
      });
      for (int64_t k = 0; k < near; ++k) near_[size_t(c * near + k)] = all[size_t(k)].item;
    }
    near_count_ = near;
  }

  // One entry per unit of stock: a uniform entry is an item by popularity. Entries of what was taken since are refused
  // by chance, and the list is written anew when half of it is gone.
  void restock() {
    unit_.clear();
    for (int64_t i = 0; i < p_.items; ++i)
      unit_.insert(unit_.end(), size_t(std::max<int64_t>(0, stock_[size_t(i)])), int32_t(i));
    listed_ = stock_;
    total_ = int64_t(unit_.size());
  }
  int32_t by_stock(uint32_t user, uint32_t& sub, Part part) {
    for (;; ++sub) {
      const Draw4 d = bits(p_.seed, part, user, sub);
      const int32_t i = unit_[below(d.v[0], uint32_t(unit_.size()))];
      if (uniform01(d.v[1]) * float(listed_[size_t(i)]) < float(stock_[size_t(i)])) {
        ++sub;
        return i;
      }
    }
  }

  void draw_interests(uint32_t user) {
    if (total_ > 0 && total_ * 2 < int64_t(unit_.size())) restock();
    const int d = taste_.dims;
    interests_ = 1 + int(below(bits(p_.seed, Part::interest, user, 0, 1).v[0], kMaxInterests));
    interest_.resize(size_t(kMaxInterests * d));
    uint32_t sub = 0;
    for (int j = 0; j < interests_; ++j) {
      const int32_t anchor = by_stock(user, sub, Part::interest);
      float* a = &interest_[size_t(j * d)];
      normals(a, d, p_.seed, Part::interest, user, uint32_t(2 + j));
      const float wander = kWander / std::sqrt(std::max(dot(a, a, d), 1e-20f));
      for (int k = 0; k < d; ++k) a[k] = taste_.at(anchor)[k] + wander * a[k];
      const float scale = 1.0f / std::sqrt(std::max(dot(a, a, d), 1e-20f));
      for (int k = 0; k < d; ++k) a[k] *= scale;
      near_of_[j] = taste_.cluster[size_t(anchor)];
    }
  }

  // Candidate `item` with weight `amount` times taste, unless it is in the pool already or out of stock.
  void add(uint32_t user, int32_t item, float amount) {
    if (mark_[size_t(item)] == int64_t(user) || stock_[size_t(item)] <= 0) return;
    mark_[size_t(item)] = int64_t(user);
    float match = -1;
    for (int j = 0; j < interests_; ++j)
      match = std::max(match, dot(&interest_[size_t(j * taste_.dims)], taste_.at(item), taste_.dims));
    pool_.push_back({std::fma(p_.taste_strength, match, portable_log(amount)), item});
  }

  void fill_pool(uint32_t user, int64_t n) {
    for (int j = 0; j < interests_; ++j)
      for (int64_t k = 0; k < near_count_; ++k) {
        const size_t c = size_t(near_[size_t(near_of_[j] * near_count_ + k)]);
        for (int64_t e = start_[c]; e < start_[c + 1]; ++e)
          add(user, member_[size_t(e)], float(stock_[size_t(member_[size_t(e)])]));
      }
    const int64_t draws = std::max<int64_t>(256, 4 * n);
    sampled_.clear();
    uint32_t sub = 0;
    for (int64_t b = 0; b < draws; ++b) {
      const int32_t i = by_stock(user, sub, Part::background);
      if (mark_[size_t(i)] == int64_t(user)) continue;
      if (drawn_[size_t(i)]++ == 0) sampled_.push_back(i);
    }
    const float each = float(total_) / float(draws);
    for (int32_t i : sampled_) {
      add(user, i, each * float(drawn_[size_t(i)]));
      drawn_[size_t(i)] = 0;
    }
  }

  // weight / Exp(1), in logarithms: the n largest are a draw without replacement.
  void race(uint32_t user) {
    for (size_t c = 0; c < pool_.size(); c += 4) {
      const Draw4 d = bits(p_.seed, Part::race, user, uint32_t(c / 4));
      for (size_t l = 0; l < 4 && c + l < pool_.size(); ++l) {
        const float wait = std::max(-portable_log(1.0f - uniform01(d.v[l])), 0x1p-26f);
        pool_[c + l].key -= portable_log(wait);
      }
    }
  }

  const SynthParams& p_;
  const Sphere& taste_;
  std::vector<int64_t> stock_, listed_;
  int64_t total_ = 0;                   // stock left
  std::vector<int32_t> unit_;           // item of each unit of stock at the last restock
  std::vector<int64_t> start_;          // items by cluster: member_[start_[c]] ...
  std::vector<int32_t> member_, near_;  // near_ (C, near_count_): nearest clusters, itself first
  int64_t near_count_ = 0;
  int interests_ = 0;
  std::vector<float> interest_;  // (kMaxInterests, dims)
  int64_t near_of_[kMaxInterests] = {};
  std::vector<int64_t> mark_;  // last user whose pool holds the item
  std::vector<int32_t> drawn_, sampled_;
  std::vector<Candidate> pool_;
};

// A random order of 0 .. n-1: sorted by one draw each.
template <class T>
void shuffle(std::vector<T>& v, uint32_t seed, Part part, uint32_t row) {
  for (size_t i = v.size(); i > 1; --i)
    std::swap(v[i - 1], v[below(bits(seed, part, row, uint32_t(i)).v[0], uint32_t(i))]);
}

}  // namespace

std::vector<std::vector<int32_t>> choose(const SynthParams& p, const Sphere& taste,
                                         const std::vector<int64_t>& user_degree,
                                         const std::vector<int64_t>& item_degree, const Stop& stop) {
  std::vector<int32_t> order(size_t(p.users), 0);
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, p.seed, Part::user_order, 0);
  Market market(p, taste, item_degree);
  std::vector<std::vector<int32_t>> chosen(static_cast<size_t>(p.users));
  for (int32_t u : order) {
    stop_if(stop);
    std::vector<int32_t>& items = chosen[size_t(u)];
    items = market.serve(uint32_t(u), user_degree[size_t(u)]);
    shuffle(items, p.seed, Part::split, uint32_t(u));  // the race sorted them by liking: the split must not see that
  }
  return chosen;
}

}  // namespace ccdrec::synth
