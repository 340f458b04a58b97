// A row's steps of Adam, shared by adam_rows and project_backward_step. Private to kernels/cpu.
#pragma once
#include "kernels/adam.h"

namespace ccdrec::cpu {

// Steps first .. t of `cols` elements; g (null: zero) belongs to step t, those before it have no gradient.
using StepRow = void (*)(float* p, float* m, float* v, const float* g, int64_t cols, const AdamSchedule&, int64_t first, int64_t t);
StepRow step_row_here();  // the widest form of this machine (microkernel.h); all give the same bits

}  // namespace ccdrec::cpu
