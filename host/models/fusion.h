// An item fusion estimates what the items' embeddings would be from their content, mixes it into the start of the
// propagation and aligns it with the item table. It knows Q, Hhat, the mapped features and the room that the
// propagation starts from, and nothing of how a backbone goes on from there.
#pragma once
#include "host/models/parts/modality.h"

namespace ccdrec {

class ItemFusion {
 public:
  virtual ~ItemFusion() = default;
  virtual void init() = 0;  // after the arena has taken its memory

  virtual void forward(CMat q, RowList items, const Step&) = 0;  // of the listed items, whose features have been mapped
  virtual void fuse(Mat start, CMat hhat, RowList items) = 0;    // start (I,d), rows of the listed items
  // The loss and the way back of both: adds into d_q (I,d), leaves of d_start (I,d) what Hhat gets of it, writes the
  // mapped features' gradients. `items`: the listed ones with their places in the batch, `terms` of them.
  virtual void backward(double* loss, Mat d_q, Mat d_start, CMat q, const Groups& items, int64_t terms) = 0;
  virtual void end_epoch(CMat q, int epoch) = 0;  // the reverse process
  virtual void fuse_all(Mat start) = 0;           // evaluation: every item of start, which holds Hhat
  virtual CMat reversed() const = 0;              // (I,d) what the last one made of Q; empty: there was none

  virtual void kept(std::vector<Kept>&) {}
  virtual void give(const Given&, int64_t items) = 0;  // so many distinct ones
  virtual void draws(int64_t items, Watch&) = 0;
  virtual void show(int64_t items, Watch&) = 0;
  virtual void show_reverse(const Given&, Watch&) = 0;
};

}  // namespace ccdrec
