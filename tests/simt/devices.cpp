#include "tests/simt/devices.h"

#include <cstdlib>
#include <string>

#include "kernels/cuda/chip.h"
#include "kernels/cuda/device.h"
#include "tests/simt/simt.h"

namespace ccdrec::test {
namespace {

// The chip that a call finds.
struct OnChip {
  const int64_t before = simt::most_shared();
  explicit OnChip(int64_t shared) { simt::use_shared(shared); }
  ~OnChip() { simt::use_shared(before); }
  OnChip(const OnChip&) = delete;
  OnChip& operator=(const OnChip&) = delete;
};

// Tests hand vectors of the host to operations (simt.h), which programs may not.
struct VectorsAllowed {
  const bool before = simt::host_heap_allowed();
  VectorsAllowed() { simt::host_heap_allowed() = true; }
  ~VectorsAllowed() { simt::host_heap_allowed() = before; }
  VectorsAllowed(const VectorsAllowed&) = delete;
  VectorsAllowed& operator=(const VectorsAllowed&) = delete;
};

// An operation as the table holds it, with all scratch memory poisoned before it starts: what an earlier operation left
// there is not to be read.
template <auto F>
struct Poisoned;
template <class... A, void (*F)(Ctx&, A...)>
struct Poisoned<F> {
  static void call(Ctx& ctx, A... args) {
    const OnChip chip(static_cast<simt::Backend*>(ctx.backend)->config.shared);
    const VectorsAllowed vectors;
    // in every replay as well
    simt::submit(ctx, [&ctx] { ctx.fill_scratch(static_cast<simt::Backend*>(ctx.backend)->config.poison); });
    F(ctx, static_cast<A>(args)...);
  }
};

const Ops& poisoned_ops() {
  static const Ops table = [] {
    Ops t = *gpu_ops();
#define CCDREC_FILL(name) t.name = &Poisoned<&cuda::name>::call;
    CCDREC_OPS(CCDREC_FILL)
#undef CCDREC_FILL
    return t;
  }();
  return table;
}

}  // namespace

std::vector<Device> simt_devices() {
  std::vector<Device> all;
  constexpr int64_t kLarge = 227 * 1024, kMiddle = 163 * 1024, kSmall = cuda::kLeastShared;
  const auto add = [&](const char* name, simt::Order order, int poison, int64_t shared) {
    all.push_back({std::string("simt, ") + name, &poisoned_ops(), 1, "simt",
                   [=](Ctx& ctx) {
                     open_gpu(ctx, "fp32");
                     static_cast<simt::Backend*>(ctx.backend)->config = {order, poison, 1, shared};
                   },
                   cuda::chip().sms});
  };
  add("ascending, ff, 227 KB", simt::Order::ascending, 0xff, kLarge);
  add("descending, 55, 99 KB", simt::Order::descending, 0x55, kSmall);
  add("random, ff, 163 KB", simt::Order::random, 0xff, kMiddle);
  // these three have every order, chip and poison once; `make test-all` asks for more of what they can be together
  const char* schedules = std::getenv("CCDREC_TEST_SCHEDULES");
  if (!schedules || schedules != std::string("all")) return all;
  add("ascending, 55, 163 KB", simt::Order::ascending, 0x55, kMiddle);
  add("descending, ff, 227 KB", simt::Order::descending, 0xff, kLarge);
  add("random, 55, 99 KB", simt::Order::random, 0x55, kSmall);
  return all;
}

}  // namespace ccdrec::test
