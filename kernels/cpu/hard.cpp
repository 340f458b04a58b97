#include "kernels/hard.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/microkernel.h"
#include "kernels/cpu/pair_loss.h"
#include "kernels/cpu/unseen.h"

namespace ccdrec {

// Vose's alias method: a column that is less than full is filled up from one that is more.
std::vector<PopularColumn> popular_columns(std::span<const int32_t> items, std::span<const int64_t> counts,
                                           double power) {
  CHECK_THAT(items.size() == counts.size());
  std::vector<PopularColumn> column;
  std::vector<double> full;  // n P(item of column k) at first, then what is left of it
  double sum = 0;
  for (size_t k = 0; k < items.size(); ++k) {
    if (counts[k] <= 0) continue;
    column.push_back({items[k], items[k], 0xffffffffu, 0});
    full.push_back(std::pow(double(counts[k]), power));
    sum += full.back();
  }
  CHECK_THAT(std::isfinite(sum) && (column.empty() || sum > 0));
  std::vector<size_t> less, more;
  for (size_t k = 0; k < full.size(); ++k) {
    column[k].share = float(full[k] / sum);
    CHECK_THAT(column[k].share > 0);  // or a user who lacks only such items would get one that is not lacked
    full[k] *= double(full.size()) / sum;
    (full[k] < 1 ? less : more).push_back(k);
  }
  while (!less.empty() && !more.empty()) {
    const size_t k = less.back(), from = more.back();
    less.pop_back();
    column[k].keep = uint32_t(full[k] * 0x1p32), column[k].alias = column[from].item;
    full[from] -= 1 - full[k];
    if (full[from] < 1) more.pop_back(), less.push_back(from);
  }
  return column;  // what remains in either list is full to rounding
}

namespace cpu {
namespace {

void put_ranks(float* out, int64_t counted, int64_t admissible, float score, const float* n, const float* p,
               int64_t d) {
  const double norms = std::sqrt(dot_in_double(n, n, d)) * std::sqrt(dot_in_double(p, p, d));
  out[0] = admissible == 0 ? 50.0f : float(50 * double(counted) / double(admissible));
  out[1] = norms == 0 ? 0.0f : float(dot_in_double(n, p, d) / norms);
  out[2] = score;
}

}  // namespace

namespace plain {

float score(const float* a, const float* b, int64_t d) {
  float sum = 0;
  for (int64_t j = 0; j < d; ++j) sum = std::fma(a[j], b[j], sum);
  return sum;
}

void negative_ranks(Mat out, CMat h_u, const int32_t* users, const int32_t* positives, CMat h_n, CMat h_i,
                    const Csr& train) {
  for (int64_t b = 0; b < out.rows; ++b) {
    const float *const u = h_u.row(users[b]), *const n = h_n.row(b), *const p = h_i.row(positives[b]);
    const Interacted seen(train, users[b]);
    const float limit = score(u, n, h_i.cols);
    int64_t admissible = 0, counted = 0;
    for (int64_t i = 0; i < h_i.rows; ++i) {
      if (seen.has(int32_t(i))) continue;
      const float s = score(u, h_i.row(i), h_i.cols);
      ++admissible;
      counted += int64_t(s > limit) + int64_t(s >= limit);
    }
    put_ranks(out.row(b), counted, admissible, limit, n, p, h_i.cols);
  }
}

}  // namespace plain

namespace {

constexpr int64_t kTileUsers = 48, kTileItems = 64;

void check_tables(const LayerTables& v, int64_t d) {
  CHECK_THAT(v.n >= 1 && v.n <= kMaxLayers + 1);
  for (int l = 0; l < v.n; ++l) CHECK_SHAPE(v.layer[l], v.layer[0].rows, d);
  if (v.item_part) CHECK_SHAPE(v.item_part, v.layer[0].rows, d);
}

void prefetch(const float* row, int64_t d) {
  for (int64_t j = 0; j < d; j += kLine) __builtin_prefetch(row + j);
}

// Where among N scores, in the order of their draws, the one of this rank is.
int64_t place_of_rank(const double* score, int64_t N, uint32_t rank) {
  if (rank == 0) return std::max_element(score, score + N) - score;  // the first of equals
  int32_t order[kMostCandidates];
  std::iota(order, order + N, 0);
  std::nth_element(order, order + rank, order + N,
                   [&](int32_t a, int32_t b) { return score[a] != score[b] ? score[a] > score[b] : a < b; });
  return order[rank];
}

}  // namespace

void hardest_negative(Ctx& ctx, int32_t* out, CMat h_u, const int32_t* users, int64_t batch, int64_t first_row,
                      const LayerTables& v, const Csr& train, const int32_t* items, int64_t n_items, int n_candidates,
                      int top_m, Stream candidates, Stream rank) {
  const int64_t d = h_u.cols, N = n_candidates;
  check_tables(v, d);
  CHECK_THAT(N >= 1 && N <= kMostCandidates && top_m >= 1);
  CHECK_THAT(batch == 0 || n_items > 0);
#pragma omp parallel for num_threads(ctx.threads) schedule(static, 64)
  for (int64_t b = 0; b < batch; ++b) {
    const Interacted seen(train, users[b]);
    const float* const u = h_u.row(users[b]);
    int32_t drawn[kMostCandidates];
    double part[kMostCandidates], score[kMostCandidates];
    const CMat* const first = v.item_part ? &v.item_part : &v.layer[0];
    for (int64_t m = 0; m < N; ++m) {
      drawn[m] = draw_unseen(candidates, uint32_t((first_row + b) * N + m), n_items, seen,
                             [items](int64_t j) { return items[j]; });
      prefetch(first->row(drawn[m]), d);
    }
    std::fill_n(part, N, 0.0);
    for (int64_t m = 0; v.item_part && m < N; ++m) {
      prefetch(v.layer[0].row(drawn[m]), d);
      part[m] = dot_in_double(u, v.item_part.row(drawn[m]), d);
    }
    for (int l = 0; l < v.n; ++l) {
      for (int64_t m = 0; m < N; ++m) {
        if (l + 1 < v.n) prefetch(v.layer[l + 1].row(drawn[m]), d);
        const double s = dot_in_double(u, v.layer[l].row(drawn[m]), d) + part[m];
        score[m] = s == s ? s : -std::numeric_limits<double>::infinity();
      }
      const uint32_t r = top_m == 1 ? 0
                                    : below(draw(rank, uint32_t(first_row + b), uint32_t(l)).v[0],
                                            uint32_t(std::min<int64_t>(top_m, N)));
      out[l * batch + b] = drawn[place_of_rank(score, N, r)];
    }
  }
}

void draw_mixing(Ctx& ctx, Mat alpha, int64_t first_row, Stream s) {
  const int threads = ctx.threads_for(20 * double(alpha.size()));  // ns a draw
#pragma omp parallel for num_threads(threads)
  for (int64_t b = 0; b < alpha.cols; ++b)
    for (int64_t l = 0; l < alpha.rows; ++l)
      alpha.row(l)[b] = uniform01(draw(s, uint32_t(first_row + b), uint32_t(l)).v[0]);
}

void mixed_bpr(Ctx& ctx, double* loss, Mat d_u, const Mat* d_layer, Mat h_n, CMat u, const LayerTables& v,
               const int32_t* positives, const int32_t* hard, CMat alpha, float weight, bool with_eps) {
  const int64_t B = u.rows, d = u.cols, n = v.n;
  check_tables(v, d);
  CHECK_SHAPE(d_u, B, d);
  CHECK_SHAPE(alpha, n, B);
  for (int64_t l = 0; l < n; ++l) CHECK_SHAPE(d_layer[l], 2 * B, d);
  if (h_n) CHECK_SHAPE(h_n, B, d);
  if (B == 0) return;
  const double share = double(weight) / double(B);
  double sum;
  sum_rows(ctx, &sum, 1, B, [&](int64_t, int64_t b) {
    const float* const u_b = u.row(b);
    float* const w_b = d_layer[0].row(b);  // until the gradient takes its place
    double lane[kLanes] = {};
    each8(d, [&](int64_t j, int64_t lanes) {
      double w[kLanes] = {}, h_p[kLanes] = {};
      for (int64_t l = 0; l < n; ++l) {
        const double rest = (1 - double(alpha.row(l)[b])) / double(n);
        const float *const p = v.layer[l].row(positives[b]) + j, *const x = v.layer[l].row(hard[l * B + b]) + j;
        const float* const part_p = v.item_part ? v.item_part.row(positives[b]) + j : nullptr;
        const float* const part_x = v.item_part ? v.item_part.row(hard[l * B + b]) + j : nullptr;
        for (int64_t k = 0; k < lanes; ++k) {
          double apart = double(p[k]) - double(x[k]);
          if (part_p) apart += double(part_p[k]) - double(part_x[k]);
          w[k] += rest * apart;
        }
        if (h_n)
          for (int64_t k = 0; k < lanes; ++k) h_p[k] += (double(p[k]) + (part_p ? double(part_p[k]) : 0.0)) / double(n);
      }
      for (int64_t k = 0; k < lanes; ++k) lane[k] += double(u_b[j + k]) * w[k], w_b[j + k] = float(w[k]);
      if (h_n)
        for (int64_t k = 0; k < lanes; ++k) h_n.row(b)[j + k] = float(h_p[k] - w[k]);
    });
    const LossAt at = loss_at(sum_lanes(lane), with_eps);
    const double c = share * at.slope;
    float* const du = d_u.row(b);
    for (int64_t j = 0; j < d; ++j) du[j] = std::fma(float(c), w_b[j], du[j]);
    for (int64_t l = 0; l < n; ++l) {
      const float g = float(c * ((1 - double(alpha.row(l)[b])) / double(n)));
      float *const dp = d_layer[l].row(b), *const dx = d_layer[l].row(B + b);
      for (int64_t j = 0; j < d; ++j) dp[j] = g * u_b[j], dx[j] = -g * u_b[j];
    }
    return at.f;
  });
  *loss += share * sum;
}

void popular_negatives(Ctx& ctx, int32_t* out, const int32_t* users, int64_t batch, int64_t first_row, const Csr& train,
                       const PopularColumn* columns, int64_t n, Stream s) {
  CHECK_THAT(batch == 0 || n > 0);
#pragma omp parallel for num_threads(ctx.threads) schedule(static, 64)
  for (int64_t b = 0; b < batch; ++b)
    out[b] = draw_popular(s, uint32_t(first_row + b), columns, n, Interacted(train, users[b]));
}

// A tile of users against a tile of items at a time, as score_topk; the items that a user has come in the same order as
// the tiles.
void negative_ranks(Ctx& ctx, Mat out, CMat h_u, const int32_t* users, const int32_t* positives, CMat h_n, CMat h_i,
                    const Csr& train) {
  const int64_t B = out.rows, I = h_i.rows, d = h_i.cols;
  CHECK_SHAPE(out, B, 3);
  CHECK_SHAPE(h_u, h_u.rows, d);
  CHECK_SHAPE(h_n, B, d);
  CHECK_SHAPE(train, h_u.rows, I);
  const MicroKernel& mk = micro_kernel();
  const int64_t mr = mk.mr, nr = mk.nr, panels = (I + nr - 1) / nr;
  float* const packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * d) * sizeof(float)));
#pragma omp parallel num_threads(ctx.threads)
  {
#pragma omp for
    for (int64_t p = 0; p < panels; ++p)
      pack_along(packed + p * nr * d, nr, h_i.row(p * nr), d, d, std::min(nr, I - p * nr));
#pragma omp for schedule(dynamic, 1)
    for (int64_t b0 = 0; b0 < B; b0 += kTileUsers) {
      const int64_t rows = std::min(kTileUsers, B - b0);
      const float* u[kTileUsers + kMaxMr];
      float limit[kTileUsers];
      int64_t counted[kTileUsers] = {};
      const int32_t* owned[kTileUsers];
      // beyond the last row: any
      for (int64_t r = 0; r < kTileUsers + kMaxMr; ++r) u[r] = h_u.row(users[b0 + std::min(r, rows - 1)]);
      for (int64_t r = 0; r < rows; ++r) {
        limit[r] = plain::score(u[r], h_n.row(b0 + r), d);
        owned[r] = train.col + train.row_ptr[users[b0 + r]];
      }
      for (int64_t i0 = 0; i0 < I; i0 += kTileItems) {
        const int64_t n = std::min(kTileItems, I - i0);
        for (int64_t g = 0; g < rows; g += mr) {
          float s[kMaxMr * kTileItems];
          for (int64_t j = 0; j < n; j += nr) mk.in_place(s + j, kTileItems, u + g, packed + (i0 + j) * d, d, false);
          for (int64_t r = g; r < std::min(g + mr, rows); ++r) {
            const float *const s_r = s + (r - g) * kTileItems, x = limit[r];
            int32_t found = 0;
            for (int64_t i = 0; i < n; ++i) found += int32_t(s_r[i] > x) + int32_t(s_r[i] >= x);
            const int32_t* const end = train.col + train.row_ptr[users[b0 + r] + 1];
            for (; owned[r] < end && *owned[r] < i0 + n; ++owned[r])
              found -= int32_t(s_r[*owned[r] - i0] > x) + int32_t(s_r[*owned[r] - i0] >= x);
            counted[r] += found;
          }
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t b = b0 + r;
        put_ranks(out.row(b), counted[r], I - Interacted(train, users[b]).n, limit[r], h_n.row(b),
                  h_i.row(positives[b]), d);
      }
    }
  }
}

void negative_ranks_scratch(ScratchPlan& p, int64_t items, int64_t d) {
  const int64_t nr = micro_kernel().nr;
  p.need(0, (items + nr - 1) / nr * nr * d * 4);
}

}  // namespace cpu
}  // namespace ccdrec
