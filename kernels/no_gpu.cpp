// Linked where no CUDA operations are built.
#include <stdexcept>

#include "kernels/ops.h"

#ifndef CCDREC_CUDA_WHY
#define CCDREC_CUDA_WHY "the build does not say why"
#endif

namespace ccdrec {

GpuInfo gpu_info() {
  GpuInfo g;
  g.why = "this build has no CUDA operations (" CCDREC_CUDA_WHY ")";
  return g;
}
const Ops* gpu_ops() { return nullptr; }
void open_gpu(Ctx&, const char*) { throw std::runtime_error(gpu_info().why); }

}  // namespace ccdrec
