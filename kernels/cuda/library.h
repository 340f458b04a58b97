// Library calls of the CUDA operations, apart from the kernels: cuBLAS and CUB device-wide in toolkit/library.cu,
// cuSPARSE in toolkit/sparse.cu, plain loops in tests/simt/library.cpp. All sorts are stable. Temporary memory is
// scratch slot 8. Nothing here waits for the device.
#pragma once
#include <cstdint>

#include "kernels/ctx.h"

namespace ccdrec::cuda::library {

// Slot 8 of a sort of n keys, with values or without: CUB moves both through a second copy and counts digits by block.
inline void sort_scratch(ScratchPlan& p, int64_t n, int64_t key_bytes) {
  p.need(8, n * (key_bytes + 4) + n / 4 + 65536);
}

// C = op(A) op(B) or += ; row-major, as gemm.h. FP32 unless the context was opened with another precision
// (kernels/precision.h).
void gemm(Ctx&, Mat c, CMat a, bool trans_a, CMat b, bool trans_b, bool accumulate);
// `count` products of the same shape, `stride` floats apart (0: the same matrix for all).
void gemm_strided(Ctx&, Mat c, int64_t c_stride, CMat a, bool trans_a, int64_t a_stride, CMat b, bool trans_b,
                  int64_t b_stride, int64_t count, bool accumulate);

// Y = A X or += by cuSPARSE's deterministic algorithm, with A.nnz > 0 and `row_ptr` = A.row_ptr in 32 bits: cuSPARSE
// has one width for all indices. A build without cuSPARSE has no such product: has_spmm() is false and the call throws
// std::logic_error.
bool has_spmm();
void spmm(Ctx&, Mat y, const Csr& a, const int32_t* row_ptr, CMat x, bool accumulate);

// Ascending by bits 0 .. bits-1 of the key. Out may not overlap in.
void sort_keys(Ctx&, uint32_t* out, const uint32_t* in, int64_t n, int bits = 32);
void sort_keys(Ctx&, uint64_t* out, const uint64_t* in, int64_t n, int bits = 64);
void sort_pairs(Ctx&, uint32_t* keys_out, int32_t* values_out, const uint32_t* keys, const int32_t* values, int64_t n,
                int bits = 32);
void sort_pairs(Ctx&, uint64_t* keys_out, int32_t* values_out, const uint64_t* keys, const int32_t* values, int64_t n,
                int bits = 64);

// Each of `segments` stretches of `length` for itself. No operation sorts so: it is what bench_gpu holds knn_cosine
// against.
void sort_segments(Ctx&, uint32_t* keys_out, int32_t* values_out, const uint32_t* keys, const int32_t* values,
                   int64_t segments, int64_t length);

// out[j] = in[0] + .. + in[j-1], j < n. In place is allowed.
void exclusive_sum(Ctx&, int32_t* out, const int32_t* in, int64_t n);
void exclusive_sum(Ctx&, int64_t* out, const int32_t* in, int64_t n);
// out[j] = in[0] + .. + in[j].
void inclusive_sum(Ctx&, int32_t* out, const int32_t* in, int64_t n);
// The positions j < n with flag[j] != 0, ascending, to out; their number to *count (device memory).
void select_flagged(Ctx&, int32_t* out, int64_t* count, const uint8_t* flag, int64_t n);

void fill(Ctx&, void* p, int byte, size_t bytes);  // memset
void copy(Ctx&, void* to, const void* from, size_t bytes);

}  // namespace ccdrec::cuda::library
