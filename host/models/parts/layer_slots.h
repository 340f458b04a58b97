// The places of a mixture in a batch: at every layer of the propagation the positives and the items chosen there, with
// gradients by layer (spec negative_sampling 6.3).
#pragma once
#include "host/models/model.h"

namespace ccdrec {

class LayerSlots {
 public:
  LayerSlots(const Setup&, int tables);  // L+1

  // (2B,d) each, rows [positives | chosen]: gradients of Ego_l, to be written
  const Mat* d(int64_t rows);
  Mat h(int64_t rows) const { return h_.top(rows); }  // (B,d) the mixtures
  void scatter(int l, Mat g, RowList nodes, const Batch&,
               const int32_t* chosen);  // d(l) into G_l (N,d), written on the nodes. chosen: (B) of layer l

 private:
  Device& dev_;
  int64_t U_, I_;
  Array<int32_t> ids_;  // (2B) nodes of a layer's places
  OwnedGroups groups_;
  std::vector<Matrix> d_;
  Mat of_step_[kMaxLayers + 1];
  Matrix h_;
};

}  // namespace ccdrec
