// The messages of a layer of MMGCN, r = M (x C), and their way back (spec baselines 5.2 (3), 5.4). M averages over a
// node's neighbours. Its edges run between users and items alone, and no node is its own neighbour; with a the side of
// fewer nodes (on published sets the items) and b the other,
//
//            a    b
//      a [   0   M_ab ]     r_a = (M_ab x_b) C = k C        k = M_ab x_b  (a,c)
//      b [  M_ba  0   ]     r_b = M_ba (x_a C)
//
//   back, T = M^T G_r:     T_a = M_ba^T G_b,  T_b = M_ab^T G_a
//      G_C   = x_a^T T_a + x_b^T T_b = x_a^T T_a + k^T G_a        for x_b^T M_ab^T = k^T
//      G_x,a = T_a C^T,  G_x,b = T_b C^T = M_ab^T (G_a C^T)
//
// The same sums in another order: exact, but for rounding. Each product with C has |a| rows, so that a layer costs 4
// |a| c^2 flop rather than 2 (|a| + |b|) c^2, and its way back as much for each of G_C and G_x. Where x_b is a
// constant, so is k, and a sparse product falls away.
#pragma once
#include "host/models/model.h"
#include "host/models/planner.h"

namespace ccdrec {

class Messages {
 public:
  enum class Wanted { none, items, all };  // rows of G_x

  explicit Messages(const Setup&);  // asks for M
  void reserve(int64_t widest);     // once, before the first layer: the largest c
  static void plan(Planner&, int64_t widest);
  static void plan_layer(Planner&, int64_t c);  // its products, and k

  int64_t near() const { return near_.n; }  // |a|, the rows of k
  bool items_are_near() const { return near_.first > 0; }

  void gather(Mat k, CMat x) const;                // k = M_ab x_b
  void send(Mat r, CMat k, CMat x, CMat c) const;  // r (N,c), from k of the same x
  // G_C += ; G_x =, (N,c), or (I,c) of the items alone, which may lie where those rows of G_r do.
  void backward(Mat g_c, Mat g_x, Wanted, CMat g_r, CMat k, CMat x, CMat c) const;

  void graph(Watch&) const;  // M, whole

 private:
  struct Side {  // rows of a matrix of nodes
    int64_t first, n;
    Mat of(Mat m) const { return m.slice(first, n); }
    CMat of(CMat m) const { return m.slice(first, n); }
  };
  Mat room(int64_t cols) const { return {room_.array().p(), near_.n, cols}; }

  Device& dev_;
  HostCsr whole_;
  Side near_, far_;
  OwnedCsr m_ab_, m_ba_, m_ab_t_, m_ba_t_;
  Matrix room_;  // (a, widest): x_a C; T_a, then G_a C^T
};

}  // namespace ccdrec
