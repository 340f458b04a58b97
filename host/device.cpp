#include "host/device.h"

#include <omp.h>

#include <algorithm>

#include "data/error.h"

namespace ccdrec {

std::unique_ptr<Device> make_device(const std::string& device, int threads, std::string& note) {
  if (device != "auto" && device != "cpu" && device != "cuda") throw UserError("device is '" + device + "', expected auto, cpu or cuda");
  if (device == "cuda") throw UserError("device is cuda, but this build has no CUDA operations; use device auto or cpu");
  const int n = threads > 0 ? threads : std::max(1, omp_get_num_procs());
  note = "device cpu with " + std::to_string(n) + (n == 1 ? " thread" : " threads") + ", dense kernels " + cpu::gemm_isa() +
         (device == "auto" ? " (this build has no CUDA operations)" : "");
  return std::make_unique<Device>(cpu_ops(), n);
}

}  // namespace ccdrec
