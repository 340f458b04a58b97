// cuSPARSE behind library.h, where the toolkit has it (CCDREC_CUSPARSE).
//
// Algorithm CUSPARSE_SPMM_CSR_ALG3: of the CSR algorithms the one NVIDIA names for results that are the same bits on
// every run; ALG1 and ALG2 have been seen to differ from run to run. It takes A as it lies (no transpose of A, which
// would not be reproducible in any algorithm). cusparseSpMM_preprocess is not called: it would keep per matrix, in a
// buffer of the caller's, what the call otherwise finds out itself. Operations keep nothing of a matrix, whose values
// and pattern may be others behind the same pointers in the next epoch.
#if defined(CCDREC_CUSPARSE)
#include <cusparse.h>
#endif

#include <stdexcept>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/toolkit/backend.h"
#include "kernels/device_memory.h"

namespace ccdrec::cuda {

#if defined(CCDREC_CUSPARSE)
namespace {

void check_sparse(cusparseStatus_t s, const char* what, const char* file, int line) {
  if (s == CUSPARSE_STATUS_SUCCESS) return;
  if (s == CUSPARSE_STATUS_ALLOC_FAILED) throw DeviceOutOfMemory(what, 0, free_memory_now());
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what + ": " +
                           cusparseGetErrorName(s) + " (" + cusparseGetErrorString(s) + ")");
}
#define CHECK_SPARSE(call) check_sparse((call), #call, __FILE__, __LINE__)

// At the first product, as cuBLAS's. A step's first run is direct, so none is opened while recording.
cusparseHandle_t sparse(Ctx& ctx) {
  Backend& b = backend(ctx);
  if (!b.sparse) {
    if (b.recording) throw std::runtime_error("cuSPARSE was first needed while a step was recorded");
    cusparseHandle_t handle = nullptr;
    CHECK_SPARSE(cusparseCreate(&handle));
    b.sparse = handle;
    CHECK_SPARSE(cusparseSetStream(handle, stream(ctx)));
  }
  return static_cast<cusparseHandle_t>(b.sparse);
}

// Objects of the host that say where the arrays lie: a launch copies what it needs of them, so they may go when the
// call returns, recorded or not.
struct Descriptors {
  cusparseConstSpMatDescr_t a = nullptr;
  cusparseConstDnMatDescr_t x = nullptr;
  cusparseDnMatDescr_t y = nullptr;
  Descriptors() = default;
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  ~Descriptors() {
    if (a) (void)cusparseDestroySpMat(a);
    if (x) (void)cusparseDestroyDnMat(x);
    if (y) (void)cusparseDestroyDnMat(y);
  }
};

}  // namespace

void close_sparse(Backend& b) {
  if (b.sparse) (void)cusparseDestroy(static_cast<cusparseHandle_t>(b.sparse));
  b.sparse = nullptr;
}

namespace library {

bool has_spmm() { return true; }

// How much room, then the work. The answer to the first depends on sizes alone: a recorded step asks for what its first
// run took.
void spmm(Ctx& ctx, Mat y, const Csr& a, const int32_t* row_ptr, CMat x, bool accumulate) {
  constexpr cusparseOperation_t kAsItIs = CUSPARSE_OPERATION_NON_TRANSPOSE;
  constexpr cusparseSpMMAlg_t kAlgorithm = CUSPARSE_SPMM_CSR_ALG3;
  // read by the host: the handle's pointer mode is left at that
  const float one = 1.0f, before = accumulate ? 1.0f : 0.0f;
  const cusparseHandle_t handle = sparse(ctx);
  Descriptors m;
  CHECK_SPARSE(cusparseCreateConstCsr(&m.a, a.rows, a.cols, a.nnz, row_ptr, a.col, a.val, CUSPARSE_INDEX_32I,
                                      CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUDA_R_32F));
  CHECK_SPARSE(cusparseCreateConstDnMat(&m.x, x.rows, x.cols, x.cols, x.p, CUDA_R_32F, CUSPARSE_ORDER_ROW));
  CHECK_SPARSE(cusparseCreateDnMat(&m.y, y.rows, y.cols, y.cols, y.p, CUDA_R_32F, CUSPARSE_ORDER_ROW));
  size_t bytes = 0;
  CHECK_SPARSE(
      cusparseSpMM_bufferSize(handle, kAsItIs, kAsItIs, &one, m.a, m.x, &before, m.y, CUDA_R_32F, kAlgorithm, &bytes));
  void* const room = ctx.scratch(8, bytes ? bytes : 1);
  CHECK_SPARSE(cusparseSpMM(handle, kAsItIs, kAsItIs, &one, m.a, m.x, &before, m.y, CUDA_R_32F, kAlgorithm, room));
}

}  // namespace library

#else

void close_sparse(Backend&) {}

namespace library {
bool has_spmm() { return false; }
void spmm(Ctx&, Mat, const Csr&, const int32_t*, CMat, bool) { throw std::logic_error("this build has no cuSPARSE"); }
}  // namespace library

#endif

}  // namespace ccdrec::cuda
