#include "kernels/cpu/fast/microkernel.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/tile512.h"
#include "kernels/ctx.h"

namespace ccdrec::cpu {
namespace {

// The definition of the tile. Without fma instructions std::fma is a call: slow, and right.
template <class A>
void portable(float* c, int64_t ldc, A a, const float* b, int64_t k, bool add, const Ahead&) {
  constexpr int mr = 6, nr = 16;
  float sum[mr][nr] = {};
  for (int64_t t = 0; t < k; ++t)
    for (int r = 0; r < mr; ++r) {
      const float a_rt = term<mr>(a, r, t);
      for (int j = 0; j < nr; ++j) sum[r][j] = std::fma(a_rt, b[t * nr + j], sum[r][j]);
    }
  for (int r = 0; r < mr; ++r)
    for (int j = 0; j < nr; ++j) c[r * ldc + j] = add ? c[r * ldc + j] + sum[r][j] : sum[r][j];
}

int64_t above_portable(int32_t* at, const float* x, int64_t n, float limit) {
  int64_t found = 0;
  for (int64_t j = 0; j < n; ++j)
    if (!(x[j] <= limit)) at[found++] = int32_t(j);
  return found;
}

int64_t between_portable(int32_t* at, const int32_t* x, int64_t n, int32_t lo, int32_t hi) {
  int64_t found = 0;
  for (int64_t j = 0; j < n; ++j)
    if (x[j] > lo && x[j] <= hi) at[found++] = int32_t(j);
  return found;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) int64_t between_avx2(int32_t* at, const int32_t* x, int64_t n, int32_t lo, int32_t hi) {
  const __m256i low = _mm256_set1_epi32(lo), high = _mm256_set1_epi32(hi);
  int64_t found = 0, j = 0;
  for (; j + 32 <= n; j += 32) {
    uint32_t bits = 0;
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + j + 8 * q));
      const __m256i in = _mm256_andnot_si256(_mm256_cmpgt_epi32(v, high), _mm256_cmpgt_epi32(v, low));
      bits |= uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(in))) << (8 * q);
    }
    for (; bits; bits &= bits - 1) at[found++] = int32_t(j) + __builtin_ctz(bits);
  }
  for (; j < n; ++j)
    if (x[j] > lo && x[j] <= hi) at[found++] = int32_t(j);
  return found;
}

__attribute__((target("avx2"))) int64_t above_avx2(int32_t* at, const float* x, int64_t n, float limit) {
  const __m256 bound = _mm256_set1_ps(limit);
  int64_t found = 0, j = 0;
  for (; j + 32 <= n; j += 32) {  // the common case: one branch for 32 scores, nothing found
    uint32_t bits = 0;
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q)
      bits |= uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + j + 8 * q), bound, _CMP_NLE_UQ)))
              << (8 * q);
    for (; bits; bits &= bits - 1) at[found++] = int32_t(j) + __builtin_ctz(bits);
  }
  for (; j < n; ++j)
    if (!(x[j] <= limit)) at[found++] = int32_t(j);
  return found;
}

// Into L2: rows of features lie pages apart, and most of their lines fall into few sets of L1.
inline __attribute__((always_inline)) void ask(const Ahead& ahead, int64_t i) {
  const float* const from = ahead.row[i] + ahead.first;
  for (int64_t l = 0; l < kLinesAhead; ++l) __builtin_prefetch(from + kLine * l, 0, 2);
}

// 12 accumulators, 2 registers of B, 1 of A: 15 of 16. Per term 8 loads and 12 fma; two fma a cycle are the limit. A
// row is asked for every other term.
template <class A>
__attribute__((target("avx2,fma"))) void avx2(float* c, int64_t ldc, A a, const float* b, int64_t k, bool add,
                                              const Ahead& ahead) {
  constexpr int mr = 6, nr = 16;
  __m256 sum[mr][2];
#pragma GCC unroll 6
  for (int r = 0; r < mr; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  const auto add_term = [&](int64_t t) __attribute__((always_inline, target("avx2,fma"))) {
    const __m256 b0 = _mm256_loadu_ps(b + t * nr), b1 = _mm256_loadu_ps(b + t * nr + 8);
#pragma GCC unroll 6
    for (int r = 0; r < mr; ++r) {
      const __m256 a_r = _mm256_set1_ps(term<mr>(a, r, t));
      sum[r][0] = _mm256_fmadd_ps(a_r, b0, sum[r][0]);
      sum[r][1] = _mm256_fmadd_ps(a_r, b1, sum[r][1]);
    }
  };
  int64_t t = 0;
  for (int64_t i = 0; i < ahead.n && t + 2 <= k; ++i, t += 2) add_term(t), ask(ahead, i), add_term(t + 1);
#pragma GCC unroll 4
  for (; t < k; ++t) add_term(t);
#pragma GCC unroll 6
  for (int r = 0; r < mr; ++r) {
    float* c_r = c + r * ldc;
    if (add) {
      sum[r][0] = _mm256_add_ps(_mm256_loadu_ps(c_r), sum[r][0]);
      sum[r][1] = _mm256_add_ps(_mm256_loadu_ps(c_r + 8), sum[r][1]);
    }
    _mm256_storeu_ps(c_r, sum[r][0]);
    _mm256_storeu_ps(c_r + 8, sum[r][1]);
  }
}

template <class A>
AVX512 void avx512(float* c, int64_t ldc, A a, const float* b, int64_t k, bool add, const Ahead& ahead) {
  Tile512 tile;
  int64_t t = 0;
  for (int64_t i = 0; i < ahead.n && t + 2 <= k; ++i, t += 2)
    tile.add_term(a, b, t), ask(ahead, i), tile.add_term(a, b, t + 1);
  for (; t < k; ++t) tile.add_term(a, b, t);
  tile.store(c, ldc, add);
}
#endif

using Rows = const float* const*;
template <void (*kernel)(float*, int64_t, Rows, const float*, int64_t, bool, const Ahead&)>
void in_place(float* c, int64_t ldc, Rows a, const float* b, int64_t k, bool add) {
  kernel(c, ldc, a, b, k, add, {});
}
template <void (*kernel)(float*, int64_t, const float*, const float*, int64_t, bool, const Ahead&)>
void packed(float* c, int64_t ldc, const float* a, const float* b, int64_t k, bool add) {
  kernel(c, ldc, a, b, k, add, {});
}
template <void (*kernel)(float*, int64_t, Columns, const float*, int64_t, bool, const Ahead&)>
void across(float* c, int64_t ldc, Rows a, int64_t first, const float* b, int64_t k, bool add, const Ahead& ahead) {
  kernel(c, ldc, {a, first}, b, k, add, ahead);
}
const MicroKernel kPortable = {"portable",
                               6,
                               16,
                               in_place<portable<Rows>>,
                               packed<portable<const float*>>,
                               across<portable<Columns>>,
                               above_portable,
                               between_portable};
#if defined(__x86_64__)
const MicroKernel kAvx2 = {
    "avx2", 6, 16, in_place<avx2<Rows>>, packed<avx2<const float*>>, across<avx2<Columns>>, above_avx2, between_avx2};
const MicroKernel kAvx512 = {
    "avx512",   12,          32, in_place<avx512<Rows>>, packed<avx512<const float*>>, across<avx512<Columns>>,
    above_avx2, between_avx2};
#endif

const MicroKernel& default_kernel() {
  if (const char* wanted = std::getenv("CCDREC_ISA"); wanted && *wanted) {
    if (const MicroKernel* k = find_kernel(wanted)) return *k;
    throw std::invalid_argument(std::string("CCDREC_ISA=") + wanted +
                                ": expected portable, avx2 or avx512, and a processor that has it");
  }
  for (const char* name : {"avx512", "avx2"}) {
    if (const MicroKernel* k = find_kernel(name)) return *k;
  }
  return kPortable;
}

std::atomic<const MicroKernel*> g_forced{nullptr};

}  // namespace

const MicroKernel* find_kernel(const char* name) {
#if defined(__x86_64__)
  if (!std::strcmp(name, "avx512")) return __builtin_cpu_supports("avx512f") ? &kAvx512 : nullptr;
  if (!std::strcmp(name, "avx2"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2 : nullptr;
#endif
  return std::strcmp(name, "portable") ? nullptr : &kPortable;
}

const MicroKernel& micro_kernel() {
  if (const MicroKernel* forced = g_forced.load()) return *forced;
  static const MicroKernel& chosen = default_kernel();
  return chosen;
}

void set_micro_kernel(const MicroKernel* kernel) { g_forced.store(kernel); }

template <int64_t W>
static void pack_width(float* panel, const float* p, int64_t ld, int64_t k, int64_t first, int64_t count) {
  const int64_t whole = count / W, rest = count % W;
  for (int64_t t = 0; t < k; ++t) {
    const float* row = p + t * ld + first;
    float* out = panel + t * W;
    for (int64_t q = 0; q < whole; ++q) std::memcpy(out + q * W * k, row + q * W, W * sizeof(float));
    if (rest == 0) continue;
    for (int64_t c = 0; c < W; ++c) out[whole * W * k + c] = c < rest ? row[whole * W + c] : 0.0f;
  }
}

void pack_across(float* panel, int64_t width, const float* p, int64_t ld, int64_t k, int64_t first, int64_t count) {
  switch (width) {
    case 16:
      return pack_width<16>(panel, p, ld, k, first, count);
    case 32:
      return pack_width<32>(panel, p, ld, k, first, count);
    default:
      check_that(false, "a panel as wide as a register tile", __FILE__, __LINE__);
  }
}

// Neighbours at a distance of 1, 2 and 4 trade what lies beside the diagonal.
static void transpose8(V8 (&x)[8]) {
  V8 y[8], z[8];
  for (int i = 0; i < 8; i += 2)
    y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 2, 10, 4, 12, 6, 14),
    y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  for (int i : {0, 1, 4, 5})
    z[i] = __builtin_shufflevector(y[i], y[i + 2], 0, 1, 8, 9, 4, 5, 12, 13),
    z[i + 2] = __builtin_shufflevector(y[i], y[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  for (int i = 0; i < 4; ++i)
    x[i] = __builtin_shufflevector(z[i], z[i + 4], 0, 1, 2, 3, 8, 9, 10, 11),
    x[i + 4] = __builtin_shufflevector(z[i], z[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
}

// Eight rows at a time, and what is left row by row. More of them side by side, a power of two apart, would share a few
// sets of the cache.
void pack_along(float* panel, int64_t width, const float* p, int64_t ld, int64_t k, int64_t count, const float* mean) {
  int64_t c = 0;
  for (; c + 8 <= std::min(width, count); c += 8) {
    const float* const rows = p + c * ld;
    int64_t t = 0;
    for (; t + 8 <= k; t += 8) {
      const V8 mean8 = mean ? load8(mean + t) : V8{};
      V8 x[8];
      for (int64_t i = 0; i < 8; ++i) x[i] = load8(rows + i * ld + t) - mean8;
      transpose8(x);
      for (int64_t i = 0; i < 8; ++i) store8(panel + (t + i) * width + c, x[i]);
    }
    for (; t < k; ++t)
      for (int64_t i = 0; i < 8; ++i) panel[t * width + c + i] = mean ? rows[i * ld + t] - mean[t] : rows[i * ld + t];
  }
  for (; c < width; ++c)
    for (int64_t t = 0; t < k; ++t) {
      const float x = c < count ? p[c * ld + t] : 0.0f;
      panel[t * width + c] = mean && c < count ? x - mean[t] : x;
    }
}

}  // namespace ccdrec::cpu
