// MMGCN (spec baselines 5): for each modality a graph network of three layers over the users and items, whose nodes
// begin as what the items look like and what the users prefer, a fixed draw; R, what is ranked by, is the mean of the
// branches. Every node is computed in every step: nothing here depends on the batch but the ranking loss.
//
//   f = X W_mlp + b_mlp                   a wide modality; else f = X, a constant     W_mlp (F,c_1)
//   x_1 = rows of [pref; f] at length 1                                               (N,c_1)
//   for k = 1, 2, 3:
//     h = lrelu(M (x_k C_k))              parts/messages.h                            C_1 (c_1,c_1), else (d,d)
//     y = lrelu(x_k A_k + a_k) + ID                                                   A_k (c_k,d)
//     s = [h, y] Z_k + z_k = h Z_h + y Z_y + z_k         row slices of Z_k            Z_k (c_k + d, d)
//     x_{k+1} = lrelu(s)
//   R = mean of the x_4
//
// Trained: C_k conv<k>, A_k linear<k>, Z_k g<k>, W_mlp mlp. ID and pref are drawn from the seed and stay, as in the
// published runs; so the regulariser, on them alone, is a constant, and shown as one.
//
// Kept for the way back: x_k, h, y, s and k of each layer. The slope at r is told by the sign of h, that at q = x A + a
// by that of y - ID, that at s_1, s_2 by x_2, x_3 in their place (kernels/activation.h).
#pragma once
#include <vector>

#include "host/models/outline.h"
#include "host/models/parts/messages.h"
#include "host/models/parts/slots.h"

namespace ccdrec {

class Mmgcn : public Model {
 public:
  static Outline outline(const Settings&);
  static void plan(Planner&);
  Mmgcn(const Setup&, std::vector<const char*> losses);

  std::span<const char* const> losses() const override { return losses_; }
  void forward(const Batch&, const Step&) override;
  void backward(const Batch&, const Step&) override;
  void update(const Step&) override;
  void flush(const AdamSchedule&, int64_t) override {}
  void represent(CMat& h_u, CMat& h_i) override;
  int chosen_lists() const override { return 1; }
  Chosen choose(int epoch, const Batch&, const Step&) override;

  void parameters(Windows& all) override { arena_.parameters(all); }
  void constants(Windows&) override;
  void restored() override { settle(); }
  std::vector<std::string> modalities() const override;

  void give(const Given&, const Batch&) override;
  void graphs(Watch& w) override { messages_.graph(w); }
  void show(const Batch&, Watch&) override;

 private:
  static constexpr int kLayers = 3;
  struct Layer {
    int conv, linear, linear_bias, g, g_bias;  // C, A, a, Z, z in the arena
    Matrix k;                                  // (a,c) parts/messages.h
    Matrix h, y, s;                            // (N,c), (N,d), (N,d); s is x_{k+1} but in the last layer
  };
  struct Branch {
    std::string name;
    int64_t c;                    // c_1
    int mlp = -1, mlp_bias = -1;  // -1: the features keep their width
    Matrix features;              // (I,F) X
    Matrix preference;            // (U,c) pref; empty: as the seed gives it, and x alone has it
    Matrix x;                     // (N,c) x_1
    Array<float> inv_norm;        // (N)
    Layer layer[kLayers];
    bool mapped() const { return mlp >= 0; }
  };
  enum Tensor { kPreference, kMlp, kMlpBias, kConv, kLinear = 6, kLinearBias = 9, kG = 12, kGBias = 15, kTensors = 18 };

  void add(const Setup&, size_t modality);  // a branch, its parameters' room in the arena
  void init();                              // after the arena has taken its memory
  void fill_normal(Mat, int64_t modality, int tensor) const;
  void fill_uniform(Mat, int64_t modality, int tensor, int64_t in) const;
  void settle();
  void draw_preference(Mat to, size_t branch) const;
  void compute();
  void map(Branch&);
  void rank(const Batch&, const Step&);
  void add_constant(const Batch&, double* loss);
  void go_back(Branch&, Slopes);
  void map_back(Branch&, Mat g_f);

  RowList nodes() const { return {nullptr, nullptr, U_ + I_}; }
  RowList items() const { return {nullptr, nullptr, I_}; }
  Mat items_of(Mat m) const { return m.slice(U_, I_); }
  Mat value(int i) const { return arena_.value(i); }
  Mat grad(int i) const { return arena_.grad(i); }
  // The rows of Z that h is multiplied by, and those of y.
  Mat of_h(Mat z) const { return z.slice(0, z.rows - d_); }
  Mat of_y(Mat z) const { return z.slice(z.rows - d_, d_); }

  Device& dev_;
  const std::vector<const char*> losses_;  // bpr, reg
  const int64_t U_, I_, d_;
  const float reg_;
  const uint32_t seed_;
  Messages messages_;
  ParamArena arena_;
  std::vector<Branch> branches_;
  Matrix id_;  // (N,d)
  Matrix r_;   // (N,d) R
  Slots slots_;
  Matrix g_r_;            // (N,d) gradient of R
  Matrix g_one_, g_two_;  // (N,d) of s and of x, in turns
  Matrix g_y_;            // (N,d) of y, then of q
  Matrix g_h_;            // (N, widest) of h, then of r
  // Of the regulariser, where it has a weight: (1,1) the root of the mean of the visual pref^2, 0 where no modality
  // is visual; rows of ID.
  Matrix rms_, id_rows_;
};

}  // namespace ccdrec
