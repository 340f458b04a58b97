// What MMGCN, SLMRec, BM3 and MCDRec add to the catalogue, at the sizes of a Baby step.
#include <fmt/format.h>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth;

void activations(Bench& b) {
  Device& dev = b.dev();
  const int64_t N = b.n(26495);
  const DeviceMatrix x(dev, N, d), plus(dev, N, d), g(dev, N, d);
  Matrix y(dev, N, d), g_x(dev, N, d);
  const std::string shape = fmt::format("{} rows of {}", N, d);
  const double values = double(N) * d;
  b.measure("leaky_relu", shape, 12 * values, 2 * values, [&] { dev.ops.leaky_relu(dev.ctx, y, x, plus, Slopes{}); });
  b.measure("leaky_relu_backward", shape, 16 * values, values,
            [&] { dev.ops.leaky_relu_backward(dev.ctx, g_x, g, y, plus, Slopes{}); });
}

void views(Bench& b) {
  Device& dev = b.dev();
  const int64_t N = b.n(26495), B = b.n(2048), words = mask_words(d);
  const DeviceMatrix table(dev, N, d), o(dev, B, d), x(dev, B, d);
  Matrix g(dev, N, d), d_o(dev, B, d);
  Array<uint16_t> bits(dev, B * words);
  const Array<double> loss(dev, 1);
  const std::string rows = fmt::format("{} rows of {}", B, d);
  b.measure("draw_masks", rows, 2.0 * double(B * words), 0, [&] {
    dev.ops.draw_masks(dev.ctx, bits.p(), RowList{nullptr, nullptr, B}, words, 0.5f, Stream{1, Use::test, 0, 0});
  });
  b.measure("cosine_loss", rows, double(B) * (12 * d + 2 * words), 8.0 * double(B) * d,
            [&] { dev.ops.cosine_loss(dev.ctx, loss.p(), d_o, o, x, bits.p(), 1.0f, false); });
  b.measure("frobenius_reg", fmt::format("{} rows of {}", N, d), 12.0 * double(N) * d, 4.0 * double(N) * d,
            [&] { dev.ops.frobenius_reg(dev.ctx, loss.p(), g, table, 0.1f, false); });
}

void contrast(Bench& b) {
  Device& dev = b.dev();
  const int64_t B = b.n(2048);
  const DeviceMatrix x(dev, B, d), y(dev, B, d);
  Matrix d_x(dev, B, d), d_y(dev, B, d);
  const Array<double> loss(dev, 1);
  b.measure("infonce", fmt::format("{} rows of {}", B, d), 16.0 * double(B) * d, 6.0 * double(B) * double(B) * d,
            [&] { dev.ops.infonce(dev.ctx, loss.p(), d_x, d_y, x, y, 0.2f, 1.0f); });
}

// All items of Baby. Operations without the taps that meet padding (kernels/unet.h).
void unet(Bench& b) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050);
  constexpr int T = 20;
  constexpr double kFlop = 2 * 1.04e6;
  const DeviceMatrix e_t(dev, I, d), h0(dev, I, d), h1(dev, I, d), d_e0(dev, I, d), q(dev, I, d);
  Matrix tau(dev, T, kUnetTimeIn), e0(dev, I, d), d_e_t(dev, I, d), d_h0(dev, I, d), d_h1(dev, I, d), pool(dev, I, d);
  const std::vector<float> times = unet_time_embedding(T);
  tau.array().upload(times.data(), int64_t(times.size()));
  const Array<int32_t> t(dev, random_ids(I, T, 4));
  const DeviceMatrix weights(dev, 1, kUnet.parameters);
  Matrix gradients(dev, 1, kUnet.parameters);
  UnetParams params{};
  UnetGrads grads{};
  int64_t at = 0;
  for (int k = 0; k < kUnet.tensors; ++k) {
    params.p[k] = weights.a.p() + at, grads.p[k] = gradients.mat().p + at;
    at += int64_t(kUnet.tensor[size_t(k)].rows) * kUnet.tensor[size_t(k)].cols;
  }
  EstimatorTokens in;
  in.e_t = e_t, in.h[0] = h0, in.h[1] = h1, in.modalities = 2, in.tau = tau, in.t = t.p();
  const Array<float> room(dev, unet_saved_floats(I));
  const UnetSaved saved{room.p(), I};
  const RowList rows{nullptr, nullptr, I};
  const std::string shape = fmt::format("{} items", I);
  const double kept = 4.0 * double(I) * double(kUnetSaved);
  b.measure("unet_forward", shape, kept + 16.0 * double(I) * d, kFlop * double(I),
            [&] { dev.ops.unet_forward(dev.ctx, e0, saved, in, params, {}, rows); });
  const Mat d_h[kMaxModalities] = {d_h0, d_h1};
  b.measure("unet_backward", shape, kept + 16.0 * double(I) * d, 2 * kFlop * double(I),
            [&] { dev.ops.unet_backward(dev.ctx, d_e_t, d_h, grads, d_e0, in, saved, params, {}, rows); });
  const HostSchedule host = make_schedule("linear", T, false);
  const std::vector<float>* const from[5] = {&host.sqrt_abar, &host.sqrt_1m_abar, &host.a, &host.b, &host.sigma};
  Array<float> s[5];
  for (int k = 0; k < 5; ++k) s[k] = Array<float>(dev, *from[k]);
  const Schedule schedule{T, s[0].p(), s[1].p(), s[2].p(), s[3].p(), s[4].p()};
  const Mat pools[4] = {{}, {}, {}, pool};
  const CMat h[kMaxModalities] = {h0, h1};
  b.measure("unet_reverse", fmt::format("{} items, {} steps", I, T), 20.0 * double(I) * d, T * kFlop * double(I),
            [&] { dev.ops.unet_reverse(dev.ctx, pools, q, h, 2, tau, params, schedule, 1, 0); });
}

}  // namespace

void models(Bench& b) {
  if (b.wanted({"unet_forward", "unet_backward", "unet_reverse"})) unet(b);
  if (b.wanted({"infonce"})) contrast(b);
  if (b.wanted({"draw_masks", "cosine_loss", "frobenius_reg"})) views(b);
  if (b.wanted({"leaky_relu", "leaky_relu_backward"})) activations(b);
}

}  // namespace ccdrec::bench
