// Hhat = S^L Q, what the items' neighbours in content make of the item table, on the rows that a batch reads; and the
// way back.
#pragma once
#include <functional>

#include "host/models/model.h"

namespace ccdrec {

class ItemGraph {
 public:
  ItemGraph(const Setup&, const HostCsr& s, int layers);
  ItemGraph(const Setup&, Csr s, Csr s_t, int layers);  // of another's memory

  void touch(RowList wanted);                          // rows of Hhat that the step reads
  RowList starts() const { return touched_.rows[0]; }  // rows of Q that they need
  CMat forward(CMat q);                                // Hhat (I,d), valid on the rows wanted
  CMat hhat() const { return work_.back(); }           //
  // G_Q += (S^T)^L G_Hhat on the rows of starts(). Hhat stays. on_layer, where it is given, gets D_l and Z_(l-1) of
  // each layer Z_l = S Z_(l-1); then G_Hhat has to be zero but on the rows wanted, and so is D_l.
  void backward(Mat g_q, CMat g_hhat, const std::function<void(CMat d, CMat z)>& on_layer = {}, CMat q = {});
  CMat all(CMat q);  // Hhat, every row
  void graphs(Watch&) const;

 private:
  Device& dev_;
  OwnedCsr own_, own_t_;
  Csr s_, s_t_;               // S is not symmetric
  Frontier touched_;          // rows of each S^l Q that the step reads
  std::vector<Matrix> work_;  // L of (I,d); the last is Hhat
  std::vector<OwnedRows> lists_;
  std::vector<Array<uint8_t>> masks_;
};

}  // namespace ccdrec
