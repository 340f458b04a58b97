#include "kernels/cuda/device.h"
#include "kernels/init.h"

namespace ccdrec::cuda {
namespace {

constexpr int64_t kInitBlocks = 16384;

struct Uniform {
  float bound;
  __device__ void operator()(float* four, const Draw4& x) const {
    for (int l = 0; l < 4; ++l) four[l] = bound * (2.0f * uniform01(x.v[l]) - 1.0f);
  }
};
struct Normal {
  float sd;
  __device__ void operator()(float* four, const Draw4& x) const {
    normal_pair(x.v[0], x.v[1], four[0], four[1]);
    normal_pair(x.v[2], x.v[3], four[2], four[3]);
    for (int l = 0; l < 4; ++l) four[l] *= sd;
  }
};

// Columns 4 sub .. 4 sub + 3 of row r come from draw(r, sub).
// Geometry  one thread a draw, grid-stride.
// Traffic   4 bytes an element, 16 a thread side by side.
template <class Value>
__global__ void init_four_columns(Mat y, Value value, Stream stream, const Late* late) {
  const Stream s = resolved(stream, late);
  const int64_t fours = (y.cols + 3) / 4;
  for (int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; e < y.rows * fours;
       e += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = e / fours, c = e % fours * 4;
    float four[4];
    value(four, draw(s, uint32_t(r), uint32_t(c / 4)));
    for (int l = 0; l < 4 && c + l < y.cols; ++l) y.row(r)[c + l] = four[l];
  }
}

template <class Value>
void fill_addressed(Ctx& ctx, Mat y, Value value, Stream s) {
  const int64_t draws = y.rows * ((y.cols + 3) / 4);
  launch(init_four_columns<Value>, std::min(kInitBlocks, blocks_for(draws, 256)), 256, 0, ctx, y, value, s, ctx.late);
}

}  // namespace

void init_uniform(Ctx& ctx, Mat y, float bound, Stream s) { fill_addressed(ctx, y, Uniform{bound}, s); }
void init_normal(Ctx& ctx, Mat y, float sd, Stream s) { fill_addressed(ctx, y, Normal{sd}, s); }

}  // namespace ccdrec::cuda
