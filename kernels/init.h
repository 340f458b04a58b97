// Initialisers (spec baselines 1.2), addressed by (seed, tensor): uniform in +-bound, or normal with a standard
// deviation.
// Stream.step is the tensor's number; row and column address the element (row = matrix row, sub = column/4).
#pragma once
#include "kernels/ctx.h"
#include "kernels/rng.h"

namespace ccdrec::cpu {
void init_uniform(Ctx&, Mat y, float bound, Stream);
void init_normal(Ctx&, Mat y, float sd, Stream);
}  // namespace ccdrec::cpu
