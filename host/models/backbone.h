// The backbone: user and item tables, graphs, propagation. It knows nothing of diffusion, pools or samplers.
//
//   Hhat = S^{L_ii} Q (or Q without an item graph)            item matrix before user-item propagation
//   Ego_0 = [P ; Q] on its own, [P ; item start] when a wrapper gives one (spec ccdrec 2, step 2)
//   H = prop(A, Ego_0, L);  h_u = H[u];  h_i = H[U+i] (+ Hhat[i] for FREEDOM)
//
// BPR-MF is L = 0, LightGCN is L = 2 without an item graph, FREEDOM adds S and prunes A every epoch. One step touches only the rows it reads:
//   touch(seed) -> catch_up(t) -> items() -> [start_items(), the wrapper writes into it] -> forward() -> h()
//   g() is filled on the seed rows -> back_propagate() -> [wrapper: item_start_grad(), item_grad()] -> finish_backward() -> update(t)
#pragma once
#include <string>
#include <vector>

#include "data/graph.h"
#include "host/models/arena.h"
#include "host/settings.h"

namespace ccdrec {

struct BackboneSpec {
  std::string name;
  int layers = 0;                 // L_ui
  bool item_graph = false;        // S exists and Hhat = S^{L_ii} Q
  int item_layers = 1;            // L_ii
  bool adds_items = false;        // h_i = H[U+i] + Hhat[i]
  bool normal_init = false;       // xavier_normal in place of xavier_uniform
  bool eps_form = false;          // BPR with 1e-10 inside the logarithm
  bool norm_regulariser = false;  // reg * (||a||+||b||+||c||)/B on the initial rows
  double prune = 0;               // rho
  bool wrapped = false;           // a wrapper gives the item start of the propagation

  bool bare() const { return layers == 0 && !wrapped && !item_graph; }  // H is Ego_0: one matrix is both, and one their gradient
};
BackboneSpec backbone_spec(const std::string& name, const Settings&, bool wrapped);

struct Graphs {            // host side, shared by model and plan
  HostCsr train;           // (U,I) pattern
  HostCsr user_item;       // (N,N)
  HostCsr items, items_t;  // S and its transpose, empty without an item graph
};

class Backbone {
 public:
  Backbone(Device&, const BackboneSpec&, const Graphs&, int64_t d, uint32_t seed);

  void begin_epoch(int epoch);                                               // prunes
  void touch(RowList seed);                                                  // lists and masks of the rows it will read
  void catch_up(int64_t t_done);                                             // P and Q rows among them, brought up to step t_done
  CMat items();                                                              // Hhat (I,d), valid on the rows it needs
  Mat start_items();                                                         // wrapped: item start (I,d), a copy of Hhat to be changed in place
  void forward(bool keep_last = false);                                      // keep_last: Ego_L too, of which a step needs H alone
  CMat h() const { return spec_.bare() ? CMat(nodes_.value()) : CMat(h_); }  // (N,d), valid on the seed
  const Array<float>& h_array() { return spec_.bare() ? nodes_.values().array() : h_.array(); }
  CMat initial() const { return ego(); }  // (N,d) Ego_0
  CMat item_table() const { return q_table().value; }
  CMat item_representations() const { return h().slice(U_, I_); }

  // For those who look into a step. Hhat and its gradient, after the step (empty without an item graph); Ego_l after forward (Ego_L if it kept it); the
  // gradient of Ego_0 after back_propagate. Rows that the step does not reach are zero or what an earlier one left; in Ego_0 those of P, and of Q unless
  // wrapped, are what they are.
  CMat hhat() const { return spec_.item_graph ? CMat(item_work_.back()) : CMat(); }
  CMat hhat_grad() const { return (spec_.wrapped ? g_ego_.mat() : h_grad()).slice(U_, I_); }
  Mat layer(int l) { return l > 0 ? work_[size_t(l - 1)].mat() : ego(); }
  RowList reached() const { return nodes_touched_.rows[0]; }  // rows of Ego_0 that the step reads
  CMat start_grad() const { return spec_.wrapped ? g_ego_ : grad_; }

  // (N,d), valid on the seed after g() was filled. Ego_L and this have one memory: forward needs Ego_L only when told to keep it, the way back never.
  Mat h_grad() const { return spec_.bare() ? grad_ : spec_.layers > 0 ? work_.back() : g_; }
  Mat g(RowList filled);  // (N,d) gradient of h, zero on the seed: to be written, not added to, on the rows `filled`, some of the seed or all
  void back_propagate();
  Mat item_start_grad();                                 // wrapped: (I,d) gradient of the item start
  Mat item_grad() { return grad_.mat().slice(U_, I_); }  // (I,d) gradient of Q, valid after back_propagate on the rows of the step
  Mat initial_grad() { return grad_; }                   // (N,d)
  void finish_backward();
  void update(const AdamSchedule&, int64_t t);
  void flush(int64_t t_done);

  // Representations of every node with the full graph; item_start (I,d) replaces Hhat' when wrapped (may be empty: Hhat itself). Result in h().
  void represent_all();
  Mat start_items_all();  // wrapped, all rows: to be fused in place before represent_all

  const BackboneSpec& spec() const { return spec_; }
  int64_t users() const { return U_; }
  int64_t n_items() const { return I_; }
  RowTable& nodes() { return nodes_; }
  int64_t first_item() const { return first_item_; }                             // row of nodes() at which Q begins: U, wrapped N
  Csr graph() const { return spec_.prune > 0 ? pruned_.view() : full_.view(); }  // the training graph of this epoch
  Csr item_graph() const { return s_.view(); }
  CMat user_grad() const { return (spec_.wrapped ? g_ego_ : grad_).mat().slice(0, U_); }
  int64_t kept_edges() const { return spec_.prune > 0 ? n_keep_ : n_edges_; }
  void set_adam(const AdamSchedule& s) { adam_ = s; }

 private:
  Mat ego() const { return nodes_.value().slice(0, N_); }
  Table user_table() const { return nodes_.table(0, U_); }
  Table q_table() const { return nodes_.table(first_item_, I_); }

  Device& dev_;
  BackboneSpec spec_;
  int64_t U_, I_, N_, d_, n_edges_, n_keep_ = 0, first_item_;
  uint32_t seed_;
  AdamSchedule adam_;
  RowTable nodes_;  // [P;Q], when wrapped [P; item start; Q]: Ego_0 is the first N rows, and P is nowhere copied. The item start has room for
                    // moments that it never uses
  Matrix grad_, h_, g_, g_ego_;    // (N,d); g_ego_ only when wrapped, h_ unless bare, g_ where h_grad() has no layer's memory
  std::vector<Matrix> work_;       // L matrices (N,d)
  std::vector<Matrix> item_work_;  // L_ii matrices (I,d); the last is Hhat
  OwnedCsr full_, pruned_, s_, s_t_;
  Array<int32_t> edge_user_, edge_item_;
  Array<float> edge_weight_;
  Frontier nodes_touched_, items_touched_;
  std::vector<OwnedRows> lists_;
  std::vector<Array<uint8_t>> masks_;
  OwnedRows users0_, items0_, seed_users_, seed_items_, q_rows_;
  RowList seed_list_, q_list_;
};

}  // namespace ccdrec
