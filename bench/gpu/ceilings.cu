#include "bench/gpu/ceilings.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/library.h"

namespace ccdrec {
namespace cuda {
namespace {

__global__ void gather_warp_per_32_rows(Mat acc, const float* table, const int32_t* ids) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t w = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp, d = acc.cols;
  if (w >= acc.rows) return;
  for (int64_t j = 2 * lane; j + 1 < d; j += 2 * kWarp) {
    float2 sum = make_float2(0, 0);
#pragma unroll 8
    for (int e = 0; e < kWarp; ++e) {
      const float2 x = *reinterpret_cast<const float2*>(table + int64_t(ids[w * kWarp + e]) * d + j);
      sum.x += x.x, sum.y += x.y;
    }
    *reinterpret_cast<float2*>(acc.row(w) + j) = sum;
  }
}

}  // namespace
}  // namespace cuda

namespace bench {

void gather_random_rows(Ctx& ctx, Mat acc, CMat table, const int32_t* ids) {
  using namespace ::ccdrec::cuda;
  launch(gather_warp_per_32_rows, blocks_for(acc.rows, 8), 256, 0, ctx, acc, table.p, ids);
}

namespace {
template <class Work>
double best(GpuClock& clock, int times, Work&& work) {
  double least = 1e30;
  for (int k = 0; k < times; ++k) least = std::min(least, clock.seconds(work));
  return least;
}
}  // namespace

GpuCeilings measure_gpu(Device& dev, GpuClock& clock, double scale) {
  GpuCeilings c;
  {
    const int64_t n = std::max<int64_t>(1024, int64_t(scale * (int64_t(1) << 28)));  // 1 GiB each way
    Array<float> a(dev, n), b(dev, n);
    c.copy_gbs = 8e-9 * double(n) / best(clock, 12, [&] { cuda::library::copy(dev.ctx, b.p(), a.p(), size_t(n) * 4); });
  }
  {
    const int64_t n = std::max<int64_t>(16, int64_t(scale * 4096));
    Matrix a(dev, n, n), b(dev, n, n), y(dev, n, n);
    // products of zeros run faster
    for (const Matrix* m : {&a, &b}) dev.ops.init_uniform(dev.ctx, *m, 1.0f, Stream{1, Use::test});
    c.gemm_tflops = 2e-12 * double(n) * double(n) * double(n) /
                    best(clock, 8, [&] { cuda::library::gemm(dev.ctx, y, a, false, b, false, false); });
  }
  {
    const int64_t B = std::max<int64_t>(16, int64_t(scale * 2048)), C = std::max<int64_t>(16, int64_t(scale * 100000)),
                  d = 64;
    Matrix a(dev, B, d), b(dev, C, d), y(dev, B, C);
    for (const Matrix* m : {&a, &b}) dev.ops.init_uniform(dev.ctx, *m, 1.0f, Stream{1, Use::test});
    c.skinny_tflops = 2e-12 * double(B) * double(C) * double(d) /
                      best(clock, 8, [&] { cuda::library::gemm(dev.ctx, y, a, false, b, true, false); });
  }
  return c;
}

}  // namespace bench
}  // namespace ccdrec
