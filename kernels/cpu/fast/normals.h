// Addressed normals, a row at a time: what draw_normals writes and the reverse process consumes tile by tile. Private
// to kernels/cpu.
#pragma once
#include <cstdint>

#include "kernels/rng.h"

namespace ccdrec::cpu {
// out[0..d) ~ N(0,1): columns 4s..4s+3 are the two pairs of draw(stream, row, s): (v0,v1) -> 4s, 4s+1 and (v2,v3) ->
// 4s+2, 4s+3.
void normal_row(float* out, int64_t d, Stream, uint32_t row);
}  // namespace ccdrec::cpu
