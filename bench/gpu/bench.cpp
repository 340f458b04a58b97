#include "bench/gpu/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "kernels/cuda/library.h"

namespace ccdrec::bench {
namespace {

double percentile(std::vector<double> v, double p) {
  std::sort(v.begin(), v.end());
  return v[size_t(std::llround(p * double(v.size() - 1)))];
}

struct Noting {  // what is called meanwhile counts as measured
  Noting() { noted().noting = true; }
  ~Noting() { noted().noting = false; }
};

}  // namespace

Bench::Bench(double scale, std::string only) : only_(std::move(only)) {
  check_device("cuda");
  dev_ = std::make_unique<Device>(noted_ops(*gpu_ops()), 1);
  open_gpu(dev_->ctx, "fp32");
  clock_ = std::make_unique<GpuClock>(dev_->ctx);
  report_.gpu = gpu_info().name, report_.scale = scale;
}

bool Bench::wanted(std::initializer_list<std::string> group) const {
  return only_.empty() || std::any_of(group.begin(), group.end(),
                                      [&](const std::string& op) { return op.find(only_) != std::string::npos; });
}

void Bench::failed(const std::string& what, const std::string& why) {
  report_.failures.push_back(what + ": " + why);
  std::cerr << "bench_gpu: " << report_.failures.back() << "\n";
}

Line& Bench::measure(const std::string& op, const std::string& shape, double bytes, double flop,
                     const std::function<void()>& call) {
  {
    const Noting noting;
    call();
  }
  call();
  dev_->wait();
  void* const recorded = dev_->ops.record(dev_->ctx, call);
  const auto again = [&] { dev_->ops.replay(dev_->ctx, recorded); };
  again();
  const double once = clock_->seconds(again);
  const int repeat = scale() < 1 ? 2 : int(std::clamp(1e-3 / std::max(once, 1e-7), 1.0, 200.0)),
            samples = scale() < 1   ? 3
                      : once > 0.05 ? 5
                                    : 25;
  void* const together = dev_->ops.record(dev_->ctx, [&] {
    for (int r = 0; r < repeat; ++r) call();
  });
  std::vector<double> warm, cold;
  for (int k = 0; k < samples; ++k)
    warm.push_back(clock_->seconds([&] { dev_->ops.replay(dev_->ctx, together); }) / repeat);
  for (int k = 0; k < std::min(samples, 9); ++k) {
    clock_->flush_l2();
    cold.push_back(clock_->seconds(again));
  }
  dev_->ops.forget(dev_->ctx, together);
  dev_->ops.forget(dev_->ctx, recorded);
  dev_->check_faults();
  Line l;
  l.op = op, l.shape = shape, l.bytes = bytes, l.flop = flop;
  l.warm = percentile(warm, 0.5), l.least = percentile(warm, 0), l.cold = percentile(cold, 0.5);
  l.spread = (percentile(warm, 0.9) - percentile(warm, 0.1)) / l.warm;
  report_.lines.push_back(l);
  std::cerr << fmt::format("{:<22} {:<46} {:>10.1f} us warm {:>10.1f} us cold\n", op, shape, 1e6 * l.warm,
                           1e6 * l.cold);
  return report_.lines.back();
}

Shape scaled(Shape s, double f) {
  return {std::max<int64_t>(20, int64_t(double(s.U) * f)), std::max<int64_t>(30, int64_t(double(s.I) * f)),
          std::max<int64_t>(100, int64_t(double(s.E) * f))};
}

Array<float> floats(Device& dev, int64_t n) {
  Array<float> a(dev, n);
  const std::vector<float> piece = random_floats(std::min<int64_t>(n, int64_t(1) << 20));
  for (int64_t at = 0; at < n; at += int64_t(piece.size()))
    a.upload(piece.data(), std::min<int64_t>(n - at, int64_t(piece.size())), at);
  return a;
}
std::vector<int32_t> evenly(int64_t n, int64_t of) {
  std::vector<int32_t> rows;
  for (int64_t j = 0; j < n; ++j) rows.push_back(int32_t(j * of / n));
  return rows;
}
void restore(Device& dev, const Array<int32_t>& to, const Array<int32_t>& from) {
  cuda::library::copy(dev.ctx, to.p(), from.p(), size_t(from.n()) * sizeof(int32_t));
}

DeviceGraph::DeviceGraph(Device& dev, SkewedPairs given, double rho)
    : pairs(std::move(given)), N(pairs.shape.U + pairs.shape.I) {
  const UserItemGraph g(pairs, rho);
  nnz = g.nnz(), host_ptr = g.row_ptr;
  train_ptr = Array<int64_t>(dev, pairs.row_ptr), train_col = Array<int32_t>(dev, pairs.item);
  ptr = Array<int64_t>(dev, g.row_ptr), col = Array<int32_t>(dev, g.col), val = Array<float>(dev, g.val);
  user = Array<int32_t>(dev, pairs.user), item = Array<int32_t>(dev, pairs.item),
  weight = Array<float>(dev, pairs.weight);
}

DeviceSteps::DeviceSteps(Device& dev) {
  std::vector<AdamCoef> steps;
  for (int64_t t = 1; t <= 64; ++t) steps.push_back(adam_coef(1e-3, {}, t));
  coef = Array<AdamCoef>(dev, steps);
}

// Second moments of 1e-2 throughout: those of a table at rest would let a row be passed over.
DeviceTable::DeviceTable(Device& dev, int64_t rows, int64_t cols, int32_t value_step, int32_t moments_step)
    : value(dev, rows, cols), m(dev, rows, cols), v(dev, rows, cols), value_at(dev, rows), moments_at(dev, rows) {
  const std::vector<float> some(size_t(std::min<int64_t>(rows * cols, int64_t(1) << 20)), 1e-2f);
  for (int64_t at = 0; at < rows * cols; at += int64_t(some.size()))
    v.array().upload(some.data(), std::min<int64_t>(rows * cols - at, int64_t(some.size())), at);
  value_from = Array<int32_t>(dev, std::vector<int32_t>(size_t(rows), value_step));
  moments_from = Array<int32_t>(dev, std::vector<int32_t>(size_t(rows), moments_step));
}

}  // namespace ccdrec::bench
