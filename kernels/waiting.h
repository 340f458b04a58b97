// How threads that wait for each other pass the time: at the end of a parallel region, and until the next one begins.
//
// Spinning is the quickest way to go on as long as the others are running. Beside other programs they are not: a thread
// that spins then keeps the others from the core that they need. GCC's OpenMP spins 300,000 times by default, some
// milliseconds, at every region; beside two busy programs a training then takes up to ten times as long
// (bench/results/busy.md).
//
// The program's own default: threads spin kBriefly times and sleep. While nothing takes their cores they spin kLong
// times, because then nobody else gains by their sleep, and waking takes time. What tells is how often the kernel takes
// a core from this process (involuntary context switches). OMP_WAIT_POLICY and GOMP_SPINCOUNT in the environment win,
// and then nothing is watched.
#pragma once
#include <cstdint>

namespace ccdrec {

constexpr int64_t kBriefly = 500;  // 8 to 25 us: more than lies between most regions of a step
constexpr int64_t kLong = 20'000;  // 0.3 to 1 ms: more than lies between nearly all

struct Waiting {
  // "OMP_WAIT_POLICY" or "GOMP_SPINCOUNT", of the environment; "" where it is the program's default
  const char* set_by;
  // of a thread before it sleeps, beside other programs; -1: this OpenMP library does not tell, and does as it likes
  int64_t spins;
};
Waiting waiting();

}  // namespace ccdrec
