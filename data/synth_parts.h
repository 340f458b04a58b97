// The generator's parts, in the order in which write_synth calls them: degrees, tastes, choices, features. Each is a
// function of the seed alone.
#pragma once
#include <cstdint>
#include <vector>

#include "data/safe_file.h"
#include "data/synth.h"
#include "kernels/rng.h"

namespace ccdrec::synth {

// What a random number is for: two parts never share a draw.
enum class Part : uint32_t {
  user_degree = 1,
  item_degree,
  department,
  cluster,
  membership,
  taste,
  style,
  wave,
  phase,
  white,
  user_order,
  interest,
  background,
  race,
  split
};

inline Draw4 bits(uint32_t seed, Part part, uint32_t row, uint32_t sub = 0, uint32_t step = 0) {
  return draw(Stream{seed, Use::synth, uint32_t(part), step}, row, sub);
}
// n standard normals of one row
void normals(float* out, int64_t n, uint32_t seed, Part part, uint32_t row, uint32_t step = 0);

// n degrees of at least `least`, at most `most`, summing to `total`: least - 1 + c * lognormal(0, log_sd), rounded, c
// fitted to the sum.
std::vector<int64_t> degrees(uint32_t seed, Part part, int64_t n, int64_t total, int64_t least, int64_t most,
                             double log_sd);

// Many small clusters on the unit sphere: departments > clusters > members. Item tastes and the styles that features
// carry besides are both of this kind.
struct Sphere {
  int dims = 0;
  std::vector<float> point;      // (n, dims) unit vectors
  std::vector<int32_t> cluster;  // (n)
  std::vector<float> centre;     // (C, dims) unit vectors
  int64_t clusters() const { return int64_t(centre.size()) / dims; }
  const float* at(int64_t i) const { return point.data() + i * dims; }
};
Sphere sphere(uint32_t seed, uint32_t step, int64_t n, int dims);

using Stop = std::function<bool()>;  // see write_synth
inline void stop_if(const Stop& stop) {
  if (stop && stop()) throw SynthStopped();
}

// chosen[u]: the items of user u in random order, exactly user_degree[u] of them, distinct; items reach item_degree up
// to a handful at the very end.
std::vector<std::vector<int32_t>> choose(const SynthParams&, const Sphere& taste,
                                         const std::vector<int64_t>& user_degree,
                                         const std::vector<int64_t>& item_degree, const Stop& stop);

// One modality's matrix (items, width), row by row into the file.
void write_features(SafeFile&, const SynthParams&, size_t modality, const Sphere& taste, const Stop& stop);

}  // namespace ccdrec::synth
