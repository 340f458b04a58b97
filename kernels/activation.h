// Activations with their gradients.
//
// leaky_relu           Y = X > 0 ? X : slope X                                          Y may be X
// leaky_relu_backward  G *= Y > 0 ? 1 : slope; Y the output, or the input: their signs agree
// Order    elementwise: the same bits on both devices.      Cost 8 bytes an element, backward 12.
#pragma once
#include "kernels/ctx.h"

namespace ccdrec {

constexpr float kLeakySlope = 0.01f;  // spec baselines 1.5

}  // namespace ccdrec

namespace ccdrec::cpu {
void leaky_relu(Ctx&, Mat y, CMat x, float slope);
void leaky_relu_backward(Ctx&, Mat g, CMat y, float slope);
}  // namespace ccdrec::cpu
