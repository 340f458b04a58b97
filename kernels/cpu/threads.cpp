#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/ctx.h"
#include "kernels/waiting.h"

// Of libgomp, linked statically (cmake/flags.cmake): read by a thread whenever it begins to wait. Other OpenMP
// libraries do not have it.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned long long gomp_spin_count_var;

namespace ccdrec {
namespace {

const char* set_by = "";

// libgomp reads the environment in a constructor of its own, which has no priority and so comes after this one.
__attribute__((constructor(101))) void choose_waiting() {
  // of both, GOMP_SPINCOUNT decides: libgomp has it so
  for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}) {
    const char* const value = std::getenv(name);
    if (value && *value) set_by = name;
  }
  if (!*set_by) setenv("GOMP_SPINCOUNT", std::to_string(kBriefly).c_str(), 1);
}

// Looks at the process every 50 ms, at a microsecond each time. One switch in that time may be a daemon's, two are a
// program that computes. After three calm looks threads spin long. If that lures the other programs out soon (one that
// sleeps most of the time is rarely switched), calm has to last twice as long the next time, up to five seconds.
class Watch {
 public:
  void look() {
    if (*set_by || !&gomp_spin_count_var) return;
    const Clock::time_point now = Clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    rusage used;
    getrusage(RUSAGE_SELF, &used);
    const bool disturbed = used.ru_nivcsw - switches_ >= 2;
    const int64_t spun_long = calm_ - needed_;  // looks; below 0: not yet
    if (disturbed && spun_long >= 0) needed_ = spun_long > kSoon ? kCalm : std::min(2 * needed_, kMost);
    calm_ = disturbed ? 0 : calm_ + 1;
    last_ = now, switches_ = used.ru_nivcsw;
    gomp_spin_count_var = calm_ >= needed_ ? kLong : kBriefly;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kCalm = 3, kSoon = 20, kMost = 100;  // looks
  Clock::time_point last_ = Clock::now();
  int64_t calm_ = 0, needed_ = kCalm, switches_ = 0;
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
