// The emulator as a device: host memory, and recordings that are lists of launches.
#include "kernels/cuda/runtime.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

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
    if (used && mprotect(base, (used + 4095) / 4096 * 4096, how) != 0)
      throw std::runtime_error("mprotect of the emulated device memory failed");
  }
  // Contents undefined. As cudaMalloc on a GPU of `limit` bytes (0: of the reserved range); counted by the context.
  void* take(Ctx& ctx, size_t bytes, bool zeroed) {
    ++ctx.calls.allocations;
    const size_t most = static_cast<Backend*>(ctx.backend)->config.memory, limit = most ? most : kRange;
    const size_t n = (bytes + kPiece - 1) / kPiece * kPiece;
    if (bytes > limit || held + n > limit)
      throw DeviceOutOfMemory("cudaMalloc (emulated)", bytes, limit - std::min(limit, held));
    void* const p = kApart ? apart(bytes, zeroed) : piece(n);
    held += n;
    size[p] = n;
    return p;
  }
  // An allocation of its own, without room to spare where it starts as zeros: AddressSanitizer sees an access outside.
  static void* apart(size_t bytes, bool zeroed) {
    return zeroed ? std::calloc(1, bytes) : std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  }
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
    // kept by size
    if (used + n > kRange) throw std::runtime_error("the emulated device memory is in too many pieces");
    void* p = base + used;
    used += n;
    if (open) protect(PROT_READ | PROT_WRITE);
    return p;
  }
  bool holds(const void* p) const { return p >= base && p < base + kRange; }
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

// The program's own memory, from the linker.
extern const char program_begin asm("__executable_start"), program_end asm("_end");

namespace {

const char* top_of_stack() {
  pthread_attr_t attributes;
  void* low = nullptr;
  size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return nullptr;
  pthread_attr_getstack(&attributes, &low, &size);
  pthread_attr_destroy(&attributes);
  return static_cast<const char*>(low) + size;
}

}  // namespace

bool& host_heap_allowed() {
  static bool allowed = false;
  return allowed;
}

// A word that lies in device memory or is no address of the host passes; of a pointer only device memory is sure where
// the heap is not allowed.
void check_reach(const char* who, const char* file, int line, int argument, const void* address, bool word) {
  static thread_local const char* const top = top_of_stack();
  const bool heap_too = !host_heap_allowed() && !DeviceMemory::kApart;
  const char* what = nullptr;
  if (address >= __builtin_frame_address(0) && address < top)
    what = "the stack";
  else if (address >= &program_begin && address < &program_end)
    what = "the program's own data";
  else if (heap_too &&
           (word ? address >= &program_end && address < sbrk(0) : address && !DeviceMemory::get().holds(address)))
    what = "the heap";
  if (!what) return;
  throw KernelError(std::string(who) + " (" + file + ":" + std::to_string(line) + "): argument " +
                    std::to_string(argument) + " has an address of " + what +
                    " of the host, which a GPU does not reach");
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

// What CUDA refuses while a stream is captured: the call fails and the recording with it, whatever becomes of the
// error.
bool spoils(Ctx& ctx, const char* what) {
  simt::Backend& b = backend(ctx);
  if (b.recording && b.spoiled.empty())
    b.spoiled = std::string(what) + " while a step was recorded: a GPU refuses it, and the recording is lost";
  return b.recording;
}
void refuse_in_recording(Ctx& ctx, const char* what) {
  if (spoils(ctx, what)) throw std::runtime_error(backend(ctx).spoiled);
}

}  // namespace

void fill_runtime(Ops& t) {
  t.alloc = [](Ctx& ctx, size_t bytes) -> void* {
    if (bytes == 0) return nullptr;
    refuse_in_recording(ctx, "memory was taken");
    const DeviceAccess access;
    void* p = DeviceMemory::get().take(ctx, bytes, true);
    if (!DeviceMemory::kApart) std::memset(p, 0, bytes);
    return p;
  };
  t.free = [](Ctx& ctx, void* p) {  // called by destructors, so it throws nothing
    if (p) spoils(ctx, "memory was given back");
    ctx.calls.waits += p != nullptr;
    DeviceMemory::get().give_back(p);
  };
  t.upload = [](Ctx& ctx, void* device, const void* host, size_t bytes) {
    refuse_in_recording(ctx, "an upload was waited for");
    ++ctx.calls.waits;
    const DeviceAccess access;
    if (bytes) std::memcpy(device, host, bytes);
  };
  t.download = [](Ctx& ctx, void* host, const void* device, size_t bytes) {
    refuse_in_recording(ctx, "a download was waited for");
    ++ctx.calls.waits;
    const DeviceAccess access;
    if (bytes) std::memcpy(host, device, bytes);
  };
  t.read = [](Ctx& ctx, const Piece* list, int n) {
    refuse_in_recording(ctx, "a read was waited for");
    ++ctx.calls.waits;
    const DeviceAccess access;
    size_t bytes = 0;
    for (int k = 0; k < n; ++k) std::memcpy(list[k].host, list[k].device, list[k].bytes), bytes += list[k].bytes;
    check_that(bytes <= kMostRead, "at most kMostRead bytes", __FILE__, __LINE__);
  };
  t.wait = [](Ctx& ctx) {
    refuse_in_recording(ctx, "the device was waited for");
    ++ctx.calls.waits;
  };
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
    refuse_in_recording(ctx, "the fault was asked for");
    ++ctx.calls.waits;
    const DeviceAccess access;
    const int32_t f = *ctx.fault;
    *ctx.fault = 0;
    return f;
  };
  t.record = [](Ctx& ctx, const std::function<void()>& step) -> void* {
    refuse_in_recording(ctx, "a recording was begun");
    auto list = std::make_unique<Recording>();
    backend(ctx).recording = list.get(), backend(ctx).spoiled.clear();
    try {
      step();
    } catch (...) {
      backend(ctx).recording = nullptr;
      throw;
    }
    backend(ctx).recording = nullptr;
    if (!backend(ctx).spoiled.empty()) throw std::runtime_error(backend(ctx).spoiled);
    ++backend(ctx).recordings, ++ctx.calls.recordings;
    return list.release();
  };
  t.replay = [](Ctx& ctx, void* r) {
    refuse_in_recording(ctx, "a recording was replayed");
    const DeviceAccess access;
    for (const auto& work : *static_cast<Recording*>(r)) work();
  };
  t.forget = [](Ctx& ctx, void* r) {
    if (!r) return;
    spoils(ctx, "a recording was given up");
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
  const simt::DeviceAccess while_opened;
  ctx.late = new (simt::DeviceMemory::get().take(ctx, sizeof(Late), true)) Late;
  ctx.fault = new (simt::DeviceMemory::get().take(ctx, sizeof(int32_t), true)) int32_t(0);
  ctx.memory.take = [](Ctx& c, size_t bytes) -> void* {
    if (static_cast<simt::Backend*>(c.backend)->recording)
      throw std::runtime_error("scratch memory grew while a step was recorded");
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
    simt::DeviceMemory::get().give_back(const_cast<Late*>(c.late));
    simt::DeviceMemory::get().give_back(c.fault);
  };
}

}  // namespace ccdrec
