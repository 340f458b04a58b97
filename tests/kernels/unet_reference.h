// MCDRec's U-Net in double, item by item, straight from spec mcdrec 3.2, 3.3 and 10: the judge of kernels/unet.h. In its
// full form (137,667 parameters: 3x3 taps on every map, queries, keys and a softmax, three output channels) or in the
// simplified one of the contract. Every sum is a plain loop.
//
// Tensors are those of kUnet in its order, in the full form with all their taps and rows; then the attention's query
// weight, bias, key weight, bias.
//
// A float implementation's error: group norm with two values is nearly a sign function, so where their difference is
// near 0 any rounding before it becomes large, and no constant tolerance is honest. `noise` > 0 disturbs the result of
// every operation by up to noise times the sum of its |terms|, as roundings do; how far that moves a result is how far
// two correct implementations may lie apart.
#pragma once
#include <algorithm>
#include <random>

#include "kernels/unet.h"
#include "tests/kernels/estimator_ref.h"

namespace ccdrec::test {

class UnetReference {
 public:
  const bool full;
  std::vector<Vec> p;           // parameters
  std::vector<Vec> g, g_terms;  // their gradients, accumulated by backward, and the sums of |terms|
  double noise = 0;

  // The live weights in their places, the dead ones random.
  UnetReference(bool full_form, const std::vector<std::vector<float>>& live) : full(full_form) {
    Draw random{50000};
    for (int i = 0; i < kUnet.tensors; ++i) {
      p.push_back(doubles(random.floats(rows(i) * cols(i))));
      for (int r = 0; r < kUnet.tensor[size_t(i)].rows; ++r) {
        for (int c = 0; c < kUnet.tensor[size_t(i)].cols; ++c) p.back()[place(i, r, c)] = live_at(live, i, r, c);
      }
    }
    if (full) {
      for (const int n : {16 * 16, 16, 16 * 16, 16}) p.push_back(doubles(random.floats(n)));
    }
    forget();
  }
  void forget() {  // the gradients
    g.clear();
    for (const Vec& v : p) g.emplace_back(v.size(), 0.0);
    g_terms = g;
  }
  size_t parameters() const {
    size_t n = 0;
    for (const Vec& v : p) n += v.size();
    return n;
  }
  // Where element (r,c) of tensor i of the contract lies in p[i].
  size_t place(int i, int r, int c) const {
    const UnetLayer* l = conv_at(i);
    if (!full || !l || l->taps() == 9) return size_t(r * kUnet.tensor[size_t(i)].cols + c);
    const int channel = c / l->taps(), tap = c % l->taps();
    return size_t(r * cols(i) + channel * 9 + (l->taps() == 1 ? 4 : tap / 2 * 3 + tap % 2));
  }

  struct Layer {  // what backward reads of one
    Vec x;        // its input, that of a Res in the way up with the skip behind
    Vec xh1, act1, a, xh2, z1, z2, act2;
    Vec rstd1, rstd2;
    Vec q, k, v, weight, o;  // attention
    Vec y;
  };
  struct Item {
    Vec tau, hidden, temb;     // of the time MLP
    std::vector<Layer> layer;  // as kUnet.layer
    Vec mask;                  // (mask_elements), the factor of each; empty: 1
    size_t left_on_stack = 0;
    Vec e0;  // (64)
  };

  // image (3,64), tau (8)
  Item forward(const Vec& image, const Vec& tau, const Vec& mask = {}) {
    Item f;
    f.tau = tau, f.mask = mask;
    f.hidden = linear(tau, 0);
    f.temb = linear(silu(f.hidden), 2);
    const Vec time = silu(f.temb);
    std::vector<Vec> stack;
    Vec now = image;
    for (int i = 0; i < kUnet.layers; ++i) {
      const UnetLayer& l = kUnet.layer[size_t(i)];
      Layer t;
      t.x = now;
      if (l.skip_in) {
        EXPECT_EQ(stack.back().size(), size_t(l.skip_in * l.side * l.side));
        t.x.insert(t.x.end(), stack.back().begin(), stack.back().end());
        stack.pop_back();
      }
      EXPECT_EQ(t.x.size(), size_t(l.in * l.side * l.side)) << "layer " << i;
      switch (l.kind) {
        case UnetKind::stem:
        case UnetKind::down:
          t.y = conv(t.x, main_conv(l), l.first);
          break;
        case UnetKind::up:
          t.act1 = doubled(t.x, l.in, l.side);
          t.y = conv(t.act1, main_conv(l), l.first);
          break;
        case UnetKind::head:
          t.z1 = norm(t.x, l.in, l.first, t.xh1, t.rstd1);
          t.act1 = silu(t.z1);
          t.y = conv(t.act1, main_conv(l), l.first + 2);
          break;
        case UnetKind::res:
          res(t, l, time, f.mask);
          break;
        case UnetKind::attention:
          attention(t, l);
          break;
      }
      now = t.y;
      if (l.pushes) stack.push_back(now);
      f.layer.push_back(std::move(t));
    }
    f.left_on_stack = stack.size();
    f.e0.assign(now.begin(), now.begin() + 64);
    return f;
  }

  // Returns the gradient of the image; those of the parameters add to g.
  Vec backward(const Item& f, const Vec& d_e0) {
    Vec now = d_e0;
    now.resize(f.layer.back().y.size(), 0.0);  // the other output channels reach nothing
    Vec d_time(kUnetTime, 0.0);
    std::vector<Vec> stack;  // gradients of what was popped, to be added to those of the layers that pushed
    const Vec time = silu(f.temb);
    for (int i = kUnet.layers - 1; i >= 0; --i) {
      const UnetLayer& l = kUnet.layer[size_t(i)];
      const Layer& t = f.layer[size_t(i)];
      if (l.pushes) {
        for (size_t e = 0; e < now.size(); ++e) now[e] += stack.back()[e];
        stack.pop_back();
      }
      Vec d_x;
      switch (l.kind) {
        case UnetKind::stem:
        case UnetKind::down:
          d_x = conv_back(now, t.x, main_conv(l), l.first);
          break;
        case UnetKind::up:
          d_x = halved(conv_back(now, t.act1, main_conv(l), l.first), l.in, l.side);
          break;
        case UnetKind::head:
          d_x = norm_back(silu_back(conv_back(now, t.act1, main_conv(l), l.first + 2), t.z1), t.xh1, t.rstd1, l.in,
                          l.first);
          break;
        case UnetKind::res:
          d_x = res_back(now, t, l, time, d_time, f.mask);
          break;
        case UnetKind::attention:
          d_x = attention_back(now, t, l);
          break;
      }
      if (l.skip_in) {
        const auto skip = d_x.end() - l.skip_in * l.side * l.side;
        stack.emplace_back(skip, d_x.end());  // the last that was pushed is the first that is met again
        d_x.erase(skip, d_x.end());
      }
      now = d_x;
    }
    linear_back(silu_back(linear_back(silu_back(d_time, f.temb), silu(f.hidden), 2), f.hidden), f.tau, 0);
    return now;
  }

 private:
  struct Conv {
    int in, out, side, side_out, kernel, stride, pad;
  };
  static constexpr double kEps = 1e-6;
  std::mt19937 rounding_{1};

  static double live_at(const std::vector<std::vector<float>>& live, int i, int r, int c) {
    return live[size_t(i)][size_t(r * kUnet.tensor[size_t(i)].cols + c)];
  }
  // The layer whose 3x3 weight tensor i is; null: it is none.
  static const UnetLayer* conv_at(int i) {
    for (int k = 0; k < kUnet.layers; ++k) {
      const UnetLayer& l = kUnet.layer[size_t(k)];
      const bool conv = l.kind == UnetKind::res    ? i == l.first + 2 || i == l.first + 8
                        : l.kind == UnetKind::head ? i == l.first + 2
                                                   : l.kind != UnetKind::attention && i == l.first;
      if (conv) return &l;
    }
    return nullptr;
  }
  int rows(int i) const {
    const UnetLayer& head = kUnet.layer[size_t(kUnet.layers) - 1];
    return full && i >= head.first + 2 ? 3 : kUnet.tensor[size_t(i)].rows;
  }
  int cols(int i) const {
    const UnetLayer* l = conv_at(i);
    if (l && full) return kUnet.tensor[size_t(i)].cols / l->taps() * 9;
    const UnetLayer& head = kUnet.layer[size_t(kUnet.layers) - 1];
    return full && i == head.first + 3 ? 1 : kUnet.tensor[size_t(i)].cols;
  }
  Conv main_conv(const UnetLayer& l) const { return conv_of(l, l.in); }
  Conv conv_of(const UnetLayer& l, int in) const {
    const int side = l.kind == UnetKind::up ? 2 * l.side : l.side;
    const int out = l.kind == UnetKind::head && full ? 3 : l.out, taps = full ? 9 : l.taps();
    const int kernel = taps == 9 ? 3 : taps == 4 ? 2 : 1;
    if (l.kind == UnetKind::down) return {in, out, side, side / 2, kernel, 2, 0};
    return {in, out, side, side, kernel, 1, kernel / 2};
  }

  double rounded(double value, double terms) {
    if (noise == 0) return value;
    return value + noise * terms * (double(rounding_()) / double(1u << 31) - 1);
  }
  void add(int i, size_t at, double term) {
    g[size_t(i)][at] += term;
    g_terms[size_t(i)][at] += std::fabs(term);
  }

  static double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }
  Vec silu(const Vec& z) {
    Vec y;
    for (const double v : z) y.push_back(rounded(v * sigmoid(v), std::fabs(v * sigmoid(v))));
    return y;
  }
  Vec silu_back(const Vec& d_y, const Vec& z) {
    Vec d(z.size());
    for (size_t i = 0; i < z.size(); ++i) {
      const double s = sigmoid(z[i]);
      d[i] = rounded(d_y[i] * s * (1 + z[i] * (1 - s)), std::fabs(d_y[i]) * s);
    }
    return d;
  }
  // y = W x + b of one vector; tensors i, i + 1.
  Vec linear(const Vec& x, int i) { return conv(x, {int(x.size()), rows_of_bias(i), 1, 1, 1, 1, 0}, i); }
  Vec linear_back(const Vec& d_y, const Vec& x, int i) {
    return conv_back(d_y, x, {int(x.size()), rows_of_bias(i), 1, 1, 1, 1, 0}, i);
  }
  int rows_of_bias(int i) const { return int(p[size_t(i) + 1].size()); }

  // Calls f(element of y, weight, element of x) for every product of a convolution, zeros of the padding left out.
  template <class F>
  static void each_product(const Conv& c, F&& f) {
    for (int o = 0; o < c.out; ++o) {
      for (int i = 0; i < c.side_out; ++i) {
        for (int j = 0; j < c.side_out; ++j) {
          for (int ci = 0; ci < c.in; ++ci) {
            for (int a = 0; a < c.kernel; ++a) {
              const int r = c.stride * i + a - c.pad;
              if (r < 0 || r >= c.side) continue;
              for (int e = 0; e < c.kernel; ++e) {
                const int q = c.stride * j + e - c.pad;
                if (q < 0 || q >= c.side) continue;
                f(size_t((o * c.side_out + i) * c.side_out + j),
                  size_t(((o * c.in + ci) * c.kernel + a) * c.kernel + e), size_t((ci * c.side + r) * c.side + q));
              }
            }
          }
        }
      }
    }
  }
  // Tensors i (weight) and i + 1 (bias).
  Vec conv(const Vec& x, const Conv& c, int i) {
    const Vec &w = p[size_t(i)], &b = p[size_t(i) + 1];
    const size_t pixels = size_t(c.side_out * c.side_out);
    Vec y(size_t(c.out) * pixels), terms(y.size());
    for (size_t e = 0; e < y.size(); ++e) y[e] = b[e / pixels], terms[e] = std::fabs(y[e]);
    each_product(c, [&](size_t at, size_t weight, size_t from) {
      y[at] += w[weight] * x[from];
      if (noise > 0) terms[at] += std::fabs(w[weight] * x[from]);
    });
    for (size_t e = 0; e < y.size(); ++e) y[e] = rounded(y[e], terms[e]);
    return y;
  }
  Vec conv_back(const Vec& d_y, const Vec& x, const Conv& c, int i) {
    const Vec& w = p[size_t(i)];
    Vec d_x(x.size(), 0.0), terms = d_x;
    each_product(c, [&](size_t at, size_t weight, size_t from) {
      add(i, weight, d_y[at] * x[from]);
      d_x[from] += d_y[at] * w[weight];
      terms[from] += std::fabs(d_y[at] * w[weight]);
    });
    for (size_t e = 0; e < d_y.size(); ++e) add(i + 1, e / size_t(c.side_out * c.side_out), d_y[e]);
    for (size_t e = 0; e < d_x.size(); ++e) d_x[e] = rounded(d_x[e], terms[e]);
    return d_x;
  }

  // Tensors i (gain) and i + 1 (bias).
  Vec norm(const Vec& x, int channels, int i, Vec& xh, Vec& rstd) {
    const size_t N = x.size() / kUnetGroups, pixels = x.size() / size_t(channels);
    xh.resize(x.size()), rstd.clear();
    Vec y(x.size());
    for (size_t first = 0; first < x.size(); first += N) {
      double mean = 0, var = 0;
      for (size_t e = first; e < first + N; ++e) mean += x[e] / double(N);
      for (size_t e = first; e < first + N; ++e) var += (x[e] - mean) * (x[e] - mean) / double(N);
      rstd.push_back(1 / std::sqrt(var + kEps));
      for (size_t e = first; e < first + N; ++e) {
        xh[e] = rounded((x[e] - mean) * rstd.back(), (std::fabs(x[e] - mean)) * rstd.back());
        const double gain = p[size_t(i)][e / pixels], bias = p[size_t(i) + 1][e / pixels];
        y[e] = rounded(gain * xh[e] + bias, std::fabs(gain * xh[e]) + std::fabs(bias));
      }
    }
    return y;
  }
  Vec norm_back(const Vec& d_y, const Vec& xh, const Vec& rstd, int channels, int i) {
    const size_t N = xh.size() / kUnetGroups, pixels = xh.size() / size_t(channels);
    Vec q(xh.size()), d_x(xh.size());
    for (size_t e = 0; e < xh.size(); ++e) {
      add(i, e / pixels, d_y[e] * xh[e]);
      add(i + 1, e / pixels, d_y[e]);
      q[e] = d_y[e] * p[size_t(i)][e / pixels];
    }
    for (size_t first = 0, group = 0; first < xh.size(); first += N, ++group) {
      double mean = 0, along = 0;
      for (size_t e = first; e < first + N; ++e) mean += q[e] / double(N), along += q[e] * xh[e] / double(N);
      for (size_t e = first; e < first + N; ++e) {
        d_x[e] = rstd[group] * (q[e] - mean - xh[e] * along);
        // of two values the closed form loses nothing: what is left is (1 - xh^2) (q1 - q2) / 2
        const double terms = std::fabs(q[e]) + std::fabs(mean) + std::fabs(xh[e] * along);
        d_x[e] = rounded(d_x[e], N == 2 ? std::fabs(d_x[e]) : rstd[group] * terms);
      }
    }
    return d_x;
  }

  static Vec doubled(const Vec& x, int channels, int side) {
    Vec y(x.size() * 4);
    for (int c = 0; c < channels; ++c) {
      for (int r = 0; r < 2 * side; ++r) {
        for (int q = 0; q < 2 * side; ++q)
          y[size_t((c * 2 * side + r) * 2 * side + q)] = x[size_t((c * side + r / 2) * side + q / 2)];
      }
    }
    return y;
  }
  static Vec halved(const Vec& d_y, int channels, int side) {
    Vec d_x(d_y.size() / 4, 0.0);
    for (int c = 0; c < channels; ++c) {
      for (int r = 0; r < 2 * side; ++r) {
        for (int q = 0; q < 2 * side; ++q)
          d_x[size_t((c * side + r / 2) * side + q / 2)] += d_y[size_t((c * 2 * side + r) * 2 * side + q)];
      }
    }
    return d_x;
  }

  void res(Layer& t, const UnetLayer& l, const Vec& time, const Vec& mask) {
    const size_t pixels = size_t(l.side * l.side);
    t.z1 = norm(t.x, l.in, l.first, t.xh1, t.rstd1);
    t.act1 = silu(t.z1);
    t.a = conv(t.act1, conv_of(l, l.in), l.first + 2);
    const Vec time_j = linear(time, l.first + 4);
    for (size_t e = 0; e < t.a.size(); ++e)
      t.a[e] = rounded(t.a[e] + time_j[e / pixels], std::fabs(t.a[e]) + std::fabs(time_j[e / pixels]));
    t.z2 = norm(t.a, l.out, l.first + 6, t.xh2, t.rstd2);
    t.act2 = silu(t.z2);
    for (size_t e = 0; e < t.act2.size() && !mask.empty(); ++e) t.act2[e] *= mask[size_t(l.mask_at) + e];
    t.y = conv(t.act2, conv_of(l, l.out), l.first + 8);
    const Vec beside = l.shortcut ? conv(t.x, {l.in, l.out, l.side, l.side, 1, 1, 0}, l.first + 10) : t.x;
    for (size_t e = 0; e < t.y.size(); ++e)
      t.y[e] = rounded(t.y[e] + beside[e], std::fabs(t.y[e]) + std::fabs(beside[e]));
  }
  Vec res_back(const Vec& d_y, const Layer& t, const UnetLayer& l, const Vec& time, Vec& d_time, const Vec& mask) {
    const size_t pixels = size_t(l.side * l.side);
    Vec d_act2 = conv_back(d_y, t.act2, conv_of(l, l.out), l.first + 8);
    for (size_t e = 0; e < d_act2.size() && !mask.empty(); ++e) d_act2[e] *= mask[size_t(l.mask_at) + e];
    const Vec d_a = norm_back(silu_back(d_act2, t.z2), t.xh2, t.rstd2, l.out, l.first + 6);
    Vec d_proj(size_t(l.out), 0.0);
    for (size_t e = 0; e < d_a.size(); ++e) d_proj[e / pixels] += d_a[e];
    const Vec d_silu = linear_back(d_proj, time, l.first + 4);
    for (size_t e = 0; e < d_silu.size(); ++e) d_time[e] += d_silu[e];
    // a projection's gradient is the sum over its pixels: their |terms|, not |their sum|, bound its rounding
    for (size_t e = 0; e < d_a.size(); ++e) {
      g_terms[size_t(l.first) + 5][e / pixels] += std::fabs(d_a[e]);
      for (size_t k = 0; k < time.size(); ++k)
        g_terms[size_t(l.first) + 4][e / pixels * time.size() + k] += std::fabs(d_a[e] * time[k]);
    }
    Vec d_x = norm_back(silu_back(conv_back(d_a, t.act1, conv_of(l, l.in), l.first + 2), t.z1), t.xh1, t.rstd1, l.in,
                        l.first);
    const Vec beside = l.shortcut ? conv_back(d_y, t.x, {l.in, l.out, l.side, l.side, 1, 1, 0}, l.first + 10) : d_y;
    for (size_t e = 0; e < d_x.size(); ++e)
      d_x[e] = rounded(d_x[e] + beside[e], std::fabs(d_x[e]) + std::fabs(beside[e]));
    return d_x;
  }

  // Maps (c, S pixels). Without queries and keys it is that of one pixel: each pixel's weight is its own 1.
  void attention(Layer& t, const UnetLayer& l) {
    const int c = l.in, S = l.side * l.side, extra = kUnet.tensors;
    const Conv one{c, c, l.side, l.side, 1, 1, 0};
    t.z1 = norm(t.x, c, l.first, t.xh1, t.rstd1);
    t.v = conv(t.z1, one, l.first + 2);
    t.weight.assign(size_t(S * S), 1.0);
    if (full) {
      t.q = conv(t.z1, one, extra), t.k = conv(t.z1, one, extra + 2);
      for (int i = 0; i < S; ++i) {
        double sum = 0;
        for (int j = 0; j < S; ++j) {
          double dot = 0;
          for (int e = 0; e < c; ++e) dot += t.q[size_t(e * S + i)] * t.k[size_t(e * S + j)];
          sum += t.weight[size_t(i * S + j)] = std::exp(dot / std::sqrt(double(c)));
        }
        for (int j = 0; j < S; ++j) t.weight[size_t(i * S + j)] /= sum;
      }
    }
    t.o.assign(t.x.size(), 0.0);
    for (int e = 0; e < c; ++e) {
      for (int i = 0; i < S; ++i) {
        for (int j = 0; j < S; ++j) t.o[size_t(e * S + i)] += t.weight[size_t(i * S + j)] * t.v[size_t(e * S + j)];
      }
    }
    t.y = conv(t.o, one, l.first + 4);
    for (size_t e = 0; e < t.y.size(); ++e) t.y[e] = rounded(t.y[e] + t.x[e], std::fabs(t.y[e]) + std::fabs(t.x[e]));
  }
  Vec attention_back(const Vec& d_y, const Layer& t, const UnetLayer& l) {
    const int c = l.in, S = l.side * l.side, extra = kUnet.tensors;
    const Conv one{c, c, l.side, l.side, 1, 1, 0};
    const Vec d_o = conv_back(d_y, t.o, one, l.first + 4);
    Vec d_v(t.v.size(), 0.0), d_q = d_v, d_k = d_v;
    for (int i = 0; i < S; ++i) {
      Vec d_a(size_t(S), 0.0);
      double mean = 0;
      for (int j = 0; j < S; ++j) {
        for (int e = 0; e < c; ++e) {
          d_a[size_t(j)] += d_o[size_t(e * S + i)] * t.v[size_t(e * S + j)];
          d_v[size_t(e * S + j)] += t.weight[size_t(i * S + j)] * d_o[size_t(e * S + i)];
        }
        mean += t.weight[size_t(i * S + j)] * d_a[size_t(j)];
      }
      for (int j = 0; full && j < S; ++j) {
        const double d_s = t.weight[size_t(i * S + j)] * (d_a[size_t(j)] - mean) / std::sqrt(double(c));
        for (int e = 0; e < c; ++e) {
          d_q[size_t(e * S + i)] += d_s * t.k[size_t(e * S + j)];
          d_k[size_t(e * S + j)] += d_s * t.q[size_t(e * S + i)];
        }
      }
    }
    Vec d_z = conv_back(d_v, t.z1, one, l.first + 2);
    if (full) {
      const Vec of_q = conv_back(d_q, t.z1, one, extra), of_k = conv_back(d_k, t.z1, one, extra + 2);
      for (size_t e = 0; e < d_z.size(); ++e) d_z[e] += of_q[e] + of_k[e];
    }
    Vec d_x = norm_back(d_z, t.xh1, t.rstd1, c, l.first);
    for (size_t e = 0; e < d_x.size(); ++e) d_x[e] = rounded(d_x[e] + d_y[e], std::fabs(d_x[e]) + std::fabs(d_y[e]));
    return d_x;
  }
};

}  // namespace ccdrec::test
