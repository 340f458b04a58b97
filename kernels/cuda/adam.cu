#include "kernels/adam.h"
#include "kernels/cuda/device.h"

namespace ccdrec::cuda {
namespace {

// One element: the same operations in the same order as Element8 of cpu/adam.cpp, so the two devices agree bit for bit.
struct Element {
  float p, m, v;
  __device__ void step(const AdamHyper& h, AdamCoef c, float g) {
    const float rest1 = float(1.0 - double(h.beta1)), rest2 = float(1.0 - double(h.beta2));
    m = fmaf(h.beta1, m, rest1 * g);
    v = fmaf(h.beta2, v, rest2 * g * g);
    p = p - c.c1 * m / fmaf(sqrtf(v), c.c2, h.eps);
  }
  __device__ bool at_rest() const { return (__float_as_uint(m) | __float_as_uint(v)) == 0; }
};

// Steps first .. t; g belongs to step t. A step without a gradient changes nothing where m and v are zero; a gradient of zero does the same to the
// value there, so the CPU's test of eight elements at once and this one of each give the same bits. False: nothing changed.
__device__ inline bool advance(Element& e, bool has_g, float g, const AdamSchedule& s, int64_t first, int64_t t) {
  if ((first < t || !has_g) && e.at_rest()) {
    if (!has_g) return false;
    first = t;
  }
  for (int64_t u = first; u < t; ++u) e.step(s.hyper, s.coef[u - 1], 0.0f);
  e.step(s.hyper, s.coef[t - 1], g);
  return true;
}
__device__ inline void step_element(float* p, float* m, float* v, bool has_g, float g, const AdamSchedule& s, int64_t first, int64_t t) {
  Element e{*p, *m, *v};
  if (advance(e, has_g, g, s, first, t)) *p = e.p, *m = e.m, *v = e.v;
}

// Geometry  one thread four elements at a time where every array is aligned for that, else one; grid-stride. Traffic 28 bytes an element, coalesced.
template <int V>
__global__ void adam_elementwise(float* p, float* m, float* v, const float* g, int64_t n, AdamSchedule s, int64_t t, const Late* late) {
  const int64_t now = late_t(t, late), threads = int64_t(gridDim.x) * blockDim.x;
  const bool has_g = g != nullptr;
  for (int64_t j = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V; j < n; j += threads * V) {
    if (V == 4 && j + V <= n) {
      float4 &p4 = *reinterpret_cast<float4*>(p + j), &m4 = *reinterpret_cast<float4*>(m + j), &v4 = *reinterpret_cast<float4*>(v + j);
      const float4 pj = p4, mj = m4, vj = v4, gj = has_g ? *reinterpret_cast<const float4*>(g + j) : make_float4(0, 0, 0, 0);
      Element a{pj.x, mj.x, vj.x}, b{pj.y, mj.y, vj.y}, c{pj.z, mj.z, vj.z}, d{pj.w, mj.w, vj.w};
      advance(a, has_g, gj.x, s, now, now), advance(b, has_g, gj.y, s, now, now);
      advance(c, has_g, gj.z, s, now, now), advance(d, has_g, gj.w, s, now, now);
      p4 = make_float4(a.p, b.p, c.p, d.p), m4 = make_float4(a.m, b.m, c.m, d.m), v4 = make_float4(a.v, b.v, c.v, d.v);
    } else {
      for (int64_t k = j; k < j + V && k < n; ++k) step_element(p + k, m + k, v + k, has_g, has_g ? g[k] : 0.0f, s, now, now);
    }
  }
}

// Geometry  one warp a listed row (8 rows a block), grid-stride over rows; lane l owns columns l, l+32, ...
// Traffic   24 bytes an element and 4 of its gradient, once, however many steps are replayed: those stay in registers, reading 8 bytes of
// coefficients
//           a step (cached). A replayed step is one division and one square root an element.
__global__ void adam_warp_per_row(Table table, RowList rows, CMat g, bool by_row, AdamSchedule s, int64_t t, const Late* late, int32_t* fault) {
  const int64_t n = rows.n(), now = late_t(t, late), cols = table.value.cols;
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / kWarp);
  for (int64_t j = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp; j < n; j += warps) {
    const int64_t r = rows.at(j), last = table.last[r];
    const float* g_r = g.p ? g.p + (by_row ? r : j) * cols : nullptr;
    if (last >= now) {
      if (g_r && lane == 0) atomicMax(fault, int(kAdamSteppedTwice));
      continue;
    }
    for (int64_t c = lane; c < cols; c += kWarp)
      step_element(table.value.row(r) + c, table.m.row(r) + c, table.v.row(r) + c, g_r != nullptr, g_r ? g_r[c] : 0.0f, s, last + 1, now);
    __syncwarp();  // every lane has read last[r]
    if (lane == 0) table.last[r] = int32_t(now);
  }
}

// The same for wide rows (raw features): one block a row, so that a row's chain of replayed steps is shared by 256 threads and not by 32.
__global__ void adam_block_per_row(Table table, RowList rows, CMat g, bool by_row, AdamSchedule s, int64_t t, const Late* late, int32_t* fault) {
  const int64_t n = rows.n(), now = late_t(t, late), cols = table.value.cols;
  for (int64_t j = blockIdx.x; j < n; j += gridDim.x) {
    const int64_t r = rows.at(j), last = table.last[r];
    const float* g_r = g.p ? g.p + (by_row ? r : j) * cols : nullptr;
    __syncthreads();  // every thread has read last[r]
    if (last >= now) {
      if (g_r && threadIdx.x == 0) atomicMax(fault, int(kAdamSteppedTwice));
      continue;
    }
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
      step_element(table.value.row(r) + c, table.m.row(r) + c, table.v.row(r) + c, g_r != nullptr, g_r ? g_r[c] : 0.0f, s, last + 1, now);
    if (threadIdx.x == 0) table.last[r] = int32_t(now);
  }
}

constexpr int64_t kAdamBlocks = 16384, kWide = 512;

}  // namespace

void adam(Ctx& ctx, Mat p, Mat m, Mat v, CMat g, const AdamSchedule& s, int64_t t) {
  CHECK_SHAPE(m, p.rows, p.cols);
  CHECK_SHAPE(v, p.rows, p.cols);
  if (g) CHECK_SHAPE(g, p.rows, p.cols);
  CHECK_THAT(is_late(t) || (t >= 1 && t <= s.steps));
  const auto address = [](const float* x) { return reinterpret_cast<uintptr_t>(x); };
  const bool aligned = (address(p.p) | address(m.p) | address(v.p) | address(g.p)) % 16 == 0;
  const int64_t blocks = std::min(kAdamBlocks, blocks_for(p.size(), aligned ? 4 * 256 : 256));
  if (aligned)
    launch(adam_elementwise<4>, blocks, 256, 0, ctx, p.p, m.p, v.p, g.p, p.size(), s, t, ctx.late);
  else
    launch(adam_elementwise<1>, blocks, 256, 0, ctx, p.p, m.p, v.p, g.p, p.size(), s, t, ctx.late);
}

void adam_rows(Ctx& ctx, const Table& table, RowList rows, CMat g, bool by_row, const AdamSchedule& s, int64_t t) {
  const int64_t R = table.value.rows, cols = table.value.cols;
  CHECK_SHAPE(table.m, R, cols);
  CHECK_SHAPE(table.v, R, cols);
  if (g) CHECK_THAT(g.cols == cols && g.rows >= (by_row ? R : std::min(R, rows.capacity)));
  CHECK_THAT(is_late(t) || (t >= 0 && t <= s.steps));
  if (cols >= kWide) {
    launch(adam_block_per_row, std::min(kAdamBlocks, rows.capacity), 256, 0, ctx, table, rows, g, by_row, s, t, ctx.late, ctx.fault);
    return;
  }
  launch(adam_warp_per_row, std::min(kAdamBlocks, blocks_for(rows.capacity, 8)), 256, 0, ctx, table, rows, g, by_row, s, t, ctx.late, ctx.fault);
}

}  // namespace ccdrec::cuda
