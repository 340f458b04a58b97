#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"

namespace ccdrec {
namespace cuda {
namespace {

__global__ void late_advance(Late* late, int64_t batch, int64_t updates) {
  if (threadIdx.x) return;
  late->step += 1, late->first += batch, late->t += updates;
}

// The values travel as the kernel's argument: no copy that the host would have to wait for.
__global__ void late_set(Late* late, Late values) {
  if (threadIdx.x) return;
  *late = values;
}

void set_late(Ctx& ctx, const Late& values) { launch(late_set, 1, kWarp, 0, ctx, const_cast<Late*>(ctx.late), values); }
void advance_late(Ctx& ctx, int64_t batch, int64_t updates) {
  launch(late_advance, 1, kWarp, 0, ctx, const_cast<Late*>(ctx.late), batch, updates);
}

}  // namespace
}  // namespace cuda

const Ops* gpu_ops() {
  static const Ops table = [] {
    Ops t;
#define CCDREC_FILL(name) t.name = &cuda::name;
    CCDREC_OPS(CCDREC_FILL)
    CCDREC_SCRATCH(CCDREC_FILL)
#undef CCDREC_FILL
    t.set_late = cuda::set_late, t.advance_late = cuda::advance_late;
    cuda::fill_runtime(t);
    return t;
  }();
  return &table;
}

}  // namespace ccdrec
