// The emulator as a device: host memory, and recordings that are lists of launches.
#include "kernels/cuda/runtime.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/chip.h"
#include "kernels/device_memory.h"
#include "kernels/precision.h"
#include "tests/simt/ranges.h"
#include "tests/simt/simt.h"

namespace ccdrec {
namespace simt {
namespace {

// Pages from one reserved range, opened and closed together; pieces are kept by size when they come back.
struct DeviceMemory {
  static constexpr size_t kRange = size_t(16) << 30, kPiece = 256;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr bool kApart = true;
#else
  static constexpr bool kApart = false;
#endif
  char* base = nullptr;
  size_t used = 0;
  int open = 0;
  size_t held = 0;  // given out
  std::map<size_t, std::vector<void*>> free;
  std::map<void*, size_t> size;

  static DeviceMemory& get() {
    static auto* m = new DeviceMemory;  // never destroyed: static objects may give memory back after main
    return *m;
  }
  void protect(int how) const {
    if (used && mprotect(base, (used + 4095) / 4096 * 4096, how) != 0) throw std::runtime_error("mprotect of the emulated device memory failed");
  }
  // Contents undefined. As cudaMalloc on a GPU of `limit` bytes (0: of the reserved range); counted by the context.
  void* take(Ctx& ctx, size_t bytes, bool zeroed) {
    ++ctx.calls.allocations;
    const size_t most = static_cast<Backend*>(ctx.backend)->config.memory, limit = most ? most : kRange;
    const size_t n = (bytes + kPiece - 1) / kPiece * kPiece;
    if (bytes > limit || held + n > limit) throw DeviceOutOfMemory("cudaMalloc (emulated)", bytes, limit - std::min(limit, held));
    void* const p = kApart ? apart(bytes, zeroed) : piece(n);
    held += n;
    size[p] = n;
    return p;
  }
  // An allocation of its own, without room to spare where it starts as zeros: AddressSanitizer sees an access outside.
  static void* apart(size_t bytes, bool zeroed) { return zeroed ? std::calloc(1, bytes) : std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
  void* piece(size_t n) {
    if (auto& kept = free[n]; !kept.empty()) {
      void* p = kept.back();
      kept.pop_back();
      return p;
    }
    if (!base) {
      void* p = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) throw std::runtime_error("no room to reserve for the emulated device memory");
      base = static_cast<char*>(p);
    }
    if (used + n > kRange) throw std::runtime_error("the emulated device memory is in too many pieces");  // kept by size
    void* p = base + used;
    used += n;
    if (open) protect(PROT_READ | PROT_WRITE);
    return p;
  }
  void give_back(void* p) {
    if (!p) return;
    const auto at = size.find(p);
    held -= at->second;
    if (kApart)
      std::free(p);
    else
      free[at->second].push_back(p);
    size.erase(at);
  }
};

}  // namespace

size_t memory_held() { return DeviceMemory::get().held; }

DeviceAccess::DeviceAccess() {
  DeviceMemory& m = DeviceMemory::get();
  if (!DeviceMemory::kApart && m.open++ == 0) m.protect(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  DeviceMemory& m = DeviceMemory::get();
  if (!DeviceMemory::kApart && --m.open == 0) m.protect(PROT_NONE);
}

namespace {
Ranges* watched = nullptr;
}
RangeWatch::RangeWatch() {
  if (watched) throw std::logic_error("two watches over the ranges at a time");
  watched = &kept;
}
RangeWatch::~RangeWatch() { watched = nullptr; }

}  // namespace simt

namespace cuda {

Chip chip() { return {Chip{}.sms, simt::most_shared()}; }
namespace {

using simt::DeviceAccess;
using simt::DeviceMemory;
using simt::watched;
simt::Backend& backend(Ctx& ctx) { return *static_cast<simt::Backend*>(ctx.backend); }
using Recording = std::vector<std::function<void()>>;

}  // namespace

void fill_runtime(Ops& t) {
  t.alloc = [](Ctx& ctx, size_t bytes) -> void* {
    if (bytes == 0) return nullptr;
    const DeviceAccess access;
    void* p = DeviceMemory::get().take(ctx, bytes, true);
    if (!DeviceMemory::kApart) std::memset(p, 0, bytes);
    return p;
  };
  t.free = [](Ctx& ctx, void* p) {
    ctx.calls.waits += p != nullptr;
    DeviceMemory::get().give_back(p);
  };
  t.upload = [](Ctx& ctx, void* device, const void* host, size_t bytes) {
    ++ctx.calls.waits;
    const DeviceAccess access;
    if (bytes) std::memcpy(device, host, bytes);
  };
  t.download = [](Ctx& ctx, void* host, const void* device, size_t bytes) {
    ++ctx.calls.waits;
    const DeviceAccess access;
    if (bytes) std::memcpy(host, device, bytes);
  };
  t.read = [](Ctx& ctx, const Piece* list, int n) {
    ++ctx.calls.waits;
    const DeviceAccess access;
    size_t bytes = 0;
    for (int k = 0; k < n; ++k) std::memcpy(list[k].host, list[k].device, list[k].bytes), bytes += list[k].bytes;
    check_that(bytes <= kMostRead, "at most kMostRead bytes", __FILE__, __LINE__);
  };
  t.wait = [](Ctx& ctx) { ++ctx.calls.waits; };
  t.enter = [](RangeId id, int64_t payload) {
    if (!watched) return;
    watched->open.push_back(int(watched->all.size()));
    watched->all.push_back({id, payload, watched->open.size() > 1 ? watched->open[watched->open.size() - 2] : -1});
  };
  t.leave = [] {
    if (!watched) return;
    if (watched->open.empty()) {
      ++watched->closed_too_often;
      return;
    }
    watched->all[size_t(watched->open.back())].closed = true;
    watched->open.pop_back();
  };
  t.take_fault = [](Ctx& ctx) {
    ++ctx.calls.waits;
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
    ++backend(ctx).recordings, ++ctx.calls.recordings;
    return list.release();
  };
  t.replay = [](Ctx&, void* r) {
    const DeviceAccess access;
    for (const auto& work : *static_cast<Recording*>(r)) work();
  };
  t.forget = [](Ctx& ctx, void* r) {
    if (!r) return;
    ++ctx.calls.waits;
    delete static_cast<Recording*>(r);
    --backend(ctx).recordings;
  };
}

}  // namespace cuda

simt::Config& simt::default_config() {
  static Config c;
  return c;
}

GpuInfo gpu_info() {
  GpuInfo g;
  g.built = g.usable = g.emulated = g.cusparse = true;
  g.name = "emulated GPU (tests/simt)";
  return g;
}

void open_gpu(Ctx& ctx, const char* precision) {
  ctx.device = DeviceKind::cuda;
  auto* backend = new simt::Backend{simt::default_config()};
  backend->mantissa = mantissa_bits(precision);
  ctx.backend = backend;
  ctx.late = new Late;
  ctx.fault = new int32_t(0);
  ctx.memory.take = [](Ctx& c, size_t bytes) -> void* {
    if (static_cast<simt::Backend*>(c.backend)->recording) throw std::runtime_error("scratch memory grew while a step was recorded");
    const simt::DeviceAccess access;
    void* p = simt::DeviceMemory::get().take(c, bytes, false);
    if (p) std::memset(p, static_cast<simt::Backend*>(c.backend)->config.poison, bytes);
    return p;
  };
  ctx.memory.give_back = [](Ctx& c, void* p, size_t bytes) {
    auto* b = static_cast<simt::Backend*>(c.backend);
    if (p && b->recordings > 0)
      b->outgrown.push_back(p), b->held += bytes;
    else
      gpu_ops()->free(c, p);
  };
  ctx.memory.held = [](const Ctx& c) { return static_cast<const simt::Backend*>(c.backend)->held; };
  ctx.memory.close = [](Ctx& c) {
    for (void* p : static_cast<simt::Backend*>(c.backend)->outgrown) simt::DeviceMemory::get().give_back(p);
    delete static_cast<simt::Backend*>(c.backend);
    delete c.late;
    delete c.fault;
  };
}

}  // namespace ccdrec
