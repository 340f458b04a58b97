// What every test shares: seeded inputs, the devices present, and a comparator that a NaN cannot pass.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace ccdrec::test {

// One value of a double-precision reference with its mass, the sum of |terms|: the limit of an error is relative to the
// mass.
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
  return ::testing::AssertionFailure() << bad << " of " << want.size() << " differ; first at " << first << ": got "
                                       << got[first] << ", want " << want[first].value << " (mass " << want[first].mass
                                       << ", tol " << tol << ")";
}
inline ::testing::AssertionResult close(const std::vector<float>& got, const std::vector<Ref>& want, double tol) {
  if (got.size() < want.size())
    return ::testing::AssertionFailure() << "got " << got.size() << " values, want " << want.size();
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

// Whether this program checks itself for `make sanitize`. Asked when it runs: the tests' own objects are the same in
// both builds.
bool sanitized();

// Every device present: the CPU with several thread counts, the emulated GPU under several schedules (tests/simt), a
// GPU where this is the program that tests one. Results may not depend on threads or schedule: within a family the bits
// are the same.
struct Device {
  std::string name;
  const Ops* ops;
  int threads;
  std::string family = "cpu";
  std::function<void(Ctx&)> open = {};  // makes a context the device's own
  int sms = 1;                          // multiprocessors that launches are cut for
};
std::vector<Device> devices();  // tests/support.cpp
std::vector<Device> cpu_devices();
// the CPU's, and two of each other family: for cases that would take the emulator minutes with all
std::vector<Device> fast_devices();
std::vector<Device> one_of_each_family();  // where another test demands the same bits of all of a family

// the CPU's own loop
inline std::vector<Device> with_isa(const std::string& isa) { return isa == "portable" ? devices() : cpu_devices(); }

// A context of that device, for one case.
class DeviceCtx {
 public:
  explicit DeviceCtx(const Device& dev) : ctx_(dev.threads) {
    ctx_.alone_ns = 0;  // small shapes too go to all threads
    if (dev.open) dev.open(ctx_);
  }
  operator Ctx&() { return ctx_; }
  Ctx& get() { return ctx_; }

 private:
  Ctx ctx_;
};

// A number in memory that a device can write: &cell is its address.
template <class T>
class Cell {
 public:
  Cell(T v = {}) : v_(1, v) {}
  T* operator&() { return v_.data(); }
  operator T() const { return v_[0]; }

 private:
  std::vector<T> v_;
};

// EXPECT_TRUE(same(dev, "y", y)): the bits are those of the family's first device that came here. One object a case.
class SameBits {
 public:
  template <class T>
  ::testing::AssertionResult operator()(const Device& dev, const std::string& what, const std::vector<T>& v) {
    return compare(dev, what, v.data(), v.size() * sizeof(T));
  }
  template <class T>
  requires(std::is_arithmetic_v<T>)::testing::AssertionResult operator()(const Device& dev, const std::string& what,
                                                                         T v) {
    return compare(dev, what, &v, sizeof v);
  }

 private:
  ::testing::AssertionResult compare(const Device& dev, const std::string& what, const void* p, size_t bytes) {
    const std::string now(static_cast<const char*>(p), bytes);
    const auto [at, fresh] = first_.emplace(dev.family + "/" + what, std::pair(dev.name, now));
    if (fresh || at->second.second == now) return ::testing::AssertionSuccess();
    size_t k = 0;
    while (k < std::min(bytes, at->second.second.size()) && at->second.second[k] == now[k]) ++k;
    return ::testing::AssertionFailure() << what << " has other bits on " << dev.name << " than on " << at->second.first
                                         << ", first at byte " << k;
  }
  std::map<std::string, std::pair<std::string, std::string>> first_;
};

inline Mat mat(std::vector<float>& v, int64_t rows, int64_t cols) { return {v.data(), rows, cols}; }
inline CMat cmat(const std::vector<float>& v, int64_t rows, int64_t cols) { return {v.data(), rows, cols}; }

}  // namespace ccdrec::test
