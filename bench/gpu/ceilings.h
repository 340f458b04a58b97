// What this GPU allows, measured: the limits beside which bench_gpu puts its numbers.
#pragma once
#include "bench/gpu/clock.h"
#include "host/device.h"

namespace ccdrec::bench {

// acc[w] (rows/32, d) = sum of 32 random rows of the table each: reads of 4d-byte rows at random, next to no writes.
void gather_random_rows(Ctx&, Mat acc, CMat table, const int32_t* ids);

struct GpuCeilings {
  double copy_gbs = 0;       // device to device, bytes read + written
  double gemm_tflops = 0;    // library::gemm, 4096 x 4096 x 4096
  double skinny_tflops = 0;  // the product the sampler replaces: 2048 x 64 x 100,000, written out
};
GpuCeilings measure_gpu(Device&, GpuClock&, double scale);

}  // namespace ccdrec::bench
