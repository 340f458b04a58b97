// encoder: f_theta as a full pre-norm Transformer encoder (spec ccdrec 3.3, the option; the paper says no more than
// "Transformer"). Ours: L layers (1 by default), H heads (4), inner width F (4d), biases, affine LayerNorms, residuals,
// none before the mean. Same call shape as estimator.h.
//
//   z (n*K,d) = tokens of estimator.h: [e_t, h_1 .. h_M, tau]; per layer, rows of one item attending to each other:
//     n1 = LN(z) s1 + b1;  q,k,v = n1 W_q + b_q, ..;  per head: a = softmax(q k^T / sqrt(d/H)), o = a v;
//     z += o W_o + b_o
//     n2 = LN(z) s2 + b2;  z += gelu(n2 W_1 + c_1) W_2 + c_2,  gelu(u) = u Phi(u), Phi to 4e-7 absolute (numbers.h)
//   e0_hat[j] = mean of the K rows of z
//
// encoder_forward   writes e0_hat[j], j < n (n = rows.count), and Saved.
// encoder_backward  every gradient += ; d_e_t[j] = ; d_h[m][j] = (the time tokens are constants).
// encoder_reverse   reverse_process of estimator.h with this f_theta: same normals, same pools.
// Order    products as gemm, column sums ascending in rows, an item's attention by one thread. Same bits for any thread
//          count.
// Cost     2 n K (4 d^2 + 2 d F) flop forward (24 n K d^2 at F = 4d), twice that backward; reverse T times forward over
//          all items.
#pragma once
#include <array>

#include "kernels/estimator.h"

namespace ccdrec {

constexpr int kMaxEncoderLayers = 4, kMaxEncoderHeads = 16;

template <class View>
struct EncoderLayer {
  View s1, b1;                  // (1,d) LayerNorm before attention
  View wq, bq, wk, bk, wv, bv;  // (d,d), (1,d)
  View wo, bo;                  // (d,d), (1,d)
  View s2, b2;                  // (1,d) LayerNorm before the feed-forward
  View w1, c1, w2, c2;          // (d,F), (1,F), (F,d), (1,d)
};
template <class View>
std::array<View*, 16> tensors_of(EncoderLayer<View>& l) {  // in the order of declaration
  return {&l.s1, &l.b1, &l.wq, &l.bq, &l.wk, &l.bk, &l.wv, &l.bv,
          &l.wo, &l.bo, &l.s2, &l.b2, &l.w1, &l.c1, &l.w2, &l.c2};
}
struct EncoderParams {
  EncoderLayer<CMat> layer[kMaxEncoderLayers];
  int layers = 1, heads = 4;
};
struct EncoderGrads {
  EncoderLayer<Mat> layer[kMaxEncoderLayers];
};
struct EncoderSaved {  // rows for the capacity
  struct Layer {
    Mat x1, rstd1;  // (cap*K,d), (cap*K,1) normalised input
    Mat q, k, v;    // (cap*K,d)
    Mat a;          // (cap*K, K*H) row r of an item: [c*H + head]
    Mat o;          // (cap*K,d) heads side by side
    Mat x2, rstd2;  // (cap*K,d), (cap*K,1)
    Mat u;          // (cap*K,F) before gelu
  } layer[kMaxEncoderLayers];
};
int64_t encoder_saved_floats(int64_t cap, int modalities, int64_t d, int64_t inner, int heads, int layers);
// cuts `room`
EncoderSaved encoder_saved(float* room, int64_t cap, int modalities, int64_t d, int64_t inner, int heads, int layers);

}  // namespace ccdrec

namespace ccdrec::cpu {
void encoder_forward(Ctx&, Mat e0_hat, const EncoderSaved&, const EstimatorTokens&, const EncoderParams&, RowList rows);
void encoder_backward(Ctx&, Mat d_e_t, const Mat* d_h, const EncoderGrads&, CMat d_e0_hat, const EstimatorTokens&,
                      const EncoderSaved&, const EncoderParams&, RowList rows);
void encoder_reverse(Ctx&, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const EncoderParams&,
                     const Schedule&, uint32_t seed, uint32_t epoch);
void encoder_scratch(ScratchPlan&, int64_t rows, int modalities, int64_t d, int64_t inner);  // forward and backward
void encoder_reverse_scratch(ScratchPlan&, int64_t items, int modalities, int64_t d, int64_t inner, int heads,
                             int layers);
}  // namespace ccdrec::cpu
