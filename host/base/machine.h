// What the program runs on and what it was built with: printed by `info`, by the log of every run and beside every
// measurement.
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
// What a control group (version 2) has taken, without the pages of files it has read: those are given up when memory is
// asked for.
uint64_t used_by_group(const std::string& folder);

// CPU operations' threads where nobody asks for a number: OMP_NUM_THREADS, or the processors this process may use (its
// affinity mask), or fewer where its control group has a quota of CPU time: with more the group would use its time up
// early and then stand still.
struct Threads {
  int n = 1;
  std::string why;  // "all cores", "the control group's quota", ..
};
Threads default_threads();
// The quota of a process's control group or of one above it, version 1 or 2, in whole processors, at least 1; 0: there
// is none. `root`: /sys/fs/cgroup, `groups`: what /proc/self/cgroup says.
int cpu_quota(const std::string& root, const std::string& groups);
std::string describe_waiting();  // "waiting threads sleep (OMP_WAIT_POLICY)": kernels/waiting.h

struct Build {
  std::string version, commit, compiler, flags;
  bool openblas = false;
};
Build this_build();

std::string describe_bytes(uint64_t bytes);  // "1.25 GB", "310.2 MB": powers of ten

}  // namespace ccdrec
