#include "kernels/init.h"

namespace ccdrec::cpu {
namespace {

// Calls put(c, v) for the columns of row r: value(draw, lane) of column 4 sub + lane comes from draw (row, sub).
template <class Value>
void fill_addressed(Ctx& ctx, Mat y, Stream s, Value&& value) {
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t r = 0; r < y.rows; ++r)
    for (int64_t c = 0; c < y.cols; c += 4) {
      float four[4];
      value(four, draw(s, uint32_t(r), uint32_t(c / 4)));
      for (int64_t l = 0; l < 4 && c + l < y.cols; ++l) y.row(r)[c + l] = four[l];
    }
}

}  // namespace

void init_uniform(Ctx& ctx, Mat y, float bound, Stream s) {
  fill_addressed(ctx, y, s, [bound](float* four, Draw4 x) {
    for (int l = 0; l < 4; ++l) four[l] = bound * (2.0f * uniform01(x.v[l]) - 1.0f);
  });
}

void init_normal(Ctx& ctx, Mat y, float sd, Stream s) {
  fill_addressed(ctx, y, s, [sd](float* four, Draw4 x) {
    normal_pair(x.v[0], x.v[1], four[0], four[1]);
    normal_pair(x.v[2], x.v[3], four[2], four[3]);
    for (int l = 0; l < 4; ++l) four[l] *= sd;
  });
}

}  // namespace ccdrec::cpu
