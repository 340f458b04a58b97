// What the lists of a model are like beside being right: how many items they reach, how popular, how new and how alike
// those are, and for whom the hits come. All of the test users' lists, the items of training masked, cut at each k.
//
// n_i training rows of item i, R = sum n_i; a list is L items, fewer than k only where a user has no more candidates.
//   coverage@k   items in at least one list / I
//   gini@k       of the counts c_(1) <= .. <= c_(I) of items in lists: sum (2i - I - 1) c_(i) / (I sum c); 0 even,
//                1 - 1/I one item alone
//   arp@k        mean over users of the mean n_i of their list
//   tail@k       places that hold an item of the long tail / all places. Tail: outside the fewest most popular items
//                (ties by number) that hold 80 % of the training rows
//   novelty@k    mean over users of the mean -log2(n_i/R) of their list; an item without training rows counts as one
//                with one row
//   ild_<m>@k    mean over users of the mean distance 1 - cos of two items of their list in modality m, as
//                1 - (|sum of unit rows|^2 - n)/(n(n-1)): k widths a user, not k^2. Items whose row is zero are left
//                out (n counts the others), and so is a user with less than two
// A figure that no user has (ild@1, a modality of zeros) has no key.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "host/base/device.h"
#include "host/training/metrics.h"

namespace ccdrec {

// Recall of a part of the rows. Items in ascending order of n_i (ties by number), cut into five parts of equal number;
// Recall of a user in one = hits of its items / held-out items of it, over the users with any. Users with test rows in
// ascending order of training rows, cut into four; those with as many rows as each other are in one group, that of the
// first of them, so a group may be empty.
constexpr int kItemGroups = 5, kUserGroups = 4;
struct ListGroup {
  int64_t items = 0, rows = 0;   // of items: how many; held-out rows of them
  int64_t users = 0;             // over which the mean goes
  int64_t fewest = 0, most = 0;  // training rows of one item, one user
  Metrics metrics;               // recall@k; of users ndcg@k too. Empty: no user
};

struct ListFigures {
  EvalResult result;
  Metrics lists;                      // as above; empty: no test rows
  std::vector<ListGroup> popularity;  // from rare to popular; empty likewise
  std::vector<ListGroup> activity;    // from few rows to many; empty likewise
  // A row for each user of validation, then of test: user, train_rows, and the metrics at each k. No columns where
  // float32 cannot name every user.
  std::vector<std::string> columns;
  int64_t valid = 0, test = 0;  // rows of each
  std::vector<float> values;
};
constexpr int64_t kMostNamedUsers = int64_t(1) << 24;

// Ranks anew, from representations in host memory. mask_valid: test lists leave out validation items too.
ListFigures list_figures(Device&, CMat hu, CMat hi, const Dataset&, const std::vector<Feature>&,
                         const std::vector<int>& ks, bool mask_valid = false);

// What it takes beside the evaluation's own arrays, of the memory of the CPU. `evaluated` and `ranked` users of both
// splits and of a batch.
int64_t list_figure_bytes(int64_t n_items, int64_t evaluated, int64_t ranked, int64_t modalities, int64_t n_ks);

}  // namespace ccdrec
