#include "host/ccdrec/dma.h"

namespace ccdrec {

Dma::Dma(Device& dev, ParamArena& arena, const Settings& s, int64_t d, int64_t capacity, int modalities)
    : dev_(dev),
      modalities_(modalities),
      steps_(s.timesteps),
      mu_(s.dma ? float(s.mu) : 0.0f),
      lambda_(float(s.lambda)),
      mirrored_(s.mirrored_timesteps),
      fuses_(s.dma),
      denoiser_(dev, arena, s, d, capacity, modalities) {
  host_ = make_schedule(s.noise_schedule, s.timesteps, s.noise_prediction_form);
  const std::vector<float>* src[5] = {&host_.sqrt_abar, &host_.sqrt_1m_abar, &host_.a, &host_.b, &host_.sigma};
  for (int k = 0; k < 5; ++k) sched_[k] = Array<float>(dev, *src[k]);
  schedule_ = {steps_, sched_[0].p(), sched_[1].p(), sched_[2].p(), sched_[3].p(), sched_[4].p()};
  tau_ = Matrix(dev, steps_, d);
  const std::vector<float> tau = time_embedding(steps_, d);
  tau_.array().upload(tau.data(), int64_t(tau.size()));
  eps_ = Matrix(dev, capacity, d), e_t_ = Matrix(dev, capacity, d), e0_hat_ = Matrix(dev, capacity, d);
  d_e0_hat_ = Matrix(dev, capacity, d), d_e_t_ = Matrix(dev, capacity, d);
  t_ = Array<int32_t>(dev, capacity);
}

void Dma::init(ParamArena& arena, uint32_t seed) { denoiser_.init(arena, seed); }

void Dma::set_given(const std::vector<int32_t>& t, const std::vector<float>& eps) {
  given_ = true;
  t_.upload(t.data(), int64_t(t.size()));
  eps_.array().upload(eps.data(), int64_t(eps.size()));
}

void Dma::forward(ParamArena& arena, Modalities& modal, CMat q, RowList items, uint32_t seed, uint32_t epoch, uint32_t step) {
  if (!given_) {
    dev_.ops.draw_timesteps(dev_.ctx, t_.p(), items, steps_, mirrored_, Stream{seed, Use::timestep, epoch, step});
    dev_.ops.draw_normals(dev_.ctx, eps_, items, Stream{seed, Use::noise, epoch, step});
  }
  dev_.ops.diffuse(dev_.ctx, e_t_, q, eps_, t_.p(), items, schedule_);
  tokens_.e_t = e_t_;
  for (int m = 0; m < modalities_; ++m) tokens_.h[m] = modal.h(m);
  tokens_.modalities = modalities_;
  tokens_.tau = tau_;
  tokens_.t = t_.p();
  denoiser_.forward(arena, e0_hat_, tokens_, items);
}

void Dma::fuse(Mat item_start, CMat hhat, RowList items) {
  if (fuses_) dev_.ops.fuse(dev_.ctx, item_start, hhat, e0_hat_, items, mu_);
}

void Dma::fuse_all(Mat item_start, CMat hhat, CMat e0_hat, int64_t n_items) {
  if (fuses_) dev_.ops.fuse(dev_.ctx, item_start, hhat, e0_hat, RowList{nullptr, nullptr, n_items}, mu_);
}

void Dma::backward(ParamArena& arena, Modalities& modal, double* loss, Mat d_q, Mat item_start_grad, CMat q, const Groups& items, int64_t terms) {
  if (!fuses_) {  // L_dm trains the estimator alone: what it would add to Q goes nowhere
    if (!scratch_q_) scratch_q_ = Matrix(dev_, d_q.rows, d_q.cols);
    d_q = scratch_q_;
  }
  dev_.ops.align(dev_.ctx, loss, d_e0_hat_, d_q, item_start_grad, q, e0_hat_, items, lambda_, terms, mu_);
  Mat d_h[kMaxModalities];
  for (int m = 0; m < modalities_; ++m) d_h[m] = modal.d_h(m);
  denoiser_.backward(arena, d_e_t_, d_h, d_e0_hat_, tokens_, items.rows);
  if (fuses_) dev_.ops.diffuse_backward(dev_.ctx, d_q, d_e_t_, t_.p(), items.rows, schedule_);
}

}  // namespace ccdrec
