#include "tests/simt/devices.h"

#include "kernels/cuda/chip.h"
#include "kernels/cuda/device.h"
#include "tests/simt/simt.h"

namespace ccdrec::test {
namespace {

// An operation as the table holds it, with all scratch memory poisoned before it starts: what an earlier operation left there is not to be read.
template <auto F>
struct Poisoned;
template <class... A, void (*F)(Ctx&, A...)>
struct Poisoned<F> {
  static void call(Ctx& ctx, A... args) {
    simt::submit(ctx, [&ctx] { ctx.fill_scratch(static_cast<simt::Backend*>(ctx.backend)->config.poison); });  // in every replay as well
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
  const auto add = [&](const char* name, simt::Order order, int poison) {
    all.push_back({std::string("simt, ") + name, &poisoned_ops(), 1, "simt",
                   [=](Ctx& ctx) {
                     open_gpu(ctx, "fp32");
                     static_cast<simt::Backend*>(ctx.backend)->config = {order, poison, 1};
                   },
                   cuda::chip().sms});
  };
  add("ascending, ff", simt::Order::ascending, 0xff);
  add("descending, 55", simt::Order::descending, 0x55);
#if !defined(CCDREC_SANITIZED)  // then tests/support.cpp takes one, and the emulator's own tests compare two
  add("random, ff", simt::Order::random, 0xff);
  add("ascending, 55", simt::Order::ascending, 0x55);
  add("descending, ff", simt::Order::descending, 0xff);
  add("random, 55", simt::Order::random, 0x55);
#endif
  return all;
}

}  // namespace ccdrec::test
