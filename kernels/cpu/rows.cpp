#include "kernels/rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/fast/radix.h"
#include "kernels/cpu/fast/sparse_row.h"

namespace ccdrec::cpu {

void group(Ctx& ctx, Groups& out, const int32_t* ids, int64_t n, int64_t limit) {
  uint64_t* keys = static_cast<uint64_t*>(ctx.scratch(0, size_t(n) * sizeof(uint64_t)));
  uint64_t* room = static_cast<uint64_t*>(ctx.scratch(1, size_t(n) * sizeof(uint64_t)));
  bool inside = true;
  for (int64_t s = 0; s < n; ++s) {
    inside &= ids[s] >= 0 && ids[s] < limit;
    keys[s] = uint64_t(uint32_t(ids[s])) << 32 | uint64_t(s);
  }
  CHECK_THAT(inside);  // every id in [0, limit)
  const uint64_t* sorted = sort_by_high_half(keys, room, n, limit);
  int64_t groups = 0;
  for (int64_t s = 0; s < n; ++s) groups += s == 0 || sorted[s] >> 32 != sorted[s - 1] >> 32;
  CHECK_THAT(groups <= out.rows.capacity);
  int64_t j = 0;
  for (int64_t s = 0; s < n; ++s) {
    if (s == 0 || sorted[s] >> 32 != sorted[s - 1] >> 32) {
      out.rows.idx[j] = int32_t(sorted[s] >> 32);
      out.ptr[j++] = int32_t(s);
    }
    out.slot[s] = int32_t(uint32_t(sorted[s]));
  }
  out.ptr[j] = int32_t(n);
  *out.rows.count = j;
}

void gather_rows(Ctx& ctx, Mat y, CMat x, const int32_t* ids, int64_t n) {
  CHECK_THAT(y.cols == x.cols && y.rows >= n);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* x.cols))
  for (int64_t s = 0; s < n; ++s) {
    if (s + kListAhead < n) ask_for_row(x.row(ids[s + kListAhead]));
    std::copy_n(x.row(ids[s]), x.cols, y.row(s));
  }
}

void copy_rows(Ctx& ctx, Mat y, CMat x, RowList rows) {
  CHECK_THAT(y.cols == x.cols);
  const int64_t n = rows.n();
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* x.cols))
  for (int64_t j = 0; j < n; ++j) {
    if (j + kListAhead < n)
      ask_for_row(x.row(rows.at(j + kListAhead))), ask_to_write_row(y.row(rows.at(j + kListAhead)));
    std::copy_n(x.row(rows.at(j)), x.cols, y.row(rows.at(j)));
  }
}

void segment_sum(Ctx& ctx, Mat y, CMat x, const Groups& g, bool by_row, bool accumulate) {
  CHECK_THAT(y.cols == x.cols);
  const int64_t n = g.rows.n(), slots = g.ptr[n];
  CHECK_THAT(by_row || n <= y.rows);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* slots* x.cols)) schedule(dynamic, 64)
  for (int64_t j = 0; j < n; ++j) {
    float* y_j = y.row(by_row ? g.rows.at(j) : j);
    if (by_row && j + kListAhead < n) ask_to_write_row(y.row(g.rows.at(j + kListAhead)));
    for (int64_t e = g.ptr[j] + kListAhead; e < std::min<int64_t>(g.ptr[j + 1] + kListAhead, slots); ++e)
      ask_for_row(x.row(g.slot[e]));
    // the usual width: a row of X is read once, into eight accumulators, instead of eight times in part; same order
    if (x.cols == 64) {
      V8 sum[8];
      const float* first = x.row(g.slot[g.ptr[j]]);
      for (int v = 0; v < 8; ++v) sum[v] = take8(first + 8 * v, 8);
      for (int32_t e = g.ptr[j] + 1; e < g.ptr[j + 1]; ++e) {
        const float* x_e = x.row(g.slot[e]);
        for (int v = 0; v < 8; ++v) sum[v] += take8(x_e + 8 * v, 8);
      }
      for (int v = 0; v < 8; ++v) put8(y_j + 8 * v, accumulate ? sum[v] + take8(y_j + 8 * v, 8) : sum[v], 8);
      continue;
    }
    each8(x.cols, [&](int64_t c, int64_t lanes) {
      V8 sum = take8(x.row(g.slot[g.ptr[j]]) + c, lanes);
      for (int32_t e = g.ptr[j] + 1; e < g.ptr[j + 1]; ++e) sum += take8(x.row(g.slot[e]) + c, lanes);
      if (accumulate) sum += take8(y_j + c, lanes);
      put8(y_j + c, sum, lanes);
    });
  }
}

void split_rows(Ctx&, RowList users, RowList items, RowList nodes, int64_t n_users) {
  const int64_t n = nodes.n();
  int64_t cut = std::min(n, n_users);  // entries < U, when the list is the identity
  if (nodes.idx) cut = std::lower_bound(nodes.idx, nodes.idx + n, n_users) - nodes.idx;
  CHECK_THAT(cut <= users.capacity);
  CHECK_THAT(n - cut <= items.capacity);
  for (int64_t j = 0; j < cut; ++j) users.idx[j] = nodes.at(j);
  for (int64_t j = cut; j < n; ++j) items.idx[j - cut] = int32_t(nodes.at(j) - n_users);
  *users.count = cut;
  *items.count = n - cut;
}

void merge_rows(Ctx&, RowList out, RowList a, RowList b) {
  const int64_t na = a.n(), nb = b.n();
  int64_t i = 0, j = 0, k = 0;
  while (i < na || j < nb) {
    CHECK_THAT(k < out.capacity);
    const int32_t next = j >= nb || (i < na && a.at(i) <= b.at(j)) ? a.at(i) : b.at(j);
    i += i < na && a.at(i) == next;
    j += j < nb && b.at(j) == next;
    out.idx[k++] = next;
  }
  *out.count = k;
}

void fill_zero(Ctx& ctx, Mat y) {
  constexpr int64_t kPiece = 1 << 14;     // 64 kB, a piece a thread
  constexpr double kZeroedFloatNs = 0.1;  // in the caches
  const int64_t n = y.size();
#pragma omp parallel for num_threads(ctx.threads_for(kZeroedFloatNs* n))
  for (int64_t first = 0; first < n; first += kPiece)
    std::memset(y.p + first, 0, size_t(std::min(kPiece, n - first)) * sizeof(float));
}

void zero_rows(Ctx& ctx, Mat y, RowList rows) {
  const int64_t n = rows.n();
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* y.cols))
  for (int64_t j = 0; j < n; ++j) {
    if (j + kListAhead < n) ask_to_write_row(y.row(rows.at(j + kListAhead)));
    std::fill_n(y.row(rows.at(j)), y.cols, 0.0f);
  }
}

void group_scratch(ScratchPlan& p, int64_t n) { p.need(0, n * 8), p.need(1, n * 8); }
void merge_rows_scratch(ScratchPlan&, int64_t) {}

}  // namespace ccdrec::cpu
