// The memory plan against what is free: before anything is taken.
#pragma once
#include <string>
#include <vector>

#include "host/training/trainer.h"

namespace ccdrec::cli {

struct FreeMemory {
  uint64_t bytes = 0;  // 0: not known
  bool gpu = false;    // the GPU's; else the machine's
};
FreeMemory free_memory(const Settings&);  // of the device that the run would take

std::vector<std::string> memory_lines(const MemoryPlan&, const FreeMemory&);  // one line per part, under what is free
// UserError for what cannot fit: one sentence, with the largest setting that would.
void refuse_if_too_large(const MemoryPlan&, const Settings&, const Dataset&, const FreeMemory&);

}  // namespace ccdrec::cli
