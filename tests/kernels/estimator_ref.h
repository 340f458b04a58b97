// f_theta in double, straight from spec ccdrec 3.3: no structure used, every token has its value row. The judge of
// estimator and reverse process.
#pragma once
#include <algorithm>

#include "tests/support.h"

namespace ccdrec::test {

using Vec = std::vector<double>;

inline Vec doubles(const std::vector<float>& v) { return Vec(v.begin(), v.end()); }

// The first 4 `draws` normals of an item.
inline Vec normals_of(const Stream& s, int64_t item, size_t draws) {
  Vec z;
  for (uint32_t b = 0; b < draws; ++b) {
    const Draw4 v = draw(s, uint32_t(item), b);
    float x[4];
    normal_pair(v.v[0], v.v[1], x[0], x[1]);
    normal_pair(v.v[2], v.v[3], x[2], x[3]);
    z.insert(z.end(), x, x + 4);
  }
  return z;
}

// Y (n,p) = X (n,m) W (m,p), or X W^T with W (p,m).
inline Vec times(const Vec& x, const Vec& w, size_t n, size_t m, size_t p, bool trans_w = false) {
  Vec y(n * p, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < p; ++j) {
      for (size_t k = 0; k < m; ++k) y[i * p + j] += x[i * m + k] * (trans_w ? w[j * m + k] : w[k * p + j]);
    }
  }
  return y;
}

// Items that fill the largest chip of the devices and begin again: a multiprocessor has 32 at a time at most.
inline int64_t more_than_a_wave(const std::vector<Device>& devices) {
  int sms = 1;
  for (const Device& d : devices) sms = std::max(sms, d.sms);
  return 32 * sms + 77;
}

struct EstimatorRef {
  size_t K, d;
  Vec wq, wk, wv;
  Vec dwq = Vec(d * d, 0.0), dwk = dwq, dwv = dwq;  // accumulated by backward

  struct Item {
    Vec x, rstd, q, k, v, a, s, out;
  };

  Item forward(const Vec& token) const {  // (K,d)
    Item f;
    f.x.resize(K * d);
    for (size_t r = 0; r < K; ++r) {
      double mean = 0, var = 0;
      for (size_t j = 0; j < d; ++j) mean += token[r * d + j] / double(d);
      for (size_t j = 0; j < d; ++j) var += (token[r * d + j] - mean) * (token[r * d + j] - mean) / double(d);
      f.rstd.push_back(1 / std::sqrt(var + 1e-5));
      for (size_t j = 0; j < d; ++j) f.x[r * d + j] = (token[r * d + j] - mean) * f.rstd[r];
    }
    f.q = times(f.x, wq, K, d, d);
    f.k = times(f.x, wk, K, d, d);
    f.v = times(f.x, wv, K, d, d);
    f.a = times(f.q, f.k, K, d, K, true);
    for (size_t r = 0; r < K; ++r) {
      double sum = 0;
      for (size_t c = 0; c < K; ++c) sum += f.a[r * K + c] = std::exp(f.a[r * K + c] / std::sqrt(double(d)));
      for (size_t c = 0; c < K; ++c) f.a[r * K + c] /= sum;
    }
    const Vec o = times(f.a, f.v, K, K, d);
    f.out.assign(d, 0.0);
    f.s.assign(d, 0.0);
    for (size_t r = 0; r < K; ++r) {
      for (size_t j = 0; j < d; ++j) {
        f.out[j] += o[r * d + j] / double(K);
        for (size_t c = 0; c < K; ++c) f.s[j] += f.a[r * K + c] * f.x[c * d + j] / double(K);
      }
    }
    return f;
  }

  Vec backward(const Item& f, const Vec& d_out) {  // returns d_token (K,d), time token included
    auto add_outer = [&](Vec& dw, const Vec& x, const Vec& dy) {
      for (size_t r = 0; r < K; ++r) {
        for (size_t i = 0; i < d; ++i) {
          for (size_t j = 0; j < d; ++j) dw[i * d + j] += x[r * d + i] * dy[r * d + j];
        }
      }
    };
    Vec dv(K * d, 0.0), dq(K * d, 0.0), dk(K * d, 0.0);
    for (size_t r = 0; r < K; ++r) {
      Vec da(K, 0.0);
      double mean = 0;
      for (size_t c = 0; c < K; ++c) {
        for (size_t j = 0; j < d; ++j) {
          da[c] += d_out[j] / double(K) * f.v[c * d + j];
          dv[c * d + j] += f.a[r * K + c] * d_out[j] / double(K);
        }
        mean += f.a[r * K + c] * da[c];
      }
      for (size_t c = 0; c < K; ++c) {
        const double g = f.a[r * K + c] * (da[c] - mean) / std::sqrt(double(d));
        for (size_t j = 0; j < d; ++j) {
          dq[r * d + j] += g * f.k[c * d + j];
          dk[c * d + j] += g * f.q[r * d + j];
        }
      }
    }
    add_outer(dwq, f.x, dq);
    add_outer(dwk, f.x, dk);
    add_outer(dwv, f.x, dv);
    const Vec from_q = times(dq, wq, K, d, d, true), from_k = times(dk, wk, K, d, d, true),
              from_v = times(dv, wv, K, d, d, true);
    Vec d_token(K * d);
    for (size_t r = 0; r < K; ++r) {
      double mean = 0, along = 0;
      auto dx = [&](size_t j) { return from_q[r * d + j] + from_k[r * d + j] + from_v[r * d + j]; };
      for (size_t j = 0; j < d; ++j) {
        mean += dx(j) / double(d);
        along += dx(j) * f.x[r * d + j] / double(d);
      }
      for (size_t j = 0; j < d; ++j) d_token[r * d + j] = f.rstd[r] * (dx(j) - mean - f.x[r * d + j] * along);
    }
    return d_token;
  }
};

// Values with one mass for the whole tensor, its largest magnitude: for results of long chains, where sums of |terms|
// say little.
inline std::vector<Ref> by_scale(const Vec& v) {
  double top = 0;
  for (double x : v) top = std::max(top, std::fabs(x));
  std::vector<Ref> r;
  for (double x : v) r.push_back({x, top});
  return r;
}

}  // namespace ccdrec::test
