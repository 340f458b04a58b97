// What the training loop, the evaluation and the files know of a recommender. A system is a class of this kind; what it
// is made of is its own affair.
//
// A step    prepare -> for each pass: sample -> forward -> backward -> update. On a GPU a step is recorded once for
//           each kind of step and replayed: what differs between steps of one kind comes through Moment, Step::t and
//           arrays on the device alone.
// An epoch  begin_epoch -> rebuild -> assemble -> steps -> flush -> end_epoch. On a resume in the middle all but
//           rebuild are repeated: what chance alone makes of (seed, epoch) is made again; what was made of parameters
//           that are gone by then is `kept`, which states hold, and what follows from it is assembled.
#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "host/models/clock.h"
#include "host/models/graph_source.h"
#include "host/models/parts/arena.h"
#include "host/models/watch.h"

namespace ccdrec {

// The training rows on a device.
struct Interactions {
  Interactions(Device&, const Dataset&, const HostCsr& pairs);
  int64_t rows() const { return user.n(); }
  Array<int32_t> user, item;  // (rows) in the order of the data
  Array<int32_t> occurring;   // the items of them, distinct, ascending
  OwnedCsr by_user;           // (U,I) pattern
};

// What models and their parts are built from.
struct Setup {
  Device& dev;
  const Settings& s;
  const Dataset& data;
  GraphSource& graphs;
  const Interactions& train;
  std::vector<std::string>& notes;  // sentences for the log

  int64_t users() const { return data.n_users; }
  int64_t items() const { return data.n_items; }
  int64_t width() const { return s.embedding_size; }
  int64_t batch() const { return std::min<int64_t>(s.train_batch_size, train.rows()); }  // most rows of a step
  // most positives and random negatives of a step
  int64_t item_slots() const { return batch() * (1 + s.n_neg); }
};

// When a pass over a batch is: numbers, or late values while a step is recorded (kernels/late.h).
struct Moment {
  uint32_t epoch, step;
  int64_t first;      // row of the epoch's order at which the batch begins
  uint32_t pass = 0;  // within the step (training/stepping.h); a constant of a recording

  // The address of what this pass draws for a purpose; in the first pass it is the purpose's own.
  Stream draws(uint32_t seed, Use use) const { return {seed, Use(uint32_t(use) | pass << 8), epoch, step}; }
};

// The rows of a step: users with their positives and random negatives, drawn once for all its passes.
struct Batch {
  int64_t rows = 0;                // B
  int n_neg = 1;                   // random negatives a row
  const int32_t* users = nullptr;  // (B)
  int32_t* items = nullptr;        // [positives | negatives 0 .. | hard], blocks of B

  const int32_t* positives() const { return items; }
  const int32_t* negatives() const { return items + rows; }     // (n_neg,B)
  int32_t* hard() const { return items + rows * (1 + n_neg); }  // (B) for a sampler to fill
  int64_t item_slots() const { return rows * (1 + n_neg); }     // positives and random negatives
};

struct Step {
  Moment now;
  AdamSchedule adam;
  int64_t t;     // steps of Adam done before this one: a number or a late value
  double* loss;  // sums to be added to, one a name of Model::losses
  bool keep;     // every gradient is to be read afterwards: none may be consumed where it is computed
  Clock& clock;
  bool measures = false;  // none of the epoch's: negatives are chosen to be looked at, and nothing may count them
};

// An array of the state beside the parameters.
struct Kept {
  std::string name, dtype;  // of safetensors: F32, I32, I64
  Extents shape;
  void* device;
  size_t bytes;
  bool* filled;                   // there is something to save; set when it has been restored
  int from_epoch = -1;            // an epoch under way goes on with it, from this epoch on; -1: it can do without
  int32_t lowest = 0, limit = 0;  // I32: entries are lowest .. limit - 1; limit 0: any
};

// Negatives for rows outside a step, to be measured (training/hardness.h).
struct Chosen {
  CMat rows;                       // (B,d) what stands for the negatives
  const int32_t* items = nullptr;  // (chosen_lists,B) the items behind them
};

class Model {
 public:
  virtual ~Model() = default;

  virtual std::span<const char* const> losses() const = 0;  // names of the terms; what is learnt from is their sum
  virtual void begin_epoch(int /*epoch*/) {}                // what chance alone makes
  virtual void rebuild(int /*epoch*/) {}   // what is made of the parameters at the epoch's start, and kept
  virtual void assemble(int /*epoch*/) {}  // what follows from that; no more is known then than `kept` holds
  // Decides on the host what the coming step will do. Steps of one kind, the number given back, launch the same
  // operations on the same memory.
  virtual int prepare(int /*epoch*/, int64_t /*step*/) { return 0; }
  virtual void sample(const Batch&, const Step&) {}  // what chance decides for the pass besides the batch
  virtual void forward(const Batch&, const Step&) = 0;
  virtual void backward(const Batch&, const Step&) = 0;
  virtual void update(const Step&) = 0;  // to step t + 1
  // Every row to step t: before anything outside a step reads parameters.
  virtual void flush(const AdamSchedule&, int64_t t) = 0;
  virtual void end_epoch(int /*epoch*/, Clock&) {}
  // (U,d), (I,d): what users and items are ranked by; views valid until the next step.
  virtual void represent(CMat& h_u, CMat& h_i) = 0;
  // items behind a negative that is chosen; 0: it learns from no negatives
  virtual int chosen_lists() const { return 0; }
  // The negatives that the sampler of that epoch gives these rows, whose random ones are there, by what `represent` has
  // just made. No bit of training depends on it.
  virtual Chosen choose(int /*epoch*/, const Batch&, const Step&) { return {}; }
  virtual const char* negatives(int /*epoch*/) const { return "random"; }  // where they come from, for the log
  // Counts of an epoch that are read with its losses, and further numbers for the log and metrics.jsonl, made of what
  // was read last.
  virtual void counts(std::vector<Piece>&) {}
  virtual void figures(std::map<std::string, double>&) const {}
  // on the device; not 0: what has to be a number was none
  virtual const int32_t* nan_flag() const { return nullptr; }

  // Files.
  virtual void parameters(Windows&) = 0;                              // what is trained
  virtual void constants(Windows&) {}                                 // what could be and is not
  virtual void kept(std::vector<Kept>&) {}                            // state beside them
  virtual void restored() {}                                          // both have been set to those of a state
  virtual std::vector<std::string> modalities() const { return {}; }  // those whose features it maps
  virtual bool reverses() const { return false; }                     // an epoch ends with a reverse process

  // Looking into a step, by the names of docs/step-format.md.
  virtual void give(const Given&, const Batch&) {}  // in place of what chance would decide; the batch is there already
  virtual void draws(const Batch&, Watch&) {}       // what chance decided for the last step
  virtual void explain(const Batch&, Watch&) {}     // how it came to that, for readers
  virtual void graphs(Watch&) {}                    // of this epoch
  // Intermediates and gradients: after a backward that kept them, before the update.
  virtual void show(const Batch&, Watch&) {}
  virtual void show_reverse(const Given&, Watch&) {}  // the reverse process state by state, from noise that is given
};

}  // namespace ccdrec
