// Needs the CUDA toolkit and no GPU: every function of cuBLAS and cuSPARSE that is loaded on demand
// (kernels/cuda/toolkit/delayed.cu) is there, a call reaches it, and each answer of the runtime that rules a GPU out
// has its sentence.
#include <cublas_v2.h>

#include <cstdio>
#include <string>

#include "kernels/cuda/chip.h"
#include "kernels/cuda/toolkit/delayed.h"
#include "kernels/cuda/toolkit/why.h"

namespace {
using namespace ccdrec;

int wrong = 0;
void expect(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "not as expected: %s\n", what.c_str());
  ++wrong;
}
// The sentence contains `part`; nothing is said where `part` is empty.
void expect_says(const std::string& said, const std::string& part) {
  expect(part.empty() ? said.empty() : said.find(part) != std::string::npos && said.find('\n') == std::string::npos,
         "'" + said + "', with '" + part + "'");
}

void libraries() {
  for (const std::string& why : {cuda::why_no_blas(), cuda::why_no_sparse()}) expect(why.empty(), why);
  cublasHandle_t handle = nullptr;
  const cublasStatus_t status = cublasCreate(&handle);  // without a GPU an answer too
  const std::string text = cublasGetStatusString(status), success = cublasGetStatusString(CUBLAS_STATUS_SUCCESS);
  std::printf("cublasCreate: %s\n", text.c_str());
  if (handle) cublasDestroy(handle);
  expect(!text.empty() && (status == CUBLAS_STATUS_SUCCESS) == (text == success), text);
}

void reasons() {
  GpuInfo g;
  g.toolkit = "13.0", g.driver = "none", g.name = "NVIDIA T4", g.major = 7, g.minor = 5, g.built_for = "80";
  expect_says(cuda::why_no_gpu(g, cudaErrorInsufficientDriver, 0), "no NVIDIA driver was found");
  g.driver = "12.4";
  expect_says(cuda::why_no_gpu(g, cudaErrorInsufficientDriver, 0),
              "serves CUDA 12.4, this build needs 13.0; update the driver");
  expect_says(cuda::why_no_gpu(g, cudaErrorNoDevice, 0), "no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES may hide it)");
  expect_says(cuda::why_no_gpu(g, cudaSuccess, 0), "no NVIDIA GPU is visible");
  expect_says(cuda::why_no_gpu(g, cudaErrorUnknown, 1), "the CUDA runtime answers: ");
  expect_says(cuda::why_no_gpu(g, cudaSuccess, 1), "");
  const int64_t enough = cuda::kLeastShared;
  expect_says(cuda::why_not_this_gpu(g, cudaErrorNoKernelImageForDevice, enough),
              "(NVIDIA T4, compute capability 7.5) is not among those this build is for (80)");
  expect_says(cuda::why_not_this_gpu(g, cudaErrorUnsupportedPtxVersion, enough),
              "the NVIDIA driver, which serves CUDA 12.4, is too old");
  expect_says(cuda::why_not_this_gpu(g, cudaSuccess, enough - 1024),
              "offers a block 98 KB of shared memory, and the kernels need 99");
  expect_says(cuda::why_not_this_gpu(g, cudaSuccess, enough), "");
}

}  // namespace

int main() {
  libraries();
  reasons();
  return wrong != 0;
}
