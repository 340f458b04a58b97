#include "bench/gpu/this_gpu.h"
#include "data/error.h"

namespace ccdrec::bench {

GpuCeilings measure_this_gpu() { throw UserError("this program was built without CUDA; build it with CUDA=1"); }

}  // namespace ccdrec::bench
