// What this machine allows, measured in seconds of running: the limits beside which every bench puts its numbers.
#pragma once
#include <cstdint>

namespace ccdrec::bench {

struct Ceilings {
  // triad a = b + s c over large arrays, all threads; 16 bytes an element, as the line of a is read before it is
  // written
  double memory_gbs = 0;
  double fma_gflops = 0;  // fused multiply-adds in registers, all threads; 2 flop each, widest vectors the machine has
  // 1e9 a second: a square root and a division, correctly rounded, all threads, by instructions or by fma, whichever is
  // faster
  double root_grate = 0;
  double gemm_gflops = 0;       // cpu::gemm, 1024 x 1024 x 1024
  double gemm_proj_gflops = 0;  // cpu::gemm in the shape of a modality projection: 1024 x 4096 x 64
};
Ceilings measure_ceilings(int threads);

// Nanoseconds that a thread takes, all threads at work, for a row of 256 bytes at a random address of a table of so
// many rows (random_rows.h).
double random_row_ns(int threads, int64_t rows);

// Nanoseconds until a cache line that one thread of a team has written is read by another, one way; the least of some
// repetitions, a millisecond or two in all. A virtual machine's processors share an L3 at one time and lie in two at
// another: 35 and 165 ns on a Zen 4, on which an epoch of many short steps takes from half as long again to more than
// twice as long. Some thousand: two threads took turns on one processor, the other being in use. 0 = not measured: one
// thread, or one processor for all of them.
double core_to_core_ns(int threads);

double load_average();    // of the last minute: others at work make every number worse
double peak_memory_mb();  // highest resident set of this process so far (VmHWM), in 10^6 bytes

}  // namespace ccdrec::bench
