#include <chrono>

#include "bench/gpu/clock.h"

namespace ccdrec::bench {

struct GpuClock::Impl {};
GpuClock::GpuClock(Ctx&) {}
GpuClock::~GpuClock() = default;
double GpuClock::seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
void GpuClock::flush_l2() {}
double GpuClock::l2_bytes() const { return 0; }

}  // namespace ccdrec::bench
