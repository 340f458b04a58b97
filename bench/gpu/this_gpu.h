// The ceilings of the GPU that a run would take, for benches that are no part of bench_gpu: this_gpu_cuda.cpp, or
// this_gpu_none.cpp where CUDA was not built.
#pragma once
#include "bench/gpu/report.h"

namespace ccdrec::bench {

GpuCeilings measure_this_gpu();  // takes 2 GiB of it for a second; UserError when there is none to be had

}  // namespace ccdrec::bench
