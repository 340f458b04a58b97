#include "kernels/cpu/microkernel.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/cpu/tile512.h"
#include "kernels/ctx.h"

namespace ccdrec::cpu {
namespace {

// The definition of the tile. Without fma instructions std::fma is a call: slow, and right.
template <class A>
void portable(float* c, int64_t ldc, A a, const float* b, int64_t k, bool add, const Ahead&) {
  constexpr int mr = 6, nr = 16;
  float sum[mr][nr] = {};
  for (int64_t t = 0; t < k; ++t)
    for (int r = 0; r < mr; ++r)
      for (int j = 0; j < nr; ++j) sum[r][j] = std::fma(term<mr>(a, r, t), b[t * nr + j], sum[r][j]);
  for (int r = 0; r < mr; ++r)
    for (int j = 0; j < nr; ++j) c[r * ldc + j] = add ? c[r * ldc + j] + sum[r][j] : sum[r][j];
}

int64_t above_portable(int32_t* at, const float* x, int64_t n, float limit) {
  int64_t found = 0;
  for (int64_t j = 0; j < n; ++j)
    if (!(x[j] <= limit)) at[found++] = int32_t(j);
  return found;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) int64_t above_avx2(int32_t* at, const float* x, int64_t n, float limit) {
  const __m256 bound = _mm256_set1_ps(limit);
  int64_t found = 0, j = 0;
  for (; j + 32 <= n; j += 32) {  // the common case: one branch for 32 scores, nothing found
    uint32_t bits = 0;
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) bits |= uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + j + 8 * q), bound, _CMP_NLE_UQ))) << (8 * q);
    for (; bits; bits &= bits - 1) at[found++] = int32_t(j) + __builtin_ctz(bits);
  }
  for (; j < n; ++j)
    if (!(x[j] <= limit)) at[found++] = int32_t(j);
  return found;
}

// 12 accumulators, 2 registers of B, 1 of A: 15 of 16. Per term 8 loads and 12 fma; two fma a cycle are the limit. A line is asked for every other term.
template <class A>
__attribute__((target("avx2,fma"))) void avx2(float* c, int64_t ldc, A a, const float* b, int64_t k, bool add, const Ahead& ahead) {
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
  for (int64_t i = 0; i < ahead.n; ++i)
    for (int64_t l = 0; l < ahead.lines && t + 2 <= k; ++l, t += 2) add_term(t), add_term(t + 1), __builtin_prefetch(ahead.row[i] + kLine * l);
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
  for (int64_t i = 0; i < ahead.n; ++i)
    for (int64_t l = 0; l < ahead.lines && t + 2 <= k; ++l, t += 2) {
      tile.add_term(a, b, t), tile.add_term(a, b, t + 1);
      __builtin_prefetch(ahead.row[i] + kLine * l);
    }
  for (; t < k; ++t) tile.add_term(a, b, t);
  tile.store(c, ldc, add);
}
#endif

using Rows = const float* const*;
template <void (*kernel)(float*, int64_t, Rows, const float*, int64_t, bool, const Ahead&)>
void rows_alone(float* c, int64_t ldc, Rows a, const float* b, int64_t k, bool add) {
  kernel(c, ldc, a, b, k, add, {});
}
const MicroKernel kPortable = {"portable", 6, 16, rows_alone<portable<Rows>>, portable<const float*>, above_portable};
#if defined(__x86_64__)
const MicroKernel kAvx2 = {"avx2", 6, 16, rows_alone<avx2<Rows>>, avx2<const float*>, above_avx2};
const MicroKernel kAvx512 = {"avx512", 12, 32, rows_alone<avx512<Rows>>, avx512<const float*>, above_avx2};
#endif

const MicroKernel& default_kernel() {
  if (const char* wanted = std::getenv("CCDREC_ISA"); wanted && *wanted) {
    if (const MicroKernel* k = find_kernel(wanted)) return *k;
    throw std::invalid_argument(std::string("CCDREC_ISA=") + wanted + ": expected portable, avx2 or avx512, and a processor that has it");
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
  if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2 : nullptr;
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
static void pack_width(float* panel, const float* p, int64_t ld, const int32_t* idx, int64_t k, int64_t first, int64_t count) {
  const int64_t whole = count / W, rest = count % W;
  for (int64_t t = 0; t < k; ++t) {
    const float* row = p + (idx ? int64_t(idx[t]) : t) * ld + first;
    float* out = panel + t * W;
    for (int64_t q = 0; q < whole; ++q) std::memcpy(out + q * W * k, row + q * W, W * sizeof(float));
    if (rest == 0) continue;
    for (int64_t c = 0; c < W; ++c) out[whole * W * k + c] = c < rest ? row[whole * W + c] : 0.0f;
  }
}

void pack_across(float* panel, int64_t width, const float* p, int64_t ld, const int32_t* idx, int64_t k, int64_t first, int64_t count) {
  switch (width) {
    case 6:
      return pack_width<6>(panel, p, ld, idx, k, first, count);
    case 12:
      return pack_width<12>(panel, p, ld, idx, k, first, count);
    case 16:
      return pack_width<16>(panel, p, ld, idx, k, first, count);
    case 32:
      return pack_width<32>(panel, p, ld, idx, k, first, count);
    default:
      check_that(false, "a panel as wide as a register tile", __FILE__, __LINE__);
  }
}

// Row by row: reading the rows side by side would put them all, a power of two apart, on the same few cache lines.
void pack_along(float* panel, int64_t width, const float* p, int64_t ld, int64_t k, int64_t count, const float* mean) {
  for (int64_t c = 0; c < width; ++c) {
    const float* row = p + c * ld;
    if (c >= count) {
      for (int64_t t = 0; t < k; ++t) panel[t * width + c] = 0;
    } else if (mean) {
      for (int64_t t = 0; t < k; ++t) panel[t * width + c] = row[t] - mean[t];
    } else {
      for (int64_t t = 0; t < k; ++t) panel[t * width + c] = row[t];
    }
  }
}

}  // namespace ccdrec::cpu
