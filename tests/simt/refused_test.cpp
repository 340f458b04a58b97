// What a GPU refuses of the host, and the emulator with it: addresses that it does not reach, and calls that CUDA does
// not allow while a stream is captured. Each stands beside what is right.
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "tests/simt/simt.h"
#include "tests/support.h"

namespace ccdrec::cuda {
namespace {

// All tests of this program hand vectors to kernels: on a GPU they lie in pinned memory, which both sides reach
// (tests/cuda/devices.cpp).
[[maybe_unused]] const bool heap = simt::host_heap_allowed() = true;

struct HeapAllowed {
  explicit HeapAllowed(bool allowed) { simt::host_heap_allowed() = allowed; }
  ~HeapAllowed() { simt::host_heap_allowed() = true; }
  HeapAllowed(const HeapAllowed&) = delete;
  HeapAllowed& operator=(const HeapAllowed&) = delete;
};

__global__ void write_pointer(int64_t n, float* out) { out[threadIdx.x % n] = 1.0f; }
__global__ void write_view(Mat out) { out.p[threadIdx.x % out.cols] = 1.0f; }

float in_program[32];

std::string refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::runtime_error& e) { return e.what(); }
  return "";
}
bool says(const std::string& error, const std::string& part) { return error.find(part) != std::string::npos; }

TEST(Refused, AddressesOfTheHostInALaunch) {
  Ctx ctx(1);
  open_gpu(ctx, "fp32");
  const Ops& ops = *gpu_ops();
  float on_stack[32] = {};
  std::vector<float> vector(32);
  float* const device = static_cast<float*>(ops.alloc(ctx, sizeof on_stack));
  const auto pointer = [&](float* p) { return refused([&] { launch(write_pointer, 1, 32, 0, ctx, 32, p); }); };
  const auto view = [&](float* p) { return refused([&] { launch(write_view, 1, 32, 0, ctx, Mat{p, 1, 32}); }); };
  for (const bool allowed : {true, false}) {
    const HeapAllowed state(allowed);
    EXPECT_EQ(pointer(device), "");
    EXPECT_EQ(view(device), "");
    EXPECT_TRUE(says(pointer(on_stack), "write_pointer (") &&
                says(pointer(on_stack), "argument 2 has an address of the stack"))
        << pointer(on_stack);
    EXPECT_TRUE(says(view(on_stack), "argument 1 has an address of the stack")) << view(on_stack);
    EXPECT_TRUE(says(pointer(in_program), "of the program's own data")) << pointer(in_program);
    EXPECT_TRUE(says(view(in_program), "of the program's own data")) << view(in_program);
    EXPECT_TRUE(says(refused([&] { library::copy(ctx, device, on_stack, sizeof on_stack); }), "copy ("))
        << "library calls as well";
    // The emulator, not this test, is under AddressSanitizer, and device memory is ordinary memory.
    if (test::sanitized()) continue;
    EXPECT_EQ(says(pointer(vector.data()), "of the heap"), !allowed) << pointer(vector.data());
    EXPECT_EQ(says(view(vector.data()), "of the heap"), !allowed) << view(vector.data());
  }
  EXPECT_EQ(on_stack[0] + in_program[0], 0) << "nothing was run";
  ops.free(ctx, device);
}

TEST(Refused, CallsThatMayNotStandInARecording) {
  Ctx ctx(1);
  open_gpu(ctx, "fp32");
  const Ops& ops = *gpu_ops();
  float host = 2;
  float* const device = static_cast<float*>(ops.alloc(ctx, 256));
  void* spare = ops.alloc(ctx, 256);
  const auto step = [&] { launch(write_pointer, 1, 32, 0, ctx, 1, device); };
  void* const kept = ops.record(ctx, step);
  void* another = ops.record(ctx, step);
  const struct {
    const char* says;
    std::function<void()> call;
  } cases[] = {{"memory was taken", [&] { ops.alloc(ctx, 256); }},
               {"memory was given back", [&] { ops.free(ctx, spare), spare = nullptr; }},
               {"an upload was waited for", [&] { ops.upload(ctx, device, &host, sizeof host); }},
               {"a download was waited for", [&] { ops.download(ctx, &host, device, sizeof host); }},
               {"the device was waited for", [&] { ops.wait(ctx); }},
               {"the fault was asked for", [&] { ops.take_fault(ctx); }},
               {"a read was waited for",
                [&] {
                  const Piece piece{&host, device, sizeof host};
                  ops.read(ctx, &piece, 1);
                }},
               {"a recording was begun", [&] { ops.record(ctx, step); }},
               {"a recording was replayed", [&] { ops.replay(ctx, kept); }},
               {"a recording was given up", [&] { ops.forget(ctx, another), another = nullptr; }}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    for (const bool swallowed : {false, true}) {  // the recording is lost whatever becomes of the error
      const std::string error = refused([&] {
        ops.record(ctx, [&] {
          step();
          const std::string now = refused(c.call);
          if (!swallowed && !now.empty()) throw std::runtime_error(now);
          step();
        });
      });
      EXPECT_TRUE(says(error, std::string(c.says) + " while a step was recorded")) << error;
      if (!spare) spare = ops.alloc(ctx, 256);
      if (!another) another = ops.record(ctx, step);
    }
  }
  EXPECT_EQ(host, 2) << "nothing was run";
  ops.replay(ctx, kept);  // and everything is usable as before
  ops.download(ctx, &host, device, sizeof host);
  EXPECT_EQ(host, 1);
  EXPECT_EQ(refused([&] { ops.forget(ctx, ops.record(ctx, step)); }), "");
  ops.forget(ctx, kept), ops.forget(ctx, another), ops.free(ctx, spare), ops.free(ctx, device);
}

// cuBLAS takes memory when it is opened, which is at the first product.
TEST(Refused, ALibraryThatIsOpenedWhileRecording) {
  Ctx ctx(1);
  open_gpu(ctx, "fp32");
  const Ops& ops = *gpu_ops();
  float* const p = static_cast<float*>(ops.alloc(ctx, 3 * 64));
  const auto product = [&] { ops.gemm(ctx, {p, 4, 4}, {p + 16, 4, 4}, false, {p + 32, 4, 4}, false, false); };
  EXPECT_EQ(refused([&] { ops.record(ctx, product); }), "cuBLAS was first needed while a step was recorded");
  product();
  void* const r = ops.record(ctx, product);
  EXPECT_NE(r, nullptr);
  ops.forget(ctx, r), ops.free(ctx, p);
}

// Late values and the fault live on the device: the host reads them through the table alone.
TEST(Refused, HostCodeThatReadsLateValuesOrTheFault) {
  if (test::sanitized()) GTEST_SKIP() << "under AddressSanitizer device memory is ordinary memory";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Ctx ctx(1);
  open_gpu(ctx, "fp32");
  gpu_ops()->set_late(ctx, Late{1, 2, 3, 4});
  EXPECT_EQ(gpu_ops()->take_fault(ctx), 0);
  EXPECT_EXIT((void)*static_cast<const volatile uint32_t*>(&ctx.late->step), ::testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT((void)*static_cast<const volatile int32_t*>(ctx.fault), ::testing::KilledBySignal(SIGSEGV), "");
}

}  // namespace
}  // namespace ccdrec::cuda
