// The U-Net's plan on a GPU, and what a warp does with the maps of its item. Private to kernels/cuda.
//
// A block takes a few items, a warp each. All maps of an item lie in shared memory; what a block shares are the weights
// of one stage at a time. A stage is one convolution with what stands before it: kUnet's layers cut in UnetStage.
//
// Maps     a channel of side 8 takes 68 floats, of side 4 20 (neighbouring channels start in other banks), else side^2.
//          Row r of side 8: its halves of four columns are swapped for r >= 4, so that the same half of eight rows lies
//          in eight different bank groups. In global memory (UnetSaved) channels follow each other without gaps, in the
//          same order of pixels.
// Item     kItemFloats floats: [skips of side 8 | P | Q | Z]. The current map lies in P or Q, or on the skip stack
//          where it was pushed; Res's inner map `a` in the upper half of the other of P and Q; Z holds what the running
//          convolution reads. At side 8 nobody needs the smaller skips, which lie at Z's end. A gradient lies where the
//          value lay: whoever reads a map later in the network adds to its gradient first.
#pragma once
#include "kernels/cuda/chip.h"
#include "kernels/cuda/reduce.h"
#include "kernels/numbers.h"
#include "kernels/unet.h"

namespace ccdrec::cuda {

// --- the plan --------------------------------------------------------------------------------------------------------

CCDREC_HD constexpr int channel_stride(int side) { return side == 8 ? 68 : side == 4 ? 20 : side * side; }
// Where a pixel of a channel lies in it.
CCDREC_HD constexpr int pixel_place(int side, int pixel) { return side == 8 ? pixel ^ ((pixel >> 5 & 1) << 2) : pixel; }

constexpr int kMap8 = 8 * channel_stride(8);                 // 8 channels of side 8
constexpr int kMapP = 3 * kMap8, kMapQ = kMapP + 2 * kMap8;  // behind the three skips of side 8
constexpr int kMapZ = kMapQ + 2 * kMap8;                     // up to 24 channels of side 8
constexpr int kSmallSkips = kMapZ + 32 * channel_stride(4);
constexpr int kItemFloats =
    kSmallSkips + 40 * channel_stride(4) + 48 * channel_stride(2) + 48 * channel_stride(1);  // 5488, 21 KB

enum class UnetStage : uint8_t { image, conv, head, down, up, attention };

struct StageShape {
  UnetStage kind = UnetStage::conv;
  uint8_t in = 0, out = 0;       // channels of the convolution
  uint8_t taps = 0;              //
  uint8_t points = 0;            // input channels of the shortcut, 1 x 1, that is added to it; 0: none
  int16_t weight = 0, gain = 0;  // tensors; weight, bias [shortcut's weight, bias]; gain, shift
  int32_t at = 0;                // of its parameters among those of all stages
  CCDREC_HD constexpr int normed() const { return kind == UnetStage::conv || kind == UnetStage::head ? in : 0; }
};
struct MapPlace {
  int16_t shared = 0;  // in the item
  int16_t saved = 0;   // in its row of UnetSaved
};
struct Stage : StageShape {
  uint8_t side = 0;                     // of what the convolution reads: for Up the doubled map
  uint8_t first = 0, points_first = 0;  // channels that x0, r0 have; the others are those of x1, r1
  bool identity = false;                // r0 is added to the result
  bool x_adds = false, r_adds = false;  // backward: x0 and x1, or r0, have a gradient already
  MapPlace x0, x1, r0, r1, y;
  int16_t mask = -1;        // first element in the dropout mask
  int16_t projection = -1;  // first column of the time projections
  CCDREC_HD constexpr int side_out() const { return kind == UnetStage::down ? side / 2 : side; }
};

// How a stage's parameters are laid out. Staged forward: [in][taps][out even], shortcut [points][out], bias, gain,
// shift. Backward: [out][taps, turned round][in even], shortcut [out][points], gain, shift. Their gradients:
// [taps][in][out], shortcut [points][out], bias, gain, shift. The attention's are the same in all three but for the
// order within its weights: gain, shift, value, its bias, out, its bias.
enum class Laid : uint8_t { forward, backward, gradients };
struct StageLayout {
  int point = 0, bias = 0, gain = 0, shift = 0, floats = 0;
};
CCDREC_HD constexpr int even(int n) { return (n + 1) / 2 * 2; }
constexpr int kAttentionValue = 32, kAttentionOut = 32 + 16 * 17, kAttentionFloats = 32 + 2 * 16 * 17;
CCDREC_HD constexpr StageLayout stage_layout(const StageShape& s, Laid laid) {
  StageLayout l;
  if (s.kind == UnetStage::attention) {
    l.shift = 16, l.floats = kAttentionFloats;
    return l;
  }
  const int rows = laid == Laid::backward ? s.out : s.in;
  const int cols = laid == Laid::forward ? even(s.out) : laid == Laid::backward ? even(s.in) : s.out;
  l.point = rows * s.taps * cols;
  l.bias = l.point + s.points * s.out;
  l.gain = l.bias + (laid == Laid::forward ? even(s.out) : laid == Laid::backward ? 0 : s.out);
  l.shift = l.gain + s.normed();
  l.floats = (l.shift + s.normed() + 3) / 4 * 4;
  return l;
}

struct TimeColumns {  // of a Res among the time projections
  int16_t weight = 0, column = 0, out = 0;
};
constexpr int kUnetStages = 53, kUnetRes = 22, kUnetColumns = 312;
constexpr int kUnetSums = 80;  // of a stage and item: bias 0.., gain 16.., shift 48..; the attention's inner bias 64..

struct UnetStages {
  Stage stage[kUnetStages];
};
struct UnetPlan {
  UnetStages stages{};
  TimeColumns time[kUnetRes]{};
  int count = 0, res = 0, columns = 0;
  int parameters = 0;   // floats of all stages' parameters, in the longest layout
  int most_staged = 0;  // of one stage
  int saved = 0;        // floats of UnetSaved; the gradients of the projections follow
  int skips8 = 0, skips = kSmallSkips;
};

constexpr UnetPlan make_unet_plan() {
  UnetPlan p;
  MapPlace stack[kUnetLayers]{}, current{};
  int top = 0;
  bool in_p = false, pushed = false;
  const auto keep = [&](int shared, int channels, int side) {
    const MapPlace at{int16_t(shared), int16_t(p.saved)};
    p.saved += channels * side * side;
    return at;
  };
  const auto add = [&](Stage s) {
    s.at = p.parameters;
    int most = 0;
    for (const Laid laid : {Laid::forward, Laid::backward, Laid::gradients}) {
      const int floats = stage_layout(s, laid).floats;
      if (floats > most) most = floats;
    }
    p.parameters += most;
    if (most > p.most_staged) p.most_staged = most;
    p.stages.stage[p.count++] = s;
  };
  for (int k = 0; k < kUnet.layers; ++k) {
    const UnetLayer& l = kUnet.layer[size_t(k)];
    const int next = in_p ? kMapQ : kMapP, side = l.side_out();
    int to = next;
    if (l.pushes) {
      int& free = side == 8 ? p.skips8 : p.skips;
      to = free;
      free += l.out * channel_stride(side);
    }
    Stage s;
    s.in = uint8_t(l.in), s.out = uint8_t(l.out), s.taps = uint8_t(l.taps()), s.side = uint8_t(l.side);
    s.x0 = current, s.x_adds = pushed, s.first = uint8_t(l.in - l.skip_in);
    s.weight = s.gain = int16_t(l.first);
    switch (l.kind) {
      case UnetKind::stem:
        s.kind = UnetStage::image;
        break;
      case UnetKind::down:
        s.kind = UnetStage::down;
        break;
      case UnetKind::up:
        s.kind = UnetStage::up, s.side = uint8_t(side);
        break;
      case UnetKind::attention:
        s.kind = UnetStage::attention;
        break;
      case UnetKind::head:
        s.kind = UnetStage::head, s.weight = int16_t(l.first + 2);
        break;
      case UnetKind::res: {
        if (l.skip_in) s.x1 = stack[--top];
        Stage second = s;
        s.y = keep(next + kMap8, l.out, side);
        s.weight = int16_t(l.first + 2), s.projection = int16_t(p.columns), s.x_adds = true;
        p.time[p.res++] = {int16_t(l.first + 4), int16_t(p.columns), int16_t(l.out)};
        p.columns += l.out;
        add(s);
        second.r0 = s.x0, second.r1 = s.x1, second.r_adds = pushed;
        second.points = l.shortcut ? uint8_t(l.in) : uint8_t(0);
        second.points_first = s.first, second.identity = !l.shortcut;
        second.in = second.first = s.out, second.x0 = s.y, second.x1 = {}, second.x_adds = false;
        second.weight = int16_t(l.first + 8), second.gain = int16_t(l.first + 6), second.mask = int16_t(l.mask_at);
        s = second;
        break;
      }
    }
    s.y = l.kind == UnetKind::head ? MapPlace{int16_t(to), 0} : keep(to, l.out, side);
    add(s);
    current = s.y, pushed = l.pushes;
    if (l.pushes)
      stack[top++] = current;
    else
      in_p = next == kMapP;
  }
  return p;
}
inline constexpr UnetPlan kUnetPlan = make_unet_plan();
static_assert(kUnetPlan.count == kUnetStages && kUnetPlan.res == kUnetRes && kUnetPlan.columns == kUnetColumns);
static_assert(kUnetPlan.skips8 == kMapP && kUnetPlan.skips == kItemFloats && kItemFloats % 4 == 0);
static_assert(kUnetPlan.saved + kUnetColumns <= kUnetSaved && kUnetSaved % 4 == 0);
// What the backward takes for granted: Down's input was pushed, Up's and the attention's was not.
constexpr bool first_gradients_known() {
  for (const Stage& s : kUnetPlan.stages.stage) {
    if (s.kind == UnetStage::down && !s.x_adds) return false;
    if ((s.kind == UnetStage::up || s.kind == UnetStage::attention) && s.x_adds) return false;
  }
  return true;
}
static_assert(first_gradients_known());

constexpr int kUnetFloats = kUnetPlan.parameters, kUnetSavedMaps = kUnetPlan.saved;

// Shared memory of a block, in floats.
constexpr int kZeros = 8;                       // what rows outside a map are read from
constexpr int kStaged = kUnetPlan.most_staged;  // 18.3 KB
constexpr int kBlockFloats = kZeros + kStaged;  // and, backward, kUnetSums an item
constexpr int kMostItems = 8, kMostThreads = kMostItems * kWarp;

// --- small things ----------------------------------------------------------------------------------------------------

__device__ inline float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline float2 two(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ inline float sigmoid(float x) {
  const float e = portable_exp(-std::fabs(x)), r = 1.0f / (1.0f + e);
  return x >= 0 ? r : e * r;
}
__device__ inline float silu(float x) { return x * sigmoid(x); }
__device__ inline float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * fmaf(x, 1.0f - s, 1.0f);
}

template <int N>
struct Side {
  static constexpr int value = N;
};
template <class F>
__device__ inline void with_side(int side, F&& f) {
  switch (side) {
    case 8:
      return f(Side<8>{});
    case 4:
      return f(Side<4>{});
    case 2:
      return f(Side<2>{});
    default:
      return f(Side<1>{});
  }
}

// Channels that lie in two places: the first n, then the others.
struct Maps {
  const float *p0, *p1;
  int n, stride;
  __device__ const float* at(int c) const { return c < n ? p0 + c * stride : p1 + (c - n) * stride; }
};
__device__ inline Maps shared_maps(const float* m, MapPlace a, MapPlace b, int n, int side) {
  return {m + a.shared, m + b.shared, n, channel_stride(side)};
}
__device__ inline Maps saved_maps(const float* row, MapPlace a, MapPlace b, int n, int side) {
  return {row + a.saved, row + b.saved, n, side * side};
}

// Row r of a channel.
template <int SIDE>
__device__ inline void load_pixels(float (&x)[SIDE], const float* channel, int r) {
  if constexpr (SIDE == 8) {
    const int low = 8 * r + (r & 4), high = 8 * r + 4 - (r & 4);
    const float4 a = four(channel + low), b = four(channel + high);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  } else if constexpr (SIDE == 4) {
    const float4 a = four(channel + 4 * r);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  } else if constexpr (SIDE == 2) {
    const float2 a = two(channel + 2 * r);
    x[0] = a.x, x[1] = a.y;
  } else {
    x[0] = channel[r];
  }
}

struct Drop {  // the dropout of an item; without bits nothing is dropped
  const uint16_t* bits = nullptr;
  int first = 0;
  float kept = 1;  // 1 / keep
};
// What V pixels from an element on are multiplied with. An element's word holds all four.
template <int V>
__device__ inline Columns<V> factors(const Drop& drop, int element) {
  Columns<V> f;
  const int e = drop.first + element;
  const unsigned word = drop.bits ? unsigned(drop.bits[e / kMaskBits]) >> (e % kMaskBits) : 0u;
#pragma unroll
  for (int v = 0; v < V; ++v) f.v[v] = drop.bits ? ((word >> v) & 1u ? drop.kept : 0.0f) : 1.0f;
  return f;
}

// --- weights ---------------------------------------------------------------------------------------------------------

// The parameters of the next stage, on their way to shared memory while the running one computes: 5 x 16 bytes a thread
// are all of them where a block has 8 warps; smaller blocks fetch the rest when it is put.
struct Ahead {
  static constexpr int kPieces = 5;
  float4 piece[kPieces];
  __device__ void fetch(const float* from, int floats) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int k = 4 * int(threadIdx.x + unsigned(i) * blockDim.x);
      piece[i] = k < floats ? four(from + k) : make_float4(0, 0, 0, 0);
    }
  }
  __device__ void put(float* w, const float* from, int floats) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int k = 4 * int(threadIdx.x + unsigned(i) * blockDim.x);
      if (k < floats) *reinterpret_cast<float4*>(w + k) = piece[i];
    }
    for (int k = 4 * int(threadIdx.x + kPieces * blockDim.x); k < floats; k += 4 * int(blockDim.x))
      *reinterpret_cast<float4*>(w + k) = four(from + k);
  }
};

// --- norms -----------------------------------------------------------------------------------------------------------

// Side 2 and more: four lanes own a group of the norm, lane q of them the pieces q, q + 4, .. of each of its channels,
// a piece being four pixels, at side 2 one. f(channel, first place).
template <int SIDE>
constexpr int kPiece = SIDE >= 4 ? 4 : 1;
template <int SIDE, class F>
__device__ inline void for_pieces(int lane, int channels, F&& f) {
  constexpr int V = kPiece<SIDE>, N = SIDE * SIDE / (4 * V);
  const int per_group = channels / kUnetGroups, q = lane % 4;
#pragma unroll 1
  for (int k = 0; k < per_group; ++k) {
#pragma unroll
    for (int i = 0; i < N; ++i) f(lane / 4 * per_group + k, (q + 4 * i) * V);
  }
}

struct Norm {
  float mean = 0, rstd = 0;
};
// On one pixel: lane c holds channel c; the lanes past the last hold 0.
struct PixelNorm {
  float xh, rstd;
};
__device__ inline PixelNorm pixel_norm(float x, int channels) {
  if (channels == 2 * kUnetGroups) {  // half the difference to the other value
    const float half = 0.5f * (x - __shfl_xor_sync(kAll, x, 1)), rstd = 1.0f / sqrtf(fmaf(half, half, kUnetEps));
    return {half * rstd, rstd};
  }
  const float mean = 0.25f * team_sum(x, 2), off = x - mean;
  const float rstd = 1.0f / sqrtf(fmaf(0.25f, team_sum(off * off, 2), kUnetEps));
  return {off * rstd, rstd};
}
// The gradient of the norm's input, from q = gain * that of its output.
__device__ inline float pixel_norm_backward(const PixelNorm& n, float q, int channels) {
  if (channels == 2 * kUnetGroups)
    return 0.5f * kUnetEps * (q - __shfl_xor_sync(kAll, q, 1)) * (n.rstd * n.rstd * n.rstd);
  const float mean = 0.25f * team_sum(q, 2), along = 0.25f * team_sum(q * n.xh, 2);
  return n.rstd * (q - mean - n.xh * along);
}

// Z = the channels of x as they are: a multiple of 8.
template <int SIDE>
__device__ inline void copy_maps(float* z, int lane, const Maps& x, int channels) {
  if constexpr (SIDE == 1) {
    if (lane < channels) z[lane] = x.at(lane)[0];
  } else {
    for_pieces<SIDE>(lane, channels, [&](int c, int p) {
      constexpr int V = kPiece<SIDE>;
      store<V>(z + c * channel_stride(SIDE) + p, load<V>(x.at(c) + p));
    });
  }
}

// Z = silu(group norm of x), times what dropout leaves. Each lane needs what it wrote itself alone.
template <int SIDE>
__device__ inline Norm normalise(float* z, int lane, const Maps& x, int channels, const float* gain, const float* shift,
                                 const Drop& drop) {
  constexpr int V = kPiece<SIDE>, kStride = channel_stride(SIDE);
  Norm n;
  if constexpr (SIDE == 1) {
    const bool here = lane < channels;
    const PixelNorm p = pixel_norm(here ? x.at(lane)[0] : 0.0f, channels);
    if (here) z[lane] = silu(fmaf(gain[lane], p.xh, shift[lane])) * factors<1>(drop, lane).v[0];
  } else {
    const float count = float(channels / kUnetGroups * SIDE * SIDE);
    float sum = 0, squares = 0;
    for_pieces<SIDE>(lane, channels, [&](int c, int p) {
      const Columns<V> v = load<V>(x.at(c) + p);
      store<V>(z + c * kStride + p, v);
#pragma unroll
      for (int i = 0; i < V; ++i) sum += v.v[i];
    });
    n.mean = team_sum(sum, 2) / count;
    for_pieces<SIDE>(lane, channels, [&](int c, int p) {
      const Columns<V> v = load<V>(z + c * kStride + p);
#pragma unroll
      for (int i = 0; i < V; ++i) squares = fmaf(v.v[i] - n.mean, v.v[i] - n.mean, squares);
    });
    n.rstd = 1.0f / sqrtf(team_sum(squares, 2) / count + kUnetEps);
    for_pieces<SIDE>(lane, channels, [&](int c, int p) {
      Columns<V> v = load<V>(z + c * kStride + p);
      const Columns<V> f = factors<V>(drop, c * SIDE * SIDE + pixel_place(SIDE, p));
#pragma unroll
      for (int i = 0; i < V; ++i) v.v[i] = silu(fmaf(gain[c], (v.v[i] - n.mean) * n.rstd, shift[c])) * f.v[i];
      store<V>(z + c * kStride + p, v);
    });
  }
  return n;
}

// --- convolutions ----------------------------------------------------------------------------------------------------

struct Conv {
  int from = 0, in = 0;                          // 3 x 3, zero padding: channels of the item
  const float* w = nullptr;                      // [in][taps][out]
  int p0 = 0, p1 = 0, p_first = 0, points = 0;   // 1 x 1, added: channels of the item in two places
  const float* pw = nullptr;                     // [points][out]
  int out = 0;                                   // even
  const float *bias = nullptr, *more = nullptr;  // (out), null: 0
  int to0 = 0, to1 = 0, first = 0;               // of the result, in two places; `first` is even
  int add0 = -1, add1 = -1;                      // maps of the same shape that are added; -1: none
  __device__ int point_at(int c, int stride) const {
    return c < p_first ? p0 + c * stride : p1 + (c - p_first) * stride;
  }
  __device__ int to(int o, int stride) const { return o < first ? to0 + o * stride : to1 + (o - first) * stride; }
  __device__ int add(int o, int stride) const {
    const int map = o < first ? add0 : add1;
    return map < 0 ? -1 : map + (o < first ? o : o - first) * stride;
  }
  __device__ float start(int o) const { return (bias ? bias[o] : 0.0f) + (more ? more[o] : 0.0f); }
};

// Side 8. A lane computes a row of two output channels: of an input channel it reads three rows and 18 weights for 132
// multiply-adds. Rows outside the map are read from `zeros`, an offset like the others.
__device__ inline void conv_of_rows(float* m, int zeros, int lane, const Conv& k) {
  constexpr int kStride = channel_stride(8);
  for (int unit = lane; unit < 4 * k.out; unit += kWarp) {
    const int r = unit % 8, o = unit / 8 * 2;
    float acc[2][8];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float start = k.start(o + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) acc[i][j] = start;
    }
    int at[3], other[3], step[3];  // of the row's left half; from there to its right half; to the next channel
#pragma unroll
    for (int a = 0; a < 3; ++a) {
      const int row = r + a - 1;
      const bool inside = row >= 0 && row < 8;
      at[a] = inside ? k.from + 8 * row + (row & 4) : zeros;
      other[a] = inside && (row & 4) ? -4 : 4;
      step[a] = inside ? kStride : 0;
    }
    const float* w = k.w + o;
#pragma unroll 2
    for (int c = 0; c < k.in; ++c) {
#pragma unroll
      for (int a = 0; a < 3; ++a) {
        const float4 left = four(m + at[a]), right = four(m + at[a] + other[a]);
        const float x[8] = {left.x, left.y, left.z, left.w, right.x, right.y, right.z, right.w};
        at[a] += step[a];
#pragma unroll
        for (int e = 0; e < 3; ++e) {
          const float2 v = two(w + (3 * a + e) * k.out);
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const int col = j + e - 1;
            if (col < 0 || col > 7) continue;
            acc[0][j] = fmaf(v.x, x[col], acc[0][j]);
            acc[1][j] = fmaf(v.y, x[col], acc[1][j]);
          }
        }
      }
      w += 9 * k.out;
    }
    const int low = 8 * r + (r & 4), high = 8 * r + 4 - (r & 4);
#pragma unroll 2
    for (int c = 0; c < k.points; ++c) {
      const float* channel = m + k.point_at(c, kStride);
      const float4 left = four(channel + low), right = four(channel + high);
      const float x[8] = {left.x, left.y, left.z, left.w, right.x, right.y, right.z, right.w};
      const float2 v = two(k.pw + c * k.out + o);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        acc[0][j] = fmaf(v.x, x[j], acc[0][j]);
        acc[1][j] = fmaf(v.y, x[j], acc[1][j]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float4 left = make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]),
             right = make_float4(acc[i][4], acc[i][5], acc[i][6], acc[i][7]);
      if (const int add = k.add(o + i, kStride); add >= 0) {
        const float4 a = four(m + add + low), b = four(m + add + high);
        left = make_float4(left.x + a.x, left.y + a.y, left.z + a.z, left.w + a.w);
        right = make_float4(right.x + b.x, right.y + b.y, right.z + b.z, right.w + b.w);
      }
      float* to = m + k.to(o + i, kStride);
      *reinterpret_cast<float4*>(to + low) = left;
      *reinterpret_cast<float4*>(to + high) = right;
    }
  }
}

// Side 4 and less. A lane computes a whole map of one output channel from every second input channel; the two halves of
// the warp, one for even and one for odd channels, are added at the end, and each stores half of the rows. Taps that
// meet padding are not computed.
template <int SIDE>
__device__ inline void conv_of_maps(float* m, int lane, const Conv& k) {
  constexpr int S = SIDE * SIDE, kTaps = SIDE == 1 ? 1 : 9, kStride = channel_stride(SIDE);
  const int half = lane / 16;
#pragma unroll 1
  for (int block = 0; block < k.out; block += 16) {
    const bool here = block + lane % 16 < k.out;
    const int o = here ? block + lane % 16 : k.out - 1;
    const float start = half ? 0.0f : k.start(o);
    float acc[SIDE][SIDE];
#pragma unroll
    for (int i = 0; i < S; ++i) acc[i / SIDE][i % SIDE] = start;
#pragma unroll 1
    for (int c = half; c < k.in; c += 2) {
      float x[SIDE][SIDE];
#pragma unroll
      for (int r = 0; r < SIDE; ++r) load_pixels<SIDE>(x[r], m + k.from + c * kStride, r);
      const float* w = k.w + c * kTaps * k.out + o;
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) {
        const float v = w[tap * k.out];
        const int down = kTaps == 1 ? 0 : tap / 3 - 1, right = kTaps == 1 ? 0 : tap % 3 - 1;
#pragma unroll
        for (int i = 0; i < S; ++i) {
          const int r = i / SIDE + down, q = i % SIDE + right;
          if (r < 0 || r >= SIDE || q < 0 || q >= SIDE) continue;
          acc[i / SIDE][i % SIDE] = fmaf(v, x[r][q], acc[i / SIDE][i % SIDE]);
        }
      }
    }
#pragma unroll 1
    for (int c = half; c < k.points; c += 2) {
      const float v = k.pw[c * k.out + o];
#pragma unroll
      for (int r = 0; r < SIDE; ++r) {
        float x[SIDE];
        load_pixels<SIDE>(x, m + k.point_at(c, kStride), r);
#pragma unroll
        for (int q = 0; q < SIDE; ++q) acc[r][q] = fmaf(v, x[q], acc[r][q]);
      }
    }
    const int add = k.add(o, kStride), to = k.to(o, kStride);
    constexpr int kRows = SIDE == 1 ? 1 : SIDE / 2;
    const int first = SIDE == 1 ? 0 : half * kRows;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int q = 0; q < SIDE; ++q) {
        const float low = acc[r][q], high = acc[SIDE - kRows + r][q];
        const float sum = (half ? high : low) + __shfl_xor_sync(kAll, half ? low : high, 16);
        const int at = (first + r) * SIDE + q;
        if (here && (SIDE > 1 || half == 0)) m[to + at] = add >= 0 ? sum + m[add + at] : sum;
      }
    }
  }
}

__device__ inline void conv(float* m, int zeros, int side, int lane, const Conv& k) {
  switch (side) {
    case 8:
      return conv_of_rows(m, zeros, lane, k);
    case 4:
      return conv_of_maps<4>(m, lane, k);
    case 2:
      return conv_of_maps<2>(m, lane, k);
    default:
      return conv_of_maps<1>(m, lane, k);
  }
}

// Down: a lane computes a row of one output channel. w [in][taps][out].
template <int SIDE>
__device__ inline void conv_down(float* m, int lane, const Stage& s, const float* w, const float* bias) {
  constexpr int kOut = SIDE / 2, kSize = SIDE == 2 ? 2 : 3;  // of the taps: of 2 x 2 pixels the others meet padding
  for (int unit = lane; unit < s.out * kOut; unit += kWarp) {
    const int o = unit % s.out, i = unit / s.out;
    float acc[kOut];
#pragma unroll
    for (int j = 0; j < kOut; ++j) acc[j] = bias[o];
#pragma unroll 1
    for (int c = 0; c < s.in; ++c) {
#pragma unroll
      for (int a = 0; a < kSize; ++a) {
        if (2 * i + a >= SIDE) continue;
        float x[SIDE];
        load_pixels<SIDE>(x, m + s.x0.shared + c * channel_stride(SIDE), 2 * i + a);
#pragma unroll
        for (int e = 0; e < kSize; ++e) {
          const float v = w[(c * kSize * kSize + kSize * a + e) * s.out + o];
#pragma unroll
          for (int j = 0; j < kOut; ++j) {
            if (2 * j + e < SIDE) acc[j] = fmaf(v, x[2 * j + e], acc[j]);
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kOut; ++j) m[s.y.shared + o * channel_stride(kOut) + i * kOut + j] = acc[j];
  }
}

// Z = the maps with every pixel doubled both ways; `side` is that of the result.
__device__ inline void double_pixels(float* z, int lane, const Maps& x, int channels, int side) {
  const int S = side * side;
  for (int i = lane; i < channels * S; i += kWarp) {
    const int c = i / S, pixel = i % S, r = pixel / side / 2, q = pixel % side / 2;
    z[c * channel_stride(side) + pixel_place(side, pixel)] = x.at(c)[pixel_place(side / 2, r * (side / 2) + q)];
  }
}

// A lane's two pixels, 2 lane and 2 lane + 1, of an image's channels.
struct Image {
  float2 channel[3];
};
__device__ inline int lane_pixels(int lane) { return pixel_place(8, 2 * lane); }  // they stay neighbours
__device__ inline void put_image(float* z, int lane, const Image& image) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    *reinterpret_cast<float2*>(z + c * channel_stride(8) + lane_pixels(lane)) = image.channel[c];
}
__device__ inline float2 load_two(const float* row, int lane) { return make_float2(row[2 * lane], row[2 * lane + 1]); }

// --- attention on one pixel ------------------------------------------------------------------------------------------

// The 16 channels are held twice, by either half of the warp, x being a lane's value. Z = [z | v]. Weights are
// [in][out], or, for `as_in_files`, [out][in].
__device__ inline PixelNorm attention_value(float* z, int lane, float x, const float* w, bool as_in_files) {
  const int c = lane % 16, next_in = as_in_files ? 1 : 16, next_out = as_in_files ? 16 : 1;
  const PixelNorm norm = pixel_norm(x, 16);
  if (lane < 16) z[c] = fmaf(w[c], norm.xh, w[16 + c]);
  __syncwarp();
  float v = w[kAttentionValue + 256 + c];
  for (int i = 0; i < 16; ++i) v = fmaf(w[kAttentionValue + i * next_in + c * next_out], z[i], v);
  if (lane < 16) z[16 + c] = v;
  __syncwarp();
  return norm;
}
__device__ inline void attention(float* m, int lane, const Stage& s, const float* w) {
  const int c = lane % 16;
  float* z = m + kMapZ;
  const float x = m[s.x0.shared + c];
  attention_value(z, lane, x, w, false);
  float y = w[kAttentionOut + 256 + c];
  for (int i = 0; i < 16; ++i) y = fmaf(w[kAttentionOut + i * 16 + c], z[16 + i], y);
  if (lane < 16) m[s.y.shared + c] = x + y;
}

}  // namespace ccdrec::cuda
