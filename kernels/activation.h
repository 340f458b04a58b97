// Activations with their gradients.
//
// leaky_relu           Y = (X > 0 ? up : down) X + P
//                      P (as X; empty: nothing is added) is a constant or a sum so far. Y may be X or P.
// leaky_relu_backward  G_x = (Y > P ? up : down) G
//                      Y, P: of the forward, or its X and no P: the signs agree, as up and down are positive, but where
//                      X was so small that P swallowed it; there the sign is a rounding, as that of a sum near 0 is.
//                      G_x may be G.
// Order    elementwise, a product and a sum each rounded: the same bits on both devices.
// Cost     8 bytes an element, 12 with P; backward 12, 16 with P.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

constexpr float kLeakySlope = 0.01f;  // spec baselines 1.5

struct Slopes {  // above and below 0
  float up = 1.0f, down = kLeakySlope;
  // lrelu(x) / n = lrelu(x / n): a mean is taken in the same pass
  static Slopes share_of(int n) { return {1.0f / float(n), kLeakySlope / float(n)}; }
};

}  // namespace ccdrec

namespace ccdrec::cpu {
void leaky_relu(Ctx&, Mat y, CMat x, CMat plus, Slopes);
void leaky_relu_backward(Ctx&, Mat g_x, CMat g, CMat y, CMat plus, Slopes);
}  // namespace ccdrec::cpu
