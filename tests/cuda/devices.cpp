#include "tests/cuda/devices.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>

#include "kernels/ops.h"

namespace {

// Memory for everything that `new` gives: pieces of pinned host memory, which both sides reach under one address, in
// sizes of powers of two, kept in lists. Before main, and for what the CUDA runtime itself asks for meanwhile, malloc.
// CCDREC_TEST_POOL=0: pieces of 1 KB and more are allocations of their own, so that compute-sanitizer sees an access
// outside them.
class Pinned {
 public:
  void start() {
    const char* pool = std::getenv("CCDREC_TEST_POOL");
    pooled_ = !pool || pool[0] != '0';
    ready_ = true;
  }
  void* take(size_t bytes) {
    if (!ready_ || busy_) return from_malloc(bytes);
    busy_ = true;
    void* p = (pooled_ || bytes < 1024) && bytes <= kLargest ? piece(bytes) : own(bytes);
    busy_ = false;
    return p ? p : from_malloc(bytes);
  }
  void give_back(void* p) noexcept {
    if (!p) return;
    Header& h = header(p);
    if (h.kind == Kind::malloc) {
      std::free(&h);
    } else if (h.kind == Kind::own) {
      busy_ = true;
      const Uncaptured allowed;
      (void)cudaFreeHost(&h);
      busy_ = false;
    } else {
      const std::lock_guard<std::mutex> lock(mutex_);
      const uint32_t c = h.size_class;
      *static_cast<void**>(p) = free_[c];
      free_[c] = p;
    }
  }

 private:
  // Memory may be asked for while a stream is captured, where the runtime would refuse it and spoil the capture.
  struct Uncaptured {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    Uncaptured() { (void)cudaThreadExchangeStreamCaptureMode(&mode); }
    ~Uncaptured() { (void)cudaThreadExchangeStreamCaptureMode(&mode); }
    Uncaptured(const Uncaptured&) = delete;
    Uncaptured& operator=(const Uncaptured&) = delete;
  };
  enum class Kind : uint32_t { malloc, own, piece };
  struct Header {
    Kind kind;
    uint32_t size_class;
  };
  // alignment of any vector load
  static constexpr size_t kHeader = 256, kLargest = size_t(1) << 20, kBlock = size_t(64) << 20;

  static Header& header(void* p) { return *reinterpret_cast<Header*>(static_cast<char*>(p) - kHeader); }
  static void* after(void* block, Header h) {
    *static_cast<Header*>(block) = h;
    return static_cast<char*>(block) + kHeader;
  }
  static void* from_malloc(size_t bytes) {
    void* block = std::aligned_alloc(256, (bytes + kHeader + 255) / 256 * 256);
    if (!block) throw std::bad_alloc();
    return after(block, {Kind::malloc, 0});
  }
  static void* pinned(size_t bytes) {
    void* block = nullptr;
    const Uncaptured allowed;
    return cudaHostAlloc(&block, bytes, cudaHostAllocMapped | cudaHostAllocPortable) == cudaSuccess ? block : nullptr;
  }
  static void* own(size_t bytes) {
    void* block = pinned(bytes + kHeader);
    return block ? after(block, {Kind::own, 0}) : nullptr;
  }
  void* piece(size_t bytes) {
    uint32_t c = 5;
    while ((size_t(1) << c) < bytes) ++c;
    const size_t need = kHeader + std::max<size_t>(size_t(1) << c, 256);
    for (;;) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (void* p = free_[c]) {
          free_[c] = *static_cast<void**>(p);
          header(p) = {Kind::piece, c};
          return p;
        }
        if (left_ >= need) {
          void* p = after(next_, {Kind::piece, c});
          next_ += need, left_ -= need;
          return p;
        }
      }
      void* block = pinned(kBlock);  // outside the lock: other threads may allocate inside the call
      if (!block) return nullptr;
      const std::lock_guard<std::mutex> lock(mutex_);
      next_ = static_cast<char*>(block), left_ = kBlock;
    }
  }

  static thread_local bool busy_;
  std::mutex mutex_;
  bool ready_ = false, pooled_ = true;
  void* free_[21] = {};
  char* next_ = nullptr;
  size_t left_ = 0;
};
thread_local bool Pinned::busy_ = false;
Pinned& memory() {  // never destroyed: other static objects give memory back after main
  alignas(Pinned) static unsigned char room[sizeof(Pinned)];
  static Pinned* const m = new (room) Pinned;
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
    try {
      F(ctx, static_cast<A>(args)...);
      cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
      (void)cudaStreamIsCapturing(static_cast<cudaStream_t>(ctx.stream), &capturing);
      if (capturing == cudaStreamCaptureStatusNone) gpu_ops()->wait(ctx);
    } catch (const std::runtime_error& e) {  // the context is lost: every later test would fail for this one's reason
      const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
      std::fprintf(stderr, "%s.%s: %s\n", test ? test->test_suite_name() : "?", test ? test->name() : "?", e.what());
      std::fflush(nullptr);
      std::_Exit(3);
    }
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
  int sms = 0;
  if (cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0) != cudaSuccess) sms = 132;
  return {{"cuda, first run", &waited_ops(), 1, "cuda", open, sms},
          {"cuda, second run", &waited_ops(), 1, "cuda", open, sms}};  // the same bits run to run
}

}  // namespace ccdrec::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!::testing::GTEST_FLAG(list_tests)) {
    (void)ccdrec::test::cuda_devices();  // says what is wrong and leaves, before the first test
    memory().start();
  }
  const int failed = RUN_ALL_TESTS();
  std::fflush(nullptr);
  std::_Exit(failed);  // what static objects would give back now belongs to a driver that is going down
}
