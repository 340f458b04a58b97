// What the CUDA operations need of the machine: memory, recordings, ranges. Once in toolkit/runtime.cu for a GPU, once
// in tests/simt/runtime.cpp.
#pragma once
#include "kernels/ops.h"

namespace ccdrec::cuda {
// every entry of the table that is no operation of the catalogue, but for set_late and advance_late
void fill_runtime(Ops&);
}  // namespace ccdrec::cuda
