// The slots of a batch: the places whose representations its losses compare, [users | positives | negatives 0 .. |
// hard], blocks of B rows; gathered from H, and their gradients added up into H's, in a fixed order.
#pragma once
#include "host/models/model.h"

namespace ccdrec {

struct Ids {  // on the device
  const int32_t* p = nullptr;
  int64_t n = 0;
};

class Slots {
 public:
  Slots(const Setup&, int64_t most_others, bool by_item);

  // The distinct nodes of the slots, with the hard negatives where they are known already, and of `others`: items whose
  // rows are needed besides.
  void list(const Batch&, bool with_hard, Ids others);
  // the slots alone, with the hard negatives that have been chosen since
  void list_again(const Batch&, bool with_hard);
  void list_items(const Batch&);                 // positives and random negatives by item
  RowList nodes() const { return nodes_.rows; }  // of `list`, ascending
  // positives and random negatives by item: D, the distinct ones, with their places
  const Groups& by_item() const { return items_; }
  int64_t rows() const { return rows_; }
  int n_neg() const { return n_neg_; }
  int64_t item_slots() const { return rows_ * (1 + n_neg_); }

  void gather(CMat h);  // the slots' rows of H
  // their gradients into G (N,d), written on the nodes: zero where no slot is
  void scatter(Mat g);
  // norm_reg (kernels/bpr.h) of the slots' rows of X (N,d)
  void add_norms(double* loss, Mat g, CMat x, float reg) const;
  // (B,d) of block k: 0 users, 1 positives, 2 .. negatives, then hard
  Mat h(int k) const { return h_.mat().slice(k * rows_, rows_); }
  Mat d(int k) const { return d_.mat().slice(k * rows_, rows_); }  // its gradient
  int hard() const { return 2 + n_neg_; }                          // its block
  // memory of h(k), for a batch of so many rows
  Mat block(int k, int64_t rows) const { return h_.mat().slice(k * rows, rows); }
  // hard_name: null where none has a slot
  void show(Watch&, const char* hard_name) const;
  // (B,d) that have no slot, with their scores
  void show(Watch&, const std::string& name, CMat rows) const;

 private:
  std::vector<float> scores(CMat rows) const;
  void show_block(Watch&, const std::string& kind, int k, const Extents& lead, const Extents& whole) const;
  void name(const Batch&, bool with_hard);

  Device& dev_;
  int64_t U_, I_, rows_ = 0, count_ = 0;  // count: slots
  int n_neg_;
  Array<int32_t> node_ids_;
  OwnedGroups node_groups_, slot_groups_, item_groups_;
  Groups nodes_, slots_, items_;
  Matrix h_, d_;
};

}  // namespace ccdrec
