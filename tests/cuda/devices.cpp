#include "tests/cuda/devices.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#include "kernels/ops.h"

namespace {

// Memory for everything that `new` gives: pieces of managed memory in sizes of powers of two, kept in lists. What the runtime itself asks for while
// it sets up comes from malloc. CCDREC_TEST_POOL=0: every piece an allocation of its own, so that compute-sanitizer sees an access outside it.
class Managed {
 public:
  void* take(size_t bytes) {
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    if (busy_) return from_malloc(bytes);
    busy_ = true;
    void* p = nullptr;
    if (usable()) p = pooled_ && bytes <= kLargest ? piece(bytes) : own(bytes);
    busy_ = false;
    return p ? p : from_malloc(bytes);
  }
  void give_back(void* p) noexcept {
    if (!p) return;
    const std::lock_guard<std::recursive_mutex> lock(mutex_);
    Header& h = header(p);
    if (h.kind == Kind::malloc) {
      std::free(&h);
    } else if (h.kind == Kind::own) {
      (void)cudaFree(&h);
    } else {
      *static_cast<void**>(p) = free_[h.size_class];
      free_[h.size_class] = p;
    }
  }

 private:
  enum class Kind : uint32_t { malloc, own, piece };
  struct Header {
    Kind kind;
    uint32_t size_class;
  };
  static constexpr size_t kHeader = 256, kLargest = size_t(1) << 20, kBlock = size_t(64) << 20;  // alignment of any vector load

  static Header& header(void* p) { return *reinterpret_cast<Header*>(static_cast<char*>(p) - kHeader); }
  static void* after(void* block, Header h) {
    *static_cast<Header*>(block) = h;
    return static_cast<char*>(block) + kHeader;
  }
  bool usable() {
    if (!asked_) {
      int devices = 0;
      asked_ = true, usable_ = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
      const char* pool = std::getenv("CCDREC_TEST_POOL");
      pooled_ = !pool || pool[0] != '0';
    }
    return usable_;
  }
  static void* from_malloc(size_t bytes) {
    void* block = std::aligned_alloc(256, (bytes + kHeader + 255) / 256 * 256);
    if (!block) throw std::bad_alloc();
    return after(block, {Kind::malloc, 0});
  }
  static void* own(size_t bytes) {
    void* block = nullptr;
    return cudaMallocManaged(&block, bytes + kHeader) == cudaSuccess ? after(block, {Kind::own, 0}) : nullptr;
  }
  void* piece(size_t bytes) {
    uint32_t c = 5;
    while ((size_t(1) << c) < bytes) ++c;
    if (void* p = free_[c]) {
      free_[c] = *static_cast<void**>(p);
      return p;
    }
    const size_t need = kHeader + std::max<size_t>(size_t(1) << c, 256);
    if (left_ < need) {
      void* block = nullptr;
      if (cudaMallocManaged(&block, kBlock) != cudaSuccess) return nullptr;
      next_ = static_cast<char*>(block), left_ = kBlock;
    }
    void* p = after(next_, {Kind::piece, c});
    next_ += need, left_ -= need;
    return p;
  }

  std::recursive_mutex mutex_;
  bool busy_ = false, asked_ = false, usable_ = false, pooled_ = true;
  void* free_[21] = {};
  char* next_ = nullptr;
  size_t left_ = 0;
};
Managed& memory() {  // never destroyed: other static objects give memory back after main
  alignas(Managed) static unsigned char room[sizeof(Managed)];
  static Managed* const m = new (room) Managed;
  return *m;
}
void* take(size_t bytes) { return memory().take(bytes); }
void give_back(void* p) noexcept { memory().give_back(p); }

}  // namespace

void* operator new(size_t bytes) { return take(bytes); }
void* operator new[](size_t bytes) { return take(bytes); }
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, size_t) noexcept { give_back(p); }
void operator delete[](void* p, size_t) noexcept { give_back(p); }

namespace ccdrec::cuda {
#define CCDREC_DECLARE(name) decltype(::ccdrec::cpu::name) name;
CCDREC_OPS(CCDREC_DECLARE)
#undef CCDREC_DECLARE
}  // namespace ccdrec::cuda

namespace ccdrec::test {
namespace {

template <auto F>
struct Waited;
template <class... A, void (*F)(Ctx&, A...)>
struct Waited<F> {
  static void call(Ctx& ctx, A... args) {
    F(ctx, static_cast<A>(args)...);
    gpu_ops()->wait(ctx);
  }
};

const Ops& waited_ops() {
  static const Ops table = [] {
    Ops t = *gpu_ops();
#define CCDREC_FILL(name) t.name = &Waited<&cuda::name>::call;
    CCDREC_OPS(CCDREC_FILL)
#undef CCDREC_FILL
    return t;
  }();
  return table;
}

}  // namespace

std::vector<Device> cuda_devices() {
  const GpuInfo gpu = gpu_info();
  if (!gpu.usable) {
    std::fprintf(stderr, "test_cuda: %s\n", gpu.why.c_str());
    std::exit(1);
  }
  const auto open = [](Ctx& ctx) { open_gpu(ctx, "fp32"); };
  return {{"cuda, first run", &waited_ops(), 1, "cuda", open}, {"cuda, second run", &waited_ops(), 1, "cuda", open}};  // the same bits run to run
}

}  // namespace ccdrec::test
