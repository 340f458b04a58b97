// The emulator as a device: host memory, and recordings that are lists of launches.
#include "kernels/cuda/runtime.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "tests/simt/simt.h"

namespace ccdrec {
namespace cuda {
namespace {

simt::Backend& backend(Ctx& ctx) { return *static_cast<simt::Backend*>(ctx.backend); }
using Recording = std::vector<std::function<void()>>;

}  // namespace

void fill_runtime(Ops& t) {
  t.alloc = [](Ctx&, size_t bytes) -> void* {
    if (bytes == 0) return nullptr;
    void* p = std::calloc(1, bytes);  // each apart, without room to spare: AddressSanitizer sees an access outside
    if (!p) throw std::bad_alloc();
    return p;
  };
  t.free = [](Ctx&, void* p) { std::free(p); };
  t.upload = [](Ctx&, void* device, const void* host, size_t bytes) {
    if (bytes) std::memcpy(device, host, bytes);
  };
  t.download = [](Ctx&, void* host, const void* device, size_t bytes) {
    if (bytes) std::memcpy(host, device, bytes);
  };
  t.wait = [](Ctx&) {};
  t.enter = [](const char*, int64_t) {};
  t.leave = [] {};
  t.take_fault = [](Ctx& ctx) {
    const int32_t f = *ctx.fault;
    *ctx.fault = 0;
    return f;
  };
  t.record = [](Ctx& ctx, const std::function<void()>& step) -> void* {
    auto list = std::make_unique<Recording>();
    backend(ctx).recording = list.get();
    try {
      step();
    } catch (...) {
      backend(ctx).recording = nullptr;
      throw;
    }
    backend(ctx).recording = nullptr;
    ++backend(ctx).recordings;
    return list.release();
  };
  t.replay = [](Ctx&, void* r) {
    for (const auto& work : *static_cast<Recording*>(r)) work();
  };
  t.forget = [](Ctx& ctx, void* r) {
    if (!r) return;
    delete static_cast<Recording*>(r);
    --backend(ctx).recordings;
  };
  t.set_late = [](Ctx& ctx, const Late& l) { *const_cast<Late*>(ctx.late) = l; };
}

}  // namespace cuda

simt::Config& simt::default_config() {
  static Config c;
  return c;
}

GpuInfo gpu_info() {
  GpuInfo g;
  g.built = g.usable = g.emulated = true;
  g.name = "emulated GPU (tests/simt)";
  return g;
}

void open_gpu(Ctx& ctx, const char*) {
  ctx.device = DeviceKind::cuda;
  ctx.backend = new simt::Backend{simt::default_config()};
  ctx.late = new Late;
  ctx.fault = new int32_t(0);
  ctx.memory.take = [](Ctx& c, size_t bytes) -> void* {
    if (static_cast<simt::Backend*>(c.backend)->recording) throw std::runtime_error("scratch memory grew while a step was recorded");
    void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p) std::memset(p, static_cast<simt::Backend*>(c.backend)->config.poison, bytes);
    return p;
  };
  ctx.memory.give_back = [](Ctx& c, void* p) {
    auto* b = static_cast<simt::Backend*>(c.backend);
    if (p && b->recordings > 0)
      b->outgrown.push_back(p);
    else
      std::free(p);
  };
  ctx.memory.close = [](Ctx& c) {
    for (void* p : static_cast<simt::Backend*>(c.backend)->outgrown) std::free(p);
    delete static_cast<simt::Backend*>(c.backend);
    delete c.late;
    delete c.fault;
  };
}

}  // namespace ccdrec
