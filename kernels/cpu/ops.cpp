#include "kernels/ops.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace ccdrec {

constexpr size_t kHugePage = size_t{2} << 20;

const Ops& cpu_ops() {
  static const Ops table = [] {
    Ops t;
#define CCDREC_FILL(name) t.name = &cpu::name;
    CCDREC_OPS(CCDREC_FILL)
    CCDREC_SCRATCH(CCDREC_FILL)
#undef CCDREC_FILL
    t.alloc = [](Ctx&, size_t bytes) -> void* {
      const size_t rounded = (bytes + 63) / 64 * 64;
      if (rounded == 0) return nullptr;
      const bool huge = rounded >= 2 * kHugePage;
      void* p = nullptr;
      if (posix_memalign(&p, huge ? kHugePage : 64, rounded)) throw std::bad_alloc();
      // rows are read at random: fewer misses in the address cache; a refusal costs nothing else
      if (huge) madvise(p, rounded, MADV_HUGEPAGE);
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
    t.read = [](Ctx&, const Piece* list, int n) {
      for (int k = 0; k < n; ++k) std::memcpy(list[k].host, list[k].device, list[k].bytes);
    };
    return t;
  }();
  return table;
}

}  // namespace ccdrec
