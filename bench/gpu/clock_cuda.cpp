#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "bench/gpu/clock.h"

namespace ccdrec::bench {
namespace {
void check(cudaError_t e, const char* what) {
  if (e != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(e));
}
}  // namespace

struct GpuClock::Impl {
  cudaStream_t stream = nullptr;
  cudaEvent_t start = nullptr, stop = nullptr;
  void* room = nullptr;
  size_t room_bytes = 0;
  int l2 = 0;
};

GpuClock::GpuClock(Ctx& ctx) : impl_(std::make_unique<Impl>()) {
  impl_->stream = static_cast<cudaStream_t>(ctx.stream);
  check(cudaEventCreate(&impl_->start), "cudaEventCreate");
  check(cudaEventCreate(&impl_->stop), "cudaEventCreate");
  check(cudaDeviceGetAttribute(&impl_->l2, cudaDevAttrL2CacheSize, 0), "cudaDeviceGetAttribute");
  impl_->room_bytes = size_t(impl_->l2) * 4;
  check(cudaMalloc(&impl_->room, impl_->room_bytes), "cudaMalloc");
}
GpuClock::~GpuClock() {
  (void)cudaEventDestroy(impl_->start), (void)cudaEventDestroy(impl_->stop), (void)cudaFree(impl_->room);
}
double GpuClock::seconds(const std::function<void()>& work) {
  check(cudaEventRecord(impl_->start, impl_->stream), "cudaEventRecord");
  work();
  check(cudaEventRecord(impl_->stop, impl_->stream), "cudaEventRecord");
  check(cudaEventSynchronize(impl_->stop), "cudaEventSynchronize");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, impl_->start, impl_->stop), "cudaEventElapsedTime");
  return double(ms) * 1e-3;
}
void GpuClock::flush_l2() {
  check(cudaMemsetAsync(impl_->room, 1, impl_->room_bytes, impl_->stream), "cudaMemsetAsync");
}
double GpuClock::l2_bytes() const { return impl_->l2; }

}  // namespace ccdrec::bench
