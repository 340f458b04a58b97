// cuBLAS and CUB device-wide behind library.h.
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <cub/device/device_segmented_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <cuda/std/functional>
#include <stdexcept>

#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/toolkit/backend.h"

namespace ccdrec::cuda::library {
namespace {

// CUB's two calls: how much room, then the work. The answer to the first depends on sizes alone and costs no launch.
template <class Call>
void with_room(Ctx& ctx, Call&& call) {
  size_t bytes = 0;
  CHECK_CUDA(call(nullptr, bytes));
  void* room = ctx.scratch(8, bytes ? bytes : 1);
  CHECK_CUDA(call(room, bytes));
}

struct FirstOf {  // the place where a segment begins
  int64_t length;
  __host__ __device__ int64_t operator()(int64_t segment) const { return segment * length; }
};

// Handle and workspace at the first product: most contexts of the tests need none. A step's first run is direct, so
// none is opened while recording.
void open_blas(Ctx& ctx) {
  Backend& b = backend(ctx);
  if (b.blas) return;
  if (b.recording) throw std::runtime_error("cuBLAS was first needed while a step was recorded");
  CHECK_BLAS(cublasCreate(&b.blas));
  CHECK_BLAS(cublasSetStream(b.blas, stream(ctx)));
  b.blas_room = take_memory(ctx, kBlasRoom);
  b.held += kBlasRoom;
  CHECK_BLAS(cublasSetWorkspace(b.blas, b.blas_room, kBlasRoom));
}

}  // namespace

void gemm_strided(Ctx& ctx, Mat c, int64_t c_stride, CMat a, bool trans_a, int64_t a_stride, CMat b, bool trans_b,
                  int64_t b_stride, int64_t count, bool accumulate) {
  const int64_t m = c.rows, n = c.cols, k = trans_a ? a.rows : a.cols;
  CHECK_SHAPE(a, trans_a ? k : m, trans_a ? m : k);
  CHECK_SHAPE(b, trans_b ? n : k, trans_b ? k : n);
  if (m == 0 || n == 0 || count == 0) return;
  if (k == 0) {
    for (int64_t s = 0; s < count && !accumulate; ++s) fill(ctx, c.p + s * c_stride, 0, size_t(m * n) * sizeof(float));
    return;
  }
  // cuBLAS counts columns first: row-major C = A B is C^T = B^T A^T there, and each matrix already lies as its
  // transpose.
  const float one = 1.0f, before = accumulate ? 1.0f : 0.0f;
  open_blas(ctx);
  const Backend& back = backend(ctx);
  const cublasOperation_t op_b = trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, op_a = trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  if (count == 1) {  // not the batched call: cuBLAS splits k, which the tall projections need, only here
    CHECK_BLAS(cublasGemmEx(back.blas, op_b, op_a, int(n), int(m), int(k), &one, b.p, CUDA_R_32F, int(b.cols), a.p,
                            CUDA_R_32F, int(a.cols), &before, c.p, CUDA_R_32F, int(n), back.compute,
                            CUBLAS_GEMM_DEFAULT));
    return;
  }
  CHECK_BLAS(cublasGemmStridedBatchedEx(back.blas, op_b, op_a, int(n), int(m), int(k), &one, b.p, CUDA_R_32F,
                                        int(b.cols), b_stride, a.p, CUDA_R_32F, int(a.cols), a_stride, &before, c.p,
                                        CUDA_R_32F, int(n), c_stride, int(count), back.compute, CUBLAS_GEMM_DEFAULT));
}
void gemm(Ctx& ctx, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate) {
  gemm_strided(ctx, c, 0, a, trans_a, 0, b, trans_b, 0, 1, accumulate);
}

void sort_keys(Ctx& ctx, uint32_t* out, const uint32_t* in, int64_t n, int bits) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(room, bytes, in, out, n, 0, bits, stream(ctx));
    });
}
void sort_keys(Ctx& ctx, uint64_t* out, const uint64_t* in, int64_t n, int bits) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(room, bytes, in, out, n, 0, bits, stream(ctx));
    });
}
void sort_pairs(Ctx& ctx, uint32_t* keys_out, int32_t* values_out, const uint32_t* keys, const int32_t* values,
                int64_t n, int bits) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(room, bytes, keys, keys_out, values, values_out, n, 0, bits, stream(ctx));
    });
}
void sort_pairs(Ctx& ctx, uint64_t* keys_out, int32_t* values_out, const uint64_t* keys, const int32_t* values,
                int64_t n, int bits) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(room, bytes, keys, keys_out, values, values_out, n, 0, bits, stream(ctx));
    });
}

void sort_segments(Ctx& ctx, uint32_t* keys_out, int32_t* values_out, const uint32_t* keys, const int32_t* values,
                   int64_t segments, int64_t length) {
  if (segments == 0 || length == 0) return;
  const thrust::counting_iterator<int64_t> number(0);
  const auto begin = thrust::make_transform_iterator(number, FirstOf{length}), end = begin + 1;
  with_room(ctx, [&](void* room, size_t& bytes) {
    return cub::DeviceSegmentedRadixSort::SortPairs(room, bytes, keys, keys_out, values, values_out, segments * length,
                                                    segments, begin, end, 0, 32, stream(ctx));
  });
}

void exclusive_sum(Ctx& ctx, int32_t* out, const int32_t* in, int64_t n) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceScan::ExclusiveSum(room, bytes, in, out, n, stream(ctx));
    });
}
// the type of the start is the type of the sum
void exclusive_sum(Ctx& ctx, int64_t* out, const int32_t* in, int64_t n) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceScan::ExclusiveScan(room, bytes, in, out, ::cuda::std::plus<int64_t>{}, int64_t(0), n,
                                            stream(ctx));
    });
}
void inclusive_sum(Ctx& ctx, int32_t* out, const int32_t* in, int64_t n) {
  if (n)
    with_room(ctx, [&](void* room, size_t& bytes) {
      return cub::DeviceScan::InclusiveSum(room, bytes, in, out, n, stream(ctx));
    });
}
void select_flagged(Ctx& ctx, int32_t* out, int64_t* count, const uint8_t* flag, int64_t n) {
  const thrust::counting_iterator<int32_t> position(0);
  with_room(ctx, [&](void* room, size_t& bytes) {
    return cub::DeviceSelect::Flagged(room, bytes, position, flag, out, count, n, stream(ctx));
  });
}

void fill(Ctx& ctx, void* p, int byte, size_t bytes) {
  if (bytes) CHECK_CUDA(cudaMemsetAsync(p, byte, bytes, stream(ctx)));
}
void copy(Ctx& ctx, void* to, const void* from, size_t bytes) {
  if (bytes) CHECK_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream(ctx)));
}

}  // namespace ccdrec::cuda::library
