// Why a GPU cannot be used, from what the runtime answered. Private to kernels/cuda/toolkit and its test.
#pragma once
#include <cuda_runtime.h>

#include <string>

#include "kernels/ops.h"

namespace ccdrec::cuda {

// One sentence, or nothing. `g`: toolkit and driver ("none" where there is none) are known; `counted` and `devices`:
// what came of counting GPUs.
std::string why_no_gpu(const GpuInfo& g, cudaError_t counted, int devices);
// Likewise for the GPU that `g` names. `image`: what came of asking for a kernel's code; `shared`: the most bytes of
// shared memory of a block.
std::string why_not_this_gpu(const GpuInfo& g, cudaError_t image, int64_t shared);

}  // namespace ccdrec::cuda
