// P and Q, the embeddings of users and items, and Ego_0, the rows that a propagation starts from. A step touches the
// rows it reads and no others.
#pragma once
#include "host/models/model.h"

namespace ccdrec {

// Whose the items' rows of Ego_0 are: Q itself, or a buffer of their own that holds a copy of Hhat (CCDRec) or of Q
// (MCDRec) for a fusion to change; what is left of its gradient goes back to where the copy came from. A fusion over Q
// is of all items, whose rows of Q then move at every step.
enum class Start { q, over_hhat, over_q };

class Tables {
 public:
  enum class Init { xavier_normal, xavier_uniform };
  Tables(const Setup&, Start, Init);

  Mat ego() const { return rows_.value().slice(0, U_ + I_); }  // (N,d) [P; Q], or [P; room]
  Mat g_ego() const { return g_ego_; }                         // (N,d) its gradient
  CMat q() const { return items_table().value; }               // (I,d)
  Mat g_q() const { return g_q_ ? g_q_.mat() : g_start(); }    // (I,d)
  Mat start() const { return ego().slice(U_, I_); }            // (I,d) the items' rows of Ego_0
  Mat g_start() const { return g_ego_.mat().slice(U_, I_); }   // (I,d)
  bool has_room() const { return bool(g_q_); }                 // they are not Q's
  bool copies_q() const { return start_is_ == Start::over_q; }

  void touch(RowList nodes);                          // rows of Ego_0 that the step reads
  RowList users() const { return users_.list(); }     // those of users
  RowList items() const { return items_.list(); }     // and of items
  Mat copy_to_start(CMat from, RowList items) const;  // the room, those rows in it; empty where there is none

  // `q`: rows of Q that the step reads.
  void catch_up(RowList q, const Step&);
  void update(RowList q, const Step&);
  void flush(const AdamSchedule&, int64_t t);
  void parameters(Windows&);
  void show(Watch&) const;  // gradients of P and Q

 private:
  Table users_table() const { return rows_.table(0, U_); }
  Table items_table() const { return rows_.table(first_item_, I_); }

  Device& dev_;
  const Start start_is_;
  int64_t U_, I_;
  int64_t first_item_;  // row at which Q begins: U, with room for the items' start N
  // [P; Q] or [P; room; Q]: Ego_0 is the first N rows, and P is nowhere copied. The room's moments are never used
  RowTable rows_;
  Matrix g_ego_, g_q_;  // (N,d), (I,d); g_q_ only where there is room
  OwnedRows users_, items_;
};

}  // namespace ccdrec
