// What a context of a real GPU keeps. Private to kernels/cuda/toolkit.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <vector>

#include "kernels/ctx.h"

namespace ccdrec::cuda {

// What NVIDIA advises for Hopper. With a workspace of its own and one stream cuBLAS gives the same bits.
constexpr size_t kBlasRoom = size_t(32) << 20;

struct Backend {
  cublasHandle_t blas = nullptr;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  void* blas_room = nullptr;    // given to cuBLAS once: it allocates nothing while a step is recorded
  void* sparse = nullptr;       // cusparseHandle_t
  char* landing = nullptr;      // kMostRead bytes of page-locked host memory: a copy to any other would wait for itself
  bool recording = false;       //
  int recordings = 0;           // alive: they hold addresses of scratch memory, so none of it may be given back
  std::vector<void*> outgrown;  // scratch blocks kept for them
  size_t held = 0;              // bytes of blas_room and these
};
inline Backend& backend(Ctx& ctx) { return *static_cast<Backend*>(ctx.backend); }
inline cudaStream_t stream(const Ctx& ctx) { return static_cast<cudaStream_t>(ctx.stream); }

// Device memory, counted by the context; DeviceOutOfMemory says how much was asked for and is free.
void* take_memory(Ctx&, size_t bytes);
size_t free_memory_now();  // bytes; 0: the GPU does not say

void close_sparse(Backend&);  // sparse.cu

void check_blas(cublasStatus_t, const char* what, const char* file, int line);
#define CHECK_BLAS(call) ::ccdrec::cuda::check_blas((call), #call, __FILE__, __LINE__)

}  // namespace ccdrec::cuda
