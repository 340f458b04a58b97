// What the program runs on and what it was built with: printed by `info`, by the log of every run and beside every measurement.
#pragma once
#include <cstdint>
#include <string>

namespace ccdrec {

struct Machine {
  std::string cpu;               // "AMD EPYC 7713" or "unknown"
  int cores = 1;                 // this process may use
  std::string isa;               // "avx2 fma", what the kernels can choose from at run time
  std::string os;                // "Linux 6.1.0 x86_64"
  uint64_t memory_bytes = 0;     // of the machine, or of the control group where that is less
  uint64_t available_bytes = 0;  // that can be taken now without swapping
};
Machine this_machine();
// What a control group (version 2) has taken, without the pages of files it has read: those are given up when memory is asked for.
uint64_t used_by_group(const std::string& folder);

struct Build {
  std::string version, commit, compiler, flags;
  bool openblas = false;
};
Build this_build();

std::string describe_bytes(uint64_t bytes);  // "1.25 GB", "310.2 MB": powers of ten

}  // namespace ccdrec
