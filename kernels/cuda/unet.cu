#include "kernels/cuda/unet.h"

namespace ccdrec::cuda {
namespace {

// --- parameters and time ---------------------------------------------------------------------------------------------

struct StageShapes {
  StageShape stage[kUnetStages];
};
struct TimeTable {
  TimeColumns res[kUnetRes];
};
static_assert(sizeof(UnetParams) + sizeof(StageShapes) + sizeof(TimeTable) <= 3900, "what a launch may hand over");
static_assert(sizeof(UnetStages) <= 3000, "likewise, beside the tokens");

StageShapes stage_shapes() {
  StageShapes s;
  for (int k = 0; k < kUnetStages; ++k) s.stage[k] = kUnetPlan.stages.stage[k];
  return s;
}
TimeTable time_table() {
  TimeTable t;
  std::copy_n(kUnetPlan.time, kUnetRes, t.res);
  return t;
}

// A step's row of the time MLP, by one block: hidden = tau W_0 + b_0, temb = silu(hidden) W_2 + b_2.
struct TimeRow {
  float hidden[kUnetTime], temb[kUnetTime], of_hidden[kUnetTime], of_temb[kUnetTime];  // the last two: their silu
};
__device__ inline void time_row(TimeRow& row, const float* tau, const UnetParams& params) {
  const int k = int(threadIdx.x);
  if (k < kUnetTime) {
    float sum = params.p[1][k];
    for (int i = 0; i < kUnetTimeIn; ++i) sum = fmaf(params.p[0][k * kUnetTimeIn + i], tau[i], sum);
    row.hidden[k] = sum, row.of_hidden[k] = silu(sum);
  }
  __syncthreads();
  if (k < kUnetTime) {
    float sum = params.p[3][k];
    for (int i = 0; i < kUnetTime; ++i) sum = fmaf(params.p[2][k * kUnetTime + i], row.of_hidden[i], sum);
    row.temb[k] = sum, row.of_temb[k] = silu(sum);
  }
  __syncthreads();
}

// All stages' parameters as they are staged, and the time projections (T, kUnetColumns).
// Geometry  a block a stage, then, forward, a block a step.
// Traffic   400 KB read, element by element, and written: a few microseconds, for the whole call.
__global__ void unet_parameters(float* laid_out, float* projections, UnetParams params, StageShapes stages,
                                TimeTable table, CMat tau, bool backward) {
  const int tid = int(threadIdx.x), threads = int(blockDim.x);
  if (blockIdx.x >= kUnetStages) {
    SHARED(TimeRow, row, );
    const int64_t t = int64_t(blockIdx.x) - kUnetStages;
    time_row(row, tau.row(t), params);
    for (int r = 0; r < kUnetRes; ++r) {
      const TimeColumns res = table.res[r];
      for (int o = tid; o < res.out; o += threads) {
        const float* w = params.p[res.weight] + o * kUnetTime;
        float sum = params.p[res.weight + 1][o];
        for (int i = 0; i < kUnetTime; ++i) sum = fmaf(w[i], row.of_temb[i], sum);
        projections[t * kUnetColumns + res.column + o] = sum;
      }
    }
    return;
  }
  const StageShape s = stages.stage[blockIdx.x];
  float* to = laid_out + s.at;
  if (s.kind == UnetStage::attention) {
    for (int i = tid; i < 16; i += threads) {
      to[i] = params.p[s.gain][i], to[16 + i] = params.p[s.gain + 1][i];
      to[kAttentionValue + 256 + i] = params.p[s.gain + 3][i], to[kAttentionOut + 256 + i] = params.p[s.gain + 5][i];
    }
    for (int i = tid; i < 256; i += threads) {
      const int from = backward ? i : i % 16 * 16 + i / 16;
      to[kAttentionValue + i] = params.p[s.gain + 2][from], to[kAttentionOut + i] = params.p[s.gain + 4][from];
    }
    return;
  }
  const StageLayout at = stage_layout(s, backward ? Laid::backward : Laid::forward);
  const float *weight = params.p[s.weight], *bias = params.p[s.weight + 1];
  const int cols = even(backward ? s.in : s.out);
  for (int i = tid; i < at.point; i += threads) {
    const int col = i % cols, tap = i / cols % s.taps, row = i / cols / s.taps;
    const int o = backward ? row : col, c = backward ? col : row;
    const int read = backward && s.kind != UnetStage::down ? s.taps - 1 - tap : tap;
    to[i] = o < s.out && c < s.in ? weight[(o * s.in + c) * s.taps + read] : 0.0f;
  }
  if (s.points) {
    const float* point = params.p[s.weight + 2];
    for (int i = tid; i < s.points * s.out; i += threads)
      to[at.point + i] = backward ? point[i] : point[i % s.out * s.points + i / s.out];
  }
  if (!backward) {
    const float* of_point = s.points ? params.p[s.weight + 3] : nullptr;
    for (int o = tid; o < even(s.out); o += threads)
      to[at.bias + o] = o < s.out ? bias[o] + (of_point ? of_point[o] : 0.0f) : 0.0f;
  }
  for (int c = tid; c < s.normed(); c += threads) {
    to[at.gain + c] = params.p[s.gain][c];
    to[at.shift + c] = params.p[s.gain + 1][c];
  }
}

// --- forward ---------------------------------------------------------------------------------------------------------

// One stage of an item, by its warp. `saved`: its row of UnetSaved, or null.
__device__ inline void stage_forward(const Stage& s, const StageLayout& at, const float* w, float* m, int zeros,
                                     int lane, const Image& image, const float* projections, const Drop& dropout,
                                     float* saved) {
  float* z = m + kMapZ;
  if (s.kind == UnetStage::attention) {
    attention(m, lane, s, w);
  } else if (s.kind == UnetStage::down) {
    const float* bias = w + at.bias;
    switch (s.side) {
      case 8:
        conv_down<8>(m, lane, s, w, bias);
        break;
      case 4:
        conv_down<4>(m, lane, s, w, bias);
        break;
      default:
        conv_down<2>(m, lane, s, w, bias);
    }
  } else {
    if (s.kind == UnetStage::image) {
      put_image(z, lane, image);
    } else if (s.kind == UnetStage::up) {
      double_pixels(z, lane, shared_maps(m, s.x0, s.x1, s.first, s.side / 2), s.in, s.side);
    } else {
      Drop drop = dropout;
      drop.bits = s.mask < 0 ? nullptr : dropout.bits, drop.first = s.mask;
      with_side(s.side, [&](auto side) {
        constexpr int kSide = decltype(side)::value;
        normalise<kSide>(z, lane, shared_maps(m, s.x0, s.x1, s.first, kSide), s.in, w + at.gain, w + at.shift, drop);
      });
    }
    __syncwarp();
    Conv k;
    k.from = kMapZ, k.in = s.in, k.w = w;
    k.p0 = s.r0.shared, k.p1 = s.r1.shared, k.p_first = s.points_first, k.points = s.points, k.pw = w + at.point;
    k.out = even(s.out), k.bias = w + at.bias, k.more = s.projection < 0 ? nullptr : projections + s.projection;
    k.to0 = s.y.shared, k.first = k.out, k.add0 = s.identity ? s.r0.shared : -1;
    conv(m, zeros, s.side, lane, k);
  }
  __syncwarp();
  if (!saved || s.kind == UnetStage::head) return;
  const int side = s.side_out(), stride = channel_stride(side);
  for (int i = 4 * lane; i < s.out * side * side; i += 4 * kWarp) {
    const int from = side == 1 ? i : i / (side * side) * stride + i % (side * side);
    *reinterpret_cast<float4*>(saved + s.y.saved + i) = four(m + s.y.shared + from);
  }
}

// All stages of a block's items. Every thread of the block calls it, `ahead` holding the first stage's parameters, as
// it does afterwards.
__device__ inline void stages_forward(const UnetStages& plan, const float* parameters, Ahead& ahead, float* w, float* m,
                                      int zeros, int lane, bool live, const Image& image, const float* projections,
                                      const Drop& dropout, float* saved) {
#pragma unroll 1
  for (int k = 0; k < kUnetStages; ++k) {
    const Stage& s = plan.stage[k];
    const StageLayout at = stage_layout(s, Laid::forward);
    __syncthreads();  // the stage before has read its own
    ahead.put(w, parameters + s.at, at.floats);
    __syncthreads();
    const Stage& next = plan.stage[k + 1 < kUnetStages ? k + 1 : 0];
    ahead.fetch(parameters + next.at, stage_layout(next, Laid::forward).floats);
    if (live) stage_forward(s, at, w, m, zeros, lane, image, projections, dropout, saved);
  }
}

// A thread's place in a block of the kernels by item, and the block's shared memory:
// [zeros | parameters of a stage | backward: kUnetSums an item | kItemFloats an item].
struct Place {
  int lane, warp, items, zeros;
  float *shared, *w, *sums, *m;
  __device__ Place(float* shared_, bool sums_too)
      : lane(int(threadIdx.x) % kWarp),
        warp(int(threadIdx.x) / kWarp),
        items(int(blockDim.x) / kWarp),
        shared(shared_),
        w(shared_ + kZeros),
        sums(w + kStaged) {
    m = sums + (sums_too ? items * kUnetSums : 0) + warp * kItemFloats;
    zeros = int(shared - m);
    if (threadIdx.x < kZeros) shared[threadIdx.x] = 0;  // seen after the first barrier
  }
};

__device__ inline Image image_of(const EstimatorTokens& in, int64_t j, int lane) {
  Image image;
  image.channel[0] = load_two(in.e_t.row(j), lane);
  image.channel[1] = in.modalities > 1 ? load_two(in.h[1].row(j), lane) : make_float2(0, 0);
  image.channel[2] = load_two(in.h[0].row(j), lane);
  return image;
}
__device__ inline void store_two(float* row, int lane, float2 v) { row[2 * lane] = v.x, row[2 * lane + 1] = v.y; }
__device__ inline float2 result_of(const Stage& head, const float* m, int lane) {
  return two(m + head.y.shared + lane_pixels(lane));
}

// e0_hat and what backward needs.
// Geometry  a warp an item, 8 items a block where a block may have 227 KB of shared memory, 6 at 163 KB, 3 at 99 KB;
//           the items' maps never leave it. A block is alone on its multiprocessor. 53 stages, two barriers each.
// Traffic   0.4 MB of parameters a block from L2, fetched a stage ahead into registers; 3 rows of 256 bytes and 42 KB
//           written an item.
// Limits    1.3 M multiply-adds an item as computed (of the taps that meet padding only the upper and lower edge's at
//           side 8 are), about 53,000 instructions of a warp with what goes with them; 12,400 values that are
//           normalised and activated at 47 instructions, 18,000 more. At side 8 a lane's 132 multiply-adds come with 15
//           reads of shared memory, 6 of them of four wavefronts, 33 in all: 8 warps take 264 cycles of it beside about
//           340 of each scheduler. So arithmetic comes first, shared memory close behind, at about half of the peak;
//           two warps a scheduler hide latency by independent sums alone, and the levels of 2 x 2 and one pixel are
//           nothing but latency. A tile of 8 items: 0.13 ms at 1.75 GHz. Instructions are the compiler's for sm_90; the
//           rest is estimated, not measured.
__global__ void __launch_bounds__(kMostThreads, 1)
    unet_forward_items(UnetStages plan, Mat e0_hat, UnetSaved saved, EstimatorTokens in, UnetMask mask, RowList rows,
                       const float* parameters, const float* projections) {
  const Place at(dynamic_shared<float>(), false);
  const int64_t n = rows.n(), first = int64_t(blockIdx.x) * at.items, j = first + at.warp;
  if (first >= n) return;  // the whole block
  const bool live = j < n;
  Ahead ahead;
  ahead.fetch(parameters, stage_layout(plan.stage[0], Laid::forward).floats);
  const Image image = live ? image_of(in, j, at.lane) : Image{};
  const Drop drop{mask.bits ? mask.bits + j * kUnetMaskWords : nullptr, 0, 1.0f / mask.keep};
  stages_forward(plan, parameters, ahead, at.w, at.m, at.zeros, at.lane, live, image,
                 live ? projections + in.t[j] * int64_t(kUnetColumns) : nullptr, drop, saved.p + j * kUnetSaved);
  if (live) store_two(e0_hat.row(j), at.lane, result_of(plan.stage[kUnetStages - 1], at.m, at.lane));
}

struct ReverseItems {
  Mat pools[4];
  CMat q, h[2];
  int modalities;
  Schedule schedule;
  uint32_t seed, epoch;
  const Late* late;
};
// A lane's two normals: half of what one draw addresses.
__device__ inline float2 two_normals(Stream stream, uint32_t item, int lane) {
  const Draw4 x = draw(stream, item, uint32_t(lane / 2));
  const int k = lane % 2 * 2;
  float2 z;
  normal_pair(k ? x.v[2] : x.v[0], k ? x.v[3] : x.v[1], z.x, z.y);
  return z;
}

// Items from noise to e_0.
// Geometry  as unet_forward_items; a block takes its items through all T steps, a lane two of an item's components.
// Traffic   0.4 MB of parameters a block and step from L2; an item's rows and pools once.
// Limits    T times the forward's, without what it saves.
__global__ void __launch_bounds__(kMostThreads, 1)
    unet_reverse_items(UnetStages plan, ReverseItems in, const float* parameters, const float* projections) {
  const Place at(dynamic_shared<float>(), false);
  const int64_t n = in.q.rows, j = int64_t(blockIdx.x) * at.items + at.warp;
  const int lane = at.lane, T = in.schedule.steps;
  const bool live = j < n;
  const uint32_t epoch = late_epoch(in.epoch, in.late);
  Ahead ahead;
  ahead.fetch(parameters, stage_layout(plan.stage[0], Laid::forward).floats);
  Image image{};
  float2& e = image.channel[0];
  const auto snapshot = [&](int done) {
    for (int p = 0; p < 4; ++p) {
      if (live && in.pools[p] && done == (p + 1) * T / 4) store_two(in.pools[p].row(j), lane, e);
    }
  };
  if (live) {
    if (in.modalities > 1) image.channel[1] = load_two(in.h[1].row(j), lane);
    image.channel[2] = load_two(in.h[0].row(j), lane);
    const float signal = in.schedule.sqrt_abar[T - 1], noise = in.schedule.sqrt_1m_abar[T - 1];
    const float2 q = load_two(in.q.row(j), lane),
                 z = two_normals(Stream{in.seed, Use::reverse_start, epoch, uint32_t(T)}, uint32_t(j), lane);
    e = make_float2(fmaf(signal, q.x, noise * z.x), fmaf(signal, q.y, noise * z.y));
  }
  snapshot(0);
#pragma unroll 1
  for (int t = T; t >= 1; --t) {
    stages_forward(plan, parameters, ahead, at.w, at.m, at.zeros, lane, live, image,
                   projections + int64_t(t - 1) * kUnetColumns, Drop{}, nullptr);
    if (live) {
      const float a = in.schedule.a[t - 1], b = in.schedule.b[t - 1], sigma = in.schedule.sigma[t - 1];
      const float2 x0 = result_of(plan.stage[kUnetStages - 1], at.m, lane);
      e = make_float2(fmaf(a, x0.x, b * e.x), fmaf(a, x0.y, b * e.y));
      if (t > 1) {
        const float2 z = two_normals(Stream{in.seed, Use::reverse_noise, epoch, uint32_t(t)}, uint32_t(j), lane);
        e = make_float2(fmaf(sigma, z.x, e.x), fmaf(sigma, z.y, e.y));
      }
    }
    snapshot(T - t + 1);
  }
}

// --- backward: an item's own -----------------------------------------------------------------------------------------

// sums[c] = the sum over channel c's pixels, c < channels; f(c, sum) besides.
template <int SIDE, class F>
__device__ inline void channel_sums(const float* maps, int lane, int channels, F&& f) {
  if constexpr (SIDE == 1) {
    if (lane < channels) f(lane, maps[lane]);
  } else {
    constexpr int V = kPiece<SIDE>, N = SIDE * SIDE / (4 * V);
    for (int block = 0; block < channels; block += 8) {
      const int c = block + lane / 4;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (c >= channels) continue;
        const Columns<V> v = load<V>(maps + c * channel_stride(SIDE) + (lane % 4 + 4 * i) * V);
#pragma unroll
        for (int k = 0; k < V; ++k) sum += v.v[k];
      }
      sum = team_sum(sum, 2);
      if (c < channels && lane % 4 == 0) f(c, sum);
    }
  }
}

// From Z, the gradient of what `normalise` made of x, that of x, to two places of the item; sums[16..], sums[48..]: the
// gradients of gain and shift. Z is used up.
template <int SIDE>
__device__ inline void normalise_backward(float* z, int lane, const Maps& x, const Stage& s, const float* gain,
                                          const float* shift, const Drop& drop, const Norm& n, float* m, float* sums) {
  constexpr int V = kPiece<SIDE>, kStride = channel_stride(SIDE), S = SIDE * SIDE;
  const int channels = s.in;
  const auto to = [&](int c) {
    return c < s.first ? m + s.x0.shared + c * kStride : m + s.x1.shared + (c - s.first) * kStride;
  };
  if constexpr (SIDE == 1) {
    const bool here = lane < channels;
    const int c = here ? lane : 0;
    const PixelNorm p = pixel_norm(here ? x.at(lane)[0] : 0.0f, channels);
    const float g = z[c] * factors<1>(drop, c).v[0] * silu_slope(fmaf(gain[c], p.xh, shift[c]));
    const float d = pixel_norm_backward(p, here ? g * gain[c] : 0.0f, channels);
    if (here) {
      sums[16 + c] = g * p.xh, sums[48 + c] = g;
      *to(c) = s.x_adds ? *to(c) + d : d;
    }
  } else {
    const int per_group = channels / kUnetGroups, q = lane % 4;
    const float count = float(per_group * S);
    float all = 0, along = 0;
#pragma unroll 1
    for (int k = 0; k < per_group; ++k) {
      const int c = lane / 4 * per_group + k;
      float of_gain = 0, of_shift = 0;
#pragma unroll
      for (int i = 0; i < S / (4 * V); ++i) {
        const int p = (q + 4 * i) * V;
        Columns<V> g = load<V>(z + c * kStride + p);
        const Columns<V> v = load<V>(x.at(c) + p), f = factors<V>(drop, c * S + pixel_place(SIDE, p));
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const float xh = (v.v[e] - n.mean) * n.rstd;
          const float g_e = g.v[e] * f.v[e] * silu_slope(fmaf(gain[c], xh, shift[c]));
          of_shift += g_e, of_gain = fmaf(g_e, xh, of_gain);
          g.v[e] = g_e * gain[c];
        }
        store<V>(z + c * kStride + p, g);
      }
      of_gain = team_sum(of_gain, 2), of_shift = team_sum(of_shift, 2);
      if (q == 0) sums[16 + c] = of_gain, sums[48 + c] = of_shift;
      all = fmaf(of_shift, gain[c], all), along = fmaf(of_gain, gain[c], along);
    }
    const float mean = all / count, mean_along = along / count;
    for_pieces<SIDE>(lane, channels, [&](int c, int p) {
      Columns<V> g = load<V>(z + c * kStride + p);
      const Columns<V> v = load<V>(x.at(c) + p);
      float* const at = to(c) + p;
      const Columns<V> old = load<V>(at);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const float xh = (v.v[e] - n.mean) * n.rstd;
        g.v[e] = n.rstd * (g.v[e] - mean - xh * mean_along);
        if (s.x_adds) g.v[e] += old.v[e];
      }
      store<V>(at, g);
    });
  }
}

// The gradient of Down's input, added: a lane computes a row of one channel. w [out][taps][in].
template <int SIDE>
__device__ inline void conv_down_backward(float* m, int lane, const Stage& s, const float* w) {
  constexpr int kOut = SIDE / 2, kSize = SIDE == 2 ? 2 : 3;
  for (int unit = lane; unit < s.in * SIDE; unit += kWarp) {
    const int c = unit % s.in, r = unit / s.in;
    float acc[SIDE];
#pragma unroll
    for (int q = 0; q < SIDE; ++q) acc[q] = 0;
#pragma unroll 1
    for (int o = 0; o < s.out; ++o) {
#pragma unroll
      for (int a = 0; a < kSize; ++a) {
        if ((r - a) % 2 != 0 || r < a) continue;
        float g[kOut];
        load_pixels<kOut>(g, m + s.y.shared + o * channel_stride(kOut), (r - a) / 2);
#pragma unroll
        for (int e = 0; e < kSize; ++e) {
          const float v = w[(o * kSize * kSize + kSize * a + e) * s.in + c];
#pragma unroll
          for (int j = 0; j < kOut; ++j) {
            if (2 * j + e < SIDE) acc[2 * j + e] = fmaf(v, g[j], acc[2 * j + e]);
          }
        }
      }
    }
    float* to = m + s.x0.shared + c * channel_stride(SIDE);
#pragma unroll
    for (int q = 0; q < SIDE; ++q) to[pixel_place(SIDE, r * SIDE + q)] += acc[q];
  }
}

// The gradient of Up's input from Z, that of the doubled map.
__device__ inline void fold_pixels(float* m, int lane, const Stage& s) {
  const int side = s.side / 2, S = side * side;
  for (int i = lane; i < s.in * S; i += kWarp) {
    const int c = i / S, r = i % S / side, q = i % side;
    const float* z = m + kMapZ + c * channel_stride(s.side);
    const auto at = [&](int row, int col) { return z[pixel_place(s.side, row * s.side + col)]; };
    m[s.x0.shared + c * channel_stride(side) + pixel_place(side, r * side + q)] =
        (at(2 * r, 2 * q) + at(2 * r, 2 * q + 1)) + (at(2 * r + 1, 2 * q) + at(2 * r + 1, 2 * q + 1));
  }
}

// The attention's; Z becomes [z | v | g_v], whose products with g are the gradients of its weights. w as in the files.
__device__ inline void attention_backward(float* m, int lane, const Stage& s, const float* w, const float* saved,
                                          float* sums) {
  const int c = lane % 16;
  float* z = m + kMapZ;
  const PixelNorm norm = attention_value(z, lane, saved[s.x0.saved + c], w, true);
  const float g = m[s.y.shared + c];
  float g_v = 0, g_z = 0;
  for (int o = 0; o < 16; ++o) g_v = fmaf(w[kAttentionOut + o * 16 + c], m[s.y.shared + o], g_v);
  if (lane < 16) z[32 + c] = g_v;
  __syncwarp();
  for (int o = 0; o < 16; ++o) g_z = fmaf(w[kAttentionValue + o * 16 + c], z[32 + o], g_z);
  const float g_x = g + pixel_norm_backward(norm, g_z * w[c], 16);
  if (lane < 16) {
    sums[c] = g, sums[16 + c] = g_z * norm.xh, sums[48 + c] = g_z, sums[64 + c] = g_v;
    m[s.x0.shared + c] = g_x;
  }
}

// --- backward: sums over a block's items -----------------------------------------------------------------------------

// The gradients of a stage's parameters, summed over the items of a block and added to those of the chunk. Thread by
// thread: a thread owns sums, from item to item and from tile to tile, so that each runs over a chunk's items one by
// one, ascending, however many a block has.
struct Summed {
  float* to;       // the stage's gradients in the chunk's
  const float* m;  // the first item
  int items;       // of the tile
  bool fresh;      // nothing is there yet
  __device__ float start(int at) const { return fresh ? 0.0f : to[at]; }
  __device__ const float* item(int i) const { return m + i * kItemFloats; }
};

// One item's share of a 3 x 3 convolution's weights of two channels.
template <int SIDE, int TAPS>
__device__ inline void add_taps(float (&acc)[TAPS], const float* g, const float* x) {
  if constexpr (SIDE == 1) {
    acc[0] = fmaf(g[0], x[0], acc[0]);
  } else {
    float row[3][SIDE];  // three rows of x, turned round
    load_pixels<SIDE>(row[0], x, 0);
#pragma unroll
    for (int r = 0; r < SIDE; ++r) {
      if (r + 1 < SIDE) load_pixels<SIDE>(row[(r + 1) % 3], x, r + 1);
      float of_g[SIDE];
      load_pixels<SIDE>(of_g, g, r);
#pragma unroll
      for (int a = 0; a < 3; ++a) {
        if (r + a < 1 || r + a > SIDE) continue;
#pragma unroll
        for (int e = 0; e < 3; ++e) {
#pragma unroll
          for (int q = 0; q < SIDE; ++q) {
            if (q + e < 1 || q + e > SIDE) continue;
            acc[3 * a + e] = fmaf(of_g[q], row[(r + a + 2) % 3][q + e - 1], acc[3 * a + e]);
          }
        }
      }
    }
  }
}
// The same of Down; SIDE is that of its input.
template <int SIDE, int TAPS>
__device__ inline void add_down_taps(float (&acc)[TAPS], const float* g, const float* x) {
  constexpr int kOut = SIDE / 2, kSize = SIDE == 2 ? 2 : 3;
#pragma unroll
  for (int i = 0; i < kOut; ++i) {
    float of_g[kOut];
    load_pixels<kOut>(of_g, g, i);
#pragma unroll
    for (int a = 0; a < kSize; ++a) {
      if (2 * i + a >= SIDE) continue;
      float row[SIDE];
      load_pixels<SIDE>(row, x, 2 * i + a);
#pragma unroll
      for (int e = 0; e < kSize; ++e) {
#pragma unroll
        for (int j = 0; j < kOut; ++j) {
          if (2 * j + e < SIDE) acc[kSize * a + e] = fmaf(of_g[j], row[2 * j + e], acc[kSize * a + e]);
        }
      }
    }
  }
}

// A thread computes all taps of an output and an input channel: of a row of either, 16 values, for 66 multiply-adds.
// Eight lanes of neighbouring outputs read eight bank groups of g and the same row of x.
template <int SIDE, bool DOWN>
__device__ inline void sum_weights(const Summed& sum, const Stage& s) {
  constexpr int kTaps = DOWN ? (SIDE == 2 ? 4 : 9) : SIDE == 1 ? 1 : 9, kOut = DOWN ? SIDE / 2 : SIDE;
  const int pairs = s.in * s.out;
  for (int pair = int(threadIdx.x); pair < pairs; pair += int(blockDim.x)) {
    const int o = pair % s.out, c = pair / s.out;
    const int g = s.y.shared + o * channel_stride(kOut), x = kMapZ + c * channel_stride(SIDE);
    float total[kTaps];
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) total[tap] = sum.start(tap * pairs + pair);
#pragma unroll 1
    for (int i = 0; i < sum.items; ++i) {
      float acc[kTaps];
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) acc[tap] = 0;
      if constexpr (DOWN)
        add_down_taps<SIDE>(acc, sum.item(i) + g, sum.item(i) + x);
      else
        add_taps<SIDE>(acc, sum.item(i) + g, sum.item(i) + x);
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) total[tap] += acc[tap];
    }
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) sum.to[tap * pairs + pair] = total[tap];
  }
}

// Of the shortcut; Z holds its input.
template <int SIDE>
__device__ inline void sum_points(const Summed& sum, const Stage& s, int at) {
  constexpr int kStride = channel_stride(SIDE);
  for (int pair = int(threadIdx.x); pair < s.points * s.out; pair += int(blockDim.x)) {
    const int g = s.y.shared + pair % s.out * kStride, x = kMapZ + pair / s.out * kStride;
    float total = sum.start(at + pair);
#pragma unroll 1
    for (int i = 0; i < sum.items; ++i) {
      float acc[SIDE] = {};
#pragma unroll
      for (int r = 0; r < SIDE; ++r) {
        float of_g[SIDE], of_x[SIDE];
        load_pixels<SIDE>(of_g, sum.item(i) + g, r);
        load_pixels<SIDE>(of_x, sum.item(i) + x, r);
#pragma unroll
        for (int q = 0; q < SIDE; ++q) acc[q] = fmaf(of_g[q], of_x[q], acc[q]);
      }
      float all = acc[0];
#pragma unroll
      for (int q = 1; q < SIDE; ++q) all += acc[q];
      total += all;
    }
    sum.to[at + pair] = total;
  }
}

__device__ inline void sum_attention(const Summed& sum, const Stage& s) {
  for (int k = int(threadIdx.x); k < 512; k += int(blockDim.x)) {
    const bool out = k >= 256;
    const int o = k % 256 / 16, c = k % 16, at = (out ? kAttentionOut : kAttentionValue) + k % 256;
    float total = sum.start(at);
    for (int i = 0; i < sum.items; ++i) {
      const float* z = sum.item(i) + kMapZ;
      total = out ? fmaf(sum.item(i)[s.y.shared + o], z[16 + c], total) : fmaf(z[32 + o], z[c], total);
    }
    sum.to[at] = total;
  }
}

// Where an item's sum k of a stage goes; -1: there is none.
__device__ inline int place_of_sum(const Stage& s, const StageLayout& at, int k) {
  if (s.kind == UnetStage::attention) {
    if (k < 16) return kAttentionOut + 256 + k;
    if (k < 32) return at.gain + k - 16;
    if (k < 48) return -1;
    return k < 64 ? at.shift + k - 48 : kAttentionValue + 256 + k - 64;
  }
  if (k < 16) return k < s.out ? at.bias + k : -1;
  if (k < 48) return k - 16 < s.normed() ? at.gain + k - 16 : -1;
  return k - 48 < s.normed() ? at.shift + k - 48 : -1;
}

struct ItemGrads {
  Mat e_t, h[2];
};

// All gradients but those of the time path, of which an item's share goes to its row of UnetSaved.
// Geometry  a warp an item as unet_forward_items; a block takes a chunk of consecutive items, tile by tile, and sums
//           their parameters' gradients in `chunks` + blockIdx.x * parameters: each sum by one thread, from the first
//           item of the chunk to the last. Per stage, from the last: shortcut and identity; Z = what the convolution
//           read, made again; the weights' gradients by the whole block; Z = the gradient of what it read; norm.
// Traffic   42 KB of saved maps an item, read three times (the second and third mostly from L2); of a tile 0.4 MB of
//           parameters from L2, and 0.8 MB of sums read and written.
// Limits    2.6 M multiply-adds an item, half of them of the weights: there a pair of channels takes 535 instructions
//           and 32 reads of four wavefronts for 484 multiply-adds, so that arithmetic and shared memory are about
//           equally busy, and where there are 64 pairs only two of the eight warps work. The norms take 120
//           instructions a value. A tile of 8 items: 0.22 ms at 1.75 GHz. Estimated, not measured.
__global__ void __launch_bounds__(kMostThreads, 1)
    unet_backward_items(UnetStages plan, ItemGrads to, float* chunks, int64_t chunk, CMat d_e0_hat, UnetSaved saved,
                        EstimatorTokens in, UnetMask mask, RowList rows, const float* parameters) {
  const Place at(dynamic_shared<float>(), true);
  const int64_t begin = int64_t(blockIdx.x) * chunk, n = rows.n(), end = begin + chunk < n ? begin + chunk : n;
  if (begin >= n) return;  // the whole block
  const int lane = at.lane;
  float *const m = at.m, *const z = m + kMapZ, *const w = at.w, *const sums = at.sums + at.warp * kUnetSums;
  Ahead ahead;
  ahead.fetch(parameters + plan.stage[kUnetStages - 1].at,
              stage_layout(plan.stage[kUnetStages - 1], Laid::backward).floats);

#pragma unroll 1
  for (int64_t first = begin; first < end; first += at.items) {
    const int64_t j = first + at.warp;
    const bool live = j < end;
    float* const row = saved.p + j * kUnetSaved;
    Drop dropout{mask.bits ? mask.bits + j * kUnetMaskWords : nullptr, 0, 1.0f / mask.keep};
    Summed sum;
    sum.m = at.sums + at.items * kUnetSums, sum.fresh = first == begin;
    sum.items = end - first < at.items ? int(end - first) : at.items;

#pragma unroll 1
    for (int number = kUnetStages - 1; number >= 0; --number) {
      const Stage& s = plan.stage[number];
      const StageLayout staged = stage_layout(s, Laid::backward), of_sums = stage_layout(s, Laid::gradients);
      ahead.put(w, parameters + s.at, staged.floats);  // after the barrier that ended the stage before
      __syncthreads();
      const Stage& next = plan.stage[number ? number - 1 : kUnetStages - 1];
      ahead.fetch(parameters + next.at, stage_layout(next, Laid::backward).floats);
      sum.to = chunks + int64_t(blockIdx.x) * kUnetFloats + s.at;
      const bool normed = s.kind == UnetStage::conv || s.kind == UnetStage::head;
      Drop drop = dropout;
      drop.bits = s.mask < 0 ? nullptr : dropout.bits, drop.first = s.mask;

      if (live) {
        if (s.kind == UnetStage::head) {
          *reinterpret_cast<float2*>(m + s.y.shared + lane_pixels(lane)) = load_two(d_e0_hat.row(j), lane);
          __syncwarp();
        }
        if (s.kind == UnetStage::attention) {
          attention_backward(m, lane, s, w, row, sums);
        } else {
          with_side(s.side_out(), [&](auto side) {
            channel_sums<decltype(side)::value>(m + s.y.shared, lane, s.out, [&](int c, float v) {
              sums[c] = v;
              if (s.projection >= 0) row[kUnetSavedMaps + s.projection + c] = v;
            });
          });
        }
        if (s.identity) {
          for (int i = lane; i < s.out * channel_stride(s.side); i += kWarp) {
            const float g = m[s.y.shared + i];
            m[s.r0.shared + i] = s.r_adds ? m[s.r0.shared + i] + g : g;
          }
        }
      }
      if (s.points) {
        if (live) {
          Conv k;
          k.p0 = s.y.shared, k.p_first = k.points = s.out, k.pw = w + staged.point;
          k.out = s.points, k.to0 = s.r0.shared, k.to1 = s.r1.shared, k.first = s.points_first;
          k.add0 = s.r_adds ? s.r0.shared : -1;
          conv(m, at.zeros, s.side, lane, k);
          with_side(s.side, [&](auto side) {
            constexpr int kSide = decltype(side)::value;
            copy_maps<kSide>(z, lane, saved_maps(row, s.r0, s.r1, s.points_first, kSide), s.points);
          });
        }
        __syncthreads();
        with_side(s.side, [&](auto side) { sum_points<decltype(side)::value>(sum, s, of_sums.point); });
        __syncthreads();
      }

      Norm norm;
      const Maps x = saved_maps(row, s.x0, s.x1, s.first, s.side);
      if (live) {
        if (s.kind == UnetStage::image) {
          put_image(z, lane, image_of(in, j, lane));
        } else if (s.kind == UnetStage::up) {
          double_pixels(z, lane, saved_maps(row, s.x0, s.x1, s.first, s.side / 2), s.in, s.side);
        } else if (s.kind != UnetStage::attention) {
          with_side(s.side, [&](auto side) {
            constexpr int kSide = decltype(side)::value;
            if (normed)
              norm = normalise<kSide>(z, lane, x, s.in, w + staged.gain, w + staged.shift, drop);
            else
              copy_maps<kSide>(z, lane, x, s.in);
          });
        }
      }
      __syncthreads();
      if (s.kind == UnetStage::attention) {
        sum_attention(sum, s);
      } else if (s.kind == UnetStage::down) {
        switch (s.side) {
          case 8:
            sum_weights<8, true>(sum, s);
            break;
          case 4:
            sum_weights<4, true>(sum, s);
            break;
          default:
            sum_weights<2, true>(sum, s);
        }
      } else {
        with_side(s.side, [&](auto side) { sum_weights<decltype(side)::value, false>(sum, s); });
      }
      __syncthreads();

      if (live && s.kind == UnetStage::down) {
        switch (s.side) {
          case 8:
            conv_down_backward<8>(m, lane, s, w);
            break;
          case 4:
            conv_down_backward<4>(m, lane, s, w);
            break;
          default:
            conv_down_backward<2>(m, lane, s, w);
        }
      } else if (live && s.kind != UnetStage::attention) {
        Conv k;
        k.from = s.y.shared, k.in = s.out, k.w = w, k.out = even(s.in), k.to0 = kMapZ, k.first = k.out;
        conv(m, at.zeros, s.side, lane, k);
        __syncwarp();
        if (normed) {
          with_side(s.side, [&](auto side) {
            normalise_backward<decltype(side)::value>(z, lane, x, s, w + staged.gain, w + staged.shift, drop, norm, m,
                                                      sums);
          });
        } else if (s.kind == UnetStage::up) {
          fold_pixels(m, lane, s);
        } else {
          const auto channel = [&](int c) { return two(z + c * channel_stride(8) + lane_pixels(lane)); };
          store_two(to.e_t.row(j), lane, channel(0));
          if (in.modalities > 1) store_two(to.h[1].row(j), lane, channel(1));
          store_two(to.h[0].row(j), lane, channel(2));
        }
      }
      __syncthreads();
      for (int i = int(threadIdx.x); i < kUnetSums; i += int(blockDim.x)) {
        const int place = place_of_sum(s, of_sums, i);
        if (place < 0) continue;
        float total = sum.start(place);
        for (int item = 0; item < sum.items; ++item) total += at.sums[item * kUnetSums + i];
        sum.to[place] = total;
      }
    }
  }
}

// --- backward: sums over chunks, and the time path -------------------------------------------------------------------

// grads += the chunks' sums, ascending.
// Geometry  a thread an element of the chunks, a block 256 of a stage's.
// Traffic   0.4 MB a chunk, at most 107 MB; the gradients are read and written out of order, 0.8 MB.
__global__ void unet_gradients(UnetGrads grads, StageShapes stages, const float* chunks, int64_t chunk, RowList rows) {
  const StageShape s = stages.stage[blockIdx.x];
  const StageLayout at = stage_layout(s, Laid::gradients);
  int i = int(blockIdx.y * blockDim.x + threadIdx.x);
  if (i >= at.floats) return;
  const int64_t count = (rows.n() + chunk - 1) / chunk;
  const float* from = chunks + s.at + i;
  float sum = 0;
#pragma unroll 8
  for (int64_t k = 0; k < count; ++k) sum += from[k * kUnetFloats];
  if (count == 0) return;
  const auto add = [&](int tensor, int element) { grads.p[tensor][element] += sum; };
  if (s.kind == UnetStage::attention) {
    const int end[] = {16, 32, 32 + 256, kAttentionOut, kAttentionOut + 256, kAttentionFloats};
    int k = 0;
    while (i >= end[k]) ++k;
    add(s.gain + k, k ? i - end[k - 1] : i);
  } else if (i < at.point) {
    const int pairs = s.in * s.out, tap = i / pairs, c = i % pairs / s.out, o = i % s.out;
    add(s.weight, (o * s.in + c) * s.taps + tap);
  } else if (i < at.bias) {
    i -= at.point;
    add(s.weight + 2, i % s.out * s.points + i / s.out);
  } else if (i < at.gain) {
    add(s.weight + 1, i - at.bias);
    if (s.points) add(s.weight + 3, i - at.bias);
  } else if (i < at.shift) {
    add(s.gain, i - at.gain);
  } else if (i < at.shift + s.normed()) {
    add(s.gain + 1, i - at.shift);
  }
}

// parts (segments, T, kUnetColumns) = the projections' gradients summed over a segment's items at a step, ascending.
// Geometry  a block a step and segment, a thread a column.
// Traffic   a segment's steps by every block, 4 bytes an item from L1; 1,248 bytes an item once.
__global__ void unet_time_parts(float* parts, UnetSaved saved, const int32_t* t, RowList rows, int64_t segment) {
  const int64_t begin = int64_t(blockIdx.y) * segment, n = rows.n(), end = begin + segment < n ? begin + segment : n;
  const int c = int(threadIdx.x), step = int(blockIdx.x);
  if (c >= kUnetColumns) return;
  float sum = 0;
  for (int64_t j = begin; j < end; ++j) {
    if (t[j] == step) sum += saved.p[j * kUnetSaved + kUnetSavedMaps + c];
  }
  parts[(int64_t(blockIdx.y) * gridDim.x + step) * kUnetColumns + c] = sum;
}

struct TimeGrads {  // a step's, of all that its parameters' gradients are products of
  float projection[kUnetColumns], temb[kUnetTime], hidden[kUnetTime];
  float of_temb[kUnetTime], of_hidden[kUnetTime];  // no gradients: silu of temb and hidden
};

// Geometry  a block a step: 10 threads share a component of temb, of the 312 columns each takes every tenth of a Res.
// Traffic   40 KB of the projections' weights from L2.
constexpr int kTimeParts = 10;
__global__ void unet_time_rows(TimeGrads* steps, const float* parts, int64_t segments, UnetParams params,
                               TimeTable table, CMat tau) {
  SHARED(TimeRow, row, );
  SHARED(TimeGrads, g, );
  SHARED(float, part, [kTimeParts][kUnetTime]);
  const int64_t t = blockIdx.x, T = gridDim.x;
  const int k = int(threadIdx.x) % kUnetTime, p = int(threadIdx.x) / kUnetTime;
  time_row(row, tau.row(t), params);
  for (int c = int(threadIdx.x); c < kUnetColumns; c += int(blockDim.x)) {
    float sum = 0;
    for (int64_t s = 0; s < segments; ++s) sum += parts[(s * T + t) * kUnetColumns + c];
    g.projection[c] = sum;
  }
  __syncthreads();
  float sum = 0;
  for (int r = 0; r < kUnetRes; ++r) {
    const TimeColumns res = table.res[r];
    for (int o = p; o < res.out; o += kTimeParts)
      sum = fmaf(g.projection[res.column + o], params.p[res.weight][o * kUnetTime + k], sum);
  }
  part[p][k] = sum;
  __syncthreads();
  if (p == 0) {
    float all = 0;
    for (int i = 0; i < kTimeParts; ++i) all += part[i][k];
    g.temb[k] = all * silu_slope(row.temb[k]);
    g.of_temb[k] = row.of_temb[k], g.of_hidden[k] = row.of_hidden[k];
  }
  __syncthreads();
  if (p == 0) {
    float all = 0;
    for (int o = 0; o < kUnetTime; ++o) all = fmaf(params.p[2][o * kUnetTime + k], g.temb[o], all);
    g.hidden[k] = all * silu_slope(row.hidden[k]);
  }
  __syncthreads();
  const float* from = reinterpret_cast<const float*>(&g);
  for (int i = int(threadIdx.x); i < int(sizeof(TimeGrads) / sizeof(float)); i += int(blockDim.x))
    reinterpret_cast<float*>(steps + t)[i] = from[i];
}

// grads += of the projections, and of the time MLP by the last two blocks; steps ascending.
// Geometry  a block a linear layer, a thread an element of its weight or bias.
// Traffic   1.8 KB a step by every block.
__global__ void unet_time_gradients(UnetGrads grads, const TimeGrads* steps, TimeTable table, CMat tau) {
  const int b = int(blockIdx.x), T = int(tau.rows);
  const bool second = b == kUnetRes, first = b == kUnetRes + 1;  // of the MLP
  const int out = second || first ? kUnetTime : table.res[b].out, in = first ? kUnetTimeIn : kUnetTime;
  const int weight = second ? 2 : first ? 0 : table.res[b].weight;
  for (int i = int(threadIdx.x); i < out * (in + 1); i += int(blockDim.x)) {
    const bool bias = i >= out * in;
    const int o = bias ? i - out * in : i / in, c = i % in;
    float sum = 0;
    for (int t = 0; t < T; ++t) {
      const TimeGrads& g = steps[t];
      const float of_out = second ? g.temb[o] : first ? g.hidden[o] : g.projection[table.res[b].column + o];
      if (bias)
        sum += of_out;
      else
        sum = fmaf(of_out, second ? g.of_hidden[c] : first ? tau.row(t)[c] : g.of_temb[c], sum);
    }
    grads.p[bias ? weight + 1 : weight][bias ? o : i] += sum;
  }
}

// --- host ------------------------------------------------------------------------------------------------------------

// Chunks of items whose sums are kept apart, and segments of the sums by step: by the capacity alone. Two chunks for
// each multiprocessor of the largest chips.
constexpr int64_t kMostChunks = 264, kChunkUnit = 8;
int64_t chunk_items(int64_t capacity) { return blocks_for(blocks_for(capacity, kMostChunks), kChunkUnit) * kChunkUnit; }
int64_t segment_items(int64_t T) { return 256 * blocks_for(T, 32); }  // so that their sums stay few

struct ItemBlocks {
  int64_t items;
  size_t shared;
};
ItemBlocks item_blocks(bool backward) {
  const int64_t of_item = kItemFloats + (backward ? kUnetSums : 0), room = chip().shared / 4 - kBlockFloats;
  const int64_t items = std::min<int64_t>(kMostItems, room / of_item);
  CHECK_THAT(items >= 1);
  return {items, size_t(kBlockFloats + items * of_item) * sizeof(float)};
}

int64_t laid_out_floats(int64_t T) { return kUnetFloats + T * kUnetColumns; }

// The parameters as staged and, forward, the time projections behind them: scratch slot 0.
const float* lay_out_parameters(Ctx& ctx, const UnetParams& params, CMat tau, bool backward) {
  float* p = static_cast<float*>(ctx.scratch(0, size_t(laid_out_floats(tau.rows)) * sizeof(float)));
  launch(unet_parameters, kUnetStages + (backward ? 0 : tau.rows), 256, 0, ctx, p, p + kUnetFloats, params,
         stage_shapes(), time_table(), tau, backward);
  return p;
}

void check_unet(const EstimatorTokens& in, const UnetSaved& saved, int64_t n) {
  CHECK_THAT(in.modalities == 1 || in.modalities == 2);
  CHECK_THAT(in.e_t.cols == kUnetWidth && in.e_t.rows >= n);
  for (int m = 0; m < in.modalities; ++m) CHECK_THAT(in.h[m].cols == kUnetWidth && in.h[m].rows >= n);
  CHECK_SHAPE(in.tau, in.tau.rows, kUnetTimeIn);
  CHECK_THAT(saved.capacity >= n && four_columns(kUnetSaved, {saved.p}));
}

}  // namespace

void unet_forward(Ctx& ctx, Mat e0_hat, const UnetSaved& saved, const EstimatorTokens& in, const UnetParams& params,
                  const UnetMask& mask, RowList rows) {
  const int64_t n = rows.capacity;
  CHECK_THAT(e0_hat.cols == kUnetWidth && e0_hat.rows >= n);
  check_unet(in, saved, n);
  if (n == 0) return;
  const float* p = lay_out_parameters(ctx, params, in.tau, false);
  const ItemBlocks b = item_blocks(false);
  launch(unet_forward_items, blocks_for(n, b.items), int(b.items) * kWarp, b.shared, ctx, kUnetPlan.stages, e0_hat,
         saved, in, mask, rows, p, p + kUnetFloats);
}

void unet_backward(Ctx& ctx, Mat d_e_t, const Mat* d_h, const UnetGrads& grads, CMat d_e0_hat,
                   const EstimatorTokens& in, const UnetSaved& saved, const UnetParams& params, const UnetMask& mask,
                   RowList rows) {
  const int64_t n = rows.capacity, T = in.tau.rows;
  CHECK_THAT(d_e0_hat.cols == kUnetWidth && d_e0_hat.rows >= n && d_e_t.cols == kUnetWidth && d_e_t.rows >= n);
  check_unet(in, saved, n);
  ItemGrads to;
  to.e_t = d_e_t;
  for (int m = 0; m < in.modalities; ++m) {
    CHECK_THAT(d_h[m].cols == kUnetWidth && d_h[m].rows >= n);
    to.h[m] = d_h[m];
  }
  if (n == 0) return;
  const float* p = lay_out_parameters(ctx, params, in.tau, true);
  const int64_t chunk = chunk_items(n), chunks = blocks_for(n, chunk);
  const int64_t segment = segment_items(T), segments = blocks_for(n, segment);
  float* sums = static_cast<float*>(ctx.scratch(1, size_t(chunks * kUnetFloats) * sizeof(float)));
  float* parts = static_cast<float*>(ctx.scratch(2, size_t(segments * T * kUnetColumns) * sizeof(float)));
  TimeGrads* steps = static_cast<TimeGrads*>(ctx.scratch(3, size_t(T) * sizeof(TimeGrads)));

  const ItemBlocks b = item_blocks(true);
  launch(unet_backward_items, chunks, int(b.items) * kWarp, b.shared, ctx, kUnetPlan.stages, to, sums, chunk, d_e0_hat,
         saved, in, mask, rows, p);
  launch(unet_gradients, (Grid{kUnetStages, blocks_for(kStaged, 256)}), 256, 0, ctx, grads, stage_shapes(), sums, chunk,
         rows);
  launch(unet_time_parts, (Grid{T, segments}), 320, 0, ctx, parts, saved, in.t, rows, segment);
  launch(unet_time_rows, T, kTimeParts * kUnetTime, 0, ctx, steps, parts, segments, params, time_table(), in.tau);
  launch(unet_time_gradients, kUnetRes + 2, 512, 0, ctx, grads, steps, time_table(), in.tau);
}

void unet_reverse(Ctx& ctx, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const UnetParams& params,
                  const Schedule& schedule, uint32_t seed, uint32_t epoch) {
  const int64_t n = q.rows;
  CHECK_THAT((modalities == 1 || modalities == 2) && schedule.steps >= 1);
  CHECK_SHAPE(q, n, kUnetWidth);
  CHECK_SHAPE(tau, schedule.steps, kUnetTimeIn);
  ReverseItems in{};
  in.q = q, in.modalities = modalities, in.schedule = schedule, in.seed = seed, in.epoch = epoch, in.late = ctx.late;
  for (int m = 0; m < modalities; ++m) {
    CHECK_SHAPE(h[m], n, kUnetWidth);
    in.h[m] = h[m];
  }
  for (int p = 0; p < 4; ++p) {
    if (pools[p]) CHECK_SHAPE(pools[p], n, kUnetWidth);
    in.pools[p] = pools[p];
  }
  if (n == 0) return;
  const float* p = lay_out_parameters(ctx, params, tau, false);
  const ItemBlocks b = item_blocks(false);
  launch(unet_reverse_items, blocks_for(n, b.items), int(b.items) * kWarp, b.shared, ctx, kUnetPlan.stages, in, p,
         p + kUnetFloats);
}

void unet_scratch(ScratchPlan& p, int64_t rows, int T) {
  if (rows == 0) return;
  p.need(0, laid_out_floats(T) * 4);
  p.need(1, blocks_for(rows, chunk_items(rows)) * kUnetFloats * 4);
  p.need(2, blocks_for(rows, segment_items(T)) * T * kUnetColumns * 4);
  p.need(3, int64_t(T) * int64_t(sizeof(TimeGrads)));
}
void unet_reverse_scratch(ScratchPlan& p, int64_t, int T) { p.need(0, laid_out_floats(T) * 4); }

}  // namespace ccdrec::cuda
