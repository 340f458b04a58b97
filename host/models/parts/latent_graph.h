// LATTICE's item graph S (spec baselines 8.2, 8.5): for each modality a learned list of k neighbours, found by the
// mapped features at the start of an epoch, and a frozen one of the raw features; mixed by weights that are learned
// too. The lists lie side by side, 2Mk entries a row, and nothing of size (I,I) exists (kernels/latent.h).
//
//   build       maps, neighbours and similarities of all items     from parameters; what `kept` holds
//   assemble    S and S^T                                          from that
//   backward    the gradient of S goes on to theta and the maps    in the one step of an epoch that asks for it
#pragma once
#include "host/models/parts/modality.h"

namespace ccdrec {

class LatentGraph {
 public:
  explicit LatentGraph(const Setup&);  // the frozen lists: reads the features
  void join(ParamArena&, Modalities&);
  void init();  // theta

  void build();
  void assemble();
  void begin_epoch() { of_epoch_ = slot_; }  // its steps have the S that was assembled last
  Csr s() const {
    return {I_, I_, ptr_.p(), col_.p(), val_.array().p(), -1};
  }  // nnz stays -1: columns repeat, which cuSPARSE does not take
  Csr s_t() const { return s_t_.view(); }

  // Gamma of the layer Z' = S Z is added up (the first call of a step writes it): D (I,d), the gradient of Z', zero
  // where the step has none.
  void add_dots(CMat d, CMat z);
  void backward();  // gradients of theta and of the modalities' maps of all items, from Gamma

  void kept(std::vector<Kept>&);
  void counts(std::vector<Piece>&);
  void figures(std::map<std::string, double>&) const;
  void give(const Given&);                     // lists in place of those that `build` would find
  bool constant() const { return constant_; }  // values and weights were given too: S has no gradient
  void graphs(Watch&, bool values);            // values: those that a later batch takes as constants, too
  void show(Watch&, bool with_gradient);

 private:
  struct Lists {                          // of a modality
    Array<int32_t> idx, frozen_idx;       // (I,k)
    Matrix value, frozen_value;           // (I,k) K_m, O_m
    Matrix y;                             // (I,d) mapped features, of length 1
    Array<float> inv_norm;                // (I)
    OwnedGroups by_target;                // of idx
    Matrix gamma, frozen_gamma, g_value;  // (I,k)
  };
  LatentLists lists() const;
  void map_gradient(Mat g, size_t m);  // (I,d) of h_all(m), from the gradients of K_m: written

  Device& dev_;
  const int64_t I_, d_, k_;
  const float lambda_;
  const uint32_t seed_;
  std::vector<std::string> names_;
  std::vector<Lists> m_;
  ParamArena* arena_ = nullptr;
  Modalities* modal_ = nullptr;
  int theta_ = -1;        // (1,M)
  Array<float> w_, g_w_;  // (M) softmax of theta at the last build
  Array<int64_t> ptr_;    // (I+1) rows of S
  Array<int32_t> col_;    // (I,2Mk)
  Matrix val_;            // (I,2Mk)
  Array<float> scale_;    // (I) s_i
  OwnedCsr s_t_;
  Array<int64_t> tied_;      // knn_cosine counts them
  Array<int64_t> empty_;     // (2) rows without a scale: of the epoch's S and, built since, of the next one's
  int64_t counted_[2] = {};  // empty_ when it was read last
  int slot_ = 0, of_epoch_ = 0;
  Matrix layer_gamma_, d_y_;  // (I,k), (I,d)
  bool built_ = false, has_gamma_ = false, given_ = false, constant_ = false;
};

}  // namespace ccdrec
