// An item fusion estimates what the items' embeddings would be from their content, mixes it into the start of the
// propagation and aligns it with the item table. It knows Q, what it mixes with (Hhat or Q), the mapped features and
// the buffer that the propagation starts from, and nothing of how a backbone goes on from there.
#pragma once
#include "host/models/parts/modality.h"

namespace ccdrec {

class ItemFusion {
 public:
  virtual ~ItemFusion() = default;
  virtual void init() = 0;  // after the arena has taken its memory

  virtual bool of_all_items() const = 0;  // it fuses every item at every step, not those of the batch alone
  // The items that it fuses, each with its slots among `terms`: the batch's, or all of them once.
  virtual Groups items(const Groups& of_batch) const = 0;

  virtual void forward(CMat q, RowList items, const Step&) = 0;  // of its items, whose features have been mapped
  virtual void fuse(Mat start, CMat base, RowList items) = 0;    // start (I,d), rows of its items
  // The loss and the way back of both: adds into d_q (I,d), leaves of d_start (I,d) what it was mixed with gets of it,
  // writes the mapped features' gradients. `items`: with their slots, `terms` of them.
  virtual void backward(double* loss, Mat d_q, Mat d_start, CMat q, const Groups& items, int64_t terms) = 0;
  virtual void end_epoch(CMat q, int epoch) = 0;  // the reverse process
  virtual void fuse_all(Mat start) = 0;           // evaluation: every item of start, which holds what it mixes with
  virtual CMat reversed() const = 0;              // (I,d) what the last one made of Q; empty: there was none

  virtual void kept(std::vector<Kept>&) {}
  virtual void give(const Given&, int64_t items) = 0;  // so many distinct ones
  virtual void draws(int64_t items, Watch&) = 0;
  virtual void show(int64_t items, Watch&) = 0;
  virtual void show_reverse(const Given&, Watch&) = 0;
};

}  // namespace ccdrec
