// What a context of a real GPU keeps. Private to kernels/cuda/toolkit.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <vector>

#include "kernels/ctx.h"

namespace ccdrec::cuda {

struct Backend {
  cublasHandle_t blas = nullptr;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  void* blas_room = nullptr;    // given to cuBLAS once: it allocates nothing while a step is recorded
  void* sparse = nullptr;       // cusparseHandle_t
  bool recording = false;       //
  int recordings = 0;           // alive: they hold addresses of scratch memory, so none of it may be given back
  std::vector<void*> outgrown;  // scratch blocks kept for them
};
inline Backend& backend(Ctx& ctx) { return *static_cast<Backend*>(ctx.backend); }
inline cudaStream_t stream(const Ctx& ctx) { return static_cast<cudaStream_t>(ctx.stream); }

void close_sparse(Backend&);  // sparse.cu

void check_blas(cublasStatus_t, const char* what, const char* file, int line);
#define CHECK_BLAS(call) ::ccdrec::cuda::check_blas((call), #call, __FILE__, __LINE__)

}  // namespace ccdrec::cuda
