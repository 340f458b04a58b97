// What this GPU allows, measured: the limits beside which bench_gpu puts its numbers.
#pragma once
#include "bench/gpu/clock.h"
#include "bench/gpu/report.h"
#include "host/base/device.h"

namespace ccdrec::bench {

// acc[w] (rows/32, d) = sum of 32 random rows of the table each: reads of 4d-byte rows at random, next to no writes.
void gather_random_rows(Ctx&, Mat acc, CMat table, const int32_t* ids);

GpuCeilings measure_gpu(Device&, GpuClock&, double scale);

}  // namespace ccdrec::bench
