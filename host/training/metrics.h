// Ranking metrics (spec baselines 2.7): per user, averaged with equal weight.
//   Recall@k     hits/c
//   Precision@k  hits/k
//   NDCG@k       sum hit_j/log2(j+1) / sum_{j<=min(k,c)} 1/log2(j+1)
//   MAP@k        sum hit_j Precision@j / min(k,c)
//   MRR@k        1/j of the first hit, 0 without one
//   Hit@k        1 with a hit, 0 without one
#pragma once
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/graph.h"
#include "host/base/metric_name.h"
#include "kernels/ops.h"

namespace ccdrec {

// "recall@20" -> unrounded mean; a key for each of kMetrics and each k. Empty: the split has no rows, so there is no
// mean.
using Metrics = std::map<std::string, double>;

// The held-out rows of one split: users in order of first appearance, items of users[j] = items[ptr[j]] ..
// items[ptr[j+1]-1] (duplicates count once).
struct HeldOut {
  std::vector<int32_t> users;
  std::vector<int64_t> ptr{0};
  std::vector<int32_t> items;
};
HeldOut held_out(const std::vector<Pair>&);

// What lists are cut at: topk and the k of the metric that stops a run, ascending. A list is as long as the largest,
// and never longer than the items.
std::vector<int> cutoffs(const std::vector<int>& topk, const std::string& valid_metric);
int64_t list_width(const std::vector<int>& ks, int64_t n_items);
std::string longer_than_items(const std::vector<int>& ks, int64_t n_items);  // a sentence on those that are; else empty

// top: (users.size(), width) ranked item ids, -1 = none; ranks beyond the width hold nothing. Adds up in the order of
// users.
Metrics ranking_metrics(const HeldOut&, const int32_t* top, int64_t width, const std::vector<int>& ks);
constexpr size_t kMetricStems = std::size(kMetrics);
double round4(double);  // what early stopping compares

// Can a metric of held-out rows tell models apart? A user's candidates are the n items that `train` does not mask, h of
// them held out.
//   any metric              h = 0 or h = n: whatever the order, the value is the same
//   Recall@k, Precision@k   k >= n too: the list takes all candidates, and only the order within it is free, which
//                           these two do not see
//   Hit@k                   k >= n - h + 1 too: whatever the list leaves out, it holds one of the h
struct Selects {
  int64_t fixed_users = 0;    // those whose value is the same for every model
  int64_t short_users = 0;    // those of them to whom a smaller k would give a say
  int64_t most_places = 0;    // from which on that is so, the most of the short users
  int64_t fewest_places = 0;  // likewise, the fewest of all that can have a say, at a k below it; 0: none can
};
Selects selects(const std::string& key, const HeldOut&, const HostCsr& train);

struct EvalResult {
  Metrics valid, test;
  double seconds = 0;
};
// A batch at most: a GPU starts its lists anew in every call, and lists of so many items must find room.
int64_t users_at_once(DeviceKind, int64_t width);

// What a run shows on its way to whoever looks at single users and their lists.
struct PerUser {
  // of the users of each split: values (users, ks, kMetrics)
  std::vector<double> valid, test;
  // a batch: n users, of each the items of its list, -1 where it has no more
  std::function<void(const int32_t* users, int64_t n, const int32_t* top, int64_t width)> lists;
};

// Full ranking of both splits in one pass: every user of either split is scored once (the mask, training items, is the
// same), in batches of users. What it needs of the device it takes when it is made; a run takes nothing and waits once
// for each batch, for its lists.
class Evaluation {
 public:
  Evaluation(Ctx&, const Ops&, int64_t n_users, int64_t n_items, const HeldOut& valid, const HeldOut& test,
             const std::vector<int>& ks,
             int64_t at_once = 0);  // users of a batch; 0: users_at_once
  EvalResult run(CMat hu, CMat hi, const Csr& train_mask_device, PerUser* shown = nullptr) const;

 private:
  Ctx& ctx_;
  const Ops& ops_;
  HeldOut valid_, test_;
  std::vector<int> ks_;
  std::vector<int32_t> place_valid_, place_test_, users_;  // places in each split, -1 = none; those scored
  int64_t width_, block_;
  DeviceBlock d_users_, d_top_, d_score_;
};
EvalResult evaluate(Ctx&, const Ops&, CMat hu, CMat hi, const Csr& train_mask_device, const HeldOut& valid,
                    const HeldOut& test,
                    const std::vector<int>& ks);  // one run

}  // namespace ccdrec
