#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/ctx.h"
#include "kernels/waiting.h"

// Of libgomp, linked statically (cmake/flags.cmake): read by a thread whenever it begins to wait. Other OpenMP libraries do not have it.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned long long gomp_spin_count_var;

namespace ccdrec {
namespace {

const char* set_by = "";

// libgomp reads the environment in a constructor of its own, which has no priority and so comes after this one.
__attribute__((constructor(101))) void choose_waiting() {
  for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}) {  // of both, GOMP_SPINCOUNT decides: libgomp has it so
    const char* const value = std::getenv(name);
    if (value && *value) set_by = name;
  }
  if (!*set_by) setenv("GOMP_SPINCOUNT", std::to_string(kBriefly).c_str(), 1);
}

// Looks at the process every 50 ms, at a microsecond each time. One switch in a while is a daemon's; two in a row of 50 ms are a program that computes.
class Watch {
 public:
  void look() {
    if (*set_by || !&gomp_spin_count_var || ++calls_ % 16 != 0) return;
    const Clock::time_point now = Clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    rusage used;
    getrusage(RUSAGE_SELF, &used);
    calm_ = used.ru_nivcsw - switches_ < 2 ? calm_ + 1 : 0;
    last_ = now, switches_ = used.ru_nivcsw;
    gomp_spin_count_var = calm_ >= 3 ? kLong : kBriefly;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
  int64_t calls_ = 0, calm_ = 0, switches_ = 0;
};

}  // namespace

Waiting waiting() {
  if (!&gomp_spin_count_var) return {set_by, -1};
  return {set_by, *set_by ? int64_t(std::min<uint64_t>(gomp_spin_count_var, INT64_MAX)) : kBriefly};
}

int Ctx::threads_for(double ns) const {
  thread_local Watch watch;
  watch.look();
  return ns < alone_ns ? 1 : threads;
}

}  // namespace ccdrec
