#include "kernels/diffusion.h"

#include <algorithm>
#include <numbers>
#include <stdexcept>

#include "kernels/cpu/fast/lanes.h"
#include "kernels/cpu/fast/normals.h"

namespace ccdrec {

// beta_t of step t = 1..T.
static double beta_of(const std::string& kind, int t, int T) {
  const double T_ = T;
  if (kind == "linear") return T == 1 ? 1e-4 : 1e-4 + (t - 1) / (T_ - 1) * (2e-2 - 1e-4);
  if (kind == "cosine") {
    auto g = [&](double x) {
      const double c = std::cos((x / T_ + 0.008) / 1.008 * std::numbers::pi / 2);
      return c * c;
    };
    return std::clamp(1 - g(t) / g(t - 1), 1e-4, 0.9999);
  }
  if (kind == "exponential") {
    const double x = T == 1 ? 1 : 1 + (t - 1) * 2 * T_ / (T_ - 1);
    return 1 - std::exp(-0.1 / T_ - x * (10 - 0.1) / (2 * T_ * T_));
  }
  if (kind == "sqrt") {
    auto g = [](double y) { return 1 - std::sqrt(y + 1e-4); };
    return std::min(1 - g(t / T_) / g((t - 1) / T_), 0.999);
  }
  throw std::invalid_argument("unknown diffusion schedule '" + kind +
                              "': expected linear, cosine, exponential or sqrt");
}

HostSchedule make_schedule(const std::string& kind, int steps, bool noise_form) {
  if (steps < 1) throw std::invalid_argument("diffusion steps = " + std::to_string(steps) + ": expected at least 1");
  HostSchedule s;
  double abar_prev = 1;
  for (int t = 1; t <= steps; ++t) {
    const double beta = beta_of(kind, t, steps), alpha = 1 - beta, abar = abar_prev * alpha;
    double a, b;
    if (noise_form) {
      a = -beta / (std::sqrt(alpha) * std::sqrt(1 - abar));
      b = 1 / std::sqrt(alpha);
    } else if (t == 1) {  // exactly: 1 - abar_1 loses digits, and the last reverse step must return the estimate itself
      a = 1;
      b = 0;
    } else {
      a = beta * std::sqrt(abar_prev) / (1 - abar);
      b = (1 - abar_prev) * std::sqrt(alpha) / (1 - abar);
    }
    s.beta.push_back(beta);
    s.abar.push_back(abar);
    s.sqrt_abar.push_back(float(std::sqrt(abar)));
    s.sqrt_1m_abar.push_back(float(std::sqrt(1 - abar)));
    s.a.push_back(float(a));
    s.b.push_back(float(b));
    s.sigma.push_back(float(std::sqrt(beta * (1 - abar_prev) / (1 - abar))));
    abar_prev = abar;
  }
  return s;
}

}  // namespace ccdrec

namespace ccdrec::cpu {

void draw_timesteps(Ctx&, int32_t* t, RowList rows, int steps, bool mirrored, Stream stream) {
  const int64_t n = rows.n(), h = mirrored ? n / 2 + 1 : n;
  for (int64_t j = 0; j < std::min(h, n); ++j) t[j] = int32_t(below(draw(stream, uint32_t(j)).v[0], uint32_t(steps)));
  // the mirrored half: lower variance, as the reference does
  for (int64_t j = h; j < n; ++j) t[j] = steps - 1 - t[j - h];
}

void draw_normals(Ctx& ctx, Mat eps, RowList rows, Stream stream) {
  const int64_t n = rows.n();
  CHECK_THAT(n <= eps.rows);
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t j = 0; j < n; ++j) normal_row(eps.row(j), eps.cols, stream, uint32_t(rows.at(j)));
}

// --- forward process, fusion, alignment ------------------------------------------------------------------------------

void diffuse(Ctx& ctx, Mat e_t, CMat q, CMat eps, const int32_t* t, RowList rows, const Schedule& schedule) {
  const int64_t n = rows.n(), d = q.cols;
  CHECK_THAT(e_t.cols == d && eps.cols == d && n <= e_t.rows && n <= eps.rows);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* d))
  for (int64_t j = 0; j < n; ++j) {
    const float signal = schedule.sqrt_abar[t[j]], noise = schedule.sqrt_1m_abar[t[j]];
    const float *q_i = q.row(rows.at(j)), *eps_j = eps.row(j);
    float* e_j = e_t.row(j);
    for (int64_t c = 0; c < d; ++c) e_j[c] = std::fma(signal, q_i[c], noise * eps_j[c]);
  }
}

void diffuse_backward(Ctx& ctx, Mat d_q, CMat d_e_t, const int32_t* t, RowList rows, const Schedule& schedule) {
  const int64_t n = rows.n(), d = d_q.cols;
  CHECK_THAT(d_e_t.cols == d && n <= d_e_t.rows);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* d))
  for (int64_t j = 0; j < n; ++j) {  // rows are distinct: no two threads meet
    const float signal = schedule.sqrt_abar[t[j]];
    const float* d_e_j = d_e_t.row(j);
    float* d_q_i = d_q.row(rows.at(j));
    for (int64_t c = 0; c < d; ++c) d_q_i[c] = std::fma(signal, d_e_j[c], d_q_i[c]);
  }
}

void fuse(Ctx& ctx, Mat ego, CMat hhat, CMat e0_hat, RowList rows, float mu) {
  const int64_t n = rows.n(), d = ego.cols;
  CHECK_SHAPE(hhat, ego.rows, d);
  CHECK_THAT(e0_hat.cols == d && n <= e0_hat.rows);
#pragma omp parallel for num_threads(ctx.threads_for(kFloatNs* n* d))
  for (int64_t j = 0; j < n; ++j) {
    const int64_t i = rows.at(j);
    const float *hhat_i = hhat.row(i), *e0_j = e0_hat.row(j);
    float* ego_i = ego.row(i);
    for (int64_t c = 0; c < d; ++c) ego_i[c] = std::fma(mu, e0_j[c], (1 - mu) * hhat_i[c]);
  }
}

void align(Ctx& ctx, double* loss, Mat d_e0_hat, Mat d_q, Mat g_ego, CMat q, CMat e0_hat, const Groups& groups,
           float lambda, int64_t terms, float mu) {
  typedef double D8 __attribute__((vector_size(64)));
  constexpr int64_t kChunk = 256;  // rows of one partial sum of the loss
  const int64_t n = groups.rows.n(), d = q.cols, chunks = (n + kChunk - 1) / kChunk;
  CHECK_SHAPE(d_q, q.rows, d);
  CHECK_SHAPE(g_ego, q.rows, d);
  CHECK_THAT(e0_hat.cols == d && d_e0_hat.cols == d && n <= e0_hat.rows && n <= d_e0_hat.rows);
  if (n == 0) return;
  const double s = double(lambda) / (double(terms) * double(d));
  double* partial = static_cast<double*>(ctx.scratch(0, size_t(chunks) * sizeof(double)));
#pragma omp parallel for num_threads(ctx.threads)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    double sum = 0;
    for (int64_t j = chunk * kChunk; j < std::min(n, (chunk + 1) * kChunk); ++j) {
      const int64_t i = groups.rows.at(j);
      const double m_i = groups.ptr[j + 1] - groups.ptr[j];
      const float two_s_m = float(2 * s * m_i);
      const float *q_i = q.row(i), *e0_j = e0_hat.row(j);
      float *d_e0_j = d_e0_hat.row(j), *d_q_i = d_q.row(i), *g_ego_i = g_ego.row(i);
      D8 lane{};  // fixed lanes: the same bits at any vector width
      each8(d, [&](int64_t c, int64_t lanes) {
        const V8 diff = take8(q_i + c, lanes) - take8(e0_j + c, lanes), g = splat8(two_s_m) * diff,
                 g_ego_8 = take8(g_ego_i + c, lanes);
        const D8 wide = __builtin_convertvector(diff, D8);
        lane += wide * wide;  // beyond the row's end both are 0
        put8(d_e0_j + c, fma8(splat8(mu), g_ego_8, -g), lanes);
        put8(d_q_i + c, take8(d_q_i + c, lanes) + g, lanes);
        put8(g_ego_i + c, splat8(1 - mu) * g_ego_8, lanes);
      });
      sum += m_i * (((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])));
    }
    partial[chunk] = sum;
  }
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk];
  *loss += s * sum;
}

}  // namespace ccdrec::cpu
