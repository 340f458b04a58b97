// A backbone: the tables of users and items, and how H, their representations, come of them. It knows nothing of what
// is put on it (systems/ranked.h), which goes through a step as follows.
//
//   forward    touch(nodes) -> catch_up -> items() -> [start_items(): a fusion changes it in place] -> forward
//              -> h(), representations()
//   backward   terms -> g(), and under a mixture g(l), are filled on the nodes -> back_propagate
//              -> [g_start(), g_q(): the fusion's way back] -> finish_backward -> update
#pragma once
#include "host/models/parts/modality.h"
#include "host/models/parts/propagation.h"
#include "host/models/parts/slots.h"
#include "host/models/parts/tables.h"

namespace ccdrec {

class Backbone {
 public:
  Backbone(const Setup&, Start, Tables::Init);
  virtual ~Backbone() = default;
  virtual bool maps_items() const { return false; }  // it has losses on mapped features of the batch's items
  // its ranking loss has 1e-10 inside the logarithm (kernels/bpr.h)
  virtual bool bpr_with_eps() const { return false; }
  // Takes room for parameters of its own in the arena, and the modalities where it maps features once an epoch; then,
  // when the arena has its memory, sets the parameters.
  virtual void join(ParamArena&, Modalities*) {}
  virtual void init() {}
  // As Model's. `guide` (I,d): what the last reverse process made of the item table; empty: there was none.
  virtual void begin_epoch(int /*epoch*/) {}
  virtual void rebuild(int /*epoch*/, CMat /*guide*/) {}
  virtual void assemble(int /*epoch*/) {}
  virtual int prepare(int /*epoch*/, int64_t /*step*/) { return 0; }  // 0 or 1

  virtual void touch(RowList nodes) = 0;  // finds all rows that H of those nodes is made of
  void catch_up(const Step&);             // rows of P and Q among them: the steps of Adam that they have missed
  virtual CMat items() { return q(); }    // Hhat (I,d), valid on the rows that are read
  // what a fusion mixes with (Start), given Hhat
  CMat mixed_with(CMat hhat) const { return tables_.copies_q() ? q() : hhat; }
  Mat start_items(CMat hhat);  // the room (I,d) with a copy of that in it; empty where the start is Q
  virtual void forward(bool keep_layers) = 0;
  virtual CMat h() const = 0;  // (N,d), valid on the nodes
  virtual Representations representations() const = 0;

  // Losses of its own whose gradients go to the slots and to mapped features; added to `loss`.
  virtual void terms(const Slots&, Modalities*, double* /*loss*/) {}
  virtual void ask_layer_gradients() = 0;  // once, before the first step: takes memory for g(l)
  virtual Mat g() = 0;                     // (N,d) gradient of H, to be written on the nodes
  virtual Mat g(int layer) = 0;            // (N,d) gradient of Ego_l besides what it gets through H, likewise
  void back_propagate(bool by_layer);      // by_layer: of g(0) .. g(L) too
  CMat q() const { return tables_.q(); }
  Mat g_q() { return tables_.g_q(); }          // (I,d) gradient of Q so far, on the step's rows: to be added to
  Mat g_start() { return tables_.g_start(); }  // (I,d) what is left of it goes on to where the start came from
  // The rest of G_Q, gradients of mapped features, and losses of its own on the tables, added to `loss`.
  virtual void finish_backward(const Slots&, Modalities*, double* loss) = 0;

  void update(const Step&);
  void flush(const AdamSchedule&, int64_t t);
  virtual CMat items_all() { return q(); }  // Hhat, every row
  Mat start_all();                          // of all items, as start_items
  virtual void represent_all() = 0;         // h() of every node, by the whole graph

  void parameters(Windows& all) { tables_.parameters(all); }
  virtual void kept(std::vector<Kept>&) {}  // as Model's
  virtual void restored() {}
  virtual void counts(std::vector<Piece>&) {}  // as Model's
  virtual void figures(std::map<std::string, double>&) const {}
  virtual void give(const Given&) {}
  virtual void graphs(Watch&) {}
  virtual void show(Watch& w) { tables_.show(w); }

 protected:
  virtual void propagate_back() = 0;       // from g() and, if by_layer_, g(l)
  void show_layers(Watch&, Propagation&);  // ego.0 .. ego.L, grad.ego.0

  Device& dev_;
  const int64_t U_, I_;
  Tables tables_;
  RowList q_rows_;          // rows of Q that the step reads, from `touch`
  bool by_layer_ = false;   // of the step: layers have gradients of their own
  uint32_t pass_ = 0;       // of the step
  int64_t flushed_at_ = 0;  // the step of Adam that every parameter was brought to last
};

}  // namespace ccdrec
