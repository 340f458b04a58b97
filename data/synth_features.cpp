// Features are random waves of two points per item: its taste, which users care about, and a style of its own kind,
// which nobody does.
//   x_ij = sqrt(2 s) cos(2 pi (w_j . taste_i + b_j)) + sqrt(2 t) cos(2 pi (v_j . style_i + c_j)) + sqrt(r) white
//   s = signal, r = min(0.1, 1-s), t = 1-s-r
// with w_j normal of deviation 1/(2 pi l): the inner product of two such rows tends to exp(-|difference|^2 / 2 l^2), so
// that near neighbours are alike and distant items unrelated, as in embeddings of pictures or text. Waves and styles of
// each modality are its own.
#include <algorithm>
#include <cmath>

#include "data/npy.h"
#include "data/synth_parts.h"

namespace ccdrec::synth {

namespace {

constexpr float kLength = 0.5f;  // l
constexpr int kStyleDims = 16;
constexpr int64_t kRows = 256;  // rows made at a time, by all threads

struct Waves {
  int dims;
  int64_t width;
  std::vector<float> frequency;  // (dims, width): one row per dimension, so that columns run in vectors
  std::vector<float> phase;      // (width)
  Waves(uint32_t seed, uint32_t step, int dims_, int64_t width_)
      : dims(dims_), width(width_), frequency(size_t(dims_ * width_)), phase(size_t(width_)) {
    for (int k = 0; k < dims; ++k) normals(&frequency[size_t(k * width)], width, seed, Part::wave, uint32_t(k), step);
    for (float& f : frequency) f *= 1.0f / (6.28318530718f * kLength);
    for (int64_t j = 0; j < width; ++j)
      phase[size_t(j)] = uniform01(bits(seed, Part::phase, uint32_t(j), 0, step).v[0]);
  }
  // out_j += scale cos(2 pi (frequency_j . at + phase_j)); turn is scratch of `width`
  void add(float* out, float* turn, const float* at, float scale) const {
    std::copy(phase.begin(), phase.end(), turn);
    for (int k = 0; k < dims; ++k) {
      const float a = at[k];
      const float* f = &frequency[size_t(k * width)];
      for (int64_t j = 0; j < width; ++j) turn[j] = std::fma(a, f[j], turn[j]);
    }
    for (int64_t j = 0; j < width; ++j) {
      float s, c;
      portable_sincos_2pi(turn[j] - std::floor(turn[j]), s, c);
      out[j] = std::fma(scale, c, out[j]);
    }
  }
};

}  // namespace

void write_features(SafeFile& f, const SynthParams& p, size_t modality, const Sphere& taste, const Stop& stop) {
  const SynthModality& m = p.modalities[modality];
  const uint32_t step = uint32_t(modality) + 1, seed = p.seed;
  const float white = std::min(0.1f, 1.0f - m.signal), own = std::max(0.0f, 1.0f - m.signal - white);
  const float taste_scale = std::sqrt(2 * m.signal), style_scale = std::sqrt(2 * own),
              white_scale = std::sqrt(12 * white);  // uniform [-.5,.5) has variance 1/12
  const Sphere style = sphere(seed, step, p.items, kStyleDims);
  const Waves of_taste(seed, 2 * step, taste.dims, m.width), of_style(seed, 2 * step + 1, kStyleDims, m.width);
  // Deep visual features after a rectifier: about 85 % of their energy is a mean common to all items.
  std::vector<float> level(size_t(m.width), 0.0f);
  if (m.nonnegative) {
    normals(level.data(), m.width, seed, Part::phase, 0, 1000 + step);
    for (float& l : level) l = 2.3f + 0.4f * l;
  }
  f.write(npy_header(p.items, m.width));
  std::vector<float> rows(size_t(kRows * m.width), 0.0f);
  for (int64_t first = 0; first < p.items; first += kRows) {
    stop_if(stop);
    const int64_t n = std::min(kRows, p.items - first);
#pragma omp parallel
    {
      std::vector<float> turn(size_t(m.width), 0.0f);
#pragma omp for schedule(static)
      for (int64_t r = 0; r < n; ++r) {
        const int64_t i = first + r;
        float* x = &rows[size_t(r * m.width)];
        for (int64_t j = 0; j < m.width; j += 4) {
          const Draw4 d = bits(seed, Part::white, uint32_t(i), uint32_t(j / 4), step);
          for (int64_t l = 0; l < 4 && j + l < m.width; ++l)
            x[j + l] = std::fma(white_scale, uniform01(d.v[l]) - 0.5f, level[size_t(j + l)]);
        }
        of_taste.add(x, turn.data(), taste.at(i), taste_scale);
        of_style.add(x, turn.data(), style.at(i), style_scale);
        if (m.nonnegative)
          for (int64_t j = 0; j < m.width; ++j) x[j] = std::max(x[j], 0.0f);
      }
    }
    f.write(rows.data(), size_t(n * m.width) * sizeof(float));
  }
}

}  // namespace ccdrec::synth
