#include <algorithm>
#include <cmath>

#include "data/synth_parts.h"

namespace ccdrec::synth {

void normals(float* out, int64_t n, uint32_t seed, Part part, uint32_t row, uint32_t step) {
  for (int64_t i = 0; i < n; i += 4) {
    const Draw4 d = bits(seed, part, row, uint32_t(i / 4), step);
    float v[4];
    normal_pair(d.v[0], d.v[1], v[0], v[1]);
    normal_pair(d.v[2], d.v[3], v[2], v[3]);
    std::copy(v, v + std::min<int64_t>(4, n - i), out + i);
  }
}

std::vector<int64_t> degrees(uint32_t seed, Part part, int64_t n, int64_t total, int64_t least, int64_t most,
                             double log_sd) {
  std::vector<double> x(size_t(n), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    float z = 0;
    normals(&z, 1, seed, part, uint32_t(i));
    x[size_t(i)] = std::exp(log_sd * double(z));
  }
  std::vector<int64_t> d(size_t(n), 0);
  const auto fill = [&](double c) {
    int64_t sum = 0;
    for (size_t i = 0; i < d.size(); ++i)
      sum += d[i] = std::clamp(int64_t(std::llround(std::min(double(least - 1) + c * x[i], 4e18))), least, most);
    return sum;
  };
  double low = 0, high = 1;
  while (fill(high) < total && high < 1e15) high *= 2;
  for (int step = 0; step < 100; ++step) {
    const double mid = 0.5 * (low + high);
    (fill(mid) <= total ? low : high) = mid;
  }
  int64_t missing = total - fill(low);  // what rounding left over: one each, from the first row on
  for (size_t i = 0; missing > 0; i = (i + 1) % d.size())
    if (d[i] < most) ++d[i], --missing;
  return d;
}

namespace {
void normalise(float* v, int dims) {
  float sum = 0;
  for (int k = 0; k < dims; ++k) sum += v[k] * v[k];
  const float scale = 1.0f / std::sqrt(std::max(sum, 1e-20f));
  for (int k = 0; k < dims; ++k) v[k] *= scale;
}
}  // namespace

Sphere sphere(uint32_t seed, uint32_t step, int64_t n, int dims) {
  // mean size of a cluster: small ones, so that the spectrum decays slowly
  constexpr int64_t kMembers = 10;
  // a cluster's centre: what it shares with its department, and its own
  constexpr float kDepartment = 0.8f, kOwn = 0.6f;
  constexpr float kSpread = 0.35f;  // of a member about its centre
  const int64_t C = std::max<int64_t>(4, n / kMembers), G = std::clamp<int64_t>(C / 80, 4, 60);
  Sphere s;
  s.dims = dims;
  s.centre.resize(size_t(C * dims));
  s.point.resize(size_t(n * dims));
  s.cluster.resize(size_t(n));
  std::vector<float> department(size_t(G * dims), 0.0f);
  for (int64_t g = 0; g < G; ++g) {
    normals(&department[size_t(g * dims)], dims, seed, Part::department, uint32_t(g), step);
    normalise(&department[size_t(g * dims)], dims);
  }
  for (int64_t c = 0; c < C; ++c) {
    float* v = &s.centre[size_t(c * dims)];
    normals(v, dims, seed, Part::cluster, uint32_t(c), step);
    normalise(v, dims);
    const float* g = &department[size_t((c % G) * dims)];
    for (int k = 0; k < dims; ++k) v[k] = kDepartment * g[k] + kOwn * v[k];
    normalise(v, dims);
  }
  for (int64_t i = 0; i < n; ++i) {
    const float u = uniform01(bits(seed, Part::membership, uint32_t(i), 0, step).v[0]);
    // the first clusters are large, the last hold 2/3 of the mean
    const int64_t c = std::min(C - 1, int64_t(float(C) * u * std::sqrt(u)));
    s.cluster[size_t(i)] = int32_t(c);
    float* v = &s.point[size_t(i * dims)];
    normals(v, dims, seed, Part::taste, uint32_t(i), step);
    normalise(v, dims);
    for (int k = 0; k < dims; ++k) v[k] = s.centre[size_t(c * dims + k)] + kSpread * v[k];
    normalise(v, dims);
  }
  return s;
}

}  // namespace ccdrec::synth
