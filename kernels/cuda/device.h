// The dialect of the CUDA kernels: one source that nvcc compiles for a GPU and a C++ compiler for the emulator of
// tests/simt.
//
//   launch(kernel, grid, block, shared, ctx, args...)   in place of the triple brackets; templates in parentheses:
//                                                       launch((k<64, 4>), ...). A grid of 0 blocks launches nothing.
//                                                       Checked; names the kernel in the error.
//   SHARED(T, name, [N][M]);                            a __shared__ array;  SHARED(T, name, );  a scalar
//   T* p = dynamic_shared<T>();                         the block's dynamic shared memory (`shared` bytes of the
//                                                       launch), 16-byte aligned
//   threadIdx, blockIdx, blockDim, gridDim              as in CUDA; blocks are multiples of 32 threads
//   __syncthreads, __syncthreads_or / _and / _count,    the mask names exactly the lanes that take part
//   __syncwarp, __shfl_sync / _up / _down / _xor,
//   __ballot_sync, __any_sync, __all_sync,
//   __match_any_sync
//   atomicAdd / Min / Max / Or / And / CAS / Exch       on integers only: sums of floats have a fixed order
//   __ldg, __popc, __popcll, __ffs, __clz, __clzll, __brev, float2 / float4 / int2 / int4 / uint4 and make_*, fmaf,
//   sqrtf, expf, fminf, fmaxf, __float_as_int, __int_as_float, __float_as_uint, __uint_as_float
// Not in the dialect: CUB inside kernels, cooperative groups, grid-wide synchronisation, inline PTX, warpSize, printf,
// float atomics. Library calls (cuBLAS, CUB device-wide) are host functions of library.h. nvcc contracts nothing
// (--fmad=false): a kernel that wants a fused multiply-add writes fmaf, so the emulator and the GPU round alike.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/ops.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define SHARED(T, name, dims) __shared__ T name dims
namespace ccdrec::cuda {
struct Grid {
  dim3 d;
  Grid(int64_t x) : d(grid_size(x), 1, 1) {}
  Grid(int64_t x, int64_t y, int64_t z = 1) : d(grid_size(x), grid_size(y), grid_size(z)) {}
  static unsigned grid_size(int64_t n) {
    check_that(n >= 0 && n < (int64_t(1) << 31), "a grid of 0 to 2^31-1 blocks", __FILE__, __LINE__);
    return unsigned(n);
  }
};
// throws std::runtime_error naming the call; ops.cu
void check_cuda(cudaError_t, const char* what, const char* file, int line);
// the launch itself; in debug builds also its execution
void check_launch(Ctx&, const char* kernel, const char* file, int line);
#define CHECK_CUDA(call) ::ccdrec::cuda::check_cuda((call), #call, __FILE__, __LINE__)

template <class T>
__device__ inline T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char ccdrec_dynamic_shared[];
  return reinterpret_cast<T*>(ccdrec_dynamic_shared);
}
void allow_shared(const void* kernel, size_t bytes);  // more than 48 KB has to be asked for, once per kernel and device

template <class... P, class... A>
void launch_named(const char* name, const char* file, int line, void (*kernel)(P...), Grid grid, int block,
                  size_t shared, Ctx& ctx, A&&... args) {
  // With what the kernel declares itself (less than 32 KB) it may come to more than 48.
  if (grid.d.x == 0 || grid.d.y == 0 || grid.d.z == 0) return;
  if (shared > 16 * 1024) allow_shared(reinterpret_cast<const void*>(kernel), shared);
  kernel<<<grid.d, unsigned(block), shared, static_cast<cudaStream_t>(ctx.stream)>>>(static_cast<P>(args)...);
  check_launch(ctx, name, file, line);
}
}  // namespace ccdrec::cuda
#else
#include "tests/simt/simt.h"
#endif

#define launch(kernel, ...) launch_named(#kernel, __FILE__, __LINE__, kernel, __VA_ARGS__)

namespace ccdrec::cuda {

#define CCDREC_DECLARE(name) decltype(::ccdrec::cpu::name) name;  // the same signature as on the CPU
CCDREC_OPS(CCDREC_DECLARE)
CCDREC_SCRATCH(CCDREC_DECLARE)
#undef CCDREC_DECLARE

constexpr unsigned kAll = 0xffffffffu;  // all lanes of a warp
constexpr int kWarp = 32;
inline int bits_below(int64_t n) { return n > 1 ? int(std::bit_width(uint64_t(n - 1))) : 1; }  // of the numbers 0..n-1
inline int64_t blocks_for(int64_t n, int64_t per_block) { return (n + per_block - 1) / per_block; }

// What a CPU operation would throw for can only be noted here: the host reads the word once per epoch.
enum Fault : int32_t { kNoFault = 0, kAdamSteppedTwice = 1, kListTooSmall = 2, kNonFinite = 3, kIdOutOfRange = 4 };

}  // namespace ccdrec::cuda
