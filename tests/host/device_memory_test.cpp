// A GPU with too little memory: one sentence with the call, what it asked for and what is free, exit code 3, and all
// that was taken given back. (What the plan foresees is refused before: plan_test.cpp.)
#include "kernels/device_memory.h"

#include <gtest/gtest.h>

#include "kernels/ops.h"
#include "tests/host/command.h"
#if defined(CCDREC_TEST_SIMT)
#include "tests/simt/simt.h"
#endif

namespace ccdrec::test {
namespace {

TEST(DeviceMemory, TheErrorSaysWhatItKnows) {
  EXPECT_STREQ(DeviceOutOfMemory("cudaMalloc", 5000, 70).what(),
               "cudaMalloc of 5000 bytes failed, 70 bytes are free on the GPU");
  EXPECT_STREQ(DeviceOutOfMemory("cublasCreate(&b.blas)", 0, 70).what(),
               "cublasCreate(&b.blas) found no memory, 70 bytes are free on the GPU");
  const DeviceOutOfMemory long_name(std::string(1000, 'x').c_str(), 1, 2);
  EXPECT_EQ(std::string(long_name.call()), std::string(127, 'x'));
}

#if defined(CCDREC_TEST_SIMT)

// An emulated GPU that has so many bytes free once it is opened, which takes two pieces of 256: the late values and the
// fault.
struct Free {
  explicit Free(size_t bytes) { simt::default_config().memory = simt::memory_held() + 512 + bytes; }
  ~Free() { simt::default_config() = {}; }
};

TEST(DeviceMemory, WhatIsAskedAndFreeIsCounted) {
  const size_t before = simt::memory_held();
  {
    const Free little(4096);
    Ctx ctx;
    open_gpu(ctx, "fp32");
    EXPECT_EQ(ctx.calls.allocations, 2);
    const Ops& ops = *gpu_ops();
    void* const first = ops.alloc(ctx, 3000);  // in pieces of 256 bytes
    EXPECT_EQ(ctx.calls.allocations, 3);
    for (const bool scratch : {false, true}) {
      try {
        scratch ? ctx.scratch(0, 2048) : ops.alloc(ctx, 2000);
        ADD_FAILURE() << "there is no room for it";
      } catch (const DeviceOutOfMemory& e) {
        EXPECT_EQ(std::string(e.call()), "cudaMalloc (emulated)");
        EXPECT_EQ(e.asked(), scratch ? 2304u : 2000u);  // an eighth to spare
        EXPECT_EQ(e.free(), 1024u);
      }
    }
    EXPECT_THROW(ops.alloc(ctx, size_t(-1)), std::bad_alloc) << "it is one";
    ops.free(ctx, first);
    void* const all = ops.alloc(ctx, 4096);
    EXPECT_NE(all, nullptr);
    ops.free(ctx, all);
  }
  EXPECT_EQ(simt::memory_held(), before);
}

// Wherever it happens, from the first scratch block to the last array; then, in the same folder, the run.
TEST(DeviceMemory, TooLittleForARunIsOneSentence) {
  const Folder dir;
  const std::vector<std::string> words =
      train_words("CCDRec", dir / "run", {"--device", "cuda", "--set", "epochs=1", "--set", "timesteps=2"});
  const size_t before = simt::memory_held();
  int refused = 0;
  for (size_t free = 1000;; free = free * 3 / 2) {
    SCOPED_TRACE(free);
    const Free little(free);
    const Result r = run(words);
    EXPECT_EQ(simt::memory_held(), before) << "given back";
    if (r.code == 0) break;
    ++refused;
    ASSERT_EQ(r.code, 3) << r.err;
    const size_t at = r.err.find("ccdrec: out of memory on the GPU: cudaMalloc (emulated) asked for ");
    ASSERT_NE(at, std::string::npos) << r.err;
    const std::string said = r.err.substr(at);
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_TRUE(has(
        said,
        "B are free; free the GPU of other programs, lower train_batch_size or embedding_size, or use --device cpu"))
        << said;
    EXPECT_TRUE(has(said, "`ccdrec train --plan`")) << said;
    EXPECT_EQ(has(said, " and 1.0 kB are free;"), free == 1000) << said;
  }
  EXPECT_GT(refused, 10);
  const Free little(1000);
  for (const char* command : {"evaluate", "recommend"}) {
    const Result r = run({command, dir / "run", "--device", "cuda"});
    EXPECT_EQ(r.code, 3);
    EXPECT_TRUE(has(r.err, "out of memory on the GPU: cudaMalloc (emulated) asked for ")) << r.err;
  }
}

#endif

}  // namespace
}  // namespace ccdrec::test
