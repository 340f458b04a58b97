// Full ranking of all users, and the neighbour lists of the item graph.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "bench/gpu/bench.h"
#include "kernels/cuda/library.h"

namespace ccdrec::bench {
namespace {

void ranking_of(Bench& b, const std::string& name, Shape shape) {
  Device& dev = b.dev();
  const int64_t d = kWidth, k = 50;
  const DeviceGraph g(dev, scaled(shape, b.scale()));
  const int64_t U = g.pairs.shape.U, I = g.pairs.shape.I;
  const DeviceMatrix hu(dev, U, d), hi(dev, I, d);
  std::vector<int32_t> all(static_cast<size_t>(U));
  std::iota(all.begin(), all.end(), 0);
  const Array<int32_t> users(dev, all);
  Array<int32_t> best(dev, U * k);
  Array<float> score(dev, U * k);
  const Csr mask = g.train();
  const double flop = 2.0 * double(U) * double(I) * d;
  Line& l = b.measure("score_topk", fmt::format("{}: {} users x {} items, k {}", name, U, I, k),
                      4.0 * (double(U + I) * d + 2.0 * double(U) * k), flop,
                      [&] { dev.ops.score_topk(dev.ctx, best.p(), score.p(), hu, users.p(), U, hi, &mask, k); });
  l.at_least("cuBLAS on the product, written out", flop / l.warm / (b.top().skinny_tflops * 1e12),
             name == "elec" ? 0.5 : 0);
}

// Once a data set; 2 I^2 F flop, since the symmetry of the similarities is not used.
void neighbours(Bench& b, int64_t features, double by_cub) {
  Device& dev = b.dev();
  const int64_t I = b.n(7050), F = b.n(features), k = std::min<int64_t>(10, I);
  const DeviceMatrix x(dev, I, F);
  Array<int32_t> idx(dev, I * k);
  Array<int64_t> tied(dev, 1);
  Line& l = b.measure("knn_cosine", fmt::format("baby: {} items of {}, k {}", I, F, k), 4.0 * double(I) * double(F + k),
                      2.0 * double(I) * double(I) * double(F),
                      [&] { dev.ops.knn_cosine(dev.ctx, idx.p(), tied.p(), x, k, false, 1); });
  if (by_cub > 0)
    l.at_least("CUB sorting the same similarities by row, without computing them (over 100 %: ours is faster)",
               by_cub * double(I * I) / l.warm);
}

// Seconds a similarity of CUB's segmented radix sort on one strip of the neighbour lists: the library's way to the best
// k of each row.
double sorted_by_cub(Bench& b) {
  Device& dev = b.dev();
  const int64_t rows = b.n(2048), cols = b.n(4096);
  const std::vector<float> some = random_floats(rows * cols);
  std::vector<uint32_t> keys;
  std::vector<int32_t> ids;
  for (size_t e = 0; e < some.size(); ++e)
    keys.push_back(uint32_t((some[e] + 1) * 2147483000.0f)), ids.push_back(int32_t(int64_t(e) % cols));
  const Array<uint32_t> from(dev, keys);
  const Array<int32_t> id(dev, ids);
  Array<uint32_t> to(dev, rows * cols);
  Array<int32_t> id_to(dev, rows * cols);
  const Line& l = b.measure(
      "knn_cosine", fmt::format("CUB's sort of {} rows of {} similarities", rows, cols), 16.0 * double(rows * cols), 0,
      [&] { cuda::library::sort_segments(dev.ctx, to.p(), id_to.p(), from.p(), id.p(), rows, cols); });
  return l.warm / double(rows * cols);
}

}  // namespace

void ranking(Bench& b) {
  if (b.wanted({"score_topk"})) ranking_of(b, "baby", kBaby), ranking_of(b, "elec", kElec);
  if (b.wanted({"knn_cosine"})) {
    const double by_cub = sorted_by_cub(b);
    neighbours(b, 384, by_cub), neighbours(b, 4096, by_cub);
  }
}

}  // namespace ccdrec::bench
