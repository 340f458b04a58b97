// Layers of the U-Net on the maps of 16 items (a tile). Private to kernels/cpu.
//
// A map is side x side vectors, one a pixel, an item a lane; `channels` of them follow one another. So a convolution is
// a sum of (weight, the same for all lanes) x (vector): weights are broadcast, taps that meet padding are left out, and
// a block of output channels and pixels stays in registers while the input channels pass: 4 x 4 sums, 6 vectors and 12
// weights read for 48 fma. Weights are packed in the order in which they are read.
// A weight's gradient is a vector too, over a tile's pixels; lanes are added last, 16 weights at a time.
#pragma once
#include <cstdint>

namespace ccdrec::cpu {

// How a convolution moves over its input. `down`: one zero column right and one zero row below, stride 2; `point`: 1x1.
enum class Moves { same, down, point };
struct ConvShape {
  Moves moves = Moves::same;
  int in = 0, out = 0, side = 0;  // side of the input
  int side_out() const { return moves == Moves::down ? side / 2 : side; }
  int taps() const { return moves == Moves::point ? 1 : 9; }
};

// Floats of a packed weight, either way round, and of its gradient's blocks.
int64_t packed_floats(const ConvShape&);
int64_t gradient_floats(const ConvShape&);
// w (out, in*taps) with `taps` of its own: 4 for the Down from 2x2, whose other five are zero here.
void pack_forward(float* packed, const float* w, int taps, const ConvShape&);
void pack_backward(float* packed, const float* w, int taps, const ConvShape&);
// d_w (out, in*taps) += what gradient_floats blocks hold
void unpack_gradient(float* d_w, int taps, const float* blocks, const ConvShape&);

// y (out maps) = init[o] + add + W x; init: a vector an output channel, add: maps as y, may be y; both may be null.
void convolve(float* y, const float* x, const float* packed, const ConvShape&, const float* init, const float* add);
// d_x (in maps) = add + W^T d_y
void convolve_back(float* d_x, const float* d_y, const float* packed, const ConvShape&, const float* add);
// blocks += d_y x^T. Both have maps for channels up to a multiple of four; those beyond are zero.
void convolve_gradient(float* blocks, const float* d_y, const float* x, const ConvShape&);

// to[k] += the sum of the lanes of v[k], k < n; `to` has room for a multiple of 16.
void add_lane_sums(float* to, const float* v, int n);

// Group norm in 8 groups. stats: 8 means, then 8 times 1 / sqrt(variance + eps), vectors.
struct NormShape {
  int channels = 0, pixels = 0;
  bool pairs() const { return channels == 16 && pixels == 1; }  // two values a group: closed form (kernels/unet.h)
};
struct Dropped {  // element e of the maps stays in the lanes of lanes[e], times `scale`; null: all stay
  const uint16_t* lanes = nullptr;
  float scale = 1;
};
void norm_stats(float* stats, const float* x, const NormShape&);
void normalise(float* y, const float* x, const float* stats, const float* gain, const float* bias, const NormShape&);
// act = dropped(silu(norm(x))); slope, if not null, its derivative by norm(x)
void activate(float* act, float* slope, const float* x, const float* stats, const float* gain, const float* bias,
              const NormShape&, const Dropped&);
// d_x = add + backward of norm at x. d_act is of norm(x) itself where slope is null, and is overwritten. d_gain, d_bias:
// a vector a channel, of this tile.
void norm_back(float* d_x, float* d_act, const float* slope, const float* x, const float* stats, const float* gain,
               const NormShape&, const float* add, float* d_gain, float* d_bias);

void double_pixels(float* y, const float* x, int channels, int side);     // (side,side) to (2 side, 2 side)
void halve_pixels(float* d_x, const float* d_y, int channels, int side);  // its gradient; side: of d_x
void add_maps(float* y, const float* x, int64_t vectors);                 // y += x
void sum_pixels(float* v, const float* x, int channels, int pixels);      // a vector a channel

}  // namespace ccdrec::cpu
