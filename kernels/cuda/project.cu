#include "kernels/cuda/library.h"
#include "kernels/cuda/product_tile.h"
#include "kernels/project.h"

namespace ccdrec::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kProjectRows = kThreads / kWarp;
constexpr int kProjectChunk = 256;  // rows of dY that are added up before they are added to db: gemm.h's block

// The rows in use: never more than there is room for, and then a fault.
__device__ inline int64_t rows_in_use(RowList rows, int64_t most, int32_t* fault) {
  const int64_t n = rows.n();
  if (n > most && blockIdx.x == 0 && threadIdx.x == 0) atomicMax(fault, int(kListTooSmall));
  return n < most ? n : most;
}

// G[j] = X[rows[j]], j < n; rows beyond are zero if `pad`, else left as they are. One warp a row, V floats a lane and
// read, four reads under way.
template <int V>
__device__ inline void gather_row(Mat g, CMat x, RowList rows, int64_t n, int64_t j, bool pad) {
  constexpr int kAtOnce = 4;
  if (j >= g.rows || (j >= n && !pad)) return;
  const float* from = j < n ? x.row(rows.at(j)) : nullptr;
  float* to = g.row(j);
  for (int64_t base = int64_t(threadIdx.x) % kWarp * V; base < x.cols; base += kAtOnce * kWarp * V) {
    if constexpr (V == 4) {
      float4 v[kAtOnce];
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q)
        v[q] = from && base + q * kWarp * 4 < x.cols ? *reinterpret_cast<const float4*>(from + base + q * kWarp * 4)
                                                     : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int q = 0; q < kAtOnce; ++q)
        if (base + q * kWarp * 4 < x.cols) *reinterpret_cast<float4*>(to + base + q * kWarp * 4) = v[q];
    } else {
      for (int q = 0; q < kAtOnce && base + q * kWarp < x.cols; ++q)
        to[base + q * kWarp] = from ? from[base + q * kWarp] : 0.0f;
    }
  }
}

// Geometry  one warp a listed row, 8 rows a block.
// Traffic   8 F bytes a row.
template <int V>
__global__ void project_gather(Mat g, CMat x, RowList rows, int32_t* fault) {
  gather_row<V>(g, x, rows, rows_in_use(rows, g.rows, fault), int64_t(blockIdx.x) * kProjectRows + threadIdx.x / kWarp,
                false);
}

// Y[j] = P[j] + b, j < n.
// Geometry  one thread an element.
// Traffic   8 bytes an element; P may be Y.
__global__ void project_add_bias(Mat y, const float* p, const float* b, RowList rows, int64_t most, int32_t* fault) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, n = rows_in_use(rows, most, fault);
  if (e < n * y.cols) y.p[e] = p[e] + b[e % y.cols];
}

// What the backward pass reads, with zeros in the rows beyond the count, so that a product over the whole capacity is
// one over the list:
// G[j] = X[rows[j]] (if G), Z[j] = dY[j] (if Z), and the column sums of dY in chunks of 256 rows, part[chunk] (d), each
// in list order.
// Geometry  blocks below `gather_blocks`: one warp a row of G, 8 rows a block. The others: 256 rows x 32 columns of dY,
//           read by all threads into shared memory and then added up by one warp.
// Traffic   8 F + 8 d bytes a row.
template <int V>
__global__ void project_backward_inputs(Mat g, Mat z, float* part, CMat x, CMat dy, RowList rows, int64_t gather_blocks,
                                        int32_t* fault) {
  SHARED(float, stage, [kProjectChunk][kWarp]);
  const int64_t n = rows_in_use(rows, dy.rows, fault), d = dy.cols;
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  if (int64_t(blockIdx.x) < gather_blocks) {
    gather_row<V>(g, x, rows, n, int64_t(blockIdx.x) * kProjectRows + warp, true);
    return;
  }
  const int64_t groups = (d + kWarp - 1) / kWarp, at = int64_t(blockIdx.x) - gather_blocks;
  const int64_t chunk = at / groups, j0 = chunk * kProjectChunk, c = at % groups * kWarp + lane;
#pragma unroll 8
  for (int t = warp; t < kProjectChunk; t += kProjectRows) {
    if (j0 + t >= dy.rows || c >= d) continue;
    const float v = j0 + t < n ? dy.row(j0 + t)[c] : 0.0f;
    stage[t][lane] = v;
    if (z) z.row(j0 + t)[c] = v;
  }
  __syncthreads();
  if (warp > 0 || c >= d || j0 >= n) return;
  float sum = 0;
  const int rest = int(n - j0 < kProjectChunk ? n - j0 : kProjectChunk);
#pragma unroll 8
  for (int t = 0; t < rest; ++t) sum += stage[t][lane];
  part[chunk * d + c] = sum;
}

// dX[j] = dY[j] W^T, j < n, and db += the chunks' sums in order: the bits of the CPU.
// Geometry  block 0: db, one thread a column. The others: a 64 x 64 tile of dX, columns of tiles fastest; tiles beyond
//           the count leave at once. Direct, not through the library, whose product would write the rows beyond the
//           count.
// Traffic   4 F bytes a row of dX written; W and dY come from L2.
template <bool kFour>
__global__ void __launch_bounds__(kTileThreads)
    project_backward_outputs(Mat dx, float* db, const float* part, CMat dy, CMat w, RowList rows, bool four_out) {
  const int64_t n = rows.n() < dy.rows ? rows.n() : dy.rows, d = dy.cols, F = w.rows;
  if (blockIdx.x == 0) {
    for (int64_t c = threadIdx.x; c < d; c += kTileThreads) {
      float sum = db[c];
#pragma unroll 4
      for (int64_t chunk = 0; chunk < (n + kProjectChunk - 1) / kProjectChunk; ++chunk) sum += part[chunk * d + c];
      db[c] = sum;
    }
    return;
  }
  const int64_t tiles = (F + kTile - 1) / kTile, at = int64_t(blockIdx.x) - 1, row = at / tiles * kTile,
                col = at % tiles * kTile;
  if (row >= n) return;
  product_tile(
      d,
      [&](int r, int64_t k) {
        return row + r < n ? four_terms<kFour>(dy.row(row + r), k, d) : make_float4(0, 0, 0, 0);
      },
      [&](int c, int64_t k) { return col + c < F ? four_terms<kFour>(w.row(col + c), k, d) : make_float4(0, 0, 0, 0); },
      [&](int r, int c, float4 v) {
        if (row + r >= n) return;
        float* out = dx.row(row + r) + col + c;
        if (four_out) {
          if (col + c < F) *reinterpret_cast<float4*>(out) = v;
          return;
        }
        const float four[4] = {v.x, v.y, v.z, v.w};
        for (int l = 0; l < 4 && col + c + l < F; ++l) out[l] = four[l];
      });
}

// Rows that can be in use. What the host cannot see, that a count on the device goes beyond them, is a fault.
int64_t most_rows(RowList rows, CMat x, CMat y) {
  if (!rows.count) CHECK_THAT(y.rows >= rows.capacity && (rows.idx || x.rows >= rows.capacity));
  const int64_t most = std::min(rows.capacity, y.rows);
  return rows.idx ? most : std::min(most, x.rows);
}

}  // namespace

// The listed rows are gathered and multiplied by the library, capacity and all; only rows in use are written to Y. A
// row's bits may depend on the capacity: the library chooses its order of summation by the shape.
void project(Ctx& ctx, Mat y, CMat x, RowList rows, CMat w, CMat b) {
  const int64_t F = x.cols, d = w.cols, most = most_rows(rows, x, y);
  CHECK_THAT(y.cols == d);
  CHECK_SHAPE(w, F, d);
  CHECK_SHAPE(b, 1, d);
  CMat left = x.slice(0, most);
  if (rows.idx) {
    const Mat g{static_cast<float*>(ctx.scratch(0, size_t(most * F) * sizeof(float))), most, F};
    if (four_columns(x))
      launch(project_gather<4>, blocks_for(most, kProjectRows), kThreads, 0, ctx, g, x, rows, ctx.fault);
    else
      launch(project_gather<1>, blocks_for(most, kProjectRows), kThreads, 0, ctx, g, x, rows, ctx.fault);
    left = g;
  }
  Mat p = y.slice(0, most);
  if (rows.count) p.p = static_cast<float*>(ctx.scratch(1, size_t(p.size()) * sizeof(float)));
  gemm(ctx, p, left, false, w, false, false);
  launch(project_add_bias, blocks_for(p.size(), kThreads), kThreads, 0, ctx, y, p.p, b.p, rows, most, ctx.fault);
}

// Two passes: the library's product wants the rows gathered anyway, and a batch's rows, written by the first pass, fit
// the L2 of a large GPU. Not measured.
void catch_up_project(Ctx& ctx, Mat y, const Table& x, RowList rows, CMat w, CMat b, const AdamSchedule& s, int64_t t) {
  adam_catch_up(ctx, x, rows, s, t);
  project(ctx, y, x.value, rows, w, b);
}

// Y = X W + b. Given dY: dW += X^T dY, db += 1^T dY, dX = dY W^T.
void project_backward(Ctx& ctx, Mat dw, Mat db, Mat dx, CMat dy, CMat x, RowList rows, CMat w) {
  const int64_t F = x.cols, d = dy.cols;
  int64_t most = most_rows(rows, x, dy);
  CHECK_SHAPE(dw, F, d);
  CHECK_SHAPE(db, 1, d);
  CHECK_SHAPE(w, F, d);
  if (dx) {
    CHECK_THAT(dx.cols == F && (rows.count || dx.rows >= rows.capacity));
    most = std::min(most, dx.rows);
  }
  if (most == 0) return;
  const CMat dy_most = dy.slice(0, most);
  CMat left = x.slice(0, most), right = dy_most;
  Mat g, z;
  if (rows.idx || rows.count)
    left = g = Mat{static_cast<float*>(ctx.scratch(0, size_t(most * F) * sizeof(float))), most, F};
  if (rows.count) right = z = Mat{static_cast<float*>(ctx.scratch(1, size_t(most * d) * sizeof(float))), most, d};
  float* part = static_cast<float*>(ctx.scratch(2, size_t(blocks_for(most, kProjectChunk) * d) * sizeof(float)));

  const int64_t gather_blocks = g ? blocks_for(most, kProjectRows) : 0,
                sum_blocks = blocks_for(most, kProjectChunk) * blocks_for(d, kWarp);
  if (four_columns(x))
    launch(project_backward_inputs<4>, gather_blocks + sum_blocks, kThreads, 0, ctx, g, z, part, x, dy_most, rows,
           gather_blocks, ctx.fault);
  else
    launch(project_backward_inputs<1>, gather_blocks + sum_blocks, kThreads, 0, ctx, g, z, part, x, dy_most, rows,
           gather_blocks, ctx.fault);
  gemm(ctx, dw, left, true, right, false, true);
  const int64_t tiles = dx ? blocks_for(most, kTile) * blocks_for(F, kTile) : 0;
  if (four_columns(dy) && four_columns(w))
    launch(project_backward_outputs<true>, 1 + tiles, kTileThreads, 0, ctx, dx, db.p, part, dy_most, w, rows,
           four_columns(dx));
  else
    launch(project_backward_outputs<false>, 1 + tiles, kTileThreads, 0, ctx, dx, db.p, part, dy_most, w, rows,
           four_columns(dx));
}

// The gradient of the rows goes through scratch memory: on a GPU the products and the optimiser are both bound by
// memory that L2 holds in part.
void project_backward_step(Ctx& ctx, Mat dw, Mat db, CMat dy, const Table& x, RowList rows, CMat w,
                           const AdamSchedule& s, int64_t t) {
  const int64_t F = x.value.cols, most = std::min(most_rows(rows, x.value, dy), x.value.rows);
  CHECK_THAT(is_late(t) || (t >= 1 && t <= s.steps));
  CHECK_THAT(s.hyper.weight_decay == 0);
  const Mat dx{static_cast<float*>(ctx.scratch(3, size_t(most * F) * sizeof(float))), most, F};
  project_backward(ctx, dw, db, dx, dy, x.value, rows, w);
  adam_rows(ctx, x, rows, dx, false, s, t);
}

void project_scratch(ScratchPlan& p, int64_t rows, int64_t F, int64_t d, bool listed) {
  if (listed) p.need(0, rows * F * 4), p.need(1, rows * d * 4);
}
void project_backward_scratch(ScratchPlan& p, int64_t rows, int64_t F, int64_t d, bool step) {
  p.need(0, rows * F * 4), p.need(1, rows * d * 4), p.need(2, blocks_for(rows, kProjectChunk) * d * 4);
  if (step) p.need(3, rows * F * 4);
}
void project_backward_all_scratch(ScratchPlan& p, int64_t rows, int64_t, int64_t d) {
  p.need(2, blocks_for(rows, kProjectChunk) * d * 4);
}

}  // namespace ccdrec::cuda
