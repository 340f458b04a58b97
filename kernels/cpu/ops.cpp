#include "kernels/ops.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace ccdrec {

const Ops& cpu_ops() {
  static const Ops table = [] {
    Ops t;
#define CCDREC_FILL(name) t.name = &cpu::name;
    CCDREC_OPS(CCDREC_FILL)
#undef CCDREC_FILL
    t.alloc = [](Ctx&, size_t bytes) -> void* {
      const size_t rounded = (bytes + 63) / 64 * 64;
      if (rounded == 0) return nullptr;
      void* p = std::aligned_alloc(64, rounded);
      if (!p) throw std::bad_alloc();
      std::memset(p, 0, rounded);
      return p;
    };
    t.free = [](Ctx&, void* p) { std::free(p); };
    t.upload = [](Ctx&, void* device, const void* host, size_t bytes) {
      if (bytes) std::memcpy(device, host, bytes);
    };
    t.download = [](Ctx&, void* host, const void* device, size_t bytes) {
      if (bytes) std::memcpy(host, device, bytes);
    };
    return t;
  }();
  return table;
}

}  // namespace ccdrec
