#include "kernels/adam.h"
#include "kernels/cuda/device.h"

namespace ccdrec::cuda {
namespace {

// One element: the same operations in the same order as Element8 of cpu/fast/adam_row.cpp, so the two devices agree bit
// for bit.
struct Element {
  float p, m, v;
  __device__ void moments(const AdamHyper& h, AdamRest rest, float g) {
    m = fmaf(h.beta1, m, rest.m * g);
    v = fmaf(h.beta2, v, rest.v * g * g);
  }
  __device__ void decay(const AdamHyper& h) { m = fmaf(h.beta1, m, 0.0f), v = fmaf(h.beta2, v, 0.0f); }
  __device__ void move(const AdamHyper& h, AdamCoef c) { p = p - c.c1 * m / fmaf(sqrtf(v), c.c2, h.eps); }
  __device__ bool at_rest() const { return (__float_as_uint(m) | __float_as_uint(v)) == 0; }
};

// A step without a gradient changes nothing where m and v are zero; a gradient of zero does the same to the value
// there, so the CPU's test of many elements at once and this one of each give the same bits.
template <bool kDecays>
__device__ inline void step_dense(Element& e, bool has_g, float g, const AdamSchedule& s, AdamRest rest, int64_t t) {
  if (!kDecays && !has_g && e.at_rest()) return;
  if (kDecays)
    e.moments(s.hyper, rest, fmaf(s.hyper.weight_decay, e.p, has_g ? s.gradient * g : 0.0f));
  else if (has_g)
    e.moments(s.hyper, rest, g);
  else
    e.decay(s.hyper);
  e.move(s.hyper, s.coef[t - 1]);
}

struct Reached {
  int64_t value, moments;
};
// The value's steps up to t, the moments with it.
__device__ inline void catch_up(Element& e, const AdamSchedule& s, Reached at, int64_t t) {
  if (at.value < at.moments) e.move(s.hyper, s.coef[at.moments - 1]);
  int64_t u = at.moments + 1;
  for (; u <= at.value; ++u) e.decay(s.hyper);
  for (; u <= t; ++u) e.decay(s.hyper), e.move(s.hyper, s.coef[u - 1]);
}

// What is done to a row: the gradient of step t to the moments (a value behind t-1 is brought there), the value to step
// t, or both to step t.
enum class RowWork { gradient, value, all };

template <RowWork kWork>
__device__ inline void work_on(const Table& table, int64_t r, int64_t c, float g, const AdamSchedule& s, Reached at,
                               int64_t t, bool at_once) {
  float *p = table.value.row(r) + c, *m = table.m.row(r) + c, *v = table.v.row(r) + c;
  Element e{0, *m, *v};
  if (kWork == RowWork::gradient) {
    if (at.value < t - 1 && !e.at_rest()) {
      Element behind{*p, e.m, e.v};
      catch_up(behind, s, at, t - 1);
      *p = behind.p;
    }
    for (int64_t u = at.moments + 1; u < t; ++u) e.decay(s.hyper);
    e.moments(s.hyper, adam_rest(s), g);
    *m = e.m, *v = e.v;
    if (at_once) {
      e.p = *p;
      e.move(s.hyper, s.coef[t - 1]);
      *p = e.p;
    }
    return;
  }
  if (e.at_rest()) return;
  e.p = *p;
  catch_up(e, s, at, t);
  *p = e.p;
  if (kWork == RowWork::all) *m = e.m, *v = e.v;
}

// Whether the row has nothing left to do; a gradient for a step behind it is a fault.
template <RowWork kWork>
__device__ inline bool done_already(Reached at, int64_t t, bool reports, int32_t* fault) {
  if (kWork == RowWork::value) return at.value >= t;
  if (kWork == RowWork::all) return at.value >= t && at.moments >= t;
  if (at.value < t && at.moments < t) return false;
  if (reports) atomicMax(fault, int(kAdamSteppedTwice));
  return true;
}
template <RowWork kWork>
__device__ inline void now_at(const Table& table, int64_t r, int64_t t, bool at_once) {
  table.value_at[r] = int32_t(kWork == RowWork::gradient && !at_once ? t - 1 : t);
  if (kWork != RowWork::value) table.moments_at[r] = int32_t(t);
}

// Geometry  one thread four elements at a time where every array is aligned for that, else one; grid-stride.
// Traffic   28 bytes an element, coalesced.
template <int V, bool kDecays>
__global__ void adam_elementwise(float* p, float* m, float* v, const float* g, int64_t n, AdamSchedule s, int64_t t,
                                 const Late* late) {
  const int64_t now = late_t(t, late), threads = int64_t(gridDim.x) * blockDim.x;
  const bool has_g = g != nullptr;
  const AdamRest rest = adam_rest(s);
  for (int64_t j = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V; j < n; j += threads * V) {
    if (V == 4 && j + V <= n) {
      float4 &p4 = *reinterpret_cast<float4*>(p + j), &m4 = *reinterpret_cast<float4*>(m + j),
             &v4 = *reinterpret_cast<float4*>(v + j);
      const float4 pj = p4, mj = m4, vj = v4,
                   gj = has_g ? *reinterpret_cast<const float4*>(g + j) : make_float4(0, 0, 0, 0);
      Element a{pj.x, mj.x, vj.x}, b{pj.y, mj.y, vj.y}, c{pj.z, mj.z, vj.z}, d{pj.w, mj.w, vj.w};
      step_dense<kDecays>(a, has_g, gj.x, s, rest, now), step_dense<kDecays>(b, has_g, gj.y, s, rest, now);
      step_dense<kDecays>(c, has_g, gj.z, s, rest, now), step_dense<kDecays>(d, has_g, gj.w, s, rest, now);
      p4 = make_float4(a.p, b.p, c.p, d.p), m4 = make_float4(a.m, b.m, c.m, d.m), v4 = make_float4(a.v, b.v, c.v, d.v);
    } else {
      for (int64_t k = j; k < j + V && k < n; ++k) {
        Element e{p[k], m[k], v[k]};
        step_dense<kDecays>(e, has_g, has_g ? g[k] : 0.0f, s, rest, now);
        p[k] = e.p, m[k] = e.m, v[k] = e.v;
      }
    }
  }
}

// Geometry  one warp a listed row (8 rows a block), grid-stride over rows; lane l owns columns l, l+32, ...
// Traffic   bytes an element: 16 (24 at once) and 4 of the gradient (gradient), 16 (value), 24 (all), once, however
//           many steps are replayed: those stay in registers, reading 8 bytes of coefficients a step (cached). A
//           replayed step of a value is one division and one square root an element.
template <RowWork kWork>
__global__ void adam_warp_per_row(Table table, RowList rows, CMat g, bool by_row, AdamSchedule s, int64_t t,
                                  const Late* late, int32_t* fault) {
  const int64_t n = rows.n(), now = late_t(t, late), cols = table.value.cols;
  const bool at_once = moves_at_once(n, table.value.rows);
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / kWarp);
  for (int64_t j = int64_t(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp; j < n; j += warps) {
    const int64_t r = rows.at(j);
    const Reached at{table.value_at[r], table.moments_at[r]};
    if (done_already<kWork>(at, now, lane == 0, fault)) continue;
    const int64_t to = kWork == RowWork::all && at.value > now ? at.value : now;
    const float* g_r = g.p ? g.p + (by_row ? r : j) * cols : nullptr;
    for (int64_t c = lane; c < cols; c += kWarp)
      work_on<kWork>(table, r, c, kWork == RowWork::gradient ? g_r[c] : 0.0f, s, at, to, at_once);
    __syncwarp();  // every lane has read what the row had reached
    if (lane == 0) now_at<kWork>(table, r, to, at_once);
  }
}

// The same for wide rows (raw features): one block a row, so that a row's chain of replayed steps is shared by 256
// threads and not by 32.
template <RowWork kWork>
__global__ void adam_block_per_row(Table table, RowList rows, CMat g, bool by_row, AdamSchedule s, int64_t t,
                                   const Late* late, int32_t* fault) {
  const int64_t n = rows.n(), now = late_t(t, late), cols = table.value.cols;
  const bool at_once = moves_at_once(n, table.value.rows);
  for (int64_t j = blockIdx.x; j < n; j += gridDim.x) {
    const int64_t r = rows.at(j);
    const Reached at{table.value_at[r], table.moments_at[r]};
    __syncthreads();  // every thread has read what the row had reached
    if (done_already<kWork>(at, now, threadIdx.x == 0, fault)) continue;
    const int64_t to = kWork == RowWork::all && at.value > now ? at.value : now;
    const float* g_r = g.p ? g.p + (by_row ? r : j) * cols : nullptr;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
      work_on<kWork>(table, r, c, kWork == RowWork::gradient ? g_r[c] : 0.0f, s, at, to, at_once);
    if (threadIdx.x == 0) now_at<kWork>(table, r, to, at_once);
  }
}

constexpr int64_t kAdamBlocks = 16384, kWide = 512;

template <RowWork kWork>
void work_on_rows(Ctx& ctx, const Table& table, RowList rows, CMat g, bool by_row, const AdamSchedule& s, int64_t t) {
  const int64_t R = table.value.rows, cols = table.value.cols;
  CHECK_SHAPE(table.m, R, cols);
  CHECK_SHAPE(table.v, R, cols);
  CHECK_THAT(is_late(t) || (t >= 0 && t <= s.steps));
  CHECK_THAT(s.hyper.weight_decay == 0);  // steps are replayed without it
  if (cols >= kWide)
    launch(adam_block_per_row<kWork>, std::min(kAdamBlocks, rows.capacity), 256, 0, ctx, table, rows, g, by_row, s, t,
           ctx.late, ctx.fault);
  else
    launch(adam_warp_per_row<kWork>, std::min(kAdamBlocks, blocks_for(rows.capacity, 8)), 256, 0, ctx, table, rows, g,
           by_row, s, t, ctx.late, ctx.fault);
}

}  // namespace

void adam(Ctx& ctx, Mat p, Mat m, Mat v, CMat g, const AdamSchedule& s, int64_t t) {
  CHECK_SHAPE(m, p.rows, p.cols);
  CHECK_SHAPE(v, p.rows, p.cols);
  if (g) CHECK_SHAPE(g, p.rows, p.cols);
  CHECK_THAT(is_late(t) || (t >= 1 && t <= s.steps));
  const auto address = [](const float* x) { return reinterpret_cast<uintptr_t>(x); };
  const bool aligned = (address(p.p) | address(m.p) | address(v.p) | address(g.p)) % 16 == 0;
  const int64_t blocks = std::min(kAdamBlocks, blocks_for(p.size(), aligned ? 4 * 256 : 256));
  const bool decays = s.hyper.weight_decay != 0;
  if (aligned)
    launch((decays ? adam_elementwise<4, true> : adam_elementwise<4, false>), blocks, 256, 0, ctx, p.p, m.p, v.p, g.p,
           p.size(), s, t, ctx.late);
  else
    launch((decays ? adam_elementwise<1, true> : adam_elementwise<1, false>), blocks, 256, 0, ctx, p.p, m.p, v.p, g.p,
           p.size(), s, t, ctx.late);
}

void adam_rows(Ctx& ctx, const Table& table, RowList rows, CMat g, bool by_row, const AdamSchedule& s, int64_t t) {
  const int64_t R = table.value.rows;
  CHECK_THAT(g.cols == table.value.cols && g.rows >= (by_row ? R : std::min(R, rows.capacity)));
  CHECK_THAT(t != 0);
  work_on_rows<RowWork::gradient>(ctx, table, rows, g, by_row, s, t);
}
void adam_catch_up(Ctx& ctx, const Table& table, RowList rows, const AdamSchedule& s, int64_t t) {
  work_on_rows<RowWork::value>(ctx, table, rows, {}, false, s, t);
}
void adam_flush(Ctx& ctx, const Table& table, const AdamSchedule& s, int64_t t) {
  work_on_rows<RowWork::all>(ctx, table, RowList{nullptr, nullptr, table.value.rows}, {}, false, s, t);
}

}  // namespace ccdrec::cuda
