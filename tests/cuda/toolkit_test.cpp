// Needs the CUDA toolkit and no GPU: every function of cuBLAS and cuSPARSE that is loaded on demand (kernels/cuda/toolkit/delayed.cu) is there, and a call
// reaches it.
#include <cublas_v2.h>

#include <cstdio>
#include <string>

#include "kernels/cuda/toolkit/delayed.h"

int main() {
  for (const std::string& why : {ccdrec::cuda::why_no_blas(), ccdrec::cuda::why_no_sparse()}) {
    if (why.empty()) continue;
    std::fprintf(stderr, "%s\n", why.c_str());
    return 1;
  }
  cublasHandle_t handle = nullptr;
  const cublasStatus_t status = cublasCreate(&handle);  // without a GPU an answer too
  const std::string text = cublasGetStatusString(status), success = cublasGetStatusString(CUBLAS_STATUS_SUCCESS);
  std::printf("cublasCreate: %s\n", text.c_str());
  if (handle) cublasDestroy(handle);
  return text.empty() || (status == CUBLAS_STATUS_SUCCESS) != (text == success);
}
