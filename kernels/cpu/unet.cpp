// The U-Net (kernels/unet.h) on the CPU: 16 items at a time, an item a lane, through all layers while their maps stay
// in the L2 cache (kernels/cpu/fast/unet_maps.h has the layers). Forward keeps per tile every layer's output, conv1's
// output of every Res and the norms' statistics (11,472 floats an item); backward computes norms and silu again.
//
// What bounds it, one core of an Ice Lake at 2.6 GHz (fma 178 GFLOP/s, gemm 107), 7,050 items, forward and backward:
// 0.60 s of a core for 44 GFLOP, which is 41 % of fma, 68 % of gemm.
//   convolutions and their input gradients   37 % of the time, at 85 % of the fma rate
//   weight gradients                         20 %, at 72 %
//   adding their lanes                        5 %: weights at 2x2 and 1x1 have fewer products than lanes
//   silu with its slope, group norms         23 %: 12,000 exponentials an item, twice
//   reading and writing what is kept         11 %, spread among the above: 734 KB a tile
// unet_reverse keeps nothing and runs at 56 % of fma. Asking for the kept memory earlier gained 2 %, so it went.
#include "kernels/unet.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/fast/normals.h"
#include "kernels/cpu/fast/unet16.h"
#include "kernels/cpu/fast/unet_maps.h"

namespace ccdrec {

std::vector<float> unet_time_embedding(int steps) {
  std::vector<float> tau;
  for (int t = 0; t < steps; ++t) {
    for (int half = 0; half < 2; ++half) {
      for (int k = 0; k < kUnetTimeIn / 2; ++k) {
        const double x = t * std::exp(-k * std::log(10000.0) / (kUnetTimeIn / 2 - 1));
        tau.push_back(float(half ? std::cos(x) : std::sin(x)));
      }
    }
  }
  return tau;
}

}  // namespace ccdrec

namespace ccdrec::cpu {
namespace {

static_assert(kUnetRowsTogether == kLanes);
constexpr int64_t kPixels = kUnetSide * kUnetSide;
constexpr int64_t kStats = 2 * kUnetGroups;  // vectors of a norm
constexpr int64_t kImageMaps = 4;            // three and one of zeros: gradients take four maps at a time

// A convolution of a layer: its tensors, and where its packed weight and its gradient lie.
struct Conv {
  ConvShape shape;
  int tensor = 0;
  int64_t packed_at = 0, gradient_at = 0;
  int taps() const { return kUnet.tensor[size_t(tensor)].cols / shape.in; }
};
struct Layer {
  Conv conv[3];  // stem, Down, Up, head: one. Res: conv1, conv2, shortcut. Attention: value, out
  int convs = 0;
  NormShape norm1, norm2;
  int64_t y_at = 0, a_at = 0, stats1_at = 0, stats2_at = 0;  // in a tile's saved, vectors
  int projection_at = 0;                                     // Res: its first channel in the time projections
};
struct Network {
  Layer layer[kUnetLayers];
  int64_t vector_at[kUnetTensors] = {};  // the gradients of gains and biases, behind the convolutions'
  int64_t packed = 0, gradient = 0;      // floats, of all
  int64_t saved = 0;                     // vectors of a tile
  int projections = 0;                   // channels of all Res
  int64_t skips = 0;                     // vectors of all maps on the skip stack
  int64_t widest = 0;                    // vectors of the largest input of a convolution or norm
};

Network make_network() {
  Network n;
  std::array<int, kUnetLayers> stack{};  // the layers whose output is on the skip stack
  int depth = 0;
  for (int i = 0; i < kUnet.layers; ++i) {
    const UnetLayer& u = kUnet.layer[size_t(i)];
    Layer& l = n.layer[i];
    const int64_t area = u.side * u.side, area_out = u.side_out() * u.side_out();
    const auto add = [&](Moves moves, int tensor, int in, int out, int side) {
      Conv& c = l.conv[l.convs++];
      c.shape = {moves, in, out, side};
      c.tensor = tensor;
      c.packed_at = n.packed, c.gradient_at = n.gradient;
      n.packed += packed_floats(c.shape), n.gradient += gradient_floats(c.shape);
      n.widest = std::max(n.widest, int64_t(in) * side * side);
    };
    const auto take = [&](int64_t vectors) {
      n.saved += vectors;
      return n.saved - vectors;
    };
    switch (u.kind) {
      case UnetKind::stem:
        add(Moves::same, u.first, u.in, u.out, u.side);
        break;
      case UnetKind::down:
        add(Moves::down, u.first, u.in, u.out, u.side);
        break;
      case UnetKind::up:
        add(Moves::same, u.first, u.in, u.out, 2 * u.side);
        break;
      case UnetKind::head:
        add(Moves::same, u.first + 2, u.in, u.out, u.side);
        break;
      case UnetKind::attention:
        add(Moves::point, u.first + 2, u.in, u.in, u.side);
        add(Moves::point, u.first + 4, u.in, u.in, u.side);
        break;
      case UnetKind::res: {
        const Moves moves = u.side == 1 ? Moves::point : Moves::same;
        add(moves, u.first + 2, u.in, u.out, u.side);
        add(moves, u.first + 8, u.out, u.out, u.side);
        if (u.shortcut) add(Moves::point, u.first + 10, u.in, u.out, u.side);
        l.a_at = take(u.out * area);
        l.stats2_at = take(kStats);
        l.projection_at = n.projections;
        n.projections += u.out;
        break;
      }
    }
    l.norm1 = {u.in, int(area)}, l.norm2 = {u.out, int(area)};
    l.stats1_at = take(kStats);
    if (u.pushes) n.skips += u.out * area_out;
    if (u.pushes) stack[size_t(depth++)] = i;
    if (u.skip_in) {  // [output of the layer before | skip], as it reads them
      n.layer[i - 1].y_at = take(u.in * area);
      const int pushed_by = stack[size_t(--depth)];
      n.layer[pushed_by].y_at = n.layer[i - 1].y_at + (u.in - u.skip_in) * area;
    }
    const bool read_with_skip = u.pushes || kUnet.layer[size_t(i) + 1].skip_in > 0;
    if (u.kind != UnetKind::head && !read_with_skip) l.y_at = take(u.out * area_out);
  }
  for (int i = 0; i < kUnet.tensors; ++i) {
    if (kUnet.tensor[size_t(i)].rows > 1) continue;
    n.vector_at[i] = n.gradient;
    n.gradient += (kUnet.tensor[size_t(i)].cols + kLanes - 1) / kLanes * kLanes;
  }
  return n;
}
const Network& network() {
  static const Network n = make_network();
  return n;
}

// ---- the time projections: a row a step ----

struct TimeTable {  // of T steps
  float *hidden, *temb, *act, *projection;
};
int64_t time_floats(int64_t T) { return T * (3 * kUnetTime + network().projections); }
TimeTable cut_time(float* p, int64_t T) { return {p, p + T * kUnetTime, p + 2 * T * kUnetTime, p + 3 * T * kUnetTime}; }
float sigmoid(float z) { return 1.0f / (1.0f + portable_exp(-z)); }
float row_product(const float* w, const float* x, int n, float bias) {
  for (int k = 0; k < n; ++k) bias = std::fma(w[k], x[k], bias);
  return bias;
}

TimeTable fill_time(float* room, CMat tau, const UnetParams& params) {
  const TimeTable t = cut_time(room, tau.rows);
  const float* const* p = params.p;
  for (int64_t step = 0; step < tau.rows; ++step) {
    float *hidden = t.hidden + step * kUnetTime, *temb = t.temb + step * kUnetTime, *act = t.act + step * kUnetTime;
    float active[kUnetTime];
    for (int o = 0; o < kUnetTime; ++o) {
      hidden[o] = row_product(p[0] + o * kUnetTimeIn, tau.row(step), kUnetTimeIn, p[1][o]);
      active[o] = hidden[o] * sigmoid(hidden[o]);
    }
    for (int o = 0; o < kUnetTime; ++o) {
      temb[o] = row_product(p[2] + o * kUnetTime, active, kUnetTime, p[3][o]);
      act[o] = temb[o] * sigmoid(temb[o]);
    }
    for (int i = 0; i < kUnet.layers; ++i) {
      const UnetLayer& u = kUnet.layer[size_t(i)];
      if (u.kind != UnetKind::res) continue;
      float* to = t.projection + step * network().projections + network().layer[i].projection_at;
      const float *w = p[u.first + 4], *b = p[u.first + 5];
      for (int o = 0; o < u.out; ++o) to[o] = row_product(w + o * kUnetTime, act, kUnetTime, b[o]);
    }
  }
  return t;
}

// What backward has for each of T steps, in double: d_projection (T, projections), d_act and d_hidden (T,32).
struct TimeBack {
  double *d_projection, *d_act, *d_hidden;
};
int64_t time_back_doubles(int64_t T) { return T * (network().projections + 2 * kUnetTime); }
TimeBack cut_time_back(double* p, int64_t T) {
  std::fill_n(p, time_back_doubles(T), 0.0);
  return {p, p + T * network().projections, p + T * (network().projections + kUnetTime)};
}

// The gradients of the projections' weights and of the MLP, given d_projection. T rows: not worth a thread.
void time_back(const UnetGrads& grads, const TimeBack& back, CMat tau, const TimeTable& t, const UnetParams& params) {
  const int64_t T = tau.rows, width = network().projections;
  for (int i = 0; i < kUnet.layers; ++i) {
    const UnetLayer& u = kUnet.layer[size_t(i)];
    if (u.kind != UnetKind::res) continue;
    for (int o = 0; o < u.out; ++o) {
      double d_w[kUnetTime] = {}, d_b = 0;
      const float* w = params.p[u.first + 4] + o * kUnetTime;
      for (int64_t step = 0; step < T; ++step) {
        const double d = back.d_projection[step * width + network().layer[i].projection_at + o];
        d_b += d;
        for (int k = 0; k < kUnetTime; ++k) {
          d_w[k] += d * t.act[step * kUnetTime + k];
          back.d_act[step * kUnetTime + k] += d * w[k];
        }
      }
      for (int k = 0; k < kUnetTime; ++k) grads.p[u.first + 4][o * kUnetTime + k] += float(d_w[k]);
      grads.p[u.first + 5][o] += float(d_b);
      grads.p[u.first + 3][o] += float(d_b);  // conv1's bias is added in the same place
    }
  }
  const auto silu_back = [](double d, float z) {
    const double s = sigmoid(z);
    return d * s * (1 + double(z) * (1 - s));
  };
  for (int o = 0; o < kUnetTime; ++o) {
    double d_w[kUnetTime] = {}, d_b = 0;
    for (int64_t step = 0; step < T; ++step) {
      const double d = silu_back(back.d_act[step * kUnetTime + o], t.temb[step * kUnetTime + o]);
      d_b += d;
      for (int k = 0; k < kUnetTime; ++k) {
        const float z = t.hidden[step * kUnetTime + k];
        d_w[k] += d * double(z * sigmoid(z));
        back.d_hidden[step * kUnetTime + k] += d * params.p[2][o * kUnetTime + k];
      }
    }
    for (int k = 0; k < kUnetTime; ++k) grads.p[2][o * kUnetTime + k] += float(d_w[k]);
    grads.p[3][o] += float(d_b);
  }
  for (int o = 0; o < kUnetTime; ++o) {
    double d_w[kUnetTimeIn] = {}, d_b = 0;
    for (int64_t step = 0; step < T; ++step) {
      const double d = silu_back(back.d_hidden[step * kUnetTime + o], t.hidden[step * kUnetTime + o]);
      d_b += d;
      for (int k = 0; k < kUnetTimeIn; ++k) d_w[k] += d * tau.row(step)[k];
    }
    for (int k = 0; k < kUnetTimeIn; ++k) grads.p[0][o * kUnetTimeIn + k] += float(d_w[k]);
    grads.p[1][o] += float(d_b);
  }
}

// ---- a tile ----

// Maps of one thread, vectors each.
struct Work {
  float *image, *act, *slope;
  float* time;                             // projections of the lanes
  float *init, *d_gain, *d_bias;           // a vector a channel
  float *d_y, *d_x, *d_act, *d_a, *skips;  // of backward
  uint16_t* kept;                          // lanes that keep an element
};
constexpr int64_t kMostChannels = 32;
int64_t kept_floats() { return (kUnet.mask_elements * 2 + 63) / 64 * 16; }
int64_t work_floats() {
  const Network& n = network();
  return (kImageMaps * kPixels + 6 * n.widest + n.projections + 3 * kMostChannels + n.skips) * kLanes + kept_floats();
}
Work cut_work(float* p) {
  const Network& n = network();
  const auto take = [&](int64_t vectors) {
    p += vectors * kLanes;
    return p - vectors * kLanes;
  };
  Work w;
  w.image = take(kImageMaps * kPixels);
  for (float** maps : {&w.act, &w.slope, &w.d_y, &w.d_x, &w.d_act, &w.d_a}) *maps = take(n.widest);
  w.time = take(n.projections);
  for (float** channels : {&w.init, &w.d_gain, &w.d_bias}) *channels = take(kMostChannels);
  w.skips = take(n.skips);
  w.kept = reinterpret_cast<uint16_t*>(p);
  return w;
}

// maps[e, lane] = rows[first + lane, e]; lanes from `count` on are 0.
void load_rows(float* maps, CMat rows, int64_t first, int64_t count) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const float* row = lane < count ? rows.row(first + lane) : nullptr;
    for (int64_t e = 0; e < kPixels; ++e) maps[e * kLanes + lane] = row ? row[e] : 0.0f;
  }
}
void store_rows(Mat rows, const float* maps, int64_t first, int64_t count) {
  for (int64_t lane = 0; lane < count; ++lane) {
    for (int64_t e = 0; e < kPixels; ++e) rows.row(first + lane)[e] = maps[e * kLanes + lane];
  }
}
// Channels 1 and 2 of the image, and the one of zeros; channel 0 is the caller's.
void load_conditions(float* image, const CMat* h, int modalities, int64_t first, int64_t count) {
  const int64_t map = kPixels * kLanes;
  std::fill_n(image + map, 3 * map, 0.0f);
  if (modalities > 1) load_rows(image + map, h[1], first, count);
  load_rows(image + 2 * map, h[0], first, count);
}
void load_time(float* time, const TimeTable& table, const int32_t* t, int64_t count) {
  const int width = network().projections;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const float* row = table.projection + int64_t(lane < count ? t[lane] : 0) * width;
    for (int c = 0; c < width; ++c) time[c * kLanes + lane] = row[c];
  }
}
// kept[e], bit l: item first + l keeps element e. A transposition of 16 x 16 bits a word.
void load_mask(uint16_t* kept, const uint16_t* bits, int64_t first, int64_t count) {
  for (int64_t w = 0; w < kUnetMaskWords; ++w) {
    uint32_t lanes[kMaskBits] = {};
    for (int64_t lane = 0; lane < count; ++lane) {
      const uint32_t word = bits[(first + lane) * kUnetMaskWords + w];
      for (uint32_t b = 0; b < kMaskBits; ++b) lanes[b] |= (word >> b & 1u) << lane;
    }
    for (int b = 0; b < kMaskBits; ++b) kept[w * kMaskBits + b] = uint16_t(lanes[b]);
  }
}

struct Tile {
  const float* packed;  // weights, as this direction reads them
  const float* const* p;
  float* saved;
  Dropped dropped;
  Dropped dropped_at(const UnetLayer& u) const {
    return {dropped.lanes ? dropped.lanes + u.mask_at : nullptr, dropped.scale};
  }
};

// init[o] = bias[o] + time[o]
const float* starts(float* init, const float* bias, int channels, const float* time = nullptr) {
  for (int o = 0; o < channels; ++o) {
    const V16 b = splat16(bias[o]);
    store16(init + o * kLanes, time ? b + load16(time + o * kLanes) : b);
  }
  return init;
}

// The input of layer i: the output of the one before, at a Res in the way up with the skip right behind it.
const float* input_of(int i, const Tile& tile, const Work& w) {
  return i == 0 ? w.image : tile.saved + network().layer[i - 1].y_at * kLanes;
}

// e0 (one map) of w.image and w.time.
void forward_tile(float* e0, const Tile& tile, const Work& w) {
  const Network& n = network();
  const auto run = [&](float* y, const float* x, const Conv& c, const float* init, const float* add) {
    convolve(y, x, tile.packed + c.packed_at, c.shape, init, add);
  };
  for (int i = 0; i < kUnet.layers; ++i) {
    const UnetLayer& u = kUnet.layer[size_t(i)];
    const Layer& l = n.layer[i];
    const float* const* p = tile.p + u.first;
    const float* x = input_of(i, tile, w);
    float *y = tile.saved + l.y_at * kLanes, *stats1 = tile.saved + l.stats1_at * kLanes;
    switch (u.kind) {
      case UnetKind::stem:
      case UnetKind::down:
        run(y, x, l.conv[0], starts(w.init, p[1], u.out), nullptr);
        break;
      case UnetKind::up:
        double_pixels(w.act, x, u.in, u.side);
        run(y, w.act, l.conv[0], starts(w.init, p[1], u.out), nullptr);
        break;
      case UnetKind::head:
        norm_stats(stats1, x, l.norm1);
        activate(w.act, nullptr, x, stats1, p[0], p[1], l.norm1, {});
        run(e0, w.act, l.conv[0], starts(w.init, p[3], u.out), nullptr);
        break;
      case UnetKind::attention:
        norm_stats(stats1, x, l.norm1);
        normalise(w.act, x, stats1, p[0], p[1], l.norm1);
        run(w.slope, w.act, l.conv[0], starts(w.init, p[3], u.in), nullptr);
        run(y, w.slope, l.conv[1], starts(w.init, p[5], u.in), x);
        break;
      case UnetKind::res: {
        float *a = tile.saved + l.a_at * kLanes, *stats2 = tile.saved + l.stats2_at * kLanes;
        norm_stats(stats1, x, l.norm1);
        activate(w.act, nullptr, x, stats1, p[0], p[1], l.norm1, {});
        run(a, w.act, l.conv[0], starts(w.init, p[3], u.out, w.time + l.projection_at * kLanes), nullptr);
        norm_stats(stats2, a, l.norm2);
        activate(w.act, nullptr, a, stats2, p[6], p[7], l.norm2, tile.dropped_at(u));
        if (u.shortcut) run(y, x, l.conv[2], starts(w.init, p[11], u.out), nullptr);
        run(y, w.act, l.conv[1], starts(w.init, p[9], u.out), u.shortcut ? y : x);
        break;
      }
    }
  }
}

// w.d_y holds the gradient of e0 in its first map and zeros in the next three. Writes that of the image there; adds
// those of the parameters to `gradient` (as Network lays them out) and writes those of the projections, a vector each.
void backward_tile(float* gradient, float* d_projection, const Tile& tile, Work& w) {
  const Network& n = network();
  const auto into = [&](float* d_x, const float* d_y, const Conv& c, const float* add) {
    convolve_back(d_x, d_y, tile.packed + c.packed_at, c.shape, add);
  };
  const auto weigh = [&](const float* d_y, const float* x, const Conv& c) {
    convolve_gradient(gradient + c.gradient_at, d_y, x, c.shape);
  };
  const auto sum = [&](int tensor, const float* vectors, int channels) {
    add_lane_sums(gradient + n.vector_at[tensor], vectors, channels);
  };
  const auto sum_bias = [&](int tensor, const float* d_y, int channels, int pixels) {
    sum_pixels(w.init, d_y, channels, pixels);
    sum(tensor, w.init, channels);
  };
  const auto sum_norm = [&](int tensor, int channels) {
    sum(tensor, w.d_gain, channels);
    sum(tensor + 1, w.d_bias, channels);
  };
  float* top = w.skips;  // of the stack of what was popped: the last that was pushed is met first again
  for (int i = kUnet.layers - 1; i >= 0; --i) {
    const UnetLayer& u = kUnet.layer[size_t(i)];
    const Layer& l = n.layer[i];
    const float* const* p = tile.p + u.first;
    const float* x = input_of(i, tile, w);
    const float* stats1 = tile.saved + l.stats1_at * kLanes;
    const int area = u.side * u.side, area_out = u.side_out() * u.side_out();
    if (u.pushes) {
      top -= u.out * area_out * kLanes;
      add_maps(w.d_y, top, u.out * area_out);
    }
    switch (u.kind) {
      case UnetKind::stem:
      case UnetKind::down:
        weigh(w.d_y, x, l.conv[0]);
        sum_bias(u.first + 1, w.d_y, u.out, area_out);
        into(w.d_x, w.d_y, l.conv[0], nullptr);
        break;
      case UnetKind::up:
        double_pixels(w.act, x, u.in, u.side);
        weigh(w.d_y, w.act, l.conv[0]);
        sum_bias(u.first + 1, w.d_y, u.out, area_out);
        into(w.d_act, w.d_y, l.conv[0], nullptr);
        halve_pixels(w.d_x, w.d_act, u.in, u.side);
        break;
      case UnetKind::head:
        activate(w.act, w.slope, x, stats1, p[0], p[1], l.norm1, {});
        weigh(w.d_y, w.act, l.conv[0]);
        sum_bias(u.first + 3, w.d_y, u.out, area_out);
        into(w.d_act, w.d_y, l.conv[0], nullptr);
        norm_back(w.d_x, w.d_act, w.slope, x, stats1, p[0], l.norm1, nullptr, w.d_gain, w.d_bias);
        sum_norm(u.first, u.in);
        break;
      case UnetKind::attention: {
        normalise(w.act, x, stats1, p[0], p[1], l.norm1);
        const Conv &value = l.conv[0], &out = l.conv[1];
        // the values again, by the weight as forward reads it: it is 16 x 16
        for (int o = 0; o < u.in; ++o) {
          V16 v = splat16(p[3][o]);
          for (int c = 0; c < u.in; ++c) v = fma16(splat16(p[2][o * u.in + c]), load16(w.act + c * kLanes), v);
          store16(w.slope + o * kLanes, v);
        }
        weigh(w.d_y, w.slope, out);
        sum_bias(u.first + 5, w.d_y, u.in, area);
        into(w.d_a, w.d_y, out, nullptr);
        weigh(w.d_a, w.act, value);
        sum_bias(u.first + 3, w.d_a, u.in, area);
        into(w.d_act, w.d_a, value, nullptr);
        norm_back(w.d_x, w.d_act, nullptr, x, stats1, p[0], l.norm1, w.d_y, w.d_gain, w.d_bias);
        sum_norm(u.first, u.in);
        break;
      }
      case UnetKind::res: {
        const float *a = tile.saved + l.a_at * kLanes, *stats2 = tile.saved + l.stats2_at * kLanes;
        activate(w.act, w.slope, a, stats2, p[6], p[7], l.norm2, tile.dropped_at(u));
        weigh(w.d_y, w.act, l.conv[1]);
        sum_bias(u.first + 9, w.d_y, u.out, area);
        into(w.d_act, w.d_y, l.conv[1], nullptr);
        norm_back(w.d_a, w.d_act, w.slope, a, stats2, p[6], l.norm2, nullptr, w.d_gain, w.d_bias);
        sum_norm(u.first + 6, u.out);
        sum_pixels(d_projection + l.projection_at * kLanes, w.d_a, u.out, area);
        activate(w.act, w.slope, x, stats1, p[0], p[1], l.norm1, {});
        weigh(w.d_a, w.act, l.conv[0]);
        into(w.d_act, w.d_a, l.conv[0], nullptr);
        norm_back(w.d_x, w.d_act, w.slope, x, stats1, p[0], l.norm1, u.shortcut ? nullptr : w.d_y, w.d_gain, w.d_bias);
        sum_norm(u.first, u.in);
        if (u.shortcut) {  // its bias has the gradient of conv2's
          weigh(w.d_y, x, l.conv[2]);
          into(w.d_x, w.d_y, l.conv[2], w.d_x);
        }
        break;
      }
    }
    if (u.skip_in) {
      const int64_t current = (u.in - u.skip_in) * area;
      std::copy_n(w.d_x + current * kLanes, u.skip_in * area * kLanes, top);
      top += u.skip_in * area * kLanes;
    }
    std::swap(w.d_x, w.d_y);
  }
}

// ---- the operations ----

enum class Way { forward, backward };
void pack(float* packed, Way way, const UnetParams& params) {
  for (int i = 0; i < kUnet.layers; ++i) {
    const Layer& l = network().layer[i];
    for (int k = 0; k < l.convs; ++k) {
      const Conv& c = l.conv[k];
      const auto by = way == Way::forward ? pack_forward : pack_backward;
      by(packed + c.packed_at, params.p[c.tensor], c.taps(), c.shape);
    }
  }
}

// Chunks of the list: at most kChunks, of whole tiles; of n alone.
constexpr int64_t kChunks = 64;
int64_t tiles_of(int64_t n) { return (n + kLanes - 1) / kLanes; }
int64_t chunk_tiles(int64_t n) { return std::max<int64_t>(1, (tiles_of(n) + kChunks - 1) / kChunks); }
constexpr double kNsOfATile = 300e3;

template <class T>
T* scratch(Ctx& ctx, int slot, int64_t n) {
  return static_cast<T*>(ctx.scratch(slot, size_t(n) * sizeof(T)));
}
float* work_of_thread(float* work, int64_t floats) { return work + omp_get_thread_num() * floats; }

void check_tokens(const EstimatorTokens& in, int64_t n) {
  CHECK_THAT(in.modalities == 1 || in.modalities == 2);
  CHECK_THAT(in.e_t.rows >= n && in.e_t.cols == kUnetWidth);
  for (int m = 0; m < in.modalities; ++m) CHECK_THAT(in.h[m].rows >= n && in.h[m].cols == kUnetWidth);
  CHECK_THAT(in.tau.rows >= 1 && in.tau.cols == kUnetTimeIn);
}

}  // namespace

void unet_forward(Ctx& ctx, Mat e0_hat, const UnetSaved& saved, const EstimatorTokens& in, const UnetParams& params,
                  const UnetMask& mask, RowList rows) {
  const Network& net = network();
  const int64_t n = rows.n(), tiles = tiles_of(n);
  check_tokens(in, n);
  CHECK_THAT(e0_hat.rows >= n && e0_hat.cols == kUnetWidth && saved.capacity >= n && net.saved <= kUnetSaved);
  float* const packed = scratch<float>(ctx, 1, net.packed);
  pack(packed, Way::forward, params);
  const TimeTable time = fill_time(scratch<float>(ctx, 3, time_floats(in.tau.rows)), in.tau, params);
  const int threads = ctx.threads_for(kNsOfATile * double(tiles));
  float* const work = scratch<float>(ctx, 2, work_floats() * threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t k = 0; k < tiles; ++k) {
    const int64_t first = k * kLanes, count = std::min(kLanes, n - first);
    const Work w = cut_work(work_of_thread(work, work_floats()));
    load_rows(w.image, in.e_t, first, count);
    load_conditions(w.image, in.h, in.modalities, first, count);
    load_time(w.time, time, in.t + first, count);
    if (mask.bits) load_mask(w.kept, mask.bits, first, count);
    const Dropped dropped{mask.bits ? w.kept : nullptr, 1.0f / mask.keep};
    forward_tile(w.d_y, {packed, params.p, saved.p + first * kUnetSaved, dropped}, w);
    store_rows(e0_hat, w.d_y, first, count);
  }
}

void unet_backward(Ctx& ctx, Mat d_e_t, const Mat* d_h, const UnetGrads& grads, CMat d_e0_hat,
                   const EstimatorTokens& in, const UnetSaved& saved, const UnetParams& params, const UnetMask& mask,
                   RowList rows) {
  const Network& net = network();
  const int64_t n = rows.n(), tiles = tiles_of(n), T = in.tau.rows;
  check_tokens(in, n);
  CHECK_THAT(d_e0_hat.rows >= n && d_e0_hat.cols == kUnetWidth && d_e_t.rows >= n && d_e_t.cols == kUnetWidth);
  for (int m = 0; m < in.modalities; ++m) CHECK_THAT(d_h[m].rows >= n && d_h[m].cols == kUnetWidth);
  CHECK_THAT(saved.capacity >= n);
  if (n == 0) return;
  float* const packed = scratch<float>(ctx, 1, net.packed);
  pack(packed, Way::backward, params);
  const TimeTable time = fill_time(scratch<float>(ctx, 3, time_floats(T)), in.tau, params);
  const int threads = ctx.threads_for(2 * kNsOfATile * double(tiles));
  float* const work = scratch<float>(ctx, 2, work_floats() * threads);
  const int64_t per_chunk = chunk_tiles(n), chunks = (tiles + per_chunk - 1) / per_chunk;
  float* const gradient = scratch<float>(ctx, 4, chunks * net.gradient);
  float* const d_projection = scratch<float>(ctx, 5, tiles * net.projections * kLanes);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    std::fill_n(gradient + chunk * net.gradient, net.gradient, 0.0f);
    for (int64_t k = chunk * per_chunk; k < std::min(tiles, (chunk + 1) * per_chunk); ++k) {
      const int64_t first = k * kLanes, count = std::min(kLanes, n - first), map = kPixels * kLanes;
      Work w = cut_work(work_of_thread(work, work_floats()));
      load_rows(w.image, in.e_t, first, count);
      load_conditions(w.image, in.h, in.modalities, first, count);
      if (mask.bits) load_mask(w.kept, mask.bits, first, count);
      const Dropped dropped{mask.bits ? w.kept : nullptr, 1.0f / mask.keep};
      load_rows(w.d_y, d_e0_hat, first, count);
      std::fill_n(w.d_y + map, 3 * map, 0.0f);
      backward_tile(gradient + chunk * net.gradient, d_projection + k * net.projections * kLanes,
                    {packed, params.p, saved.p + first * kUnetSaved, dropped}, w);
      store_rows(d_e_t, w.d_y, first, count);
      store_rows(d_h[0], w.d_y + 2 * map, first, count);
      if (in.modalities > 1) store_rows(d_h[1], w.d_y + map, first, count);
    }
  }

  constexpr int64_t kFloatsTogether = 1024;
#pragma omp parallel for num_threads(threads)
  for (int64_t from = 0; from < net.gradient; from += kFloatsTogether) {
    const int64_t to = std::min(net.gradient, from + kFloatsTogether);
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      for (int64_t e = from; e < to; ++e) gradient[e] += gradient[chunk * net.gradient + e];
    }
  }
  for (int i = 0; i < kUnet.layers; ++i) {
    const UnetLayer& u = kUnet.layer[size_t(i)];
    const Layer& l = net.layer[i];
    for (int k = 0; k < l.convs; ++k) {
      const Conv& c = l.conv[k];
      unpack_gradient(grads.p[c.tensor], c.taps(), gradient + c.gradient_at, c.shape);
    }
    const auto add_vector = [&](int tensor, int from) {
      for (int e = 0; e < kUnet.tensor[size_t(tensor)].cols; ++e)
        grads.p[tensor][e] += gradient[net.vector_at[from] + e];
    };
    const bool norm = u.kind == UnetKind::res || u.kind == UnetKind::attention || u.kind == UnetKind::head;
    if (norm) add_vector(u.first, u.first), add_vector(u.first + 1, u.first + 1);
    switch (u.kind) {
      case UnetKind::res:  // conv1's bias: time_back
        for (const int at : {6, 7, 9}) add_vector(u.first + at, u.first + at);
        if (u.shortcut) add_vector(u.first + 11, u.first + 9);
        break;
      case UnetKind::attention:
        add_vector(u.first + 5, u.first + 5);
        [[fallthrough]];
      case UnetKind::head:
        add_vector(u.first + 3, u.first + 3);
        break;
      default:
        add_vector(u.first + 1, u.first + 1);
    }
  }

  const TimeBack back = cut_time_back(scratch<double>(ctx, 6, time_back_doubles(T)), T);
#pragma omp parallel for num_threads(threads)
  for (int c = 0; c < net.projections; ++c) {
    for (int64_t j = 0; j < n; ++j)
      back.d_projection[in.t[j] * net.projections + c] +=
          double(d_projection[(j / kLanes * net.projections + c) * kLanes + j % kLanes]);
  }
  time_back(grads, back, in.tau, time, params);
}

void unet_reverse(Ctx& ctx, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau, const UnetParams& params,
                  const Schedule& schedule, uint32_t seed, uint32_t epoch) {
  const Network& net = network();
  const int64_t n = q.rows, tiles = tiles_of(n), T = schedule.steps;
  CHECK_THAT((modalities == 1 || modalities == 2) && T >= 1);
  CHECK_SHAPE(q, n, kUnetWidth);
  CHECK_SHAPE(tau, T, kUnetTimeIn);
  for (int m = 0; m < modalities; ++m) CHECK_SHAPE(h[m], n, kUnetWidth);
  for (int p = 0; p < 4; ++p) {
    if (pools[p]) CHECK_SHAPE(pools[p], n, kUnetWidth);
  }
  float* const packed = scratch<float>(ctx, 1, net.packed);
  pack(packed, Way::forward, params);
  const TimeTable time = fill_time(scratch<float>(ctx, 3, time_floats(T)), tau, params);
  const int threads = ctx.threads_for(kNsOfATile * double(tiles * T));
  const int64_t per_thread = work_floats() + net.saved * kLanes;
  float* const work = scratch<float>(ctx, 2, per_thread * threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t k = 0; k < tiles; ++k) {
    const int64_t first = k * kLanes, count = std::min(kLanes, n - first);
    float* const room = work_of_thread(work, per_thread);
    const Work w = cut_work(room);
    float *const e = w.image, *const z = w.d_x, *const x0 = w.d_y;
    load_conditions(w.image, h, modalities, first, count);
    load_rows(e, q, first, count);
    for (int64_t t = T; t >= 0; --t) {  // arriving at e_t: e_T from Q, the others from e_{t+1}
      const bool start = t == T;
      const Stream stream = start ? Stream{seed, Use::reverse_start, epoch, uint32_t(T)}
                                  : Stream{seed, Use::reverse_noise, epoch, uint32_t(t + 1)};
      if (!start) {
        for (int c = 0; c < net.projections; ++c)
          store16(w.time + c * kLanes, splat16(time.projection[t * net.projections + c]));
        forward_tile(x0, {packed, params.p, room + work_floats(), {}}, w);
      }
      if (t > 0) {  // no noise at the last step
        std::fill_n(z, kPixels * kLanes, 0.0f);
        for (int64_t lane = 0; lane < count; ++lane) {
          float row[kPixels];
          normal_row(row, kPixels, stream, uint32_t(first + lane));
          for (int64_t j = 0; j < kPixels; ++j) z[j * kLanes + lane] = row[j];
        }
      }
      const V16 a = splat16(start ? 0.0f : schedule.a[t]), b = splat16(start ? 0.0f : schedule.b[t]);
      const V16 signal = splat16(schedule.sqrt_abar[T - 1]), noise = splat16(schedule.sqrt_1m_abar[T - 1]);
      const V16 sigma = splat16(start ? 0.0f : schedule.sigma[t]);
      for (int64_t j = 0; j < kPixels * kLanes; j += kLanes) {
        V16 now = load16(e + j);
        if (start) {
          now = fma16(signal, now, noise * load16(z + j));
        } else {
          now = fma16(a, load16(x0 + j), b * now);
          if (t > 0) now = fma16(sigma, load16(z + j), now);
        }
        store16(e + j, now);
      }
      for (int64_t p = 0; p < 4; ++p) {
        if (pools[p] && T - t == (p + 1) * T / 4) store_rows(pools[p], e, first, count);
      }
    }
  }
}

void unet_scratch(ScratchPlan& plan, int64_t rows, int T) {
  const Network& net = network();
  plan.need(1, net.packed * 4);
  plan.need(2, work_floats() * plan.threads * 4);
  plan.need(3, time_floats(T) * 4);
  plan.need(4, std::min(kChunks, tiles_of(rows)) * net.gradient * 4);
  plan.need(5, tiles_of(rows) * net.projections * kLanes * 4);
  plan.need(6, time_back_doubles(T) * 8);
}
void unet_reverse_scratch(ScratchPlan& plan, int64_t, int T) {
  const Network& net = network();
  plan.need(1, net.packed * 4);
  plan.need(2, (work_floats() + net.saved * kLanes) * plan.threads * 4);
  plan.need(3, time_floats(T) * 4);
}

}  // namespace ccdrec::cpu
