// Ranking metrics (spec baselines 2.7): per user, averaged with equal weight.
//   Recall@k = hits/c ;  Precision@k = hits/k ;  NDCG@k = sum hit_j/log2(j+1) / sum_{j<=min(k,c)} 1/log2(j+1) ;  MAP@k = sum hit_j Precision@j /
//   min(k,c)
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "kernels/ops.h"

namespace ccdrec {

using Metrics = std::map<std::string, double>;  // "recall@20" -> unrounded mean; keys recall@k, ndcg@k, precision@k, map@k

// The held-out rows of one split: users in order of first appearance, items of users[j] = items[ptr[j]] .. items[ptr[j+1]-1] (duplicates count once).
struct HeldOut {
  std::vector<int32_t> users;
  std::vector<int64_t> ptr{0};
  std::vector<int32_t> items;
};
HeldOut held_out(const std::vector<Pair>&);

// top: (users.size(), width) ranked item ids, -1 = none. Adds up in the order of users; width >= max k.
Metrics ranking_metrics(const HeldOut&, const int32_t* top, int64_t width, const std::vector<int>& ks);
double round4(double);                            // what early stopping compares
std::string metric_key(const std::string& name);  // "Recall@20" -> "recall@20"; UserError for an unknown metric

// Full ranking of both splits in one pass: every user of either split is scored once (the mask, training items, is the same), in batches of users.
struct EvalResult {
  Metrics valid, test;
  double seconds = 0;
};
int64_t users_at_once(DeviceKind);  // a batch at most; a GPU starts its lists anew in every call
EvalResult evaluate(Ctx&, const Ops&, CMat hu, CMat hi, const Csr& train_mask_device, const HeldOut& valid, const HeldOut& test,
                    const std::vector<int>& ks);

}  // namespace ccdrec
