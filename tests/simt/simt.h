// An emulator for the CUDA dialect of kernels/cuda/device.h: every thread of a block is a coroutine, blocks run one
// after another. A kernel source is compiled as C++ with this header in the place of CUDA's and does here what it may
// do on a GPU under any legal schedule:
//
//   * threads (and blocks) run in ascending, descending or seeded random order, each until it has to wait; results that
//     depend on it are races. Ascending lets the first thread that can go on run ahead of all others, descending the
//     last
//   * shared memory starts as a poison pattern, each array an allocation of its own: AddressSanitizer sees an access
//     outside it. Arrays are aligned as their element type and no better: a float4 in an array of floats crashes or is
//     reported by UndefinedBehaviorSanitizer
//   * barriers and collectives check who takes part, where, and with which mask; a block that cannot go on is reported
//     by kernel and line
//   * there are integer atomics only
//   * what CUDA refuses of the host is refused: addresses of the host in a launch, and calls that may not stand in a
//     recording
// What it cannot catch is listed in tests/simt/simt_test.cpp.
#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/ctx.h"
#include "kernels/cuda/chip.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define SHARED(T, name, dims)                                   \
  typedef T name##_shared_type dims;                            \
  static const char name##_site = 0;                            \
  name##_shared_type& name = *static_cast<name##_shared_type*>( \
      ::ccdrec::simt::shared_array(&name##_site, sizeof(name##_shared_type), alignof(name##_shared_type)))
// Where a barrier or collective stands: the caller's line.
#define SIMT_CALLER int line = __builtin_LINE(), const char *file = __builtin_FILE()

namespace ccdrec::simt {

enum class Order { ascending, descending, random };
struct Config {
  Order order = Order::ascending;
  int poison = 0xff;  // byte that shared memory and scratch start with
  uint32_t seed = 1;  // of Order::random
  int64_t shared = cuda::Chip{}.shared;
  size_t memory = 0;  // bytes that all contexts may hold together when this one asks for more; 0: no limit
};
size_t memory_held();  // by all contexts, bytes
// The shared memory that a block of the emulated chip may have, in bytes (kernels/cuda/chip.h): asked for when a launch
// is prepared.
void use_shared(int64_t bytes);
int64_t most_shared();

// A mistake of a kernel: a deadlock, a wrong mask, a barrier that not all threads reach.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

Config& default_config();  // of contexts opened from now on

// Device memory is closed to the host: while no DeviceAccess lives, touching what `alloc` or `scratch` gave is a
// segmentation fault, as on a GPU. (Not under AddressSanitizer, which wants each allocation for itself.)
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Whether launches may hand over any heap memory of the host: the operation tests do, whose vectors are pinned memory
// on a real GPU (tests/cuda). Never the stack or the program's own data. False unless set.
bool& host_heap_allowed();

// What Ctx::backend points to. While `recording` is set, launches are kept there instead of being run: the emulated
// CUDA graph.
struct Backend {
  Config config;
  std::vector<std::function<void()>>* recording = nullptr;
  int64_t launches = 0;
  int64_t sparse_products = 0;  // asked of the stand-in for cuSPARSE
  // explicit bits that the stand-in for cuBLAS leaves of a factor: kernels/precision.h
  int mantissa = 23;
  int64_t recordings = 0;            // kept ones: their launches hold addresses of scratch,
  std::vector<void*> outgrown = {};  // which then outlives its growth,
  size_t held = 0;                   // so many bytes
  std::string spoiled = {};          // what was asked of CUDA while recording that it refuses: the recording is lost
  bool library_open[2] = {};         // cuBLAS, cuSPARSE: opened by their first call, which may not stand in a recording
};

// Throws KernelError for a launch that a GPU would refuse.
void check_geometry(const char* kernel, const char* file, int line, Dim3 grid, int block, size_t shared);
// Runs body once per thread of every block.
void run_kernel(const Config&, const char* kernel, const char* file, int line, Dim3 grid, int block, size_t shared,
                const std::function<void()>& body);
// Runs it now, or notes it for the recording under way.
void submit(Ctx&, std::function<void()> work);
// Throws KernelError for an address in an argument that a GPU does not reach. `word`: of a structure, it may be a
// number.
void check_reach(const char* who, const char* file, int line, int argument, const void* address, bool word);
// Looked at are pointers and structures of words without padding (views, lists, graphs); others would need their fields
// named.
template <class T>
void check_argument(const char* who, const char* file, int line, int argument, const T& v) {
  if constexpr (std::is_pointer_v<T>) {
    check_reach(who, file, line, argument, reinterpret_cast<const void*>(v), false);
  } else if constexpr (std::is_class_v<T> && std::has_unique_object_representations_v<T> &&
                       alignof(T) == sizeof(void*)) {
    const void* words[sizeof(T) / sizeof(void*)];
    std::memcpy(words, &v, sizeof v);
    for (const void* w : words) check_reach(who, file, line, argument, w, true);
  }
}

struct Site {  // of a barrier or collective
  const char *what, *file;
  int line;
};
void* shared_array(const void* site, size_t bytes, size_t align);
void* dynamic_shared_memory();
struct Lanes {         // what the lanes of a warp brought to a collective
  uint64_t value[32];  // by lane; of absent lanes undefined
  uint32_t mask;
};
const Lanes& exchange(uint32_t mask, const Site&, uint64_t value);
int64_t barrier(const Site&, int predicate);  // number of threads whose predicate is true
uint64_t poison_bits();
[[noreturn]] void stop(const Site&, const std::string& why);

template <class T>
uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8);
  uint64_t b = 0;
  std::memcpy(&b, &v, sizeof v);
  return b;
}
template <class T>
T from_bits(uint64_t b) {
  T v;
  std::memcpy(&v, &b, sizeof v);
  return v;
}

}  // namespace ccdrec::simt

namespace ccdrec::cuda {

extern simt::Dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs

struct Grid {
  simt::Dim3 d;
  Grid(int64_t x) : Grid(x, 1, 1) {}
  Grid(int64_t x, int64_t y, int64_t z = 1) : d{size(x), size(y), size(z)} {}
  static unsigned size(int64_t n) {
    check_that(n >= 0 && n < (int64_t(1) << 31), "a grid of 0 to 2^31-1 blocks", __FILE__, __LINE__);
    return unsigned(n);
  }
};

template <class... P, class... A>
void launch_named(const char* name, const char* file, int line, void (*kernel)(P...), Grid grid, int block,
                  size_t shared, Ctx& ctx, A&&... args) {
  if (grid.d.x == 0 || grid.d.y == 0 || grid.d.z == 0) return;
  simt::check_geometry(name, file, line, grid.d, block, shared);
  const simt::Config config = static_cast<simt::Backend*>(ctx.backend)->config;
  std::tuple<P...> given(static_cast<P>(args)...);
  int argument = 0;
  std::apply([&](const P&... v) { (simt::check_argument(name, file, line, ++argument, v), ...); }, given);
  simt::submit(ctx, [=, values = std::move(given)] {
    simt::run_kernel(config, name, file, line, grid.d, block, shared, [&] { std::apply(kernel, values); });
  });
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared_memory());
}

// Barriers and collectives.
inline void __syncthreads(SIMT_CALLER) { simt::barrier({"__syncthreads", file, line}, 0); }
inline int __syncthreads_or(int p, SIMT_CALLER) { return simt::barrier({"__syncthreads_or", file, line}, p) != 0; }
inline int __syncthreads_and(int p, SIMT_CALLER) {
  return simt::barrier({"__syncthreads_and", file, line}, p) == int64_t(blockDim.x);
}
inline int __syncthreads_count(int p, SIMT_CALLER) {
  return int(simt::barrier({"__syncthreads_count", file, line}, p));
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_CALLER) {
  simt::exchange(mask, {"__syncwarp", file, line}, 0);
}

// The value of lane `source`. A lane that takes no part has nothing to give: on a GPU the value is undefined, here it
// is poison.
template <class T>
T shuffle_from(unsigned mask, T v, unsigned source, const simt::Site& site) {
  const simt::Lanes& l = simt::exchange(mask, site, simt::to_bits(v));
  return simt::from_bits<T>((l.mask >> source) & 1 ? l.value[source] : simt::poison_bits());
}
inline void check_width(int width, unsigned offset, const simt::Site& site) {
  if (width <= 0 || width > 32 || (width & (width - 1)))
    simt::stop(site, "width " + std::to_string(width) + ", expected a power of two up to 32");
  if (offset >= 32) simt::stop(site, "offset " + std::to_string(int(offset)) + ", expected 0 to 31");
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, SIMT_CALLER) {
  const simt::Site site{"__shfl_sync", file, line};
  check_width(width, 0, site);
  const unsigned w = unsigned(width), me = threadIdx.x % 32;
  return shuffle_from(mask, v, (me & ~(w - 1)) + (unsigned(source) & (w - 1)), site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_CALLER) {
  const simt::Site site{"__shfl_up_sync", file, line};
  check_width(width, delta, site);
  const unsigned w = unsigned(width), me = threadIdx.x % 32;
  return shuffle_from(mask, v, (me & (w - 1)) >= delta ? me - delta : me, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_CALLER) {
  const simt::Site site{"__shfl_down_sync", file, line};
  check_width(width, delta, site);
  const unsigned w = unsigned(width), me = threadIdx.x % 32;
  return shuffle_from(mask, v, (me & (w - 1)) + delta < w ? me + delta : me, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, SIMT_CALLER) {
  const simt::Site site{"__shfl_xor_sync", file, line};
  check_width(width, unsigned(bits), site);
  const unsigned w = unsigned(width), me = threadIdx.x % 32, other = me ^ unsigned(bits);
  // earlier groups of `width` can be read, later ones cannot
  return shuffle_from(mask, v, other <= (me | (w - 1)) ? other : me, site);
}
inline unsigned votes_of(unsigned mask, int p, const simt::Site& site) {
  const simt::Lanes& l = simt::exchange(mask, site, p != 0);
  unsigned votes = 0;
  for (unsigned k = 0; k < 32; ++k)
    if ((l.mask >> k) & 1 && l.value[k]) votes |= 1u << k;
  return votes;
}
inline unsigned __ballot_sync(unsigned mask, int p, SIMT_CALLER) {
  return votes_of(mask, p, {"__ballot_sync", file, line});
}
inline int __any_sync(unsigned mask, int p, SIMT_CALLER) { return votes_of(mask, p, {"__any_sync", file, line}) != 0; }
inline int __all_sync(unsigned mask, int p, SIMT_CALLER) {
  return votes_of(mask, p, {"__all_sync", file, line}) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T v, SIMT_CALLER) {
  const uint64_t bits = simt::to_bits(v);
  const simt::Lanes& l = simt::exchange(mask, {"__match_any_sync", file, line}, bits);
  unsigned same = 0;
  for (unsigned k = 0; k < 32; ++k)
    if ((l.mask >> k) & 1 && l.value[k] == bits) same |= 1u << k;
  return same;
}

// Atomics: one thread runs at a time, so plain code is atomic. Integers only.
template <class T>
concept AtomicInteger = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <AtomicInteger T, class F>
T atomic_update(T* p, F&& f) {
  const T old = *p;
  *p = f(old);
  return old;
}
template <AtomicInteger T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T o) { return T(o + v); });
}
template <AtomicInteger T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T o) { return o < v ? o : v; });
}
template <AtomicInteger T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T o) { return o > v ? o : v; });
}
template <AtomicInteger T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T o) { return T(o | v); });
}
template <AtomicInteger T>
T atomicAnd(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T o) { return T(o & v); });
}
template <AtomicInteger T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T) { return v; });
}
template <AtomicInteger T>
T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> v) {
  return atomic_update(p, [&](T o) { return o == compare ? v : o; });
}

// Scalars and vectors.
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class T>
T __ldg(const T* p) {
  return *p;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int k = 0; k < 32; ++k) r |= ((x >> k) & 1u) << (31 - k);
  return r;
}
inline int __float_as_int(float x) { return simt::from_bits<int>(simt::to_bits(x)); }
inline float __int_as_float(int x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return simt::from_bits<unsigned>(simt::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return simt::from_bits<float>(simt::to_bits(x)); }
inline void __threadfence() {}
using std::max, std::min;

}  // namespace ccdrec::cuda
