#include "kernels/filtered.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/double_sums.h"
#include "kernels/cpu/fast/selection.h"
#include "kernels/normalize.h"
#include "kernels/sample.h"

namespace ccdrec::cpu {
namespace {

float inverse_norm(const float* x, int64_t d) {
  return float(1 / std::max(std::sqrt(dot_in_double(x, x, d)), kNormFloor));  // a NaN passes
}

double distance(const float* a, const float* b, int64_t d) {
  double lane[kLanes] = {};
  for (int64_t j = 0; j < d; ++j) {
    const double apart = double(a[j]) - double(b[j]);
    lane[j % kLanes] += apart * apart;
  }
  return std::sqrt(sum_lanes(lane));
}

double sum_of(const double* term, int64_t n) {
  double lane[kLanes] = {};
  for (int64_t k = 0; k < n; ++k) lane[k % kLanes] += term[k];
  return sum_lanes(lane);
}

bool is_active(const FilterProblem& p, int64_t b) {
  return uniform01(draw(p.active, uint32_t(p.first_row + b)).v[0]) < *p.q;
}
uint32_t drawn_rank(const FilterProblem& p, int64_t b, int64_t n_ok) {
  return below(draw(p.rank, uint32_t(p.first_row + b)).v[0], uint32_t(std::min(p.top, n_ok)));
}

void check_problem(const FilterProblem& p) {
  CHECK_SHAPE(p.h_u, p.h_u.rows, p.h_i.cols);
  CHECK_THAT(p.n_candidates >= 0 && p.n_candidates <= kMostFiltered && p.top >= 1);
}

}  // namespace

namespace plain {

float dot_of_lanes(const float* a, const float* b, int64_t d) {
  float lane[kLanes] = {};
  for (int64_t j = 0; j < d; ++j) lane[j % kLanes] = std::fma(a[j], b[j], lane[j % kLanes]);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void filtered_negative(int32_t* out, int64_t* counts, const FilterProblem& p) {
  const int64_t d = p.h_i.cols;
  struct Candidate {
    float score;
    int32_t item;
  };
  for (int64_t b = 0; b < p.batch; ++b) {
    if (!is_active(p, b)) continue;
    const float *const u = p.h_u.row(p.users[b]), *const h_p = p.h_i.row(p.positives[b]);
    std::vector<Candidate> ok;
    for (int64_t m = 0; m < p.n_candidates; ++m) {
      const int32_t item = p.table[p.users[b] * p.n_candidates + m];
      if (item < 0) continue;
      const float* const h_m = p.h_i.row(item);
      const float s = dot_of_lanes(u, h_m, d);
      const float cosine = dot_of_lanes(h_p, h_m, d) * inverse_norm(h_m, d) * inverse_norm(h_p, d);
      if (s == s && cosine <= *p.theta) ok.push_back({s, item});
    }
    if (counts) ++counts[0], counts[1] += ok.empty();
    if (ok.empty()) continue;
    std::stable_sort(ok.begin(), ok.end(), [](const Candidate& x, const Candidate& y) { return x.score > y.score; });
    out[b] = ok[drawn_rank(p, b, int64_t(ok.size()))].item;
  }
}

void cohesion(float* theta, CMat h, int clusters, float scale, Stream s) {
  const int64_t I = h.rows, d = h.cols, K = std::min<int64_t>(clusters, I);
  Ctx ctx(1);
  std::vector<int32_t> order(static_cast<size_t>(I)), of(order);
  std::vector<float> rows(size_t(I * d)), inv(size_t(I), 0.0f);
  const Mat x{rows.data(), I, d};
  cpu::shuffle(ctx, order.data(), I, s);
  cpu::normalize_rows(ctx, x, inv.data(), h, {nullptr, nullptr, I});
  std::vector<std::vector<float>> centre;
  for (int64_t k = 0; k < K; ++k) centre.emplace_back(x.row(order[size_t(k)]), x.row(order[size_t(k)]) + d);
  const auto norms = [&](const std::vector<float>& c) { return inverse_norm(c.data(), d); };
  for (int r = 0; r < kCohesionRounds; ++r) {
    for (int64_t i = 0; i < I; ++i) {
      float best = -std::numeric_limits<float>::infinity();
      of[size_t(i)] = 0;
      for (int64_t k = 0; k < K; ++k) {
        float cosine = 0;
        for (int64_t j = 0; j < d; ++j)
          cosine = std::fma(centre[size_t(k)][size_t(j)] * norms(centre[size_t(k)]), x.row(i)[j], cosine);
        if (cosine > best) best = cosine, of[size_t(i)] = int32_t(k);
      }
    }
    std::vector<double> shift;
    for (int64_t k = 0; k < K; ++k) {
      std::vector<float> now(static_cast<size_t>(d));
      for (int64_t j = 0; j < d; ++j) {
        double lane[kLanes] = {};
        int64_t n = 0;
        for (int64_t i = 0; i < I; ++i)
          if (of[size_t(i)] == k) lane[n++ % kLanes] += double(x.row(i)[j]);
        now[size_t(j)] = n > 0 ? float(sum_lanes(lane) / double(n))
                               : x.row(below(draw(s, uint32_t(k), uint32_t(r) + 1).v[0], uint32_t(I)))[j];
      }
      shift.push_back(distance(now.data(), centre[size_t(k)].data(), d));
      centre[size_t(k)] = now;
    }
    const double sum = sum_of(shift.data(), K);
    if (sum * sum < kCohesionShift) break;
  }
  std::vector<double> squares;
  for (const auto& c : centre) squares.push_back(dot_in_double(c.data(), c.data(), d));
  *theta = K == 0 ? 0.0f : float(double(scale) * (sum_of(squares.data(), K) / double(K)));
}

}  // namespace plain

void pick_columns(Ctx& ctx, int32_t* out, const int32_t* lists, int64_t n, int64_t k, const int32_t* columns, int64_t c,
                  const int32_t* names) {
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* double(n * c)))
  for (int64_t r = 0; r < n; ++r)
    for (int64_t j = 0; j < c; ++j) {
      const int32_t entry = lists[r * k + columns[j]];
      out[r * c + j] = names && entry >= 0 ? names[entry] : entry;
    }
}

// --- cohesion --------------------------------------------------------------------------------------------------------

namespace {

// Centres with what a round needs of them.
struct Centres {
  Mat now;          // (K,d)
  Mat unit;         // divided by their norms
  double* shift;    // (K) by how much the last change moved them
  double* squares;  // (K) of their norms

  // The centre that stands in unit[k] takes the place of now[k].
  void enter(int64_t k) const {
    const int64_t d = now.cols;
    float *const c = now.row(k), *const u = unit.row(k);
    shift[k] = distance(u, c, d);
    std::copy_n(u, d, c);
    squares[k] = dot_in_double(c, c, d);
    const float inv = float(1 / std::max(std::sqrt(squares[k]), kNormFloor));
    for (int64_t j = 0; j < d; ++j) u[j] = c[j] * inv;
  }
};

// The nearest centres of the n items of a panel. Items lie across the vector, centres pass by in ascending order.
void nearest(const MicroKernel& mk, int32_t* cluster, int64_t n, const float* panel, CMat unit) {
  const int64_t K = unit.rows, mr = mk.mr, nr = mk.nr;
  float best[kMaxNr];
  int32_t at[kMaxNr] = {};
  std::fill_n(best, kMaxNr, -std::numeric_limits<float>::infinity());
  for (int64_t k0 = 0; k0 < K; k0 += mr) {
    const float* rows[kMaxMr];
    for (int64_t r = 0; r < mr; ++r) rows[r] = unit.row(std::min(k0 + r, K - 1));  // beyond the last: any
    float cosine[kMaxMr * kMaxNr];
    tile(mk, cosine, nr, rows, panel, unit.cols, false);
    for (int64_t r = 0; r < std::min(mr, K - k0); ++r)
      for (int64_t c = 0; c < nr; ++c) {
        const bool nearer = cosine[r * nr + c] > best[c];
        best[c] = nearer ? cosine[r * nr + c] : best[c], at[c] = nearer ? int32_t(k0 + r) : at[c];
      }
  }
  std::copy_n(at, n, cluster);
}

void mean_of(float* out, CMat x, const int32_t* members, int64_t n) {
  constexpr int64_t kColumns = 64;  // at a time: their lanes stay in L1
  for (int64_t c0 = 0; c0 < x.cols; c0 += kColumns) {
    const int64_t cols = std::min(kColumns, x.cols - c0);
    double sum[kLanes][kColumns] = {};
    for (int64_t m = 0; m < n; ++m) {
      const float* const row = x.row(members[m]) + c0;
      double* const lane = sum[m % kLanes];
      for (int64_t c = 0; c < cols; ++c) lane[c] += double(row[c]);
    }
    for (int64_t c = 0; c < cols; ++c) {
      double lane[kLanes];
      for (int l = 0; l < kLanes; ++l) lane[l] = sum[l][c];
      out[c0 + c] = float(sum_lanes(lane) / double(n));
    }
  }
}

// member: the items by cluster, ascending within one; those of cluster k lie at first[k] to first[k+1].
void sort_by_cluster(int32_t* member, int32_t* first, const int32_t* cluster, int64_t I, int64_t K) {
  std::fill_n(first, K + 1, 0);
  for (int64_t i = 0; i < I; ++i) ++first[cluster[i] + 1];
  for (int64_t k = 0; k < K; ++k) first[k + 1] += first[k];
  for (int64_t i = 0; i < I; ++i) member[first[cluster[i]]++] = int32_t(i);
  for (int64_t k = K; k > 0; --k) first[k] = first[k - 1];  // each has become the next one's
  first[0] = 0;
}

}  // namespace

void cohesion(Ctx& ctx, float* theta, CMat h, int clusters, float scale, Stream s) {
  CHECK_THAT(clusters >= 1);
  const int64_t I = h.rows, d = h.cols, K = std::min<int64_t>(clusters, I);
  if (I == 0) return void(*theta = 0);
  const MicroKernel& mk = micro_kernel();
  const int64_t nr = mk.nr, panels = (I + nr - 1) / nr;
  int32_t* const member = static_cast<int32_t*>(ctx.scratch(4, size_t(2 * I + K + 1) * sizeof(int32_t)));
  int32_t *const cluster = member + I, *const first = cluster + I;
  shuffle(ctx, member, I, s);  // before this operation takes its own slots 0 to 2
  float* const inv = static_cast<float*>(ctx.scratch(3, size_t(I * d + I) * sizeof(float)));
  const Mat x{inv + I, I, d};
  normalize_rows(ctx, x, inv, h, {nullptr, nullptr, I});
  float* const packed = static_cast<float*>(ctx.scratch(0, size_t(panels * nr * d) * sizeof(float)));
  float* const rows = static_cast<float*>(ctx.scratch(1, size_t(2 * K * d) * sizeof(float)));
  double* const of_centres = static_cast<double*>(ctx.scratch(2, size_t(2 * K) * sizeof(double)));
  const Centres centres{{rows, K, d}, {rows + K * d, K, d}, of_centres, of_centres + K};
  bool done = false;
#pragma omp parallel num_threads(ctx.threads)
  {
#pragma omp for
    for (int64_t p = 0; p < panels; ++p)
      pack_along(packed + p * nr * d, nr, x.row(p * nr), d, d, std::min(nr, I - p * nr));
#pragma omp for
    for (int64_t k = 0; k < K; ++k) {
      std::copy_n(x.row(member[k]), d, centres.unit.row(k));
      std::fill_n(centres.now.row(k), d, 0.0f);  // a shift from here is read by nobody
      centres.enter(k);
    }
    for (int r = 0; r < kCohesionRounds && !done; ++r) {
#pragma omp for
      for (int64_t p = 0; p < panels; ++p)
        nearest(mk, cluster + p * nr, std::min(nr, I - p * nr), packed + p * nr * d, centres.unit);
#pragma omp single
      sort_by_cluster(member, first, cluster, I, K);
#pragma omp for schedule(dynamic, 1)
      for (int64_t k = 0; k < K; ++k) {
        const int64_t n = first[k + 1] - first[k];
        if (n > 0)
          mean_of(centres.unit.row(k), x, member + first[k], n);
        else
          std::copy_n(x.row(below(draw(s, uint32_t(k), uint32_t(r) + 1).v[0], uint32_t(I))), d, centres.unit.row(k));
        centres.enter(k);
      }
#pragma omp single
      {
        const double sum = sum_of(centres.shift, K);
        done = sum * sum < kCohesionShift;
      }
    }
  }
  *theta = float(double(scale) * (sum_of(centres.squares, K) / double(K)));
}

void cohesion_scratch(ScratchPlan& p, int64_t I, int64_t d, int clusters) {
  const int64_t K = std::min<int64_t>(clusters, I), nr = micro_kernel().nr;
  shuffle_scratch(p, I);
  p.need(0, (I + nr - 1) / nr * nr * d * 4), p.need(1, 2 * K * d * 4), p.need(2, 2 * K * 8);
  p.need(3, (I * d + I) * 4), p.need(4, (2 * I + K + 1) * 4);
}

// --- filtered_negative -----------------------------------------------------------------------------------------------

namespace {

constexpr int64_t kAtOnce = 8;  // candidates

// Lane c = sum8(x[c]), in its order: lanes 4 apart, then 2, then 1.
V8 sums8(const V8 (&x)[8]) {
  V8 four[4], two[2];
  for (int i = 0; i < 4; ++i)
    four[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11) +
              __builtin_shufflevector(x[2 * i], x[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15);
  for (int i = 0; i < 2; ++i)  // x[0] x[0] x[2] x[2] x[1] x[1] x[3] x[3]
    two[i] = __builtin_shufflevector(four[2 * i], four[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
             __builtin_shufflevector(four[2 * i], four[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  // x[0] x[2] x[4] x[6] x[1] x[3] x[5] x[7]
  const V8 one = __builtin_shufflevector(two[0], two[1], 0, 2, 8, 10, 4, 6, 12, 14) +
                 __builtin_shufflevector(two[0], two[1], 1, 3, 9, 11, 5, 7, 13, 15);
  return __builtin_shufflevector(one, one, 0, 4, 1, 5, 2, 6, 3, 7);
}

// Eight rows' products with u and with p. Four rows at a time: eight sums, and what they are made of, fit the registers
// of AVX2.
void products8(V8& with_u, V8& with_p, const float* const (&row)[kAtOnce], const float* u, const float* p, int64_t d) {
  V8 of_u[kAtOnce], of_p[kAtOnce];
  for (int first = 0; first < kAtOnce; first += 4) {
    V8 a[4] = {}, b[4] = {};
    each8(d, [&](int64_t j, int64_t n) {
      const V8 u_j = take8(u + j, n), p_j = take8(p + j, n);
      for (int c = 0; c < 4; ++c) {
        const V8 x = take8(row[first + c] + j, n);
        a[c] = fma8(u_j, x, a[c]), b[c] = fma8(p_j, x, b[c]);
      }
    });
    for (int c = 0; c < 4; ++c) of_u[first + c] = a[c], of_p[first + c] = b[c];
  }
  with_u = sums8(of_u), with_p = sums8(of_p);
}

typedef int32_t I8 __attribute__((vector_size(32)));  // or what a comparison of eight floats gives: -1 true, 0 false

struct Row {  // of the batch
  const float *u, *h_p;
  float inv_p;
  const int32_t* candidates;
};

// Eight candidates of a row, from the m-th on; item -1 beyond the last.
struct Eight {
  I8 item;
  const float* h[kAtOnce];
  V8 inv;
  Eight(const FilterProblem& p, const Row& row, const float* norms, int64_t m) {
    for (int64_t c = 0; c < kAtOnce; ++c) {
      const int32_t i = m + c < p.n_candidates ? row.candidates[m + c] : -1, at = std::max(i, 0);
      item[c] = i, inv[c] = norms[at], h[c] = p.h_i.row(at);
    }
  }
  void prefetch(int64_t d) const {
    for (int64_t c = 0; c < kAtOnce; ++c)
      for (int64_t j = 0; j < d; j += kLine) __builtin_prefetch(h[c] + j);
  }
};

// The keys of a row's candidates, kExcluded for those that are not ok, up to a multiple of eight. Returns how many are.
int64_t keys_of(int32_t* key, const FilterProblem& p, const Row& row, const float* inv) {
  const int64_t N = p.n_candidates, d = p.h_i.cols;
  const V8 theta = splat8(*p.theta), inv_p = splat8(row.inv_p);
  I8 n_ok{};
  Eight now(p, row, inv, 0);
  for (int64_t m = 0; m < N; m += kAtOnce) {
    const Eight next(p, row, inv, m + kAtOnce);
    next.prefetch(d);  // while these are multiplied
    V8 score, with_p;
    products8(score, with_p, now.h, row.u, row.h_p, d);
    const I8 ok = (now.item >= 0) & (score == score) & (with_p * now.inv * inv_p <= theta);
    I8 k;  // signed_key(ordered_key(score))
    const V8 unsigned_zero = score + splat8(0.0f);
    std::memcpy(&k, &unsigned_zero, sizeof k);
    k ^= (k >> 31) & 0x7fffffff;
    k = (k & ok) | (kExcluded & ~ok);
    std::memcpy(key + m, &k, sizeof k);
    n_ok -= ok;
    now = next;
  }
  int64_t sum = 0;
  for (int c = 0; c < kAtOnce; ++c) sum += n_ok[c];
  return sum;
}

}  // namespace

void filtered_negative(Ctx& ctx, int32_t* out, int64_t* counts, const FilterProblem& p) {
  check_problem(p);
  const MicroKernel& mk = micro_kernel();
  const int64_t I = p.h_i.rows, d = p.h_i.cols, padded = (p.n_candidates + kAtOnce - 1) / kAtOnce * kAtOnce;
  float* const inv = static_cast<float*>(ctx.scratch(0, size_t(I) * sizeof(float)));
  int32_t* const keys = static_cast<int32_t*>(ctx.scratch(1, size_t(ctx.threads * padded) * sizeof(int32_t)));
  int64_t active = 0, stayed = 0;
#pragma omp parallel num_threads(ctx.threads) reduction(+ : active, stayed)
  {
#pragma omp for
    for (int64_t i = 0; i < I; ++i) inv[i] = inverse_norm(p.h_i.row(i), d);
    int32_t* const key = keys + omp_get_thread_num() * padded;
#pragma omp for schedule(dynamic, 16)
    for (int64_t b = 0; b < p.batch; ++b) {
      if (!is_active(p, b)) continue;
      const Row row{p.h_u.row(p.users[b]), p.h_i.row(p.positives[b]), inv[p.positives[b]],
                    p.table + p.users[b] * p.n_candidates};
      const int64_t n_ok = keys_of(key, p, row, inv);
      ++active, stayed += n_ok == 0;
      if (n_ok > 0) out[b] = row.candidates[position_of_rank(mk, key, padded, drawn_rank(p, b, n_ok))];
    }
  }
  if (counts) counts[0] += active, counts[1] += stayed;
}

void filtered_negative_scratch(ScratchPlan& p, int64_t, int64_t items, int64_t n_candidates) {
  p.need(0, items * 4), p.need(1, p.threads * ((n_candidates + kAtOnce - 1) / kAtOnce * kAtOnce) * 4);
}

}  // namespace ccdrec::cpu
