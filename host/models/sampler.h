// A sampler gives the rows of a step a hard negative beside the random ones: an item of the catalogue, a row that is a
// constant, or a mixture. It knows embeddings only: neither the backbone they come from nor the losses they go to
// (systems/ranked.h).
#pragma once
#include "host/models/backbone.h"

namespace ccdrec {

enum class Gives {
  nothing,   // random negatives alone
  item,      // ids in Batch::hard: a slot of the batch, with a gradient
  constant,  // rows (B,d) without one
  // an item for each row and layer, mixed with the positive: gradients go to the layers, which forward then keeps
  mixture,
};

struct Plan {  // of a step
  Gives gives = Gives::nothing;
  bool early = false;  // chosen before forward, by `early`; otherwise after it, by `late`
  int kind = 0;        // steps of one kind launch the same operations on the same memory
};

struct Choice {                    // what was chosen, on the device
  CMat rows;                       // constant: (B,d)
  const int32_t* items = nullptr;  // mixture: (L+1,B) ids
  CMat alpha;                      // mixture: (L+1,B) weight of the positive
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  // of its negatives in files: "curricular" or "hard"; its loss is bpr_NAME
  virtual const char* name() const = 0;
  virtual const char* source(int) const = 0;          // where that epoch's hard negatives come from, for the log
  virtual Plan prepare(int epoch, int64_t step) = 0;  // as Model's
  virtual void early(const Batch&, const Step&) {}
  virtual void late(const Batch&, const Step&, const Representations&) {}
  virtual bool mixes() const { return false; }  // it may give a mixture
  // items whose representations `late`, or a mixture, reads: all of them for DNS and MixGCF
  virtual Ids candidates() const { return {}; }
  virtual Choice choice() const { return {}; }
  virtual const int32_t* nan_flag() const { return nullptr; }  // as Model's
  // As Model's, for one that chooses by what evaluation ranked by at the epoch's start: h_u (U,d), h_i (I,d).
  virtual bool rebuilds(int /*epoch*/) const { return false; }
  virtual void rebuild(int /*epoch*/, CMat /*h_u*/, CMat /*h_i*/) {}
  virtual void begin_epoch(int /*epoch*/) {}
  virtual void kept(std::vector<Kept>&) {}
  virtual void counts(std::vector<Piece>&) {}
  virtual void figures(std::map<std::string, double>&) const {}

  virtual void give(const Given&, const Batch&) = 0;
  virtual void draws(const Batch&, Watch&) = 0;
  virtual void explain(const Batch&, Watch&) {}
};

}  // namespace ccdrec
