#include "host/ccdrec/denoiser.h"

#include <cmath>
#include <string>

#include "data/error.h"

namespace ccdrec {

namespace {

constexpr int kPerLayer = 16;          // tensors of an encoder layer
constexpr uint32_t kFirstStream = 64;  // of the initialisers; the tables and maps have those before
int64_t inner_width(int64_t d) { return 4 * d; }

// Its tensors in the order of kUnet; the place of the first.
int add_unet(ParamArena& arena) {
  int first = -1;
  for (int k = 0; k < kUnet.tensors; ++k) {
    const UnetTensor& t = kUnet.tensor[size_t(k)];
    const bool vector = t.role != UnetRole::weight;
    const int at = arena.add(std::string("unet.") + t.block + "." + t.part, t.rows, t.cols, false, vector);
    if (k == 0) first = at;
  }
  return first;
}

}  // namespace

Denoiser::Form Denoiser::form_of(const Settings& s) {
  return s.estimator == "transformer" ? Form::transformer : s.estimator == "unet" ? Form::unet : Form::attention;
}

void check_estimator(const Settings& s) {
  if (s.estimator == "transformer" && s.embedding_size % s.estimator_heads)
    throw UserError("estimator_heads is " + std::to_string(s.estimator_heads) +
                    ", expected a divisor of embedding_size, " + std::to_string(s.embedding_size));
  if (s.estimator == "unet" && s.embedding_size != kUnetWidth)
    throw UserError("embedding_size is " + std::to_string(s.embedding_size) + ", expected " +
                    std::to_string(kUnetWidth) + " with the estimator unet, whose images have 8 x 8 pixels");
}

void check_estimator(const Settings& s, size_t modalities) {
  constexpr size_t kMost = 2;  // channels beside the items' own
  if (s.estimator == "unet" && (modalities < 1 || modalities > kMost))
    throw UserError(std::to_string(modalities) +
                    " modalities with the estimator unet, expected one or two; choose some with modalities");
}

int64_t Denoiser::parameters(const Settings& s, int64_t d) {
  if (form_of(s) == Form::attention) return 3 * d * d;
  if (form_of(s) == Form::unet) {
    ParamArena arena;
    return add_unet(arena), arena.size();
  }
  return s.estimator_layers * (4 * d * d + 4 * d + 4 * d + 2 * d * inner_width(d) + inner_width(d) + d);
}

int64_t Denoiser::saved_floats(const Settings& s, int64_t d, int64_t capacity, int modalities) {
  const int64_t K = modalities + 2;
  if (form_of(s) == Form::unet) {
    const int64_t words = s.unet_dropout > 0 ? capacity * kUnetMaskWords : 0;
    return unet_saved_floats(capacity) + (words + 1) / 2;
  }
  if (form_of(s) == Form::attention) return capacity * (K * (3 * d + 1 + K) + d) + 6 * 16;
  return encoder_saved_floats(capacity, modalities, d, inner_width(d), s.estimator_heads, s.estimator_layers);
}

Denoiser::Denoiser(Device& dev, ParamArena& arena, const Settings& s, int64_t d, int64_t capacity, int modalities)
    : dev_(dev),
      form_(form_of(s)),
      width_(d),
      layers_(s.estimator_layers),
      heads_(s.estimator_heads),
      room_(dev, form_ == Form::unet ? unet_saved_floats(capacity) : saved_floats(s, d, capacity, modalities)),
      rate_(float(s.unet_dropout)) {
  const int64_t K = modalities + 2, F = inner_width(d);
  if (form_ == Form::unet) {
    first_ = add_unet(arena);
    unet_saved_ = {room_.p(), capacity};
    if (rate_ > 0) bits_ = Array<uint16_t>(dev, capacity * kUnetMaskWords);
    return;
  }
  if (form_ == Form::attention) {
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
  const int count = form_ == Form::unet ? kUnet.tensors : form_ == Form::transformer ? kPerLayer * layers_ : 3;
  for (int k = 0; k < count; ++k) {
    const Mat w = arena.value(first_ + k);
    const ParamInfo& info = arena.params()[size_t(first_ + k)];
    const Stream stream{seed, Use::init, 0, kFirstStream + uint32_t(k)};
    if (form_ == Form::unet) {
      const UnetTensor& t = kUnet.tensor[size_t(k)];
      if (t.fan_in > 0) {
        dev_.ops.init_uniform(dev_.ctx, w, float(1.0 / std::sqrt(double(t.fan_in))), stream);
      } else if (t.role == UnetRole::gain) {
        const std::vector<float> ones(static_cast<size_t>(w.size()), 1.0f);
        arena.values().upload(ones.data(), w.size(), info.offset);
      }
    } else if (info.transposed) {
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

UnetParams Denoiser::unet(ParamArena& arena) const {
  UnetParams p{};
  for (int k = 0; k < kUnet.tensors; ++k) p.p[k] = arena.value(first_ + k).p;
  return p;
}

std::vector<float> Denoiser::step_encoding(int steps) const {
  return form_ == Form::unet ? unet_time_embedding(steps) : time_embedding(steps, width_);
}

void Denoiser::draw_masks(RowList rows, Stream stream) {
  if (bits_.n() > 0) dev_.ops.draw_masks(dev_.ctx, bits_.p(), rows, kUnetMaskWords, rate_, stream);
}

void Denoiser::give(const Given& given, int64_t rows) {
  if (form_ != Form::unet) {
    if (given.has("mask.unet"))
      given.fail("'mask.unet' is given, but the settings choose another estimator; leave it away");
    return;
  }
  if (!given.has("mask.unet")) return void(bits_ = {});  // nothing is dropped
  if (bits_.n() == 0) given.fail("'mask.unet' is given, but unet_dropout is 0; leave it away");
  const std::vector<int32_t> words = given.indices("mask.unet", {rows, kUnetMaskWords}, 1 << kMaskBits);
  bits_.upload(std::vector<uint16_t>(words.begin(), words.end()).data(), int64_t(words.size()));
}

void Denoiser::draws(int64_t rows, Watch& w) const {
  if (bits_.n() == 0) return;
  std::vector<uint16_t> words(static_cast<size_t>(rows * kUnetMaskWords));
  dev_.ops.download(dev_.ctx, words.data(), bits_.p(), words.size() * sizeof(uint16_t));
  w.indices("mask.unet", {rows, kUnetMaskWords}, std::vector<int32_t>(words.begin(), words.end()));
}

void Denoiser::forward(ParamArena& arena, Mat e0_hat, const EstimatorTokens& tokens, RowList rows, bool drops) {
  switch (form_) {
    case Form::attention:
      return dev_.ops.estimator_forward(dev_.ctx, e0_hat, saved_, tokens, attention(arena), rows);
    case Form::transformer:
      return dev_.ops.encoder_forward(dev_.ctx, e0_hat, encoder_saved_, tokens, encoder(arena), rows);
    case Form::unet:
      dropped_ = drops && bits_.n() > 0;
      return dev_.ops.unet_forward(dev_.ctx, e0_hat, unet_saved_, tokens, unet(arena), mask(), rows);
  }
}

void Denoiser::backward(ParamArena& arena, Mat d_e_t, const Mat* d_h, CMat d_e0_hat, const EstimatorTokens& tokens,
                        RowList rows) {
  switch (form_) {
    case Form::attention: {
      const EstimatorGrads grads{arena.grad(first_), arena.grad(first_ + 1), arena.grad(first_ + 2)};
      return dev_.ops.estimator_backward(dev_.ctx, d_e_t, d_h, grads, d_e0_hat, tokens, saved_, attention(arena), rows);
    }
    case Form::transformer: {
      EncoderGrads grads;
      for (int l = 0, at = first_; l < layers_; ++l)
        for (Mat* tensor : tensors_of(grads.layer[l])) *tensor = arena.grad(at++);
      return dev_.ops.encoder_backward(dev_.ctx, d_e_t, d_h, grads, d_e0_hat, tokens, encoder_saved_, encoder(arena),
                                       rows);
    }
    case Form::unet: {
      UnetGrads grads{};
      for (int k = 0; k < kUnet.tensors; ++k) grads.p[k] = arena.grad(first_ + k).p;
      return dev_.ops.unet_backward(dev_.ctx, d_e_t, d_h, grads, d_e0_hat, tokens, unet_saved_, unet(arena), mask(),
                                    rows);
    }
  }
}

void Denoiser::reverse(ParamArena& arena, const Mat* pools, CMat q, const CMat* h, int modalities, CMat tau,
                       const Schedule& schedule, uint32_t seed, uint32_t epoch) const {
  switch (form_) {
    case Form::attention:
      return dev_.ops.reverse_process(dev_.ctx, pools, q, h, modalities, tau, attention(arena), schedule, seed, epoch);
    case Form::transformer:
      return dev_.ops.encoder_reverse(dev_.ctx, pools, q, h, modalities, tau, encoder(arena), schedule, seed, epoch);
    case Form::unet:
      return dev_.ops.unet_reverse(dev_.ctx, pools, q, h, modalities, tau, unet(arena), schedule, seed, epoch);
  }
}

}  // namespace ccdrec
