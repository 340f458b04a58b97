// H = mean over l = 0..L of A^l Ego_0 on the rows that a batch reads, and the way back (kernels/propagate.h).
#pragma once
#include "host/models/model.h"

namespace ccdrec {

// What a sampler may choose by. Rows that the step did not ask for hold what an earlier one left.
struct Representations {
  CMat h_u, h_i;             // (U,d), (I,d)
  int layers = 0;            // L
  CMat ego[kMaxLayers + 1];  // (N,d) Ego_0 .. Ego_L, which H is the mean of; the last where forward kept it
  CMat item_part;            // (I,d) what is added to the items' mean; empty: nothing

  LayerTables item_layers() const;  // v_i^(l), whose mean over l is h_i
};

class Propagation {
 public:
  enum class Graph { symmetric, mean };
  // asks for the user-item graph where there are layers: A_sym, or A_rw
  Propagation(const Setup&, int layers, Graph = Graph::symmetric);

  Csr whole() const { return whole_.view(); }                                            // A of all training rows
  Csr whole_t() const { return whole_t_.rows() > 0 ? whole_t_.view() : whole_.view(); }  // A^T
  // the step's graph with its transpose; rows of H that are wanted
  void touch(const Csr& a, const Csr& a_t, RowList seed);
  RowList starts() const { return touched_.rows[0]; }  // rows of Ego_0 that it reads for them
  void forward(CMat ego, bool keep_last = false);      // keep_last: Ego_L too, of which a step needs H alone
  void ask_layer_gradients();                          // takes memory for g(l); once, before the first step
  Mat h() const { return h_; }                         // (N,d), valid on the seed
  // (N,d) gradient of H, to be filled on the seed. May share memory with Ego_L
  Mat g() const { return g_ ? g_.mat() : work_.back().mat(); }
  Mat g(int l) const { return g_layers_[size_t(l)].mat(); }  // (N,d) gradient of Ego_l besides, likewise
  // from g, and where asked g(0) .. g(L): on the rows of starts()
  void backward(Mat g_ego, bool by_layer);
  // Of what is added to the items at every layer (spec negative_sampling 6.3): g_items = G + sum_l g(l) on `items`.
  void sum_gradients(Mat g_items, RowList items) const;
  void all(CMat ego);  // H of every node, by the whole graph
  Representations representations(CMat ego, int64_t users) const;
  int layers() const { return touched_.layers; }
  CMat layer(int l) const { return work_[size_t(l - 1)].mat(); }  // (N,d) Ego_l, l = 1..L, after forward
  // ego.0 .. ego.L after the way back; touched_rows: of Ego_0 no others
  void show(Watch&, CMat ego, bool touched_rows);

 private:
  Mat* work(bool keep_last);

  Device& dev_;
  int64_t N_;
  OwnedCsr whole_, whole_t_;  // whole_t_ where A is not symmetric
  Csr a_, a_t_;               // of the step
  Frontier touched_;          // rows of each Ego_l that the step reads
  std::vector<Matrix> work_;  // L of (N,d): Ego_1 .. Ego_L, then the way back
  // (N,d); g_ only where there is no layer whose memory it could have, or layers have gradients of their own
  Matrix h_, g_;
  std::vector<Matrix> g_layers_;  // (N,d) each, of Ego_0 .. Ego_L
  Mat given_[kMaxLayers];         // work_, as the operations take it
  std::vector<OwnedRows> lists_;
  std::vector<Array<uint8_t>> masks_;
};

}  // namespace ccdrec
