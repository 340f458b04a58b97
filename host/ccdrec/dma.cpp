#include "host/ccdrec/dma.h"

#include <numeric>

namespace ccdrec {

Dma::Dma(const Setup& z, const Outline& o, ParamArena& arena, Modalities& modal)
    : dev_(z.dev),
      arena_(arena),
      modal_(modal),
      seed_(z.s.seed),
      I_(z.items()),
      d_(z.width()),
      steps_(z.s.timesteps),
      mu_(o.fuses ? float(z.s.mu) : 0.0f),
      lambda_(float(z.s.lambda)),
      mirrored_(z.s.mirrored_timesteps),
      fuses_(o.fuses),
      of_all_(o.fuses_all),
      host_(make_schedule(z.s.noise_schedule, z.s.timesteps, z.s.noise_prediction_form)),
      denoiser_(z.dev, arena, z.s, d_, of_all_ ? I_ : z.item_slots(), modal.count()),
      ndi_(z, o.pools) {
  const std::vector<float>* src[5] = {&host_.sqrt_abar, &host_.sqrt_1m_abar, &host_.a, &host_.b, &host_.sigma};
  for (int k = 0; k < 5; ++k) sched_[k] = Array<float>(dev_, *src[k]);
  schedule_ = {steps_, sched_[0].p(), sched_[1].p(), sched_[2].p(), sched_[3].p(), sched_[4].p()};
  const std::vector<float> tau = denoiser_.step_encoding(steps_);
  tau_ = Matrix(dev_, steps_, int64_t(tau.size()) / steps_);
  tau_.array().upload(tau.data(), int64_t(tau.size()));
  const int64_t capacity = of_all_ ? I_ : z.item_slots();
  eps_ = Matrix(dev_, capacity, d_), e_t_ = Matrix(dev_, capacity, d_), e0_hat_ = Matrix(dev_, capacity, d_);
  d_e0_hat_ = Matrix(dev_, capacity, d_), d_e_t_ = Matrix(dev_, capacity, d_);
  t_ = Array<int32_t>(dev_, capacity);
  if (!of_all_) return;
  std::vector<int32_t> every(size_t(I_) + 1);
  std::iota(every.begin(), every.end(), 0);
  every_ = Array<int32_t>(dev_, every);
  modal_.ask_gradient_of_all();
}

Groups Dma::items(const Groups& of_batch) const {
  return of_all_ ? Groups{{nullptr, nullptr, I_}, every_.p(), every_.p()} : of_batch;
}

void Dma::init() { denoiser_.init(arena_, seed_); }

void Dma::forward(CMat q, RowList items, const Step& step) {
  if (!given_) {
    dev_.ops.draw_timesteps(dev_.ctx, t_.p(), items, steps_, mirrored_, step.now.draws(seed_, Use::timestep));
    dev_.ops.draw_normals(dev_.ctx, eps_, items, step.now.draws(seed_, Use::noise));
    denoiser_.draw_masks(items, step.now.draws(seed_, Use::unet_mask));
  }
  dev_.ops.diffuse(dev_.ctx, e_t_, q, eps_, t_.p(), items, schedule_);
  tokens_.e_t = e_t_;
  tokens_.modalities = modal_.count();
  for (int m = 0; m < modal_.count(); ++m) tokens_.h[m] = of_all_ ? modal_.h_all(m) : CMat(modal_.h(m));
  tokens_.tau = tau_;
  tokens_.t = t_.p();
  denoiser_.forward(arena_, e0_hat_, tokens_, items, true);
}

void Dma::fuse(Mat start, CMat base, RowList items) {
  if (fuses_) dev_.ops.fuse(dev_.ctx, start, base, e0_hat_, items, mu_);
}

void Dma::backward(double* loss, Mat d_q, Mat d_start, CMat q, const Groups& items, int64_t terms) {
  if (!fuses_) {  // L_dm trains the estimator alone: what it would add to Q goes nowhere
    if (!scratch_q_) scratch_q_ = Matrix(dev_, d_q.rows, d_q.cols);
    d_q = scratch_q_;
  }
  dev_.ops.align(dev_.ctx, loss, d_e0_hat_, d_q, d_start, q, e0_hat_, items, lambda_, terms, mu_);
  Mat d_h[kMaxModalities];
  for (int m = 0; m < modal_.count(); ++m)
    d_h[m] = of_all_ ? modal_.write_gradient_of_all(m) : modal_.write_gradient(m);
  denoiser_.backward(arena_, d_e_t_, d_h, d_e0_hat_, tokens_, items.rows);
  if (fuses_) dev_.ops.diffuse_backward(dev_.ctx, d_q, d_e_t_, t_.p(), items.rows, schedule_);
}

void Dma::end_epoch(CMat q, int epoch) {
  modal_.project_all();
  ndi_.run(denoiser_, arena_, modal_, tau_, schedule_, q, seed_, epoch);
}

void Dma::fuse_all(Mat start) {
  if (fuses_ && ndi_.ready()) dev_.ops.fuse(dev_.ctx, start, start, ndi_.e0_hat(), RowList{nullptr, nullptr, I_}, mu_);
}

void Dma::give(const Given& given, int64_t items) {
  given_ = true;
  const std::vector<int32_t> t = given.indices("diffusion.t", {items}, steps_);
  const std::vector<float> eps = given.floats("diffusion.noise", {items, d_});
  t_.upload(t.data(), items);
  eps_.array().upload(eps.data(), items * d_);
  denoiser_.give(given, items);
}

void Dma::draws(int64_t items, Watch& w) {
  w.indices("diffusion.t", {items}, t_.p());
  w.floats("diffusion.noise", {items, d_}, eps_);
  denoiser_.draws(items, w);
}

void Dma::show(int64_t n, Watch& w) {
  w.floats("schedule.sqrt_abar", {steps_}, host_.sqrt_abar);
  w.floats("schedule.sqrt_1m_abar", {steps_}, host_.sqrt_1m_abar);
  w.floats("e_t", {n, d_}, e_t_);
  w.floats("e0_hat", {n, d_}, e0_hat_);
  w.floats("grad.e_t", {n, d_}, d_e_t_);
  w.floats("grad.e0_hat", {n, d_}, d_e0_hat_);
  const EstimatorSaved* const saved = denoiser_.saved();
  if (!saved) return;
  const int64_t K = modal_.count() + 2;
  w.floats("estimator.x", {n, K, d_}, saved->x);
  w.floats("estimator.a", {n, K, K}, saved->a);
  w.floats("estimator.s", {n, d_}, saved->s);
}

void Dma::show_reverse(const Given& given, Watch& w) {
  modal_.project_all();
  ndi_.show(denoiser_, arena_, modal_, tau_, host_, given, w);
}

}  // namespace ccdrec
