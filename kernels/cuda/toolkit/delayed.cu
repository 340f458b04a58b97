// cuBLAS and cuSPARSE, loaded when they are first called. Linked, they would be read by every run of the program: 250
// MB of memory and 0.1 s for one that computes on the CPU, and on a machine without the toolkit it would not start. The
// functions that kernels/cuda/toolkit calls are defined here, each of them passes its arguments on to its namesake in
// the library.
#include <cublas_v2.h>

#include "kernels/cuda/toolkit/delayed.h"
#if defined(CCDREC_CUSPARSE)
#include <cusparse.h>
#endif
#include <dlfcn.h>

#include <stdexcept>

namespace ccdrec::cuda {
namespace {

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

// Looked for where the system looks (LD_LIBRARY_PATH too), then where it lay when this was built.
struct Library {
  std::string file, folder;
  void* handle = nullptr;
  std::string why;
  Library(const char* stem, const char* major, const char* built_with)
      : file(std::string("lib") + stem + ".so." + major), folder(built_with) {
    handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) why = dlerror();
    if (!handle && !folder.empty()) handle = dlopen((folder + "/" + file).c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  void* find(const char* name) const {
    if (!handle)
      throw std::runtime_error(file + " cannot be loaded (" + why + "), expected in the system's library path or in " +
                               folder +
                               "; install the CUDA toolkit's libraries, or name their folder in LD_LIBRARY_PATH");
    void* f = dlsym(handle, name);
    if (!f)
      throw std::runtime_error(file + " has no " + name +
                               "; install the libraries of the toolkit that this program was built with");
    return f;
  }
};

const Library& blas() {
  static const Library library("cublas", TEXT(CUBLAS_VER_MAJOR), CCDREC_CUBLAS_FOLDER);
  return library;
}
#if defined(CCDREC_CUSPARSE)
const Library& sparse() {
  static const Library library("cusparse", TEXT(CUSPARSE_VER_MAJOR), CCDREC_CUSPARSE_FOLDER);
  return library;
}
#endif

}  // namespace

std::string why_no_blas() {
  try {
    for (const char* name : {TEXT(cublasCreate), TEXT(cublasDestroy), TEXT(cublasSetStream), TEXT(cublasSetWorkspace),
                             TEXT(cublasGetStatusString), TEXT(cublasGemmEx), TEXT(cublasGemmStridedBatchedEx)})
      (void)blas().find(name);
    return "";
  } catch (const std::runtime_error& e) { return e.what(); }
}

std::string why_no_sparse() {
#if defined(CCDREC_CUSPARSE)
  try {
    for (const char* name : {TEXT(cusparseCreate), TEXT(cusparseDestroy), TEXT(cusparseSetStream),
                             TEXT(cusparseGetErrorName), TEXT(cusparseGetErrorString), TEXT(cusparseCreateConstCsr),
                             TEXT(cusparseCreateConstDnMat), TEXT(cusparseCreateDnMat), TEXT(cusparseDestroySpMat),
                             TEXT(cusparseDestroyDnMat), TEXT(cusparseSpMM_bufferSize), TEXT(cusparseSpMM)})
      (void)sparse().find(name);
    return "";
  } catch (const std::runtime_error& e) { return e.what(); }
#else
  return "this build has no cuSPARSE";
#endif
}

}  // namespace ccdrec::cuda

// RESULT NAME(PARAMETERS) of LIBRARY: found once, then a jump.
#define PASS_ON(library, result, name, parameters, arguments)                                               \
  extern "C" result name parameters {                                                                       \
    static const auto f = reinterpret_cast<result(*) parameters>(ccdrec::cuda::library().find(TEXT(name))); \
    return f arguments;                                                                                     \
  }

PASS_ON(blas, cublasStatus_t, cublasCreate, (cublasHandle_t * handle), (handle))
PASS_ON(blas, cublasStatus_t, cublasDestroy, (cublasHandle_t handle), (handle))
PASS_ON(blas, cublasStatus_t, cublasSetStream, (cublasHandle_t handle, cudaStream_t stream), (handle, stream))
PASS_ON(blas, cublasStatus_t, cublasSetWorkspace, (cublasHandle_t handle, void* room, size_t bytes),
        (handle, room, bytes))
PASS_ON(blas, const char*, cublasGetStatusString, (cublasStatus_t status), (status))
PASS_ON(blas, cublasStatus_t, cublasGemmEx,
        (cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k, const void* alpha,
         const void* a, cudaDataType a_type, int lda, const void* b, cudaDataType b_type, int ldb, const void* beta,
         void* c, cudaDataType c_type, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t algorithm),
        (handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algorithm))
PASS_ON(blas, cublasStatus_t, cublasGemmStridedBatchedEx,
        (cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k, const void* alpha,
         const void* a, cudaDataType a_type, int lda, long long int a_stride, const void* b, cudaDataType b_type,
         int ldb, long long int b_stride, const void* beta, void* c, cudaDataType c_type, int ldc,
         long long int c_stride, int count, cublasComputeType_t compute, cublasGemmAlgo_t algorithm),
        (handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, a_stride, b, b_type, ldb, b_stride, beta, c, c_type, ldc,
         c_stride, count, compute, algorithm))

#if defined(CCDREC_CUSPARSE)
PASS_ON(sparse, cusparseStatus_t, cusparseCreate, (cusparseHandle_t * handle), (handle))
PASS_ON(sparse, cusparseStatus_t, cusparseDestroy, (cusparseHandle_t handle), (handle))
PASS_ON(sparse, cusparseStatus_t, cusparseSetStream, (cusparseHandle_t handle, cudaStream_t stream), (handle, stream))
PASS_ON(sparse, const char*, cusparseGetErrorName, (cusparseStatus_t status), (status))
PASS_ON(sparse, const char*, cusparseGetErrorString, (cusparseStatus_t status), (status))
PASS_ON(sparse, cusparseStatus_t, cusparseCreateConstCsr,
        (cusparseConstSpMatDescr_t * matrix, int64_t rows, int64_t cols, int64_t nnz, const void* row_ptr,
         const void* col, const void* val, cusparseIndexType_t row_ptr_type, cusparseIndexType_t col_type,
         cusparseIndexBase_t base, cudaDataType type),
        (matrix, rows, cols, nnz, row_ptr, col, val, row_ptr_type, col_type, base, type))
PASS_ON(sparse, cusparseStatus_t, cusparseCreateConstDnMat,
        (cusparseConstDnMatDescr_t * matrix, int64_t rows, int64_t cols, int64_t ld, const void* values,
         cudaDataType type, cusparseOrder_t order),
        (matrix, rows, cols, ld, values, type, order))
PASS_ON(sparse, cusparseStatus_t, cusparseCreateDnMat,
        (cusparseDnMatDescr_t * matrix, int64_t rows, int64_t cols, int64_t ld, void* values, cudaDataType type,
         cusparseOrder_t order),
        (matrix, rows, cols, ld, values, type, order))
PASS_ON(sparse, cusparseStatus_t, cusparseDestroySpMat, (cusparseConstSpMatDescr_t matrix), (matrix))
PASS_ON(sparse, cusparseStatus_t, cusparseDestroyDnMat, (cusparseConstDnMatDescr_t matrix), (matrix))
PASS_ON(sparse, cusparseStatus_t, cusparseSpMM_bufferSize,
        (cusparseHandle_t handle, cusparseOperation_t op_a, cusparseOperation_t op_b, const void* alpha,
         cusparseConstSpMatDescr_t a, cusparseConstDnMatDescr_t b, const void* beta, cusparseDnMatDescr_t c,
         cudaDataType compute, cusparseSpMMAlg_t algorithm, size_t* bytes),
        (handle, op_a, op_b, alpha, a, b, beta, c, compute, algorithm, bytes))
PASS_ON(sparse, cusparseStatus_t, cusparseSpMM,
        (cusparseHandle_t handle, cusparseOperation_t op_a, cusparseOperation_t op_b, const void* alpha,
         cusparseConstSpMatDescr_t a, cusparseConstDnMatDescr_t b, const void* beta, cusparseDnMatDescr_t c,
         cudaDataType compute, cusparseSpMMAlg_t algorithm, void* room),
        (handle, op_a, op_b, alpha, a, b, beta, c, compute, algorithm, room))
#endif
