#include "bench/gpu/ceilings.h"
#include "bench/gpu/this_gpu.h"

namespace ccdrec::bench {

GpuCeilings measure_this_gpu() {
  check_device("cuda");
  Device dev(*gpu_ops(), 1);
  open_gpu(dev.ctx, "fp32");
  GpuClock clock(dev.ctx);
  return measure_gpu(dev, clock, 1);
}

}  // namespace ccdrec::bench
