// LATTICE's item graph, built and differentiated once an epoch over all items: lists of ten neighbours, two modalities.
#include <fmt/format.h>

#include "bench/gpu/bench.h"

namespace ccdrec::bench {
namespace {

constexpr int64_t d = kWidth, k = 10;

void lists(Bench& b) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050);
  const Array<int32_t> idx(dev, random_ids(I * k, I, 51));
  OwnedGroups owned(dev, I * k);
  Groups by_target = owned.groups();
  dev.ops.group(dev.ctx, by_target, idx.p(), I * k, I);
  const DeviceMatrix x(dev, I, d), y(dev, I, d), g(dev, I, k);
  Matrix v(dev, I, k), dy(dev, I, d);
  const std::string shape = fmt::format("{} lists of {}", I, k);
  const double entries = double(I) * k, bytes = entries * (8 + 4 * d) + 4.0 * double(I) * d;
  b.measure("list_dots", shape, bytes, 2 * entries * d, [&] { dev.ops.list_dots(dev.ctx, v, x, y, idx.p(), k); });
  b.measure("list_spread", shape, 2 * bytes, 4 * entries * d,
            [&] { dev.ops.list_spread(dev.ctx, dy, g, y, idx.p(), by_target); });
}

void latent(Bench& b) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050);
  constexpr int M = 2;
  const Array<float> theta = floats(dev, M), weights(dev, std::vector<float>{0.5f, 0.5f});
  Array<float> w(dev, M), g_w(dev, M), g_theta(dev, M), s(dev, I);
  b.measure("softmax_weights", "two", 8.0 * M, 0, [&] { dev.ops.softmax_weights(dev.ctx, w.p(), theta.p(), M); });
  b.measure("softmax_weights_backward", "two", 16.0 * M, 0,
            [&] { dev.ops.softmax_weights_backward(dev.ctx, g_theta.p(), weights.p(), w.p(), M); });
  const DeviceMatrix learned[M] = {{dev, I, k}, {dev, I, k}}, frozen[M] = {{dev, I, k}, {dev, I, k}},
                     gamma[M] = {{dev, I, k}, {dev, I, k}};
  const Array<int32_t> idx[M] = {{dev, random_ids(I * k, I, 52)}, {dev, random_ids(I * k, I, 53)}};
  Matrix g_k[M] = {{dev, I, k}, {dev, I, k}}, s_val(dev, I, 2 * M * k);
  Array<int32_t> s_col(dev, I * 2 * M * k);
  Array<int64_t> empty(dev, 1);
  OwnedGroups owned[M] = {{dev, I * k}, {dev, I * k}};
  LatentLists in;
  LatentGradients to;
  in.M = M;
  for (int m = 0; m < M; ++m) {
    in.learned[m] = learned[m], in.frozen[m] = frozen[m], in.idx[m] = in.frozen_idx[m] = idx[m].p();
    to.gamma[m] = to.frozen_gamma[m] = gamma[m], to.g_k[m] = g_k[m], to.by_target[m] = owned[m].groups();
    dev.ops.group(dev.ctx, to.by_target[m], idx[m].p(), I * k, I);
  }
  const std::string shape = fmt::format("{} items, {} lists of {}", I, M, k);
  const double entries = double(I) * M * k;
  b.measure("latent_graph", shape, 36 * entries + 8.0 * double(I), 0,
            [&] { dev.ops.latent_graph(dev.ctx, s_val, s_col.p(), s.p(), empty.p(), in, weights.p(), 0.9f); });
  std::vector<int64_t> starts(size_t(I + 1));
  for (size_t r = 0; r < starts.size(); ++r) starts[r] = int64_t(r) * 2 * M * k;
  const Array<int64_t> row_ptr(dev, starts);
  const Csr graph{I, I, row_ptr.p(), s_col.p(), s_val.mat().p, s_col.n()};
  OwnedCsr transposed(dev, I, I, graph.nnz);
  // Keys and entries sorted by the bits of a column, values fetched from where they were.
  b.measure("transpose", fmt::format("{} rows of {}", I, 2 * M * k), 60.0 * double(graph.nnz), 0,
            [&] { dev.ops.transpose(dev.ctx, transposed.mutable_view(), graph); });
  b.measure("latent_graph_backward", shape, 60 * entries + 24.0 * double(I), 0,
            [&] { dev.ops.latent_graph_backward(dev.ctx, g_w.p(), to, in, weights.p(), s.p(), 0.9f); });
}

}  // namespace

void item_graphs(Bench& b) {
  if (b.wanted({"list_dots", "list_spread"})) lists(b);
  if (b.wanted({"softmax_weights", "softmax_weights_backward", "latent_graph", "latent_graph_backward", "transpose"}))
    latent(b);
}

}  // namespace ccdrec::bench
