#include "host/ccdrec/denoiser.h"

#include <cmath>
#include <string>

#include "data/error.h"

namespace ccdrec {

namespace {

constexpr int kPerLayer = 16;  // tensors of an encoder layer
bool is_encoder(const Settings& s) { return s.estimator == "transformer"; }
int64_t inner_width(int64_t d) { return 4 * d; }

}  // namespace

void check_estimator(const Settings& s) {
  if (is_encoder(s) && s.embedding_size % s.estimator_heads)
    throw UserError("estimator_heads is " + std::to_string(s.estimator_heads) +
                    ", expected a divisor of embedding_size, " + std::to_string(s.embedding_size));
}

int64_t Denoiser::parameters(const Settings& s, int64_t d) {
  if (!is_encoder(s)) return 3 * d * d;
  return s.estimator_layers * (4 * d * d + 4 * d + 4 * d + 2 * d * inner_width(d) + inner_width(d) + d);
}

int64_t Denoiser::saved_floats(const Settings& s, int64_t d, int64_t capacity, int modalities) {
  const int64_t K = modalities + 2;
  if (!is_encoder(s)) return capacity * (K * (3 * d + 1 + K) + d) + 6 * 16;
  return encoder_saved_floats(capacity, modalities, d, inner_width(d), s.estimator_heads, s.estimator_layers);
}

Denoiser::Denoiser(Device& dev, ParamArena& arena, const Settings& s, int64_t d, int64_t capacity, int modalities)
    : dev_(dev),
      encoder_(is_encoder(s)),
      layers_(s.estimator_layers),
      heads_(s.estimator_heads),
      room_(dev, saved_floats(s, d, capacity, modalities)) {
  const int64_t K = modalities + 2, F = inner_width(d);
  if (!encoder_) {
    first_ = arena.add("estimator.w_q.weight", d, d, true);
    arena.add("estimator.w_k.weight", d, d, true);
    arena.add("estimator.w_v.weight", d, d, true);
    float* p = room_.p();
    const auto cut = [&](int64_t rows, int64_t cols) {
      const Mat m{p, rows, cols};
      p += (rows * cols + 15) / 16 * 16;  // each on a cache line of its own
      return m;
    };
    const Mat x = cut(capacity * K, d), rstd = cut(capacity * K, 1), y = cut(capacity * K, d), u = cut(capacity * K, d),
              a = cut(capacity * K, K);
    saved_ = {x, rstd, y, u, a, cut(capacity, d)};
    return;
  }
  for (int l = 0; l < layers_; ++l) {
    const std::string at = "estimator.layers." + std::to_string(l) + ".";
    const auto vector = [&](const char* name, int64_t n) { return arena.add(at + name, 1, n, false); };
    const auto linear = [&](const char* name, int64_t in, int64_t out) {
      const int w = arena.add(at + name + ".weight", in, out, true);
      vector((std::string(name) + ".bias").c_str(), out);
      return w;
    };
    const int s1 = vector("norm1.weight", d);
    if (l == 0) first_ = s1;
    vector("norm1.bias", d);
    for (const char* name : {"w_q", "w_k", "w_v", "out"}) linear(name, d, d);
    vector("norm2.weight", d);
    vector("norm2.bias", d);
    linear("linear1", d, F);
    linear("linear2", F, d);
  }
  encoder_saved_ = ccdrec::encoder_saved(room_.p(), capacity, modalities, d, F, heads_, layers_);
}

void Denoiser::init(ParamArena& arena, uint32_t seed) {
  const int count = encoder_ ? kPerLayer * layers_ : 3;
  for (int k = 0; k < count; ++k) {
    const Mat w = arena.value(first_ + k);
    const ParamInfo& info = arena.params()[size_t(first_ + k)];
    const Stream stream{seed, Use::init, 0, uint32_t(64 + k)};
    if (info.transposed) {
      dev_.ops.init_normal(dev_.ctx, w, float(std::sqrt(2.0 / double(w.rows + w.cols))), stream);
    } else if (info.name.find("norm") != std::string::npos && info.name.ends_with(".weight")) {
      const std::vector<float> ones(static_cast<size_t>(w.size()), 1.0f);
      arena.values().upload(ones.data(), w.size(), info.offset);
    }
  }
}

EncoderParams Denoiser::encoder(ParamArena& arena) const {
  EncoderParams p;
  p.layers = layers_, p.heads = heads_;
  for (int l = 0, at = first_; l < layers_; ++l)
    for (CMat* tensor : tensors_of(p.layer[l])) *tensor = arena.value(at++);
  return p;
}

void Denoiser::forward(ParamArena& arena, Mat e0_hat, const EstimatorTokens& tokens, RowList rows) {
  if (encoder_)
    dev_.ops.encoder_forward(dev_.ctx, e0_hat, encoder_saved_, tokens, encoder(arena), rows);
  else
    dev_.ops.estimator_forward(dev_.ctx, e0_hat, saved_, tokens, attention(arena), rows);
}

void Denoiser::backward(ParamArena& arena, Mat d_e_t, const Mat* d_h, CMat d_e0_hat, const EstimatorTokens& tokens,
                        RowList rows) {
  if (!encoder_) {
    const EstimatorGrads grads{arena.grad(first_), arena.grad(first_ + 1), arena.grad(first_ + 2)};
    dev_.ops.estimator_backward(dev_.ctx, d_e_t, d_h, grads, d_e0_hat, tokens, saved_, attention(arena), rows);
    return;
  }
  EncoderGrads grads;
  for (int l = 0, at = first_; l < layers_; ++l)
    for (Mat* tensor : tensors_of(grads.layer[l])) *tensor = arena.grad(at++);
  dev_.ops.encoder_backward(dev_.ctx, d_e_t, d_h, grads, d_e0_hat, tokens, encoder_saved_, encoder(arena), rows);
}

void Denoiser::reverse(ParamArena& arena, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau,
                       const Schedule& schedule, uint32_t seed, uint32_t epoch) const {
  if (encoder_)
    dev_.ops.encoder_reverse(dev_.ctx, pools, q, h, modalities, tau, encoder(arena), schedule, seed, epoch);
  else
    dev_.ops.reverse_process(dev_.ctx, pools, q, h, modalities, tau, attention(arena), schedule, seed, epoch);
}

}  // namespace ccdrec
