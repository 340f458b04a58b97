#include "kernels/latent.h"

#include "kernels/cpu/pair_loss.h"

namespace ccdrec::cpu {
namespace {

void check_lists(const LatentLists& in, int64_t I, int64_t k) {
  CHECK_THAT(in.M >= 1 && in.M <= kMaxModalities);
  for (int m = 0; m < in.M; ++m) {
    CHECK_SHAPE(in.learned[m], I, k);
    CHECK_SHAPE(in.frozen[m], I, k);
  }
}

// The sum of term(e), e = 0 .. n-1, by lanes.
template <class Term>
double lane_sum(int64_t n, Term&& term) {
  double lane[kLanes] = {};
  for (int64_t e = 0; e < n; ++e) lane[e % kLanes] += term(e);
  return sum_lanes(lane);
}

constexpr double kEntryNs = 4;  // of a core, about, for an entry of a list

}  // namespace

void softmax_weights(Ctx&, float* w, const float* theta, int M) {
  CHECK_THAT(M >= 1 && M <= kMaxModalities);
  softmax_of(w, theta, M);
}

void softmax_weights_backward(Ctx&, float* g_theta, const float* w, const float* g_w, int M) {
  CHECK_THAT(M >= 1 && M <= kMaxModalities);
  add_softmax_gradient(g_theta, w, g_w, M);
}

void latent_graph(Ctx& ctx, Mat s_val, int32_t* s_col, float* s, int64_t* empty, const LatentLists& in, const float* w,
                  float lambda) {
  const int64_t I = in.learned[0].rows, k = in.learned[0].cols, M = in.M;
  check_lists(in, I, k);
  CHECK_SHAPE(s_val, I, 2 * M * k);
  const int threads = ctx.threads_for(kEntryNs * double(I * M * k));
  int64_t none = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : none)
  for (int64_t i = 0; i < I; ++i) {
    const double c = lane_sum(M * k, [&](int64_t e) { return double(w[e / k]) * in.learned[e / k].row(i)[e % k]; });
    s[i] = float(scale_of(c));
    none += c <= 0;
  }
  *empty = none;
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < I; ++i)
    for (int64_t m = 0; m < M; ++m)
      for (int64_t c = 0; c < k; ++c) {
        const int32_t j = in.idx[m][i * k + c];
        const int64_t learned = i * s_val.cols + m * k + c, frozen = learned + M * k;
        s_val.p[learned] = learned_value(w[m], in.learned[m].row(i)[c], s[i], s[j], lambda), s_col[learned] = j;
        s_val.p[frozen] = frozen_value(w[m], in.frozen[m].row(i)[c], lambda);
        s_col[frozen] = in.frozen_idx[m][i * k + c];
      }
}

// S_ij = (1 - lambda) s_i C_ij s_j, s = c^(-1/2), c the row sums of C: an entry reaches C_ij directly, and by s of both
// its ends, whose gradient spreads over all entries of that end's row.
void latent_graph_backward(Ctx& ctx, float* g_w, const LatentGradients& to, const LatentLists& in, const float* w,
                           const float* s, float lambda) {
  const int64_t I = in.learned[0].rows, k = in.learned[0].cols, M = in.M;
  check_lists(in, I, k);
  for (int m = 0; m < M; ++m) {
    CHECK_SHAPE(to.gamma[m], I, k);
    CHECK_SHAPE(to.frozen_gamma[m], I, k);
    CHECK_SHAPE(to.g_k[m], I, k);
  }
  const int threads = ctx.threads_for(kEntryNs * double(I * M * k));
  double* const g = static_cast<double*>(ctx.scratch(1, size_t(I) * sizeof(double)));  // g_s, then g_c
  std::fill_n(g, I, 0.0);
  for (int m = 0; m < M; ++m) {
    const Groups& groups = to.by_target[m];
    const int64_t n = groups.rows.n();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 64)
    for (int64_t j = 0; j < n; ++j)
      g[groups.rows.at(j)] += lane_sum(groups.ptr[j + 1] - groups.ptr[j], [&](int64_t e) {
        const int64_t slot = groups.slot[groups.ptr[j] + e];
        return end_gradient(to.gamma[m].p[slot], w[m], in.learned[m].p[slot], s[slot / k], lambda);
      });
  }
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < I; ++i) {
    g[i] += lane_sum(M * k, [&](int64_t e) {
      const int64_t m = e / k, slot = i * k + e % k;
      return end_gradient(to.gamma[m].p[slot], w[m], in.learned[m].p[slot], s[in.idx[m][slot]], lambda);
    });
    g[i] = sum_gradient(s[i], g[i]);
  }
  double total[kMaxModalities];
  sum_rows(ctx, total, M, I, [&](int64_t m, int64_t i) {
    double sum = 0;
    for (int64_t slot = i * k; slot < (i + 1) * k; ++slot) {
      const double g_c = entry_gradient(to.gamma[m].p[slot], s[i], s[in.idx[m][slot]], g[i], lambda);
      to.g_k[m].p[slot] = float(double(w[m]) * g_c);
      sum += g_c * in.learned[m].p[slot];
      sum += double(lambda) * in.frozen[m].p[slot] * to.frozen_gamma[m].p[slot];
    }
    return sum;
  });
  for (int64_t m = 0; m < M; ++m) g_w[m] = float(total[m]);
}

void latent_graph_backward_scratch(ScratchPlan& p, int64_t I, int64_t, int M) {
  p.need(0, M * ((I + kChunkRows - 1) / kChunkRows) * 8), p.need(1, I * 8);
}

}  // namespace ccdrec::cpu
