#include "kernels/cuda/reduce.h"

namespace ccdrec::cuda {
namespace {

// Geometry  eight lanes an entry, 32 entries a block.
// Traffic   4 d bytes of B an entry in whole sectors, 8 of idx and v; the row of A comes from L1 after the first entry.
__global__ void list_dots_by_eight(Mat v, CMat a, CMat b, const int32_t* idx) {
  const int64_t e = team_row(kEightShift), k = v.cols;
  const int32_t j = e < v.size() ? idx[e] : -1;
  const double dot = dot_by_eight(a.row(j < 0 ? 0 : e / k), b.row(j < 0 ? 0 : j), j < 0 ? 0 : a.cols);
  if (e < v.size() && team_lane(kEightShift) == 0) v.p[e] = float(dot);
}

// dY[i] += sum_c g[i,c] Y[idx[i,c]].
// Geometry  one team a row (reduce.h).
// Traffic   4 d bytes an entry, 8 of g and idx on all lanes of a team at once, 8 d a row.
template <int V>
__global__ void list_spread_rows(Mat dy, CMat g, CMat y, const int32_t* idx, int shift) {
  const int64_t i = team_row(shift), d = y.cols, k = g.cols;
  if (i >= y.rows) return;
  for (int64_t j = int64_t(team_lane(shift)) * V; j < d; j += int64_t(V) << shift) {
    Columns<V> sum = load<V>(dy.row(i) + j);
    for (int64_t c = 0; c < k; ++c) {
      const int32_t target = idx[i * k + c];
      if (target < 0) continue;
      const float w = g.row(i)[c];
      const Columns<V> at = load<V>(y.row(target) + j);
      for (int v = 0; v < V; ++v) sum.v[v] = fmaf(w, at.v[v], sum.v[v]);
    }
    store<V>(dy.row(i) + j, sum);
  }
}

// dY[j] += sum over the slots s of group j of g[s] Y[s / k].
// Geometry  one team a group.
// Traffic   as list_spread_rows, and 4 bytes of `slot`.
template <int V>
__global__ void list_spread_columns(Mat dy, CMat g, CMat y, Groups by_target, int shift) {
  const int64_t group = team_row(shift), d = y.cols, k = g.cols;
  if (group >= by_target.rows.n()) return;
  float* const to = dy.row(by_target.rows.at(group));
  for (int64_t j = int64_t(team_lane(shift)) * V; j < d; j += int64_t(V) << shift) {
    Columns<V> sum = load<V>(to + j);
    for (int32_t e = by_target.ptr[group]; e < by_target.ptr[group + 1]; ++e) {
      const int64_t s = by_target.slot[e];
      const float w = g.p[s];
      const Columns<V> at = load<V>(y.row(s / k) + j);
      for (int v = 0; v < V; ++v) sum.v[v] = fmaf(w, at.v[v], sum.v[v]);
    }
    store<V>(to + j, sum);
  }
}

}  // namespace

void list_dots(Ctx& ctx, Mat v, CMat a, CMat b, const int32_t* idx, int64_t k) {
  const int64_t I = v.rows, d = a.cols;
  CHECK_SHAPE(v, I, k);
  CHECK_SHAPE(a, I, d);
  CHECK_SHAPE(b, b.rows, d);
  launch(list_dots_by_eight, team_blocks(v.size(), kEightShift), kTeamThreads, 0, ctx, v, a, b, idx);
}

void list_spread(Ctx& ctx, Mat dy, CMat g, CMat y, const int32_t* idx, const Groups& by_target) {
  const int64_t I = y.rows, d = y.cols;
  CHECK_SHAPE(dy, I, d);
  CHECK_SHAPE(g, I, g.cols);
  const bool four = four_columns(d, {dy.p, y.p});
  const int shift = team_shift(four ? d / 4 : d);
  launch((four ? list_spread_rows<4> : list_spread_rows<1>), team_blocks(I, shift), kTeamThreads, 0, ctx, dy, g, y, idx,
         shift);
  launch((four ? list_spread_columns<4> : list_spread_columns<1>),
         team_blocks(std::min(I, by_target.rows.capacity), shift), kTeamThreads, 0, ctx, dy, g, y, by_target, shift);
}

}  // namespace ccdrec::cuda
