#include "bench/ceilings.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/random_rows.h"
#include "kernels/cpu/fast/root16.h"
#include "kernels/gemm.h"

namespace ccdrec::bench {
namespace {

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
// A ceiling is the best of several runs: whatever slows a run down is not the machine's limit.
double best_of(int runs, const std::function<void()>& f) {
  double best = 1e30;
  for (int i = 0; i < runs; ++i) best = std::min(best, seconds_of(f));
  return best;
}

// Seconds of a loop run by every thread at once.
double on_all(int threads, int64_t rounds, float (*loop)(int64_t)) {
  volatile float sink = 0;
  return best_of(5, [&] {
#pragma omp parallel num_threads(threads)
    {
      const float total = loop(rounds);
#pragma omp critical
      sink = sink + total;
    }
  });
}

double triad(int threads) {
  const int64_t n = int64_t(1) << 24;  // 64 MiB each, three of them
  std::unique_ptr<float[]> a(new float[size_t(n)]), b(new float[size_t(n)]), c(new float[size_t(n)]);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; ++i) a[i] = 0, b[i] = 1, c[i] = 2;  // first touch by the thread that will use it
  const double s = best_of(10, [&] {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; ++i) a[i] = b[i] + 3.0f * c[i];
  });
  return 16.0 * double(n) / s / 1e9;
}

// Twelve independent chains of vectors: enough to hide the latency of a fused multiply-add, few enough for sixteen
// registers.
// This file is compiled with -ffp-contract=fast (cmake/bench.cmake), so that a * x + y is one instruction.
constexpr int kChains = 12;
#define CCDREC_FMA_LOOP(name, attribute, width)                         \
  attribute float name(int64_t rounds) {                                \
    typedef float V __attribute__((vector_size(width)));                \
    V acc[kChains], x = V{} + 0.999f, y = V{} + 1e-6f;                  \
    for (int j = 0; j < kChains; ++j) acc[j] = V{} + float(j);          \
    for (int64_t r = 0; r < rounds; ++r) {                              \
      for (int j = 0; j < kChains; ++j) acc[j] = acc[j] * x + y;        \
    }                                                                   \
    V sum = acc[0];                                                     \
    for (int j = 1; j < kChains; ++j) sum += acc[j];                    \
    float total = 0;                                                    \
    for (size_t j = 0; j < width / sizeof(float); ++j) total += sum[j]; \
    return total;                                                       \
  }
#if defined(__x86_64__)
CCDREC_FMA_LOOP(fma_avx512, __attribute__((target("avx512f,fma"))), 64)
CCDREC_FMA_LOOP(fma_avx2, __attribute__((target("avx2,fma"))), 32)
#endif
CCDREC_FMA_LOOP(fma_any, , 16)
#undef CCDREC_FMA_LOOP

double fma_rate(int threads) {
  float (*loop)(int64_t) = fma_any;
  double width = 4;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    loop = fma_avx512, width = 16;
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    loop = fma_avx2, width = 8;
  }
#endif
  const int64_t rounds = 10'000'000;
  const double s = on_all(threads, rounds, loop);
  return 2.0 * kChains * width * double(rounds) * threads / s / 1e9;
}

// x = 1 / (sqrt(x) + 2) over 192 values, each its own chain.
#define CCDREC_ROOT_LOOP(name, attribute)                  \
  attribute float name(int64_t rounds) {                   \
    alignas(64) float x[192];                              \
    for (float& v : x) v = 0.5f;                           \
    for (int64_t r = 0; r < rounds; ++r) {                 \
      for (float& v : x) v = 1.0f / (std::sqrt(v) + 2.0f); \
    }                                                      \
    float total = 0;                                       \
    for (float v : x) total += v;                          \
    return total;                                          \
  }
#if defined(__x86_64__)
CCDREC_ROOT_LOOP(root_avx512, __attribute__((target("avx512f,fma"))))
CCDREC_ROOT_LOOP(root_avx2, __attribute__((target("avx2,fma"))))
#endif
CCDREC_ROOT_LOOP(root_any, )
#undef CCDREC_ROOT_LOOP

#if defined(__x86_64__)
template <int kByUnit>
AVX512 float root_by_fma(int64_t rounds) {  // the same with the square root of root16.h, but for kByUnit of each four
  __m512 x[12];
  for (__m512& v : x) v = _mm512_set1_ps(0.5f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) {
      const __m512 root = j % 4 < kByUnit ? cpu::sqrt16(x[j]) : cpu::root16(x[j]);
      x[j] = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(root, _mm512_set1_ps(2.0f)));
    }
  }
  float total = 0;
  for (const __m512& v : x) {
    float lane[16];
    _mm512_storeu_ps(lane, v);
    for (const float l : lane) total += l;
  }
  return total;
}
#endif

double root_rate(int threads) {
  float (*loop)(int64_t) = root_any;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    loop = root_avx512;
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    loop = root_avx2;
  }
#endif
  const int64_t rounds = 1'000'000;
  double s = on_all(threads, rounds, loop);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f"))
    s = std::min({s, on_all(threads, rounds, root_by_fma<0>), on_all(threads, rounds, root_by_fma<2>)});
#endif
  return 192.0 * double(rounds) * threads / s / 1e9;
}

double gemm_rate(int threads, int64_t m, int64_t k, int64_t n) {
  Ctx ctx(threads);
  std::vector<float> a(size_t(m * k), 0.5f), b(size_t(k * n), 0.25f), c(size_t(m * n), 0.0f);
  const auto run = [&] { cpu::gemm(ctx, {c.data(), m, n}, {a.data(), m, k}, false, {b.data(), k, n}, false, false); };
  run();  // takes the scratch memory
  return 2.0 * double(m) * double(n) * double(k) / best_of(5, run) / 1e9;
}

// Waits until `turn` is `mine`. Between cores that takes a few of these rounds; where both threads have one processor
// the other must be let on to it.
void wait_for(const std::atomic<int>& turn, int mine) {
  for (int spins = 1; turn.load(std::memory_order_acquire) != mine; ++spins) {
    if (spins % 64 == 0) std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

std::string field(const char* file, const std::string& key) {  // "key : value" lines of /proc
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
    return at == std::string::npos ? "" : line.substr(at);
  }
  return "";
}

}  // namespace

Ceilings measure_ceilings(int threads) {
  Ceilings c;
  c.memory_gbs = triad(threads);
  c.root_grate = root_rate(threads);
  c.fma_gflops = fma_rate(threads);
  c.gemm_gflops = gemm_rate(threads, 1024, 1024, 1024);
  c.gemm_proj_gflops = gemm_rate(threads, 1024, 4096, 64);
  return c;
}

double random_row_ns(int threads, int64_t rows) {
  Ctx ctx(threads);
  const RandomRows r(ctx, rows);
  volatile float sink = r.pass();
  return best_of(5, [&] { sink = r.pass(); }) * threads / double(RandomRows::kDraws) * 1e9;
}

double core_to_core_ns(int threads) {
  if (threads < 2 || omp_get_num_procs() < 2) return 0;
  // many, as two threads that have just woken may share a processor for some milliseconds
  const int repetitions = 40, exchanges = 200;
  struct alignas(128) {  // two lines, and nothing else in them: processors fetch them in pairs
    std::atomic<int> turn = 0;
  } line;
  double best = 0;
#pragma omp parallel num_threads( \
    threads)  // the team of every operation: a smaller one would end threads that the next has to start again
  if (const int me = omp_get_thread_num(); me < 2 && omp_get_num_threads() > 1) {
    int mine = me;
    for (int r = 0; r < repetitions; ++r) {
      const double s = seconds_of([&] {
        for (int i = 0; i < exchanges; ++i, mine += 2) {
          wait_for(line.turn, mine);
          line.turn.store(mine + 1, std::memory_order_release);
        }
      });
      if (me == 0) best = r == 0 ? s : std::min(best, s);  // the first has the start of the team in it
    }
  }
  return best / (2 * exchanges) * 1e9;
}

double load_average() {
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  return load;
}

// the file counts kibibytes
double peak_memory_mb() { return std::strtod(field("/proc/self/status", "VmHWM").c_str(), nullptr) * 1024e-6; }

}  // namespace ccdrec::bench
