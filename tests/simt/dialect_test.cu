// The dialect of kernels/cuda/device.h does what CUDA documents: the same cases on the emulator (included by
// simt_test.cpp) and on a GPU (compiled by nvcc into test_cuda), where they show that the references below, and so the
// emulator, tell the truth.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "tests/support.h"

namespace ccdrec::cuda {
namespace {

using test::Device;
using test::DeviceCtx;
using test::Draw;

std::vector<Device> gpus() {
  std::vector<Device> all = test::devices();
  std::erase_if(all, [](const Device& d) { return d.family == "cpu"; });
  return all;
}

// An array in the memory of a device.
template <class T>
class Array {
 public:
  Array(const Device& dev, Ctx& ctx, const std::vector<T>& v)
      : ops_(*dev.ops), ctx_(ctx), n_(v.size()), p_(static_cast<T*>(ops_.alloc(ctx, n_ * sizeof(T)))) {
    ops_.upload(ctx, p_, v.data(), n_ * sizeof(T));
  }
  Array(const Device& dev, Ctx& ctx, size_t n, T v = T{}) : Array(dev, ctx, std::vector<T>(n, v)) {}
  ~Array() { ops_.free(ctx_, p_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  operator T*() const { return p_; }
  std::vector<T> get() const {
    std::vector<T> v(n_);
    ops_.wait(ctx_);
    ops_.download(ctx_, v.data(), p_, n_ * sizeof(T));
    return v;
  }

 private:
  const Ops& ops_;
  Ctx& ctx_;
  size_t n_;
  T* p_;
};

template <class Case>
void on_every_gpu(Case&& run) {
  for (const Device& dev : gpus()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    run(dev, ctx.get());
  }
}

// --- Indices ---------------------------------------------------------------------------------------------------------

struct Indices {
  unsigned thread[3], block[3], threads[3], blocks[3];
};
__global__ void write_indices(Indices* out) {
  const unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  out[b * blockDim.x + threadIdx.x] = {{threadIdx.x, threadIdx.y, threadIdx.z},
                                       {blockIdx.x, blockIdx.y, blockIdx.z},
                                       {blockDim.x, blockDim.y, blockDim.z},
                                       {gridDim.x, gridDim.y, gridDim.z}};
}

TEST(Dialect, ThreadAndBlockIndices) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    for (const auto& g : std::vector<std::array<unsigned, 3>>{{1, 1, 1}, {5, 1, 1}, {3, 4, 1}, {2, 3, 4}, {1, 1, 7}})
      for (const unsigned threads : {32u, 96u}) {
        const unsigned blocks = g[0] * g[1] * g[2];
        Array<Indices> out(dev, ctx, blocks * threads);
        launch(write_indices, Grid(g[0], g[1], g[2]), int(threads), 0, ctx, out);
        const auto got = out.get();
        for (unsigned k = 0; k < blocks * threads; ++k) {
          const unsigned b = k / threads;
          const Indices want{
              {k % threads, 0, 0}, {b % g[0], b / g[0] % g[1], b / g[0] / g[1]}, {threads, 1, 1}, {g[0], g[1], g[2]}};
          ASSERT_EQ(std::memcmp(&got[k], &want, sizeof want), 0) << "thread " << k;
        }
      }
    Array<Indices> none(dev, ctx, 1);
    for (const Grid& g : {Grid(0), Grid(3, 0), Grid(3, 3, 0)}) launch(write_indices, g, 32, 0, ctx, none);
    EXPECT_EQ(none.get()[0].threads[0], 0u) << "a grid of no blocks runs nothing";
  });
}

// --- Shared memory ---------------------------------------------------------------------------------------------------

// One array however often, and from wherever in a kernel, its function is called; another one for each set of template
// arguments.
template <int N>
__device__ int* counters() {
  SHARED(int, counter, [N]);
  return counter;
}
__global__ void shared_arrays(int* out) {
  SHARED(int, scalar, );
  SHARED(int, row, [64]);
  SHARED(int, second_row, [64]);
  SHARED(int, table, [2][64]);
  const int t = int(threadIdx.x), b = int(blockIdx.x);
  if (t == 0) scalar = 1000 + b;
  row[t] = t, second_row[t] = 500 + t, table[0][t] = 100 + t, table[1][t] = 200 + t;
  if (t < 7) counters<7>()[t] = 300 + t;
  if (t < 9) counters<9>()[t] = 400 + t;
  __syncthreads();
  const int o = 63 - t;
  int* mine = out + (b * 64 + t) * 8;
  mine[0] = scalar, mine[1] = row[o], mine[2] = table[0][o], mine[3] = table[1][o];
  mine[4] = counters<7>()[t % 7], mine[5] = counters<9>()[t % 9];
  mine[6] = second_row[o] == 500 + o && &table[1][0] - &table[0][0] == 64 && sizeof(table) == 2 * 64 * sizeof(int);
  mine[7] = counters<7>() == counters<7>() && counters<7>() != counters<9>();
}

TEST(Dialect, SharedArraysAreOnePerBlockAndDeclaration) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> out(dev, ctx, 3 * 64 * 8);
    launch(shared_arrays, 3, 64, 0, ctx, out);
    const auto got = out.get();
    for (int k = 0; k < 3 * 64; ++k) {
      const int t = k % 64, o = 63 - t;
      const std::vector<int> want{1000 + k / 64, o, 100 + o, 200 + o, 300 + t % 7, 400 + t % 9, 1, 1};
      ASSERT_EQ(std::vector<int>(got.begin() + k * 8, got.begin() + k * 8 + 8), want) << "thread " << k;
    }
  });
}

__global__ void dynamic_memory(int* out, int n) {
  float4* quads = dynamic_shared<float4>();
  int* ints = reinterpret_cast<int*>(quads + blockDim.x);
  SHARED(char, odd, [3]);
  SHARED(__align__(16) float, four, [32]);
  const int t = int(threadIdx.x);
  if (t < 3) odd[t] = char(t);
  four[t % 32] = float(t % 32);
  quads[t] = make_float4(float(t), 1.0f, 2.0f, float(blockIdx.x));
  for (int k = t; k < n; k += int(blockDim.x)) ints[k] = 5 * k;
  __syncthreads();
  const float4 q = quads[(t + 1) % int(blockDim.x)];
  const float4 f = reinterpret_cast<const float4*>(four)[t % 8];
  bool ok = q.x == float((t + 1) % int(blockDim.x)) && q.y == 1.0f && q.z == 2.0f && q.w == float(blockIdx.x);
  ok = ok && ints[(7 * t) % n] == 5 * ((7 * t) % n) && reinterpret_cast<uintptr_t>(quads) % 16 == 0 && odd[2] == 2;
  ok = ok && f.x == float(t % 8 * 4) && f.w == float(t % 8 * 4 + 3) &&
       dynamic_shared<char>() == reinterpret_cast<char*>(quads);
  out[int(blockIdx.x * blockDim.x) + t] = ok;
}

TEST(Dialect, DynamicSharedMemory) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    for (const int n : {1, 77, 15000}) {  // the last more than the 48 KB one gets without asking
      Array<int> out(dev, ctx, 2 * 64);
      launch(dynamic_memory, 2, 64, 64 * sizeof(float4) + size_t(n) * sizeof(int), ctx, out, n);
      EXPECT_EQ(out.get(), std::vector<int>(2 * 64, 1)) << n;
    }
  });
}

// --- Barriers --------------------------------------------------------------------------------------------------------

__global__ void barriers(int* out, const int* predicate) {
  SHARED(int, s, [96]);
  const int t = int(threadIdx.x), n = int(blockDim.x);
  int sum = 0;
  for (int k = 0; k < 5; ++k) {
    s[t] = 10 * k + t;
    __syncthreads();
    sum += s[(t + 33) % n];
    __syncthreads();
  }
  const int p = predicate[blockIdx.x * blockDim.x + threadIdx.x];
  int* mine = out + (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  mine[0] = sum;
  mine[1] = __syncthreads_or(p) != 0, mine[2] = __syncthreads_and(p) != 0;
  mine[3] = __syncthreads_count(p);
}

TEST(Dialect, BarriersAndTheirVotes) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    const int n = 96;
    std::vector<int> p;
    for (int k = 0; k < 5 * n; ++k) {
      const int t = k % n;
      p.push_back(std::array<int, 5>{0, 1, t == 77 ? -3 : 0, t != 40, t % 3}[size_t(k / n)]);
    }
    Array<int> in(dev, ctx, p), out(dev, ctx, size_t(5 * n * 4));
    launch(barriers, 5, n, 0, ctx, out, in);
    const auto got = out.get();
    for (int k = 0; k < 5 * n; ++k) {
      const int count =
          int(std::count_if(p.begin() + k / n * n, p.begin() + (k / n + 1) * n, [](int x) { return x != 0; }));
      const std::vector<int> want{100 + 5 * ((k % n + 33) % n), count > 0, count == n, count};
      ASSERT_EQ(std::vector<int>(got.begin() + k * 4, got.begin() + k * 4 + 4), want) << "thread " << k;
    }
  });
}

// Each half of a warp by itself, the second twice as often: masks name the lanes that take part.
__global__ void half_warps(int* out) {
  SHARED(int, s, [64]);
  const int t = int(threadIdx.x), lane = t % 32;
  const bool low = lane < 16;
  int v = t;
  for (int k = 0; k < (low ? 3 : 6); ++k) {
    s[t] = v;
    if (low)
      __syncwarp(0x0000ffffu);
    else
      __syncwarp(0xffff0000u);
    v = s[t ^ 5] + 1;
    if (low)
      __syncwarp(0x0000ffffu);
    else
      __syncwarp(0xffff0000u);
  }
  __syncwarp();
  s[t] = v;
  __syncwarp();
  out[t] = s[t ^ 31];
}

TEST(Dialect, SyncwarpOfPartsOfAWarp) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> out(dev, ctx, 64);
    launch(half_warps, 1, 64, 0, ctx, out);
    const auto got = out.get();
    for (int t = 0; t < 64; ++t) {
      const int o = t ^ 31, rounds = o % 32 < 16 ? 3 : 6;
      EXPECT_EQ(got[size_t(t)], (rounds % 2 ? o ^ 5 : o) + rounds);
    }
  });
}

// --- Shuffles and votes ----------------------------------------------------------------------------------------------

enum Shuffle { kIndex, kUp, kDown, kXor };

template <class T>
__global__ void shuffles(T* out, const T* in, Shuffle how, int arg, int width, unsigned mask) {
  const int lane = int(threadIdx.x) % 32;
  if (!((mask >> lane) & 1)) return;
  const T v = in[threadIdx.x];
  out[threadIdx.x] = how == kIndex  ? __shfl_sync(mask, v, arg + lane / 3, width)
                     : how == kUp   ? __shfl_up_sync(mask, v, unsigned(arg), width)
                     : how == kDown ? __shfl_down_sync(mask, v, unsigned(arg), width)
                                    : __shfl_xor_sync(mask, v, arg, width);
}

// The lane whose value arrives, by the definition of shfl.sync in NVIDIA's "PTX ISA".
int source_lane(Shuffle how, int lane, int arg, int width) {
  const int segmask = 32 - width, b = (how == kIndex ? arg + lane / 3 : arg) & 31, c = how == kUp ? 0 : 31;
  const int max_lane = (lane & segmask) | (c & ~segmask), min_lane = lane & segmask;
  int j = 0;
  bool in_range = false;
  switch (how) {
    case kUp:
      j = lane - b, in_range = j >= max_lane;
      break;
    case kDown:
      j = lane + b, in_range = j <= max_lane;
      break;
    case kXor:
      j = lane ^ b, in_range = j <= max_lane;
      break;
    case kIndex:
      j = min_lane | (b & ~segmask), in_range = j <= max_lane;
      break;
  }
  return in_range ? j : lane;
}

template <class T>
void check_shuffles(const Device& dev, Ctx& ctx, const std::vector<unsigned>& masks) {
  std::vector<T> in(64);
  for (size_t k = 0; k < in.size(); ++k)
    in[k] = T(1.5) * T(k + 1) * (sizeof(T) == 8 ? T(1) * T(1 << 20) * T(1 << 18) : T(1));
  Array<T> from(dev, ctx, in), out(dev, ctx, 64);
  const std::vector<T> nothing(64, T(0));
  for (const unsigned mask : masks)
    for (const Shuffle how : {kIndex, kUp, kDown, kXor})
      for (const int width : {1, 2, 4, 8, 16, 32})
        for (const int arg :
             how == kIndex ? std::vector<int>{0, 1, 7, 31, 32, 37, -1} : std::vector<int>{0, 1, 2, 3, 8, 15, 16, 31}) {
          dev.ops->upload(ctx, out, nothing.data(), 64 * sizeof(T));
          launch(shuffles<T>, 1, 64, 0, ctx, out, from, how, arg, width, mask);
          const auto got = out.get();
          for (int t = 0; t < 64; ++t) {
            const int source = source_lane(how, t % 32, arg, width);
            const bool takes_part = (mask >> (t % 32)) & 1, defined = (mask >> source) & 1;
            if (!takes_part || defined) {
              ASSERT_EQ(got[size_t(t)], takes_part ? in[size_t(t / 32 * 32 + source)] : T(0))
                  << "thread " << t << ", shuffle " << how << ", argument " << arg << ", width " << width << ", mask "
                  << mask;
            }
          }
        }
}

TEST(Dialect, ShufflesFollowThePtxDefinition) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    check_shuffles<int>(dev, ctx, {kAll, 0x0000ffffu, 0x80000000u, 0x5a5aa5a5u});
    check_shuffles<unsigned>(dev, ctx, {kAll});
    check_shuffles<float>(dev, ctx, {kAll});
    check_shuffles<long long>(dev, ctx, {kAll});
    check_shuffles<double>(dev, ctx, {0xff00ff00u});
  });
}

__global__ void votes(unsigned* out, const int* in, unsigned mask) {
  const int lane = int(threadIdx.x) % 32, v = in[threadIdx.x];
  if (!((mask >> lane) & 1)) return;
  unsigned* mine = out + threadIdx.x * 5;
  mine[0] = __ballot_sync(mask, v > 0), mine[1] = __any_sync(mask, v > 0) != 0, mine[2] = __all_sync(mask, v > 0) != 0;
  mine[3] = __match_any_sync(mask, v), mine[4] = __match_any_sync(mask, (long long)(v) << 33);
}

TEST(Dialect, VotesAndMatches) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Draw g;
    for (const unsigned mask : {kAll, 0x0000ffffu, 0x80000001u, 0x00000010u, 0x7ffffffeu})
      for (int kind = 0; kind < 4; ++kind) {
        std::vector<int> in(64);
        for (int& v : in) v = kind == 0 ? 0 : kind == 1 ? 7 : g.below(4) - (kind == 2);
        Array<int> from(dev, ctx, in);
        Array<unsigned> out(dev, ctx, 64 * 5);
        launch(votes, 1, 64, 0, ctx, out, from, mask);
        const auto got = out.get();
        for (int t = 0; t < 64; ++t) {
          unsigned ballot = 0, same = 0;
          for (int l = 0; l < 32; ++l) {
            const int v = in[size_t(t / 32 * 32 + l)];
            if (((mask >> l) & 1) && v > 0) ballot |= 1u << l;
            if (((mask >> l) & 1) && v == in[size_t(t)]) same |= 1u << l;
          }
          std::vector<unsigned> want{ballot, ballot != 0, ballot == mask, same, same};
          if (!((mask >> (t % 32)) & 1)) want.assign(5, 0);
          ASSERT_EQ(std::vector<unsigned>(got.begin() + t * 5, got.begin() + t * 5 + 5), want)
              << "thread " << t << ", mask " << mask;
        }
      }
  });
}

// --- Atomics ---------------------------------------------------------------------------------------------------------

template <class T>
struct Words {
  T sum, low, high, any, all, exchanged, swapped;
};
// `old` receives what thread t's atomicAdd (0), atomicExch (1) and the first of its atomicCAS (2) returned; the block
// has words of its own too.
template <class T>
__global__ void atomics(Words<T>* w, Words<T> start, Words<T>* of_block, T* old) {
  SHARED(Words<T>, s, );
  if (threadIdx.x == 0) s = start;
  __syncthreads();
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x), n = int(gridDim.x * blockDim.x);
  const T v = T(t + 1);
  old[t] = atomicAdd(&w->sum, T(1));
  old[n + t] = atomicExch(&w->exchanged, v);
  for (Words<T>* at : {w, &s}) {
    atomicMin(&at->low, T(1000 - t)), atomicMax(&at->high, v);
    atomicOr(&at->any, T(T(1) << (t % 31))), atomicAnd(&at->all, T(~(T(1) << (t % 5))));
    T seen = at->swapped;  // adds v by comparing and swapping
    bool first = true;
    for (;;) {
      const T before = atomicCAS(&at->swapped, seen, T(seen + v));
      if (first && at == w) old[2 * n + t] = before;
      first = false;
      if (before == seen) break;
      seen = before;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) of_block[blockIdx.x] = s;
}

template <class T>
void check_atomics(const Device& dev, Ctx& ctx) {
  const int blocks = 3, threads = 64, n = blocks * threads;
  const Words<T> start{T(5), T(2000), T(0), T(0), T(~T(0)), T(0), T(0)};
  Array<Words<T>> w(dev, ctx, 1, start), of_block(dev, ctx, blocks);
  Array<T> old(dev, ctx, size_t(3 * n));
  launch(atomics<T>, blocks, threads, 0, ctx, w, start, of_block, old);
  const Words<T> got = w.get()[0];
  std::vector<T> returned = old.get();
  EXPECT_EQ(got.sum, T(5 + n));
  EXPECT_EQ(got.low, T(1000 - (n - 1)));
  EXPECT_EQ(got.high, T(n));
  EXPECT_EQ(got.any, T(T(0x7fffffff)));
  EXPECT_EQ(got.all, T(~T(31)));
  EXPECT_EQ(got.swapped, T(n * (n + 1) / 2));
  std::sort(returned.begin(), returned.begin() + n);
  for (int k = 0; k < n; ++k) ASSERT_EQ(returned[size_t(k)], T(5 + k)) << "every increment sees another old value";
  std::vector<T> handed(returned.begin() + n, returned.begin() + 2 * n);
  handed.push_back(got.exchanged);
  std::sort(handed.begin(), handed.end());
  for (int k = 0; k <= n; ++k) ASSERT_EQ(handed[size_t(k)], T(k)) << "every value put in comes out once";
  const auto shared = of_block.get();
  for (int b = 0; b < blocks; ++b) {
    EXPECT_EQ(shared[size_t(b)].low, T(1000 - ((b + 1) * threads - 1)));
    EXPECT_EQ(shared[size_t(b)].high, T((b + 1) * threads));
    EXPECT_EQ(shared[size_t(b)].swapped, T(threads * (threads + 1) / 2 + b * threads * threads));
  }
}

TEST(Dialect, AtomicsOnIntegers) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    check_atomics<int>(dev, ctx);
    check_atomics<unsigned>(dev, ctx);
    check_atomics<unsigned long long>(dev, ctx);
  });
}

__global__ void signed_or_not(int* i, unsigned* u) {
  if (threadIdx.x) return;
  i[3] = atomicCAS(&i[4], 8, 9), i[5] = atomicCAS(&i[6], 8, 9);
  atomicMin(&i[0], -5), atomicMax(&i[1], -5), atomicAdd(&i[2], -5);
  atomicMin(&u[0], 0x80000001u), atomicMax(&u[1], 0x80000001u), atomicAdd(&u[2], 0u - 5u);
}

TEST(Dialect, AtomicsCompareAsTheirTypeDoesAndSwapOnlyWhatIsEqual) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> i(dev, ctx, {3, -9, 3, 0, 8, 0, 7});
    Array<unsigned> u(dev, ctx, {3u, 9u, 3u});
    launch(signed_or_not, 1, 32, 0, ctx, i, u);
    EXPECT_EQ(i.get(), (std::vector<int>{-5, -5, -2, 8, 9, 7, 7}));
    EXPECT_EQ(u.get(), (std::vector<unsigned>{3u, 0x80000001u, 0xfffffffeu}));
  });
}

// --- Scalars and vectors ---------------------------------------------------------------------------------------------

static_assert(sizeof(float2) == 8 && alignof(float2) == 8 && sizeof(int2) == 8 && alignof(int2) == 8);
static_assert(sizeof(float4) == 16 && alignof(float4) == 16 && sizeof(int4) == 16 && alignof(int4) == 16 &&
              sizeof(uint4) == 16 && alignof(uint4) == 16);

__global__ void vectors(float* out, const float* in) {
  if (threadIdx.x) return;
  const float4 a = *reinterpret_cast<const float4*>(in + 4);
  const float2 b = *reinterpret_cast<const float2*>(in + 2);
  *reinterpret_cast<float4*>(out) = make_float4(a.w, a.z, a.y, a.x);
  *reinterpret_cast<float2*>(out + 4) = make_float2(b.y, b.x);
  const int4 i = make_int4(-1, 2, 3, 4);
  const uint4 u = make_uint4(0xffffffffu, 6, 7, 8);
  const int2 j = make_int2(9, -10);
  out[6] = float(i.x + i.y * 10 + i.z * 100 + i.w * 1000),
  out[7] = float((u.x == 0xffffffffu) + u.y * 10 + u.z * 100 + u.w * 1000);
  out[8] = float(j.x * 100 + j.y);
  out[9] = __ldg(in + 3) + __ldg(&a).x,
  out[10] = fmaf(3.0f, 5.0f, 0.5f) + fminf(1.0f, 2.0f) + fmaxf(1.0f, 2.0f) + sqrtf(16.0f);
  out[11] = float(min(3, 4) + 10 * max(3, 4));
}

TEST(Dialect, VectorTypes) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    std::vector<float> in(8);
    std::iota(in.begin(), in.end(), 1.0f);
    Array<float> from(dev, ctx, in), out(dev, ctx, 12);
    launch(vectors, 1, 32, 0, ctx, out, from);
    EXPECT_EQ(out.get(), (std::vector<float>{8, 7, 6, 5, 4, 3, 4319, 8761, 890, 9, 22.5f, 43}));
  });
}

struct Bits {
  int pop, popll, ffs, clz, clzll;
  unsigned brev, as_float_and_back, as_int_and_back;
};
__global__ void bit_functions(Bits* out, const unsigned long long* in, int n) {
  const int k = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (k >= n) return;
  const unsigned long long v = in[k];
  const unsigned u = unsigned(v);
  out[k] = {__popc(u),
            __popcll(v),
            __ffs(int(u)),
            __clz(int(u)),
            __clzll((long long)v),
            __brev(u),
            __float_as_uint(__uint_as_float(u)),
            unsigned(__float_as_int(__int_as_float(int(u))))};
}

TEST(Dialect, BitFunctions) {
  std::vector<unsigned long long> in{0, ~0ull, 0xffffffffull, 0x3f800000ull};
  for (int b = 0; b < 64; ++b) in.push_back(1ull << b), in.push_back(~(1ull << b));
  Draw g;
  for (int k = 0; k < 200; ++k)
    in.push_back(((static_cast<unsigned long long>(g.bits()) << 32) | g.bits()) >> g.below(64));
  std::vector<Bits> want;
  for (const unsigned long long v : in) {
    Bits r{0, 0, 0, 32, 64, 0, unsigned(v), unsigned(v)};
    for (int b = 63; b >= 0; --b) {
      if (!((v >> b) & 1)) continue;
      ++r.popll, r.clzll = std::min(r.clzll, 63 - b);
      if (b < 32) ++r.pop, r.ffs = b + 1, r.clz = std::min(r.clz, 31 - b), r.brev |= 1u << (31 - b);
    }
    want.push_back(r);
  }
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<unsigned long long> from(dev, ctx, in);
    Array<Bits> out(dev, ctx, in.size());
    launch(bit_functions, blocks_for(int64_t(in.size()), 64), 64, 0, ctx, out, from, int(in.size()));
    const auto got = out.get();
    for (size_t k = 0; k < in.size(); ++k) {
      const float f = __builtin_bit_cast(float, unsigned(in[k]));
      // a NaN may be quietened
      if (f != f)
        want[k].as_float_and_back = got[k].as_float_and_back, want[k].as_int_and_back = got[k].as_int_and_back;
      EXPECT_EQ(std::memcmp(&got[k], &want[k], sizeof(Bits)), 0) << std::hex << in[k];
    }
  });
}

// --- Arguments, late values, recordings ------------------------------------------------------------------------------

struct Big {
  int64_t v[16];
};
__global__ void arguments(int64_t* out, Big big, int64_t wide, float f, bool flag, const int64_t* p) {
  big.v[3] += int64_t(threadIdx.x);  // a thread's own copy
  wide += 1;
  out[blockIdx.x * blockDim.x + threadIdx.x] = big.v[3] + big.v[15] + wide + int64_t(f * 2.0f) + (flag ? 1000 : 0) + *p;
}

TEST(Dialect, ArgumentsAreCopiedForEveryThread) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int64_t> out(dev, ctx, 64), p(dev, ctx, 1, 7);
    Big big{};
    big.v[3] = 10, big.v[15] = 20;
    launch(arguments, 2, 32, 0, ctx, out, big, 5, 1.5, true, p);  // an int, a double: converted
    const auto got = out.get();
    for (int t = 0; t < 64; ++t) EXPECT_EQ(got[size_t(t)], 10 + t % 32 + 20 + 6 + 3 + 1000 + 7);
    EXPECT_EQ(big.v[3], 10);
  });
}

__global__ void read_late(int64_t* out, Stream s, int64_t first, int64_t t, const Late* late) {
  if (threadIdx.x) return;
  const Stream r = resolved(s, late);
  out[0] = r.seed, out[1] = int64_t(r.use), out[2] = r.epoch, out[3] = r.step, out[4] = late_first(first, late),
  out[5] = late_t(t, late);
}

TEST(Dialect, LateValuesAreReadByTheKernel) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int64_t> out(dev, ctx, 6);
    const auto read = [&](Stream s, int64_t first, int64_t t) {
      launch(read_late, 1, 32, 0, ctx, out, s, first, t, ctx.late);
      return out.get();
    };
    const Stream late{11, Use::noise, kLateEpoch, kLateStep};
    const int64_t use = int64_t(Use::noise);
    dev.ops->set_late(ctx, Late{3, 4, 500, 60});
    EXPECT_EQ(read(late, kLateFirst, kLateT), (std::vector<int64_t>{11, use, 3, 4, 500, 60}));
    EXPECT_EQ(read(late, kLateFirst + 7, kLateT + 1), (std::vector<int64_t>{11, use, 3, 4, 507, 61}));
    EXPECT_EQ(read(late, kLateFirst - 7, kLateT - 1), (std::vector<int64_t>{11, use, 3, 4, 493, 59}));
    EXPECT_EQ(read({11, Use::noise, 9, kLateStep}, 8, 7), (std::vector<int64_t>{11, use, 9, 4, 8, 7}));
    EXPECT_EQ(read({11, Use::noise, 0, 0}, 0, 0), (std::vector<int64_t>{11, use, 0, 0, 0, 0}));
    dev.ops->advance_late(ctx, 32, 1);
    EXPECT_EQ(read(late, kLateFirst, kLateT), (std::vector<int64_t>{11, use, 3, 5, 532, 61}));
    dev.ops->advance_late(ctx, 32, 2);  // a step of two updates
    EXPECT_EQ(read(late, kLateFirst, kLateT + 1), (std::vector<int64_t>{11, use, 3, 6, 564, 64}));
  });
}

__global__ void add_to(int* out, int v) { out[threadIdx.x] += v; }
__global__ void append_late(int64_t* out, const Late* late) {
  if (threadIdx.x == 0) out[late->step] = 1000 * late->t + late->first;
}

TEST(Recording, RunsNothingUntilReplayedAndThenEveryTime) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> out(dev, ctx, 32), copied(dev, ctx, 32), sums(dev, ctx, 32);
    library::exclusive_sum(ctx, sums, out, 32);  // its scratch may not grow while recording
    int v = 5;
    void* r = dev.ops->record(ctx, [&] {
      launch(add_to, 1, 32, 0, ctx, out, v);
      library::copy(ctx, copied, out, 32 * sizeof(int));
      library::exclusive_sum(ctx, sums, out, 32);
      launch(add_to, 1, 32, 0, ctx, out, 100);
    });
    EXPECT_EQ(out.get()[0], 0) << "recorded, not run";
    EXPECT_EQ(copied.get()[31], 0);
    v = 1000;  // arguments were copied
    for (int k = 1; k <= 3; ++k) {
      dev.ops->replay(ctx, r);
      EXPECT_EQ(out.get(), std::vector<int>(32, 105 * k));
      EXPECT_EQ(copied.get(), std::vector<int>(32, 105 * k - 100)) << "in the order of the recording";
      EXPECT_EQ(sums.get()[31], 31 * (105 * k - 100));
    }
    launch(add_to, 1, 32, 0, ctx, out, 1);  // a launch by itself is run at once again
    EXPECT_EQ(out.get()[7], 316);
    dev.ops->forget(ctx, r);
  });
}

TEST(Recording, StepsOfAnEpochDifferByTheirLateValues) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int64_t> out(dev, ctx, 5, -1);
    const auto recorded = [&](int64_t updates) {
      return dev.ops->record(ctx, [&] {
        launch(append_late, 1, 32, 0, ctx, out, ctx.late);
        dev.ops->advance_late(ctx, 10, updates);
      });
    };
    void *const one = recorded(1), *const two = recorded(2);
    dev.ops->set_late(ctx, Late{0, 0, 0, 7});
    for (void* r : {one, two, two, one}) dev.ops->replay(ctx, r);
    EXPECT_EQ(out.get(), (std::vector<int64_t>{7000, 8010, 10020, 12030, -1}));
    dev.ops->forget(ctx, one), dev.ops->forget(ctx, two);
  });
}

TEST(Recording, TwoCanBeKept) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> out(dev, ctx, 32);
    void* one = dev.ops->record(ctx, [&] { launch(add_to, 1, 32, 0, ctx, out, 1); });
    void* ten = dev.ops->record(ctx, [&] { launch(add_to, 1, 32, 0, ctx, out, 10); });
    for (void* r : {one, ten, one, one}) dev.ops->replay(ctx, r);
    EXPECT_EQ(out.get()[3], 13);
    dev.ops->forget(ctx, one);
    dev.ops->replay(ctx, ten);
    EXPECT_EQ(out.get()[3], 23);
    dev.ops->forget(ctx, ten);
  });
}

TEST(Recording, ScratchMayNotGrowAndAFailureLeavesTheDeviceUsable) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> out(dev, ctx, 32);
    void* kept = ctx.scratch(0, 4096);
    EXPECT_THROW(dev.ops->record(ctx,
                                 [&] {
                                   EXPECT_EQ(ctx.scratch(0, 4096), kept) << "what is there may be used";
                                   launch(add_to, 1, 32, 0, ctx, out, 1);
                                   ctx.scratch(1, 64);
                                 }),
                 std::runtime_error);
    EXPECT_THROW(dev.ops->record(ctx, [] { throw std::logic_error("a shape"); }), std::logic_error);
    EXPECT_EQ(out.get()[0], 0);
    EXPECT_NE(ctx.scratch(1, 64), nullptr);
    launch(add_to, 1, 32, 0, ctx, out, 2);
    EXPECT_EQ(out.get()[0], 2);
    void* r = dev.ops->record(ctx, [&] {
      ctx.scratch(1, 64);
      launch(add_to, 1, 32, 0, ctx, out, 3);
    });
    dev.ops->replay(ctx, r);
    EXPECT_EQ(out.get()[0], 5);
    dev.ops->forget(ctx, r);
  });
}

TEST(Recording, StaysValidWhenScratchGrowsAfterIt) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int> out(dev, ctx, 32);
    ctx.scratch(0, 128);
    void* r = dev.ops->record(ctx, [&] {
      library::fill(ctx, ctx.scratch(0, 128), 0, 128);
      launch(add_to, 1, 32, 0, ctx, static_cast<int*>(ctx.scratch(0, 128)), 3);
      library::copy(ctx, out, ctx.scratch(0, 128), 128);
    });
    ctx.scratch(0, 1 << 20);
    dev.ops->replay(ctx, r);
    EXPECT_EQ(out.get(), std::vector<int>(32, 3));
    dev.ops->forget(ctx, r);
  });
}

TEST(Recording, LibraryCallsTakeScratchBefore) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Array<int32_t> sums(dev, ctx, 4096);
    EXPECT_THROW(dev.ops->record(ctx, [&] { library::exclusive_sum(ctx, sums, sums, 4096); }), std::runtime_error);
    library::exclusive_sum(ctx, sums, sums, 4096);
    void* r = dev.ops->record(ctx, [&] { library::exclusive_sum(ctx, sums, sums, 4096); });
    dev.ops->replay(ctx, r);
    dev.ops->forget(ctx, r);
  });
}

// --- Library calls ---------------------------------------------------------------------------------------------------

TEST(Library, SortsAreStableAndHeedTheirBits) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Draw g;
    const auto check = [&]<class Key>(Key, int64_t n, int bits, uint32_t distinct) {
      std::vector<Key> keys;
      std::vector<int32_t> values;
      for (int64_t k = 0; k < n; ++k)
        keys.push_back(Key(below(g.bits(), distinct)) | (Key(g.bits() % 4) << (sizeof(Key) * 8 - 2))),
            values.push_back(int32_t(k));
      std::vector<int32_t> want = values;
      const Key mask = bits == int(sizeof(Key)) * 8 ? ~Key(0) : Key((Key(1) << bits) - 1);
      std::stable_sort(want.begin(), want.end(),
                       [&](int32_t a, int32_t b) { return (keys[size_t(a)] & mask) < (keys[size_t(b)] & mask); });
      Array<Key> in(dev, ctx, keys), out(dev, ctx, size_t(n)), alone(dev, ctx, size_t(n));
      Array<int32_t> v(dev, ctx, values), v_out(dev, ctx, size_t(n));
      library::sort_pairs(ctx, out, v_out, in, v, n, bits);
      library::sort_keys(ctx, alone, in, n, bits);
      EXPECT_EQ(v_out.get(), want) << n << " keys, " << bits << " bits";
      std::vector<Key> sorted;
      for (const int32_t k : want) sorted.push_back(keys[size_t(k)]);
      EXPECT_EQ(out.get(), sorted);
      EXPECT_EQ(alone.get(), sorted);
      EXPECT_EQ(in.get(), keys) << "the input is kept";
    };
    for (const int64_t n : {int64_t(0), int64_t(1), int64_t(1000)}) {
      check(uint32_t(0), n, 32, 50), check(uint32_t(0), n, 20, 50), check(uint32_t(0), n, 4, 1000);
      check(uint64_t(0), n, 64, 50), check(uint64_t(0), n, 40, 50), check(uint64_t(0), n, 33, 1000);
    }
  });
}

TEST(Library, SegmentsAreSortedEachForItself) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    const std::vector<uint32_t> keys{3, 1, 2, 0xffffffffu, 9, 9, 7, 8, 0};
    const std::vector<int32_t> values{0, 1, 2, 3, 4, 5, 6, 7, 8};
    Array<uint32_t> from(dev, ctx, keys), to(dev, ctx, keys.size());
    Array<int32_t> v(dev, ctx, values), w(dev, ctx, values.size());
    library::sort_segments(ctx, to, w, from, v, 3, 3);
    EXPECT_EQ(to.get(), (std::vector<uint32_t>{1, 2, 3, 9, 9, 0xffffffffu, 0, 7, 8}));
    EXPECT_EQ(w.get(), (std::vector<int32_t>{1, 2, 0, 4, 5, 3, 8, 6, 7}));
    library::sort_segments(ctx, to, w, from, v, 0, 3), library::sort_segments(ctx, to, w, from, v, 3, 0);
  });
}

TEST(Library, ScansMayWorkInPlace) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Draw g;
    for (const int64_t n : {int64_t(0), int64_t(1), int64_t(1000)}) {
      std::vector<int32_t> in, before, upto;
      int32_t sum = 0;
      for (int64_t k = 0; k < n; ++k) {
        in.push_back(g.below(9) - 3);
        before.push_back(sum), sum += in.back(), upto.push_back(sum);
      }
      Array<int32_t> from(dev, ctx, in), out(dev, ctx, size_t(n)), here(dev, ctx, in), there(dev, ctx, in);
      Array<int64_t> wide(dev, ctx, size_t(n));
      library::exclusive_sum(ctx, out, from, n);
      EXPECT_EQ(out.get(), before);
      library::inclusive_sum(ctx, out, from, n);
      EXPECT_EQ(out.get(), upto);
      library::exclusive_sum(ctx, wide, from, n);
      EXPECT_EQ(wide.get(), std::vector<int64_t>(before.begin(), before.end()));
      library::exclusive_sum(ctx, here, here, n);
      EXPECT_EQ(here.get(), before);
      library::inclusive_sum(ctx, there, there, n);
      EXPECT_EQ(there.get(), upto);
    }
    Array<int32_t> large(dev, ctx, std::vector<int32_t>{2000000000, 2000000000, 1});
    Array<int64_t> wide(dev, ctx, 3);
    library::exclusive_sum(ctx, wide, large, 3);
    EXPECT_EQ(wide.get(), (std::vector<int64_t>{0, 2000000000, 4000000000}));
  });
}

TEST(Library, SelectFillCopy) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Draw g;
    for (const int64_t n : {int64_t(0), int64_t(1), int64_t(777)})
      for (const int kind : {0, 1, 2}) {
        std::vector<uint8_t> flag;
        std::vector<int32_t> want;
        for (int64_t k = 0; k < n; ++k) {
          flag.push_back(uint8_t(kind == 0 ? 0 : kind == 1 ? 255 : g.below(3)));
          if (flag.back()) want.push_back(int32_t(k));
        }
        Array<uint8_t> from(dev, ctx, flag);
        Array<int32_t> out(dev, ctx, size_t(n) + 1, -1);
        Array<int64_t> count(dev, ctx, 1, -1);
        library::select_flagged(ctx, out, count, from, n);
        EXPECT_EQ(count.get()[0], int64_t(want.size()));
        auto got = out.get();
        if (n) { EXPECT_EQ(got.back(), -1); }
        got.resize(want.size());
        EXPECT_EQ(got, want);
      }
    Array<int32_t> a(dev, ctx, 10, 3), b(dev, ctx, 10, 4);
    library::fill(ctx, a + 2, 0xff, 5 * sizeof(int32_t));
    EXPECT_EQ(a.get(), (std::vector<int32_t>{3, 3, -1, -1, -1, -1, -1, 3, 3, 3}));
    library::copy(ctx, b + 1, a, 4 * sizeof(int32_t));
    library::copy(ctx, b, a, 0), library::fill(ctx, b, 0, 0);
    EXPECT_EQ(b.get(), (std::vector<int32_t>{4, 3, 3, -1, -1, 4, 4, 4, 4, 4}));
  });
}

TEST(Library, StridedProducts) {
  on_every_gpu([&](const Device& dev, Ctx& ctx) {
    Draw g;
    for (const bool trans_a : {false, true})
      for (const bool trans_b : {false, true})
        for (const bool accumulate : {false, true})
          for (const bool share_b : {false, true})
            for (const int64_t k : {int64_t(0), int64_t(1), int64_t(19)}) {
              const int64_t m = 5, n = 7, count = 3, a_stride = m * k + 3, b_stride = share_b ? 0 : k * n + 2,
                            c_stride = m * n + 4;
              const auto a = g.floats(a_stride * count), b = g.floats(k * n + 2 + 2 * b_stride),
                         c = g.floats(c_stride * count);
              Array<float> on_a(dev, ctx, a), on_b(dev, ctx, b), on_c(dev, ctx, c);
              const CMat view_a{on_a, trans_a ? k : m, trans_a ? m : k}, view_b{on_b, trans_b ? n : k, trans_b ? k : n};
              library::gemm_strided(ctx, Mat{on_c, m, n}, c_stride, view_a, trans_a, a_stride, view_b, trans_b,
                                    b_stride, count, accumulate);
              const auto got = on_c.get();
              std::vector<test::Ref> want;
              for (int64_t e = 0; e < c_stride * count; ++e) {
                const int64_t s = e / c_stride, i = e % c_stride / n, j = e % c_stride % n;
                test::Ref r;
                if (e % c_stride >= m * n || accumulate) r.add(c[size_t(e)]);
                for (int64_t l = 0; l < k && e % c_stride < m * n; ++l)
                  r.add(double(a[size_t(s * a_stride + (trans_a ? l * m + i : i * k + l))]) *
                        b[size_t(s * b_stride + (trans_b ? j * k + l : l * n + j))]);
                want.push_back(r);
              }
              EXPECT_TRUE(test::close(got, want, 1e-6)) << trans_a << trans_b << accumulate << share_b << " k " << k;
            }
    Array<float> p(dev, ctx, 64);
    EXPECT_THROW(library::gemm(ctx, Mat{p, 2, 3}, CMat{p, 2, 4}, false, CMat{p, 3, 4}, false, false), std::logic_error);
    library::gemm(ctx, Mat{p, 0, 3}, CMat{p, 0, 4}, false, CMat{p, 4, 3}, false, false);
  });
}

}  // namespace
}  // namespace ccdrec::cuda
