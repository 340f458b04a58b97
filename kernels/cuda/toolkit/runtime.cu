// A real GPU: memory, the stream, recorded steps as CUDA graphs, NVTX ranges, and sentences for what can be wrong with
// a machine.
#include <nvtx3/nvToolsExt.h>
#include <nvtx3/nvToolsExtCudaRt.h>

#include <iterator>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "kernels/cuda/chip.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/toolkit/backend.h"
#include "kernels/cuda/toolkit/delayed.h"
#include "kernels/cuda/toolkit/why.h"
#include "kernels/device_memory.h"

#ifndef CCDREC_CUDA_ARCHITECTURES
#define CCDREC_CUDA_ARCHITECTURES "unknown"
#endif

namespace ccdrec {
namespace cuda {

size_t free_memory_now() {
  size_t free = 0, all = 0;
  return cudaMemGetInfo(&free, &all) == cudaSuccess ? free : 0;
}

void check_cuda(cudaError_t e, const char* what, const char* file, int line) {
  if (e == cudaSuccess) return;
  (void)cudaGetLastError();
  if (e == cudaErrorMemoryAllocation) throw DeviceOutOfMemory(what, 0, free_memory_now());
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what + ": " + cudaGetErrorName(e) +
                           " (" + cudaGetErrorString(e) + ")");
}

void check_blas(cublasStatus_t s, const char* what, const char* file, int line) {
  if (s == CUBLAS_STATUS_SUCCESS) return;
  if (s == CUBLAS_STATUS_ALLOC_FAILED) throw DeviceOutOfMemory(what, 0, free_memory_now());
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what + ": " +
                           cublasGetStatusString(s));
}

// A launch refused for its geometry is reported by cudaGetLastError alone. CCDREC_SYNC_LAUNCHES (debug builds): the
// execution as well.
void check_launch(Ctx& ctx, const char* kernel, const char* file, int line) {
  check_cuda(cudaGetLastError(), kernel, file, line);
#if defined(CCDREC_SYNC_LAUNCHES)
  if (!backend(ctx).recording) check_cuda(cudaStreamSynchronize(stream(ctx)), kernel, file, line);
#else
  (void)ctx;
#endif
}

Chip chip() {
  static const Chip found = [] {
    int device = 0, sms = 0, shared = 0;
    CHECK_CUDA(cudaGetDevice(&device));
    CHECK_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
    CHECK_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return Chip{sms, shared};
  }();
  return found;
}

// Raised and never lowered: a recorded launch with more must not lose what it was allowed.
void allow_shared(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::unordered_map<const void*, size_t> allowed;
  const std::lock_guard<std::mutex> lock(mutex);
  size_t& so_far = allowed[kernel];
  if (bytes <= so_far) return;
  CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
  so_far = bytes;
}

void* take_memory(Ctx& ctx, size_t bytes) {
  ++ctx.calls.allocations;
  void* p = nullptr;
  const cudaError_t e = cudaMalloc(&p, bytes);
  if (e == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // or the next launch would report it again
    throw DeviceOutOfMemory("cudaMalloc", bytes, free_memory_now());
  }
  CHECK_CUDA(e);
  return p;
}

namespace {

// The domain `ccdrec`: categories named once, ranges as registered strings, since profilers select by those alone.
struct Profiled {
  nvtxDomainHandle_t domain = nvtxDomainCreateA("ccdrec");
  nvtxStringHandle_t name[std::size(kRangeTexts)] = {};
  Profiled() {
    for (uint32_t k = 0; k < std::size(kRangeTexts); ++k) {
      name[k] = nvtxDomainRegisterStringA(domain, kRangeTexts[k].name);
      const uint32_t category = category_number(RangeId(k));
      if (category == k + 1) nvtxDomainNameCategoryA(domain, category, kRangeTexts[k].category);
    }
  }
  static const Profiled& get() {
    static const Profiled p;
    return p;
  }
};
void enter(RangeId id, int64_t payload) {
  const Profiled& p = Profiled::get();
  nvtxEventAttributes_t a = {};
  a.version = NVTX_VERSION, a.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE, a.category = category_number(id);
  a.messageType = NVTX_MESSAGE_TYPE_REGISTERED, a.message.registered = p.name[size_t(id)];
  if (payload >= 0) a.payloadType = NVTX_PAYLOAD_TYPE_INT64, a.payload.llValue = payload;
  nvtxDomainRangePushEx(p.domain, &a);
}
void leave() { nvtxDomainRangePop(Profiled::get().domain); }

// Every way to wait for the device is counted (Ctx::calls), here and in tests/simt/runtime.cpp alike.
void synchronise(Ctx& ctx) {
  ++ctx.calls.waits;
  CHECK_CUDA(cudaStreamSynchronize(stream(ctx)));
}
void wait(Ctx& ctx) {
  CHECK_CUDA(cudaGetLastError());
  synchronise(ctx);
}

void* alloc(Ctx& ctx, size_t bytes) {
  if (bytes == 0) return nullptr;
  void* const p = take_memory(ctx, bytes);
  CHECK_CUDA(cudaMemsetAsync(p, 0, bytes, stream(ctx)));
  return p;
}
void free_memory(Ctx& ctx, void* p) {  // called by destructors, so it throws nothing
  ctx.calls.waits += p != nullptr;     // as cudaFree does
  (void)cudaFree(p);
}

void upload(Ctx& ctx, void* device, const void* host, size_t bytes) {
  if (bytes) CHECK_CUDA(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream(ctx)));
  synchronise(ctx);
}
void download(Ctx& ctx, void* host, const void* device, size_t bytes) {
  if (bytes) CHECK_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream(ctx)));
  synchronise(ctx);
}
void read(Ctx& ctx, const Piece* list, int n) {
  char* const landing = backend(ctx).landing;
  size_t at = 0;
  for (int k = 0; k < n; ++k) {
    check_that(at + list[k].bytes <= kMostRead, "at most kMostRead bytes", __FILE__, __LINE__);
    CHECK_CUDA(cudaMemcpyAsync(landing + at, list[k].device, list[k].bytes, cudaMemcpyDeviceToHost, stream(ctx)));
    at += list[k].bytes;
  }
  synchronise(ctx);
  at = 0;
  for (int k = 0; k < n; at += list[k++].bytes) std::memcpy(list[k].host, landing + at, list[k].bytes);
}

int32_t take_fault(Ctx& ctx) {
  int32_t f = 0;
  download(ctx, &f, ctx.fault, sizeof f);
  if (f) CHECK_CUDA(cudaMemsetAsync(ctx.fault, 0, sizeof f, stream(ctx)));
  return f;
}

struct Recording {
  cudaGraphExec_t exec = nullptr;
};

void* record(Ctx& ctx, const std::function<void()>& step) {
  Backend& b = backend(ctx);
  cudaGraph_t graph = nullptr;
  CHECK_CUDA(cudaStreamBeginCapture(stream(ctx), cudaStreamCaptureModeThreadLocal));
  b.recording = true;
  try {
    step();
  } catch (...) {
    b.recording = false;
    (void)cudaStreamEndCapture(stream(ctx), &graph);
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    throw;
  }
  b.recording = false;
  CHECK_CUDA(cudaStreamEndCapture(stream(ctx), &graph));
  auto r = std::make_unique<Recording>();
  const cudaError_t e = cudaGraphInstantiate(&r->exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  CHECK_CUDA(e);
  ++b.recordings, ++ctx.calls.recordings;
  return r.release();
}
void replay(Ctx& ctx, void* r) { CHECK_CUDA(cudaGraphLaunch(static_cast<Recording*>(r)->exec, stream(ctx))); }
void forget(Ctx& ctx, void* r) {
  if (!r) return;
  ++ctx.calls.waits;
  (void)cudaStreamSynchronize(stream(ctx));
  (void)cudaGraphExecDestroy(static_cast<Recording*>(r)->exec);
  delete static_cast<Recording*>(r);
  --backend(ctx).recordings;
}

// What the libraries take without being asked for it: their kernels, loaded when first used, and cudaMalloc's steps of
// 2 MB. An allowance, not measured.
constexpr size_t kLibraryCode = size_t(64) << 20;

__global__ void probe() {}

}  // namespace

std::string why_no_gpu(const GpuInfo& g, cudaError_t e, int devices) {
  if (g.driver == "none") return "no NVIDIA driver was found";
  if (e == cudaErrorInsufficientDriver)
    return "the NVIDIA driver serves CUDA " + g.driver + ", this build needs " + g.toolkit +
           "; update the driver or build with an older toolkit";
  if (e == cudaErrorNoDevice || (e == cudaSuccess && devices == 0))
    return "no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES may hide it)";
  return e == cudaSuccess ? "" : std::string("the CUDA runtime answers: ") + cudaGetErrorString(e);
}
// A driver older than the toolkit runs what was compiled for its GPU, but compiles no PTX of it.
std::string why_not_this_gpu(const GpuInfo& g, cudaError_t image, int64_t shared) {
  const std::string gpu =
      "the GPU (" + g.name + ", compute capability " + std::to_string(g.major) + "." + std::to_string(g.minor) + ")";
  if (image == cudaErrorUnsupportedPtxVersion)
    return gpu + " is not among those this build is for (" + g.built_for +
           "), and the NVIDIA driver, which serves CUDA " + g.driver +
           ", is too old to compile for it what a toolkit " + g.toolkit +
           " wrote; update the driver or build again on this machine";
  if (image != cudaSuccess)
    return gpu + " is not among those this build is for (" + g.built_for + "); build again on this machine";
  if (shared < kLeastShared)
    return gpu + " offers a block " + std::to_string(shared / 1024) + " KB of shared memory, and the kernels need " +
           std::to_string(kLeastShared / 1024) + "; a GPU of compute capability 8.0 or later has them";
  return "";
}

namespace {

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

void fill_runtime(Ops& t) {
  t.alloc = alloc, t.free = free_memory, t.upload = upload, t.download = download, t.read = read;
  t.wait = wait, t.enter = enter, t.leave = leave, t.take_fault = take_fault;
  t.record = record, t.replay = replay, t.forget = forget;
  t.library_bytes = kBlasRoom + kLibraryCode;
}

}  // namespace cuda

GpuInfo gpu_info() {
  GpuInfo g;
  g.built = true;
  g.built_for = CCDREC_CUDA_ARCHITECTURES;
  g.cusparse = cuda::library::has_spmm();
  int version = 0, devices = 0;
  (void)cudaRuntimeGetVersion(&version);
  g.toolkit = cuda::version_text(version);
  int driver = 0;
  (void)cudaDriverGetVersion(&driver);
  g.driver = driver ? cuda::version_text(driver) : "none";
  const cudaError_t e = cudaGetDeviceCount(&devices);
  (void)cudaGetLastError();
  g.why = cuda::why_no_gpu(g, e, devices);
  if (!g.why.empty()) return g;
  cudaDeviceProp p;
  if (cudaGetDeviceProperties(&p, 0) != cudaSuccess) {
    g.why = std::string("GPU 0 cannot be asked for its properties: ") + cudaGetErrorString(cudaGetLastError());
    return g;
  }
  g.name = p.name, g.major = p.major, g.minor = p.minor;
  cudaFuncAttributes a;
  const cudaError_t image = cudaFuncGetAttributes(&a, cuda::probe);
  (void)cudaGetLastError();
  g.why = cuda::why_not_this_gpu(g, image, int64_t(p.sharedMemPerBlockOptin));
  if (!g.why.empty()) return g;
  if (cudaMemGetInfo(&g.available, &g.memory) != cudaSuccess) {
    g.why = std::string("GPU 0 does not answer: ") + cudaGetErrorString(cudaGetLastError());
    return g;
  }
  g.why = cuda::why_no_blas();
  g.usable = g.why.empty();
  return g;
}

void open_gpu(Ctx& ctx, const char* precision) {
  using namespace cuda;
  const GpuInfo info = gpu_info();
  if (!info.usable) throw std::runtime_error(info.why);
  CHECK_CUDA(cudaSetDevice(0));
  auto b = std::make_unique<Backend>();
  cudaStream_t s = nullptr;
  CHECK_CUDA(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
  nvtxNameCudaStreamA(s, "ccdrec");
  const std::string p = precision;
  b->compute = p == "tf32"   ? CUBLAS_COMPUTE_32F_FAST_TF32
               : p == "bf16" ? CUBLAS_COMPUTE_32F_FAST_16BF
                             : CUBLAS_COMPUTE_32F;
  ctx.device = DeviceKind::cuda, ctx.stream = s, ctx.backend = b.release();
  void *const late = take_memory(ctx, sizeof(Late)), *const fault = take_memory(ctx, sizeof(int32_t));
  CHECK_CUDA(cudaMemsetAsync(late, 0, sizeof(Late), s));
  CHECK_CUDA(cudaMemsetAsync(fault, 0, sizeof(int32_t), s));
  CHECK_CUDA(cudaMallocHost(reinterpret_cast<void**>(&backend(ctx).landing), kMostRead));
  ctx.late = static_cast<Late*>(late), ctx.fault = static_cast<int32_t*>(fault);
  ctx.memory.take = [](Ctx& c, size_t bytes) -> void* {
    if (backend(c).recording) throw std::runtime_error("scratch memory grew while a step was recorded");
    return take_memory(c, bytes);
  };
  ctx.memory.give_back = [](Ctx& c, void* block, size_t bytes) {
    if (block && backend(c).recordings > 0)
      backend(c).outgrown.push_back(block), backend(c).held += bytes;
    else
      free_memory(c, block);
  };
  ctx.memory.held = [](const Ctx& c) { return static_cast<const Backend*>(c.backend)->held; };
  ctx.memory.close = [](Ctx& c) {
    std::unique_ptr<Backend> mine(static_cast<Backend*>(c.backend));
    (void)cudaStreamSynchronize(stream(c));
    for (void* block : mine->outgrown) (void)cudaFree(block);
    if (mine->blas) (void)cublasDestroy(mine->blas);
    close_sparse(*mine);
    (void)cudaFree(mine->blas_room), (void)cudaFree(const_cast<Late*>(c.late)), (void)cudaFree(c.fault);
    (void)cudaFreeHost(mine->landing);
    (void)cudaStreamDestroy(stream(c));
  };
  // Kernels are loaded when they are first launched. Every other one is, before a step that has it is recorded.
  gpu_ops()->advance_late(ctx, 0, 1);
  gpu_ops()->set_late(ctx, {});
}

}  // namespace ccdrec
