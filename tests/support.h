// What every test shares: seeded inputs, the devices present, and a comparator that a NaN cannot pass.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ccdrec::test {

// One value of a double-precision reference with its mass, the sum of |terms|: the limit of an error is relative to the mass.
struct Ref {
  double value = 0, mass = 0;
  void add(double term) {
    value += term;
    mass += std::fabs(term);
  }
};

inline ::testing::AssertionResult close(const float* got, const std::vector<Ref>& want, double tol) {
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double err = std::fabs(double(got[i]) - want[i].value), lim = tol * want[i].mass + 1e-30;
    if (!(err <= lim) && bad++ == 0) first = i;  // !(<=), never (>): with (>) a NaN passes
  }
  if (bad == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << bad << " of " << want.size() << " differ; first at " << first << ": got " << got[first] << ", want "
                                       << want[first].value << " (mass " << want[first].mass << ", tol " << tol << ")";
}
inline ::testing::AssertionResult close(const std::vector<float>& got, const std::vector<Ref>& want, double tol) {
  if (got.size() < want.size()) return ::testing::AssertionFailure() << "got " << got.size() << " values, want " << want.size();
  return close(got.data(), want, tol);
}

// Inputs: addressed draws, so a case's data depend on its seed alone. CCDREC_TEST_SEED overrides.
inline uint32_t test_seed() {
  const char* s = std::getenv("CCDREC_TEST_SEED");
  return s ? uint32_t(std::strtoul(s, nullptr, 10)) : 7u;
}
struct Draw {
  uint32_t n = 0, seed = test_seed();
  uint32_t bits() { return draw(Stream{seed, Use::test}, n++).v[0]; }
  float uniform(float lo = -1, float hi = 1) { return lo + (hi - lo) * uniform01(bits()); }
  int32_t below(int32_t k) { return int32_t(ccdrec::below(bits(), uint32_t(k))); }
  std::vector<float> floats(int64_t k, float lo = -1, float hi = 1) {
    std::vector<float> v(size_t(k), 0.0f);
    for (float& x : v) x = uniform(lo, hi);
    return v;
  }
};

// Every device present, each with several thread counts: results may not depend on them.
struct Device {
  std::string name;
  const Ops* ops;
  int threads;
};
inline std::vector<Device> devices() {
  return {{"cpu, 1 thread", &cpu_ops(), 1}, {"cpu, 2 threads", &cpu_ops(), 2}, {"cpu, 3 threads", &cpu_ops(), 3}};
}

inline Mat mat(std::vector<float>& v, int64_t rows, int64_t cols) { return {v.data(), rows, cols}; }
inline CMat cmat(const std::vector<float>& v, int64_t rows, int64_t cols) { return {v.data(), rows, cols}; }

}  // namespace ccdrec::test
