// Linked where no CUDA operations are built.
#include <stdexcept>

#include "kernels/ops.h"

namespace ccdrec {

GpuInfo gpu_info() {
  GpuInfo g;
  g.why = "this build has no CUDA operations";
  return g;
}
const Ops* gpu_ops() { return nullptr; }
void open_gpu(Ctx&, const char*) { throw std::runtime_error(gpu_info().why); }

}  // namespace ccdrec
