#include "host/ccdrec/ndi.h"

#include <algorithm>
#include <cmath>

namespace ccdrec {

Ndi::Ndi(const Setup& z, int pools) : dev_(z.dev) {
  for (int k = 4 - pools; k < 4; ++k) pools_[k] = Matrix(z.dev, z.items(), z.width());
}

void Ndi::run(const Denoiser& f, ParamArena& arena, const Modalities& modal, CMat tau, const Schedule& schedule, CMat q,
              uint32_t seed, int epoch) {
  Mat pools[4];
  for (int k = 0; k < 4; ++k) pools[k] = pools_[k];
  CMat h[kMaxModalities];
  for (int m = 0; m < modal.count(); ++m) h[m] = modal.h_all(m);
  f.reverse(arena, pools, q, h, modal.count(), tau, schedule, seed, uint32_t(epoch));
  ready_ = true;
}

void Ndi::kept(std::vector<Kept>& all) {
  for (int k = 0; k < 4; ++k)
    if (Matrix& p = pools_[k])
      all.push_back({"pool." + std::to_string(k),
                     "F32",
                     {p.rows(), p.cols()},
                     p.array().p(),
                     size_t(p.array().n()) * sizeof(float),
                     &ready_});
}

void Ndi::show(Denoiser& f, ParamArena& arena, const Modalities& modal, CMat tau, const HostSchedule& h,
               const Given& given, Watch& w) const {
  const int64_t I = pools_[3].rows(), d = pools_[3].cols();
  const int T = int(tau.rows);
  const std::vector<float> q = given.floats("param.item_id_embedding.weight", {I, d}),
                           start = given.floats("noise.start", {I, d}), noise = given.floats("noise.steps", {T, I, d});
  EstimatorTokens tokens;
  Matrix e_t(dev_, I, d), e0(dev_, I, d);
  tokens.e_t = e_t, tokens.modalities = modal.count(), tokens.tau = tau;
  for (int m = 0; m < modal.count(); ++m) tokens.h[m] = modal.h_all(m);
  Array<int32_t> t_of(dev_, I);
  tokens.t = t_of.p();
  std::vector<float> e(q.size()), answers(q.size() * size_t(T));
  for (size_t k = 0; k < e.size(); ++k)
    e[k] = std::fma(h.sqrt_abar[size_t(T) - 1], q[k], h.sqrt_1m_abar[size_t(T) - 1] * start[k]);
  const int at[3] = {T / 4, T / 2, 3 * T / 4};
  for (int done = 0; done <= T; ++done) {
    for (int k = 0; k < 3; ++k)
      if (at[k] == done) w.floats("pool." + std::to_string(k), {I, d}, e);
    if (done == T) break;
    const int t = T - done;  // the step from t to t-1
    e_t.array().upload(e.data(), I * d);
    t_of.upload(std::vector<int32_t>(size_t(I), t - 1).data(), I);
    f.forward(arena, e0, tokens, RowList{nullptr, nullptr, I}, false);
    const std::vector<float> x0 = host_copy(dev_, e0);
    std::copy(x0.begin(), x0.end(), answers.begin() + int64_t(t - 1) * I * d);
    const float a = h.a[size_t(t) - 1], b = h.b[size_t(t) - 1], sigma = h.sigma[size_t(t) - 1];
    const float* const now = noise.data() + int64_t(t - 1) * I * d;
    for (size_t k = 0; k < e.size(); ++k) {
      e[k] = std::fma(b, e[k], a * x0[k]);
      if (t > 1) e[k] = std::fma(sigma, now[k], e[k]);
    }
  }
  w.floats("pool.3", {I, d}, e);
  w.floats("x0", {T, I, d}, std::move(answers));
  w.floats("schedule.a", {T}, h.a), w.floats("schedule.b", {T}, h.b), w.floats("schedule.sigma", {T}, h.sigma);
  w.floats("schedule.sqrt_abar", {T}, h.sqrt_abar), w.floats("schedule.sqrt_1m_abar", {T}, h.sqrt_1m_abar);
}

}  // namespace ccdrec
