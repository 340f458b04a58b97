#include "kernels/cpu/fast/unet_maps.h"

#include <algorithm>

#include "kernels/cpu/fast/unet16.h"
#include "kernels/unet.h"

#define UNROLL _Pragma("GCC unroll 16")

namespace ccdrec::cpu {
namespace {

// What stays in registers: output channels x pixels of a row. 32 registers of 16 lanes, or 16 of 8.
constexpr int pixels_together(int side) { return kWideLanes ? std::min(side, 4) : std::min(side, 2); }
constexpr int outs_together(int pixels) { return !kWideLanes ? 2 : pixels == 4 ? 4 : 8; }
// Backward of Down: twice the pixels of d_y are written.
constexpr int ins_together(int pixels) {
  return !kWideLanes ? (pixels == 4 ? 1 : 2) : pixels == 4 ? 2 : pixels == 2 ? 4 : 8;
}
// Of a weight's gradient: 4 x 4 channels are a block in memory, kOuts x kIns x 3 taps in registers.
constexpr int kBlockOuts = 4, kBlockIns = 4;
constexpr int kOuts = kWideLanes ? 4 : 2, kIns = kWideLanes ? 2 : 1;

int blocks_of(int channels, int together) { return (channels + together - 1) / together; }
int together_forward(const ConvShape& s) {
  if (s.moves == Moves::point) return outs_together(s.side > 1 ? (kWideLanes ? 4 : 2) : 1);
  return outs_together(s.moves == Moves::down ? (kWideLanes ? s.side_out() : std::min(s.side_out(), 2))
                                              : pixels_together(s.side));
}
int together_backward(const ConvShape& s) {
  return s.moves == Moves::down ? ins_together(s.side_out()) : together_forward(s);
}
int tap_of(int k, int taps) { return taps == 4 ? k / 2 * 3 + k % 2 : k; }

// `outs` <= O of the block's channels exist. A channel's maps are `area` vectors.
template <int O, int P>
inline void begin(V16 (&sum)[O][P], const float* init, const float* add, int outs, int64_t area) {
  UNROLL for (int o = 0; o < O; ++o) {
    const V16 first = init && o < outs ? load16(init + o * kLanes) : splat16(0);
    UNROLL for (int p = 0; p < P; ++p) sum[o][p] =
        add && o < outs ? load16(add + (o * area + p) * kLanes) + first : first;
  }
}
template <int O, int P>
inline void end(float* y, const V16 (&sum)[O][P], int outs, int64_t area) {
  UNROLL for (int o = 0; o < O; ++o) {
    if (o >= outs) break;
    UNROLL for (int p = 0; p < P; ++p) store16(y + (o * area + p) * kLanes, sum[o][p]);
  }
}

struct Block {
  float* y;
  const float *x, *w, *init, *add;
  int in, outs, side;
};

// Pixels q .. q+P-1 of row r, channels o .. o+O-1. kLeft, kRight: the row begins or ends with them, and what lies
// beyond is padding.
template <int O, int P, bool kLeft, bool kRight>
void same_block(const Block& b, int r, int q) {
  const int64_t area = int64_t(b.side) * b.side, at = r * b.side + q;
  const int first = r == 0 ? 1 : 0, last = r == b.side - 1 ? 1 : 2;
  V16 sum[O][P];
  begin(sum, b.init, b.add ? b.add + at * kLanes : nullptr, b.outs, area);
  for (int c = 0; c < b.in; ++c) {
    for (int a = first; a <= last; ++a) {
      const float* row = b.x + (c * area + at + (a - 1) * b.side) * kLanes;
      const float* w = b.w + (c * 9 + 3 * a) * O;
      V16 x[P + 2];
      UNROLL for (int p = 0; p < P + 2; ++p) {
        if (!(kLeft && p == 0) && !(kRight && p == P + 1)) x[p] = load16(row + (p - 1) * kLanes);
      }
      UNROLL for (int e = 0; e < 3; ++e) {
        UNROLL for (int o = 0; o < O; ++o) {
          const V16 w_o = splat16(w[e * O + o]);
          UNROLL for (int p = 0; p < P; ++p) {
            if (!(kLeft && p + e == 0) && !(kRight && p + e == P + 1)) sum[o][p] = fma16(w_o, x[p + e], sum[o][p]);
          }
        }
      }
    }
  }
  end(b.y + at * kLanes, sum, b.outs, area);
}
template <int O, int P>
void same_rows(const Block& b) {
  for (int r = 0; r < b.side; ++r) {
    for (int q = 0; q < b.side; q += P) {
      const bool left = q == 0, right = q + P == b.side;
      if (left && right) {
        same_block<O, P, true, true>(b, r, q);
      } else if (left) {
        same_block<O, P, true, false>(b, r, q);
      } else if (right) {
        same_block<O, P, false, true>(b, r, q);
      } else {
        same_block<O, P, false, false>(b, r, q);
      }
    }
  }
}

// Pixels j .. j+P-1 of row i of the halved map; kRight: they end it.
template <int O, int P, bool kRight>
void down_block(const Block& b, int i, int j) {
  const int half = b.side / 2, last = 2 * i + 2 < b.side ? 2 : 1;
  const int64_t area = int64_t(b.side) * b.side, area_out = int64_t(half) * half;
  V16 sum[O][P];
  begin(sum, b.init, static_cast<const float*>(nullptr), b.outs, area_out);
  for (int c = 0; c < b.in; ++c) {
    for (int a = 0; a <= last; ++a) {
      const float* row = b.x + (c * area + (2 * i + a) * b.side + 2 * j) * kLanes;
      const float* w = b.w + (c * 9 + 3 * a) * O;
      V16 x[2 * P + 1];
      UNROLL for (int p = 0; p < 2 * P + 1; ++p) {
        if (!(kRight && p == 2 * P)) x[p] = load16(row + p * kLanes);
      }
      UNROLL for (int e = 0; e < 3; ++e) {
        UNROLL for (int o = 0; o < O; ++o) {
          const V16 w_o = splat16(w[e * O + o]);
          UNROLL for (int p = 0; p < P; ++p) {
            if (!(kRight && 2 * p + e == 2 * P)) sum[o][p] = fma16(w_o, x[2 * p + e], sum[o][p]);
          }
        }
      }
    }
  }
  end(b.y + (i * half + j) * kLanes, sum, b.outs, area_out);
}
template <int O, int P>
void down_rows(const Block& b) {
  const int half = b.side / 2;
  for (int i = 0; i < half; ++i) {
    for (int j = 0; j < half; j += P)
      j + P == half ? down_block<O, P, true>(b, i, j) : down_block<O, P, false>(b, i, j);
  }
}

// Row r of d_x: its row of d_y is r/2 with taps 0 (r even) or 1 (odd), and the one above with tap 2 (even).
template <int O, int P>
void down_back_rows(const Block& b) {
  const int half = P;
  const int64_t area = int64_t(b.side) * b.side, area_out = int64_t(half) * half;
  for (int r = 0; r < b.side; ++r) {
    V16 sum[O][2 * P];
    begin(sum, static_cast<const float*>(nullptr), b.add ? b.add + r * b.side * kLanes : nullptr, b.outs, area);
    for (int c = 0; c < b.in; ++c) {
      for (int a = r % 2; a <= r && a < 3; a += 2) {
        const float* row = b.x + (c * area_out + (r - a) / 2 * half) * kLanes;
        const float* w = b.w + (c * 9 + 3 * a) * O;
        V16 d_y[P];
        UNROLL for (int p = 0; p < P; ++p) d_y[p] = load16(row + p * kLanes);
        UNROLL for (int e = 0; e < 3; ++e) {
          UNROLL for (int o = 0; o < O; ++o) {
            const V16 w_o = splat16(w[e * O + o]);
            UNROLL for (int p = 0; p < P; ++p) {
              if (2 * p + e < 2 * P) sum[o][2 * p + e] = fma16(w_o, d_y[p], sum[o][2 * p + e]);
            }
          }
        }
      }
    }
    end(b.y + r * b.side * kLanes, sum, b.outs, area);
  }
}

template <int O, int P>
void point_pixels(const Block& b) {
  const int64_t area = int64_t(b.side) * b.side;
  for (int64_t at = 0; at < area; at += P) {
    V16 sum[O][P];
    begin(sum, b.init, b.add ? b.add + at * kLanes : nullptr, b.outs, area);
    for (int c = 0; c < b.in; ++c) {
      V16 x[P];
      UNROLL for (int p = 0; p < P; ++p) x[p] = load16(b.x + (c * area + at + p) * kLanes);
      UNROLL for (int o = 0; o < O; ++o) {
        const V16 w_o = splat16(b.w[c * O + o]);
        UNROLL for (int p = 0; p < P; ++p) sum[o][p] = fma16(w_o, x[p], sum[o][p]);
      }
    }
    end(b.y + at * kLanes, sum, b.outs, area);
  }
}

template <int P>
void rows_of(Moves moves, const Block& b) {
  if (moves == Moves::point) point_pixels<outs_together(P), P>(b);
  if (moves == Moves::same) same_rows<outs_together(P), P>(b);
  if (moves == Moves::down) down_rows<outs_together(P), P>(b);
}

// All blocks of output channels. A weight's block is in * taps * together floats.
template <class Rows>
void each_block(float* y, const float* x, const float* packed, int in, int out, int taps, int side, int64_t area_out,
                int together, const float* init, const float* add, Rows&& rows) {
  for (int o = 0; o < out; o += together) {
    const int64_t at = o * area_out * kLanes;
    rows(Block{y + at, x, packed + int64_t(o) * in * taps, init ? init + o * kLanes : nullptr, add ? add + at : nullptr,
               in, std::min(together, out - o), side});
  }
}

void convolve_by(float* y, const float* x, const float* packed, const ConvShape& s, int in, int out, const float* init,
                 const float* add) {
  const int64_t area_out = int64_t(s.side_out()) * s.side_out();
  const int row = s.moves == Moves::point ? (s.side > 1 ? 4 : 1) : s.side_out();
  const int pixels = kWideLanes ? std::min(row, 4) : std::min(row, 2);
  each_block(y, x, packed, in, out, s.taps(), s.side, area_out, together_forward(s), init, add, [&](const Block& b) {
    if (pixels == 4) {
      rows_of<kWideLanes ? 4 : 2>(s.moves, b);
    } else if (pixels == 2) {
      rows_of<2>(s.moves, b);
    } else {
      rows_of<1>(s.moves, b);
    }
  });
}

// The gradient of kOuts x kIns channels' taps in row a, summed over all pixels; written where a block has them.
template <bool kDown>
void gradient_taps(float* block, const float* d_y, const float* x, int side, int a) {
  const int side_out = kDown ? side / 2 : side, stride = kDown ? 2 : 1, pad = kDown ? 0 : 1;
  const int64_t area = int64_t(side) * side, area_out = int64_t(side_out) * side_out;
  V16 sum[kOuts][kIns][3];
  UNROLL for (int o = 0; o < kOuts; ++o) {
    UNROLL for (int c = 0; c < kIns; ++c) { UNROLL for (int e = 0; e < 3; ++e) sum[o][c][e] = splat16(0); }
  }
  for (int i = 0; i < side_out; ++i) {
    const int r = stride * i + a - pad;
    if (r < 0 || r >= side) continue;
    const auto pixel = [&](int j, auto left, auto right) {
      V16 d[kOuts];
      UNROLL for (int o = 0; o < kOuts; ++o) d[o] = load16(d_y + (o * area_out + i * side_out + j) * kLanes);
      UNROLL for (int c = 0; c < kIns; ++c) {
        UNROLL for (int e = 0; e < 3; ++e) {
          if ((left && e == 0) || (right && e == 2)) continue;
          const V16 x_ce = load16(x + (c * area + r * side + stride * j + e - pad) * kLanes);
          UNROLL for (int o = 0; o < kOuts; ++o) sum[o][c][e] = fma16(d[o], x_ce, sum[o][c][e]);
        }
      }
    };
    using Yes = std::true_type;
    using No = std::false_type;
    if constexpr (kDown) {  // its left edge has no padding
      for (int j = 0; j < side_out - 1; ++j) pixel(j, No{}, No{});
      pixel(side_out - 1, No{}, Yes{});
    } else {
      pixel(0, Yes{}, No{});
      for (int j = 1; j < side_out - 1; ++j) pixel(j, No{}, No{});
      pixel(side_out - 1, No{}, Yes{});
    }
  }
  UNROLL for (int o = 0; o < kOuts; ++o) {
    UNROLL for (int c = 0; c < kIns; ++c) {
      UNROLL for (int e = 0; e < 3; ++e) store16(block + ((o * kBlockIns + c) * 9 + 3 * a + e) * kLanes, sum[o][c][e]);
    }
  }
}
// The same of one tap, a whole block.
void gradient_points(float* block, const float* d_y, const float* x, int64_t area) {
  constexpr int kC = kWideLanes ? 4 : 2;
  for (int o0 = 0; o0 < kBlockOuts; o0 += kOuts) {
    for (int c0 = 0; c0 < kBlockIns; c0 += kC) {
      V16 sum[kOuts][kC];
      UNROLL for (int o = 0; o < kOuts; ++o) { UNROLL for (int c = 0; c < kC; ++c) sum[o][c] = splat16(0); }
      for (int64_t p = 0; p < area; ++p) {
        V16 d[kOuts];
        UNROLL for (int o = 0; o < kOuts; ++o) d[o] = load16(d_y + ((o0 + o) * area + p) * kLanes);
        UNROLL for (int c = 0; c < kC; ++c) {
          const V16 x_c = load16(x + ((c0 + c) * area + p) * kLanes);
          UNROLL for (int o = 0; o < kOuts; ++o) sum[o][c] = fma16(d[o], x_c, sum[o][c]);
        }
      }
      UNROLL for (int o = 0; o < kOuts; ++o) {
        UNROLL for (int c = 0; c < kC; ++c) store16(block + ((o0 + o) * kBlockIns + c0 + c) * kLanes, sum[o][c]);
      }
    }
  }
}

}  // namespace

int64_t packed_floats(const ConvShape& s) {
  const auto rounded = [](int channels) { return int64_t(blocks_of(channels, 8)) * 8; };  // a multiple of any block
  return std::max(rounded(s.in) * s.out, rounded(s.out) * s.in) * s.taps();
}
int64_t gradient_floats(const ConvShape& s) {
  return int64_t(blocks_of(s.out, kBlockOuts)) * blocks_of(s.in, kBlockIns) * kBlockOuts * kBlockIns * s.taps();
}
void pack_forward(float* packed, const float* w, int taps, const ConvShape& s) {
  const int O = together_forward(s);
  std::fill_n(packed, packed_floats(s), 0.0f);
  for (int o = 0; o < s.out; ++o) {
    for (int c = 0; c < s.in; ++c) {
      for (int k = 0; k < taps; ++k)
        packed[((int64_t(o / O) * s.in + c) * s.taps() + tap_of(k, taps)) * O + o % O] = w[(o * s.in + c) * taps + k];
    }
  }
}
void pack_backward(float* packed, const float* w, int taps, const ConvShape& s) {
  const int C = together_backward(s);
  std::fill_n(packed, packed_floats(s), 0.0f);
  for (int o = 0; o < s.out; ++o) {
    for (int c = 0; c < s.in; ++c) {
      for (int k = 0; k < taps; ++k) {
        const int tap = s.moves == Moves::same ? 8 - k : tap_of(k, taps);
        packed[((int64_t(c / C) * s.out + o) * s.taps() + tap) * C + c % C] = w[(o * s.in + c) * taps + k];
      }
    }
  }
}
void unpack_gradient(float* d_w, int taps, const float* blocks, const ConvShape& s) {
  const int in_blocks = blocks_of(s.in, kBlockIns);
  for (int o = 0; o < s.out; ++o) {
    for (int c = 0; c < s.in; ++c) {
      const int64_t block = int64_t(o / kBlockOuts) * in_blocks + c / kBlockIns;
      const float* from = blocks + ((block * kBlockOuts + o % kBlockOuts) * kBlockIns + c % kBlockIns) * s.taps();
      for (int k = 0; k < taps; ++k) d_w[(o * s.in + c) * taps + k] += from[tap_of(k, taps)];
    }
  }
}

void convolve(float* y, const float* x, const float* packed, const ConvShape& s, const float* init, const float* add) {
  convolve_by(y, x, packed, s, s.in, s.out, init, add);
}
void convolve_back(float* d_x, const float* d_y, const float* packed, const ConvShape& s, const float* add) {
  if (s.moves != Moves::down) return convolve_by(d_x, d_y, packed, s, s.out, s.in, nullptr, add);
  each_block(d_x, d_y, packed, s.out, s.in, 9, s.side, int64_t(s.side) * s.side, together_backward(s), nullptr, add,
             [&](const Block& b) {
               if (s.side == 8) {
                 down_back_rows<ins_together(4), 4>(b);
               } else if (s.side == 4) {
                 down_back_rows<ins_together(2), 2>(b);
               } else {
                 down_back_rows<ins_together(1), 1>(b);
               }
             });
}
void convolve_gradient(float* blocks, const float* d_y, const float* x, const ConvShape& s) {
  const int64_t area = int64_t(s.side) * s.side, area_out = int64_t(s.side_out()) * s.side_out();
  const int64_t size = kBlockOuts * kBlockIns * s.taps();
  alignas(64) float block[kBlockOuts * kBlockIns * 9 * kLanes];
  for (int o = 0; o < s.out; o += kBlockOuts) {
    for (int c = 0; c < s.in; c += kBlockIns, blocks += size) {
      const float *d_o = d_y + o * area_out * kLanes, *x_c = x + c * area * kLanes;
      if (s.moves == Moves::point) {
        gradient_points(block, d_o, x_c, area);
      } else {
        for (int o1 = 0; o1 < kBlockOuts; o1 += kOuts) {
          for (int c1 = 0; c1 < kBlockIns; c1 += kIns) {
            float* to = block + (o1 * kBlockIns + c1) * 9 * kLanes;
            const float *d_1 = d_o + o1 * area_out * kLanes, *x_1 = x_c + c1 * area * kLanes;
            for (int a = 0; a < 3; ++a)
              s.moves == Moves::down ? gradient_taps<true>(to, d_1, x_1, s.side, a)
                                     : gradient_taps<false>(to, d_1, x_1, s.side, a);
          }
        }
      }
      add_lane_sums(blocks, block, int(size));
    }
  }
}

void add_lane_sums(float* to, const float* v, int n) {
  int k = 0;
  for (; k + kLanes <= n; k += kLanes) store16(to + k, load16(to + k) + sums16(v + k * kLanes));
  if (k == n) return;
  alignas(64) float rest[kLanes * kLanes] = {};
  std::copy_n(v + k * kLanes, (n - k) * kLanes, rest);
  store16(to + k, load16(to + k) + sums16(rest));
}

void norm_stats(float* stats, const float* x, const NormShape& s) {
  const int64_t N = s.channels * s.pixels / kUnetGroups;
  const V16 share = splat16(1.0f / float(N)), eps = splat16(kUnetEps);
  for (int64_t group = 0; group < kUnetGroups; ++group, x += N * kLanes) {
    V16 mean, variance;
    if (N == 2) {
      const V16 half = (load16(x) - load16(x + kLanes)) * splat16(0.5f);
      mean = (load16(x) + load16(x + kLanes)) * splat16(0.5f);
      variance = half * half;
    } else {  // a multiple of four values: four sums hide the latency
      V16 sum[4] = {splat16(0), splat16(0), splat16(0), splat16(0)};
      for (int64_t e = 0; e < N; e += 4) { UNROLL for (int k = 0; k < 4; ++k) sum[k] += load16(x + (e + k) * kLanes); }
      mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * share;
      V16 squares[4] = {splat16(0), splat16(0), splat16(0), splat16(0)};
      for (int64_t e = 0; e < N; e += 4) {
        UNROLL for (int k = 0; k < 4; ++k) {
          const V16 c = load16(x + (e + k) * kLanes) - mean;
          squares[k] = fma16(c, c, squares[k]);
        }
      }
      variance = ((squares[0] + squares[1]) + (squares[2] + squares[3])) * share;
    }
    store16(stats + group * kLanes, mean);
    store16(stats + (kUnetGroups + group) * kLanes, splat16(1.0f) / sqrt16_of(variance + eps));
  }
}

namespace {
// Calls f(first element, N normalised values, channel) for all of the maps, by channels: N = 4 pixels at a time, or 1.
template <class F>
inline void each_normalised(const float* x, const float* stats, const NormShape& s, F&& f) {
  const int each = s.channels / kUnetGroups;
  for (int c = 0; c < s.channels; ++c) {
    const V16 mean = load16(stats + c / each * kLanes), rstd = load16(stats + (kUnetGroups + c / each) * kLanes);
    if (s.pairs()) {
      const V16 half = (load16(x + c * kLanes) - load16(x + (c ^ 1) * kLanes)) * splat16(0.5f);
      const V16 xh[1] = {half * rstd};
      f(int64_t(c), xh, c);
    } else if (s.pixels == 1) {
      const V16 xh[1] = {(load16(x + c * kLanes) - mean) * rstd};
      f(int64_t(c), xh, c);
    } else {
      for (int64_t e = int64_t(c) * s.pixels; e < int64_t(c + 1) * s.pixels; e += 4) {
        V16 xh[4];
        UNROLL for (int k = 0; k < 4; ++k) xh[k] = (load16(x + (e + k) * kLanes) - mean) * rstd;
        f(e, xh, c);
      }
    }
  }
}

template <bool kSlope, bool kDrop>
void activate_all(float* act, float* slope, const float* x, const float* stats, const float* gain, const float* bias,
                  const NormShape& s, const Dropped& dropped) {
  const V16 one = splat16(1.0f), scale = splat16(dropped.scale);
  each_normalised(x, stats, s, [&]<int N>(int64_t first, const V16(&xh)[N], int c) {
    V16 z[N], sigmoid[N];
    UNROLL for (int k = 0; k < N; ++k) z[k] = fma16(splat16(gain[c]), xh[k], splat16(bias[c]));
    sigmoid16(sigmoid, z);
    UNROLL for (int k = 0; k < N; ++k) {
      V16 y = z[k] * sigmoid[k];
      if (kDrop) y = kept16(y * scale, dropped.lanes[first + k]);
      store16(act + (first + k) * kLanes, y);
      if (!kSlope) continue;
      V16 by_z = sigmoid[k] * fma16(z[k], one - sigmoid[k], one);
      if (kDrop) by_z = kept16(by_z * scale, dropped.lanes[first + k]);
      store16(slope + (first + k) * kLanes, by_z);
    }
  });
}
}  // namespace

void normalise(float* y, const float* x, const float* stats, const float* gain, const float* bias, const NormShape& s) {
  each_normalised(x, stats, s, [&]<int N>(int64_t first, const V16(&xh)[N], int c) {
    for (int k = 0; k < N; ++k) store16(y + (first + k) * kLanes, fma16(splat16(gain[c]), xh[k], splat16(bias[c])));
  });
}
void activate(float* act, float* slope, const float* x, const float* stats, const float* gain, const float* bias,
              const NormShape& s, const Dropped& dropped) {
  const bool drop = dropped.lanes != nullptr;
  const auto run = slope ? (drop ? activate_all<true, true> : activate_all<true, false>)
                         : (drop ? activate_all<false, true> : activate_all<false, false>);
  run(act, slope, x, stats, gain, bias, s, dropped);
}

void norm_back(float* d_x, float* d_act, const float* slope, const float* x, const float* stats, const float* gain,
               const NormShape& s, const float* add, float* d_gain, float* d_bias) {
  const int each = s.channels / kUnetGroups, pixels = s.pixels;
  const V16 share = splat16(1.0f / float(each * pixels));
  const auto added = [&](int64_t e, const V16& v) {
    store16(d_x + e * kLanes, add ? load16(add + e * kLanes) + v : v);
  };
  for (int group = 0; group < kUnetGroups; ++group) {
    const V16 mean = load16(stats + group * kLanes), rstd = load16(stats + (kUnetGroups + group) * kLanes);
    const int first = group * each;
    if (s.pairs()) {
      const V16 xh = (load16(x + first * kLanes) - load16(x + (first + 1) * kLanes)) * splat16(0.5f) * rstd;
      V16 q[2];
      for (int k = 0; k < 2; ++k) {
        const int64_t at = (first + k) * kLanes;
        const V16 d_z = slope ? load16(d_act + at) * load16(slope + at) : load16(d_act + at);
        store16(d_bias + at, d_z);
        store16(d_gain + at, k ? -(d_z * xh) : d_z * xh);
        q[k] = d_z * splat16(gain[first + k]);
      }
      const V16 d = (q[0] - q[1]) * splat16(0.5f * kUnetEps) * (rstd * rstd * rstd);
      added(first, d), added(first + 1, -d);
      continue;
    }
    V16 mean_q = splat16(0), along = mean_q;
    for (int c = first; c < first + each; ++c) {
      V16 sum[2] = {splat16(0), splat16(0)}, by_xh[2] = {splat16(0), splat16(0)};  // of even and odd pixels
      const auto pixel = [&](int64_t e, int k) {
        const V16 d = load16(d_act + e * kLanes), d_z = slope ? d * load16(slope + e * kLanes) : d;
        const V16 xh = (load16(x + e * kLanes) - mean) * rstd;
        if (slope) store16(d_act + e * kLanes, d_z);
        sum[k] += d_z;
        by_xh[k] = fma16(d_z, xh, by_xh[k]);
      };
      int64_t e = int64_t(c) * pixels;
      for (; e + 2 <= int64_t(c + 1) * pixels; e += 2) pixel(e, 0), pixel(e + 1, 1);
      if (pixels == 1) pixel(e, 0);
      store16(d_bias + c * kLanes, sum[0] + sum[1]);
      store16(d_gain + c * kLanes, by_xh[0] + by_xh[1]);
      mean_q = fma16(splat16(gain[c]), sum[0] + sum[1], mean_q);
      along = fma16(splat16(gain[c]), by_xh[0] + by_xh[1], along);
    }
    mean_q = mean_q * share, along = along * share;
    for (int c = first; c < first + each; ++c) {
      for (int64_t e = int64_t(c) * pixels; e < int64_t(c + 1) * pixels; ++e) {
        const V16 xh = (load16(x + e * kLanes) - mean) * rstd;
        const V16 q = splat16(gain[c]) * load16(d_act + e * kLanes);
        added(e, rstd * (q - mean_q - xh * along));
      }
    }
  }
}

void double_pixels(float* y, const float* x, int channels, int side) {
  for (int64_t row = 0; row < int64_t(channels) * side; ++row) {
    for (int q = 0; q < side; ++q) {
      const V16 v = load16(x + (row * side + q) * kLanes);
      for (int k = 0; k < 4; ++k) store16(y + ((2 * row + k / 2) * 2 * side + 2 * q + k % 2) * kLanes, v);
    }
  }
}
void halve_pixels(float* d_x, const float* d_y, int channels, int side) {
  for (int64_t row = 0; row < int64_t(channels) * side; ++row) {
    for (int q = 0; q < side; ++q) {
      const auto at = [&](int k) { return load16(d_y + ((2 * row + k / 2) * 2 * side + 2 * q + k % 2) * kLanes); };
      store16(d_x + (row * side + q) * kLanes, (at(0) + at(1)) + (at(2) + at(3)));
    }
  }
}
void add_maps(float* y, const float* x, int64_t vectors) {
  for (int64_t e = 0; e < vectors; ++e) store16(y + e * kLanes, load16(y + e * kLanes) + load16(x + e * kLanes));
}
void sum_pixels(float* v, const float* x, int channels, int pixels) {
  for (int c = 0; c < channels; ++c) {
    V16 sum[2] = {splat16(0), splat16(0)};  // of even and odd pixels
    for (int p = 0; p < pixels; ++p) sum[p % 2] += load16(x + (c * pixels + p) * kLanes);
    store16(v + c * kLanes, sum[0] + sum[1]);
  }
}

}  // namespace ccdrec::cpu
