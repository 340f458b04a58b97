// What this machine allows, measured in seconds of running: the limits beside which every bench puts its numbers.
#pragma once
namespace ccdrec::bench {

struct Ceilings {
  double triad_gbs = 0;         // a = b + s c over arrays far larger than the caches, all threads; 12 bytes an element, as STREAM counts
  double fma_gflops = 0;        // fused multiply-adds in registers, all threads; 2 flop each, widest vectors the machine has
  double gemm_gflops = 0;       // cpu::gemm, 1024 x 1024 x 1024
  double gemm_proj_gflops = 0;  // cpu::gemm in the shape of a modality projection: 1024 x 4096 x 64
};
Ceilings measure_ceilings(int threads);

double load_average();    // of the last minute: others at work make every number worse
double peak_memory_mb();  // highest resident set of this process so far (VmHWM)

}  // namespace ccdrec::bench
