// The training graph of an epoch: a share of the edges left out, popular ones more often, and the rest normalised by
// the degrees that remain. Evaluation uses the whole graph. PrunedGraph is FREEDOM's (spec baselines 9.3); MCDRec's,
// which listens to the embeddings, is in denoised.h.
#pragma once
#include "host/models/model.h"

namespace ccdrec {

class EpochGraph {
 public:
  EpochGraph(const Setup&, double rho);
  virtual ~EpochGraph() = default;
  virtual std::string about() const { return ""; }  // for the log, after how many edges are kept

  // As Backbone's: `rebuild` has P (U,d) and the items' guide (I,d).
  virtual void begin_epoch(int /*epoch*/) {}
  virtual void rebuild(CMat /*p*/, CMat /*guide*/) {}
  virtual void assemble(int /*epoch*/) {}
  Csr view() const { return graph_.view(); }  // (N,N) A', symmetric
  int64_t kept_edges() const { return kept_; }
  virtual void kept(std::vector<Kept>&) {}
  virtual void show(Watch&) const {}

 protected:
  EdgeList edges(const float* weight) const { return {user_.p(), item_.p(), weight, user_.n(), U_, I_}; }
  Stream draws(int epoch) const { return {seed_, Use::prune, uint32_t(epoch), 0}; }

  Device& dev_;
  const double rho_;

 private:
  const uint32_t seed_;
  const int64_t U_, I_, kept_;
  Array<int32_t> user_, item_;  // (E) ends of the training pairs, by user and item

 protected:
  OwnedCsr graph_;
};

class PrunedGraph : public EpochGraph {
 public:
  PrunedGraph(const Setup&, double rho);
  void begin_epoch(int epoch) override;  // a function of (seed, epoch)

 private:
  Array<float> weight_;  // (E) w_e = 1 / sqrt(deg_u deg_i)
};

}  // namespace ccdrec
